use std::sync::LazyLock;

use faultline_core::{Detector, DetectorError, Score, SeriesWindow, Window};

use super::{Config, Donut, Model};
use crate::{
    Algorithm,
    testing::{SeriesFixture, score_all},
};

const N_TRAINING: usize = 1500;

/// Small enough for a debug build.
fn small() -> Config {
    Config { hidden: 32, batch: 64, learning_rate: 5e-3, epochs: 5, ..Config::default() }
}

/// What is there to learn from.
fn training() -> SeriesFixture {
    SeriesFixture::seasonal("load", 1, 0, N_TRAINING, 0.0)
}

/// What comes after it.
fn later(seed: u64, share: f64) -> SeriesFixture {
    SeriesFixture::seasonal("load", seed, N_TRAINING as i64, 1000, share)
}

fn fit(config: &Config, series: &[SeriesFixture], seed: u64) -> Result<Model, DetectorError> {
    let windows: Vec<Window<'_>> = series.iter().flat_map(|series| series.pieces(100)).collect();
    Donut::fit(config, &windows, seed)
}

/// A fit is slow, so tests load one.
static FITTED: LazyLock<Vec<u8>> =
    LazyLock::new(|| fit(&small(), &[training()], 1).expect("it fits").snapshot().expect("numbers"));

fn load(config: &Config) -> Model {
    Donut::load(config, &FITTED).expect("just written")
}

/// A score for each point, point by point.
fn scores(model: &mut Model, series: &SeriesFixture) -> Vec<Option<f64>> {
    let windows: Vec<Window<'_>> = series.pieces(1).collect();
    score_all(model, &windows).into_iter().map(|score| score.map(|score| score.value)).collect()
}

fn quantile(mut scores: Vec<f64>, share: f64) -> f64 {
    scores.sort_by(f64::total_cmp);
    scores[((scores.len() - 1) as f64 * share) as usize]
}

fn refused<T>(result: Result<T, DetectorError>) -> String {
    result.map(|_| ()).expect_err("refused").to_string()
}

#[test]
fn planted_spikes_stand_out() {
    let series = later(2, 0.02);
    let scores = scores(&mut load(&small()), &series);
    let of = |is_spike: bool| -> Vec<f64> {
        let pairs = scores.iter().zip(&series.is_spike).filter(|(_, own)| **own == is_spike);
        pairs.map(|(score, _)| score.expect("nothing is missing")).collect()
    };
    let (spikes, normal) = (of(true), of(false));
    let wins = spikes.iter().flat_map(|spike| normal.iter().map(move |normal| f64::from(u8::from(spike > normal))));
    let auc = wins.sum::<f64>() / (spikes.len() * normal.len()) as f64;
    assert!(spikes.len() > 10 && auc > 0.99, "{} spikes, area under the ROC curve {auc:.4}", spikes.len());
    assert!(quantile(normal, 0.5).abs() < 1.0, "a usual point scores about 0");
}

#[test]
fn a_gap_makes_no_point_abnormal_because_it_is_filled() {
    let mut series = later(3, 0.0);
    let whole: Vec<f64> = scores(&mut load(&small()), &series).into_iter().flatten().collect();
    for gap in (100..1000).step_by(240) {
        series.points[gap..gap + 20].fill(f64::NAN);
    }
    series.points.iter_mut().skip(5).step_by(17).for_each(|point| *point = f64::NAN);
    let with_gaps = scores(&mut load(&small()), &series);
    assert!(with_gaps.iter().zip(&series.points).all(|(score, point)| score.is_none() == point.is_nan()));
    let filled: Vec<f64> = with_gaps.into_iter().flatten().collect();
    let unfilled = scores(&mut load(&Config { imputations: 0, ..small() }), &series);
    let unfilled: Vec<f64> = unfilled.into_iter().flatten().collect();
    let high = |scores: &[f64]| quantile(scores.to_vec(), 0.95);
    let (whole, filled, unfilled) = (high(&whole), high(&filled), high(&unfilled));
    assert!(filled < whole + 1.0 && unfilled > filled + 1.0, "{whole} whole, {filled} filled, {unfilled} not");
}

#[test]
fn a_constant_a_short_and_an_unknown_series_are_silent() {
    let mut constant = SeriesFixture::seasonal("constant", 1, 0, N_TRAINING, 0.0);
    constant.points.fill(5.0);
    let short = SeriesFixture::seasonal("short", 1, 0, 1100, 0.0);
    let error = refused(fit(&small(), &[constant.clone(), short.clone()], 1));
    assert!(error.contains("no series varies and has 1200 points"), "{error}");
    let mut model = fit(&small(), &[constant.clone(), short.clone(), training()], 1).expect("one will do");
    assert_eq!(model.learned.series.len(), 1);
    constant.points[1000] = 500.0;
    for silent in [&constant, &short, &SeriesFixture::seasonal("unknown", 1, 0, 300, 0.1)] {
        assert!(scores(&mut model, silent).iter().all(Option::is_none));
        let evidence = model.explain(&silent.whole(), &Score { value: 1.0, culprit: 0 });
        assert!(evidence.summary.contains("has no model"), "{}", evidence.summary);
    }
    assert!(scores(&mut model, &later(2, 0.0)).iter().all(Option::is_some));
}

#[test]
fn no_more_series_than_allowed_have_a_model_and_none_depends_on_another() {
    let series: Vec<SeriesFixture> = ["c", "a", "b"].map(|name| SeriesFixture::seasonal(name, 1, 0, 1300, 0.0)).into();
    let model = fit(&Config { max_series: 2, ..small() }, &series, 1).expect("it fits");
    let sessions: Vec<&str> = model.learned.series.keys().map(|key| &*key.session).collect();
    assert_eq!(sessions, ["a", "c"], "those that appear first");
    let alone = fit(&small(), &series[1..2], 1).expect("it fits");
    let weights = |model: &Model| model.learned.series[&series[1].key].weights.clone();
    assert_eq!(weights(&alone), weights(&model));
}

#[test]
fn a_window_scores_as_the_worst_of_its_points() {
    let series = later(2, 0.02);
    let alone = scores(&mut load(&small()), &series);
    for size in [7, 300] {
        let mut model = load(&small());
        let windows: Vec<Window<'_>> = series.pieces(size).collect();
        let together = score_all(&mut model, &windows);
        for ((score, points), first) in together.iter().zip(alone.chunks(size)).zip((0..).step_by(size)) {
            let score = score.expect("nothing is missing");
            let worst = points.iter().flatten().copied().fold(f64::NEG_INFINITY, f64::max);
            assert_eq!((score.value, alone[first + score.culprit]), (worst, Some(worst)));
        }
    }
}

#[test]
fn points_that_a_first_look_finds_usual_keep_its_score_and_the_others_have_that_of_all_samples() {
    let series = later(2, 0.02);
    let all = scores(&mut load(&Config { first_samples: 64, ..small() }), &series);
    let two_looks = scores(&mut load(&small()), &series);
    let first = scores(&mut load(&Config { samples: 8, ..small() }), &series);
    let n_all = two_looks.iter().zip(&all).filter(|(own, all)| own == all).count();
    assert!((20..200).contains(&n_all), "{n_all} of 1000 got a second look");
    for ((own, all), (first, is_spike)) in two_looks.iter().zip(&all).zip(first.iter().zip(&series.is_spike)) {
        assert!(own == all || own == first);
        assert!(own == all || !is_spike, "a spike always gets one");
    }
}

#[test]
fn where_half_of_a_window_is_not_known_nothing_is_judged() {
    let mut model = load(&small());
    let series = later(2, 0.0);
    let far = SeriesFixture { first_step: 5_000, ..series.clone() };
    let n_silent = |scores: &[Option<f64>]| scores.iter().take_while(|score| score.is_none()).count();
    assert_eq!(n_silent(&scores(&mut model, &series)), 0, "the training goes on");
    assert_eq!(n_silent(&scores(&mut model, &far)), 59, "after a long gap");
    assert_eq!(n_silent(&scores(&mut model, &series)), 59, "back in time");
    let Window::Series(window) = series.whole() else { unreachable!("a series") };
    let hourly = SeriesWindow { step_nanos: 60 * SeriesFixture::STEP_NANOS, ..window };
    assert!(score_all(&mut model, &[Window::Series(hourly)])[0].is_none(), "another step is another series");
}

#[test]
fn bad_values_are_gaps_and_huge_ones_finite() {
    let mut model = load(&small());
    let mut series = later(2, 0.0);
    series.points[10] = f64::INFINITY;
    series.points[11] = f64::NEG_INFINITY;
    (series.points[20], series.points[21], series.points[22]) = (f64::MAX, f64::MIN, 1e12);
    let scores = scores(&mut model, &series);
    assert_eq!((scores[10], scores[11]), (None, None));
    assert!(scores.iter().flatten().all(|score| score.is_finite()));
    assert!((20..23).all(|idx| scores[idx].is_some_and(|score| score > 1e3)), "{:?}", &scores[20..23]);
    let mut spoiled = training();
    spoiled.points.iter_mut().step_by(50).for_each(|point| *point = f64::MAX);
    spoiled.points.iter_mut().skip(1).step_by(50).for_each(|point| *point = f64::NAN);
    let mut model = fit(&small(), &[spoiled], 1).expect("most of it is sound");
    let later = later(2, 0.0);
    let windows: Vec<Window<'_>> = later.pieces(10).collect();
    assert!(score_all(&mut model, &windows).iter().all(|score| score.is_some_and(|score| score.value.is_finite())));
}

#[test]
fn evidence_says_what_was_expected() {
    let mut series = later(2, 0.0);
    series.points[400] += 60.0;
    let mut model = load(&small());
    let pieces: Vec<Window<'_>> = series.pieces(25).collect();
    let scores = score_all(&mut model, &pieces);
    let (window, score) = (&pieces[16], scores[16].expect("nothing is missing"));
    assert_eq!(score.culprit, 0);
    let evidence = model.explain(window, &score);
    let figure = |name: &str| evidence.figures[name];
    let normal = series.points[400] - 60.0;
    assert_eq!(figure("value"), series.points[400]);
    assert!((figure("expected") - normal).abs() < 15.0, "{evidence:?}, normal is {normal}");
    assert!(
        figure("expected_low") < figure("expected") && figure("expected") < figure("expected_high"),
        "{evidence:?}"
    );
    assert!(figure("deviations") > 4.0 && (figure("nll") - figure("nll_typical") - score.value).abs() < 1e-9);
    let begin = format!("load of test was {:.0} where ", series.points[400]);
    assert!(evidence.summary.starts_with(&begin), "{}", evidence.summary);
    assert!(evidence.summary.ends_with(" were expected"), "{}", evidence.summary);
    assert_eq!(evidence.culprit, Some(series.records[400]));
    assert_eq!(evidence.records, series.records[400..411], "its own window's");
    let usual = model.explain(&pieces[39], &Score { value: 0.0, culprit: 24 });
    assert!(usual.summary.contains(" was ") && usual.culprit == Some(series.records[999]), "{usual:?}");
    let old = model.explain(&pieces[2], &Score { value: 0.0, culprit: 3 });
    assert!(old.figures.contains_key("expected"), "what came before it is still kept: {old:?}");
}

#[test]
fn a_snapshot_scores_bit_for_bit_alike_also_in_the_middle_of_a_series() {
    let mut model = load(&small());
    assert_eq!(model.snapshot().expect("numbers"), *FITTED);
    let mut series = later(2, 0.05);
    series.points[300..310].fill(f64::NAN);
    let windows: Vec<Window<'_>> = series.pieces(5).collect();
    let (before, after) = windows.split_at(70);
    score_all(&mut model, before);
    let bytes = model.snapshot().expect("numbers");
    assert_ne!(bytes, *FITTED, "it holds the latest points");
    let mut loaded = Donut::load(&small(), &bytes).expect("just written");
    assert_eq!(loaded.version(), model.version());
    let scores = score_all(&mut model, after);
    assert_eq!(score_all(&mut loaded, after), scores);
    let last = scores.last().copied().flatten().expect("nothing is missing");
    assert_eq!(loaded.explain(&after[after.len() - 1], &last), model.explain(&after[after.len() - 1], &last));
}

#[test]
fn a_damaged_snapshot_and_one_of_other_sizes_are_refused() {
    assert!(refused(Donut::load(&small(), b"")).contains("not a snapshot"));
    for length in [16, 20, 24, FITTED.len() / 2, FITTED.len() - 1] {
        let error = refused(Donut::load(&small(), &FITTED[..length]));
        assert!(error.contains("checksum"), "{length}: {error}");
    }
    let mut flipped = FITTED.clone();
    flipped[100] ^= 1;
    assert!(refused(Donut::load(&small(), &flipped)).contains("checksum"));
    let wider = refused(Donut::load(&Config { hidden: 64, ..small() }, &FITTED));
    assert!(wider.contains("fitted with `hidden` 32"), "{wider}");
}

#[test]
fn the_seed_and_missing_injection_decide_the_model() {
    let config = Config { hidden: 8, batch: 16, ..small() };
    let snapshot = |config: &Config, seed| {
        let model = fit(config, &[training()], seed).expect("it fits");
        (model.version(), model.snapshot().expect("numbers"))
    };
    let first = snapshot(&config, 1);
    assert_eq!(snapshot(&config, 1), first);
    assert_ne!(snapshot(&config, 2).0, first.0);
    let plain = Config { missing_injection: 0.0, ..config.clone() };
    let weights = |config: &Config| {
        let model = fit(config, &[training()], 1).expect("it fits");
        model.learned.series.into_values().map(|own| own.weights).collect::<Vec<_>>()
    };
    assert_ne!(weights(&plain), weights(&config));
}

#[test]
fn a_key_out_of_range_is_named() {
    let refused = |config: Config| refused(Donut::fit(&config, &[], 1));
    assert!(refused(Config { window: 1, ..small() }).contains("key `window`"));
    assert!(refused(Config { samples: 0, ..small() }).contains("key `samples`"));
    assert!(refused(Config { min_points: 100, ..small() }).contains("key `min_points`"));
    assert!(refused(Config { learning_rate: f64::NAN, ..small() }).contains("key `learning_rate`"));
    assert!(refused(Config { missing_injection: 1.0, ..small() }).contains("key `missing_injection`"));
    assert!(refused(small()).contains("no series varies"));
}
