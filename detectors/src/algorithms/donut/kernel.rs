//! Inference of Donut's networks without a tensor library: the weights that `net` trained, laid out for prediction.
//!
//! A layer's matrix lies in tiles of up to four blocks of sixteen outputs; the sums of a tile and a few rows stay in
//! registers while the inputs pass by. The pass is compiled for the vector units of the processor it runs on. For a
//! score only the last point of a window is decoded, so the decoder has a second head with two outputs. A test holds
//! all outputs to within 1e-5 of those that `burn` computes.
//!
//! Cost at the defaults: 52 kFLOP to encode a window, 27 to decode the last point from a sample of z, 72 to decode a
//! whole window. Results do not depend on which rows share a batch: a row is computed with the same operations in the
//! same order wherever it stands.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::net::{MIN_DEVIATION, Shape};

/// Outputs of a block: as many as the widest vector holds.
const BLOCK: usize = 16;

/// Blocks of a tile.
const MAX_BLOCKS: usize = 4;

/// Rows that share one pass: what the layers say of them stays in the second-level cache.
const MAX_ROWS: usize = 192;

/// The columns of each tile of a layer `width` outputs wide.
#[inline(always)]
fn tiles(width: usize) -> impl Iterator<Item = Range<usize>> {
    const COLUMNS: usize = MAX_BLOCKS * BLOCK;
    (0..width.div_ceil(COLUMNS)).map(move |tile| tile * COLUMNS..width.min((tile + 1) * COLUMNS))
}

/// A layer, ready to predict.
#[derive(Debug)]
struct Dense {
    /// For each tile `[n_inputs, columns]`; columns that only fill up a block are zero.
    weights: Vec<f32>,
    /// Filled up likewise.
    bias: Vec<f32>,
    n_inputs: usize,
    n_outputs: usize,
    /// What no output is below: 0 makes a rectifier of it.
    floor: f32,
}

impl Dense {
    /// The layer whose output `column` has bias `bias(column)` and takes input `row` times `weight(row, column)`.
    fn new(
        [n_inputs, n_outputs]: [usize; 2],
        floor: f32,
        weight: impl Fn(usize, usize) -> f32,
        bias: impl Fn(usize) -> f32,
    ) -> Self {
        let width = n_outputs.next_multiple_of(BLOCK);
        let mut weights = Vec::with_capacity(n_inputs * width);
        for columns in tiles(width) {
            for row in 0..n_inputs {
                let column = |column: usize| if column < n_outputs { weight(row, column) } else { 0.0 };
                weights.extend(columns.clone().map(column));
            }
        }
        let bias = (0..width).map(|column| if column < n_outputs { bias(column) } else { 0.0 }).collect();
        Self { weights, bias, n_inputs, n_outputs, floor }
    }

    /// Outputs with what fills up the last block.
    fn width(&self) -> usize {
        self.bias.len()
    }

    /// Takes `n` rows, which begin `stride` values apart, through the layer.
    #[inline(always)]
    fn apply<S: Simd, const R: usize>(&self, simd: S, inputs: &[f32], stride: usize, n: usize, to: &mut [f32]) {
        for columns in tiles(self.width()) {
            match columns.len() / BLOCK {
                4 => self.apply_tile::<S, R, 4>(simd, columns.start, inputs, stride, n, to),
                3 => self.apply_tile::<S, R, 3>(simd, columns.start, inputs, stride, n, to),
                2 => self.apply_tile::<S, R, 2>(simd, columns.start, inputs, stride, n, to),
                _ => self.apply_tile::<S, R, 1>(simd, columns.start, inputs, stride, n, to),
            }
        }
    }

    /// One tile of `C` blocks from column `first` on.
    #[inline(always)]
    fn apply_tile<S: Simd, const R: usize, const C: usize>(
        &self,
        simd: S,
        first: usize,
        inputs: &[f32],
        stride: usize,
        n: usize,
        to: &mut [f32],
    ) {
        let width = self.width();
        let tile = Tile {
            weights: &self.weights[first * self.n_inputs..][..C * BLOCK * self.n_inputs],
            bias: &self.bias[first..][..C * BLOCK],
            floor: self.floor,
        };
        let mut row = 0;
        while row + R <= n {
            tile.products::<S, R, C>(simd, &inputs[row * stride..], stride, &mut to[row * width + first..], width);
            row += R;
        }
        for row in row..n {
            tile.products::<S, 1, C>(simd, &inputs[row * stride..], stride, &mut to[row * width + first..], width);
        }
    }
}

/// Some columns of a layer.
struct Tile<'a> {
    weights: &'a [f32],
    bias: &'a [f32],
    floor: f32,
}

impl Tile<'_> {
    /// The outputs of `C` blocks for the first `R` rows of `inputs`.
    #[inline(always)]
    fn products<S: Simd, const R: usize, const C: usize>(
        &self,
        simd: S,
        inputs: &[f32],
        stride: usize,
        to: &mut [f32],
        width: usize,
    ) {
        let n_inputs = self.weights.len() / (C * BLOCK);
        let mut rows = [&inputs[..n_inputs]; R];
        for (i, row) in rows.iter_mut().enumerate() {
            *row = &inputs[i * stride..][..n_inputs];
        }
        let floor = simd.splat_f32s(self.floor);
        for part in 0..BLOCK / S::F32_LANES {
            let mut sums = [load::<S, C>(simd, self.bias, part); R];
            for (k, weights) in self.weights.chunks_exact(C * BLOCK).enumerate() {
                let weights = load::<S, C>(simd, weights, part);
                for i in 0..R {
                    let input = simd.splat_f32s(rows[i][k]);
                    for block in 0..C {
                        sums[i][block] = simd.mul_add_e_f32s(input, weights[block], sums[i][block]);
                    }
                }
            }
            for (i, sums) in sums.into_iter().enumerate() {
                let (to, _) = S::as_mut_simd_f32s(&mut to[i * width..][..C * BLOCK]);
                for (block, sum) in sums.into_iter().enumerate() {
                    to[block * (BLOCK / S::F32_LANES) + part] = simd.max_f32s(sum, floor);
                }
            }
        }
    }
}

/// A part of each of a tile's blocks.
#[inline(always)]
fn load<S: Simd, const C: usize>(simd: S, tile: &[f32], part: usize) -> [S::f32s; C] {
    let (tile, n_parts) = (S::as_simd_f32s(tile).0, BLOCK / S::F32_LANES);
    let mut blocks = [simd.splat_f32s(0.0); C];
    for (idx, block) in blocks.iter_mut().enumerate() {
        *block = tile[idx * n_parts + part];
    }
    blocks
}

/// The networks of one series, ready to predict.
#[derive(Debug)]
pub struct Kernel {
    encoder: [Dense; 3],
    decoder: [Dense; 2],
    /// The decoder's head for all points of a window, and for the last one alone.
    whole: Dense,
    last: Dense,
    arch: Arch,
}

/// What the layers put out, reused by the next pass.
#[derive(Debug, Default)]
pub struct Layers {
    even: Vec<f32>,
    odd: Vec<f32>,
}

/// A deviation, given what its head put out: softplus, and a little more.
pub fn deviation(raw: f32) -> f32 {
    let softplus = if raw > 20.0 { raw } else { raw.exp().ln_1p() };
    softplus + MIN_DEVIATION
}

impl Kernel {
    /// Networks of `shape` with `weights` in the order of [`Shape::layers`].
    pub fn new(shape: Shape, weights: &[f32]) -> Self {
        let sizes = shape.layers();
        let mut rest = weights;
        let layers = sizes.map(|[inputs, outputs]| {
            let (matrix, tail) = rest.split_at(inputs * outputs);
            let (bias, tail) = tail.split_at(outputs);
            rest = tail;
            (matrix, bias)
        });
        let hidden = |idx: usize| {
            let (matrix, bias) = layers[idx];
            Dense::new(sizes[idx], 0.0, |row, column| matrix[row * bias.len() + column], |column| bias[column])
        };
        // Both heads from `first` on side by side, of each the outputs from `skipped` on.
        let heads = |first: usize, skipped: usize| {
            let [n_inputs, n_outputs] = sizes[first];
            let n_kept = n_outputs - skipped;
            let place = |column: usize| (layers[first + column / n_kept], skipped + column % n_kept);
            let weight = |row: usize, column: usize| {
                let ((matrix, _), column) = place(column);
                matrix[row * n_outputs + column]
            };
            let bias = |column: usize| {
                let ((_, bias), column) = place(column);
                bias[column]
            };
            Dense::new([n_inputs, 2 * n_kept], f32::NEG_INFINITY, weight, bias)
        };
        Self {
            encoder: [hidden(0), hidden(1), heads(2, 0)],
            decoder: [hidden(4), hidden(5)],
            whole: heads(6, 0),
            last: heads(6, shape.window - 1),
            arch: Arch::new(),
        }
    }

    /// For each window the means of z, then its deviations.
    pub fn encode(&self, windows: &[f32], layers: &mut Layers, to: &mut Vec<f32>) {
        let [first, second, heads] = &self.encoder;
        self.pass([first, second, heads], windows, layers, to);
        finish(to, heads.n_outputs);
    }

    /// For each sample of z mean and deviation of a window's last point.
    pub fn decode_last(&self, z: &[f32], layers: &mut Layers, to: &mut Vec<f32>) {
        let [first, second] = &self.decoder;
        self.pass([first, second, &self.last], z, layers, to);
        finish(to, self.last.n_outputs);
    }

    /// For each sample of z the means of a window's points, then what makes their deviations: see [`deviation`].
    pub fn decode(&self, z: &[f32], layers: &mut Layers, to: &mut Vec<f32>) {
        let [first, second] = &self.decoder;
        self.pass([first, second, &self.whole], z, layers, to);
    }

    /// What the last of three layers puts out, a row for each row of inputs.
    fn pass(&self, dense: [&Dense; 3], inputs: &[f32], layers: &mut Layers, to: &mut Vec<f32>) {
        let [first, second, last] = dense;
        to.clear();
        for inputs in inputs.chunks(MAX_ROWS * first.n_inputs) {
            let n = inputs.len() / first.n_inputs;
            let Layers { even, odd } = &mut *layers;
            even.resize(even.len().max(n * first.width().max(last.width())), 0.0);
            odd.resize(odd.len().max(n * second.width()), 0.0);
            self.arch.dispatch(Pass { dense, inputs, n, even, odd });
            to.extend(even.chunks_exact(last.width()).take(n).flat_map(|row| &row[..last.n_outputs]));
        }
    }
}

/// Makes deviations of the second half of each row.
fn finish(rows: &mut [f32], n_outputs: usize) {
    for row in rows.chunks_exact_mut(n_outputs) {
        row[n_outputs / 2..].iter_mut().for_each(|raw| *raw = deviation(*raw));
    }
}

/// Some rows from the inputs through three layers; what comes out is left in `even`.
struct Pass<'a> {
    dense: [&'a Dense; 3],
    inputs: &'a [f32],
    n: usize,
    even: &'a mut [f32],
    odd: &'a mut [f32],
}

impl WithSimd for Pass<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // As many rows at once as leave their sums, a tile's weights and one input in registers.
        if S::REGISTER_COUNT >= 32 { self.run::<S, 6>(simd) } else { self.run::<S, 3>(simd) }
    }
}

impl Pass<'_> {
    #[inline(always)]
    fn run<S: Simd, const R: usize>(self, simd: S) {
        let Self { dense: [first, second, last], inputs, n, even, odd } = self;
        first.apply::<S, R>(simd, inputs, first.n_inputs, n, even);
        second.apply::<S, R>(simd, even, first.width(), n, odd);
        last.apply::<S, R>(simd, odd, second.width(), n, even);
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::algorithms::donut::net;

    fn cases() -> impl Iterator<Item = (Shape, Vec<f32>, ChaCha8Rng)> {
        let sizes = [(120, 100, 5), (30, 32, 3), (9, 7, 2), (40, 130, 20)];
        sizes.into_iter().map(|(window, hidden, latent)| {
            let shape = Shape { window, hidden, latent };
            let mut rng = ChaCha8Rng::seed_from_u64(7);
            let mut weights = net::initial_weights(shape, &mut rng);
            weights.iter_mut().for_each(|weight| *weight += 0.05 * (rng.random::<f32>() - 0.5));
            (shape, weights, rng)
        })
    }

    fn worst(ours: &[f32], burn: &[f32]) -> f32 {
        assert_eq!(ours.len(), burn.len());
        ours.iter().zip(burn).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn it_computes_what_burn_computes() {
        for (shape, weights, mut rng) in cases() {
            let kernel = Kernel::new(shape, &weights);
            let (mut layers, mut ours) = (Layers::default(), Vec::new());
            let windows = net::normals(401 * shape.window, &mut rng);
            kernel.encode(&windows, &mut layers, &mut ours);
            let off = worst(&ours, &net::encoded(shape, &weights, &windows));
            assert!(off < 1e-5, "{shape:?}: z differs by {off}");
            let z = net::normals(401 * shape.latent, &mut rng);
            let burn = net::decoded(shape, &weights, &z);
            kernel.decode(&z, &mut layers, &mut ours);
            for row in ours.chunks_exact_mut(2 * shape.window) {
                row[shape.window..].iter_mut().for_each(|raw| *raw = deviation(*raw));
            }
            let off = worst(&ours, &burn);
            assert!(off < 1e-5, "{shape:?}: windows differ by {off}");
            kernel.decode_last(&z, &mut layers, &mut ours);
            let lasts = burn.chunks_exact(2 * shape.window);
            let lasts: Vec<f32> = lasts.flat_map(|row| [row[shape.window - 1], row[2 * shape.window - 1]]).collect();
            let off = worst(&ours, &lasts);
            assert!(off < 1e-5, "{shape:?}: last points differ by {off}");
        }
    }

    #[test]
    fn a_row_is_computed_alike_in_any_company() {
        for (shape, weights, mut rng) in cases() {
            let kernel = Kernel::new(shape, &weights);
            let (mut layers, mut together, mut alone) = (Layers::default(), Vec::new(), Vec::new());
            let z = net::normals(200 * shape.latent, &mut rng);
            kernel.decode_last(&z, &mut layers, &mut together);
            for (z, row) in z.chunks_exact(shape.latent).zip(together.chunks_exact(2)).step_by(7) {
                kernel.decode_last(z, &mut layers, &mut alone);
                assert_eq!(alone, row, "{shape:?}");
            }
        }
    }

    #[test]
    fn a_deviation_is_positive_and_finite() {
        for raw in [f32::NEG_INFINITY, -1e30, -100.0, -1.0, 0.0, 19.9, 20.1, 1e30] {
            assert!(deviation(raw) >= MIN_DEVIATION && deviation(raw).is_finite(), "{raw}: {}", deviation(raw));
        }
        assert!((deviation(0.0) - (2f32.ln() + MIN_DEVIATION)).abs() < 1e-7);
    }
}
