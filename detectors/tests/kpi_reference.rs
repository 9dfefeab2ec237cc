//! The KPI detectors against the figures of the study that chose them (an implementation in double precision): the same input must
//! give the same scores, as far as single precision goes, and exactly the same alerts and hot points.
//!
//! `fixtures/profile_forecast.json` has seven series of 3,600 points a minute apart, `fixtures/mahalanobis.json` 800 rows of six
//! columns of ASD's server omi-2, of which the first 600 are the training, with a planted break at row 750.

use faultline_detectors::algorithms::{
    mahalanobis::{self, judge_rows},
    profile_forecast::{self, Judged, judge_series},
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Series {
    step: i64,
    period: u64,
    t0: i64,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    x: Vec<Option<f64>>,
    at: Vec<usize>,
    spike: Vec<f64>,
    level: Vec<f64>,
    expected: Vec<f64>,
    alerts: Vec<usize>,
    hot: Vec<usize>,
}

#[derive(Deserialize)]
struct Rows {
    step: i64,
    n_columns: usize,
    training: Vec<f64>,
    values: Vec<f64>,
    score: Vec<f64>,
    ratio: Vec<f64>,
    hot: Vec<usize>,
    onsets: Vec<usize>,
}

const SECOND: i64 = 1_000_000_000;

/// What single precision may differ by.
const SINGLE: f64 = 1e-3;

/// What differs by more than `tolerance`, of itself and a little.
fn is_off(found: f64, wanted: f64, tolerance: f64) -> bool {
    let is_near = (found - wanted).abs() <= tolerance * wanted.abs() + 1e-6;
    !is_near
}

fn places(judged: &[Judged], is_it: impl Fn(&Judged) -> bool) -> Vec<usize> {
    judged.iter().enumerate().filter(|(_, own)| is_it(own)).map(|(idx, _)| idx).collect()
}

#[test]
fn profile_forecast_judges_as_in_the_study() {
    let text = include_str!("fixtures/profile_forecast.json");
    let Series { step, period, t0, cases } = serde_json::from_str(text).expect("a fixture");
    let config = profile_forecast::Config { season_ms: Some(period * 1000), ..Default::default() };
    assert_eq!(cases.len(), 7);
    for case in cases {
        let name = &case.name;
        let values: Vec<f64> = case.x.iter().map(|value| value.unwrap_or(f64::NAN)).collect();
        let judged = judge_series(&config, step * SECOND, t0 / step, &values);
        assert_eq!(places(&judged, |own| own.is_alert), case.alerts, "{name}: alerts");
        assert_eq!(places(&judged, |own| own.is_hot), case.hot, "{name}: hot points");
        // The study's forecasts never learn after a beginning without any change; ours do, so there they are a little nearer.
        let is_idle_at_first = name.starts_with("constant") || name.starts_with("zeros");
        let of_spike = if is_idle_at_first { 0.1 } else { SINGLE };
        for (place, &idx) in case.at.iter().enumerate() {
            let own = judged[idx];
            let (spike, level, expected) = (case.spike[place], case.level[place], case.expected[place]);
            assert!(!is_off(own.spike, spike, of_spike), "{name}, spike at {idx}: {} for {spike}", own.spike);
            assert!(!is_off(own.level, level, SINGLE), "{name}, level at {idx}: {} for {level}", own.level);
            if values[idx].is_finite() {
                let found = own.expected;
                assert!(!is_off(found, expected, SINGLE), "{name}, expected at {idx}: {found} for {expected}");
            }
        }
    }
}

#[test]
fn a_day_is_the_season_where_none_is_given() {
    let text = include_str!("fixtures/profile_forecast.json");
    let Series { step, period, t0, cases } = serde_json::from_str(text).expect("a fixture");
    let given = profile_forecast::Config { season_ms: Some(period * 1000), ..Default::default() };
    for case in cases {
        let values: Vec<f64> = case.x.iter().filter_map(|value| *value).collect();
        let judged = |config: &profile_forecast::Config| judge_series(config, step * SECOND, t0 / step, &values);
        assert_eq!(judged(&profile_forecast::Config::default()), judged(&given), "{}", case.name);
    }
}

#[test]
fn mahalanobis_judges_as_in_the_study() {
    let text = include_str!("fixtures/mahalanobis.json");
    let Rows { step, n_columns, training, values, score, ratio, hot, onsets } =
        serde_json::from_str(text).expect("a fixture");
    let judged = judge_rows(&mahalanobis::Config::default(), step * SECOND, n_columns, &training, &values);
    let judged = judged.expect("there is enough to fit on");
    assert_eq!(judged.len(), score.len());
    for (idx, own) in judged.iter().enumerate() {
        assert!(!is_off(own.score, score[idx], SINGLE), "score at {idx}: {} for {}", own.score, score[idx]);
        assert!(!is_off(own.ratio, ratio[idx], SINGLE), "ratio at {idx}: {} for {}", own.ratio, ratio[idx]);
    }
    let of = |is_it: fn(&mahalanobis::JudgedRow) -> bool| -> Vec<usize> {
        judged.iter().enumerate().filter(|(_, own)| is_it(own)).map(|(idx, _)| idx).collect()
    };
    assert_eq!(of(|own| own.is_hot), hot);
    assert_eq!(of(|own| own.is_onset), onsets);
}
