use rand::{RngExt, SeedableRng};

use super::*;
use crate::algorithms::attention_rnn::{Level, net};

/// Every variant in both directions at both levels, with contexts that begin and end at various places and some unknown
/// symbols. At the token level a segment is a line, which may be shorter than its room.
fn cases() -> impl Iterator<Item = (Shape, Vec<f32>, Vec<Vec<Symbol>>)> {
    let variants = Attention::ALL.into_iter().flat_map(|attention| [(attention, 1), (attention, 2)]);
    let variants = variants.flat_map(|variant| [(variant, Level::Template), (variant, Level::Token)]);
    variants.map(|((attention, n_sides), level)| {
        let (window, predicts_unknown) = match level {
            Level::Template => (7, false),
            Level::Token => (9, true),
        };
        let (n_known, segment, hidden, attention_width) = (9, 3, 24, 8);
        let shape = Shape { n_known, window, segment, hidden, attention_width, attention, n_sides, predicts_unknown };
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        let weights = (0..shape.n_weights()).map(|_| rng.random::<f32>() * 1.6 - 0.8).collect();
        let room = if level == Level::Token && attention == Attention::Tiered { segment } else { window };
        let contexts = (0..200).map(|_| {
            let mut context: Vec<Symbol> = (0..shape.context_length())
                .map(|_| rng.random_range(0..11))
                .map(|s| if s == 9 { 10 } else { s })
                .collect();
            for part in context.chunks_exact_mut(room) {
                let n_outside = rng.random_range(0..=room);
                part[..n_outside].fill(shape.outside());
            }
            context
        });
        (shape, weights, contexts.collect())
    })
}

#[test]
fn it_predicts_and_attends_as_burn_does() {
    for (shape, weights, contexts) in cases() {
        let contexts: Vec<&[Symbol]> = contexts.iter().map(Vec::as_slice).collect();
        let ours = Predictor::new(shape, &weights).predict(&contexts);
        let (log_probabilities, mut attention) = net::predict(shape, &weights, &contexts);
        for row in attention.chunks_exact_mut(shape.context_length()) {
            let total = row.iter().sum::<f32>().max(1e-9);
            row.iter_mut().for_each(|weight| *weight /= total);
        }
        let worst = |a: &[f32], b: &[f32]| {
            assert_eq!(a.len(), b.len());
            a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        let off = worst(&ours.log_probabilities, &log_probabilities);
        assert!(off < 1e-5, "{:?} × {}: log-probabilities differ by {off}", shape.attention, shape.n_sides);
        let off = worst(&ours.attention, &attention);
        assert!(off < 1e-5, "{:?} × {}: attention differs by {off}", shape.attention, shape.n_sides);
        assert!(attention.iter().any(|&weight| weight > 0.0 && weight < 0.9), "it says something");
    }
}

#[test]
fn attention_sums_to_one_and_leaves_out_what_is_outside() {
    for (shape, weights, contexts) in cases() {
        let borrowed: Vec<&[Symbol]> = contexts.iter().map(Vec::as_slice).collect();
        let attention = Predictor::new(shape, &weights).predict(&borrowed).attention;
        for (context, weights) in contexts.iter().zip(attention.chunks_exact(shape.context_length())) {
            // The symbol next to the judged one reaches the output by itself; with tiers so does its segment.
            let attended = shape.window - if shape.attention == Attention::Tiered { shape.segment } else { 1 };
            let is_attended = |idx: usize| idx % shape.window < attended && context[idx] != shape.outside();
            let n_attended = (0..context.len()).filter(|&idx| is_attended(idx)).count();
            let total: f32 = weights.iter().sum();
            assert!((total - f32::from(u8::from(n_attended > 0))).abs() < 1e-5, "{shape:?}: {weights:?}");
            for (idx, &weight) in weights.iter().enumerate() {
                assert_eq!(weight > 0.0, is_attended(idx), "{shape:?}: {idx} of {context:?}: {weights:?}");
            }
        }
    }
}

#[test]
fn the_slope_of_its_loss_is_the_gradient_that_burn_trains_with() {
    for (shape, weights, contexts) in cases().filter(|(shape, ..)| !shape.predicts_unknown) {
        let shape = Shape { hidden: 5, attention_width: 3, ..shape };
        let weights = weights[..shape.n_weights()].to_vec();
        let contexts: Vec<&[Symbol]> = contexts.iter().take(12).map(Vec::as_slice).collect();
        let next: Vec<Symbol> = (0..12).map(|n| n % 10).collect();
        let gradient = net::gradient(shape, &weights, &contexts, &next);
        assert_eq!(gradient.len(), weights.len());
        let loss = |weights: &[f32]| -> f64 {
            let rows = Predictor::new(shape, weights).predict(&contexts).log_probabilities;
            let rows = rows.chunks_exact(shape.n_outputs()).zip(&next);
            rows.map(|(row, &next)| -f64::from(row[usize::from(next)])).sum()
        };
        let step = 5e-3;
        for (idx, &gradient) in gradient.iter().enumerate().step_by(3) {
            let shifted = |by: f32| {
                let mut weights = weights.clone();
                weights[idx] += by;
                loss(&weights)
            };
            let slope = (shifted(step) - shifted(-step)) / (2.0 * f64::from(step));
            let gradient = f64::from(gradient);
            assert!(
                (slope - gradient).abs() < 3e-3 + 0.01 * slope.abs(),
                "{:?} × {}: weight {idx}: {gradient} against {slope}",
                shape.attention,
                shape.n_sides
            );
        }
    }
}

#[test]
fn a_context_is_predicted_alike_in_any_company() {
    for (shape, weights, contexts) in cases() {
        let contexts: Vec<&[Symbol]> = contexts.iter().map(Vec::as_slice).collect();
        let predictor = Predictor::new(shape, &weights);
        let together = predictor.predict(&contexts);
        for (idx, context) in contexts.iter().enumerate().step_by(23) {
            let alone = predictor.predict(&[context]);
            let n_outputs = shape.n_outputs();
            assert_eq!(alone.log_probabilities, together.log_probabilities[idx * n_outputs..][..n_outputs]);
            let length = shape.context_length();
            assert_eq!(alone.attention, together.attention[idx * length..][..length]);
        }
    }
}
