//! Exit codes that scripts rely on: 0 ok, 64 usage, 69 unavailable, 70 internal, 74 I/O, 78 bad configuration.

use faultline_core::{Classified, Domain};

use crate::config::ConfigError;

/// Wrong use of the command line.
pub const USAGE: u8 = 64;
/// Something that is needed is not there: a dataset, an address, a peer.
pub const UNAVAILABLE: u8 = 69;
/// A bug.
pub const INTERNAL: u8 = 70;
/// A file could not be read or written.
pub const IO: u8 = 74;
/// The configuration is wrong.
pub const CONFIG: u8 = 78;

/// An error with the exit code it deserves, for the places that know better than [`code`] can guess.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Exit {
    code: u8,
    message: String,
}

impl Exit {
    /// An error that ends the process with `code`.
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// The exit code of an error, from the first cause in its chain that tells.
pub fn code(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if let Some(exit) = cause.downcast_ref::<Exit>() {
            return exit.code;
        }
        if cause.is::<ConfigError>() || cause.is::<faultline_parsers::ParserError>() {
            return CONFIG;
        }
        if let Some(error) = cause.downcast_ref::<faultline_datasets::DatasetError>() {
            return match error.domain() {
                Domain::User => UNAVAILABLE,
                Domain::External => IO,
                Domain::Internal => INTERNAL,
            };
        }
        let domain = cause
            .downcast_ref::<faultline_detectors::error::Error>()
            .map(Classified::domain)
            .or_else(|| cause.downcast_ref::<faultline_core::DetectorError>().map(Classified::domain))
            .or_else(|| cause.downcast_ref::<faultline_rca::RcaError>().map(Classified::domain))
            .or_else(|| cause.downcast_ref::<faultline_ingest::IngestError>().map(Classified::domain))
            .or_else(|| cause.downcast_ref::<faultline_store::StoreError>().map(Classified::domain));
        match domain {
            Some(Domain::User) => return CONFIG,
            Some(Domain::External) => return IO,
            Some(Domain::Internal) => return INTERNAL,
            None => {}
        }
        if cause.is::<std::io::Error>() {
            return IO;
        }
    }
    INTERNAL
}
