//! What every error of faultline can say about itself, whatever its type.
//!
//! One file in `api` maps these answers to HTTP and gRPC codes; nothing else does.

/// Who can do something about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// The caller: wrong configuration, malformed request, unknown id.
    User,
    /// Something outside the process: disk, network, a peer.
    External,
    /// A bug in faultline.
    Internal,
}

/// Implemented by the error enum of each library crate.
pub trait Classified: std::error::Error {
    /// Who can do something about it.
    fn domain(&self) -> Domain;
    /// Whether the same call may succeed later without anyone changing anything.
    fn retryable(&self) -> bool;
}
