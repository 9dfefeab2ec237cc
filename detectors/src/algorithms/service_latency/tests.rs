use std::sync::Arc;

use faultline_core::{AlertState, CallName, Detector, Part, ServiceEntry, Window, WindowKey, hash::StableHash};
use serde_json::{Value, json};

use super::{Config, Model, PERSISTS, ServiceLatency};
use crate::{
    alerting::AlertConfig,
    algorithm::Algorithm,
    budget::Budget,
    lifecycle::Monitor,
    registry,
    testing::{ServiceFixture, score_all, service_minutes},
    traces::services::SERVICES,
};

/// A minute of the cart: of each trace one time of each part, in milliseconds.
fn minute(minute: i64, traces: &[[f64; 3]]) -> ServiceFixture {
    let texts = ["GET /cart", "gateway GET > cart GET /cart", "cart SELECT > db SELECT"];
    let name = |text: &str| CallName { hash: StableHash::new().text(text).finish(), text: Arc::from(text) };
    let mut entries = Vec::new();
    for (trace, times) in (0..).zip(traces) {
        for (idx, part) in (0..).zip(Part::ALL) {
            let nanos = (times[idx as usize] * 1e6) as i64;
            entries.push(ServiceEntry { nanos, record: u64::from(3 * trace + idx) + 1, name: idx, trace, part });
        }
    }
    ServiceFixture {
        key: WindowKey { stream: Arc::from(SERVICES), session: Arc::from("cart") },
        start_unix_nano: minute * ServiceFixture::STEP_NANOS,
        entries,
        n_traces: traces.len() as u64,
        names: texts.map(name).to_vec(),
    }
}

/// Times that are e^residual of the usual 10, 5 and 2 milliseconds.
fn times(residuals: [f64; 3]) -> [f64; 3] {
    let usual = [10.0, 5.0, 2.0];
    [0, 1, 2].map(|idx| (usual[idx] + 0.2) * f64::exp(residuals[idx]) - 0.2)
}

fn quiet(at: i64) -> ServiceFixture {
    minute(at, &[times([0.0; 3]); 16])
}

fn model() -> Model {
    let minutes: Vec<ServiceFixture> = (0..10).map(quiet).collect();
    let windows: Vec<Window<'_>> = minutes.iter().map(ServiceFixture::window).collect();
    ServiceLatency::fit(&Config::default(), &windows, 0).expect("there are times")
}

fn z(model: &mut Model, fixture: &ServiceFixture) -> f64 {
    score_all(model, &[fixture.window()])[0].expect("its names are known").value
}

#[test]
fn the_score_is_the_median_in_standard_errors_of_the_part_that_stands_out_most() {
    let mut model = model();
    let slow = minute(20, &[times([0.1, 1.0, -1.0]); 16]);
    let found = score_all(&mut model, &[slow.window()])[0].expect("its names are known");
    let error = f64::sqrt(1.57 * 0.8 * 0.8 / 16.0 + 0.25 * 0.25);
    assert!((found.value - 1.0 / error).abs() < 0.01, "{} for {}", found.value, 1.0 / error);
    assert_eq!(slow.entries[found.culprit].part, Part::Into);
    let evidence = model.explain(&slow.window(), &found);
    assert_eq!(
        evidence.summary,
        "traces spent 2.7 times as long as usual on the way into cart, by the median of 16; gateway GET > cart GET /cart \
         took 13.9 ms where 5.0 ms are usual"
    );
    assert_eq!(evidence.culprit, Some(slow.entries[found.culprit].record));
    assert!((evidence.figures["n_traces"], evidence.records.len()) == (16.0, 16), "{evidence:?}");
}

#[test]
fn one_slow_trace_is_nothing_and_unknown_names_have_no_say() {
    let mut model = model();
    let mut traces = [times([0.0; 3]); 16];
    traces[3] = times([6.0; 3]);
    assert!(z(&mut model, &minute(20, &traces)).abs() < 0.1);
    let mut unknown = quiet(21);
    unknown.names.iter_mut().for_each(|name| name.hash ^= 1);
    assert_eq!(score_all(&mut model, &[unknown.window()]), [None]);
}

#[test]
fn a_service_stands_out_until_it_is_back_for_three_minutes_at_most_and_teaches_nothing_meanwhile() {
    let mut model = model();
    let (slow, half) = (times([4.0, 0.0, 0.0]), times([1.1, 0.0, 0.0]));
    let step = |model: &mut Model, at: i64, traces: &[[f64; 3]]| {
        let fixture = minute(at, traces);
        let value = z(model, &fixture);
        model.learn(&[fixture.window()]);
        value
    };
    let usual = model.snapshot().expect("written");
    assert!(step(&mut model, 20, &[slow; 16]) > 10.0);
    for at in 21..24 {
        assert_eq!(step(&mut model, at, &[half; 16]), 4.5, "minute {at}");
    }
    let restarted = ServiceLatency::load(&Config::default(), &usual).expect("its own");
    assert_eq!(
        restarted.baseline.judge(quiet(0).window().as_service().expect("a service")).map(|found| found.z),
        model.baseline.judge(quiet(0).window().as_service().expect("a service")).map(|found| found.z),
        "nothing was learned"
    );
    let later = step(&mut model, 24, &[half; 16]);
    assert!((2.25..4.0).contains(&later), "{later}");
    // What is back is back.
    step(&mut model, 30, &[slow; 16]);
    assert!(step(&mut model, 31, &[times([0.0; 3]); 16]) < 1.0);
    assert!(step(&mut model, 32, &[half; 16]) < 4.0);
}

#[test]
fn a_fault_in_training_does_not_become_usual_but_a_new_speed_does() {
    let slow = |at: i64| minute(at, &[times([3.0; 3]); 16]);
    let fit = |n_slow: i64| {
        let minutes: Vec<ServiceFixture> = (0..10).map(quiet).chain((10..10 + n_slow).map(slow)).collect();
        let windows: Vec<Window<'_>> = minutes.iter().map(ServiceFixture::window).collect();
        ServiceLatency::fit(&Config::default(), &windows, 0).expect("there are times")
    };
    assert!(z(&mut fit(20), &slow(100)) > 8.0);
    assert!(z(&mut fit(i64::from(PERSISTS) + 40), &slow(100)) < 1.0);
}

#[test]
fn what_a_person_calls_normal_is_usual_from_then_on_and_after_a_restart() {
    let (mut model, slow) = (model(), minute(20, &[times([3.0; 3]); 2]));
    let (version, cut) = (model.version(), z(&mut model, &slow));
    assert!(cut > 2.0);
    assert_eq!(model.accept(&slow.window(), cut), 3);
    assert_ne!(model.version(), version);
    assert!(z(&mut model, &slow) < 1.0);
    assert_eq!(model.accept(&slow.window(), cut), 0, "there is nothing to learn twice");
    let snapshot = model.snapshot().expect("written");
    let mut again = ServiceLatency::load(&Config::default(), &snapshot).expect("its own");
    assert_eq!((again.version(), z(&mut again, &slow)), (model.version(), z(&mut model, &slow)));
    assert_eq!(again.snapshot().expect("written"), model.snapshot().expect("written"));
}

#[test]
fn a_million_operations_take_no_more_room_than_the_limits() {
    let config = Config { max_names: 100, max_services: 5, ..Config::default() };
    let first = quiet(0);
    let mut model = ServiceLatency::fit(&config, &[first.window()], 0).expect("there are times");
    let mut fixture = minute(1, &[times([0.0; 3]); 10]);
    for idx in 0..33_000_i64 {
        // Thirty new names each.
        fixture.start_unix_nano += ServiceFixture::STEP_NANOS;
        fixture.key.session = Arc::from(format!("cart {}", idx % 100));
        let hashes = fixture.entries.iter().map(|entry| u64::from(entry.trace) * 3 + u64::from(entry.name));
        fixture.names = hashes.map(|own| CallName { hash: (idx as u64) << 8 | own, text: Arc::from("") }).collect();
        fixture.entries.iter_mut().zip(0..).for_each(|(entry, name)| entry.name = name % 30);
        score_all(&mut model, &[fixture.window()]);
        model.learn(&[fixture.window()]);
    }
    let (n_names, n_parts) = model.baseline.size();
    assert!(n_names <= 100 && n_parts <= 15, "{n_names} names, {n_parts} parts");
    assert!(model.standing.len() <= 5);
}

#[test]
fn an_episode_is_one_alert_that_names_the_service() {
    let warm_up = service_minutes(1, 1_000, 100, 0.0);
    let windows: Vec<Window<'_>> = warm_up.iter().map(|(minute, _)| minute.window()).collect();
    let (training, calibration) = crate::lifecycle::collector::split(&windows, 0.3);
    let entry = registry::entry("service-latency").expect("it is listed");
    let model = crate::Model::fit(entry, &Value::Null, &training, &calibration, 0.0, 0).expect("it fits");
    let alerting = AlertConfig {
        budget: Budget::UNLIMITED,
        false_discovery_rate: 1.0,
        significance: 0.01,
        ..AlertConfig::default()
    };
    let mut monitor = Monitor::fitted(vec![model], alerting).expect("a model");
    let mut minutes = service_minutes(2, 2_000, 5, 1.0);
    minutes.extend(service_minutes(3, 2_005, 5, 0.0));
    let mut told = Vec::new();
    for minute in minutes.chunk_by(|one, other| one.0.start_unix_nano == other.0.start_unix_nano) {
        let windows: Vec<Window<'_>> = minute.iter().map(|(minute, _)| minute.window()).collect();
        told.extend(monitor.process(&windows).alerts);
        told.extend(monitor.advance_to(minute[0].0.start_unix_nano + ServiceFixture::STEP_NANOS));
    }
    let stock: Vec<_> = told.iter().filter(|alert| alert.service == "stock").collect();
    assert!(stock.iter().all(|alert| alert.id == stock[0].id), "{stock:?}");
    let last = stock.last().expect("it was slow");
    assert_eq!((&*last.stream, &*last.session, &*last.signal), (SERVICES, "stock", "traces"));
    assert_eq!((last.n_windows, last.state), (5, AlertState::Resolved));
    assert!(last.evidence.summary.contains("in stock"), "{}", last.evidence.summary);
}

#[test]
fn values_out_of_range_are_refused_by_key() {
    let entry = registry::entry("service-latency").expect("it is listed");
    let Err(error) = entry.fit(&json!({"stands_out": 0.0}), &[], 0) else { panic!("everything stands out") };
    assert!(error.to_string().contains("key `stands_out`"), "{error}");
}
