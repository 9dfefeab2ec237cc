//! Rows of an instance whose metrics follow two hidden loads.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::testing::score_all;

const N_COLUMNS: usize = 12;

struct Rows {
    key: WindowKey,
    columns: Vec<Arc<str>>,
    service: Arc<str>,
    values: Vec<f64>,
}

/// Metrics that follow two loads, each in its own way and size, with noise of a hundredth.
fn rows(seed: u64, n: usize) -> Rows {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut values = Vec::with_capacity(n * N_COLUMNS);
    for step in 0..n {
        let loads = [(step as f64 / 40.0).sin() + rng.random::<f64>(), (step as f64 / 9.0).cos() + rng.random::<f64>()];
        for column in 0..N_COLUMNS {
            let (a, b) = ((column as f64 * 1.3).sin(), (column as f64 * 0.7).cos());
            let noise = 0.01 * (rng.random::<f64>() - 0.5);
            values.push((column as f64 + 1.0) * (100.0 + a * loads[0] + b * loads[1] + noise));
        }
    }
    let columns = (0..N_COLUMNS).map(|column| Arc::from(format!("metric{column}"))).collect();
    let key = WindowKey { stream: Arc::from("cart"), session: Arc::from("cart-1") };
    Rows { key, columns, service: Arc::from("cart"), values }
}

impl Rows {
    fn window(&self, first: usize, n_rows: usize) -> Window<'_> {
        Window::Group(GroupWindow {
            key: &self.key,
            columns: &self.columns,
            start_unix_nano: first as i64 * 60,
            step_nanos: 60,
            n_rows,
            values: &self.values[first * N_COLUMNS..(first + n_rows) * N_COLUMNS],
            service: &self.service,
        })
    }

    fn each(&self) -> Vec<Window<'_>> {
        (0..self.values.len() / N_COLUMNS).map(|row| self.window(row, 1)).collect()
    }
}

fn fitted(rows: &Rows) -> Model {
    RobustPca::fit(&Config::default(), &[rows.window(0, rows.values.len() / N_COLUMNS)], 0).expect("enough rows")
}

#[test]
fn a_metric_that_leaves_the_others_is_named_although_the_warm_up_had_failures() {
    let mut training = rows(1, 600);
    // Every fortieth row has a failing metric.
    for row in (0..600).step_by(40) {
        training.values[row * N_COLUMNS + row % N_COLUMNS] *= 1.2;
    }
    let mut model = fitted(&training);
    let mut later = rows(2, 200);
    let usual = score_all(&mut model, &later.each()).into_iter().flatten().map(|score| score.value).fold(0.0, f64::max);
    // Well within what the metric does anyway, only not when the others do not.
    later.values[77 * N_COLUMNS + 5] += 6.0 * 0.5;
    let scores = score_all(&mut model, &later.each());
    let score = scores[77].expect("judged");
    assert!(score.value > 3.0 * usual, "{} where {usual} is usual", score.value);
    assert_eq!(score.culprit, 5);
    let windows = later.each();
    let evidence = model.explain(&windows[77], &score);
    assert!(evidence.summary.starts_with("metric5 was "), "{}", evidence.summary);
    let off = (evidence.figures["value"] - evidence.figures["expected"] - 3.0).abs();
    assert!(off < 0.5, "{off}");
    assert!(scores.iter().enumerate().all(|(idx, score)| idx == 77 || score.is_none_or(|score| score.value <= usual)));
}

#[test]
fn an_instance_warms_up_by_itself_and_is_fitted_anew() {
    let (first, later) = (rows(1, 300), rows(5, 50));
    let mut model =
        RobustPca::fit(&Config { refit_rows: 64, ..Config::default() }, &[], 0).expect("no rows are needed");
    for (idx, window) in first.each().into_iter().enumerate() {
        let score = score_all(&mut model, &[window])[0];
        assert_eq!(score.is_some(), idx >= 256, "row {idx}");
        model.learn(&[window]);
    }
    let mut again = RobustPca::load(&model.config, &model.snapshot().expect("numbers")).expect("its own");
    assert_eq!(score_all(&mut again, &later.each()), score_all(&mut model, &later.each()));
    assert_eq!(again.version(), model.version());
}

#[test]
fn gaps_and_strange_values_are_harmless() {
    let mut model = fitted(&rows(1, 400));
    for odd in [f64::NAN, f64::INFINITY, f64::MAX, f64::MIN, 0.0] {
        let mut later = rows(3, 4);
        later.values[N_COLUMNS..3 * N_COLUMNS].fill(odd);
        later.values[3] = odd;
        for score in score_all(&mut model, &later.each()).into_iter().flatten() {
            assert!(score.value.is_finite() && score.culprit < N_COLUMNS);
        }
        model.learn(&later.each());
    }
    let constant = Rows { values: vec![5.0; 300 * N_COLUMNS], ..rows(1, 1) };
    let mut model = fitted(&constant);
    assert!(score_all(&mut model, &constant.each()).iter().all(Option::is_none), "nothing moves");
}

#[test]
fn instances_are_bounded_and_keys_are_checked() {
    let config = Config { max_instances: 2, ..Config::default() };
    let mut model = RobustPca::fit(&config, &[], 0).expect("no rows are needed");
    for name in ["a", "b", "a", "c"] {
        let key = WindowKey { stream: Arc::from("cart"), session: Arc::from(name) };
        model.learn(&[Rows { key, ..rows(1, 20) }.window(0, 20)]);
    }
    let names: Vec<&String> = model.state.instances.keys().collect();
    assert_eq!(names, ["cart/a", "cart/c"], "b has been silent for longest");
    let refused = RobustPca::fit(&Config { min_rows: 3000, ..Config::default() }, &[], 0).expect_err("too many");
    assert!(refused.to_string().contains("`min_rows`"), "{refused}");
    assert!(RobustPca::load(&Config::default(), b"{}").is_err());
}
