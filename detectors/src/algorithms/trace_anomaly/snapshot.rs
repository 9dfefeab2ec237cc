//! What a model is kept as: version, seed, sizes, call paths with their times, what is usual, weights, and kinds (as JSON).

use super::{
    dimensions::{Dimension, Dimensions},
    net::Shape,
    network::Network,
    usual::{Scale, Usual},
};
use crate::{
    algorithms::trace_vector::Kinds,
    bytes::{Magic, Reader, Writer},
};

/// What a snapshot begins with; the digit is the format.
const MAGIC: Magic = *b"faultline TrVAE1";

/// No network is wider, no vector longer.
const MAX_SIZE: usize = 1 << 14;

/// Writes a model. Its kinds have been written as JSON.
pub fn encode(network: &Network, version: u64, kinds: &str) -> Vec<u8> {
    let mut writer = Writer::new(&MAGIC);
    let Shape { paths, hidden, latent, flows, min_ln_deviation } = network.shape;
    writer.number(version);
    writer.number(network.seed);
    for size in [paths, hidden, latent, flows] {
        writer.number(size as u64);
    }
    writer.float(min_ln_deviation);
    for Dimension { path, mean, deviation } in &network.dimensions.0 {
        writer.number(*path);
        writer.double(*mean);
        writer.double(*deviation);
    }
    let Scale { overall, of_kind, unseen } = &network.scale;
    writer.number(of_kind.len() as u64);
    for Usual { median, reach } in std::iter::once(overall).chain(of_kind) {
        writer.double(*median);
        writer.double(*reach);
    }
    writer.byte(u8::from(unseen.is_some()));
    writer.double(unseen.unwrap_or(0.0));
    writer.byte(u8::from(network.is_complete));
    writer.floats(&network.weights);
    writer.text(kinds);
    writer.finish()
}

/// Reads the version and what [`encode`] wrote, to judge by so many samples, or says what is wrong with it.
pub fn decode(snapshot: &[u8], samples: usize) -> Result<(u64, Network), String> {
    let mut reader = Reader::open(&MAGIC, snapshot)?;
    read(&mut reader, samples)
        .filter(|_| reader.is_empty())
        .ok_or_else(|| "it is cut short, its sizes do not fit or a number is not finite".to_owned())
}

fn read(reader: &mut Reader<'_>, samples: usize) -> Option<(u64, Network)> {
    let [version, seed] = [reader.number()?, reader.number()?];
    let mut size = || usize::try_from(reader.number()?).ok().filter(|size| *size <= MAX_SIZE);
    let [paths, hidden, latent, flows] = [size()?, size()?, size()?, size()?];
    if [paths, hidden, latent].contains(&0) {
        return None;
    }
    let shape = Shape { paths, hidden, latent, flows, min_ln_deviation: reader.float()? };
    let mut dimensions = Vec::new();
    for _ in 0..paths {
        let [path, mean, deviation] = [reader.number()?, reader.number()?, reader.number()?];
        let (mean, deviation) = (f64::from_bits(mean), f64::from_bits(deviation));
        let is_sound = mean.is_finite() && deviation.is_finite() && deviation > 0.0;
        let is_next = dimensions.last().is_none_or(|last: &Dimension| last.path < path);
        if !is_sound || !is_next {
            return None;
        }
        dimensions.push(Dimension { path, mean, deviation });
    }
    let n_kinds = reader.length(16)?;
    let overall = usual(reader)?;
    let of_kind = (0..n_kinds).map(|_| usual(reader)).collect::<Option<Vec<Usual>>>()?;
    let (has_unseen, unseen) = (reader.is()?, reader.double()?);
    let is_complete = reader.is()?;
    let weights = (0..shape.n_weights()).map(|_| reader.float()).collect::<Option<Vec<f32>>>()?;
    let mut kinds: Kinds = serde_json::from_str(&reader.text()?).ok()?;
    if !kinds.index() || (n_kinds > 0 && n_kinds != kinds.size().0) {
        return None;
    }
    let scale = Scale { overall, of_kind, unseen: has_unseen.then_some(unseen) };
    let network = Network::new((shape, seed, samples), (Dimensions(dimensions), weights), scale, (kinds, is_complete));
    Some((version, network))
}

fn usual(reader: &mut Reader<'_>) -> Option<Usual> {
    let (median, reach) = (reader.double()?, reader.double()?);
    (reach > 0.0).then_some(Usual { median, reach })
}
