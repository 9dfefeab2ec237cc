//! The trace detectors against the Python models that their figures were measured with, on small parts of public data; and
//! `trace-anomaly`, whose draws no other program makes, against normal and abnormal traces.

use std::{io::Read, sync::Arc};

use faultline_core::{CallName, Part, ServiceEntry, Window, WindowKey, hash::StableHash};
use faultline_detectors::{
    algorithms::{
        trace_anomaly::{self, Buffers, Network},
        trace_vector::{Config, Kinds, PathVector, UNHEARD_OF},
    },
    registry,
    testing::{ServiceFixture, score_all},
    traces::services::SERVICES,
};
use serde_json::Value;

fn text(compressed: &[u8]) -> String {
    let mut text = String::new();
    zstd::Decoder::new(compressed).expect("a zstd frame").read_to_string(&mut text).expect("text");
    text
}

fn number<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("`{text}` is no number"))
}

/// A line of `column:milliseconds`.
fn vector<'a>(fields: impl Iterator<Item = &'a str>) -> Own {
    let field = |field: &str| {
        let (column, ms) = field.split_once(':').expect("column:milliseconds");
        (number::<u64>(column), number::<f64>(ms))
    };
    fields.map(field).unzip()
}

/// Columns and milliseconds.
type Own = (Vec<u64>, Vec<f64>);

/// Vectors to learn from; and those to judge, each with whether it is abnormal and what the Python model gives it.
fn trainticket() -> (Vec<Own>, Vec<(bool, f64, Own)>) {
    let text = text(include_bytes!("fixtures/trace_vectors.txt.zst"));
    let (mut training, mut judged) = (Vec::new(), Vec::new());
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let mut fields = line.split_whitespace();
        let part = fields.next().expect("a first word");
        if part == "train" {
            training.push(vector(fields));
        } else {
            let expected: f64 = number(fields.next().expect("a score"));
            judged.push((part == "abnormal", expected, vector(fields)));
        }
    }
    assert_eq!((training.len(), judged.len()), (1_758, 238), "the file is complete");
    (training, judged)
}

/// The first column is the root's: the columns of an entry begin with it.
fn path_vector(own: &Own) -> PathVector<'_> {
    PathVector { root: own.0[0], paths: &own.0, ms: &own.1 }
}

#[test]
fn the_network_tells_abnormal_vectors_of_trainticket_from_normal_ones() {
    let (training, judged) = trainticket();
    let vectors: Vec<PathVector<'_>> = training.iter().map(path_vector).collect();
    let config = trace_anomaly::Config { hidden: 32, samples: 16, ..trace_anomaly::Config::default() };
    let network = Network::fit(&config, &vectors, 1).expect("there are traces");
    assert_eq!(network.size(), (21, 482));
    let (mut normal, mut abnormal, mut buffers) = (Vec::new(), Vec::new(), Buffers::default());
    for (is_abnormal, _, own) in &judged {
        let found = network.judge(&path_vector(own), &mut buffers).expect("it takes paths");
        assert!(found.value.is_finite() && found.n_unseen == 0, "{found:?}");
        let all = if *is_abnormal { &mut abnormal } else { &mut normal };
        all.push(found.value);
    }
    normal.sort_unstable_by(f64::total_cmp);
    let threshold = normal[normal.len() * 95 / 100];
    let n_found = abnormal.iter().filter(|value| **value > threshold).count();
    assert!(n_found * 100 >= abnormal.len() * 90, "{n_found} of {} beyond {threshold}", abnormal.len());
}

#[test]
fn vectors_of_trainticket_score_as_the_python_model_scores_them() {
    let (training, judged) = trainticket();
    let vectors: Vec<PathVector<'_>> = training.iter().map(path_vector).collect();
    let kinds = Kinds::fit(&Config::default(), &vectors).expect("there are traces");
    assert_eq!(kinds.size().0, 21);
    let (mut normal, mut abnormal) = (Vec::new(), Vec::new());
    for (is_abnormal, expected, own) in &judged {
        let vector = path_vector(own);
        let found = kinds.judge(&vector).expect("it takes paths");
        assert!((found.value - expected).abs() <= 1e-6 * expected.abs().max(10.0), "{found:?}, expected {expected}");
        let culprit = kinds.culprit(&vector, &found, |idx| idx as u32);
        assert!(culprit < own.0.len(), "{culprit}");
        let all = if *is_abnormal { &mut abnormal } else { &mut normal };
        all.push(found.value);
    }
    normal.sort_unstable_by(f64::total_cmp);
    let threshold = normal[normal.len() * 99 / 100];
    let n_found = abnormal.iter().filter(|value| **value > threshold).count();
    assert!(n_found * 100 >= abnormal.len() * 97, "{n_found} of {} beyond {threshold}", abnormal.len());
    assert!(abnormal.iter().filter(|value| **value > UNHEARD_OF).count() > 90, "most have call paths that none had");
}

/// A minute of one service, and of those that are to be scored what it scores.
struct Minute {
    service: ServiceFixture,
    expected: Option<(f64, String)>,
}

fn minutes(text: &str) -> (Vec<Minute>, Vec<Minute>) {
    let mut names = Vec::new();
    let (mut training, mut scored): (Vec<Minute>, Vec<Minute>) = (Vec::new(), Vec::new());
    let mut is_training = true;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields[..] {
            ["name", _, name] => {
                names.push(CallName { hash: StableHash::new().text(name).finish(), text: Arc::from(name) });
            }
            [kind @ ("train" | "score"), minute, service, z, part] => {
                is_training = kind == "train";
                let fixture = ServiceFixture {
                    key: WindowKey { stream: Arc::from(SERVICES), session: Arc::from(service) },
                    start_unix_nano: number::<i64>(minute) * ServiceFixture::STEP_NANOS,
                    entries: Vec::new(),
                    n_traces: 0,
                    names: names.clone(),
                };
                let expected = (z != "-").then(|| (number(z), part.to_owned()));
                let all = if is_training { &mut training } else { &mut scored };
                all.push(Minute { service: fixture, expected });
            }
            [part, name, ms, trace] => {
                let all = if is_training { &mut training } else { &mut scored };
                let minute = &mut all.last_mut().expect("a minute before its times").service;
                let part = match part {
                    "s" => Part::Own,
                    "n" => Part::Into,
                    _ => Part::OutOf,
                };
                let nanos = (number::<f64>(ms) * 1e6).round() as i64;
                let record = minute.entries.len() as u64 + 1;
                minute.n_traces = number::<u64>(trace) + 1;
                minute.entries.push(ServiceEntry { nanos, record, name: number(name), trace: number(trace), part });
            }
            _ => panic!("`{line}` is no such line"),
        }
    }
    (training, scored)
}

#[test]
fn minutes_of_nezha_score_as_the_python_model_scores_them_and_name_the_slow_service() {
    let (training, scored) = minutes(&text(include_bytes!("fixtures/service_minutes.txt.zst")));
    let windows: Vec<Window<'_>> = training.iter().map(|minute| minute.service.window()).collect();
    let entry = registry::entry("service-latency").expect("it is listed");
    let mut model = entry.fit(&Value::Null, &windows, 0).expect("there are times");
    assert_eq!((windows.len(), scored.len()), (28, 95), "the file is complete");
    let mut standing = Vec::new();
    for Minute { service, expected } in &scored {
        let window = service.window();
        let found = score_all(&mut *model, &[window])[0];
        let (minute, name) = (service.start_unix_nano / ServiceFixture::STEP_NANOS, &service.key.session);
        assert_eq!(found.is_some(), expected.is_some(), "{name} in {minute}");
        if let Some((found, (z, part))) = found.zip(expected.as_ref()) {
            assert!((found.value - z).abs() < 0.02, "{name} in {minute}: {} where {z} is expected", found.value);
            if *z >= 4.5 {
                let own = service.entries[found.culprit].part;
                let expected = match part.as_str() {
                    "self" => Part::Own,
                    "net" => Part::Into,
                    _ => Part::OutOf,
                };
                assert_eq!(own, expected, "{name} in {minute}");
                standing.push((minute - 27_917_990, name.to_string()));
            }
        }
        model.learn(&[window]);
    }
    // Faults: a delay on the way to contacts, a contention for the processor of basic, a delay on the way to basic.
    let of = |service: &str| standing.iter().filter(|one| one.1 == service).map(|one| one.0).collect::<Vec<_>>();
    assert_eq!(of("ts-contacts-service"), [2, 3]);
    assert_eq!(of("ts-basic-service"), [9, 10, 11, 12, 17, 18, 19]);
    assert_eq!(of("ts-travel-service"), [17, 18, 19], "it waits for basic");
    assert_eq!(standing.len(), 12, "nobody else: {standing:?}");
}
