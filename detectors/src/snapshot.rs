//! How detectors whose state is a serde value write it: one JSON object that names its detector and format.
//!
//! A detector with large weights writes its own bytes; this is for the small ones.

use faultline_core::{DetectorError, Window, hash::StableHash};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

const FORMAT: u32 = 1;

#[derive(Serialize)]
struct Written<'a, S> {
    detector: &'a str,
    format: u32,
    state: &'a S,
}

#[derive(Deserialize)]
struct Header {
    detector: String,
    format: u32,
}

#[derive(Deserialize)]
struct Read<S> {
    state: S,
}

/// Writes `state` so that [`decode`] with the same name reads it back.
///
/// # Errors
/// When the state cannot be JSON, which a derived `Serialize` of numbers, texts and lists always can.
pub fn encode<S: Serialize>(detector: &str, state: &S) -> Result<Vec<u8>, DetectorError> {
    serde_json::to_vec(&Written { detector, format: FORMAT, state })
        .map_err(|error| DetectorError::Snapshot { detector: detector.to_owned(), reason: error.to_string() })
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// When the bytes are damaged, or belong to another detector or format.
pub fn decode<S: DeserializeOwned>(detector: &str, snapshot: &[u8]) -> Result<S, DetectorError> {
    let refuse = |reason: String| DetectorError::Snapshot { detector: detector.to_owned(), reason };
    let header: Header = serde_json::from_slice(snapshot).map_err(|error| refuse(error.to_string()))?;
    if header.detector != detector {
        return Err(refuse(format!("it belongs to {}", header.detector)));
    }
    if header.format != FORMAT {
        return Err(refuse(format!("format {} is not {FORMAT}", header.format)));
    }
    let read: Read<S> = serde_json::from_slice(snapshot).map_err(|error| refuse(error.to_string()))?;
    Ok(read.state)
}

/// A model version: the hash of a freshly fitted state.
///
/// # Errors
/// As [`encode`].
pub fn version_of<S: Serialize>(detector: &str, state: &S) -> Result<u64, DetectorError> {
    Ok(StableHash::new().bytes(&encode(detector, state)?).finish())
}

/// The version of a model that has taken a person's verdict on `window`: another one, and the same for the same verdict.
#[must_use]
pub fn version_after(version: u64, window: &Window<'_>) -> u64 {
    let records = window.as_log().map_or(&[][..], |log| log.records);
    let hash = StableHash::new().text("accepted").number(version);
    records.iter().fold(hash, |hash, record| hash.number(record.template.0)).finish()
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};

    #[test]
    fn a_snapshot_is_read_back_only_by_its_own_detector() {
        let bytes = encode("length", &vec![1, 2, 3]).expect("numbers");
        assert_eq!(decode::<Vec<i32>>("length", &bytes).expect("its own"), [1, 2, 3]);
        let error = decode::<Vec<i32>>("ngram", &bytes).expect_err("another's").to_string();
        assert!(error.contains("belongs to length"), "{error}");
        assert!(decode::<Vec<i32>>("length", &bytes[..bytes.len() - 2]).is_err(), "cut short");
    }
}
