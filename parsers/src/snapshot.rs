//! The bytes of a parser snapshot (station 4): a magic word, the format version, a hash of the rest, JSON.

use faultline_core::hash::StableHash;
use serde::{Deserialize, Serialize};

use crate::{drain::DrainState, error::ParserError, parser::ParserStats};

const MAGIC: &[u8; 12] = b"fl-templates";
/// Changes whenever older bytes cannot be read any more.
const VERSION: u32 = 2;
const HEADER: usize = MAGIC.len() + 4 + 8;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    /// Seed of the token hashes in the trees.
    pub(crate) hash_seed: u64,
    /// Hash of the user's masks.
    pub(crate) masks: u64,
    pub(crate) stats: ParserStats,
    pub(crate) streams: Vec<DrainState>,
}

pub(crate) fn encode(snapshot: &Snapshot) -> Vec<u8> {
    let mut bytes = Vec::from(&MAGIC[..]);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend([0; 8]);
    serde_json::to_writer(&mut bytes, snapshot).expect("a snapshot is plain data written to memory");
    let hash = StableHash::new().bytes(&bytes[HEADER..]).finish();
    bytes[HEADER - 8..HEADER].copy_from_slice(&hash.to_le_bytes());
    bytes
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Snapshot, ParserError> {
    let corrupt = |reason: &str| ParserError::CorruptSnapshot { reason: reason.to_owned() };
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| corrupt("it does not begin like one"))?;
    let (version, rest) = rest.split_first_chunk().ok_or_else(|| corrupt("it ends in its header"))?;
    let found = u32::from_le_bytes(*version);
    if found != VERSION {
        return Err(ParserError::SnapshotVersion { found, expected: VERSION });
    }
    let (hash, body) = rest.split_first_chunk().ok_or_else(|| corrupt("it ends in its header"))?;
    if StableHash::new().bytes(body).finish() != u64::from_le_bytes(*hash) {
        return Err(corrupt("its hash does not match its content"));
    }
    serde_json::from_slice(body).map_err(|error| corrupt(&error.to_string()))
}
