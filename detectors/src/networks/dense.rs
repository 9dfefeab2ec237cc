//! Inference of dense networks without a tensor library: weights laid out for prediction.
//!
//! A layer's matrix lies in tiles of up to four blocks of sixteen outputs; the sums of a tile and a few rows stay in
//! registers while the inputs pass by. The pass is compiled for the vector units of the processor it runs on. Results
//! do not depend on which rows share a batch: a row is computed with the same operations in the same order wherever it
//! stands.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

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
pub struct Dense {
    /// For each tile `[n_inputs, columns]`; columns that only fill up a block are zero.
    weights: Vec<f32>,
    /// Filled up likewise.
    bias: Vec<f32>,
    n_inputs: usize,
    n_outputs: usize,
    /// What a sum below 0 is multiplied by: 1 leaves it, 0 makes a rectifier of the layer, what is between a leaky one.
    slope: f32,
}

impl Dense {
    /// The layer whose output `column` has bias `bias(column)` and takes input `row` times `weight(row, column)`.
    pub fn new(
        [n_inputs, n_outputs]: [usize; 2],
        slope: f32,
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
        Self { weights, bias, n_inputs, n_outputs, slope }
    }

    /// Outputs of a row.
    pub fn n_outputs(&self) -> usize {
        self.n_outputs
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
            slope: self.slope,
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
    slope: f32,
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
        let slope = simd.splat_f32s(self.slope);
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
                    to[block * (BLOCK / S::F32_LANES) + part] = simd.max_f32s(sum, simd.mul_f32s(sum, slope));
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

/// What the layers put out, reused by the next pass.
#[derive(Debug, Default)]
pub struct Layers {
    even: Vec<f32>,
    odd: Vec<f32>,
}

/// What the last of three layers puts out, a row for each row of inputs.
pub fn pass(arch: Arch, dense: [&Dense; 3], inputs: &[f32], layers: &mut Layers, to: &mut Vec<f32>) {
    let [first, second, last] = dense;
    to.clear();
    for inputs in inputs.chunks(MAX_ROWS * first.n_inputs) {
        let n = inputs.len() / first.n_inputs;
        let Layers { even, odd } = &mut *layers;
        even.resize(even.len().max(n * first.width().max(last.width())), 0.0);
        odd.resize(odd.len().max(n * second.width()), 0.0);
        arch.dispatch(Pass { dense, inputs, n, even, odd });
        to.extend(even.chunks_exact(last.width()).take(n).flat_map(|row| &row[..last.n_outputs]));
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
    use super::*;

    /// Weights and biases so small that sums of them are exact.
    fn small(number: usize) -> f32 {
        (number % 3) as f32 - 1.0
    }

    fn layer(sizes: [usize; 2], slope: f32) -> Dense {
        Dense::new(sizes, slope, |row, column| small(2 * row + 5 * column), small)
    }

    /// The same layer, one output at a time.
    fn expected(sizes: [usize; 2], slope: f32, row: &[f32]) -> Vec<f32> {
        let output = |column: usize| {
            let products = row.iter().enumerate().map(|(idx, input)| input * small(2 * idx + 5 * column));
            let sum = small(column) + products.sum::<f32>();
            if sum > 0.0 { sum } else { slope * sum }
        };
        (0..sizes[1]).map(output).collect()
    }

    #[test]
    fn three_layers_are_the_products_that_they_stand_for_at_every_slope() {
        for (sizes, slopes) in [([3, 5, 20, 2], [0.0, 0.5, 1.0]), ([70, 65, 16, 130], [0.25, 0.0, 1.0])] {
            let shapes = [[sizes[0], sizes[1]], [sizes[1], sizes[2]], [sizes[2], sizes[3]]];
            let dense: Vec<Dense> = shapes.iter().zip(slopes).map(|(own, slope)| layer(*own, slope)).collect();
            let inputs: Vec<f32> = (0..401 * sizes[0]).map(|idx| (idx % 3) as f32 - 1.0).collect();
            let (mut layers, mut outputs) = (Layers::default(), Vec::new());
            pass(Arch::new(), [&dense[0], &dense[1], &dense[2]], &inputs, &mut layers, &mut outputs);
            assert_eq!((outputs.len(), dense[2].n_outputs()), (401 * sizes[3], sizes[3]));
            for (inputs, outputs) in inputs.chunks_exact(sizes[0]).zip(outputs.chunks_exact(sizes[3])) {
                let through = |row: Vec<f32>, idx: usize| expected(shapes[idx], slopes[idx], &row);
                let expected = (0..3).fold(inputs.to_vec(), through);
                assert_eq!(expected, outputs);
            }
        }
    }
}
