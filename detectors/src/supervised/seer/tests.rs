use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Config, Example, Model, Seer, Violation, depth::Depths, examples};

const TICK: i64 = 1_000_000_000;
const SERVICES: [&str; 4] = ["gateway", "cart", "stock", "mail"];

/// Ten minutes of four services with a call or two under way. Every minute the queue of one of cart, stock and mail
/// grows for ten seconds before, and for ten seconds in, a violation.
fn recording(seed: u64) -> (Depths, Vec<Violation>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut depths = Depths::new(0, TICK, 8, 1_000);
    let mut violations = Vec::new();
    for minute in 0..10 {
        let culprit = 1 + (minute + seed as usize) % 3;
        let start = minute * 60 + 40;
        violations.push(Violation { start, end: start + 10, culprit: SERVICES[culprit].into() });
        for tick in minute * 60..(minute + 1) * 60 {
            for (service, name) in SERVICES.iter().enumerate() {
                let growth =
                    if service == culprit && (start - 10..start + 10).contains(&tick) { tick + 11 - start } else { 0 };
                for _ in 0..=growth {
                    let from = tick as i64 * TICK + rng.random_range(0..TICK / 2);
                    depths.push(name, from, from + TICK / 2);
                }
            }
        }
    }
    (depths, violations)
}

fn config() -> Config {
    Config { window: 6, horizon: 8, hidden: 12, epochs: 30, learning_rate: 0.01, ..Config::default() }
}

fn fit(seed: u64) -> Model {
    let (depths, violations) = recording(seed);
    let examples = examples(0..depths.n_ticks(), &violations, config().horizon);
    Seer::fit_labelled(&config(), &[(&depths, examples.as_slice())], 1).expect("there are violations")
}

/// Violations that were foreseen with their culprit two ticks ahead or more, and quiet ticks at which one was foreseen.
fn judged(model: &mut Model, seed: u64) -> (usize, usize) {
    let (depths, violations) = recording(seed);
    let mut foresees = |tick: usize| {
        let found = model.foresee(&depths, tick)?;
        (found.none < 0.5).then(|| model.services()[found.culprit.0].clone())
    };
    let is_foreseen = |violation: &&Violation| {
        (violation.start - 8..violation.start - 1)
            .any(|tick| foresees(tick).is_some_and(|own| own == violation.culprit))
    };
    let n_foreseen = violations.iter().filter(is_foreseen).count();
    let quiet = (10..590).filter(|tick| violations.iter().all(|own| *tick + 12 < own.start || *tick >= own.end + 8));
    let n_false = quiet.filter(|tick| model.foresee(&depths, *tick).is_some_and(|found| found.none < 0.5)).count();
    (n_foreseen, n_false)
}

#[test]
fn a_queue_that_grows_is_foreseen_with_its_service_in_another_recording() {
    let mut model = fit(1);
    let (n_foreseen, n_false) = judged(&mut model, 2);
    assert!(n_foreseen >= 8 && n_false <= 20, "{n_foreseen} of 10, {n_false} false");
    let (depths, _) = recording(2);
    let mut untaught = Seer::untaught(&config(), &depths, 1);
    assert!(judged(&mut untaught, 2).0 < n_foreseen, "chance does as well");
    assert_eq!(model.foresee(&depths, 4), None, "its window begins before the recording");
}

#[test]
fn ticks_in_a_violation_are_no_examples_and_the_first_to_come_counts() {
    let violation = |start, end, culprit: &str| Violation { start, end, culprit: culprit.into() };
    let violations = [violation(10, 13, "cart"), violation(14, 16, "stock")];
    let found = examples(4..18, &violations, 5);
    let ticks: Vec<usize> = found.iter().map(|example| example.tick).collect();
    assert_eq!(ticks, [4, 5, 6, 7, 8, 9, 13, 16, 17]);
    let culprits: Vec<&str> = found.iter().map(|example| example.culprit.as_deref().unwrap_or("-")).collect();
    assert_eq!(culprits, ["-", "cart", "cart", "cart", "cart", "cart", "stock", "-", "-"]);
    assert_eq!(examples(4..4, &violations, 5), []);
}

#[test]
fn the_same_examples_and_seed_make_the_same_model_and_it_is_read_to_the_bit() {
    let (mut model, snapshot) = (fit(1), fit(1).snapshot());
    assert!(model.snapshot() == snapshot);
    let mut again = Seer::load(&snapshot).expect("its own");
    assert_eq!((again.version(), again.services()), (model.version(), model.services()));
    assert!(again.snapshot() == snapshot);
    let (depths, _) = recording(3);
    for tick in 0..100 {
        assert_eq!(again.foresee(&depths, tick), model.foresee(&depths, tick));
    }
    for n in [0, 16, snapshot.len() / 2, snapshot.len() - 1] {
        assert!(Seer::load(&snapshot[..n]).is_err());
    }
}

#[test]
fn services_are_known_by_name_whatever_their_order() {
    let mut model = fit(1);
    let (depths, _) = recording(2);
    let mut turned = Depths::new(0, TICK, 8, 1_000);
    for service in ["unknown", "mail", "stock", "cart", "gateway"] {
        let Some(place) = depths.services().iter().position(|own| **own == *service) else {
            turned.push(service, 0, 5 * TICK);
            continue;
        };
        for tick in 0..depths.n_ticks() {
            let mut left = f64::from(depths.depth(place, tick));
            while left > 0.0 {
                let start = tick as i64 * TICK;
                turned.push(service, start, start + (left.min(1.0) * TICK as f64) as i64);
                left -= 1.0;
            }
        }
    }
    for tick in (20..600).step_by(17) {
        let (one, other) = (model.foresee(&depths, tick).expect("whole"), model.foresee(&turned, tick).expect("whole"));
        assert!((one.none - other.none).abs() < 1e-3 && one.culprit.0 == other.culprit.0, "{one:?} and {other:?}");
    }
}

#[test]
fn examples_that_do_not_suffice_and_values_out_of_range_are_refused() {
    let (depths, violations) = recording(1);
    let fit = |config: &Config, examples: &[Example]| Seer::fit_labelled(config, &[(&depths, examples)], 1).map(|_| ());
    let quiet = examples(0..100, &[], 8);
    assert!(fit(&config(), &quiet).is_err(), "no violation");
    assert!(fit(&config(), &[]).is_err());
    let unknown = Violation { culprit: "nobody".into(), ..violations[0].clone() };
    assert!(fit(&config(), &examples(0..100, &[unknown], 8)).is_err(), "its culprit is not among the services");
    let error = fit(&Config { window: 1, ..config() }, &quiet).expect_err("nothing to follow").to_string();
    assert!(error.contains("key `window`"), "{error}");
    let few = Config { max_examples: 40, epochs: 1, ..config() };
    assert!(fit(&few, &examples(0..600, &violations, 8)).is_ok());
}
