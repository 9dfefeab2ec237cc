//! The one error type of this crate: every variant names the file, line, address or command that puts it right.

use std::{io, path::PathBuf};

use faultline_core::{Classified, Domain};

/// What can go wrong between a dataset's name and its loaded splits.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// Nothing under any of the places a dataset may lie.
    #[error("dataset `{dataset}` is not here (looked at {looked}); {hint}")]
    Missing {
        /// Name as in the catalogue.
        dataset: String,
        /// The places, joined by commas.
        looked: String,
        /// The command that gets it.
        hint: String,
    },
    /// A name the catalogue does not have.
    #[error("dataset `{name}` is unknown; the catalogue has {known}")]
    UnknownDataset {
        /// The name asked for.
        name: String,
        /// All names, joined by commas.
        known: String,
    },
    /// A dataset without a public address that this program knows.
    #[error(
        "dataset `{dataset}` cannot be fetched: {reason}; `faultline datasets import <archive or folder>` takes a copy"
    )]
    NotFetchable {
        /// Name as in the catalogue.
        dataset: String,
        /// Why not.
        reason: String,
    },
    /// A file operation failed.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was being done, as a verb.
        operation: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A download that kept failing.
    #[error("cannot download {url} (gave up after {attempts} attempts); a later run resumes where this one stopped")]
    Download {
        /// Where from.
        url: String,
        /// How often it was tried.
        attempts: u32,
        /// The last failure.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An answer that trying again does not change.
    #[error("{url} answered HTTP {status}")]
    Refused {
        /// Where from.
        url: String,
        /// The status code.
        status: u16,
    },
    /// The bytes are not those that were published.
    #[error("{file} does not match what {authority} says: expected {expected}, found {found}; it was discarded")]
    Checksum {
        /// The file.
        file: String,
        /// Who published the expectation.
        authority: String,
        /// The published value.
        expected: String,
        /// The value of the bytes received.
        found: String,
    },
    /// An archive that cannot be read.
    #[error("cannot unpack {}: {reason}", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An archive member that would land outside its folder.
    #[error("refused to unpack {}: member `{member}` points outside the archive", path.display())]
    UnsafeMember {
        /// The archive.
        path: PathBuf,
        /// The member's path.
        member: String,
    },
    /// A folder or archive that does not hold what is needed.
    #[error("{}: {reason}", path.display())]
    Layout {
        /// The folder or archive.
        path: PathBuf,
        /// What is missing or ambiguous, and the flag that settles it.
        reason: String,
    },
    /// A record that cannot be read.
    #[error("{}:{line}: {reason}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
}

impl DatasetError {
    pub(crate) fn io(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { operation, path, source }
    }

    pub(crate) fn layout(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self::Layout { path: path.into(), reason: reason.into() }
    }

    pub(crate) fn record(path: impl Into<PathBuf>, line: u64, reason: impl Into<String>) -> Self {
        Self::Record { path: path.into(), line, reason: reason.into() }
    }
}

impl Classified for DatasetError {
    fn domain(&self) -> Domain {
        match self {
            Self::Io { .. } | Self::Download { .. } | Self::Refused { .. } | Self::Checksum { .. } => Domain::External,
            _ => Domain::User,
        }
    }

    fn retryable(&self) -> bool {
        matches!(self, Self::Download { .. } | Self::Checksum { .. })
    }
}
