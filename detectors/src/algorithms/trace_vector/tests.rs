use faultline_core::{Detector, Score, Window};
use serde_json::json;

use super::{Account, Config, Kinds, PathVector, TraceVector, UNHEARD_OF};
use crate::{
    algorithm::Algorithm,
    registry,
    testing::{TraceFixture, application, score_all},
};

/// Paths and milliseconds.
type Own = (Vec<u64>, Vec<f64>);

fn vector(own: &Own) -> PathVector<'_> {
    PathVector { root: 1, paths: &own.0, ms: &own.1 }
}

fn fit(config: &Config, traces: &[Own]) -> Kinds {
    Kinds::fit(config, &traces.iter().map(vector).collect::<Vec<_>>()).expect("there are traces")
}

fn value(kinds: &Kinds, paths: &[u64], ms: &[f64]) -> f64 {
    kinds.judge(&PathVector { root: 1, paths, ms }).expect("it takes paths").value
}

/// Nothing is trimmed, and nothing is rare.
fn plain() -> Config {
    Config { trim: 0.0, rare_share: 0.0, ..Config::default() }
}

#[test]
fn a_delay_counts_from_the_longest_of_its_kind() {
    let kinds = fit(&plain(), &[(vec![1, 2], vec![100.0, 20.0]), (vec![1, 2], vec![90.0, 40.0])]);
    // 60 beyond on the second path, 30 of the whole.
    assert_eq!(value(&kinds, &[1, 2], &[130.0, 100.0]), 45.0);
    assert_eq!(value(&kinds, &[1, 2], &[100.0, 40.0]), 0.0);
    assert_eq!(value(&kinds, &[1, 2], &[100.0, 10.0]), 0.0, "the worst path counts");
    assert_eq!(value(&kinds, &[1, 2], &[80.0, 10.0]), -20.0);
}

#[test]
fn the_longest_few_are_trimmed() {
    let traces: Vec<Own> = (0..200).map(|idx| (vec![1], vec![f64::from(idx)])).collect();
    let kinds = fit(&Config { trim: 0.01, ..plain() }, &traces);
    assert_eq!(value(&kinds, &[1], &[197.0]), 0.0, "198 and 199 are left out");
    assert_eq!(value(&fit(&plain(), &traces), &[1], &[199.0]), 0.0);
}

#[test]
fn what_is_unseen_weighs_as_much_as_a_delay_that_is_as_seldom() {
    // Alone among the others the longest is 1 beyond, the next ones are 1, 2, ... below.
    let mut traces: Vec<Own> = (1..=100).map(|ms| (vec![1], vec![f64::from(ms)])).collect();
    let kinds = fit(&plain(), &traces);
    assert_eq!(value(&kinds, &[1, 7], &[50.0, 5.0]), UNHEARD_OF + 1.0, "none was alone of its kind");
    traces.extend((2..5).map(|path| (vec![1, path], vec![50.0, 5.0])));
    let kinds = fit(&plain(), &traces);
    assert_eq!(value(&kinds, &[1, 7], &[50.0, 5.0]), -2.0, "as the third longest delay: three were alone");
    assert_eq!(value(&kinds, &[1, 7, 8], &[50.0, 5.0, 5.0]), UNHEARD_OF + 2.0, "none was so far from the others");
    let unknown = PathVector { root: 9, paths: &[9, 10], ms: &[1.0, 1.0] };
    let found = kinds.judge(&unknown).expect("it takes paths");
    assert_eq!((found.value, found.account, found.kind), (UNHEARD_OF + 3.0, Account::Unseen, None));
}

/// Two thousand traces of one kind, ten of them slow, and thirty that break off.
fn contaminated() -> Vec<Own> {
    let spread = |idx: u32, factor: u32| f64::from(idx * factor % 1000) / 100.0;
    let mut traces: Vec<Own> =
        (0..2000).map(|idx| (vec![1, 2], vec![100.0 + spread(idx, 7919), 50.0 + spread(idx, 5381)])).collect();
    traces.extend((0..10).map(|_| (vec![1, 2], vec![1100.0, 1000.0])));
    traces.extend((0..30).map(|idx| (vec![1], vec![20.0 + f64::from(idx) / 10.0])));
    traces
}

#[test]
fn failures_in_training_do_not_become_normal() {
    let traces = contaminated();
    let share_below = |kinds: &Kinds, found: f64| {
        let is_below = |own: &&Own| value(kinds, &own.0, &own.1) < found;
        traces[..2000].iter().filter(is_below).count() as f64 / 2000.0
    };
    let kinds = fit(&Config::default(), &traces);
    assert!(share_below(&kinds, value(&kinds, &[1], &[21.5])) > 0.98, "it still breaks off");
    assert!(share_below(&kinds, value(&kinds, &[1, 2], &[1100.0, 1000.0])) >= 1.0, "it is still slow");
    assert!(value(&kinds, &[1, 2], &[1100.0, 1000.0]) > 900.0);
    assert_eq!(
        value(&fit(&plain(), &traces), &[1, 2], &[1100.0, 1000.0]),
        0.0,
        "the longest of training learn what is slow"
    );
    let without_slow = [&traces[..2000], &traces[2010..]].concat();
    let naive = fit(&plain(), &without_slow);
    assert!(share_below(&naive, value(&naive, &[1], &[21.5])) < 0.9, "and what breaks off");
}

#[test]
fn a_million_operations_take_no_more_room_than_the_limits() {
    let ids: Vec<u64> = (0..1_000_000).collect();
    let vectors: Vec<PathVector<'_>> =
        ids.chunks(2).map(|paths| PathVector { root: 1, paths, ms: &[2.0, 1.0] }).collect();
    let config = Config { max_kinds: 1_000, max_paths: 1_500, ..Config::default() };
    let kinds = Kinds::fit(&config, &vectors).expect("there are traces");
    assert_eq!(kinds.size(), (750, 1_500));
    assert!(value(&kinds, &[3, 5], &[1.0, 1.0]).is_finite());
}

/// Gateway, cart, stock; and gateway, checkout.
fn training() -> Vec<TraceFixture> {
    (0..40)
        .map(|idx| {
            let slack = idx % 5;
            // In milliseconds.
            let rows = if idx % 2 == 0 {
                vec![(None, "gateway", 0, 100 + slack), (Some(0), "cart", 10, 60 + slack), (Some(1), "stock", 20, 30)]
            } else {
                vec![(None, "gateway", 0, 50 + slack), (Some(0), "checkout", 10, 20 + slack)]
            };
            let rows: Vec<_> = rows.into_iter().map(|row| (row.0, row.1, row.2 * 1000, row.3 * 1000)).collect();
            TraceFixture::of(&format!("t{idx}"), &rows)
        })
        .collect()
}

fn model() -> super::Model {
    let training = training();
    let windows: Vec<Window<'_>> = training.iter().map(TraceFixture::window).collect();
    TraceVector::fit(&Config::default(), &windows, 0).expect("there are traces")
}

fn score(model: &mut super::Model, trace: &TraceFixture) -> Score {
    score_all(model, &[trace.window()])[0].expect("it is judged")
}

#[test]
fn of_a_delay_the_deepest_path_with_half_of_it_is_to_blame() {
    let rows = [(None, "gateway", 0, 400_000), (Some(0), "cart", 10_000, 360_000), (Some(1), "stock", 20_000, 330_000)];
    let (slow, mut model) = (TraceFixture::of("slow", &rows), model());
    let found = score(&mut model, &slow);
    assert_eq!((found.value, found.culprit), (298.0, 2));
    let evidence = model.explain(&slow.window(), &found);
    assert_eq!(
        evidence.summary,
        "stock do took 330.0 ms, where 30.0 ms are the longest that is usual in 20 traces of this kind; 3 of its 3 call \
         paths took longer than they do"
    );
    assert_eq!((evidence.culprit, &evidence.records[..1]), (Some(3), &[3][..]));
    // Only the cart: the stock's thirty are no half of its three hundred.
    let rows = [(None, "gateway", 0, 400_000), (Some(0), "cart", 10_000, 360_000), (Some(1), "stock", 20_000, 60_000)];
    assert_eq!(score(&mut model, &TraceFixture::of("slow", &rows)).culprit, 1);
}

#[test]
fn of_another_structure_the_place_is_to_blame_at_which_it_parts() {
    let mut model = model();
    let rows = [
        (None, "gateway", 0, 100_000),
        (Some(0), "cart", 10_000, 60_000),
        (Some(1), "audit", 11_000, 2_000),
        (Some(2), "ledger", 11_500, 1_000),
        (Some(1), "stock", 20_000, 30_000),
    ];
    let extra = TraceFixture::of("extra", &rows);
    let found = score(&mut model, &extra);
    assert_eq!((found.value, found.culprit), (UNHEARD_OF + 2.0, 2), "the first call that is new");
    let summary = model.explain(&extra.window(), &found).summary;
    assert!(summary.contains("adds 2 (") && summary.contains("audit do") && !summary.contains("lacks"), "{summary}");
    let cut = TraceFixture::of("cut", &[(None, "gateway", 0, 100_000), (Some(0), "cart", 10_000, 60_000)]);
    let found = score(&mut model, &cut);
    assert_eq!((found.value, found.culprit), (UNHEARD_OF + 1.0, 1), "the caller of what is missing");
    let summary = model.explain(&cut.window(), &found).summary;
    assert!(summary.ends_with("it lacks 1 (stock do)"), "{summary}");
}

#[test]
fn a_trace_without_all_its_spans_is_not_judged() {
    let mut cut = training().swap_remove(0);
    cut.n_dropped = 1;
    assert_eq!(score_all(&mut model(), &[cut.window(), TraceFixture::empty("none").window()]), [None, None]);
}

#[test]
fn what_a_person_calls_normal_is_from_then_on_and_after_a_restart() {
    let rows = [(None, "gateway", 0, 400_000), (Some(0), "cart", 10_000, 360_000), (Some(1), "stock", 20_000, 330_000)];
    let (slow, cut) = (TraceFixture::of("slow", &rows), TraceFixture::of("cut", &[(None, "gateway", 0, 100_000)]));
    let mut model = model();
    for threshold in [-20.0, 0.0, 5.0] {
        for odd in [&slow, &cut] {
            let version = model.version();
            if score(&mut model, odd).value < threshold {
                assert_eq!(model.accept(&odd.window(), threshold), 0, "it is normal");
                continue;
            }
            assert!(model.accept(&odd.window(), threshold) > 0);
            assert_ne!(model.version(), version);
            assert!(score(&mut model, odd).value < threshold);
            assert_eq!(model.accept(&odd.window(), threshold), 0, "there is nothing to learn twice");
        }
    }
    let snapshot = model.snapshot().expect("written");
    let mut again = TraceVector::load(&Config::default(), &snapshot).expect("its own");
    assert_eq!((again.version(), again.snapshot().expect("written")), (model.version(), snapshot));
    assert_eq!(score(&mut again, &slow), score(&mut model, &slow));
}

#[test]
fn an_application_whose_training_holds_failures_is_watched_all_the_same() {
    let training = application(3, 2_000, 0.01);
    let windows: Vec<Window<'_>> = training.iter().map(|(trace, _)| trace.window()).collect();
    let mut model = TraceVector::fit(&Config::default(), &windows, 0).expect("there are traces");
    let mut scores = |seed: u64, share: f64| {
        let traces = application(seed, 500, share);
        let windows: Vec<Window<'_>> = traces.iter().map(|(trace, _)| trace.window()).collect();
        let values = score_all(&mut model, &windows).into_iter().map(|score| score.expect("it is judged").value);
        values.collect::<Vec<f64>>()
    };
    let mut normal = scores(4, 0.0);
    normal.sort_unstable_by(f64::total_cmp);
    let threshold = normal[normal.len() * 97 / 100];
    let abnormal = scores(5, 1.0);
    let n_found = abnormal.iter().filter(|value| **value > threshold).count();
    assert!(n_found * 100 > abnormal.len() * 90, "{n_found} of {}", abnormal.len());
}

#[test]
fn values_out_of_range_are_refused_by_key() {
    let entry = registry::entry("trace-vector").expect("it is listed");
    let (config, windows) = (json!({"trim": 0.7}), training());
    let windows: Vec<Window<'_>> = windows.iter().map(TraceFixture::window).collect();
    let Err(error) = entry.fit(&config, &windows, 0) else { panic!("more than half is trimmed") };
    assert!(error.to_string().contains("key `trim`"), "{error}");
}
