//! Stations 1 to 3: receive, decode and take responsibility for telemetry.
//!
//! [`source`] receives OTLP over gRPC and HTTP and replays files; [`decode`] turns requests into batches. A source hands
//! out `faultline_core::Delivery`s and waits for (OTLP) or ignores (files) their acknowledgement.
#![allow(clippy::disallowed_methods, reason = "edge crate: records without a time take the time of receipt")]

pub mod decode;
pub mod error;
pub mod source;

pub use error::IngestError;
pub use source::{
    describe_metrics,
    file::{FileBatch, FileFormat, FileReader, FileSource, FileStats, FilesConfig},
    otlp::{GrpcConfig, HttpConfig, OtlpConfig, OtlpServers},
};
