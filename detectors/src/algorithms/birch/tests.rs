use std::{f64::consts::TAU, sync::Arc};

use faultline_core::{Detector, Window};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Birch, Config, Model};
use crate::{
    Algorithm,
    testing::{GroupFixture, score_all},
};

const N_COLUMNS: usize = 6;

/// The measure of a column: each in another power of ten.
fn measure(column: usize) -> f64 {
    10f64.powi(2 * column as i32 - 3)
}

/// Columns that follow one load of a season of 144 rows, up or down, with noise of a fiftieth of their range. In a spoiled row two
/// of them are half their range off.
fn coupled(name: &str, seed: u64, first_step: i64, n_rows: usize, share: f64) -> GroupFixture {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let columns: Vec<Arc<str>> = (0..N_COLUMNS).map(|column| Arc::from(format!("column {column}"))).collect();
    let (mut values, mut is_spoiled) = (Vec::new(), Vec::new());
    for step in (first_step..).take(n_rows) {
        let load = 0.5 + 0.5 * (TAU * step as f64 / 144.0).sin();
        let spoiled = if rng.random_bool(share) { Some(rng.random_range(0..N_COLUMNS - 1)) } else { None };
        for column in 0..N_COLUMNS {
            let follows = if column % 2 == 0 { load } else { 1.0 - load };
            let off = match spoiled {
                Some(first) if column == first || column == first + 1 => 0.5 * (0.5 - follows).signum(),
                _ => 0.0,
            };
            let noise: f64 = rng.random_range(-0.02..0.02);
            values.push(measure(column) * (1.0 + follows + off + noise));
        }
        is_spoiled.push(spoiled.is_some());
    }
    GroupFixture { columns, values, is_spoiled, ..GroupFixture::coupled(name, seed, first_step, 0, 0.0) }
}

fn fit(config: &Config, training: &GroupFixture) -> Model {
    Birch::fit(config, &training.pieces(100).collect::<Vec<_>>(), 0).expect("it fits")
}

fn trained() -> Model {
    fit(&Config::default(), &coupled("host", 1, 0, 2000, 0.0))
}

fn later(share: f64) -> GroupFixture {
    coupled("host", 2, 2000, 1000, share)
}

/// A score for each row, row by row.
fn scores(model: &mut Model, group: &GroupFixture) -> Vec<Option<f64>> {
    let windows: Vec<Window<'_>> = group.pieces(1).collect();
    score_all(model, &windows).into_iter().map(|score| score.map(|score| score.value)).collect()
}

fn same(n: usize, row: [f64; N_COLUMNS], name: &str) -> GroupFixture {
    GroupFixture { values: row.repeat(n), ..coupled(name, 1, 2000, n, 0.0) }
}

#[test]
fn rows_whose_columns_do_not_fit_together_stand_out() {
    let group = later(0.02);
    let scores = scores(&mut trained(), &group);
    let of = |spoiled: bool| {
        let pairs = scores.iter().zip(&group.is_spoiled).filter(move |(_, own)| **own == spoiled);
        pairs.map(|(score, _)| score.expect("it is warm"))
    };
    let (least, most) = (of(true).fold(f64::INFINITY, f64::min), of(false).fold(f64::NEG_INFINITY, f64::max));
    assert!(of(true).count() > 5 && least > most && least > 2.0, "{least} and {most}");
}

#[test]
fn the_column_that_is_off_is_named() {
    let mut model = trained();
    let mut group = later(0.0);
    let usual = group.values[40 * N_COLUMNS + 3];
    group.values[40 * N_COLUMNS + 3] = usual * 3.0;
    let window = group.window(0..60);
    let score = score_all(&mut model, &[window])[0].expect("it is warm");
    assert_eq!(score.culprit, 40 * N_COLUMNS + 3);
    let evidence = model.explain(&window, &score);
    assert!(evidence.summary.starts_with("host of test is in a state unlike its usual ones: column 3"), "{evidence:?}");
    assert!((evidence.figures["expected"] / usual - 1.0).abs() < 0.5, "{evidence:?}, {usual} is usual");
    assert!(evidence.figures["distance"] > evidence.figures["radius"] + evidence.figures["threshold"], "{evidence:?}");
}

#[test]
fn a_constant_instance_and_the_first_rows_are_silent() {
    let mut model = trained();
    let mut constant = same(2000, [5.0; N_COLUMNS], "constant");
    assert!(scores(&mut model, &constant).iter().all(Option::is_none));
    constant.values[1500 * N_COLUMNS] = 900.0;
    let mut again = same(2000, [5.0; N_COLUMNS], "again");
    again.values.clone_from(&constant.values);
    assert!(scores(&mut model, &again)[..=1500].iter().all(Option::is_none), "nothing varied before");
    let young = scores(&mut model, &GroupFixture { key: same(1, [0.0; N_COLUMNS], "young").key, ..later(0.0) });
    assert!(young[..60].iter().all(Option::is_none) && young[200..].iter().all(Option::is_some));
}

#[test]
fn a_state_that_lasts_becomes_normal_and_one_row_does_not() {
    let mut model = trained();
    let strange: [f64; N_COLUMNS] = std::array::from_fn(|column| 1.9 * measure(column));
    let strange = scores(&mut model, &same(300, strange, "host"));
    assert!(strange[..5].iter().all(|score| score.is_some_and(|score| score > 1.0)), "{:?}", &strange[..5]);
    assert!(strange[299].is_some_and(|score| score < 0.5), "{:?}", strange[299]);
}

#[test]
fn clusters_and_instances_are_bounded() {
    let noise: Vec<f64> = (0..3000 * N_COLUMNS).map(|idx| ((idx * idx * 7919) % 104_729) as f64).collect();
    let wild = GroupFixture { values: noise, ..coupled("wild", 1, 0, 3000, 0.0) };
    let model = fit(&Config { max_instances: 2, ..Config::default() }, &wild);
    let n_bytes = model.snapshot().expect("written").len();
    assert!((3000..64 * (N_COLUMNS + 2) * 8 + 400).contains(&n_bytes), "{n_bytes} bytes");
    let mut model = model;
    for name in ["a", "b", "c"] {
        scores(&mut model, &same(10, [1.0; N_COLUMNS], name));
    }
    assert_eq!(model.instances.len(), 2);
    assert!(model.instances.get(&wild.key).is_none());
}

#[test]
fn gaps_new_columns_and_bad_values_do_no_harm() {
    let mut model = trained();
    let mut group = later(0.0);
    group.values.iter_mut().step_by(7).for_each(|value| *value = f64::NAN);
    let with_gaps = scores(&mut model, &group);
    assert!(with_gaps.iter().all(|score| score.is_some_and(|score| score < 2.0)), "{with_gaps:?}");
    let mut wider = coupled("host", 3, 3000, 500, 0.0);
    wider.columns.push("one more".into());
    let with_new = wider.values.chunks(N_COLUMNS).zip(0..);
    wider.values = with_new.flat_map(|(row, idx)| [row, &[f64::from(idx % 5)]].concat()).collect();
    let wider_scores = scores(&mut model, &wider);
    assert!(wider_scores.iter().all(Option::is_some));
    let odd = [f64::NAN, f64::INFINITY, f64::MAX, f64::MIN, 0.0, 1e-310];
    let odd = GroupFixture { first_step: 4000, ..same(100, odd, "host") };
    assert!(scores(&mut model, &odd).iter().flatten().all(|score| score.is_finite()));
    let snapshot = model.snapshot().expect("written");
    let mut again = Birch::load(&Config::default(), &snapshot).expect("just written");
    assert!(again.snapshot().expect("written") == snapshot);
    let next = GroupFixture { first_step: 4100, ..later(0.01) };
    assert_eq!(scores(&mut model, &next), scores(&mut again, &next));
    for n in [0, 16, 60, snapshot.len() / 2, snapshot.len() - 1] {
        assert!(Birch::load(&Config::default(), &snapshot[..n]).is_err(), "{n} bytes");
    }
}

#[test]
fn a_column_takes_no_more_than_1_2_kib_however_its_rows_scatter() {
    const N_COLUMNS: usize = 100;
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let columns: Vec<Arc<str>> = (0..N_COLUMNS).map(|column| Arc::from(format!("column {column}"))).collect();
    let values: Vec<f64> = (0..500 * N_COLUMNS).map(|_| rng.random_range(0.0..1.0)).collect();
    let wide =
        GroupFixture { columns, values, is_spoiled: vec![false; 500], ..GroupFixture::coupled("wide", 7, 0, 0, 0.0) };
    let model = fit(&Config::default(), &wide);
    assert!(model.bytes() > 500 * N_COLUMNS, "it has all its clusters: {} bytes", model.bytes());
    assert!(model.bytes() <= 1_200 * N_COLUMNS, "{} bytes", model.bytes());
}
