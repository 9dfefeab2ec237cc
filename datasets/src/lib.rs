//! Public datasets: which there are, how they come here, what is in them, and how a detector is judged on them.
//!
//! Off the live path: `faultline eval`, `replay` and `datasets` use it. The crate knows no detector and no parser. It
//! offers a catalogue ([`catalog`]), a way from a name to a folder ([`locate`], [`fetch`], [`import`]), loaders that
//! give time-ordered splits with their labels kept apart ([`loaders`]), the protocols by name ([`mod@protocol`]), metrics
//! ([`metrics`], [`series_metrics`], [`vus`], [`nab_scorer`]) and the result row ([`report`]). The binary wires detectors in.

#![allow(clippy::disallowed_methods, reason = "edge crate: downloads back off, caches look at file times")]

pub mod archive;
pub mod catalog;
mod catalog_samples;
pub mod download;
pub mod error;
pub mod fetch;
pub mod import;
pub mod lines;
pub mod loaders;
pub mod locate;
pub mod metrics;
pub mod nab_scorer;
pub mod protocol;
mod published;
mod remarks;
pub mod report;
pub mod scan;
pub mod series_metrics;
mod times;
pub mod usage;
pub mod vus;

pub use catalog::{CATALOG, DatasetInfo, dataset};
pub use error::DatasetError;
pub use locate::{Located, Locator};
pub use metrics::{Confusion, ParsingAccuracy, average_precision, parsing_accuracy};
pub use protocol::{PROTOCOLS, ProtocolInfo, Published, Split, protocol};
pub use report::{ResultRow, table};
pub use usage::Usage;

/// What a long operation is doing, for a progress bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress<'a> {
    /// What is being done.
    pub step: Step,
    /// File or archive it is done to.
    pub item: &'a str,
    /// Bytes done.
    pub bytes_done: u64,
    /// Bytes there are, where known.
    pub bytes_total: Option<u64>,
}

/// A step of a long operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Bytes come over the network.
    Download,
    /// A checksum is computed.
    Verify,
    /// An archive is unpacked (bytes of the archive read).
    Unpack,
    /// Files are copied.
    Copy,
}

/// Hears how far a long operation is. Pass `&mut |_| ()` to ignore it.
pub type ProgressFn<'f> = dyn FnMut(Progress<'_>) + 'f;
