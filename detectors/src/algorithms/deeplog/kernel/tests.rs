use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::algorithms::deeplog::net;

fn random(shape: Shape, seed: u64) -> (Vec<f32>, ChaCha8Rng) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let weights = (0..shape.n_weights()).map(|_| rng.random::<f32>() - 0.5).collect();
    (weights, rng)
}

#[test]
fn it_predicts_what_burn_predicts() {
    for (layers, hidden) in [(1, 16), (2, 64), (3, 24)] {
        let shape = Shape { n_inputs: 20, n_outputs: 21, window: 10, hidden, layers };
        let (weights, mut rng) = random(shape, 7);
        // Some symbols that the network does not know.
        let contexts: Vec<Vec<Symbol>> =
            (0..300).map(|_| (0..shape.window).map(|_| rng.random_range(0..22)).collect()).collect();
        let contexts: Vec<&[Symbol]> = contexts.iter().map(Vec::as_slice).collect();
        let ours = Predictor::new(shape, &weights).log_probabilities(&contexts);
        let burn = net::log_probabilities(shape, &weights, &contexts);
        let worst = ours.iter().zip(&burn).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-5, "{layers} × {hidden}: {worst}");
    }
}

#[test]
fn it_forecasts_what_burn_forecasts() {
    let shape = Shape { n_inputs: 3, n_outputs: 2, window: 5, hidden: 24, layers: 2 };
    let (weights, mut rng) = random(shape, 11);
    let series: Vec<f32> = (0..300 * 15).map(|_| rng.random::<f32>() * 4.0 - 2.0).collect();
    let ours = Predictor::new(shape, &weights).outputs(&series);
    let burn = net::outputs(shape, &weights, &series);
    assert_eq!(ours.len(), 600);
    let worst = ours.iter().zip(&burn).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-5, "{worst}");
}

#[test]
fn a_context_is_predicted_alike_in_any_company() {
    let shape = Shape { n_inputs: 30, n_outputs: 31, window: 10, hidden: 64, layers: 2 };
    let (weights, mut rng) = random(shape, 3);
    let contexts: Vec<Vec<Symbol>> =
        (0..200).map(|_| (0..shape.window).map(|_| rng.random_range(0..30)).collect()).collect();
    let contexts: Vec<&[Symbol]> = contexts.iter().map(Vec::as_slice).collect();
    let predictor = Predictor::new(shape, &weights);
    let together = predictor.log_probabilities(&contexts);
    for (context, row) in contexts.iter().zip(together.chunks_exact(shape.n_outputs)).step_by(7) {
        assert_eq!(predictor.log_probabilities(&[context]), row);
    }
}
