use faultline_core::{Detector, Score, Window};
use serde_json::json;

use super::{Config, MaskedSpan, Model};
use crate::{
    algorithm::Algorithm,
    registry,
    testing::{TraceFixture, application, score_all},
};

fn fit(config: &Config, fixtures: &[TraceFixture], seed: u64) -> Model {
    let windows: Vec<Window<'_>> = fixtures.iter().map(TraceFixture::window).collect();
    MaskedSpan::fit(config, &windows, seed).expect("there are traces")
}

fn normal(seed: u64, n: usize) -> Vec<TraceFixture> {
    application(seed, n, 0.0).into_iter().map(|(trace, _)| trace).collect()
}

/// Enough for what has two shapes.
fn quick() -> Config {
    Config { width: 16, hidden: 16, learning_rate: 1e-2, ..Config::default() }
}

fn scores(model: &mut Model, fixtures: &[TraceFixture]) -> Vec<Score> {
    let windows: Vec<Window<'_>> = fixtures.iter().map(TraceFixture::window).collect();
    score_all(model, &windows).into_iter().map(|score| score.expect("it is judged")).collect()
}

fn score(model: &mut Model, fixture: &TraceFixture) -> Score {
    scores(model, std::slice::from_ref(fixture))[0]
}

/// A trace of callers and services, one after the other.
fn trace(calls: &[(Option<u32>, &str)]) -> TraceFixture {
    let rows: Vec<_> = calls.iter().zip(0i64..).map(|(call, idx)| (call.0, call.1, 10 * idx, 5i64)).collect();
    TraceFixture::of("t", &rows)
}

const CART: [(Option<u32>, &str); 4] = [(None, "gateway"), (Some(0), "cart"), (Some(1), "stock"), (Some(1), "price")];
const MAIL: [(Option<u32>, &str); 3] = [(None, "gateway"), (Some(0), "user"), (Some(1), "mail")];

fn carts_and_mails() -> Vec<TraceFixture> {
    (0..60).map(|idx| if idx % 3 == 0 { trace(&MAIL) } else { trace(&CART) }).collect()
}

#[test]
fn broken_structure_is_found_and_normal_traces_and_late_ones_are_not() {
    let mut model = fit(&quick(), &normal(1, 400), 1);
    let later = scores(&mut model, &normal(2, 400));
    assert!(later.iter().all(|score| score.value < 1.0), "no normal trace has an error: {:?}", model.learned.level);
    let (mut n_found, mut n_broken) = (0, 0);
    for (trace, _) in application(3, 150, 1.0) {
        // A service that is slow leaves no mark.
        let n_spans = trace.spans.len();
        let is_unknown = trace.services.iter().any(|service| &**service == "audit");
        let found = score(&mut model, &trace);
        if is_unknown || n_spans == 3 {
            n_broken += 1;
            n_found += usize::from(found.value >= 1.0);
        } else {
            assert!(found.value < 1.0, "{found:?}");
        }
    }
    assert!(n_broken > 60 && n_found * 10 >= n_broken * 9, "{n_found} of {n_broken}");
}

#[test]
fn what_is_missing_extra_or_elsewhere_is_blamed_and_told_of() {
    let mut model = fit(&quick(), &carts_and_mails(), 2);
    assert!(score(&mut model, &trace(&CART)).value < 1.0 && score(&mut model, &trace(&MAIL)).value < 1.0);
    let missing = trace(&CART[..2]);
    let found = score(&mut model, &missing);
    assert!(found.value >= 1.0 && found.culprit == 1, "{found:?}");
    let evidence = model.explain(&missing.window(), &found);
    let told = "cart do called nothing (";
    assert!(evidence.summary.contains(told) && evidence.summary.contains("where stock do ("), "{}", evidence.summary);
    assert_eq!((evidence.culprit, evidence.records.first()), (Some(2), Some(&2)));
    assert!(evidence.figures["n_errors"] >= 1.0 && evidence.figures["n_places"] == 4.0);
    // One that nobody knows.
    let extra = trace(&[CART[0], CART[1], CART[2], (Some(1), "audit"), CART[3]]);
    let found = score(&mut model, &extra);
    assert!(found.value >= 1.0 && found.culprit == 3, "{found:?}");
    let summary = model.explain(&extra.window(), &found).summary;
    assert!(summary.contains("cart do called audit do (never seen), where "), "{summary}");
    // Known, but not there.
    let elsewhere = trace(&[CART[0], CART[1], (Some(1), "mail"), CART[3]]);
    assert!(score(&mut model, &elsewhere).value >= 1.0);
}

#[test]
fn what_is_known_of_a_shape_is_what_the_network_says_and_the_cache_is_bounded() {
    let config = Config { cache_shapes: 4, ..quick() };
    let (mut small, mut large) = (fit(&config, &carts_and_mails(), 3), fit(&quick(), &carts_and_mails(), 3));
    let services = ["gateway", "cart", "stock", "price", "user", "mail", "audit"];
    let odd: Vec<TraceFixture> = (0..49)
        .map(|idx| trace(&[(None, "gateway"), (Some(0), services[idx % 7]), (Some(1), services[idx / 7])]))
        .collect();
    let first = scores(&mut small, &odd);
    assert!(small.cache.len() <= 4);
    assert_eq!(scores(&mut small, &odd), first);
    assert_eq!((scores(&mut large, &odd), scores(&mut large, &odd)), (first.clone(), first));
    assert_eq!(large.cache.len(), 49);
}

#[test]
fn traces_of_one_span_of_none_and_of_too_many_are_taken() {
    let mut model = fit(&Config { max_spans: 3, ..quick() }, &carts_and_mails(), 4);
    let one = trace(&CART[..1]);
    let mut cut = one.clone();
    cut.n_dropped = 1;
    let windows = [one.window(), TraceFixture::empty("none").window(), cut.window()]
        .map(|window| score_all(&mut model, &[window])[0]);
    assert!(windows[0].is_some() && windows[1].is_none() && windows[2].is_none());
    // Of a long trace the first spans are judged, as far as they are whole.
    let long: Vec<(Option<u32>, &str)> = (0..500).map(|idx: u32| (idx.checked_sub(1), "cart")).collect();
    let long = trace(&long);
    let found = score(&mut model, &long);
    assert_eq!(found, Score { value: 0.0, culprit: 0 }, "a chain whose end is not known holds nothing that is whole");
    assert_eq!(model.explain(&long.window(), &found).summary, "no span of the trace can be judged");
    let wide: Vec<(Option<u32>, &str)> = (0..500).map(|idx: u32| ((idx > 0).then_some(0), "mail")).collect();
    let found = score(&mut model, &trace(&wide));
    assert!(found.value > 0.0 && found.culprit < 3, "{found:?}");
}

#[test]
fn a_snapshot_brings_back_scores_to_the_bit_and_refuses_another_size() {
    let mut model = fit(&quick(), &carts_and_mails(), 5);
    let snapshot = model.snapshot().expect("written");
    let mut again = MaskedSpan::load(&quick(), &snapshot).expect("its own");
    let later: Vec<TraceFixture> = application(6, 60, 0.5).into_iter().map(|(trace, _)| trace).collect();
    assert_eq!(scores(&mut model, &later), scores(&mut again, &later));
    assert_eq!((again.version(), again.snapshot().expect("written")), (model.version(), snapshot.clone()));
    let error = MaskedSpan::load(&Config::default(), &snapshot).expect_err("it is wider").to_string();
    assert!(error.contains("`width` 16"), "{error}");
}

#[test]
fn the_bounds_on_labels_shapes_and_training_hold() {
    let config = Config { max_labels: 3, max_shapes: 1, max_training_places: 50, ..quick() };
    let mut model = fit(&config, &carts_and_mails(), 6);
    assert_eq!(model.learned.labels.len(), 3);
    assert!(scores(&mut model, &carts_and_mails()).iter().all(|score| score.value.is_finite()));
}

#[test]
fn values_out_of_range_are_refused_by_key() {
    let entry = registry::entry("masked-span").expect("it is listed");
    let fixtures = carts_and_mails();
    let windows: Vec<Window<'_>> = fixtures.iter().map(TraceFixture::window).collect();
    for (config, key) in [(json!({"width": 7}), "width"), (json!({"error_share": 0.7}), "error_share")] {
        let Err(error) = entry.fit(&config, &windows, 0) else { panic!("{key} is out of range") };
        assert!(error.to_string().contains(&format!("key `{key}`")), "{error}");
    }
}
