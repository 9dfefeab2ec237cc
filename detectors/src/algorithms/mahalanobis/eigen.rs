//! Eigenvalues and eigenvectors of a symmetric matrix, by Jacobi's rotations.
//!
//! Jacobi, "Über ein leichtes Verfahren, die in der Theorie der Säcularstörungen vorkommenden Gleichungen numerisch aufzulösen",
//! 1846, in the cyclic form of Golub and Van Loan, "Matrix Computations", 8.5. Each rotation makes one pair of entries zero; after
//! six to ten sweeps over all pairs the matrix is diagonal.
//!
//! Cost: about 70 n³ operations, 4 million for 38 columns and a billion for 256. Memory: two matrices.

/// Sweeps after which it ends at the latest; more than any matrix of numbers has needed.
const MAX_SWEEPS: usize = 40;

/// Eigenvalues of a symmetric matrix with their vectors, in no order.
#[derive(Clone, Debug, PartialEq)]
pub struct Eigen {
    /// In the order in which the rotations leave them.
    pub values: Vec<f64>,
    /// Row `k` is the vector of `values[k]`: `[n, n]`.
    pub vectors: Vec<f64>,
}

impl Eigen {
    /// Of `matrix`, `n` times `n` finite numbers, row after row, symmetric.
    #[must_use]
    pub fn of(mut matrix: Vec<f64>, n: usize) -> Self {
        let mut vectors = vec![0.0; n * n];
        vectors.iter_mut().step_by(n + 1).for_each(|diagonal| *diagonal = 1.0);
        let power: f64 = matrix.iter().map(|entry| entry * entry).sum();
        for _ in 0..MAX_SWEEPS {
            if off_diagonal(&matrix, n) <= power * 1e-28 {
                break;
            }
            for first in 0..n {
                for second in first + 1..n {
                    rotate(&mut matrix, &mut vectors, n, (first, second));
                }
            }
        }
        let values = matrix.iter().step_by(n + 1).copied().take(n).collect();
        Self { values, vectors }
    }
}

/// Sum of the squares beside the diagonal.
fn off_diagonal(matrix: &[f64], n: usize) -> f64 {
    let entries = matrix.iter().enumerate().filter(|(idx, _)| idx % (n + 1) != 0);
    entries.map(|(_, entry)| entry * entry).sum()
}

/// Turns the plane of two columns so that their common entry is zero.
fn rotate(matrix: &mut [f64], vectors: &mut [f64], n: usize, (first, second): (usize, usize)) {
    let common = matrix[first * n + second];
    if common == 0.0 {
        return;
    }
    let ratio = (matrix[second * n + second] - matrix[first * n + first]) / (2.0 * common);
    let tangent = ratio.signum() / (ratio.abs() + ratio.hypot(1.0));
    let cosine = 1.0 / tangent.hypot(1.0);
    let sine = tangent * cosine;
    let turn = |a: &mut f64, b: &mut f64| {
        (*a, *b) = (cosine * *a - sine * *b, sine * *a + cosine * *b);
    };
    for row in matrix.chunks_exact_mut(n) {
        let (left, right) = row.split_at_mut(second);
        turn(&mut left[first], &mut right[0]);
    }
    for rows in [&mut *matrix, vectors] {
        let (above, below) = rows.split_at_mut(second * n);
        let above = &mut above[first * n..(first + 1) * n];
        above.iter_mut().zip(below).for_each(|(a, b)| turn(a, b));
    }
    // What rounding has left of it.
    matrix[first * n + second] = 0.0;
    matrix[second * n + first] = 0.0;
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// How far the vectors are from being orthonormal, and their products with the values from the matrix.
    fn errors(matrix: &[f64], n: usize) -> (f64, f64) {
        let Eigen { values, vectors } = Eigen::of(matrix.to_vec(), n);
        assert_eq!((values.len(), vectors.len()), (n, n * n));
        let (mut of_identity, mut of_matrix) = (0.0f64, 0.0f64);
        for row in 0..n {
            for column in 0..n {
                let product: f64 = (0..n).map(|k| vectors[row * n + k] * vectors[column * n + k]).sum();
                of_identity = of_identity.max((product - f64::from(u8::from(row == column))).abs());
                let entry: f64 = (0..n).map(|k| values[k] * vectors[k * n + row] * vectors[k * n + column]).sum();
                of_matrix = of_matrix.max((entry - matrix[row * n + column]).abs());
            }
        }
        (of_identity, of_matrix)
    }

    #[test]
    fn a_matrix_is_put_together_again_from_its_parts() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for n in [1, 2, 3, 7, 38, 100] {
            let mut matrix = vec![0.0; n * n];
            for row in 0..n {
                for column in 0..=row {
                    let entry = rng.random::<f64>() - 0.5;
                    (matrix[row * n + column], matrix[column * n + row]) = (entry, entry);
                }
            }
            let (of_identity, of_matrix) = errors(&matrix, n);
            assert!(of_identity < 1e-12 && of_matrix < 1e-12, "{n}: {of_identity:e} {of_matrix:e}");
        }
    }

    #[test]
    fn known_eigenvalues_come_out() {
        let mut values = Eigen::of(vec![2.0, -1.0, 0.0, -1.0, 2.0, -1.0, 0.0, -1.0, 2.0], 3).values;
        values.sort_by(f64::total_cmp);
        let root = 2f64.sqrt();
        for (value, known) in values.iter().zip([2.0 - root, 2.0, 2.0 + root]) {
            assert!((value - known).abs() < 1e-12, "{values:?}");
        }
    }

    #[test]
    fn equal_and_vanishing_eigenvalues_are_no_trouble() {
        let n = 20;
        let ones = vec![1.0; n * n];
        let (of_identity, of_matrix) = errors(&ones, n);
        assert!(of_identity < 1e-12 && of_matrix < 1e-12, "one vector counts: {of_identity:e} {of_matrix:e}");
        assert_eq!(errors(&vec![0.0; n * n], n), (0.0, 0.0));
        let mut identity = vec![0.0; n * n];
        identity.iter_mut().step_by(n + 1).for_each(|entry| *entry = 3.0);
        assert_eq!(Eigen::of(identity, n).values, vec![3.0; n]);
        assert_eq!(Eigen::of(Vec::new(), 0).values, Vec::<f64>::new());
    }

    #[test]
    fn entries_of_very_different_size_are_no_trouble() {
        let matrix = [1e12, 1e3, 0.0, 1e3, 1.0, 1e-6, 0.0, 1e-6, 1e-9];
        let (of_identity, of_matrix) = errors(&matrix, 3);
        assert!(of_identity < 1e-12 && of_matrix < 1e-2, "{of_identity:e} {of_matrix:e}");
    }
}
