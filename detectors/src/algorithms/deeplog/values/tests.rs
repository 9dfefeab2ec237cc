use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{observation::WINDOW, scale::tail_nll, *};

/// Vectors in their order, each with those before it.
fn series(n: usize, vector: impl FnMut(usize) -> Vec<f32>) -> Vec<Observation> {
    let vectors: Vec<Vec<f32>> = (0..n + WINDOW).map(vector).collect();
    let observation = |at: usize| Observation {
        before: vectors[at..at + WINDOW].iter().rev().flatten().copied().collect(),
        next: vectors[at + WINDOW].clone(),
    };
    (0..n).map(observation).collect()
}

/// Two parameters: the first alternates between 0 and 10, the second is noise around 3; the third never varies.
fn observed(n: usize, seed: u64) -> Vec<Observation> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    series(n, |at| vec![(at % 2) as f32 * 10.0 + rng.random::<f32>(), 3.0 + rng.random::<f32>(), 7.0])
}

/// Elapsed time as noise, and beside it a size of which one in ten is above ten thousand, one in a hundred above a
/// hundred thousand, and so on.
fn sizes(n: usize, seed: u64) -> Vec<Observation> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    series(n, |_| vec![5.0 + rng.random::<f32>(), on_scale(1000.0 / (1.0 - rng.random::<f32>()))])
}

/// What the model says of one observation.
fn finding_of(model: &ValueModel, observation: &Observation) -> Finding {
    model.judge(std::slice::from_ref(observation))[0].expect("something of it is judged")
}

#[test]
fn a_vector_is_judged_by_what_was_before_it_and_the_odd_parameter_is_named() {
    let model = ValueModel::fit(&observed(600, 1), &observed(150, 2), 1).expect("two parameters vary");
    let normal = observed(100, 3);
    let findings: Vec<Finding> = model.judge(&normal).into_iter().flatten().collect();
    assert!(findings.len() == 100 && findings.iter().all(|finding| finding.nll < 9.0), "{findings:?}");
    // A usual value, but not after the ones before.
    let mut odd = normal[4].clone();
    odd.next[0] = normal[5].next[0];
    let finding = finding_of(&model, &odd);
    assert!(finding.param == 0 && finding.nll > 12.0, "{finding:?}");
    let usual = f64::from(normal[4].next[0]);
    assert!((finding.forecast - usual).abs() < 2.0, "{finding:?} where {usual} comes");
    let mut odd = normal[4].clone();
    odd.next[1] = 9.0;
    assert_eq!(finding_of(&model, &odd).param, 1);
    let mut odd = normal[4].clone();
    odd.next[2] = 900.0;
    assert_eq!(model.judge(&[odd]), model.judge(&normal[4..5]), "what never varied says nothing");
}

#[test]
fn what_never_varies_or_is_not_held_out_has_no_model_and_an_admitted_value_becomes_normal() {
    let constant: Vec<Observation> =
        (0..200).map(|_| Observation { before: vec![1.0; WINDOW], next: vec![1.0] }).collect();
    assert!(ValueModel::fit(&constant, &constant, 1).is_none());
    assert!(ValueModel::fit(&observed(600, 1), &observed(5, 2), 1).is_none());
    let mut model = ValueModel::fit(&observed(600, 1), &observed(150, 2), 1).expect("two parameters vary");
    let mut odd = observed(1, 3).remove(0);
    odd.next[1] = 9.0;
    let before = finding_of(&model, &odd).nll;
    model.admit(&odd);
    let after = finding_of(&model, &odd).nll;
    assert!(before > 9.0 && after < 6.7, "{before}, then {after}: no rarer than one in 752");
}

#[test]
fn sizes_with_a_heavy_tail_are_normal_and_what_leaves_it_is_not() {
    let model = ValueModel::fit(&sizes(2_000, 1), &sizes(500, 2), 1).expect("both vary");
    let findings: Vec<Finding> = model.judge(&sizes(5_000, 3)).into_iter().flatten().collect();
    let at_confidence = -f64::ln(1e-4);
    let n_beyond = findings.iter().filter(|finding| finding.nll > at_confidence).count();
    assert!(findings.len() == 5_000 && n_beyond <= 5, "{n_beyond} of 5,000 where one in 10,000 was promised");
    let mut odd = sizes(1, 4).remove(0);
    odd.next[1] = on_scale(1e13);
    let finding = finding_of(&model, &odd);
    assert!(finding.param == 1 && finding.nll > 2.0 * at_confidence, "{finding:?}");
    let (low, high) = finding.interval(0.9999);
    let (low, high) = (off_scale(low), off_scale(high));
    assert!(low < 1_000.0 && (1e5..1e11).contains(&high), "{low} to {high}");
}

#[test]
fn the_interval_is_where_a_finding_begins_to_exceed_the_confidence() {
    let model = ValueModel::fit(&sizes(2_000, 1), &sizes(500, 2), 1).expect("both vary");
    let mut odd = sizes(1, 4).remove(0);
    odd.next[1] = on_scale(1e13);
    let finding = finding_of(&model, &odd);
    assert_eq!(finding.n_judged, 2);
    // Two chances to be odd instead of one.
    assert!((finding.nll - (tail_nll(finding.deviations.abs()) - f64::ln(2.0))).abs() < 1e-9, "{finding:?}");
    let (_, high) = finding.interval(0.9999);
    for (value, is_beyond) in [(high - 0.01, false), (high + 0.01, true)] {
        odd.next[1] = value as f32;
        let finding = finding_of(&model, &odd);
        assert_eq!(finding.nll > -f64::ln(1e-4), is_beyond, "{finding:?} against {high}");
    }
}

#[test]
fn a_number_that_is_missing_rare_or_a_counter_is_not_judged() {
    let model = ValueModel::fit(&sizes(2_000, 1), &sizes(500, 2), 1).expect("both vary");
    let mut missing = sizes(1, 4).remove(0);
    missing.next[1] = f32::NAN;
    missing.before[1] = f32::NAN;
    let finding = finding_of(&model, &missing);
    assert!(finding.param == 0 && finding.n_judged == 1 && finding.nll < 9.0, "{finding:?}");
    missing.next[0] = f32::NAN;
    assert_eq!(model.judge(&[missing]), [None]);
    let rare = ValueModel::fit(&sizes(350, 1), &sizes(100, 2), 1).expect("the elapsed time varies");
    assert_eq!(rare.scales.iter().map(Scale::is_judged).collect::<Vec<_>>(), [true, false]);
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut counted = |n| series(n, |at| vec![rng.random(), on_scale(at as f32)]);
    let counter = ValueModel::fit(&counted(2_000), &counted(500), 1).expect("the elapsed time varies");
    assert_eq!(counter.scales.iter().map(Scale::is_judged).collect::<Vec<_>>(), [true, false]);
}
