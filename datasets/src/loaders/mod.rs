//! From a dataset's folder to numbers: sessions, windows, lines, templates, series and traces, their labels kept apart from them.

pub mod bgl;
pub mod hadoop;
pub mod hdfs;
pub mod labels;
pub mod loghub_2k;
pub mod nab;
pub mod nezha;
pub mod series;
pub mod sessions;
pub mod traceanomaly;
pub mod tracebench;

pub use bgl::{BglLines, BglWindows};
pub use hadoop::HadoopLogs;
pub use hdfs::{BlockSpan, ChronologicalSessions, RawHdfs};
pub use labels::{Labels, SessionLabels};
pub use loghub_2k::{GroundTruth, LabelledSystem};
pub use nab::{Nab, NabSeries};
pub use nezha::Nezha;
pub use series::{LabelledSeries, Machine, labelled_series, machines};
pub use sessions::{SessionSplit, Sessions};
pub use traceanomaly::{TraceVectors, Vectors};
pub use tracebench::TraceBench;
