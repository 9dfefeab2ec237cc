//! Station 9: alerts become incidents, and incidents get ranked causes.
//!
//! [`Correlator`] is the one value that the pipeline holds: it is shown the spans and the alerts and hands back the
//! incidents that changed. [`ServiceGraph`] is what it knows of who calls whom. Localizers rank suspects; [`LOCALIZERS`]
//! lists them in order of trust: the first that has an answer leads.
//!
//! Adding a localizer is one file with a type that implements [`LocalizerKind`], its `mod` line below and its line in
//! [`LOCALIZERS`].

mod alert_count;
mod correlate;
mod graph;
mod incident;
mod intern;
mod registry;
mod self_time;
mod span;

pub use alert_count::{AlertCount, AlertCountConfig};
pub use correlate::{Correlator, CorrelatorCounters, RcaConfig, Update};
pub use graph::{CallStats, EdgeStats, GraphConfig, GraphCounters, ServiceGraph, ServiceStats};
pub use registry::{LOCALIZERS, LocalizerEntry, LocalizerKind, RcaError, localizer};
pub use self_time::{SelfTime, SelfTimeConfig};
