//! What can be wrong with a parser's configuration or snapshot. Lines are never wrong.

use faultline_core::{Classified, Domain};

/// A parser that could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParserError {
    /// A value that does not do, naming its key.
    #[error("parser.{key}: {reason}")]
    Config {
        /// The key to change.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A mask whose regular expression does not compile.
    #[error("parser.masks: mask `{name}` is not a regular expression")]
    Mask {
        /// Name of the mask.
        name: String,
        /// Why.
        #[source]
        cause: Box<regex::Error>,
    },
    /// A preset that does not exist.
    #[error("parser preset `{name}` does not exist, did you mean `{nearest}`?")]
    UnknownPreset {
        /// What was asked for.
        name: String,
        /// The nearest that exists.
        nearest: &'static str,
    },
    /// A snapshot that is not one, or was damaged.
    #[error("parser snapshot is corrupt: {reason}")]
    CorruptSnapshot {
        /// What does not add up.
        reason: String,
    },
    /// A snapshot of another format version.
    #[error("parser snapshot has format version {found}, this release reads version {expected}")]
    SnapshotVersion {
        /// Its version.
        found: u32,
        /// The version that can be read.
        expected: u32,
    },
    /// A snapshot that was written with other masks, so its templates would match nothing.
    #[error("parser snapshot was written with other masks (parser.masks): restore them or start without the snapshot")]
    SnapshotMasks,
}

impl Classified for ParserError {
    fn domain(&self) -> Domain {
        match self {
            Self::Config { .. } | Self::Mask { .. } | Self::UnknownPreset { .. } | Self::SnapshotMasks => Domain::User,
            Self::CorruptSnapshot { .. } | Self::SnapshotVersion { .. } => Domain::External,
        }
    }

    fn retryable(&self) -> bool {
        false
    }
}
