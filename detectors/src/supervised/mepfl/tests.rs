use faultline_core::{Detector, Evidence, TraceWindow, Window};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::{Config, Mepfl, Model};
use crate::{
    registry::REGISTRY,
    supervised::{
        SUPERVISED,
        forest::ForestConfig,
        labels::{Fault, Label},
    },
    testing::{TraceFixture, score_all},
};

const SERVICES: [&str; 3] = ["cart", "stock", "mail"];
const KINDS: [&str; 3] = ["cpu", "delay", "exception"];

/// A gateway asks a cart, which asks stock and mail. `fault` is the service and what is wrong with it: its own time,
/// the way into it, or that it fails before it calls.
fn trace(rng: &mut ChaCha8Rng, fault: Option<(usize, usize)>) -> TraceFixture {
    let mut noise = || rng.random_range(0.8..1.25_f64);
    let own = |service: usize, ms: f64| if fault == Some((service, 0)) { 8.0 * ms } else { ms };
    let way = |service: usize| if fault == Some((service, 1)) { 80.0 } else { 2.0 };
    let fails = |service: usize| fault == Some((service, 2));
    let micros = |ms: f64| (ms * 1000.0) as i64;
    let (stock, mail) = (own(1, 20.0) * noise(), own(2, 5.0) * noise());
    let (stock_way, mail_way) = (way(1) * noise(), way(2) * noise());
    let cart_own = own(0, 10.0) * noise();
    let inner = if fails(0) { 0.0 } else { stock + stock_way + mail + mail_way };
    let cart = cart_own + inner;
    let cart_way = way(0) * noise();
    let gateway = 4.0 * noise() + cart + cart_way;
    let mut found = TraceFixture::empty("t");
    let mut at = |caller: Option<u32>, service: &str, operation: &str, start: f64, ms: f64| {
        found.push(caller, service, operation, (micros(start) * 1000, micros(ms) * 1000))
    };
    let root = at(None, "gateway", "do", 0.0, gateway);
    let calls_cart = at(Some(root), "gateway", "call cart", 1.0, cart + cart_way);
    let cart_span = at(Some(calls_cart), "cart", "do", 1.0 + cart_way / 2.0, cart);
    let mut start = 1.0 + cart_way / 2.0 + cart_own / 2.0;
    if !fails(0) {
        for (service, ms, way) in [("stock", stock, stock_way), ("mail", mail, mail_way)] {
            let call = at(Some(cart_span), "cart", &format!("call {service}"), start, ms + way);
            let span = at(Some(call), service, "do", start + way / 2.0, ms);
            let idx = if service == "stock" { 1 } else { 2 };
            if !fails(idx) {
                at(Some(span), service, "query", start + way / 2.0 + 0.1 * ms, 0.5 * ms);
            }
            start += ms + way;
        }
    }
    if let Some((service, 2)) = fault {
        let names = found.services.clone();
        let failed = found.spans.iter_mut().filter(|span| *names[span.service as usize] == *SERVICES[service]);
        failed.for_each(|span| span.is_error = true);
    }
    // A service has one number, whatever it does.
    let names = found.services.clone();
    let number = |place: u32| names.iter().position(|name| *name == names[place as usize]).expect("it is there");
    found.spans.iter_mut().for_each(|span| span.service = number(span.service) as u32);
    found
}

/// Traces of which every third was disturbed, by each of some services and kinds in turn.
fn labelled(seed: u64, n: usize, faults: &[(usize, usize)]) -> (Vec<TraceFixture>, Vec<Label>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let one = |idx: usize| {
        let fault = idx.is_multiple_of(3).then(|| faults[idx / 3 % faults.len()]);
        let label = fault.map_or(Label::Normal, |(service, kind)| {
            Label::Fault(Fault { service: SERVICES[service].into(), kind: KINDS[kind].into() })
        });
        (trace(&mut rng, fault), label)
    };
    (0..n).map(one).unzip()
}

fn every_fault() -> Vec<(usize, usize)> {
    (0..3).flat_map(|service| (0..3).map(move |kind| (service, kind))).collect()
}

fn windows(traces: &[TraceFixture]) -> Vec<TraceWindow<'_>> {
    traces.iter().map(TraceFixture::trace).collect()
}

fn config() -> Config {
    let forest = ForestConfig { n_trees: 40, rows_a_tree: 1_000, ..ForestConfig::default() };
    Config { forest, ..Config::default() }
}

fn fit(seed: u64, faults: &[(usize, usize)]) -> Model {
    let (traces, labels) = labelled(seed, 900, faults);
    Mepfl::fit_labelled(&config(), &windows(&traces), &labels, 1).expect("it has labels")
}

/// Shares of the traces that are judged rightly, and of the disturbed ones those whose service and whose kind is named.
fn accuracy(model: &mut Model, traces: &[TraceFixture], labels: &[Label]) -> (f64, f64, f64) {
    let (mut n_right, mut n_faults, mut n_services, mut n_kinds) = (0, 0, 0, 0);
    for (trace, label) in traces.iter().zip(labels) {
        let found = model.predict(&trace.trace()).expect("it has all its spans");
        n_right += usize::from((found.error > 0.5) == label.fault().is_some());
        let Some(fault) = label.fault() else { continue };
        n_faults += 1;
        n_services += usize::from(trace.services[found.services[0].0 as usize] == fault.service);
        n_kinds += usize::from(found.kind().is_some_and(|kind| model.kinds()[kind] == fault.kind));
    }
    let of = |n: usize, all: usize| n as f64 / all.max(1) as f64;
    (of(n_right, traces.len()), of(n_services, n_faults), of(n_kinds, n_faults))
}

#[test]
fn planted_faults_are_noticed_placed_and_named() {
    let mut model = fit(1, &every_fault());
    let (traces, labels) = labelled(2, 450, &every_fault());
    let (error, service, kind) = accuracy(&mut model, &traces, &labels);
    assert!(error > 0.95 && service > 0.9 && kind > 0.9, "{error}, {service}, {kind}");
    assert_eq!(model.kinds().iter().map(|kind| &**kind).collect::<Vec<_>>(), KINDS);
}

#[test]
fn a_service_that_never_failed_in_training_is_found_by_what_failing_looks_like() {
    // Cart and stock fail in training, the mail afterwards.
    let shown: Vec<_> = every_fault().into_iter().filter(|(service, _)| *service < 2).collect();
    let mut model = fit(1, &shown);
    let (traces, labels) = labelled(2, 300, &[(2, 0), (2, 1)]);
    let (error, service, kind) = accuracy(&mut model, &traces, &labels);
    assert!(error > 0.85 && service > 0.7 && kind > 0.7, "{error}, {service}, {kind}");
}

#[test]
fn a_verdict_that_a_trace_is_normal_is_believed() {
    let (mut traces, mut labels) = labelled(1, 600, &every_fault());
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    // A person says of slow mails that they are nothing.
    for label in &mut labels {
        if label.fault().is_some_and(|fault| (&*fault.service, &*fault.kind) == ("mail", "cpu")) {
            *label = Label::Normal;
        }
    }
    for _ in 0..60 {
        traces.push(trace(&mut rng, Some((2, 0))));
        labels.push(Label::Normal);
    }
    let mut model = Mepfl::fit_labelled(&config(), &windows(&traces), &labels, 1).expect("it has labels");
    let mut error = |fault| model.predict(&trace(&mut rng, Some(fault)).trace()).expect("complete").error;
    assert!(error((2, 0)) < 0.5 && error((1, 0)) > 0.5);
}

#[test]
fn it_is_loaded_like_any_detector_and_scores_the_same() {
    let entry = SUPERVISED.iter().find(|entry| entry.name == "mepfl").expect("it is listed");
    let mut model = fit(1, &every_fault());
    let snapshot = model.snapshot().expect("written");
    assert!(fit(1, &every_fault()).snapshot().expect("written") == snapshot, "the same labels and seed");
    let mut again = entry.load(&Value::Null, &snapshot).expect("its own");
    assert_eq!((again.version(), again.snapshot().expect("written")), (model.version(), snapshot.clone()));
    let (traces, labels) = labelled(3, 60, &every_fault());
    let windows: Vec<Window<'_>> = traces.iter().map(TraceFixture::window).collect();
    let scores = score_all(&mut model, &windows);
    assert_eq!(score_all(&mut *again, &windows), scores);
    let one_by_one: Vec<_> = windows.iter().map(|window| score_all(&mut *again, &[*window])[0]).collect();
    assert_eq!(one_by_one, scores);
    for ((score, window), label) in scores.iter().zip(&windows).zip(&labels) {
        let score = score.expect("it is judged");
        let evidence = model.explain(window, &score);
        assert!(evidence.figures.values().all(|figure| figure.is_finite()));
        assert!(!evidence.records.is_empty() && evidence.records.len() <= Evidence::MAX_RECORDS);
        if let Some(fault) = label.fault().filter(|_| score.value > 3.0) {
            assert!(evidence.summary.contains(&*fault.service), "{} of {fault:?}", evidence.summary);
        }
    }
    assert!(entry.load(&Value::Null, &snapshot[..snapshot.len() / 2]).is_err());
    assert!(entry.load(&Value::Null, b"").is_err());
}

#[test]
fn without_labels_it_says_what_it_needs_and_the_registry_does_not_have_it() {
    let (traces, _) = labelled(1, 30, &every_fault());
    let windows: Vec<Window<'_>> = traces.iter().map(TraceFixture::window).collect();
    for entry in SUPERVISED {
        let Err(error) = entry.fit(&Value::Null, &windows, 1) else { panic!("{} pretends", entry.name) };
        assert!(error.to_string().contains("label"), "{error}");
        assert!(REGISTRY.iter().all(|other| other.name != entry.name));
    }
    let entry = &SUPERVISED[0];
    let Err(error) = entry.fit(&json!({"max_traces": 0}), &windows, 1) else { panic!("no trace is none") };
    assert!(error.to_string().contains("key `max_traces`"), "{error}");
}

#[test]
fn labels_that_do_not_suffice_are_refused() {
    let (traces, labels) = labelled(1, 30, &every_fault());
    let windows = windows(&traces);
    let fit =
        |windows: &[TraceWindow<'_>], labels: &[Label]| Mepfl::fit_labelled(&config(), windows, labels, 1).is_ok();
    assert!(fit(&windows, &labels));
    assert!(!fit(&windows, &labels[1..]), "a label is missing");
    assert!(!fit(&[], &[]));
    assert!(!fit(&windows, &vec![Label::Normal; 30]), "no fault");
    let elsewhere = Label::Fault(Fault { service: "nobody".into(), kind: "cpu".into() });
    assert!(!fit(&windows, &vec![elsewhere.clone(); 30]), "nothing normal");
    let mut unplaced = vec![Label::Normal; 30];
    unplaced[0] = elsewhere;
    assert!(!fit(&windows, &unplaced), "the disturbed trace did not call the faulty service");
}

#[test]
fn odd_traces_are_scored_soundly_or_not_at_all() {
    let mut model = fit(1, &every_fault());
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut odd = vec![TraceFixture::of("unknown", &[(None, "nobody", 0, 5), (Some(0), "knows", 1, 0)])];
    for change in [i64::MAX, 0, -7] {
        let mut changed = trace(&mut rng, None);
        changed.spans.iter_mut().for_each(|span| span.duration_nanos = change);
        odd.push(changed);
    }
    for trace in &odd {
        let score = score_all(&mut model, &[trace.window()])[0].expect("it has all its spans");
        assert!(score.value.is_finite() && score.culprit < trace.spans.len());
    }
    let mut cut = trace(&mut rng, None);
    cut.n_dropped = 1;
    assert_eq!(score_all(&mut model, &[cut.window(), TraceFixture::empty("none").window()]), [None, None]);
}
