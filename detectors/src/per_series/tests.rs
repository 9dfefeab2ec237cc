//! What every cheap detector of series must do, and what their own tests are made of.

use std::sync::Arc;

use faultline_core::WindowKey;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::{
    Algorithm,
    testing::{SeriesFixture, score_all},
};

/// Nanoseconds of a minute.
pub(crate) const MINUTE: i64 = SeriesFixture::STEP_NANOS;

/// Uniform noise between 45 and 55.
pub(crate) fn noisy(seed: u64, n: usize) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|_| rng.random_range(45.0..55.0)).collect()
}

/// How far each of these points, from `first` on, is from what was expected.
pub(crate) fn fed<S: State>(state: &mut S, first: i64, values: &[f64]) -> Vec<Option<f64>> {
    let steps = (first..).zip(values);
    steps.map(|(step, value)| Some(state.observe(step, *value)?.distance(*value))).collect()
}

/// Bytes that a series takes where there are many, its place in the map included; its name is that of the series station.
pub(crate) fn bytes_a_series<S: State>() -> usize {
    // As full as the map is with 100,000.
    const N: usize = 3_125;
    let mut own = PerSeries::<S>::new(&Config::default()).expect("the default is valid");
    for n in 0..N {
        let key = WindowKey { stream: Arc::from("test"), session: Arc::from(n.to_string()) };
        own.series.touch(&key, || Track::new(MINUTE));
    }
    own.series.bytes().div_ceil(N)
}

fn series(name: &str, points: Vec<f64>) -> SeriesFixture {
    let n = points.len();
    SeriesFixture { points, ..SeriesFixture::seasonal(name, 1, 0, n, 0.0) }
}

fn fit<A: Algorithm<Config = Config>>(config: &Config, training: &SeriesFixture) -> A::Model {
    let windows: Vec<Window<'_>> = training.pieces(100).collect();
    A::fit(config, &windows, 0).unwrap_or_else(|error| panic!("{error}"))
}

/// A score for each point, point by point.
fn scores(model: &mut impl Detector, series: &SeriesFixture) -> Vec<Option<f64>> {
    let windows: Vec<Window<'_>> = series.pieces(1).collect();
    score_all(model, &windows).into_iter().map(|score| score.map(|score| score.value)).collect()
}

/// All of it.
pub(crate) fn behaves_as_a_detector_of_series<A: Algorithm<Config = Config>>() {
    finds_planted_spikes::<A>();
    is_silent_on_what_does_not_vary::<A>();
    takes_whatever_comes::<A>();
    is_the_same_after_a_restart::<A>();
    scores_the_worst_of_several::<A>();
    keeps_no_more_than_so_many::<A>();
    says_what_it_expected::<A>();
}

fn finds_planted_spikes<A: Algorithm<Config = Config>>() {
    let mut model = fit::<A>(&Config::default(), &series("load", noisy(1, 1500)));
    let mut points = noisy(2, 1000);
    let spikes: Vec<usize> = (100..1000).step_by(150).collect();
    for (idx, &at) in spikes.iter().enumerate() {
        points[at] = if idx % 2 == 0 { 100.0 } else { 0.0 };
    }
    let later = SeriesFixture { first_step: 1500, ..series("load", points) };
    let scores: Vec<f64> = scores(&mut model, &later).into_iter().map(|score| score.expect("it is warm")).collect();
    let least = spikes.iter().map(|&at| scores[at]).fold(f64::INFINITY, f64::min);
    let is_spike = |(idx, _): &(usize, &f64)| spikes.contains(idx);
    let most = scores.iter().enumerate().filter(|at| !is_spike(at)).map(|(_, score)| *score).fold(0.0, f64::max);
    assert!(least > 1.5 * most && most < 5.0 && least > 6.0, "{}: {least} and {most}", A::NAME);
}

fn is_silent_on_what_does_not_vary<A: Algorithm<Config = Config>>() {
    let mut model = fit::<A>(&Config::default(), &series("other", noisy(1, 200)));
    let mut constant = vec![5.0; 3000];
    constant[2000] = 500.0;
    assert!(scores(&mut model, &series("constant", constant)).iter().all(Option::is_none), "{}: constant", A::NAME);
    let steps = (0..3000).map(|idx| if idx < 1500 { 5.0 } else { 7.0 }).collect();
    let worst = scores(&mut model, &series("level", steps)).into_iter().flatten().fold(0.0, f64::max);
    assert!(worst <= 1.5, "{}: a new level of what was constant scores {worst}", A::NAME);
    let large = (0..3000).map(|idx| 1e15 + 0.125 * f64::from(idx % 2)).collect();
    assert!(scores(&mut model, &series("rounding", large)).iter().all(Option::is_none), "{}: rounding", A::NAME);
    for every in [17, 60, 331] {
        let points = (0..6000).map(|idx| if idx % every == 3 { 30.0 } else { 0.0 }).collect();
        let worst = scores(&mut model, &series("sparse", points)).into_iter().flatten().fold(0.0, f64::max);
        assert!(worst < 2.0, "{}: one in {every} scores {worst}", A::NAME);
    }
}

fn takes_whatever_comes<A: Algorithm<Config = Config>>() {
    let mut model = fit::<A>(&Config::default(), &series("load", noisy(1, 500)));
    let mut points = noisy(2, 2000);
    points[10..40].fill(f64::NAN);
    (points[50], points[51], points[52]) = (f64::INFINITY, f64::NEG_INFINITY, f64::NAN);
    (points[440], points[441], points[442]) = (f64::MAX, f64::MIN, 1e-310);
    points[70..400].iter_mut().step_by(2).for_each(|point| *point = f64::NAN);
    let later = SeriesFixture { first_step: 500, ..series("load", points) };
    let scores = scores(&mut model, &later);
    assert!(scores.iter().flatten().all(|score| score.is_finite() && *score >= 0.0), "{}", A::NAME);
    for (score, point) in scores.iter().zip(&later.points) {
        assert!(score.is_none() || point.is_finite(), "{}: {point} scores {score:?}", A::NAME);
    }
    // What no difference can be taken to is not judged.
    assert!(scores[440].is_none_or(|score| score > 1e3), "{}: {:?}", A::NAME, scores[440]);
    assert!(scores[1000..].iter().all(Option::is_some), "{}: it goes on", A::NAME);
    for first_step in [i64::MAX / MINUTE - 300, i64::MIN / MINUTE, 0, 5] {
        let odd = SeriesFixture { first_step, ..series("load", noisy(3, 200)) };
        let scores = score_all(&mut model, &odd.pieces(50).collect::<Vec<_>>());
        assert!(scores.iter().flatten().all(|score| score.value.is_finite()), "{}: at {first_step}", A::NAME);
    }
}

fn is_the_same_after_a_restart<A: Algorithm<Config = Config>>() {
    let config = Config::default();
    let training = SeriesFixture::seasonal("load", 1, 0, 2500, 0.01);
    let mut first = fit::<A>(&config, &training);
    assert!(A::fit(&config, &[], 0).is_err(), "{}: nothing to fit on", A::NAME);
    scores(&mut first, &series("other", noisy(1, 700)));
    let snapshot = first.snapshot().expect("written");
    let mut second = A::load(&config, &snapshot).unwrap_or_else(|error| panic!("{error}"));
    assert!(second.snapshot().expect("written") == snapshot, "{}: bytes", A::NAME);
    assert_eq!(second.version(), first.version(), "{}", A::NAME);
    let later = SeriesFixture::seasonal("load", 2, 2500, 1500, 0.01);
    assert!(scores(&mut first, &later) == scores(&mut second, &later), "{}: scores", A::NAME);
    assert!(second.snapshot().expect("written") == first.snapshot().expect("written"), "{}: bytes later", A::NAME);
    for n in [0, 16, 40, snapshot.len() / 2, snapshot.len() - 1] {
        assert!(A::load(&config, &snapshot[..n]).is_err(), "{}: {n} bytes", A::NAME);
    }
}

fn scores_the_worst_of_several<A: Algorithm<Config = Config>>() {
    let config = Config::default();
    let training = SeriesFixture::seasonal("load", 1, 0, 1500, 0.0);
    let later = SeriesFixture::seasonal("load", 2, 1500, 600, 0.02);
    let alone = scores(&mut fit::<A>(&config, &training), &later);
    let together = score_all(&mut fit::<A>(&config, &training), &later.pieces(50).collect::<Vec<_>>());
    for ((score, points), first) in together.iter().zip(alone.chunks(50)).zip((0..).step_by(50)) {
        let score = score.expect("nothing is missing");
        let worst = points.iter().flatten().copied().fold(f64::NEG_INFINITY, f64::max);
        assert_eq!((score.value, alone[first + score.culprit]), (worst, Some(worst)), "{}", A::NAME);
    }
}

fn keeps_no_more_than_so_many<A: Algorithm<Config = Config>>() {
    assert!(A::fit(&Config { max_series: 0 }, &[], 0).is_err_and(|error| error.to_string().contains("max_series")));
    let config = Config { max_series: 2 };
    let mut model = fit::<A>(&config, &series("a", noisy(1, 400)));
    let is_warm = |model: &mut A::Model, name: &str, first_step: i64| {
        let later = SeriesFixture { first_step, ..series(name, noisy(2, 1)) };
        scores(model, &later)[0].is_some()
    };
    assert!(is_warm(&mut model, "a", 400), "{}", A::NAME);
    scores(&mut model, &series("b", noisy(1, 400)));
    assert!(is_warm(&mut model, "a", 401) && is_warm(&mut model, "b", 400), "{}: there is room for two", A::NAME);
    is_warm(&mut model, "c", 400);
    assert!(is_warm(&mut model, "b", 401) && !is_warm(&mut model, "a", 402), "{}: `a` had to go", A::NAME);
}

fn says_what_it_expected<A: Algorithm<Config = Config>>() {
    let mut model = fit::<A>(&Config::default(), &series("load", noisy(1, 1500)));
    let mut later = SeriesFixture { first_step: 1500, ..series("load", noisy(2, 50)) };
    later.points[30] = 90.0;
    let window = later.whole();
    let score = score_all(&mut model, &[window])[0].expect("it is warm");
    let evidence = model.explain(&window, &score);
    let figure = |name: &str| evidence.figures[name];
    assert_eq!((score.culprit, figure("value"), evidence.culprit), (30, 90.0, Some(later.records[30])));
    assert!((figure("expected") - 50.0).abs() < 5.0 && figure("scale") > 0.0, "{evidence:?}");
    assert!(evidence.summary.starts_with("load of test was 90.0 where "), "{}", evidence.summary);
    assert_eq!(evidence.records.len(), 21);
    // The next window has nothing to tell; what was expected before it is still known.
    let gaps = SeriesFixture { first_step: 1550, ..series("load", vec![f64::NAN; 3]) };
    assert_eq!(score_all(&mut model, &[gaps.whole()]), [None]);
    assert!(model.explain(&window, &score).figures.contains_key("expected"), "{}", A::NAME);
    let hourly = WindowKey { stream: Arc::from("test"), session: Arc::from("unknown") };
    let Window::Series(own) = window else { unreachable!("a series") };
    let unknown = Window::Series(SeriesWindow { key: &hourly, ..own });
    assert!(model.explain(&unknown, &score).summary.starts_with("unknown of test was 90.0, off by "));
}
