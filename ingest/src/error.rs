//! What can go wrong at stations 1 and 2. Bad records are not errors: they are rejects.

use std::{io, path::PathBuf};

use faultline_core::{Classified, Domain};

use crate::decode::DecodeError;

/// Why a source could not start or go on, or a request was not taken.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// A configuration value that cannot work.
    #[error("{key}: {reason}")]
    Config {
        /// The key to change.
        key: &'static str,
        /// What is wrong with its value.
        reason: String,
    },
    /// An address that cannot be listened on.
    #[error("cannot listen on {endpoint:?} ({key})")]
    Bind {
        /// The key to change.
        key: &'static str,
        /// Its value.
        endpoint: String,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// A server that stopped by itself.
    #[error("the OTLP {transport} server stopped")]
    Serve {
        /// `grpc` or `http`.
        transport: &'static str,
        /// Why.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file that cannot be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// A file that cannot be read to its end.
    #[error("cannot read {} at byte {offset}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Bytes of it, uncompressed, that were read before.
        offset: u64,
        /// What the system or the decompressor said.
        #[source]
        cause: io::Error,
    },
    /// A request that cannot be decoded.
    #[error("undecodable request")]
    Undecodable(#[source] DecodeError),
}

impl Classified for IngestError {
    fn domain(&self) -> Domain {
        match self {
            Self::Config { .. } | Self::Undecodable(_) => Domain::User,
            Self::Open { cause, .. } if cause.kind() == io::ErrorKind::NotFound => Domain::User,
            Self::Bind { .. } | Self::Serve { .. } | Self::Open { .. } | Self::Read { .. } => Domain::External,
        }
    }

    fn retryable(&self) -> bool {
        matches!(self, Self::Bind { .. } | Self::Serve { .. })
    }
}
