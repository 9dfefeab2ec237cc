use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use faultline_core::{Detector, Window};

use super::{ChangePoint, Config, Model, Track, judge_series};
use crate::{
    Algorithm,
    testing::{SeriesFixture, score_all},
};

const MINUTE: i64 = SeriesFixture::STEP_NANOS;

/// Normal enough, deviation 1, each point `correlation` of the one before and the rest its own.
fn noise(seed: u64, n: usize, correlation: f64) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut last, own) = (0.0, (1.0 - correlation * correlation).sqrt());
    let mut next = || {
        last = correlation * last + own * ((0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0);
        last
    };
    (0..n).map(|_| next()).collect()
}

fn surprises(points: &[f64]) -> Vec<f64> {
    judge_series(&Config::default(), MINUTE, 0, points)
}

/// The points at which the surprise rises to ln `odds` or more.
fn changes(surprises: &[f64], odds: f64) -> Vec<usize> {
    let is_high = |idx: usize| surprises[idx] >= odds.ln();
    (1..surprises.len()).filter(|idx| is_high(*idx) && !is_high(*idx - 1)).collect()
}

/// A series of these points.
fn series_of(name: &str, points: Vec<f64>) -> SeriesFixture {
    let n = points.len();
    SeriesFixture { points, ..SeriesFixture::seasonal(name, 1, 0, n, 0.0) }
}

#[test]
fn a_planted_shift_is_found_within_twenty_points_and_once() {
    for (seed, shift) in (0..10).flat_map(|seed| [(seed, 5.0), (seed, -6.0), (seed, 1e4)]) {
        let mut points = noise(seed, 1_000, 0.0);
        points[600..].iter_mut().for_each(|point| *point += shift);
        let changes = changes(&surprises(&points), 1e3);
        let [at] = changes[..] else { panic!("seed {seed}, shift {shift}: {changes:?}") };
        assert!((600..610).contains(&at), "seed {seed}, shift {shift}: found at {at}");
    }
}

#[test]
fn white_noise_has_no_change() {
    let mut n_rare = 0;
    for seed in 0..5 {
        let surprises = surprises(&noise(seed, 20_000, 0.0));
        assert!(changes(&surprises, 1e3).is_empty(), "seed {seed}");
        n_rare += changes(&surprises, 1e2).len();
    }
    // 1000 by chance if the p-value were exact.
    assert!(n_rare <= 3, "{n_rare} of 100,000");
}

#[test]
fn neither_a_spike_nor_wandering_is_a_change() {
    for (seed, spike) in [(1, 5.0), (2, 10.0), (3, -100.0)] {
        let mut points = noise(seed, 1_000, 0.0);
        points[600] += spike;
        assert!(changes(&surprises(&points), 1e3).is_empty(), "spike {spike}");
        let papers = Config { outlier_share: 0.0, ..Config::default() };
        let changes = changes(&judge_series(&papers, MINUTE, 0, &points), 1e3);
        assert!(spike.abs() < 9.0 || changes.first().is_some_and(|at| (600..603).contains(at)), "{changes:?}");
    }
    for correlation in [0.5, 0.9, 1.0 - 1e-6] {
        let surprises = surprises(&noise(4, 20_000, correlation));
        assert!(changes(&surprises, 1e3).is_empty(), "correlation {correlation}");
    }
    let saw: Vec<f64> = (0..5_000).map(|idx| f64::from(idx % 100)).collect();
    assert!(changes(&surprises(&saw), 1e3).is_empty(), "a counter that is reset");
}

#[test]
fn constants_and_sparse_series_are_quiet_until_they_change() {
    let step = |from: f64, to: f64| (0..3_000).map(|idx| if idx < 2_000 { from } else { to }).collect::<Vec<f64>>();
    assert!(surprises(&step(3.0, 3.0))[100..].iter().all(|surprise| *surprise < 0.1));
    for (from, to) in [(3.0, 3.01), (0.0, 7.0), (f64::MAX, f64::MIN)] {
        let changes = changes(&surprises(&step(from, to)), 1e3);
        assert!(matches!(changes[..], [2_000..2_010]), "{from} to {to}: {changes:?}");
    }
    let sparse: Vec<f64> = (0..5_000).map(|idx| f64::from(u8::from(idx % 50 == 0))).collect();
    assert!(changes(&surprises(&sparse), 1e3).is_empty(), "spikes that are alike");
    let huge: Vec<f64> = (0..500).map(|idx| if idx % 2 == 0 { f64::MAX } else { f64::MIN }).collect();
    assert!(surprises(&huge)[100..].iter().all(|surprise| surprise.is_finite()));
}

#[test]
fn gaps_are_passed_over() {
    let mut points = noise(5, 1_000, 0.0);
    points[400..500].fill(f64::NAN);
    points[700] = f64::NEG_INFINITY;
    let with_gaps = surprises(&points);
    let is_silent = |idx: usize| idx < 100 || (400..500).contains(&idx) || idx == 700;
    assert!((0..1_000).all(|idx| with_gaps[idx].is_nan() == is_silent(idx)));
    points.retain(|point| point.is_finite());
    let without: Vec<f64> = surprises(&points).into_iter().filter(|surprise| !surprise.is_nan()).collect();
    assert_eq!(with_gaps.into_iter().filter(|surprise| !surprise.is_nan()).collect::<Vec<f64>>(), without);
}

#[test]
fn a_window_scores_as_its_likeliest_change_and_the_evidence_says_since_when() {
    let mut points: Vec<f64> = noise(6, 1_000, 0.0).into_iter().map(|point| 40.0 + 2.0 * point).collect();
    points[607..].iter_mut().for_each(|point| *point += 50.0);
    let series = series_of("load", points);
    let config = Config::default();
    let mut model = ChangePoint::fit(&config, &[series.window(0..600)], 0).expect("any points will do");
    let alone = surprises(&series.points);
    let window = series.window(600..620);
    let score = score_all(&mut model, &[window])[0].expect("judged");
    let expected = alone[600..620].iter().copied().fold(0.0, f64::max) - (config.ln_odds() + 20_f64.ln());
    assert!((score.value - expected).abs() < 1e-9, "twenty chances: {} and {expected}", score.value);
    assert!(score.value > 1e4_f64.ln() && (607..620).contains(&(600 + score.culprit)), "{score:?}");
    let evidence = model.explain(&window, &score);
    let (summary, figures) = (&evidence.summary, &evidence.figures);
    assert!(summary.starts_with("load of test was about ") && summary.contains(" until 10:07 UTC, and "), "{summary}");
    assert!((figures["before"] - 40.0).abs() < 2.0 && (figures["since"] - 90.0).abs() < 3.0, "{figures:?}");
    assert_eq!(evidence.culprit, Some(601 + score.culprit as u64));
    let later = score_all(&mut model, &[series.window(620..900), series.window(900..901)])[1].expect("judged");
    assert!(later.value < 1.0, "the new level is the usual one: {}", later.value);
    let evidence = model.explain(&series.window(900..901), &later);
    assert!(evidence.summary.contains("has been about"), "{}", evidence.summary);
    assert!(model.explain(&window, &score).summary.starts_with("nothing is kept"));
}

#[test]
fn the_prior_odds_are_those_of_a_change_in_so_many_points() {
    let none = (1.0 - 1.0 / 250.0_f64).powi(21);
    assert!((Config::default().ln_odds() - ((1.0 - none) / none).ln()).abs() < 1e-12);
}

#[test]
fn a_series_takes_no_more_memory_than_it_says_and_series_are_bounded() {
    let config = Config { max_series: 20, ..Config::default() };
    let series: Vec<SeriesFixture> =
        (0..25).map(|idx| SeriesFixture::seasonal(&format!("s{idx:02}"), idx, 0, 300, 0.0)).collect();
    let windows: Vec<Window<'_>> = series.iter().map(SeriesFixture::whole).collect();
    let mut model = ChangePoint::fit(&config, &windows, 0).expect("any points will do");
    assert_eq!(model.series.len(), 20);
    assert!(model.bytes() <= 20 * 2_600, "{} bytes", model.bytes());
    let snapshot = model.snapshot().expect("numbers");
    let mut again: Model = ChangePoint::load(&config, &snapshot).expect("just written");
    assert_eq!(again.snapshot().expect("numbers"), snapshot);
    let scores = score_all(&mut model, &[series[0].whole(), series[24].whole()]);
    assert!(scores[0].is_some() && scores[1].is_none(), "the first was forgotten, the last has no news");
    assert_eq!(score_all(&mut again, &[series[0].whole(), series[24].whole()]), scores);
    let begun = Track::begin(MINUTE);
    assert_eq!(begun.heap_bytes(), 0);
}

#[test]
fn configurations_out_of_range_are_refused_by_their_key() {
    let base = Config::default;
    for (config, key) in [
        (Config { run_points: 1.0, ..base() }, "run_points"),
        (Config { recent_points: u32::MAX, ..base() }, "recent_points"),
        (Config { outlier_share: 0.5, ..base() }, "outlier_share"),
        (Config { warm_up_points: 21, ..base() }, "warm_up_points"),
        (Config { max_series: 0, ..base() }, "max_series"),
    ] {
        let error = ChangePoint::fit(&config, &[], 0).expect_err("refused").to_string();
        assert!(error.contains(key), "{error}");
    }
}
