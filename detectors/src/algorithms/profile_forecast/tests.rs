use std::{f64::consts::TAU, sync::Arc};

use faultline_core::{Detector, Score, SeriesWindow, Window, WindowKey};

use super::{Config, Model, ProfileForecast, judge_series, series::Series};
use crate::{
    Algorithm,
    testing::{SeriesFixture, score_all},
};

const MINUTE: i64 = SeriesFixture::STEP_NANOS;

/// Where series begin: a midnight.
const FIRST: i64 = 26_665_920;

const DAYS_3: usize = 4320;

/// Draws that stay the same whatever becomes of our dependencies: expected counts below were made with them (Steele, Lea,
/// Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014).
struct Draws(u64);

impl Draws {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        ((bits >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        let (a, b) = (self.uniform(), self.uniform());
        (-2.0 * a.ln()).sqrt() * (TAU * b).cos()
    }

    fn poisson(&mut self, mean: f64) -> f64 {
        let (mut n, mut product) = (0.0, self.uniform());
        while product > (-mean).exp() {
            product *= self.uniform();
            n += 1.0;
        }
        n
    }
}

fn series(seed: u64, n: usize, mut value: impl FnMut(&mut Draws, usize) -> f64) -> Vec<f64> {
    let mut draws = Draws(seed);
    (0..n).map(|idx| value(&mut draws, idx)).collect()
}

/// A day between 70 and 130.
fn day(idx: usize) -> f64 {
    100.0 + 30.0 * (TAU * idx as f64 / 1440.0).sin()
}

fn alerts(values: &[f64]) -> Vec<usize> {
    let judged = judge_series(&Config::default(), MINUTE, FIRST, values);
    (0..values.len()).filter(|idx| judged[*idx].is_alert).collect()
}

fn n_hot(values: &[f64]) -> usize {
    judge_series(&Config::default(), MINUTE, FIRST, values).iter().filter(|judged| judged.is_hot).count()
}

fn with_spike(seed: u64) -> Vec<f64> {
    series(seed, DAYS_3, |draws, idx| day(idx) + 2.0 * draws.normal() + if idx == 3000 { 40.0 } else { 0.0 })
}

fn with_shift(seed: u64, n: usize) -> Vec<f64> {
    series(seed, n, |draws, idx| day(idx) + 2.0 * draws.normal() + if idx >= 2500 { 60.0 } else { 0.0 })
}

#[test]
fn what_is_steady_never_alerts() {
    assert!(
        alerts(&[5.0; DAYS_3]).is_empty() && alerts(&[0.0; DAYS_3]).is_empty() && alerts(&[0.1; DAYS_3]).is_empty()
    );
    for seed in 1..=5 {
        let noise = series(seed, DAYS_3, |draws, _| 100.0 + 3.0 * draws.normal());
        let season = series(seed, DAYS_3, |draws, idx| day(idx) + 2.0 * draws.normal());
        let slope = series(seed, DAYS_3, |draws, idx| 0.1 * idx as f64 + 2.0 * draws.normal());
        let rounded = series(seed, DAYS_3, |draws, _| (50.0 + draws.normal()).round());
        for (name, values) in [("noise", noise), ("season", season), ("slope", slope), ("rounded", rounded)] {
            assert_eq!(alerts(&values), [0usize; 0], "{name}, seed {seed}");
        }
    }
}

#[test]
fn one_event_is_one_alert() {
    let jump: Vec<f64> = (0..DAYS_3).map(|idx| if idx < 2000 { 5.0 } else { 9.0 }).collect();
    assert_eq!((alerts(&jump), n_hot(&jump)), (vec![2000], 155), "a constant that becomes another");
    let burst: Vec<f64> = (0..DAYS_3).map(|idx| if (3000..3008).contains(&idx) { 50.0 } else { 0.0 }).collect();
    assert_eq!((alerts(&burst), n_hot(&burst)), (vec![3000], 10), "eight points among zeros");
    for seed in 1..=5 {
        assert_eq!(alerts(&with_spike(seed)), [3000], "seed {seed}");
        assert_eq!(alerts(&with_shift(seed, DAYS_3)), [2500], "seed {seed}");
    }
}

#[test]
fn a_new_level_is_an_episode_of_about_a_day_and_then_normal() {
    let shifted = with_shift(1, 6 * 1440);
    assert_eq!(alerts(&shifted), [2500]);
    let judged = judge_series(&Config::default(), MINUTE, FIRST, &shifted);
    let hot = judged[2500..].iter().filter(|judged| judged.is_hot).count();
    assert!((1_000..1_600).contains(&hot), "{hot} minutes");
    let tail = &judged[5 * 1440..];
    assert!(tail.iter().all(|judged| !judged.is_hot) && tail.iter().all(|judged| judged.expected > 110.0));
}

#[test]
fn gaps_are_no_event() {
    for seed in 1..=5 {
        let gap = series(seed, DAYS_3, |draws, idx| {
            let value = day(idx) + 2.0 * draws.normal();
            if (1000..1100).contains(&idx) { f64::NAN } else { value }
        });
        assert_eq!(alerts(&gap), [0usize; 0], "seed {seed}");
        let judged = judge_series(&Config::default(), MINUTE, FIRST, &gap);
        assert!((judged[1050].spike, judged[1050].level) == (0.0, 0.0) && judged[1050].expected.is_nan());
    }
}

/// The storms of the study, some of which no detector of this kind is spared. In three days.
#[test]
fn no_storm_comes_of_counters_walks_and_heavy_tails() {
    for seed in 1..=5 {
        let poisson = series(seed, DAYS_3, |draws, idx| if idx == 3000 { 0.0 } else { draws.poisson(5.0) });
        assert!(alerts(&poisson).len() <= 2, "a rate, seed {seed}: {:?}", alerts(&poisson));
        let mut at = 0.0;
        let walk = series(seed, DAYS_3, |draws, _| {
            at += draws.normal();
            at
        });
        assert!(alerts(&walk).len() <= 2, "a random walk, seed {seed}: {:?}", alerts(&walk));
        let mut count = 0.0;
        let counter = series(seed, DAYS_3, |draws, idx| {
            count = if idx == 3000 { 0.0 } else { count + draws.poisson(5.0) };
            count
        });
        let found = alerts(&counter);
        assert!(found.len() <= 5 && found.contains(&3000), "a raw counter with a reset, seed {seed}: {found:?}");
        let sparse = series(seed, DAYS_3, |draws, _| {
            if draws.uniform() < 0.02 { 1.0 + (draws.uniform().ln() / 0.6f64.ln()).floor() } else { 0.0 }
        });
        assert!(alerts(&sparse).len() <= 30, "sparse counts, seed {seed}: {:?}", alerts(&sparse));
        // Student's t with three degrees of freedom.
        let heavy = series(seed, DAYS_3, |draws, _| {
            let (own, others) = (draws.normal(), [(); 3].map(|()| draws.normal().powi(2)));
            100.0 + 3.0 * own / (others.iter().sum::<f64>() / 3.0).sqrt()
        });
        assert!(alerts(&heavy).len() <= 50, "heavy tails, seed {seed}: {}", alerts(&heavy).len());
    }
}

fn fixture(name: &str, points: Vec<f64>) -> SeriesFixture {
    let n = points.len();
    let key = WindowKey { stream: Arc::from("test"), session: Arc::from(name) };
    SeriesFixture { key, first_step: FIRST, points, records: (1..).take(n).collect(), is_spike: vec![false; n] }
}

fn model(config: &Config) -> Model {
    ProfileForecast::fit(config, &[], 0).expect("it is fitted on nothing")
}

fn score(model: &mut Model, window: Window<'_>) -> Option<Score> {
    score_all(model, &[window])[0]
}

#[test]
fn only_alerts_score_beyond_a_hundredth_whether_points_come_alone_or_together() {
    for values in [with_spike(2), with_shift(2, DAYS_3)] {
        let judged = judge_series(&Config::default(), MINUTE, FIRST, &values);
        let series = fixture("load", values);
        for size in [1, 7, 500] {
            let mut model = model(&Config::default());
            let scores = score_all(&mut model, &series.pieces(size).collect::<Vec<_>>());
            for (idx, score) in scores.iter().enumerate() {
                let points = idx * size..series.points.len().min((idx + 1) * size);
                let Some(score) = score else {
                    assert!(points.end < 120, "only the warm-up is silent: {points:?}");
                    continue;
                };
                let alert = points.clone().find(|idx| judged[*idx].is_alert);
                assert_eq!(score.value > 10.0, alert.is_some(), "{points:?}: {}", score.value);
                assert!(alert.is_some() || score.value < 100f64.ln(), "{points:?}: {}", score.value);
                assert!(alert.is_none_or(|alert| points.start + score.culprit == alert), "{points:?}");
            }
        }
    }
}

#[test]
fn the_warm_up_gaps_and_what_has_been_judged_have_no_score() {
    let series = fixture("load", with_spike(3));
    let mut model = model(&Config::default());
    assert_eq!(score(&mut model, series.window(0..119)), None);
    assert!(score(&mut model, series.window(100..121)).is_some(), "the first twenty are known");
    assert_eq!(score(&mut model, series.window(0..121)), None, "all are");
    let gaps = SeriesFixture { points: vec![f64::NAN; 30], first_step: FIRST + 121, ..fixture("load", vec![0.0; 30]) };
    assert_eq!(score(&mut model, gaps.whole()), None);
    assert!(score(&mut model, series.window(151..152)).is_some());
    // Overlapping windows are judged once.
    let (mut whole, mut pieces) = (self::model(&Config::default()), self::model(&Config::default()));
    score(&mut whole, series.window(0..2000));
    for start in (0..1900).step_by(100) {
        score(&mut pieces, series.window(start..start + 200));
    }
    assert_eq!(score(&mut whole, series.window(2000..2001)), score(&mut pieces, series.window(2000..2001)));
}

#[test]
fn a_clock_that_was_set_back_does_not_silence_a_series() {
    let ahead = SeriesFixture { first_step: FIRST + 1_000_000, ..fixture("load", with_spike(3)) };
    let mut model = model(&Config::default());
    score(&mut model, ahead.window(0..2000));
    let back = fixture("load", with_spike(3));
    assert!(score(&mut model, back.window(2000..2001)).is_some());
    assert_eq!(score(&mut model, back.window(1000..2000)), None, "less than a day is late");
    assert!(score(&mut model, back.window(2001..2100)).is_some());
}

#[test]
fn another_step_begins_anew() {
    let series = fixture("load", with_spike(3));
    let mut model = model(&Config::default());
    score(&mut model, series.window(0..2000));
    let other = |first_step: i64, points| {
        let Window::Series(window) = series.whole() else { panic!("a series") };
        Window::Series(SeriesWindow {
            start_unix_nano: first_step * 2 * MINUTE,
            step_nanos: 2 * MINUTE,
            points,
            ..window
        })
    };
    assert_eq!(score(&mut model, other(FIRST, &series.points[..119])), None, "it warms up again");
    assert!(score(&mut model, other(FIRST + 119, &series.points[119..140])).is_some());
}

#[test]
fn a_season_of_its_own_is_found_after_five_days() {
    let values =
        series(1, 9 * 1440, |draws, idx| 100.0 + 30.0 * (TAU * idx as f64 / 420.0).sin() + 2.0 * draws.normal());
    let series = fixture("load", values);
    let mut model = model(&Config::default());
    let season = |model: &Model| model.series.get(&series.key).map(|own| own.season_nanos() / MINUTE);
    for window in series.pieces(60) {
        let score = score(&mut model, window).filter(|score| score.value > 10.0);
        assert_eq!(score, None, "a season is no event, nor is that it is found");
        let (_, end) = window.span_unix_nano();
        if end / MINUTE - FIRST < 5 * 1440 - 1 {
            assert_eq!(season(&model), Some(1440));
        }
    }
    assert!(season(&model).is_some_and(|minutes| (412..=428).contains(&minutes)), "{:?}", season(&model));
}

#[test]
fn evidence_says_what_was_expected_and_when() {
    let mut series = fixture("p99{route=/cart}", with_spike(4));
    series.points[3000] = 812.0;
    let mut model = model(&Config::default());
    score(&mut model, series.window(0..2990));
    let window = series.window(2990..3010);
    let found = score(&mut model, window).expect("it is warm");
    assert!(found.culprit == 10 && found.value > 15.0, "{found:?}");
    let evidence = model.explain(&window, &found);
    let figure = |name: &str| evidence.figures[name];
    assert!(
        evidence.summary.starts_with("p99{route=/cart} of test was 812 at 02:00 UTC where "),
        "{}",
        evidence.summary
    );
    assert!((105.0..125.0).contains(&figure("expected")), "{:?}", evidence.figures);
    assert!(figure("expected_low") > 80.0 && figure("expected_high") < 150.0, "{:?}", evidence.figures);
    assert_eq!((figure("value"), figure("period_steps")), (812.0, 1440.0));
    assert!((figure("deviation") - (812.0 - figure("expected"))).abs() < 1e-9);
    assert!(evidence.culprit == Some(3001) && evidence.records.contains(&3001) && evidence.records.len() <= 21);
    // And of a point that is as expected.
    score(&mut model, series.window(3010..3060));
    let window = series.window(3060..3061);
    let found = score(&mut model, window).expect("it is warm");
    let summary = model.explain(&window, &found).summary;
    assert!(summary.contains(" at 03:00 UTC, within the "), "{summary}");
}

#[test]
fn a_snapshot_goes_on_where_it_was_taken() {
    // Before the season is known, and with an open episode.
    let series = [fixture("load", with_shift(5, 8 * 1440)), fixture("idle", vec![0.0; 8 * 1440])];
    for n in [50, 2600, 6 * 1440] {
        let mut first = model(&Config::default());
        let windows = |range: std::ops::Range<usize>| series.iter().map(move |own| own.window(range.clone()));
        score_all(&mut first, &windows(0..n).collect::<Vec<_>>());
        let snapshot = first.snapshot().expect("written");
        let mut second = ProfileForecast::load(&Config::default(), &snapshot).expect("its own");
        assert!(second.snapshot().expect("written") == snapshot && second.version() == first.version());
        for start in (n..8 * 1440 - 50).step_by(50) {
            let windows: Vec<_> = windows(start..start + 50).collect();
            assert_eq!(score_all(&mut first, &windows), score_all(&mut second, &windows), "{n}: {start}");
        }
        assert!(ProfileForecast::load(&Config::default(), &snapshot[..snapshot.len() - 9]).is_err());
    }
}

#[test]
fn a_series_takes_no_more_than_1_7_kib_and_1_2_kib_more_at_first() {
    let one = fixture("", vec![1.0]);
    let keys: Vec<WindowKey> =
        (0..3600).map(|n| WindowKey { stream: Arc::from("test"), session: Arc::from(format!("{n}")) }).collect();
    let Window::Series(window) = one.whole() else { panic!("a series") };
    assert!(size_of::<Series>() <= 1_640, "{}", size_of::<Series>());
    for (season_ms, most) in [(Some(86_400_000), 1_740), (None, 1_740 + 1_200)] {
        let mut model = model(&Config { season_ms, ..Config::default() });
        for (n, key) in (1..).zip(&keys) {
            score(&mut model, Window::Series(SeriesWindow { key, ..window }));
            // Just after the map has grown, and when it is full.
            if [897, 1_792, 3_600].contains(&n) {
                assert!(model.bytes() / n <= most, "{n} series: {} bytes each", model.bytes() / n);
            }
        }
    }
}

#[test]
fn no_more_series_are_remembered_than_allowed() {
    let config = Config { max_series: 2, ..Config::default() };
    let series: Vec<SeriesFixture> = ["a", "b", "c"].map(|name| fixture(name, with_spike(1))).into();
    let mut model = model(&config);
    for (idx, is_known) in [(0, false), (1, false), (0, true), (2, false), (0, true), (1, false)] {
        let own = &series[idx];
        assert_eq!(model.series.get(&own.key).is_some(), is_known, "{}", own.key.session);
        score(&mut model, own.window(0..200));
        assert!(model.series.len() <= 2);
    }
}

#[test]
fn odd_values_and_steps_leave_scores_finite() {
    let odd = [f64::MAX, f64::MIN, 1e300, -1e300, f64::MIN_POSITIVE, 0.0, -0.0, f64::INFINITY, f64::NAN, 1e-20];
    let wild = series(1, 3000, |draws, _| odd[(draws.uniform() * 10.0) as usize]);
    let calm_then_wild: Vec<f64> = with_spike(1).into_iter().take(60).chain(wild.iter().copied()).collect();
    for values in [wild, calm_then_wild, vec![1e17; 3000], vec![f64::NAN; 300]] {
        for step_nanos in [1, MINUTE, i64::MAX] {
            for first_step in [0, -5, i64::MAX, i64::MIN] {
                let judged = judge_series(&Config::default(), step_nanos, first_step, &values);
                let is_fine = judged.iter().all(|judged| judged.spike.is_finite() && judged.level.is_finite());
                assert!(is_fine, "step {step_nanos} from {first_step}");
            }
        }
    }
}

#[test]
fn what_is_out_of_range_is_refused_by_name() {
    let refused = |config: Config| ProfileForecast::fit(&config, &[], 0).map(|_| ()).expect_err("refused").to_string();
    for (key, config) in [
        ("threshold", Config { threshold: f64::NAN, ..Config::default() }),
        ("level_hold", Config { level_hold: 6.0, ..Config::default() }),
        ("adopt_seasons", Config { adopt_seasons: 0.0, ..Config::default() }),
        ("season_ms", Config { season_ms: Some(0), ..Config::default() }),
        ("max_series", Config { max_series: 0, ..Config::default() }),
    ] {
        let error = refused(config);
        assert!(error.contains(&format!("key `{key}`")), "{error}");
    }
}

#[test]
fn what_has_seen_the_same_points_has_the_same_version() {
    let series = fixture("load", with_spike(1));
    let fit =
        |n: usize| ProfileForecast::fit(&Config::default(), &[series.window(0..n)], 0).expect("it fits").version();
    assert!(fit(500) == fit(500) && fit(500) != fit(501) && fit(500) != model(&Config::default()).version());
}
