//! Inference of DeepLog's network without a tensor library: the weights that `net` trained, laid out for prediction.
//!
//! Where it differs from `net`: a one-hot symbol is looked up instead of multiplied; a layer's step is one pass: the
//! four gates of a few contexts and sixteen units are summed up in registers, and the cell is computed from there;
//! only what the next step needs is kept. The pass is compiled for the vector units of the processor it runs on. A
//! test holds the log-probabilities to within 1e-5 of those that `burn` computes.
//!
//! Cost: 1 MFLOP a context at 2 × 64 and ten steps, and a third as much time again for the cells;
//! `benches/deeplog.rs` measures it, `benches/peers/deeplog_onnx.py` beside ONNX Runtime.
//! Results do not depend on which contexts share a batch: a row is computed with the same operations in the same
//! order wherever it stands.

use std::array::from_fn;

use pulp::{Arch, Simd, WithSimd};

use super::net::{Shape, Symbol};

/// Contexts that share one forward pass: their states stay in the second-level cache.
const BATCH: usize = 192;

/// Units of a tile: as many as the widest vector holds. A tile has four columns of them: the gates of its units, or
/// as many outputs.
const UNITS: usize = 16;
const TILE: usize = 4 * UNITS;

/// The logit of outputs that only fill up a tile.
const FAR_BELOW: f32 = -1e30;

/// A matrix in tiles: `[tile, row, TILE]`, so that a pass reads it from front to back.
#[derive(Debug, Default)]
struct Tiled {
    values: Vec<f32>,
    rows: usize,
}

impl Tiled {
    /// Of `[rows, columns]`, given by row and column; what is beyond `columns` is zero.
    fn new(rows: usize, columns: usize, place: impl Fn(usize) -> usize, value: impl Fn(usize, usize) -> f32) -> Self {
        let n_tiles = (0..columns).map(|column| place(column) / TILE + 1).max().unwrap_or(0);
        let mut values = vec![0.0; n_tiles * rows * TILE];
        for column in 0..columns {
            let (tile, lane) = (place(column) / TILE, place(column) % TILE);
            for row in 0..rows {
                values[(tile * rows + row) * TILE + lane] = value(row, column);
            }
        }
        Self { values, rows }
    }

    fn tile(&self, tile: usize) -> &[f32] {
        &self.values[tile * self.rows * TILE..(tile + 1) * self.rows * TILE]
    }
}

/// Where the column of a gate matrix goes: gate by gate within a tile of units.
fn gate_place(column: usize, hidden: usize) -> usize {
    let (gate, unit) = (column / hidden, column % hidden);
    unit / UNITS * TILE + gate * UNITS + unit % UNITS
}

/// A layer, ready to predict.
#[derive(Debug)]
struct Layer {
    /// What the gates begin with: the bias, and for the first layer a row for each symbol (last for those it does not
    /// know) with its column of the input matrix added. `[n_rows, padded * 4]`, in tiles' order.
    initial: Vec<f32>,
    /// From the layer below, then from the step before: `[2 * hidden, 4 * hidden]`; the first layer has the second
    /// half only.
    weights: Tiled,
}

/// A trained network, ready to predict.
#[derive(Debug)]
pub struct Predictor {
    shape: Shape,
    layers: Vec<Layer>,
    /// `[hidden, n_outputs]`.
    output: Tiled,
    output_bias: Vec<f32>,
    arch: Arch,
}

impl Predictor {
    /// A network of `shape` with `weights` in the order of [`Shape::matrices`].
    pub fn new(shape: Shape, weights: &[f32]) -> Self {
        let mut rest = weights;
        let mut matrices = shape.matrices().into_iter();
        // Every matrix is `[rows, columns]`; a product with a row of states needs it the other way round.
        let mut next = || {
            let [rows, columns] = matrices.next().expect("the shape lists every matrix");
            let (own, tail) = rest.split_at(rows * columns);
            rest = tail;
            (own, columns)
        };
        let hidden = shape.hidden;
        let place = |column| gate_place(column, hidden);
        let mut layers = Vec::with_capacity(shape.layers);
        for layer in 0..shape.layers {
            let ((input, n_inputs), (recurrent, _), (bias, _)) = (next(), next(), next());
            let (initial, weights) = if layer == 0 {
                let symbol = |row: usize, gate: usize| {
                    bias[gate] + if row < n_inputs { input[gate * n_inputs + row] } else { 0.0 }
                };
                let initial =
                    (0..=n_inputs).flat_map(|row| Tiled::new(1, 4 * hidden, place, |_, gate| symbol(row, gate)).values);
                (initial.collect(), Tiled::new(hidden, 4 * hidden, place, |k, gate| recurrent[gate * hidden + k]))
            } else {
                let from = |k: usize, gate: usize| match k.checked_sub(hidden) {
                    None => input[gate * hidden + k],
                    Some(k) => recurrent[gate * hidden + k],
                };
                let initial = Tiled::new(1, 4 * hidden, place, |_, gate| bias[gate]).values;
                (initial, Tiled::new(2 * hidden, 4 * hidden, place, from))
            };
            layers.push(Layer { initial, weights });
        }
        let (output, _) = next();
        let (bias, _) = next();
        let n_outputs = shape.n_outputs;
        let output = Tiled::new(hidden, n_outputs, |column| column, |k, symbol| output[symbol * hidden + k]);
        let mut output_bias = bias.to_vec();
        output_bias.resize(n_outputs.next_multiple_of(TILE), FAR_BELOW);
        Self { shape, layers, output, output_bias, arch: Arch::new() }
    }

    /// For each context the log-probability of each output symbol, one row after another.
    pub fn log_probabilities(&self, contexts: &[&[Symbol]]) -> Vec<f32> {
        let mut rows = Vec::with_capacity(contexts.len() * self.shape.n_outputs);
        let mut states = self.states(contexts.len());
        for batch in contexts.chunks(BATCH) {
            self.forward(Inputs::Symbols(batch), batch.len(), &mut states, &mut rows);
        }
        rows
    }

    /// For each series of `window` vectors of `n_inputs` values, one after another, what the network puts out.
    pub fn outputs(&self, series: &[f32]) -> Vec<f32> {
        let size = self.shape.window * self.shape.n_inputs;
        let n = series.len() / size;
        let mut rows = Vec::with_capacity(n * self.shape.n_outputs);
        let mut states = self.states(n);
        for batch in series.chunks(BATCH * size) {
            self.forward(Inputs::Vectors(batch), batch.len() / size, &mut states, &mut rows);
        }
        rows
    }

    fn states(&self, n: usize) -> States {
        let padded = self.shape.hidden.next_multiple_of(UNITS);
        let width = n.min(BATCH);
        let layer =
            || LayerStates { cell: vec![0.0; width * padded], hidden: [0, 1].map(|_| vec![0.0; width * padded]) };
        States {
            layers: (0..self.shape.layers).map(|_| layer()).collect(),
            initial: Vec::new(),
            outputs: vec![0.0; width * self.shape.n_outputs.next_multiple_of(TILE)],
        }
    }

    fn forward(&self, inputs: Inputs<'_>, n: usize, states: &mut States, rows: &mut Vec<f32>) {
        let n_outputs = self.shape.n_outputs;
        self.arch.dispatch(Forward { predictor: self, inputs, n, states });
        for row in states.outputs.chunks_exact(n_outputs.next_multiple_of(TILE)).take(n) {
            rows.extend_from_slice(&row[..n_outputs]);
        }
    }
}

/// What the first layer is fed.
#[derive(Clone, Copy)]
enum Inputs<'a> {
    /// Contexts; the outputs become log-probabilities.
    Symbols(&'a [&'a [Symbol]]),
    /// `[n, window, n_inputs]`; the outputs are left as they are.
    Vectors(&'a [f32]),
}

/// What one batch needs, reused by the next.
struct States {
    layers: Vec<LayerStates>,
    /// What the first layer's gates begin with when it is fed vectors, `[n, 4 * hidden]`, rows padded to whole tiles.
    initial: Vec<f32>,
    /// `[n, n_outputs]`, rows padded to whole tiles.
    outputs: Vec<f32>,
}

/// `[n, hidden]` each, rows padded to whole tiles.
struct LayerStates {
    cell: Vec<f32>,
    /// Of even and of odd steps: one is read while the other is written.
    hidden: [Vec<f32>; 2],
}

/// One batch from inputs to outputs, which are left in the states.
struct Forward<'a, 'b> {
    predictor: &'a Predictor,
    inputs: Inputs<'a>,
    n: usize,
    states: &'b mut States,
}

impl WithSimd for Forward<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // As many rows at once as leave their sums, a tile's weights and one factor in registers.
        if S::REGISTER_COUNT >= 32 { self.run::<S, 6>(simd) } else { self.run::<S, 3>(simd) }
    }
}

impl Forward<'_, '_> {
    #[inline(always)]
    fn run<S: Simd, const ROWS: usize>(self, simd: S) {
        let Self { predictor, inputs, n, states } = self;
        let shape = predictor.shape;
        let padded = shape.hidden.next_multiple_of(UNITS);
        for step in 0..shape.window {
            if let Inputs::Vectors(series) = inputs {
                weigh(&predictor.layers[0].initial, series, [step, shape.window, shape.n_inputs], &mut states.initial);
            }
            for (idx, layer) in predictor.layers.iter().enumerate() {
                let (below, own) = states.layers.split_at_mut(idx);
                let LayerStates { cell, hidden: [even, odd] } = &mut own[0];
                let (before, after) = if step % 2 == 0 { (&*odd, even) } else { (&*even, odd) };
                if step == 0 {
                    cell[..n * padded].fill(0.0);
                }
                let mut pass = Pass {
                    hidden: shape.hidden,
                    initial: match inputs {
                        Inputs::Vectors(_) if idx == 0 => &states.initial,
                        _ => &layer.initial,
                    },
                    below: below.last().map(|below| &below.hidden[step % 2][..]),
                    before: (step > 0).then_some(before),
                    cell,
                    after,
                };
                for tile in 0..padded / UNITS {
                    let weights = layer.weights.tile(tile);
                    // One row of initial values for each symbol, for each vector, or for all.
                    let begin = |row: usize| {
                        let initial = match inputs {
                            _ if idx > 0 => 0,
                            Inputs::Symbols(contexts) => usize::from(contexts[row][step]).min(shape.n_inputs),
                            Inputs::Vectors(_) => row,
                        };
                        initial * 4 * padded + tile * TILE
                    };
                    let mut row = 0;
                    while row + ROWS <= n {
                        pass.advance::<S, ROWS>(simd, row, tile, weights, from_fn(|i| begin(row + i)));
                        row += ROWS;
                    }
                    for row in row..n {
                        pass.advance::<S, 1>(simd, row, tile, weights, [begin(row)]);
                    }
                }
            }
        }
        let last = states.layers.last().expect("a network has a layer");
        let last = &last.hidden[(shape.window - 1) % 2];
        let width = shape.n_outputs.next_multiple_of(TILE);
        for (tile, initial) in predictor.output_bias.chunks_exact(TILE).enumerate() {
            let weights = predictor.output.tile(tile);
            let states_of = |row: usize| &last[row * padded..][..shape.hidden];
            let mut row = 0;
            while row + ROWS <= n {
                let to = &mut states.outputs[row * width + tile * TILE..];
                outputs::<S, ROWS>(simd, initial, from_fn(|i| states_of(row + i)), weights, to, width);
                row += ROWS;
            }
            for row in row..n {
                let to = &mut states.outputs[row * width + tile * TILE..];
                outputs::<S, 1>(simd, initial, [states_of(row)], weights, to, width);
            }
        }
        if let Inputs::Symbols(_) = inputs {
            for logits in states.outputs.chunks_exact_mut(width).take(n) {
                normalize(simd, logits);
            }
        }
    }
}

/// What the gates begin with at a step of series of vectors: the bias plus the input's columns, weighed. `initial`
/// holds for each input the bias plus its column, and last the bias alone.
#[inline(always)]
fn weigh(initial: &[f32], series: &[f32], [step, window, n_inputs]: [usize; 3], to: &mut Vec<f32>) {
    let width = initial.len() / (n_inputs + 1);
    let (columns, bias) = initial.split_at(n_inputs * width);
    to.clear();
    for series in series.chunks_exact(window * n_inputs) {
        let begin = to.len();
        to.extend_from_slice(bias);
        let own = &mut to[begin..];
        for (&value, column) in series[step * n_inputs..][..n_inputs].iter().zip(columns.chunks_exact(width)) {
            for ((own, column), bias) in own.iter_mut().zip(column).zip(bias) {
                *own += value * (column - bias);
            }
        }
    }
}

/// One layer at one step.
struct Pass<'a> {
    hidden: usize,
    initial: &'a [f32],
    /// States of the layer below, where there is one, and of the step before, likewise.
    below: Option<&'a [f32]>,
    before: Option<&'a [f32]>,
    cell: &'a mut [f32],
    after: &'a mut [f32],
}

impl Pass<'_> {
    /// Takes `R` contexts from `row` on through a tile's units; `begins` says where their initial values stand.
    #[inline(always)]
    fn advance<S: Simd, const R: usize>(
        &mut self,
        simd: S,
        row: usize,
        tile: usize,
        weights: &[f32],
        begins: [usize; R],
    ) {
        let padded = self.hidden.next_multiple_of(UNITS);
        let (from_below, from_before) = match self.below {
            Some(_) => weights.split_at(self.hidden * TILE),
            None => (&weights[..0], weights),
        };
        for part in 0..UNITS / S::F32_LANES {
            let mut sums = [[simd.splat_f32s(0.0); 4]; R];
            for (sums, begin) in sums.iter_mut().zip(begins) {
                *sums = load::<S>(&self.initial[begin..begin + TILE], part);
            }
            for (states, weights) in [(self.below, from_below), (self.before, from_before)] {
                if let Some(states) = states {
                    let rows = from_fn(|i| &states[(row + i) * padded..][..self.hidden]);
                    add_products::<S, R>(simd, part, &mut sums, rows, weights);
                }
            }
            for (i, sums) in sums.into_iter().enumerate() {
                let units = (row + i) * padded + tile * UNITS..(row + i) * padded + (tile + 1) * UNITS;
                let cell = &mut S::as_mut_simd_f32s(&mut self.cell[units.clone()]).0[part];
                let after = &mut S::as_mut_simd_f32s(&mut self.after[units]).0[part];
                (*cell, *after) = unit(simd, sums, *cell);
            }
        }
    }
}

/// Outputs of a tile for `R` contexts.
#[inline(always)]
fn outputs<S: Simd, const R: usize>(
    simd: S,
    initial: &[f32],
    states: [&[f32]; R],
    weights: &[f32],
    to: &mut [f32],
    width: usize,
) {
    for part in 0..UNITS / S::F32_LANES {
        let mut sums = [load::<S>(initial, part); R];
        add_products::<S, R>(simd, part, &mut sums, states, weights);
        for (i, sums) in sums.into_iter().enumerate() {
            let (to, _) = S::as_mut_simd_f32s(&mut to[i * width..][..TILE]);
            for (column, sum) in sums.into_iter().enumerate() {
                to[column * (UNITS / S::F32_LANES) + part] = sum;
            }
        }
    }
}

/// A part of each of a tile's four columns.
#[inline(always)]
fn load<S: Simd>(tile: &[f32], part: usize) -> [S::f32s; 4] {
    let (tile, n_parts) = (S::as_simd_f32s(tile).0, UNITS / S::F32_LANES);
    [tile[part], tile[n_parts + part], tile[2 * n_parts + part], tile[3 * n_parts + part]]
}

/// Adds to the sums of `R` contexts their states times a tile's weights, `[n_states, TILE]`.
#[inline(always)]
fn add_products<S: Simd, const R: usize>(
    simd: S,
    part: usize,
    sums: &mut [[S::f32s; 4]; R],
    states: [&[f32]; R],
    weights: &[f32],
) {
    let n_states = weights.len() / TILE;
    let states: [&[f32]; R] = from_fn(|i| &states[i][..n_states]);
    let mut own = *sums;
    for (k, weights) in weights.chunks_exact(TILE).enumerate() {
        let weights = load::<S>(weights, part);
        for i in 0..R {
            let state = simd.splat_f32s(states[i][k]);
            for column in 0..4 {
                own[i][column] = simd.mul_add_e_f32s(state, weights[column], own[i][column]);
            }
        }
    }
    *sums = own;
}

/// The cell: its state and output, given the sums of the input, forget, candidate and output gates and the state
/// before.
///
/// c' = σ(f) c + σ(i) (2σ(g) − 1), as the candidate's inner factor 2 is part of the weights, and h = σ(o) (2σ(2c') −
/// 1). With σ(x) = 1 / (1 + e^−x) and everything on one denominator, that is two divisions instead of five. The
/// exponents are bounded so that no product of three overflows; σ there is 0 or 1 to within 1e−12.
#[inline(always)]
fn unit<S: Simd>(simd: S, [input, forget, candidate, output]: [S::f32s; 4], before: S::f32s) -> (S::f32s, S::f32s) {
    const MOST: f32 = 28.0;
    let one = simd.splat_f32s(1.0);
    let (input, forget) = (exp_negative(simd, input, MOST), exp_negative(simd, forget, MOST));
    let (candidate, output) = (exp_negative(simd, candidate, MOST), exp_negative(simd, output, MOST));
    let forget = simd.add_f32s(one, forget);
    let both = simd.mul_f32s(simd.add_f32s(one, input), simd.add_f32s(one, candidate));
    let kept = simd.mul_f32s(before, both);
    let state = simd.mul_add_e_f32s(simd.sub_f32s(one, candidate), forget, kept);
    let state = simd.div_f32s(state, simd.mul_f32s(both, forget));
    let squashed = exp_negative(simd, simd.add_f32s(state, state), MOST);
    let both = simd.mul_f32s(simd.add_f32s(one, output), simd.add_f32s(one, squashed));
    (state, simd.div_f32s(simd.sub_f32s(one, squashed), both))
}

/// e^−x for |x| up to `most`, and beyond as there; exact to about 2e−7.
#[inline(always)]
fn exp_negative<S: Simd>(simd: S, x: S::f32s, most: f32) -> S::f32s {
    // e^y as 2^n · e^r with |r| ≤ ln 2 / 2; adding 1.5 · 2^23 rounds to an integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = simd.max_f32s(simd.min_f32s(x, simd.splat_f32s(most)), simd.splat_f32s(-most));
    let shifted = simd.mul_add_e_f32s(x, simd.splat_f32s(-std::f32::consts::LOG2_E), simd.splat_f32s(ROUND));
    let n = simd.sub_f32s(shifted, simd.splat_f32s(ROUND));
    // −r; ln 2 in two parts, as one has too few bits.
    let r = simd.mul_add_e_f32s(n, simd.splat_f32s(0.693_359_4), x);
    let r = simd.mul_add_e_f32s(n, simd.splat_f32s(-2.121_944_4e-4), r);
    let mut e_r = simd.splat_f32s(1.0 / 720.0);
    for coefficient in [-1.0 / 120.0, 1.0 / 24.0, -1.0 / 6.0, 0.5, -1.0, 1.0] {
        e_r = simd.mul_add_e_f32s(e_r, r, simd.splat_f32s(coefficient));
    }
    // Adding n to the exponent multiplies by 2^n.
    let exponent = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(shifted), simd.splat_u32s(23));
    simd.transmute_f32s_u32s(simd.add_u32s(simd.transmute_u32s_f32s(e_r), exponent))
}

/// Subtracts ln Σ eˣ from logits, of which padding is far below all others.
#[inline(always)]
fn normalize<S: Simd>(simd: S, logits: &mut [f32]) {
    let (logits, _) = S::as_mut_simd_f32s(logits);
    let mut max = simd.splat_f32s(f32::MIN);
    for &part in &*logits {
        max = simd.max_f32s(max, part);
    }
    let max = simd.splat_f32s(simd.reduce_max_f32s(max));
    let mut sum = simd.splat_f32s(0.0);
    for &part in &*logits {
        sum = simd.add_f32s(sum, exp_negative(simd, simd.sub_f32s(max, part), 80.0));
    }
    let log_sum = simd.add_f32s(max, simd.splat_f32s(simd.reduce_sum_f32s(sum).ln()));
    for part in logits {
        *part = simd.sub_f32s(*part, log_sum);
    }
}

#[cfg(test)]
mod tests;
