//! What a `span-lstm` model is kept as: version, labels with their scales, sizes and weights of the network, and how seldom its
//! figures are as large.

use super::{
    Learned, Scale,
    net::{Net, Shape},
    rarity::Rarity,
};
use crate::{
    bytes::{Magic, Reader, Writer},
    traces::sequence::Labels,
};

const MAGIC: Magic = *b"faultline SpLst1";

/// No layer is wider.
const MAX_HIDDEN: usize = 1 << 12;

/// Writes a snapshot.
pub(super) fn encode(learned: &Learned, version: u64) -> Vec<u8> {
    let mut writer = Writer::new(&MAGIC);
    writer.number(version);
    learned.labels.write(&mut writer);
    for scale in &learned.scales {
        writer.floats(&[scale.mean, scale.deviation, scale.spread]);
    }
    writer.number(learned.net.shape.hidden as u64);
    writer.floats(&learned.net.weights);
    learned.structure.write(&mut writer);
    learned.time.write(&mut writer);
    writer.double(learned.of_unknown);
    writer.finish()
}

/// Reads the version and what [`encode`] wrote, or says what is wrong with it.
pub(super) fn decode(snapshot: &[u8]) -> Result<(u64, Learned), String> {
    let mut reader = Reader::open(&MAGIC, snapshot)?;
    read(&mut reader)
        .filter(|_| reader.is_empty())
        .ok_or_else(|| "it is cut short, its sizes do not fit or a number is not finite".to_owned())
}

fn read(reader: &mut Reader<'_>) -> Option<(u64, Learned)> {
    let version = reader.number()?;
    let labels = Labels::read(reader)?;
    let scale = |_| {
        let [mean, deviation, spread] = reader.floats()?;
        (deviation > 0.0 && spread > 0.0).then_some(Scale { mean, deviation, spread })
    };
    let scales = (0..labels.len()).map(scale).collect::<Option<Vec<Scale>>>()?;
    let hidden = usize::try_from(reader.number()?).ok().filter(|hidden| (1..=MAX_HIDDEN).contains(hidden))?;
    let shape = Shape { n_labels: labels.len(), hidden };
    let weights = (0..shape.n_weights()).map(|_| reader.float()).collect::<Option<Vec<f32>>>()?;
    let (structure, time) = (Rarity::read(reader)?, Rarity::read(reader)?);
    let of_unknown = reader.double()?;
    Some((version, Learned { labels, scales, net: Net::new(shape, weights), structure, time, of_unknown }))
}
