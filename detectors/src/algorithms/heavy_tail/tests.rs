use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

use faultline_core::{Detector, Score, Window};

use super::{Config, HeavyTail, Model, Track, judge_series, of_several, profile::Profile, tail::Tail};
use crate::{
    Algorithm,
    testing::{SeriesFixture, score_all},
};

const MINUTE: i64 = SeriesFixture::STEP_NANOS;

/// A file of NAB with what the Python that this was measured with says of it.
#[derive(Deserialize)]
struct Nab {
    step_nanos: i64,
    first_step: i64,
    n_probation: usize,
    values: Vec<f64>,
    /// By the times of the rows, of which some are missing.
    slots: Vec<usize>,
    /// Plain tail probabilities of distances by slot, a hundredth of the points in the tail; those above 4.
    hill: BTreeMap<usize, f64>,
    /// S that is news, rows taken for steps.
    scores: BTreeMap<usize, f64>,
}

fn nab() -> Nab {
    serde_json::from_str(include_str!("../../../tests/fixtures/heavy_tail.json")).expect("the fixture")
}

/// Normal enough, deviation 1.
fn noise(seed: u64, n: usize) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|_| (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0).collect()
}

/// What a model is told of a series, point by point.
fn surprises(config: &Config, points: &[f64]) -> Vec<f64> {
    let mut track = Track::begin(config, MINUTE);
    let mut surprises = vec![0.0; points.len()];
    track.judge(0, points, config, |idx, judged| surprises[idx] = judged.told());
    surprises
}

/// Points told of that are as rare as one in `odds`.
fn n_rarer(surprises: &[f64], odds: f64) -> usize {
    surprises.iter().filter(|surprise| **surprise >= odds.ln()).count()
}

fn fit(config: &Config, series: &[SeriesFixture]) -> Model {
    let windows: Vec<Window<'_>> = series.iter().flat_map(|series| series.pieces(100)).collect();
    HeavyTail::fit(config, &windows, 0).expect("any points will do")
}

#[test]
fn scores_on_a_file_of_nab_are_those_that_were_measured() {
    let nab = nab();
    let config = Config::default().with_probation(nab.n_probation);
    assert_eq!((config.warm_up_points, config.refractory_points), (200, 121));
    let scores = judge_series(&config, nab.step_nanos, nab.first_step, &nab.values);
    for (idx, score) in scores.iter().enumerate() {
        match nab.scores.get(&idx) {
            Some(measured) => assert!((score - measured).abs() < 2e-3, "{idx}: {score}, measured {measured}"),
            None if idx < 200 => assert!(score.is_nan(), "{idx}: {score} in the warm-up"),
            None => assert!(*score < 2e-3, "{idx}: {score}, measured 0"),
        }
    }
}

#[test]
fn the_plain_tail_on_a_file_of_nab_is_that_of_the_research() {
    const HUNDRED_TIMES_KEPT: u64 = 12_800;
    let nab = nab();
    let (mut profile, mut tail) = (Profile::new(nab.step_nanos, 0.1), Tail::new());
    let mut n_checked = 0;
    for (idx, (&slot, &value)) in nab.slots.iter().zip(&nab.values).enumerate() {
        let size = profile.residual(slot, value).size;
        if idx >= 200 {
            tail.surprise(size, HUNDRED_TIMES_KEPT);
            let fit = tail.fit().expect("it varies");
            let beyond = size.ln() - f64::from(fit.ln_threshold);
            let plain = fit.ln_share + beyond * f64::from(fit.n_beyond) / fit.excess;
            match nab.hill.get(&idx) {
                Some(known) => assert!((plain - known).abs() < 2e-3, "{idx}: {plain}, known {known}"),
                None => assert!(beyond < 0.0 || plain < 4.002, "{idx}: {plain}, known to be below 4"),
            }
            n_checked += usize::from(nab.hill.contains_key(&idx));
        }
        profile.learn(slot, value);
        tail.learn(size, HUNDRED_TIMES_KEPT);
    }
    assert_eq!((n_checked, nab.hill.len()), (27, 27));
}

#[test]
fn a_score_says_how_rare_it_is_where_nothing_happens() {
    let config = Config::default();
    for skewed in [false, true] {
        let mut points = noise(1, 40_000);
        if skewed {
            points.iter_mut().for_each(|point| *point = point.exp());
        }
        let surprises = surprises(&config, &points);
        // 40 and 4 by chance; what is no news is left out.
        let (common, rare) = (n_rarer(&surprises, 1e3), n_rarer(&surprises, 1e4));
        assert!((1..=60).contains(&common) && rare <= 6, "skewed {skewed}: {common} and {rare}");
        assert!(n_rarer(&surprises, 1e7) == 0, "skewed {skewed}");
    }
}

#[test]
fn nothing_makes_a_storm() {
    let (config, n) = (Config::default(), 20_000_usize);
    let of = |value: &dyn Fn(usize) -> f64| surprises(&config, &(0..n).map(value).collect::<Vec<f64>>());
    assert!(of(&|_| 5.0).iter().all(|surprise| *surprise == 0.0), "a constant");
    let level = of(&|idx| f64::from(u8::from(idx >= 1_000)));
    assert!(level[1_000] > 800_f64.ln() && n_rarer(&level, 1e4) == 0, "a constant that changes once: {}", level[1_000]);
    let sparse = of(&|idx| f64::from(u8::from(idx % 500 == 0)));
    assert_eq!(n_rarer(&sparse, 1e4), 0, "the same spike again and again");
    let resets = of(&|idx| (idx % 100) as f64);
    assert_eq!(n_rarer(&resets, 1e3), 0, "a sawtooth");
    let slow_resets = of(&|idx| (idx % 1_700) as f64);
    assert!(n_rarer(&slow_resets, 1e4) <= 2, "a sawtooth that is longer than a day");
    let huge = of(&|idx| if idx % 2 == 0 { f64::MAX } else { f64::MIN });
    assert!(huge.iter().all(|surprise| surprise.is_finite()) && n_rarer(&huge, 1e4) == 0);
}

#[test]
fn a_shift_is_told_once_and_then_adopted() {
    let mut points = noise(2, 20_000);
    points[10_000..].iter_mut().for_each(|point| *point += 10.0);
    let surprises = surprises(&Config::default(), &points);
    assert!(surprises[10_000] > 1e4_f64.ln(), "{}", surprises[10_000]);
    let (after, later) = surprises[10_001..].split_at(500);
    assert!(n_rarer(after, 1e4) <= 2 && n_rarer(after, 1e3) <= 8, "one episode, hardly more alerts");
    assert!(n_rarer(later, 1e4) <= 1);
}

#[test]
fn what_is_usual_at_another_time_of_day_is_not_at_this() {
    let mut points = noise(3, 20_000);
    let wave = |idx: usize| 10.0 * (std::f64::consts::TAU * idx as f64 / 1_440.0).sin();
    points.iter_mut().enumerate().for_each(|(idx, point)| *point += wave(idx));
    let quiet = surprises(&Config::default(), &points);
    assert!(n_rarer(&quiet[1_500..], 1e4) <= 3);
    // Where −10 is usual; at another time of day it would be no news.
    points[15_500..15_503].fill(9.0);
    let odd = surprises(&Config::default(), &points);
    assert!(odd[15_500..15_503].iter().any(|surprise| *surprise > 1e4_f64.ln()), "{:?}", &odd[15_500..15_503]);
}

#[test]
fn gaps_are_not_judged_and_change_nothing() {
    let mut points = noise(4, 3_000);
    points[1_000..2_000].fill(f64::NAN);
    points[2_500] = f64::INFINITY;
    let scores = judge_series(&Config::default(), MINUTE, 0, &points);
    let is_silent = |idx: usize| idx < 200 || (1_000..2_000).contains(&idx) || idx == 2_500;
    assert!((0..3_000).all(|idx| scores[idx].is_nan() == is_silent(idx)));
    assert!(scores.iter().all(|score| score.is_nan() || *score >= 0.0));
}

#[test]
fn several_points_are_several_chances() {
    assert_eq!((of_several(0.0, 5), of_several(7.0, 1), of_several(-0.0, 1)), (0.0, 7.0, 0.0));
    assert!((of_several(9.0, 10) - (9.0 - 10_f64.ln())).abs() < 1e-3, "rare: times ten");
    assert!((of_several(2_f64.ln(), 2) - (4.0_f64 / 3.0).ln()).abs() < 1e-12, "¾");
    assert!((of_several(690.0, 100) - (690.0 - 100_f64.ln())).abs() < 1e-9);
}

#[test]
fn a_window_scores_as_the_most_surprising_of_its_points() {
    let mut series = SeriesFixture::seasonal("load", 5, 0, 2_000, 0.0);
    series.points[1_805] = 400.0;
    let mut one_by_one = HeavyTail::fit(&Config::default(), &[], 0).expect("nothing is needed");
    let windows: Vec<Window<'_>> = series.pieces(1).collect();
    let scores = score_all(&mut one_by_one, &windows);
    assert_eq!(scores.iter().filter(|score| score.is_none()).count(), 200, "the warm-up");
    let mut in_tens = HeavyTail::fit(&Config::default(), &[], 0).expect("nothing is needed");
    let windows: Vec<Window<'_>> = series.pieces(10).collect();
    let piece = score_all(&mut in_tens, &windows[..181])[180].expect("judged");
    let alone = scores[1_805].expect("judged").value;
    assert_eq!(piece, Score { value: of_several(alone, 10), culprit: 5 });
    assert!(alone > 1e4_f64.ln(), "{alone}");
    let evidence = in_tens.explain(&windows[180], &piece);
    assert!(evidence.summary.contains("load of test was 400, farther from"), "{}", evidence.summary);
    assert!(evidence.summary.contains("by the tail of the 1,800 so far"), "{}", evidence.summary);
    assert_eq!((evidence.culprit, evidence.records.len()), (Some(1_806), 10));
    let figures = ["value", "expected", "surprise", "false_alarms_expected", "n_history", "tail_index"];
    assert!(figures.iter().all(|name| evidence.figures.contains_key(*name)), "{:?}", evidence.figures);
    let other = in_tens.explain(&windows[0], &piece);
    assert!(other.summary.starts_with("nothing is kept"), "{}", other.summary);
}

#[test]
fn what_was_seen_is_passed_over_and_another_step_is_another_series() {
    let config = Config { warm_up_points: 10, ..Config::default() };
    let series = SeriesFixture::seasonal("load", 6, 100, 500, 0.0);
    let mut model = fit(&config, std::slice::from_ref(&series));
    let before = model.snapshot().expect("numbers");
    assert_eq!(score_all(&mut model, &[series.window(0..300), series.whole()]), [None, None]);
    assert_eq!(model.snapshot().expect("numbers"), before);
    let Window::Series(mut window) = series.whole() else { panic!("a series") };
    window.step_nanos = 2 * MINUTE;
    assert!(score_all(&mut model, &[Window::Series(window)])[0].is_some(), "it begins anew, at an earlier step");
}

#[test]
fn a_series_takes_no_more_memory_than_it_says_and_series_are_bounded() {
    assert!(size_of::<Track>() <= 1_024, "{}", size_of::<Track>());
    let config = Config { max_series: 50, ..Config::default() };
    let series: Vec<SeriesFixture> =
        (0..60).map(|idx| SeriesFixture::seasonal(&format!("s{idx:02}"), idx, 0, 300, 0.05)).collect();
    let mut model = fit(&config, &series);
    assert_eq!(model.series.len(), 50);
    assert!(model.bytes() <= 50 * 2_500, "{} bytes", model.bytes());
    let scores = score_all(&mut model, &[series[0].whole(), series[59].whole()]);
    assert!(scores[0].is_some() && scores[1].is_none(), "the first was forgotten, the last has no news");
    assert_eq!(Track::begin(&config, 60 * MINUTE).heap_bytes(), 24 * 5);
}

#[test]
fn configurations_out_of_range_are_refused_by_their_key() {
    let refused = |config: Config| HeavyTail::fit(&config, &[], 0).expect_err("refused").to_string();
    let base = Config::default;
    for (config, key) in [
        (Config { warm_up_points: 1, ..base() }, "warm_up_points"),
        (Config { refractory_points: 2_000_000, ..base() }, "refractory_points"),
        (Config { memory_points: 1_000, ..base() }, "memory_points"),
        (Config { learning_rate: f64::NAN, ..base() }, "learning_rate"),
        (Config { max_series: 0, ..base() }, "max_series"),
    ] {
        let error = refused(config);
        assert!(error.contains(key), "{error}");
    }
    assert_eq!(base().with_probation(0).refractory_points, 1);
    assert!(HeavyTail::fit(&base().with_probation(usize::MAX), &[], 0).is_ok());
}
