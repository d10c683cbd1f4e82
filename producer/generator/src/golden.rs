//! The golden hash: a number that stands for every value a model version makes.
//!
//! A run records it, the producer compares it at start and `verify` before it judges: a binary whose values differ
//! must not resume a run or call its rows altered.

use std::sync::LazyLock;

use crate::{
    area::SERVICE_AREAS,
    fleet::{Fleet, Shape},
    model::{BaseUnit, Conditions, LoadModel, Model},
    noise::mix64,
};

/// Hash of 65,536 readings of a fixed sample, 16 hexadecimal digits.
pub fn hash() -> &'static str {
    static HASH: LazyLock<String> = LazyLock::new(|| format!("{:016x}", sample(65_536)));
    &HASH
}

fn sample(readings: i64) -> u64 {
    let fleet = Fleet::new(20_260_101, 1_000, &SERVICE_AREAS[0], [70, 20, 10], Shape::default());
    let model = |load| Model::new(20_260_101, &fleet, 900, load, &Conditions::default());
    let documented = model(LoadModel::Documented(BaseUnit::PerReading));
    let utility = model(LoadModel::Utility);
    let mut hash = mix64(u64::from(fleet.len()));
    let mut absorb = |value: u64| hash = mix64(hash ^ value).rotate_left(17);
    let per_interval = 256;
    for step in 0..readings / per_interval {
        // Spread over two years, so that every season, band and change of clocks is in it.
        let model = if step % 2 == 0 { &documented } else { &utility };
        let context = model.context(1_963_584 + step * 271);
        for draw in 0..per_interval {
            let meter = ((step * per_interval + draw) % 1_000) as u32;
            let values = model.values(meter, &context);
            absorb(values.usage.0 as u64);
            absorb(values.voltage.0 as u64);
            absorb(values.quality as u64);
            if draw % 16 == 0 {
                let wide = model.wide(meter, fleet.place(meter).segment, &context);
                absorb(wide.reactive as u64);
                absorb(wide.power_factor.unwrap_or_default() as u64);
                absorb(wide.voltage.0 as u64 ^ (wide.voltage.1 as u64) << 32);
                absorb(wide.temperature as u64 ^ u64::from(wide.flags as u32) << 32);
            }
            for byte in fleet.transformer_id(fleet.place(meter).transformer).bytes() {
                absorb(u64::from(byte));
            }
        }
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MODEL_VERSION;

    #[test]
    fn the_golden_hash_holds_on_this_machine() {
        assert_eq!(MODEL_VERSION, 3, "a new model version needs a new golden hash here");
        assert_eq!(hash(), "a2857f640a8fdb59", "values changed: increment MODEL_VERSION and record the new hash");
        assert_eq!(format!("{:016x}", sample(1_000_000)), "4189e435081a2451");
    }
}
