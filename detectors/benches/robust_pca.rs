//! Principal component pursuit on 2,000 × 500 beside the singular value decompositions that it would take by the book: one an
//! iteration. Both on one core, alternating; the ratio of medians is what counts (the bar is 2), and how far the planted parts
//! are missed (1e-6).

#![allow(clippy::disallowed_methods, reason = "a bench looks at the clock")]

use std::time::Instant;

use faer::Mat;
use faultline_detectors::algorithms::robust_pca::pcp::Pursuit;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const ROUNDS: usize = 5;

fn main() {
    // `cargo test --benches` asks for a quick look only.
    let (n_rows, n_columns) = if std::env::args().any(|arg| arg == "--bench") { (2000, 500) } else { (100, 40) };
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let left = Mat::from_fn(n_rows, 10, |_, _| rng.random::<f64>() - 0.5);
    let right = Mat::from_fn(10, n_columns, |_, _| rng.random::<f64>() - 0.5);
    let sparse = Mat::from_fn(n_rows, n_columns, |_, _| {
        let (is_set, value) = (rng.random::<f64>() < 0.05, 20.0 * (rng.random::<f64>() - 0.5));
        if is_set { value } else { 0.0 }
    });
    let low_rank = left * right;
    let matrix = &low_rank + &sparse;
    let (mut by_svd, mut by_pursuit) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let svd = matrix.thin_svd();
        by_svd.push(start.elapsed().as_secs_f64());
        assert!(svd.is_ok());
        let start = Instant::now();
        let parts = Pursuit::default().decompose(matrix.as_ref()).expect("it converges");
        by_pursuit.push(start.elapsed().as_secs_f64());
        if by_svd.len() == ROUNDS {
            let pursuit = median(&mut by_pursuit);
            let ratio = pursuit / median(&mut by_svd) / parts.n_iterations as f64;
            println!("{n_rows} x {n_columns}: {} iterations, residual {:.1e}", parts.n_iterations, parts.residual);
            println!(
                "an iteration takes {ratio:.2} times a singular value decomposition ({:.3} s)",
                by_svd[ROUNDS / 2]
            );
            println!("{pursuit:.3} s in all, {:.0} cells a second", (n_rows * n_columns) as f64 / pursuit);
            let miss = |found: &Mat<f64>, planted: &Mat<f64>| (found - planted).norm_l2() / planted.norm_l2();
            println!(
                "the planted parts are missed by {:.1e} (low rank) and {:.1e} (sparse)",
                miss(&parts.low_rank, &low_rank),
                miss(&parts.sparse, &sparse)
            );
        }
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
