//! Processes killed and frozen at random, and every row once in the end.

use std::time::{Duration, Instant};

use crate::harness::{Broker, Process, Stack};

const RUN: &str = "00000000000000c4";
/// Longer than the session timeout and the transaction timeout of the tests, 6 s.
const FREEZE: Duration = Duration::from_secs(9);

/// SplitMix64: the schedule is a function of the printed seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (value ^ (value >> 31)) % bound
    }
}

fn chaos(broker: Broker, kills: usize, freezes: usize, rows_per_second: &str, days: &str) {
    let seed = std::env::var("FLUX_CHAOS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64
    });
    println!("chaos seed {seed}; again with FLUX_CHAOS_SEED={seed}");
    let mut chance = Chance(seed);
    let stack = Stack::new(broker);
    let produce = |own: &'static str| -> Vec<&str> {
        vec![
            "produce",
            "--run",
            RUN,
            "--seed",
            "11",
            "--meters",
            "1000",
            "--days",
            days,
            "--own",
            own,
            "--rate",
            rows_per_second,
        ]
    };
    let roles: Vec<Vec<&str>> = vec![
        produce("0,2"),
        produce("1,3"),
        vec!["sink", "postgres"],
        vec!["sink", "postgres"],
        vec!["sink", "s3"],
        vec!["sink", "s3"],
        vec!["sink", "snowpipe"],
        vec!["sink", "snowpipe"],
    ];
    let mut processes: Vec<Process> = roles.iter().map(|role| stack.start(role)).collect();
    let mut frozen: Vec<(usize, Instant)> = Vec::new();
    let mut deeds: Vec<bool> = (0..kills + freezes).map(|deed| deed < kills).collect();
    for index in (1..deeds.len()).rev() {
        deeds.swap(index, chance.below(index as u64 + 1) as usize);
    }
    let (mut killed, mut froze) = (0, 0);
    let thaw = |frozen: &mut Vec<(usize, Instant)>, processes: &[Process], all: bool| {
        frozen.retain(|(target, since)| {
            let over = since.elapsed() >= FREEZE;
            if over || all {
                // A freeze that is cut short proves less: wait for its end.
                std::thread::sleep(FREEZE.saturating_sub(since.elapsed()));
                processes[*target].signal(libc::SIGCONT);
            }
            !(over || all)
        });
    };
    for kill in deeds {
        std::thread::sleep(Duration::from_millis(500 + chance.below(2500)));
        thaw(&mut frozen, &processes, false);
        // A producer that is done, or one that is frozen, is not hit again.
        let candidates: Vec<usize> = (0..roles.len())
            .filter(|index| !frozen.iter().any(|(target, _)| target == index))
            .filter(|index| processes[*index].ended().is_none())
            .collect();
        let target = candidates[chance.below(candidates.len() as u64) as usize];
        if kill {
            processes[target].signal(libc::SIGKILL);
            processes[target].wait(Duration::from_secs(10));
            processes[target] = stack.start(&roles[target]);
            killed += 1;
        } else {
            processes[target].signal(libc::SIGSTOP);
            frozen.push((target, Instant::now()));
            froze += 1;
        }
    }
    thaw(&mut frozen, &processes, true);
    assert_eq!((killed, froze), (kills, freezes));
    for producer in &mut processes[..2] {
        let code = producer.wait(Duration::from_secs(240));
        assert_eq!(code, 0, "{}: {}", producer.name, producer.words());
    }
    let rows = 1000 * 96 * days.parse::<u64>().unwrap();
    stack.assert_proven(RUN, rows);
    for sink in &mut processes[2..] {
        assert_eq!(sink.ended(), None, "{}: {}", sink.name, sink.words());
    }
}

#[test]
fn twenty_kills_and_six_freezes_on_apache_kafka_lose_and_double_nothing() {
    chaos(Broker::Apache, 20, 6, "4000", "5");
}

#[test]
fn kills_and_freezes_on_the_local_broker_lose_and_double_nothing() {
    chaos(Broker::Local, 8, 2, "6000", "2");
}
