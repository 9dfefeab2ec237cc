use faultline_core::{Detector, Score, Window};
use serde_json::json;

use super::{Config, Model, SpanLstm};
use crate::{
    algorithm::Algorithm,
    registry,
    testing::{TraceFixture, application, score_all},
};

fn fit(config: &Config, fixtures: &[TraceFixture], seed: u64) -> Model {
    let windows: Vec<Window<'_>> = fixtures.iter().map(TraceFixture::window).collect();
    SpanLstm::fit(config, &windows, seed).expect("there are traces")
}

fn normal(seed: u64, n: usize) -> Vec<TraceFixture> {
    application(seed, n, 0.0).into_iter().map(|(trace, _)| trace).collect()
}

/// Enough for what has one shape or two.
fn quick() -> Config {
    Config { hidden: 16, epochs: 10, ..Config::default() }
}

fn scores(model: &mut Model, fixtures: &[TraceFixture]) -> Vec<Score> {
    let windows: Vec<Window<'_>> = fixtures.iter().map(TraceFixture::window).collect();
    score_all(model, &windows).into_iter().map(|score| score.expect("it is judged")).collect()
}

/// The score that so many in a hundred normal traces stay below.
fn quantile(scores: &[Score], percent: usize) -> f64 {
    let mut values: Vec<f64> = scores.iter().map(|score| score.value).collect();
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() * percent / 100]
}

/// Gateway, cart, stock in order, in milliseconds; the last takes `ms`.
fn cart(name: &str, ms: i64) -> TraceFixture {
    let rows = [
        (None, "gateway", 0, 60_000 + ms * 1_000),
        (Some(0), "cart", 10_000, 20_000 + ms * 1_000),
        (Some(1), "stock", 15_000, ms * 1_000),
    ];
    TraceFixture::of(name, &rows)
}

/// A hundred and twenty such traces, which vary a little.
fn carts() -> Vec<TraceFixture> {
    (0..120).map(|idx| cart(&format!("t{idx}"), 20 + idx * 7 % 11)).collect()
}

#[test]
fn broken_structure_and_late_spans_are_found_and_normal_traces_are_not() {
    let mut model = fit(&quick(), &normal(1, 500), 1);
    let threshold = quantile(&scores(&mut model, &normal(2, 500)), 97);
    let later = scores(&mut model, &normal(3, 500));
    let n_false = later.iter().filter(|score| score.value > threshold).count();
    assert!(n_false <= 35, "{n_false} of 500 normal traces");
    let abnormal: Vec<TraceFixture> = application(4, 200, 1.0).into_iter().map(|(trace, _)| trace).collect();
    let n_found = scores(&mut model, &abnormal).iter().filter(|score| score.value > threshold).count();
    assert!(n_found >= 180, "{n_found} of 200");
}

#[test]
fn of_a_delay_the_deepest_span_that_shares_it_is_to_blame_and_its_times_are_told() {
    let mut model = fit(&Config { epochs: 300, ..quick() }, &carts(), 2);
    let slow = cart("slow", 900);
    let found = scores(&mut model, std::slice::from_ref(&slow))[0];
    assert!(found.value > quantile(&scores(&mut model, &carts()), 99), "{found:?}");
    assert_eq!(found.culprit, 2, "the others wait for the stock");
    let evidence = model.explain(&slow.window(), &found);
    assert!(evidence.summary.starts_with("stock do took 900 ms where "), "{}", evidence.summary);
    assert!(evidence.summary.ends_with("above what is usual"), "{}", evidence.summary);
    assert_eq!((evidence.culprit, &evidence.records[..]), (Some(3), &[3, 2, 1][..]), "with its callers");
    assert!(evidence.figures["deviations"] > 3.0 && evidence.figures["expected_ms"] < 100.0);
}

#[test]
fn what_was_not_expected_is_told_beside_what_was() {
    let mut model = fit(&Config { epochs: 300, ..quick() }, &carts(), 2);
    let usual = quantile(&scores(&mut model, &carts()), 99);
    // The stock is not asked.
    let cut = TraceFixture::of("cut", &[(None, "gateway", 0, 82_000), (Some(0), "cart", 10_000, 42_000)]);
    let found = scores(&mut model, std::slice::from_ref(&cut))[0];
    assert!(found.value > usual && found.culprit == 1, "{found:?}");
    let summary = model.explain(&cut.window(), &found).summary;
    assert!(summary.starts_with("after cart do the trace ended") && summary.contains("stock do ("), "{summary}");
    // Somebody else is.
    let mut other = cart("other", 22);
    other.services[2] = "ledger".into();
    let found = scores(&mut model, std::slice::from_ref(&other))[0];
    assert_eq!(found.culprit, 2);
    let evidence = model.explain(&other.window(), &found);
    assert!(evidence.summary.starts_with("training held no ledger do; expected: stock do ("), "{}", evidence.summary);
    assert_eq!(evidence.figures["n_unknown"], 1.0);
    // Known, but elsewhere.
    let rows = [(None, "gateway", 0, 82_000), (Some(0), "stock", 10_000, 22_000), (Some(1), "cart", 15_000, 42_000)];
    let turned = TraceFixture::of("turned", &rows);
    assert!(scores(&mut model, std::slice::from_ref(&turned))[0].value > usual);
}

#[test]
fn a_label_that_is_often_new_surprises_less() {
    let with_new = |n_new: usize| {
        let mut fixtures = carts();
        for (idx, trace) in fixtures.iter_mut().take(n_new).enumerate() {
            trace.services[2] = format!("new {idx}").into();
        }
        fixtures
    };
    let of_unknown = |n_new: usize| fit(&Config { epochs: 1, ..quick() }, &with_new(n_new), 3).learned.of_unknown;
    let (never, often) = (of_unknown(0), of_unknown(40));
    assert!((never - 242f64.ln()).abs() < 1e-9, "half a trace of 121: {never}");
    assert!((often - (121.0 / 40.5f64).ln()).abs() < 1e-9, "{often}");
}

#[test]
fn traces_of_one_span_of_none_and_of_too_many_are_taken() {
    let config = Config { max_spans: 4, ..quick() };
    let mut model = fit(&config, &normal(1, 100), 4);
    let one = TraceFixture::of("one", &[(None, "gateway", 0, 5)]);
    let mut cut = one.clone();
    cut.n_dropped = 1;
    let long = normal(5, 20).into_iter().max_by_key(|trace| trace.spans.len()).expect("there are twenty");
    let found =
        score_all(&mut model, &[one.window(), TraceFixture::empty("none").window(), cut.window(), long.window()]);
    assert!(found[0].is_some() && found[1].is_none() && found[2].is_none());
    // What comes later is not read: with other times there it scores the same.
    let before = found[3].expect("its first spans are judged");
    let mut later = long.clone();
    later.spans[4..].iter_mut().for_each(|span| span.duration_nanos = 1 << 50);
    assert!(long.spans.len() > 4 && before.culprit < 4);
    assert_eq!(score_all(&mut model, &[later.window()]), [Some(before)]);
}

#[test]
fn a_snapshot_brings_back_scores_to_the_bit_and_refuses_another_size() {
    let mut model = fit(&quick(), &normal(1, 120), 5);
    let snapshot = model.snapshot().expect("written");
    let mut again = SpanLstm::load(&quick(), &snapshot).expect("its own");
    let later: Vec<TraceFixture> = application(6, 60, 0.5).into_iter().map(|(trace, _)| trace).collect();
    assert_eq!(scores(&mut model, &later), scores(&mut again, &later));
    assert_eq!((again.version(), again.snapshot().expect("written")), (model.version(), snapshot.clone()));
    let error = SpanLstm::load(&Config::default(), &snapshot).expect_err("it is wider").to_string();
    assert!(error.contains("`hidden` 16"), "{error}");
}

#[test]
fn the_bounds_on_labels_shapes_and_training_hold() {
    let config = Config { max_labels: 3, max_shapes: 1, max_training_spans: 50, ..quick() };
    let fixtures = normal(1, 200);
    let mut model = fit(&config, &fixtures, 6);
    assert_eq!((model.learned.labels.len(), model.learned.scales.len()), (3, 3));
    // All traces have labels beyond the three, so that is no surprise.
    assert!(model.learned.of_unknown < 0.01, "{}", model.learned.of_unknown);
    assert!(scores(&mut model, &fixtures).iter().all(|score| score.value.is_finite()));
}

#[test]
fn values_out_of_range_are_refused_by_key() {
    let entry = registry::entry("span-lstm").expect("it is listed");
    let fixtures = normal(1, 20);
    let windows: Vec<Window<'_>> = fixtures.iter().map(TraceFixture::window).collect();
    let Err(error) = entry.fit(&json!({"hidden": 0}), &windows, 0) else { panic!("a layer of nothing") };
    assert!(error.to_string().contains("key `hidden`"), "{error}");
}
