use std::sync::Arc;

use faultline_core::{Detector, GroupWindow, Score, Window};

use super::{Config, Mahalanobis, Model, judge_rows};
use crate::{
    Algorithm,
    testing::{GroupFixture, score_all},
};

const MINUTE: i64 = GroupFixture::STEP_NANOS;

/// Fitted after a tenth of a day, and for good after two of them.
fn short() -> Config {
    Config { warm_up_rows: 150, settle_rows: 600, ..Config::default() }
}

fn fit(config: &Config, training: &[Window<'_>]) -> Model {
    Mahalanobis::fit(config, training, 0).expect("it is fitted on anything")
}

fn score(model: &mut Model, window: Window<'_>) -> Option<Score> {
    score_all(model, &[window])[0]
}

/// An instance whose processor is beyond its load in these rows.
fn broken(seed: u64, n_rows: usize, rows: std::ops::Range<usize>) -> GroupFixture {
    let mut instance = GroupFixture::coupled("a", seed, 0, n_rows, 0.0);
    for row in rows {
        instance.values[6 * row + 1] += 200.0;
        instance.is_spoiled[row] = true;
    }
    instance
}

fn rows_that_alert(scores: &[Option<Score>]) -> Vec<usize> {
    let alerts = scores.iter().enumerate().filter(|(_, score)| score.is_some_and(|score| score.value > 10.0));
    alerts.map(|(row, _)| row).collect()
}

#[test]
fn it_warms_up_by_itself_and_a_break_between_columns_is_one_episode() {
    let instance = broken(1, 1500, 1000..1060);
    let mut model = fit(&short(), &[]);
    let scores = score_all(&mut model, &instance.pieces(1).collect::<Vec<_>>());
    assert!(scores[..150].iter().all(Option::is_none) && scores[150..].iter().all(Option::is_some));
    let alerts = rows_that_alert(&scores);
    assert!(alerts.first().is_some_and(|first| (1000..1003).contains(first)), "{alerts:?}");
    assert!(alerts.len() <= 4 && alerts.iter().all(|row| (1000..1020).contains(row)), "{alerts:?}");
    let rest = scores.iter().enumerate().filter(|(row, _)| !alerts.contains(row)).filter_map(|(_, score)| *score);
    assert!(rest.into_iter().all(|score| score.value < 100f64.ln()));
    for row in alerts {
        assert_eq!(scores[row].expect("it alerts").culprit, 1, "the processor, at {row}");
    }
}

#[test]
fn training_rows_that_suffice_fit_it_for_good() {
    let training = GroupFixture::coupled("a", 1, 0, 400, 0.0);
    let few = GroupFixture::coupled("b", 1, 0, 100, 0.0);
    let windows: Vec<_> = training.pieces(50).chain(few.pieces(50)).collect();
    let mut model = fit(&short(), &windows);
    let later = GroupFixture { first_step: 400, ..broken(2, 300, 200..230) };
    let alone = fit(&short(), &[]).bytes();
    assert!(model.bytes() - alone < 8_000, "rows of the fitted one are not kept: {} bytes", model.bytes());
    let scores = score_all(&mut model, &later.pieces(1).collect::<Vec<_>>());
    assert!(scores.iter().all(Option::is_some), "no warm-up");
    assert!(rows_that_alert(&scores).first().is_some_and(|first| (200..203).contains(first)));
    // The other one goes on to warm up where its training ended.
    let rest = GroupFixture { first_step: 100, ..GroupFixture::coupled("b", 2, 0, 60, 0.0) };
    let scores = score_all(&mut model, &rest.pieces(1).collect::<Vec<_>>());
    assert!(scores[..50].iter().all(Option::is_none) && scores[50..].iter().all(Option::is_some));
}

#[test]
fn rows_are_collected_until_it_is_settled_and_then_given_back() {
    let instance = GroupFixture::coupled("a", 1, 0, 700, 0.0);
    let mut model = fit(&short(), &[]);
    for (rows, is_collecting) in [(0..599, true), (599..600, false)] {
        score(&mut model, instance.window(rows));
        assert_eq!(model.bytes() > 6_000, is_collecting, "{} bytes", model.bytes());
    }
    assert!(score(&mut model, instance.window(600..700)).is_some());
}

#[test]
fn pieces_and_the_whole_see_the_same_and_rows_are_judged_once() {
    let instance = broken(3, 800, 620..640);
    let scores = |windows: &[Window<'_>]| score_all(&mut fit(&short(), &[]), windows);
    let whole = scores(&[instance.whole()])[0].expect("there is an alert");
    let singles = scores(&instance.pieces(1).collect::<Vec<_>>());
    let worst = singles.iter().enumerate().filter_map(|(row, score)| Some((row, (*score)?)));
    let worst = worst.max_by(|a, b| a.1.value.total_cmp(&b.1.value)).expect("as above");
    assert_eq!((whole.value, whole.culprit), (worst.1.value, 6 * worst.0 + worst.1.culprit));
    let overlapping: Vec<_> = (0..700).step_by(50).map(|start| instance.window(start..start + 100)).collect();
    let mut apart = fit(&short(), &[]);
    score_all(&mut apart, &overlapping);
    let mut together = fit(&short(), &[]);
    score(&mut together, instance.window(0..750));
    assert_eq!(score(&mut apart, instance.window(0..750)), None, "all are known");
    assert_eq!(score(&mut apart, instance.window(750..800)), score(&mut together, instance.window(750..800)));
}

#[test]
fn a_clock_that_was_set_back_does_not_silence_an_instance() {
    let (ahead, back) = (GroupFixture { first_step: 1_000_000, ..broken(3, 400, 0..0) }, broken(4, 400, 0..0));
    let mut model = fit(&short(), &[]);
    score(&mut model, ahead.whole());
    assert!(score(&mut model, back.window(300..400)).is_some());
    assert_eq!(score(&mut model, back.window(0..300)), None, "less than a day is late");
}

/// The instance with its columns in this order, by their old places.
fn reordered(instance: &GroupFixture, order: &[usize]) -> GroupFixture {
    let rows = instance.values.chunks(instance.columns.len());
    let values = rows.flat_map(|row| order.iter().map(|column| row.get(*column).copied().unwrap_or(f64::NAN)));
    let name = |column: &usize| instance.columns.get(*column).cloned().unwrap_or_else(|| Arc::from("new"));
    GroupFixture { values: values.collect(), columns: order.iter().map(name).collect(), ..instance.clone() }
}

#[test]
fn columns_may_come_go_and_change_places() {
    let (training, later) = (broken(4, 600, 0..0), GroupFixture { first_step: 600, ..broken(5, 200, 100..110) });
    let fitted = fit(&short(), &[training.whole()]).snapshot().expect("written");
    let values = |later: &GroupFixture| -> Vec<(f64, usize)> {
        let mut model = Mahalanobis::load(&short(), &fitted).expect("its own");
        let scores = score_all(&mut model, &later.pieces(1).collect::<Vec<_>>());
        scores.into_iter().map(|score| score.map_or((f64::NAN, 0), |score| (score.value, score.culprit))).collect()
    };
    let usual = values(&later);
    let grown = values(&reordered(&later, &[0, 1, 2, 3, 4, 5, 9]));
    assert_eq!(usual, grown, "a new column is not looked at");
    let turned = values(&reordered(&later, &[5, 4, 3, 2, 1, 0]));
    for (own, other) in usual.iter().zip(turned) {
        assert_eq!(own.0, other.0, "the order does not matter");
    }
    assert_eq!((usual[102].1, values(&reordered(&later, &[2, 1, 0]))[102].1), (1, 1));
    let without = values(&reordered(&later, &[0, 3, 4, 5]));
    assert!(without.iter().all(|own| own.0 < 5.0), "what is broken is gone");
}

#[test]
fn gaps_count_as_usual_and_empty_rows_as_nothing() {
    let training = broken(4, 600, 0..0);
    let mut later = GroupFixture { first_step: 600, ..broken(5, 100, 50..60) };
    later.values.chunks_mut(6).for_each(|row| row[1] = f64::NAN);
    let mut model = fit(&short(), &[training.whole()]);
    let scores = score_all(&mut model, &later.pieces(1).collect::<Vec<_>>());
    assert!(scores.iter().all(|score| score.is_some_and(|score| score.value < 5.0)), "the processor is not known");
    let mut empty = GroupFixture { first_step: 700, ..broken(5, 100, 0..0) };
    empty.values.fill(f64::NAN);
    assert!(score_all(&mut model, &empty.pieces(10).collect::<Vec<_>>()).iter().all(Option::is_none));
}

#[test]
fn evidence_names_the_column_and_its_usual_range() {
    let training = broken(4, 600, 0..0);
    let later = GroupFixture { first_step: 600, ..broken(5, 200, 120..130) };
    let mut model = fit(&short(), &[training.whole()]);
    let window = later.window(0..200);
    let found = score(&mut model, window).expect("it is fitted");
    let evidence = model.explain(&window, &found);
    let figure = |name: &str| evidence.figures[name];
    assert_eq!(found.culprit % 6, 1);
    assert!(evidence.summary.starts_with("a of test was ") && evidence.summary.contains(" is cpu, which was "));
    assert!(evidence.summary.contains(" at 12:0"), "row 120 of minute 600: {}", evidence.summary);
    assert_eq!(figure("value"), later.values[found.culprit]);
    assert!((90.0..110.0).contains(&figure("expected")) && figure("expected_high") < figure("value"));
    assert!(figure("ratio") > 3.5 && (0.5..1.5).contains(&figure("share")), "{:?}", evidence.figures);
    let other = Score { culprit: 0, ..found };
    assert!(model.explain(&window, &other).summary.starts_with("nothing is kept"));
}

#[test]
fn a_snapshot_goes_on_where_it_was_taken() {
    let instance = broken(6, 1000, 500..540);
    // While it collects, after the first fit, within the episode, after the last fit.
    for n in [100, 200, 510, 700] {
        let mut first = fit(&short(), &[]);
        score(&mut first, instance.window(0..n));
        let snapshot = first.snapshot().expect("written");
        let mut second = Mahalanobis::load(&short(), &snapshot).expect("its own");
        assert!(second.snapshot().expect("written") == snapshot && second.version() == first.version());
        let later: Vec<_> = (n..1000).map(|row| instance.window(row..row + 1)).collect();
        assert_eq!(score_all(&mut first, &later), score_all(&mut second, &later), "after {n} rows");
        assert!(Mahalanobis::load(&short(), &snapshot[..snapshot.len() - 1]).is_err());
    }
}

#[test]
fn memory_is_bounded_by_columns_and_instances() {
    let config = Config { max_columns: 4, max_instances: 2, ..short() };
    let mut model = fit(&config, &[]);
    for name in ["a", "b", "c", "d"] {
        let instance = GroupFixture { key: GroupFixture::coupled(name, 1, 0, 1, 0.0).key, ..broken(7, 600, 300..320) };
        score(&mut model, instance.window(0..400));
        assert!(model.instances.len() <= 2);
    }
    let wide: Vec<Arc<str>> = (0..1000).map(|column| Arc::from(format!("{column}"))).collect();
    let values: Vec<f64> = (0..1000 * 300).map(|idx| f64::from(idx % 977)).collect();
    let instance = broken(7, 1, 0..0);
    let Window::Group(window) = instance.whole() else { panic!("a group") };
    let window = GroupWindow { columns: &wide, values: &values, n_rows: 300, ..window };
    let mut model = fit(&Config { max_columns: 64, ..short() }, &[]);
    let found = score(&mut model, Window::Group(window)).expect("it is fitted on the way");
    assert!(found.culprit % 1000 < 64 && model.bytes() < 400_000, "{found:?} {}", model.bytes());
}

#[test]
fn rows_can_be_judged_without_a_model() {
    let (training, later) = (broken(8, 600, 0..0), broken(9, 200, 100..110));
    let judged = judge_rows(&Config::default(), MINUTE, 6, &training.values, &later.values).expect("enough");
    let onsets: Vec<usize> = (0..judged.len()).filter(|row| judged[*row].is_onset).collect();
    assert!(judged.len() == 800 && onsets.len() == 1 && (700..703).contains(&onsets[0]), "{onsets:?}");
    assert!(judged[709].is_hot && !judged[799].is_hot);
    assert!(judge_rows(&Config::default(), MINUTE, 0, &[], &later.values).is_none());
    let gap = judge_rows(&Config::default(), MINUTE, 6, &training.values, &[f64::NAN; 6]).expect("enough");
    assert_eq!(gap.last().map(|row| (row.score, row.is_hot)), Some((0.0, false)));
}

#[test]
fn what_is_out_of_range_is_refused_by_name() {
    for (key, config) in [
        ("open_ratio", Config { open_ratio: f64::NAN, ..Config::default() }),
        ("close_ratio", Config { close_ratio: 4.0, ..Config::default() }),
        ("warm_up_rows", Config { warm_up_rows: 0, ..Config::default() }),
        ("settle_rows", Config { settle_rows: 1000, ..Config::default() }),
        ("max_columns", Config { max_columns: 257, ..Config::default() }),
    ] {
        let error = Mahalanobis::fit(&config, &[], 0).map(|_| ()).expect_err("refused").to_string();
        assert!(error.contains(&format!("key `{key}`")), "{error}");
    }
}

#[test]
fn a_thousand_instances_that_collect_rows_take_a_little_over_a_kilobyte_for_each_series() {
    const N_COLUMNS: usize = 100;
    let mut model = fit(&Config::default(), &[]);
    // As if there were so many.
    (model.n_collecting, model.until_count) = (1_000, usize::MAX);
    let columns: Vec<Arc<str>> = (0..N_COLUMNS).map(|column| Arc::from(format!("{column}"))).collect();
    let instance = broken(7, 1, 0..0);
    let Window::Group(window) = instance.whole() else { panic!("a group") };
    for first in [0, 1_500] {
        let cell = |idx: usize| ((idx * idx) as f64 * 0.618_034).sin();
        let values: Vec<f64> = (first * N_COLUMNS..(first + 1_500) * N_COLUMNS).map(cell).collect();
        let start_unix_nano = first as i64 * MINUTE;
        let window = GroupWindow { columns: &columns, values: &values, n_rows: 1_500, start_unix_nano, ..window };
        assert!(score(&mut model, Window::Group(window)).is_some(), "it is fitted at 1440 and at 2880 rows");
        assert!(model.bytes() <= 1_280 * N_COLUMNS, "{} bytes", model.bytes());
    }
    assert!(model.instances.values().all(|instance| instance.is_collecting()));
}
