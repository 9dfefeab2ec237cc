//! What can go wrong in stations 6 to 8.

use faultline_core::{Classified, DetectorError, Domain};

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A configuration value out of range.
    #[error("key `{key}`: {reason}")]
    Config {
        /// The key to change.
        key: &'static str,
        /// What is wrong with its value.
        reason: String,
    },
    /// A detector refused its configuration, its training data or its snapshot.
    #[error("detector `{name}`")]
    Detector {
        /// Which one.
        name: String,
        /// Why.
        #[source]
        cause: DetectorError,
    },
    /// An artifact that cannot be put to use.
    #[error("artifact of detector `{algorithm}`: {reason}")]
    Artifact {
        /// Which detector it claims to be of.
        algorithm: String,
        /// What does not match.
        reason: String,
    },
}

impl Classified for Error {
    fn domain(&self) -> Domain {
        match self {
            Self::Config { .. } => Domain::User,
            Self::Detector { cause, .. } => cause.domain(),
            Self::Artifact { .. } => Domain::External,
        }
    }

    fn retryable(&self) -> bool {
        false
    }
}
