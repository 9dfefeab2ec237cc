//! What a Donut model is kept as.
//!
//! Little-endian: magic, version, seed, sizes of the networks, series with their scale, history and weights, and the
//! stable hash of all that. Lists are preceded by their length.

use std::{collections::BTreeMap, sync::Arc};

use faultline_core::{WindowKey, hash::StableHash};

use super::{
    Series,
    kernel::Kernel,
    net::Shape,
    series::{History, Standard},
};

/// What a snapshot begins with; the digit is the format.
const MAGIC: &[u8; 16] = b"faultline Donut1";

/// No network is larger.
const MAX_SIZE: usize = 1 << 12;

/// Everything that a model learned, and where its series are.
#[derive(Debug)]
pub struct Learned {
    pub shape: Shape,
    /// Makes the draws behind samples.
    pub seed: u64,
    pub series: BTreeMap<WindowKey, Series>,
}

/// Writes a snapshot.
pub fn encode(learned: &Learned, version: u64) -> Vec<u8> {
    let Learned { shape, seed, series } = learned;
    let mut bytes = MAGIC.to_vec();
    number(&mut bytes, version);
    number(&mut bytes, *seed);
    for size in [shape.window, shape.hidden, shape.latent, series.len()] {
        number(&mut bytes, size as u64);
    }
    for (key, own) in series {
        for text in [&key.stream, &key.session] {
            number(&mut bytes, text.len() as u64);
            bytes.extend(text.as_bytes());
        }
        bytes.extend(own.step_nanos.to_le_bytes());
        for value in [own.standard.mean, own.standard.deviation, own.typical, own.look_again_from] {
            number(&mut bytes, value.to_bits());
        }
        bytes.extend(own.history.next_step().to_le_bytes());
        floats(&mut bytes, own.history.last(shape.window - 1));
        floats(&mut bytes, &own.weights);
    }
    let checksum = StableHash::new().bytes(&bytes).finish();
    number(&mut bytes, checksum);
    bytes
}

/// Reads the version and what [`encode`] wrote, or says what is wrong with it.
pub fn decode(snapshot: &[u8]) -> Result<(u64, Learned), String> {
    let body = snapshot.strip_prefix(MAGIC).ok_or("it is not a snapshot of donut in format 1")?;
    let (content, checksum) = snapshot.split_at(snapshot.len().saturating_sub(8));
    if body.len() < 8 || checksum != StableHash::new().bytes(content).finish().to_le_bytes() {
        return Err("its checksum does not match".to_owned());
    }
    read(&mut Reader { rest: &body[..body.len() - 8] })
        .ok_or_else(|| "it is cut short, its sizes do not fit or a number is not finite".to_owned())
}

fn read(reader: &mut Reader<'_>) -> Option<(u64, Learned)> {
    let [version, seed] = [reader.number()?, reader.number()?];
    let [window, hidden, latent, n_series] = [reader.size()?, reader.size()?, reader.size()?, reader.size()?];
    if [window, hidden, latent].iter().any(|size| !(1..=MAX_SIZE).contains(size)) {
        return None;
    }
    let shape = Shape { window, hidden, latent };
    let mut series = BTreeMap::new();
    // The bytes run out before a wrong number of series does harm.
    for _ in 0..n_series {
        let [stream, session] = [reader.text()?, reader.text()?];
        let step_nanos = reader.take().map(i64::from_le_bytes)?;
        let [mean, deviation, typical, look_again_from] =
            [reader.double()?, reader.double()?, reader.double()?, reader.double()?];
        let next_step = reader.take().map(i64::from_le_bytes)?;
        let [history, weights] = [reader.floats()?, reader.floats()?];
        let fits = history.len() == window - 1
            && weights.len() == shape.n_weights()
            && weights.iter().all(|weight| weight.is_finite())
            && deviation > 0.0;
        if !fits {
            return None;
        }
        let own = Series {
            step_nanos,
            standard: Standard { mean, deviation },
            typical,
            look_again_from,
            kernel: Kernel::new(shape, &weights),
            weights,
            history: History::new(history, next_step),
        };
        series.insert(WindowKey { stream, session }, own);
    }
    (reader.rest.is_empty() && !series.is_empty()).then_some((version, Learned { shape, seed, series }))
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

    /// A finite one.
    fn double(&mut self) -> Option<f64> {
        self.number().map(f64::from_bits).filter(|value| value.is_finite())
    }

    fn size(&mut self) -> Option<usize> {
        self.number().and_then(|number| usize::try_from(number).ok())
    }

    fn text(&mut self) -> Option<Arc<str>> {
        let length = self.size()?;
        let (own, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        std::str::from_utf8(own).ok().map(Arc::from)
    }

    fn floats(&mut self) -> Option<Vec<f32>> {
        let length = self.size().filter(|&length| length <= self.rest.len() / 4)?;
        (0..length).map(|_| self.take().map(f32::from_le_bytes)).collect()
    }
}
