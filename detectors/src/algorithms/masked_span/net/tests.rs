use rand::SeedableRng;

use super::*;
use crate::{
    algorithms::masked_span::places::places_of,
    testing::TraceFixture,
    traces::sequence::{Labels, Sequence},
};

/// A sequence with labels that are known and one that is not.
fn sequence() -> Sequence {
    let known = [(None, "a", 0, 100), (Some(0), "b", 10, 40), (Some(1), "c", 15, 5), (Some(0), "b", 60, 10)];
    let (known, mut sequence) = (TraceFixture::of("known", &known), Sequence::default());
    let (labels, _) = Labels::learn(&[&known.trace()], 3);
    let mut other = known.clone();
    other.push(Some(3), "d", "do", (61_000, 1_000));
    other.push(Some(3), "c", "do", (63_000, 1_000));
    assert!(sequence.take(&labels, &other.trace(), 100));
    sequence
}

#[test]
fn the_way_back_agrees_with_finite_differences() {
    let shape = Shape { n_labels: 3, width: 4, hidden: 5 };
    let (sequence, mut places, mut look) = (sequence(), Vec::new(), Look::default());
    let steps = &sequence.steps;
    places_of(steps, sequence.is_cut, &mut places);
    let later: Vec<Place> = places.iter().step_by(2).map(|place| place.without_later(steps)).collect();
    places.extend(later);
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut net = Net::drawn(shape, &mut rng);
    // Biases and preferences begin at zero.
    net.weights.iter_mut().for_each(|weight| *weight += 0.2 * (rng.random::<f32>() - 0.5));
    let mut analytic = vec![0.0; shape.n_weights()];
    net.learn(steps, &places, &mut look, &mut analytic);
    for (idx, analytic) in analytic.iter().enumerate() {
        let step = 1e-2;
        let mut loss_at = |by: f32| {
            let mut weights = net.weights.clone();
            weights[idx] += by;
            Net::new(shape, weights).learn(steps, &places, &mut look, &mut vec![0.0; shape.n_weights()])
        };
        let numeric = (loss_at(step) - loss_at(-step)) / (2.0 * step);
        assert!((numeric - analytic).abs() < 4e-3 + 0.01 * numeric.abs(), "weight {idx}: {analytic} against {numeric}");
    }
}

#[test]
fn predictions_are_probabilities_and_do_not_see_what_is_masked() {
    let shape = Shape { n_labels: 3, width: 8, hidden: 4 };
    let net = Net::drawn(shape, &mut ChaCha8Rng::seed_from_u64(4));
    let (sequence, mut places) = (sequence(), Vec::new());
    places_of(&sequence.steps, sequence.is_cut, &mut places);
    let rows = |steps: &[Step]| {
        let mut rows: Vec<Vec<f32>> = Vec::new();
        net.predict(steps, &places, &mut Look::default(), |_, row| rows.push(row.to_vec()));
        rows
    };
    let usual = rows(&sequence.steps);
    assert_eq!(usual.len(), 12);
    for row in &usual {
        assert!((row.iter().map(|own| own.exp()).sum::<f32>() - 1.0).abs() < 1e-5, "{row:?}");
    }
    for at in 0..sequence.steps.len() {
        let mut steps = sequence.steps.clone();
        steps[at].symbol = steps[at].symbol.wrapping_add(1) % 3;
        let changed = rows(&steps);
        assert_eq!(changed[at], usual[at], "step {at} is masked where it is predicted");
        assert_ne!(changed, usual, "and seen elsewhere");
    }
}
