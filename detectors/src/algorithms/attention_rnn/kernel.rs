//! Inference of the attention model without a tensor library: the weights that `net` trained, laid out for prediction.
//!
//! Where it differs from `net`: a context's four gates lie together (`[n, 4 * width]`), so that one product serves them; tanh is
//! 2σ(2x) − 1, whose inner 2 is part of the weights where it can be; buffers are shared by batches. Matrix products
//! are `gemm`'s, the rest is compiled for the vector units of the processor it runs on. Tests hold the log-probabilities
//! and the attention to within 1e-5 of what `burn` computes, and `burn`'s gradients to the slopes of this file's loss.
//!
//! Cost: 0.1 MFLOP a context and side at the defaults. Results do not depend on which contexts share a batch: a row is
//! computed with the same operations in the same order wherever it stands.

use gemm::Parallelism;
use pulp::{Arch, WithSimd};

use super::{
    Attention,
    shape::{Part, Shape, Symbol},
};
use crate::networks::elementary::sigmoid;

/// Contexts that share one forward pass.
const BATCH: usize = 128;

/// Rows of a batch are a multiple of this: a product with fewer takes another path, which rounds differently.
const ROWS: usize = 16;

/// A trained network, ready to predict.
#[derive(Debug)]
pub struct Predictor {
    shape: Shape,
    sides: Vec<Side>,
    output_bias: Vec<f32>,
    arch: Arch,
}

/// What a batch of contexts came to.
#[derive(Debug, Default)]
pub struct Predictions {
    /// For each context the log-probability of each output symbol, one row after another.
    pub log_probabilities: Vec<f32>,
    /// For each context how much attention each of its symbols received, one row after another. A row sums to 1, or to
    /// 0 where there was nothing to attend to.
    pub attention: Vec<f32>,
}

#[derive(Debug)]
struct Side {
    /// `[n_symbols, 4 * width]`.
    input: Vec<f32>,
    /// `[width, 4 * width]`.
    recurrent: Vec<f32>,
    /// `[width, attention_width]`, twice the trained one; zero below the values.
    keys: Vec<f32>,
    /// As trained; twice that for the first semantic variant.
    query: Vec<f32>,
    /// `[width, n_outputs]`, zero below the values.
    output_state: Vec<f32>,
    /// Likewise; empty with tiers.
    output_attended: Vec<f32>,
    upper: Option<Upper>,
}

#[derive(Debug)]
struct Upper {
    /// `[hidden, 4 * hidden]`, from a segment's last state.
    from_last: Vec<f32>,
    from_attended: Vec<f32>,
    recurrent: Vec<f32>,
    bias: Vec<f32>,
    /// `[hidden, 4 * width]`.
    context: Vec<f32>,
}

/// Lays the gates, each a block of rows of a trained matrix, side by side, and doubles the candidate's.
fn gates_together(matrix: &[f32], columns: usize) -> Vec<f32> {
    let rows = matrix.len() / (4 * columns);
    let mut together = vec![0.0; matrix.len()];
    for gate in 0..4 {
        let factor = if gate == 2 { 2.0 } else { 1.0 };
        for row in 0..rows {
            let from = &matrix[(gate * rows + row) * columns..][..columns];
            let to = &mut together[(row * 4 + gate) * columns..][..columns];
            to.iter_mut().zip(from).for_each(|(to, from)| *to = factor * from);
        }
    }
    together
}

impl Predictor {
    /// A network of `shape` with `weights` in the order of [`Shape::matrices`].
    pub fn new(shape: Shape, weights: &[f32]) -> Self {
        let (hidden, width) = (shape.hidden, shape.width());
        let mut sides: Vec<Side> = Vec::with_capacity(shape.n_sides);
        let mut output_bias = Vec::new();
        let mut rest = weights;
        // Rows below the values, where the second semantic variant keeps its query.
        let padded = |matrix: &[f32], factor: f32| {
            let columns = matrix.len() / hidden;
            let mut matrix: Vec<f32> = matrix.iter().map(|weight| factor * weight).collect();
            matrix.resize(width * columns, 0.0);
            matrix
        };
        for (part, [rows, columns]) in shape.matrices() {
            let (own, tail) = rest.split_at(rows * columns);
            rest = tail;
            if part == Part::Input {
                sides.push(Side {
                    input: gates_together(own, columns),
                    recurrent: Vec::new(),
                    keys: Vec::new(),
                    query: Vec::new(),
                    output_state: Vec::new(),
                    output_attended: Vec::new(),
                    upper: None,
                });
                continue;
            }
            let side = sides.last_mut().expect("each side begins with its input matrix");
            let upper = || Upper {
                from_last: Vec::new(),
                from_attended: Vec::new(),
                recurrent: Vec::new(),
                bias: Vec::new(),
                context: Vec::new(),
            };
            match part {
                Part::Input => {}
                Part::Recurrent => side.recurrent = gates_together(own, columns),
                Part::Keys => side.keys = padded(own, 2.0),
                Part::Query => {
                    let factor = if shape.attention == Attention::Semantic1 { 2.0 } else { 1.0 };
                    side.query = own.iter().map(|weight| factor * weight).collect();
                }
                Part::OutputState => side.output_state = padded(own, 1.0),
                Part::OutputAttended => side.output_attended = padded(own, 1.0),
                Part::OutputBias => output_bias = own.to_vec(),
                Part::UpperInput => {
                    let both = gates_together(own, columns);
                    let (from_last, from_attended) = both.split_at(both.len() / 2);
                    let upper = side.upper.get_or_insert_with(upper);
                    (upper.from_last, upper.from_attended) = (from_last.to_vec(), from_attended.to_vec());
                }
                Part::UpperRecurrent => {
                    side.upper.get_or_insert_with(upper).recurrent = gates_together(own, columns);
                }
                Part::UpperBias => side.upper.get_or_insert_with(upper).bias = gates_together(own, columns),
                Part::Context => side.upper.get_or_insert_with(upper).context = gates_together(own, columns),
            }
        }
        Self { shape, sides, output_bias, arch: Arch::new() }
    }

    /// The sizes of the network.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// What comes next after each context, and where attention went.
    pub fn predict(&self, contexts: &[&[Symbol]]) -> Predictions {
        let (shape, n_outputs) = (self.shape, self.shape.n_outputs());
        let mut predictions = Predictions {
            log_probabilities: Vec::with_capacity(contexts.len() * n_outputs),
            attention: Vec::with_capacity(contexts.len() * shape.context_length()),
        };
        let mut buffers = Buffers::new(shape, contexts.len().min(BATCH).next_multiple_of(ROWS));
        for batch in contexts.chunks(BATCH) {
            let n = batch.len().next_multiple_of(ROWS);
            let logits = &mut buffers.logits[..n * n_outputs];
            logits.chunks_exact_mut(n_outputs).for_each(|row| row.copy_from_slice(&self.output_bias));
            let first = predictions.attention.len();
            predictions.attention.resize(first + batch.len() * shape.context_length(), 0.0);
            for (idx, side) in self.sides.iter().enumerate() {
                side.forward(shape, self.arch, batch, idx, n, &mut buffers);
                let from = buffers.attention.chunks_exact(shape.window);
                let to = predictions.attention[first..].chunks_exact_mut(shape.context_length());
                for (to, from) in to.zip(from) {
                    to[idx * shape.window..][..shape.window].copy_from_slice(from);
                }
            }
            for row in buffers.logits[..batch.len() * n_outputs].chunks_exact(n_outputs) {
                let log_sum = log_sum_exp(row);
                predictions.log_probabilities.extend(row.iter().map(|logit| logit - log_sum));
            }
        }
        for row in predictions.attention.chunks_exact_mut(shape.context_length()) {
            // Each side, and each segment but the last, adds 1 where it holds a record.
            let total: f32 = row.iter().sum();
            if total > 0.0 {
                row.iter_mut().for_each(|weight| *weight /= total);
            }
        }
        predictions
    }
}

/// What one batch needs, reused by the next.
struct Buffers {
    /// `[n, 4 * width]`.
    gates: Vec<f32>,
    /// Likewise: what the upper tier adds to the gates of a segment.
    context: Vec<f32>,
    /// `[n, width]`.
    cell: Vec<f32>,
    /// For each step, `[n, width]`.
    outputs: Vec<Vec<f32>>,
    /// `[n, attention_width]`.
    keys: Vec<f32>,
    query: Vec<f32>,
    /// `[n, width]`.
    attended: Vec<f32>,
    /// `[n, window]`.
    attention: Vec<f32>,
    /// `[n, 4 * hidden]`, `[n, hidden]`, `[n, hidden]`.
    upper_gates: Vec<f32>,
    upper_cell: Vec<f32>,
    upper_output: Vec<f32>,
    /// `[n, n_outputs]`.
    logits: Vec<f32>,
}

impl Buffers {
    fn new(shape: Shape, n: usize) -> Self {
        let zeros = |columns: usize| vec![0.0f32; n * columns];
        let (width, upper) = (shape.width(), if shape.attention == Attention::Tiered { shape.hidden } else { 0 });
        Self {
            gates: zeros(4 * width),
            context: zeros(if upper > 0 { 4 * width } else { 0 }),
            cell: zeros(width),
            outputs: (0..shape.window).map(|_| zeros(width)).collect(),
            keys: zeros(shape.attention_width),
            query: zeros(shape.attention_width),
            attended: zeros(width),
            attention: zeros(shape.window),
            upper_gates: zeros(4 * upper),
            upper_cell: zeros(upper),
            upper_output: zeros(upper),
            logits: zeros(shape.n_outputs()),
        }
    }
}

impl Side {
    /// Adds this side's logits, and leaves its attention in `buffers`. Rows from `contexts.len()` to `n` fill up the batch.
    fn forward(&self, shape: Shape, arch: Arch, contexts: &[&[Symbol]], side: usize, n: usize, buffers: &mut Buffers) {
        let (width, n_outputs, window) = (shape.width(), shape.n_outputs(), shape.window);
        let symbol_of = |row: usize, step: usize| {
            contexts.get(row).map_or(shape.outside(), |context| context[side * window + step])
        };
        buffers.attention.fill(0.0);
        let segments = shape.segments();
        for (idx, segment) in segments.iter().enumerate() {
            if let (Some(upper), true) = (&self.upper, idx > 0) {
                let context = &mut buffers.context[..n * 4 * width];
                context.fill(0.0);
                add_product(context, &buffers.upper_output, &upper.context, [n, shape.hidden, 4 * width]);
            }
            for step in segment.clone() {
                let gates = &mut buffers.gates[..n * 4 * width];
                for (row, gates) in gates.chunks_exact_mut(4 * width).enumerate() {
                    gates.copy_from_slice(&self.input[usize::from(symbol_of(row, step)) * 4 * width..][..4 * width]);
                }
                if self.upper.is_some() && idx > 0 {
                    gates.iter_mut().zip(&buffers.context).for_each(|(gate, context)| *gate += context);
                }
                let is_first = step == segment.start;
                if !is_first {
                    add_product(gates, &buffers.outputs[step - 1], &self.recurrent, [n, width, 4 * width]);
                }
                let output = &mut buffers.outputs[step];
                arch.dispatch(Cells { gates, cell: &mut buffers.cell, output, hidden: width, is_first });
            }
            match &self.upper {
                Some(upper) if idx + 1 < segments.len() => {
                    let query = &mut buffers.query[..n * shape.attention_width];
                    query.chunks_exact_mut(shape.attention_width).for_each(|row| row.copy_from_slice(&self.query));
                    self.attend(shape, arch, segment.clone(), n, symbol_of, buffers);
                    let hidden = shape.hidden;
                    let gates = &mut buffers.upper_gates[..n * 4 * hidden];
                    gates.chunks_exact_mut(4 * hidden).for_each(|row| row.copy_from_slice(&upper.bias));
                    let size = [n, hidden, 4 * hidden];
                    add_product(gates, &buffers.outputs[segment.end - 1], &upper.from_last, size);
                    add_product(gates, &buffers.attended, &upper.from_attended, size);
                    if idx > 0 {
                        add_product(gates, &buffers.upper_output, &upper.recurrent, size);
                    }
                    let (cell, output) = (&mut buffers.upper_cell, &mut buffers.upper_output);
                    arch.dispatch(Cells { gates, cell, output, hidden, is_first: idx == 0 });
                }
                Some(_) => {}
                None => {
                    self.ask(shape, arch, contexts, side, n, buffers);
                    self.attend(shape, arch, 0..window - 1, n, symbol_of, buffers);
                }
            }
        }
        let logits = &mut buffers.logits[..n * n_outputs];
        add_product(logits, &buffers.outputs[window - 1], &self.output_state, [n, width, n_outputs]);
        if self.upper.is_none() {
            add_product(logits, &buffers.attended, &self.output_attended, [n, width, n_outputs]);
        }
    }

    /// Leaves the queries of a network without tiers in `buffers`.
    fn ask(&self, shape: Shape, arch: Arch, contexts: &[&[Symbol]], side: usize, n: usize, buffers: &mut Buffers) {
        let (width, keys) = (shape.width(), shape.attention_width);
        let last = &buffers.outputs[shape.window - 1];
        let query = &mut buffers.query[..n * keys];
        match shape.attention {
            Attention::Fixed | Attention::Tiered => {
                query.chunks_exact_mut(keys).for_each(|row| row.copy_from_slice(&self.query));
            }
            Attention::Syntax => {
                for (row, query) in query.chunks_exact_mut(keys).enumerate() {
                    let own =
                        contexts.get(row).map_or(&[][..], |context| &context[side * shape.window..][..shape.window]);
                    let position = own.iter().filter(|&&symbol| symbol != shape.outside()).count();
                    query.copy_from_slice(&self.query[position * keys..][..keys]);
                }
            }
            Attention::Semantic1 => {
                query.fill(0.0);
                add_product(query, last, &self.query, [n, width, keys]);
                arch.dispatch(Tanh { doubled: query });
            }
            Attention::Semantic2 => {
                for (query, last) in query.chunks_exact_mut(keys).zip(last.chunks_exact(width)) {
                    query.copy_from_slice(&last[shape.hidden..]);
                }
            }
        }
    }

    /// Leaves the attention to `steps` and the value it amounts to in `buffers`, given the queries there.
    fn attend(
        &self,
        shape: Shape,
        arch: Arch,
        steps: std::ops::Range<usize>,
        n: usize,
        symbol_of: impl Fn(usize, usize) -> Symbol,
        buffers: &mut Buffers,
    ) {
        let (width, n_keys) = (shape.width(), shape.attention_width);
        let Buffers { keys, query, attention, outputs, attended, .. } = buffers;
        for step in steps.clone() {
            let keys = &mut keys[..n * n_keys];
            keys.fill(0.0);
            add_product(keys, &outputs[step], &self.keys, [n, width, n_keys]);
            arch.dispatch(Tanh { doubled: keys });
            let rows = keys.chunks_exact(n_keys).zip(query.chunks_exact(n_keys));
            for (row, (key, query)) in rows.enumerate() {
                let is_known = symbol_of(row, step) != shape.outside();
                let score = key.iter().zip(query).map(|(key, query)| key * query).sum();
                attention[row * shape.window + step] = if is_known { score } else { f32::NEG_INFINITY };
            }
        }
        attended[..n * width].fill(0.0);
        for (row, attended) in attended[..n * width].chunks_exact_mut(width).enumerate() {
            let weights = &mut attention[row * shape.window..][steps.clone()];
            let max = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            if max == f32::NEG_INFINITY {
                weights.fill(0.0);
                continue;
            }
            weights.iter_mut().for_each(|weight| *weight = (*weight - max).exp());
            let total: f32 = weights.iter().sum();
            for (weight, output) in weights.iter_mut().zip(&outputs[steps.clone()]) {
                *weight /= total;
                let value = &output[row * width..][..width];
                attended.iter_mut().zip(value).for_each(|(attended, value)| *attended += *weight * value);
            }
        }
    }
}

/// The cells of one layer at one step: gates before the sigmoid in, states and outputs out.
struct Cells<'a> {
    gates: &'a [f32],
    cell: &'a mut [f32],
    output: &'a mut [f32],
    hidden: usize,
    is_first: bool,
}

impl WithSimd for Cells<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _simd: S) {
        let Self { gates, cell, output, hidden, is_first } = self;
        let rows =
            gates.chunks_exact(4 * hidden).zip(cell.chunks_exact_mut(hidden)).zip(output.chunks_exact_mut(hidden));
        for ((gates, cell), output) in rows {
            let (input, rest) = gates.split_at(hidden);
            let (forget, rest) = rest.split_at(hidden);
            let (candidate, out) = rest.split_at(hidden);
            if is_first {
                cell.fill(0.0);
            }
            // Iterators without an index, so that the compiler sees no bounds to check and vectorises.
            let before = cell.iter_mut().zip(input).zip(forget.iter().zip(candidate));
            for ((cell, input), (forget, candidate)) in before {
                *cell = sigmoid(*forget) * *cell + sigmoid(*input) * (2.0 * sigmoid(*candidate) - 1.0);
            }
            for ((output, out), cell) in output.iter_mut().zip(out).zip(cell.iter()) {
                *output = sigmoid(*out) * (2.0 * sigmoid(2.0 * *cell) - 1.0);
            }
        }
    }
}

/// tanh of the halves, in place.
struct Tanh<'a> {
    doubled: &'a mut [f32],
}

impl WithSimd for Tanh<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _simd: S) {
        self.doubled.iter_mut().for_each(|x| *x = 2.0 * sigmoid(*x) - 1.0);
    }
}

/// ln Σ eˣ, safe from overflow.
fn log_sum_exp(values: &[f32]) -> f32 {
    let max = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    values.iter().map(|value| (value - max).exp()).sum::<f32>().ln() + max
}

/// `to += a · b` for row-major matrices `a [n, k]` and `b [k, m]`.
fn add_product(to: &mut [f32], a: &[f32], b: &[f32], [n, k, m]: [usize; 3]) {
    assert!(to.len() >= n * m && a.len() >= n * k && b.len() >= k * m, "a matrix is shorter than its shape");
    let (columns_to, columns_a, columns_b) = (m as isize, k as isize, m as isize);
    // SAFETY: the three matrices are as long as their shapes and strides say, as just checked, and `to` is borrowed
    // exclusively.
    unsafe {
        gemm::gemm(
            n,
            m,
            k,
            to.as_mut_ptr(),
            1,
            columns_to,
            true,
            a.as_ptr(),
            1,
            columns_a,
            b.as_ptr(),
            1,
            columns_b,
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests;
