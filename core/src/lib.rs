//! The nouns and the traits of faultline, and nothing else: no I/O, no async runtime, no clock, no randomness.
//!
//! Every other crate depends on this one and (with the exceptions ARCHITECTURE.md lists) on no other. Read it in the
//! order of the path: [`batch`] is what arrives, [`Delivery`] carries it with its position and acknowledgement,
//! [`Template`] is what a log line becomes, [`Window`] is what a detector sees, [`Score`] and [`Evidence`] are what it
//! says, [`Alert`] is the decision, [`Incident`] the explanation, [`Action`] the repair.

pub mod action;
pub mod alert;
pub mod batch;
pub mod delivery;
pub mod error;
pub mod feedback;
pub mod hash;
pub mod incident;
pub mod score;
pub mod series;
pub mod service;
pub mod status;
pub mod template;
pub mod trace;
pub mod traits;
pub mod window;

pub use action::{Action, ActionKind, Outcome};
pub use alert::{Alert, AlertId, AlertState, Severity};
pub use batch::{
    Batch, LogBatch, LogBatchBuilder, LogRecord, MetricBatch, MetricBatchBuilder, MetricPoint, SchemaError, SpanBatch,
    SpanBatchBuilder, SpanRecord,
};
pub use delivery::{Ack, AckResult, Delivery, Position, Reject};
pub use error::{Classified, Domain};
pub use feedback::{Applied, Feedback, Verdict};
pub use incident::{Cause, CauseKind, Incident, IncidentId};
pub use score::{Evidence, Expected, Score};
pub use series::{GroupWindow, SeriesKind, SeriesWindow};
pub use service::{CallName, Part, ServiceEntry, ServiceWindow};
pub use status::{DetectorStatus, ModelState, ShadowStatus};
pub use template::{Param, ParamKind, RecordId, Template, TemplateId, TemplateTexts};
pub use trace::{OperationIdx, SpanEntry, TraceWindow};
pub use traits::{
    BoxFuture, Detector, DetectorError, Environment, Executor, Localizer, Outlet, OutletError, Overdue, Parser, Policy,
    Silent, Sink, Source, SourceError,
};
pub use window::{
    Culprit, LogEntry, LogWindow, MAX_NUMBERS, Numbers, RecordNumbers, ServiceIdx, Signal, Window, WindowKey,
    WindowState,
};
