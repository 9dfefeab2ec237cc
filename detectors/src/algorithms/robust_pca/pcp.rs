//! Principal component pursuit: a matrix M as a low-rank part L and a sparse part S, M = L + S.
//!
//! Minimises ‖L‖* + λ‖S‖₁ (Candès, Li, Ma and Wright, "Robust principal component analysis?", Journal of the ACM 2011) by the
//! inexact augmented Lagrange multiplier method (Lin, Chen and Ma, "The augmented Lagrange multiplier method for exact recovery
//! of corrupted low-rank matrices", UIUC 2009): singular values of M − S + Y/μ are shrunk by 1/μ, cells of M − L + Y/μ by λ/μ, the
//! multipliers Y take up the rest, and μ grows. Cells that were not observed are left out of the sparse norm: L fills them in.
//!
//! Singular values come from the eigenvalues of the smaller Gram matrix, which is several times faster than an SVD and loses what is below
//! 1e-8 of the largest; the shrinkage never asks for less. Cost: for m × n with n ≤ m about one product m·n² and one
//! eigenvalue problem n³ an iteration, some twenty iterations. Memory: five matrices of that size. Fails where the low-rank part is itself
//! sparse, or the sparse part has a pattern (a whole row or column): the two cannot be told apart then.

use faer::{Mat, MatRef, Side};

/// When to stop, and how fast the penalty grows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pursuit {
    /// Weight of the sparse part; 1/√max(m, n) where none is given.
    pub lambda: Option<f64>,
    /// ‖M − L − S‖ / ‖M‖ (Frobenius) at which it is done.
    pub tolerance: f64,
    /// Iterations at most.
    pub max_iterations: usize,
}

impl Default for Pursuit {
    fn default() -> Self {
        Self { lambda: None, tolerance: 1e-7, max_iterations: 100 }
    }
}

/// The two parts of a matrix.
#[derive(Clone, Debug)]
pub struct Parts {
    /// L.
    pub low_rank: Mat<f64>,
    /// S; in cells that were not observed, 0.
    pub sparse: Mat<f64>,
    /// Orthonormal columns that span the rows of L, by descending singular value.
    pub basis: Mat<f64>,
    /// Iterations taken.
    pub n_iterations: usize,
    /// ‖M − L − S‖ / ‖M‖ over observed cells in the end.
    pub residual: f64,
}

impl Pursuit {
    /// Takes a matrix apart. Cells that are not finite count as not observed. None when no cell is observed or differs
    /// from zero, or when the eigenvalues do not converge.
    #[must_use]
    pub fn decompose(&self, matrix: MatRef<'_, f64>) -> Option<Parts> {
        // The Gram matrix is that of the shorter side.
        if matrix.nrows() < matrix.ncols() {
            let parts = self.decompose_tall(matrix.transpose().to_owned())?;
            let low_rank = parts.low_rank.transpose().to_owned();
            // What the Gram matrix leaves of the others is below this.
            let (_, basis) = shrink_values(&low_rank, 1e-6 * spectral_norm(&low_rank)?)?;
            return Some(Parts { low_rank, sparse: parts.sparse.transpose().to_owned(), basis, ..parts });
        }
        self.decompose_tall(matrix.to_owned())
    }

    fn decompose_tall(&self, mut matrix: Mat<f64>) -> Option<Parts> {
        const GROWTH: f64 = 1.5;
        const MAX_GROWTH: f64 = 1e7;
        let (n_rows, n_columns) = (matrix.nrows(), matrix.ncols());
        let observed: Vec<bool> = cells(&matrix).map(f64::is_finite).collect();
        each(&mut matrix, |_, value| *value = if value.is_finite() { *value } else { 0.0 });
        let lambda = self.lambda.unwrap_or(1.0 / (n_rows.max(n_columns) as f64).sqrt());
        let norm = cells(&matrix).map(|value| value * value).sum::<f64>().sqrt();
        let largest = cells(&matrix).map(f64::abs).fold(0.0, f64::max);
        if norm == 0.0 {
            return None;
        }
        let spectral = spectral_norm(&matrix)?;
        let mut multipliers = &matrix * (1.0 / spectral.max(largest / lambda));
        let (mut penalty, max_penalty) = (1.25 / spectral, 1.25 / spectral * MAX_GROWTH);
        let mut sparse = Mat::<f64>::zeros(n_rows, n_columns);
        let mut work = Mat::<f64>::zeros(n_rows, n_columns);
        let mut parts = None;
        for n_iterations in 1..=self.max_iterations.max(1) {
            let inverse = 1.0 / penalty;
            for column in 0..n_columns {
                let (from, s, y) =
                    (matrix.col_as_slice(column), sparse.col_as_slice(column), multipliers.col_as_slice(column));
                for (((to, from), s), y) in work.col_as_slice_mut(column).iter_mut().zip(from).zip(s).zip(y) {
                    *to = from - s + y * inverse;
                }
            }
            let (low_rank, basis) = shrink_values(&work, inverse)?;
            let mut squares = 0.0;
            for column in 0..n_columns {
                let (from, l) = (matrix.col_as_slice(column), low_rank.col_as_slice(column));
                let seen = &observed[column * n_rows..(column + 1) * n_rows];
                let s = sparse.col_as_slice_mut(column);
                let y = multipliers.col_as_slice_mut(column);
                for ((((from, l), seen), s), y) in from.iter().zip(l).zip(seen).zip(s).zip(y) {
                    // What was not observed costs nothing and is whatever L says.
                    let rest = from - l + *y * inverse;
                    *s = if *seen { shrink(rest, lambda * inverse) } else { from - l };
                    let residual = from - l - *s;
                    *y += penalty * residual;
                    squares += residual * residual;
                }
            }
            let residual = squares.sqrt() / norm;
            parts = Some((low_rank, basis, n_iterations, residual));
            if residual < self.tolerance {
                break;
            }
            penalty = (penalty * GROWTH).min(max_penalty);
        }
        let (low_rank, basis, n_iterations, residual) = parts?;
        each(&mut sparse, |idx, value| *value = if observed[idx] { *value } else { 0.0 });
        Some(Parts { low_rank, sparse, basis, n_iterations, residual })
    }
}

fn shrink(value: f64, by: f64) -> f64 {
    (value.abs() - by).max(0.0).copysign(value)
}

/// Column after column.
fn cells(matrix: &Mat<f64>) -> impl Iterator<Item = f64> + '_ {
    (0..matrix.ncols()).flat_map(|column| matrix.col_as_slice(column).iter().copied())
}

fn each(matrix: &mut Mat<f64>, mut change: impl FnMut(usize, &mut f64)) {
    let n_rows = matrix.nrows();
    for column in 0..matrix.ncols() {
        for (row, value) in matrix.col_as_slice_mut(column).iter_mut().enumerate() {
            change(column * n_rows + row, value);
        }
    }
}

/// Eigenvectors of XᵀX with the singular values of X, the largest first.
fn singular(matrix: &Mat<f64>) -> Option<(Mat<f64>, Vec<f64>)> {
    let gram = matrix.transpose() * matrix;
    let eigen = gram.self_adjoint_eigen(Side::Lower).ok()?;
    let n = gram.ncols();
    let values: Vec<f64> = (0..n).rev().map(|idx| eigen.S()[idx].max(0.0).sqrt()).collect();
    let vectors = Mat::from_fn(n, n, |row, column| eigen.U()[(row, n - 1 - column)]);
    Some((vectors, values))
}

fn spectral_norm(matrix: &Mat<f64>) -> Option<f64> {
    let gram = matrix.transpose() * matrix;
    let values = gram.self_adjoint_eigenvalues(Side::Lower).ok()?;
    values.last().map(|value| value.max(f64::MIN_POSITIVE).sqrt())
}

/// The matrix with its singular values smaller by `by`, and the right singular vectors that are left.
fn shrink_values(matrix: &Mat<f64>, by: f64) -> Option<(Mat<f64>, Mat<f64>)> {
    let (vectors, values) = singular(matrix)?;
    let rank = values.iter().take_while(|value| **value > by).count();
    let basis = vectors.subcols(0, rank).to_owned();
    let mut projected = matrix * &basis;
    for (column, value) in values.iter().take(rank).enumerate() {
        let factor = 1.0 - by / value;
        projected.col_as_slice_mut(column).iter_mut().for_each(|cell| *cell *= factor);
    }
    Some((projected * basis.transpose(), basis))
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn normal(rng: &mut ChaCha8Rng) -> f64 {
        let (a, b): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
        (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
    }

    /// A product of two thin normal matrices, and a matrix of which a share of the cells is within ±`height`.
    fn planted(n_rows: usize, n_columns: usize, rank: usize, share: f64, height: f64) -> (Mat<f64>, Mat<f64>) {
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let left = Mat::from_fn(n_rows, rank, |_, _| normal(&mut rng));
        let right = Mat::from_fn(rank, n_columns, |_, _| normal(&mut rng));
        let sparse = Mat::from_fn(n_rows, n_columns, |_, _| {
            let is_set = rng.random::<f64>() < share;
            let value = height * (2.0 * rng.random::<f64>() - 1.0);
            if is_set { value } else { 0.0 }
        });
        (left * right, sparse)
    }

    fn distance(a: &Mat<f64>, b: &Mat<f64>) -> f64 {
        (a - b).norm_l2() / b.norm_l2()
    }

    #[test]
    fn a_planted_pair_is_recovered() {
        for (n_rows, n_columns) in [(200, 60), (60, 200)] {
            let (low_rank, sparse) = planted(n_rows, n_columns, 3, 0.05, 20.0);
            let parts = Pursuit::default().decompose((&low_rank + &sparse).as_ref()).expect("it converges");
            assert!(parts.residual < 1e-7, "{}", parts.residual);
            assert!(distance(&parts.low_rank, &low_rank) < 1e-6, "{}", distance(&parts.low_rank, &low_rank));
            assert!(distance(&parts.sparse, &sparse) < 1e-6, "{}", distance(&parts.sparse, &sparse));
            assert_eq!((parts.basis.nrows(), parts.basis.ncols()), (n_columns, 3));
            let gram = parts.basis.transpose() * &parts.basis;
            assert!(distance(&gram, &Mat::identity(3, 3)) < 1e-9, "an orthonormal basis");
        }
    }

    #[test]
    fn cells_that_were_not_observed_are_filled_in() {
        let (low_rank, sparse) = planted(200, 60, 2, 0.03, 20.0);
        let mut seen = &low_rank + &sparse;
        each(&mut seen, |idx, value| *value = if idx % 13 == 0 { f64::NAN } else { *value });
        let parts = Pursuit::default().decompose(seen.as_ref()).expect("it converges");
        assert!(distance(&parts.low_rank, &low_rank) < 1e-4, "{}", distance(&parts.low_rank, &low_rank));
        assert!(cells(&parts.sparse).step_by(13).all(|value| value == 0.0));
    }

    #[test]
    fn nothing_comes_of_nothing() {
        assert!(Pursuit::default().decompose(Mat::<f64>::zeros(5, 3).as_ref()).is_none());
        assert!(Pursuit::default().decompose(Mat::from_fn(5, 3, |_, _| f64::NAN).as_ref()).is_none());
        assert!(Pursuit::default().decompose(Mat::<f64>::zeros(0, 0).as_ref()).is_none());
    }
}
