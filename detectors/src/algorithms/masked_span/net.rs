//! The network of `masked-span`: one block of attention that predicts the label at a place of a trace from the other spans.
//!
//! What asks is the place: its depth, and the labels of its caller and of the calls just before and after, each an embedding of
//! its own kind; these are the positions of the paper's encoder, made for trees. What is asked are all spans that may be seen, by
//! label and depth. Attention has a learned preference for each of the ways in which a span may stand to the place
//! (`places`). Then come the sum of both, a layer of tanh and a softmax. Spans do not change as they are looked at, so one
//! set of keys and values serves all places of a trace, whichever of them are masked.
//!
//! The way back is written by hand and checked against finite differences. Cost at 32 features, 64 units and 250 labels:
//! 42 kFLOP a prediction and 0.13 kFLOP more for each span that is seen; twice that again on the way back.

use pulp::{Arch, Simd, WithSimd};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::places::{N_RELATIONS, Place};
use crate::{
    language::Symbol,
    networks::elementary::{add_product, add_product_back, add_scaled, dot, exp, log_softmax, split, split_mut, tanh},
    traces::sequence::Step,
};

/// Heads of the attention.
const HEADS: usize = 2;

/// Depths told apart; what is deeper counts as this deep.
const DEPTHS: usize = 16;

/// Sizes of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Labels that it knows.
    pub n_labels: usize,
    /// Features of a span and of a place; a multiple of [`HEADS`].
    pub width: usize,
    /// Units of the layer above the attention.
    pub hidden: usize,
}

/// Number of parts.
const N_PARTS: usize = 15;

impl Shape {
    /// Sizes of its parts. Embeddings of a span: label, depth. Embeddings of a place: labels of caller, call before and
    /// call after, each with a last row for that there is none; depth. Query, key, value `[width, width]`; preferences
    /// `[HEADS, N_RELATIONS]`; output of the attention `[width, width]`; the layer `[width, hidden]` and its bias; the
    /// head `[hidden, n_labels + 1]`, of which the last is *nothing more*, and its bias.
    fn sizes(&self) -> [usize; N_PARTS] {
        let Self { n_labels, width, hidden } = *self;
        let (n_next, square, depths) = (n_labels + 1, width * width, DEPTHS * width);
        let place = n_next * width;
        let (layer, head) = (width * hidden, hidden * n_next);
        [
            n_labels * width,
            depths,
            place,
            place,
            place,
            depths,
            square,
            square,
            square,
            HEADS * N_RELATIONS,
            square,
            layer,
            hidden,
            head,
            n_next,
        ]
    }

    /// Number of weights.
    pub fn n_weights(&self) -> usize {
        self.sizes().iter().sum()
    }

    /// Whether it can be built.
    pub fn is_sound(&self) -> bool {
        self.width > 0 && self.hidden > 0 && self.width.is_multiple_of(HEADS)
    }

    /// The row of an embedding of a place: of a label that is known, or of nothing being there.
    fn row(&self, steps: &[Step], idx: Option<usize>) -> Option<usize> {
        match idx {
            None => Some(self.n_labels),
            Some(idx) => self.known(steps[idx].symbol),
        }
    }

    fn known(&self, symbol: Symbol) -> Option<usize> {
        Some(usize::from(symbol)).filter(|&label| label < self.n_labels)
    }

    /// What came at a place, as an index of the head; none where its label is not known.
    pub fn came(&self, place: &Place) -> Option<usize> {
        place.came.map_or(Some(self.n_labels), |symbol| self.known(symbol))
    }
}

/// The weights by their parts.
struct Parts<'a> {
    label: &'a [f32],
    depth: &'a [f32],
    /// Embeddings of a place: caller, call before, call after.
    around: [&'a [f32]; 3],
    own_depth: &'a [f32],
    query: &'a [f32],
    key: &'a [f32],
    value: &'a [f32],
    preferences: &'a [f32],
    attended: &'a [f32],
    layer: &'a [f32],
    layer_bias: &'a [f32],
    head: &'a [f32],
    head_bias: &'a [f32],
}

impl<'a> Parts<'a> {
    fn of(shape: Shape, weights: &'a [f32]) -> Self {
        let [
            label,
            depth,
            caller,
            left,
            right,
            own_depth,
            query,
            key,
            value,
            preferences,
            attended,
            layer,
            layer_bias,
            head,
            head_bias,
        ] = split(weights, shape.sizes());
        let around = [caller, left, right];
        Self {
            label,
            depth,
            around,
            own_depth,
            query,
            key,
            value,
            preferences,
            attended,
            layer,
            layer_bias,
            head,
            head_bias,
        }
    }
}

/// What the network computes on its way, and the gradients of that on the way back. Made to be used again.
#[derive(Debug, Default)]
pub struct Look {
    /// Log-probabilities at the latest place: of the labels, and of nothing more.
    pub log_probabilities: Vec<f32>,
    /// A row a span: its features, key and value; and the gradients of the latter two.
    spans: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    d_keys: Vec<f32>,
    d_values: Vec<f32>,
    /// Of the latest place: which spans it sees and how they stand to it, and the attention of each head to each.
    seen: Vec<(usize, usize)>,
    attention: Vec<f32>,
    d_attention: Vec<f32>,
    /// Of the latest place, each with its gradient: features, query, what was attended to, the sum, the layer.
    place: [Vec<f32>; 2],
    query: [Vec<f32>; 2],
    attended: [Vec<f32>; 2],
    sum: [Vec<f32>; 2],
    layer: [Vec<f32>; 2],
}

impl Look {
    fn prepare(&mut self, shape: Shape, n_steps: usize) {
        let Shape { n_labels, width, hidden } = shape;
        for rows in [&mut self.spans, &mut self.keys, &mut self.values, &mut self.d_keys, &mut self.d_values] {
            rows.clear();
            rows.resize(n_steps * width, 0.0);
        }
        for pair in [&mut self.place, &mut self.query, &mut self.attended, &mut self.sum] {
            pair.iter_mut().for_each(|own| own.resize(width, 0.0));
        }
        self.layer.iter_mut().for_each(|own| own.resize(hidden, 0.0));
        self.log_probabilities.resize(n_labels + 1, 0.0);
        self.attention.resize(HEADS * n_steps, 0.0);
        self.d_attention.resize(n_steps, 0.0);
    }
}

/// The network with its weights.
#[derive(Debug)]
pub struct Net {
    pub shape: Shape,
    pub weights: Vec<f32>,
    arch: Arch,
}

impl Net {
    /// A network of these weights.
    pub fn new(shape: Shape, weights: Vec<f32>) -> Self {
        debug_assert_eq!(weights.len(), shape.n_weights(), "weights of another shape");
        Self { shape, weights, arch: Arch::new() }
    }

    /// Uniform initial weights in ±√(6 / (inputs + outputs)) (Glorot and Bengio), embeddings in ±1/2; no bias, no preference.
    pub fn drawn(shape: Shape, rng: &mut ChaCha8Rng) -> Self {
        let Shape { n_labels, width, hidden } = shape;
        let glorot = |inputs: usize, outputs: usize| (6.0 / (inputs + outputs) as f32).sqrt();
        let (square, layer, head) = (glorot(width, width), glorot(width, hidden), glorot(hidden, n_labels + 1));
        let bounds = [0.5, 0.5, 0.5, 0.5, 0.5, 0.5, square, square, square, 0.0, square, layer, 0.0, head, 0.0];
        let mut weights = Vec::with_capacity(shape.n_weights());
        for (size, bound) in shape.sizes().into_iter().zip(bounds) {
            weights.extend((0..size).map(|_| (rng.random::<f32>() * 2.0 - 1.0) * bound));
        }
        Self::new(shape, weights)
    }

    /// Looks at each place in turn: `told` is handed its index and the log-probabilities there.
    pub fn predict(&self, steps: &[Step], places: &[Place], look: &mut Look, mut told: impl FnMut(usize, &[f32])) {
        look.prepare(self.shape, steps.len());
        self.arch.dispatch(Ask { net: self, steps, look });
        for (idx, place) in places.iter().enumerate() {
            self.arch.dispatch(Answer { net: self, steps, place, look });
            told(idx, &look.log_probabilities);
        }
    }

    /// Adds to the gradient of all weights that of the loss at some places of a trace. Returns the loss, which is the
    /// surprise in nats.
    pub fn learn(&self, steps: &[Step], places: &[Place], look: &mut Look, gradient: &mut [f32]) -> f32 {
        look.prepare(self.shape, steps.len());
        self.arch.dispatch(Ask { net: self, steps, look });
        let mut loss = 0.0;
        for place in places {
            if let Some(came) = self.shape.came(place) {
                self.arch.dispatch(Answer { net: self, steps, place, look });
                loss += self.arch.dispatch(AnswerBack { net: self, steps, place, came, look, gradient });
            }
        }
        self.arch.dispatch(AskBack { net: self, steps, look, gradient });
        loss
    }
}

/// Computes features, keys and values of all spans.
struct Ask<'a> {
    net: &'a Net,
    steps: &'a [Step],
    look: &'a mut Look,
}

fn depth_row(depth: usize) -> usize {
    depth.min(DEPTHS - 1)
}

impl WithSimd for Ask<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        let Self { net, steps, look } = self;
        let (shape, width) = (net.shape, net.shape.width);
        let parts = Parts::of(shape, &net.weights);
        for (idx, step) in steps.iter().enumerate() {
            let own = idx * width..(idx + 1) * width;
            let span = &mut look.spans[own.clone()];
            span.copy_from_slice(&parts.depth[depth_row(usize::from(step.depth)) * width..][..width]);
            if let Some(label) = shape.known(step.symbol) {
                add_scaled(span, 1.0, &parts.label[label * width..][..width]);
            }
            add_product(&mut look.keys[own.clone()], span, parts.key);
            add_product(&mut look.values[own], span, parts.value);
        }
    }
}

/// Predicts what is at a place.
struct Answer<'a> {
    net: &'a Net,
    steps: &'a [Step],
    place: &'a Place,
    look: &'a mut Look,
}

impl WithSimd for Answer<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        let Self { net, steps, place, look } = self;
        let (shape, width) = (net.shape, net.shape.width);
        let parts = Parts::of(shape, &net.weights);
        let Look { log_probabilities, keys, values, seen, attention, place: [own, _], query: [query, _], .. } = look;
        own.copy_from_slice(&parts.own_depth[depth_row(place.depth) * width..][..width]);
        for (embedding, idx) in parts.around.into_iter().zip([place.parent, place.left, place.right]) {
            if let Some(row) = shape.row(steps, idx) {
                add_scaled(own, 1.0, &embedding[row * width..][..width]);
            }
        }
        query.fill(0.0);
        add_product(query, own, parts.query);
        let a_head = width / HEADS;
        let scale = 1.0 / (a_head as f32).sqrt();
        query.iter_mut().for_each(|own| *own *= scale);
        let hidden = place.hidden();
        seen.clear();
        let visible = (0..hidden.start).chain(hidden.end..steps.len());
        seen.extend(visible.map(|idx| (idx, place.relation(steps, idx))));
        let ([attended, _], [sum, _], [layer, _]) = (&mut look.attended, &mut look.sum, &mut look.layer);
        attended.fill(0.0);
        for head in 0..HEADS {
            let features = head * a_head..(head + 1) * a_head;
            let query = &query[features.clone()];
            let attention = &mut attention[head * steps.len()..][..seen.len()];
            let mut most = f32::NEG_INFINITY;
            for (own, &(idx, relation)) in attention.iter_mut().zip(seen.iter()) {
                let key = &keys[idx * width..][..width][features.clone()];
                *own = dot(query, key) + parts.preferences[head * N_RELATIONS + relation];
                most = most.max(*own);
            }
            let mut total = 0.0;
            for own in attention.iter_mut() {
                *own = exp(*own - most);
                total += *own;
            }
            let attended = &mut attended[features.clone()];
            for (own, &(idx, _)) in attention.iter_mut().zip(seen.iter()) {
                *own /= total;
                add_scaled(attended, *own, &values[idx * width..][..width][features.clone()]);
            }
        }
        sum.copy_from_slice(own);
        add_product(sum, attended, parts.attended);
        layer.copy_from_slice(parts.layer_bias);
        add_product(layer, sum, parts.layer);
        layer.iter_mut().for_each(|unit| *unit = tanh(*unit));
        log_probabilities.copy_from_slice(parts.head_bias);
        add_product(log_probabilities, layer, parts.head);
        log_softmax(log_probabilities);
    }
}

/// The way back from a prediction, as far as keys and values.
struct AnswerBack<'a> {
    net: &'a Net,
    steps: &'a [Step],
    place: &'a Place,
    came: usize,
    look: &'a mut Look,
    gradient: &'a mut [f32],
}

impl WithSimd for AnswerBack<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) -> f32 {
        let Self { net, steps, place, came, look, gradient } = self;
        let (shape, width) = (net.shape, net.shape.width);
        let parts = Parts::of(shape, &net.weights);
        let [
            _,
            _,
            d_caller,
            d_left,
            d_right,
            d_own_depth,
            d_query_part,
            _,
            _,
            d_preferences,
            d_attended_part,
            d_layer_part,
            d_layer_bias,
            d_head,
            d_head_bias,
        ] = split_mut(gradient, shape.sizes());
        let Look { log_probabilities, keys, values, d_keys, d_values, seen, attention, d_attention, .. } = look;
        let ([own, d_own], [query, d_query], [attended, d_attended]) =
            (&mut look.place, &mut look.query, &mut look.attended);
        let ([sum, d_sum], [layer, d_layer]) = (&mut look.sum, &mut look.layer);
        for gradient in [&mut *d_own, &mut *d_query, &mut *d_attended, &mut *d_sum, &mut *d_layer] {
            gradient.fill(0.0);
        }
        let loss = -log_probabilities[came];
        log_probabilities.iter_mut().for_each(|own| *own = exp(*own));
        log_probabilities[came] -= 1.0;
        add_scaled(d_head_bias, 1.0, log_probabilities);
        add_product_back(log_probabilities, layer, parts.head, d_head, d_layer);
        for (d_unit, unit) in d_layer.iter_mut().zip(layer.iter()) {
            *d_unit *= 1.0 - unit * unit;
        }
        add_scaled(d_layer_bias, 1.0, d_layer);
        add_product_back(d_layer, sum, parts.layer, d_layer_part, d_sum);
        d_own.copy_from_slice(d_sum);
        add_product_back(d_sum, attended, parts.attended, d_attended_part, d_attended);
        let a_head = width / HEADS;
        for head in 0..HEADS {
            let features = head * a_head..(head + 1) * a_head;
            let attention = &attention[head * steps.len()..][..seen.len()];
            let d_attention = &mut d_attention[..seen.len()];
            let d_attended = &d_attended[features.clone()];
            let mut total = 0.0;
            for ((own, d_attention), &(idx, _)) in attention.iter().zip(d_attention.iter_mut()).zip(seen.iter()) {
                let row = idx * width..(idx + 1) * width;
                *d_attention = dot(d_attended, &values[row.clone()][features.clone()]);
                total += own * *d_attention;
                add_scaled(&mut d_values[row][features.clone()], *own, d_attended);
            }
            let (query, d_query) = (&query[features.clone()], &mut d_query[features.clone()]);
            for ((own, d_attention), &(idx, relation)) in attention.iter().zip(d_attention.iter()).zip(seen.iter()) {
                let row = idx * width..(idx + 1) * width;
                let d_score = own * (d_attention - total);
                d_preferences[head * N_RELATIONS + relation] += d_score;
                add_scaled(d_query, d_score, &keys[row.clone()][features.clone()]);
                add_scaled(&mut d_keys[row][features.clone()], d_score, query);
            }
        }
        let scale = 1.0 / (a_head as f32).sqrt();
        d_query.iter_mut().for_each(|own| *own *= scale);
        add_product_back(d_query, own, parts.query, d_query_part, d_own);
        add_scaled(&mut d_own_depth[depth_row(place.depth) * width..][..width], 1.0, d_own);
        for (d_embedding, idx) in [d_caller, d_left, d_right].into_iter().zip([place.parent, place.left, place.right]) {
            if let Some(row) = shape.row(steps, idx) {
                add_scaled(&mut d_embedding[row * width..][..width], 1.0, d_own);
            }
        }
        loss
    }
}

/// The way back from keys and values of all spans.
struct AskBack<'a> {
    net: &'a Net,
    steps: &'a [Step],
    look: &'a mut Look,
    gradient: &'a mut [f32],
}

impl WithSimd for AskBack<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        let Self { net, steps, look, gradient } = self;
        let (shape, width) = (net.shape, net.shape.width);
        let parts = Parts::of(shape, &net.weights);
        let [d_label, d_depth, _, _, _, _, _, d_key, d_value, ..] = split_mut(gradient, shape.sizes());
        let Look { spans, d_keys, d_values, sum: [_, d_span], .. } = look;
        for (idx, step) in steps.iter().enumerate() {
            let own = idx * width..(idx + 1) * width;
            d_span.fill(0.0);
            add_product_back(&d_keys[own.clone()], &spans[own.clone()], parts.key, d_key, d_span);
            add_product_back(&d_values[own.clone()], &spans[own], parts.value, d_value, d_span);
            add_scaled(&mut d_depth[depth_row(usize::from(step.depth)) * width..][..width], 1.0, d_span);
            if let Some(label) = shape.known(step.symbol) {
                add_scaled(&mut d_label[label * width..][..width], 1.0, d_span);
            }
        }
    }
}

#[cfg(test)]
mod tests;
