//! What a DeepLog model is kept as.
//!
//! Little-endian: magic, version, window, hidden, layers, g, whether the end is known, templates, weights, rehearsed
//! examples, value models, workflows, and the stable hash of all that. Lists are preceded by their length. A value
//! model has a scale for the elapsed time and one for each number that it knows: none in models from before there were
//! numbers.

use std::collections::BTreeMap;

use faultline_core::{MAX_NUMBERS, TemplateId, hash::StableHash};

use super::{
    Config,
    net::{Examples, Shape},
    values::{Scale, ValueModel, Values},
    vocabulary::Vocabulary,
    workflow::{Node, Order, Workflows},
};

/// What a snapshot begins with; the digit is the format.
const MAGIC: &[u8; 16] = b"faultlineDeepLg2";

/// Everything that a model learned.
#[derive(Debug)]
pub struct Learned {
    pub vocabulary: Vocabulary,
    /// In the order of [`Shape::matrices`].
    pub weights: Vec<f32>,
    /// Predictions that count as normal.
    pub g: usize,
    /// The most frequent examples, to learn from again when the model is updated.
    pub rehearsed: Examples,
    pub values: Values,
    pub workflows: Workflows,
}

/// Writes a snapshot.
pub fn encode(shape: Shape, learned: &Learned, version: u64) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    let Learned { vocabulary, weights, g, rehearsed, values, workflows } = learned;
    number(&mut bytes, version);
    for size in [shape.window, shape.hidden, shape.layers, *g, usize::from(vocabulary.knows_end)] {
        number(&mut bytes, size as u64);
    }
    number(&mut bytes, vocabulary.templates.len() as u64);
    vocabulary.templates.iter().for_each(|template| number(&mut bytes, template.0));
    floats(&mut bytes, weights);
    number(&mut bytes, rehearsed.next.len() as u64);
    rehearsed.contexts.iter().for_each(|symbol| bytes.extend(symbol.to_le_bytes()));
    for next in &rehearsed.next {
        number(&mut bytes, next.len() as u64);
        for (symbol, weight) in next {
            bytes.extend(symbol.to_le_bytes());
            bytes.extend(weight.to_le_bytes());
        }
    }
    number(&mut bytes, values.models().len() as u64);
    for (template, model) in values.models() {
        number(&mut bytes, template.0);
        number(&mut bytes, model.scales.len() as u64);
        for scale in &model.scales {
            number(&mut bytes, u64::from(scale.n_errors));
            for value in [scale.mean, scale.deviation, scale.error_mean, scale.error_deviation] {
                bytes.extend(value.to_le_bytes());
            }
        }
        floats(&mut bytes, &model.weights);
    }
    number(&mut bytes, workflows.nodes().len() as u64);
    for node in workflows.nodes() {
        for size in [node.template.0, node.workflow as u64, node.step as u64] {
            number(&mut bytes, size);
        }
        number(&mut bytes, node.begins.to_bits());
        number(&mut bytes, node.ends.to_bits());
        number(&mut bytes, node.next.len() as u64);
        for (template, order, share) in &node.next {
            number(&mut bytes, template.0);
            number(&mut bytes, *order as u64);
            number(&mut bytes, share.to_bits());
        }
    }
    let checksum = StableHash::new().bytes(&bytes).finish();
    number(&mut bytes, checksum);
    bytes
}

/// Reads what [`encode`] wrote, or says what is wrong with it.
pub fn decode(snapshot: &[u8]) -> Result<(u64, Shape, Learned), String> {
    let body = snapshot.strip_prefix(MAGIC).ok_or("it is not a snapshot of deeplog in format 2")?;
    let (content, checksum) = snapshot.split_at(snapshot.len().saturating_sub(8));
    if body.len() < 8 || checksum != StableHash::new().bytes(content).finish().to_le_bytes() {
        return Err("its checksum does not match".to_owned());
    }
    read(&mut Reader { rest: &body[..body.len() - 8] })
        .ok_or_else(|| "it is cut short or its sizes do not fit".to_owned())
}

fn read(reader: &mut Reader<'_>) -> Option<(u64, Shape, Learned)> {
    let version = reader.number()?;
    let [window, hidden, layers, g, knows_end] =
        [reader.size()?, reader.size()?, reader.size()?, reader.size()?, reader.size()?];
    let templates: Option<Vec<TemplateId>> = (0..reader.length(8)?).map(|_| reader.number().map(TemplateId)).collect();
    if window > 1 << 16 || hidden > 1 << 16 || layers > 1 << 16 {
        return None;
    }
    let vocabulary = Vocabulary::new(templates?, knows_end != 0);
    let shape = vocabulary.shape(&Config { window, hidden, layers, ..Config::default() });
    let weights = reader.floats()?;
    let mut rehearsed = Examples { contexts: Vec::new(), next: Vec::new() };
    let n_rehearsed = reader.length(2 * window + 8)?;
    for _ in 0..n_rehearsed * window {
        rehearsed.contexts.push(reader.symbol()?);
    }
    for _ in 0..n_rehearsed {
        let n_next = reader.length(6)?;
        let next: Option<Vec<_>> = (0..n_next).map(|_| Some((reader.symbol()?, reader.float()?))).collect();
        rehearsed.next.push(next?);
    }
    let mut models = BTreeMap::new();
    for _ in 0..reader.length(16)? {
        let template = TemplateId(reader.number()?);
        let mut scales = Vec::new();
        for _ in 0..reader.length(24)? {
            let n_errors = u32::try_from(reader.number()?).ok()?;
            let [mean, deviation, error_mean, error_deviation] =
                [reader.float()?, reader.float()?, reader.float()?, reader.float()?];
            scales.push(Scale { mean, deviation, error_mean, error_deviation, n_errors });
        }
        let weights = reader.floats()?;
        if scales.is_empty() || scales.len() > 1 + MAX_NUMBERS || weights.len() != ValueModel::n_weights(scales.len()) {
            return None;
        }
        models.insert(template, ValueModel::new(scales, weights));
    }
    let mut nodes = Vec::new();
    for _ in 0..reader.length(48)? {
        let template = TemplateId(reader.number()?);
        let [workflow, step] = [reader.size()?, reader.size()?];
        let [begins, ends] = [reader.number()?, reader.number()?].map(f64::from_bits);
        let mut next = Vec::new();
        for _ in 0..reader.length(24)? {
            let template = TemplateId(reader.number()?);
            let order = match reader.number()? {
                0 => Order::Then,
                1 => Order::Concurrent,
                2 => Order::Loop,
                _ => return None,
            };
            next.push((template, order, f64::from_bits(reader.number()?)));
        }
        nodes.push(Node { template, workflow, step, begins, ends, next });
    }
    let known = |symbol: usize| symbol < shape.n_outputs;
    let fits = weights.len() == shape.n_weights()
        && reader.rest.is_empty()
        && g > 0
        && rehearsed.next.iter().flatten().all(|(symbol, _)| known(usize::from(*symbol)));
    let learned =
        Learned { vocabulary, weights, g, rehearsed, values: Values::of(models), workflows: Workflows::of(nodes) };
    fits.then_some((version, shape, learned))
}

fn number(bytes: &mut Vec<u8>, number: u64) {
    bytes.extend(number.to_le_bytes());
}

fn floats(bytes: &mut Vec<u8>, floats: &[f32]) {
    number(bytes, floats.len() as u64);
    bytes.extend(floats.iter().flat_map(|value| value.to_le_bytes()));
}

/// Takes what it reads off the front; none when that is too short.
struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (own, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*own)
    }

    fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn size(&mut self) -> Option<usize> {
        self.number().and_then(|number| usize::try_from(number).ok())
    }

    /// Of a list whose items take so many bytes at least: no longer than what is left.
    fn length(&mut self, item: usize) -> Option<usize> {
        self.size().filter(|&length| length <= self.rest.len() / item.max(1))
    }

    fn symbol(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn float(&mut self) -> Option<f32> {
        self.take().map(f32::from_le_bytes)
    }

    fn floats(&mut self) -> Option<Vec<f32>> {
        (0..self.length(4)?).map(|_| self.float()).collect()
    }
}
