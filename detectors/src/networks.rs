//! What detectors with dense networks share: the kernel that serves them, and normal draws from a seed.

pub mod dense;
pub mod elementary;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// Draws from the standard normal distribution (Box and Muller).
pub fn normals(n: usize, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let mut draws = Vec::with_capacity(n + 1);
    while draws.len() < n {
        let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
        let (sine, cosine) = (std::f64::consts::TAU * rng.random::<f64>()).sin_cos();
        draws.extend([(radius * cosine) as f32, (radius * sine) as f32]);
    }
    draws.truncate(n);
    draws
}

/// A matrix of initial weights, uniform in ±√(6 / (inputs + outputs)) (Glorot and Bengio).
pub fn initial_matrix([inputs, outputs]: [usize; 2], rng: &mut ChaCha8Rng) -> impl Iterator<Item = f32> {
    let bound = (6.0 / (inputs + outputs) as f32).sqrt();
    (0..inputs * outputs).map(move |_| (rng.random::<f32>() * 2.0 - 1.0) * bound)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn draws_are_standard_normal() {
        let draws = normals(20_001, &mut ChaCha8Rng::seed_from_u64(2));
        assert_eq!(draws.len(), 20_001);
        let mean = |of: &dyn Fn(f32) -> f32| draws.iter().map(|&draw| of(draw)).sum::<f32>() / draws.len() as f32;
        assert!(mean(&|draw| draw).abs() < 0.03 && (mean(&|draw| draw * draw) - 1.0).abs() < 0.04);
        let beyond = mean(&|draw| f32::from(u8::from(draw.abs() > 2.0)));
        assert!((beyond - 0.0455).abs() < 0.006, "{beyond}");
    }
}
