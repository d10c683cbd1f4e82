//! Every kind of event, and its tie to the readings.

use super::*;
use crate::{
    emission::Pattern,
    model::LoadModel,
    run::{
        Request,
        tests::{request, run_of},
    },
};

fn all(run: &Arc<Run>) -> Vec<Event> {
    let meters: Vec<u32> = (0..run.fleet().len()).collect();
    let mut source = Events::new(run.clone(), &meters);
    let (mut contexts, mut here, mut all) = (Contexts::default(), Vec::new(), Vec::new());
    for bucket in run.first_interval()..run.end_interval().unwrap() {
        source.of_bucket(bucket, &mut contexts, &mut here);
        all.append(&mut here);
    }
    all
}

#[test]
fn a_month_has_every_kind_of_event_each_with_an_id_of_its_own() {
    let request = Request {
        events: true,
        demo_events: true,
        load: LoadModel::Utility,
        voltage_anomaly_rate: 0.02,
        ..request(3_000, 31, Pattern::Partial)
    };
    let run = Arc::new(run_of(&request, 4, 2));
    let events = all(&run);
    let mut ids: Vec<_> = events.iter().map(|event| event.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), events.len());
    let count = |kind: EventType| events.iter().filter(|event| event.event_type == kind).count();
    for kind in [
        EventType::LastGasp,
        EventType::PowerRestored,
        EventType::MomentaryInterruption,
        EventType::VoltageSagStart,
        EventType::VoltageSwellEnd,
        EventType::ReverseEnergy,
        EventType::ClockError,
        EventType::RemoteDisconnect,
        EventType::CommLost,
        EventType::CommRestored,
    ] {
        assert!(count(kind) > 0, "{kind:?}");
    }
    let (gasps, restored) = (count(EventType::LastGasp), count(EventType::PowerRestored));
    assert!(restored > gasps && gasps * 2 > restored, "{gasps} gasps, {restored} restored");
    assert!(events.iter().all(|event| event.received >= event.at));
    // Three thousand meters in a month: 0.8 of 1,000 meters and workday, disconnected and connected.
    let remote = count(EventType::RemoteDisconnect) + count(EventType::RemoteConnect);
    assert!((45..110).contains(&remote), "{remote}");
}

#[test]
fn a_gasp_and_its_restoration_carry_the_outage_that_the_readings_show() {
    let request = Request { events: true, demo_events: true, ..request(2_000, 7, Pattern::Uniform) };
    let run = Arc::new(run_of(&request, 4, 1));
    let mut contexts = Contexts::default();
    let mut checked = 0;
    for event in all(&run).iter().filter(|event| event.event_type == EventType::PowerRestored) {
        let (id, _) = event.outage.as_ref().unwrap();
        let duration = event.duration_s.unwrap() * 1000;
        if duration < 2 * 900_000 {
            continue;
        }
        // The middle of the outage: the reading there is out, for the same cause.
        let middle = (event.at - duration / 2).div_euclid(900_000);
        let context = contexts.get(run.model(), middle);
        let fault = run.model().fault(event.meter, context).expect("out");
        checked += usize::from(fault.outage_id() == *id);
    }
    assert!(checked > 20, "{checked}");
}
