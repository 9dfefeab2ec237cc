//! Stations 5 and 10: records to Parquet, alerts to SQLite, SQL over both. The only crate that names DataFusion.
//!
//! ```text
//! <data dir>/faultline.lock      held by the one process that writes
//!            faultline.db        SQLite: templates, alerts, incidents, feedback, meta
//!            logs/<first>-<last>.parquet      closed segments, named by their record ids
//!            logs/<first>.parquet.tmp         the open segment on its way
//!            spans/...  metrics/...
//! ```
//!
//! Every method blocks on files, SQLite or a query: an async caller wraps it in `spawn_blocking`. A [`Store`] is cheap
//! to clone and safe to share. Invariants: a record that [`Store::append`] has taken is visible to every later read
//! exactly once; a segment is immutable once closed; a record id is never given out twice for one data directory, not even
//! after a crash (then it skips ahead).

#![allow(clippy::disallowed_methods, reason = "edge crate: segments close by age and queries have a time limit")]

mod aliases;
mod config;
mod database;
mod error;
mod feedback;
mod json;
mod lines;
mod lookup;
mod points;
mod reads;
mod segment;
mod session;
mod spans;
mod sql;
mod tables;

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use faultline_core::{
    Alert, AlertId, Applied, Batch, DetectorStatus, Feedback, Incident, IncidentId, LogBatch, MetricBatch, RecordId,
    SpanBatch, Template, TemplateId, Verdict,
};

pub use config::StoreConfig;
pub use error::StoreError;
pub use feedback::Judged;
pub use json::rfc3339;
pub use lines::Line;
pub use lookup::{MAX_IDS, Records};
pub use points::{Point, PointValue};
pub use reads::{AlertFilter, DEFAULT_PAGE, IncidentFilter, MAX_PAGE, Page, TemplateFilter};
pub use session::SessionRecord;
pub use spans::Span;
pub use sql::{MAX_SQL_BYTES, QueryColumn, QueryResult};

use database::{Access, Database, lock};
use segment::{Leftovers, Table, id_range};

/// Record ids are reserved in blocks of this many, so that a crash skips at most one block.
const RESERVATION: u64 = 1 << 20;
const RESERVED_KEY: &str = "reserved_record_id";

/// What has changed among alerts and incidents. Unlike [`Store::publish`], which looks at every alert of an incident, it
/// names those that have moved: an incident of a thousand alerts that takes one more costs one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Changes<'a> {
    /// Alerts that are new or have changed. One without an incident keeps the incident it belongs to.
    pub alerts: &'a [Alert],
    /// Incidents that are new or have changed.
    pub incidents: &'a [Incident],
    /// Alerts that now belong to another incident, written after `alerts`.
    pub moved: &'a [(AlertId, IncidentId)],
    /// Incidents that another one has absorbed: they are taken out.
    pub absorbed: &'a [IncidentId],
}

impl Changes<'_> {
    /// Whether nothing has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.alerts.is_empty() && self.incidents.is_empty() && self.moved.is_empty() && self.absorbed.is_empty()
    }
}

/// Everything that was received and found out, under one data directory.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    config: StoreConfig,
    logs: Mutex<Table>,
    spans: Mutex<Table>,
    metrics: Mutex<Table>,
    database: Arc<Database>,
    engine: sql::Engine,
    /// The smallest id that no record has.
    next_id: AtomicU64,
    /// Ids below this may have been given out by a process that crashed.
    reserved: Mutex<u64>,
    access: Access,
    /// Locked while this store lives; `None` when reading only.
    _lock: Option<File>,
}

impl Store {
    /// Opens `dir` for writing and reading, creating it if need be. Unfinished segments of a crash are removed.
    ///
    /// # Errors
    /// When another process holds the directory, a file cannot be read or written, or a segment or the database is damaged:
    /// the message names the file.
    pub fn open(dir: &Path, config: StoreConfig) -> Result<Self, StoreError> {
        error::io(fs::create_dir_all(dir), "create", dir)?;
        let lock_path = dir.join("faultline.lock");
        let lock_file = error::io(File::create(&lock_path), "create", &lock_path)?;
        match lock_file.try_lock() {
            Ok(()) => Self::open_with(dir, config, Access::ReadWrite, Some(lock_file)),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse { dir: dir.to_path_buf() }),
            Err(TryLockError::Error(source)) => Err(StoreError::Io { operation: "lock", path: lock_path, source }),
        }
    }

    /// Opens `dir` for reading only, even while another process writes to it: sees the segments that are closed now.
    ///
    /// # Errors
    /// When there is no data in `dir`, and as for [`Store::open`].
    pub fn open_for_reading(dir: &Path, config: StoreConfig) -> Result<Self, StoreError> {
        if !dir.join("faultline.db").exists() {
            return Err(StoreError::NoData { dir: dir.to_path_buf() });
        }
        Self::open_with(dir, config, Access::ReadOnly, None)
    }

    fn open_with(dir: &Path, config: StoreConfig, access: Access, lock_file: Option<File>) -> Result<Self, StoreError> {
        let dir = error::io(fs::canonicalize(dir), "resolve", dir)?;
        let leftovers = if access == Access::ReadWrite { Leftovers::Remove } else { Leftovers::Keep };
        let database = Arc::new(Database::open(dir.join("faultline.db"), access)?);
        let logs = Table::open(&dir, "logs", LogBatch::schema(), leftovers)?;
        let spans = Table::open(&dir, "spans", SpanBatch::schema(), leftovers)?;
        let metrics = Table::open(&dir, "metrics", MetricBatch::schema(), leftovers)?;
        let last = [&logs, &spans, &metrics].map(Table::last_closed_id).into_iter().max().unwrap_or(0);
        let reserved = database.meta(RESERVED_KEY)?.unwrap_or(0);
        let next_id = (last + 1).max(reserved);
        let engine = sql::Engine::new(&config)?;
        Ok(Self(Arc::new(Inner {
            dir,
            config,
            logs: Mutex::new(logs),
            spans: Mutex::new(spans),
            metrics: Mutex::new(metrics),
            database,
            engine,
            next_id: AtomicU64::new(next_id),
            reserved: Mutex::new(next_id),
            access,
            _lock: lock_file,
        })))
    }

    /// The data directory, resolved.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// The SQLite file.
    #[must_use]
    pub fn database_path(&self) -> &Path {
        self.0.database.path()
    }

    /// The smallest id that no record of this directory has had: station 3 numbers from here.
    #[must_use]
    pub fn next_record_id(&self) -> RecordId {
        self.0.next_id.load(Ordering::Acquire)
    }

    /// Takes a batch whose records are numbered. Visible to reads at once; on disk when its segment closes.
    ///
    /// # Errors
    /// [`StoreError::Unnumbered`] when a record has no id. A write error only once the open segment is full and cannot be
    /// written out: then the batch has not been taken and the call may be repeated.
    pub fn append(&self, batch: &Batch) -> Result<(), StoreError> {
        let Inner { config, access, next_id, .. } = &*self.0;
        if *access == Access::ReadOnly {
            return Err(StoreError::ReadOnly);
        }
        let record_id = match batch {
            Batch::Logs(batch) => batch.record_id(),
            Batch::Spans(batch) => batch.record_id(),
            Batch::Metrics(batch) => batch.record_id(),
        };
        let Some((first, last)) = id_range(record_id) else { return Ok(()) };
        if first == 0 {
            return Err(StoreError::Unnumbered { table: batch.table() });
        }
        self.reserve(last)?;
        lock(self.table(batch)).append(batch.as_arrow(), (first, last), config)?;
        next_id.fetch_max(last + 1, Ordering::AcqRel);
        metrics::counter!("faultline_store_records_total", "table" => batch.table())
            .increment(batch.n_records() as u64);
        Ok(())
    }

    /// Makes sure that no later process gives `last` out again.
    fn reserve(&self, last: RecordId) -> Result<(), StoreError> {
        let mut reserved = lock(&self.0.reserved);
        if last >= *reserved {
            let until = last.saturating_add(RESERVATION);
            self.0.database.set_meta(RESERVED_KEY, until)?;
            *reserved = until;
        }
        Ok(())
    }

    fn table(&self, batch: &Batch) -> &Mutex<Table> {
        match batch {
            Batch::Logs(_) => &self.0.logs,
            Batch::Spans(_) => &self.0.spans,
            Batch::Metrics(_) => &self.0.metrics,
        }
    }

    fn tables(&self) -> [&Mutex<Table>; 3] {
        [&self.0.logs, &self.0.spans, &self.0.metrics]
    }

    /// Closes every open segment: what was appended is in synced Parquet files afterwards.
    ///
    /// # Errors
    /// When a segment cannot be written; its records stay readable and the call may be repeated.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.tables().into_iter().try_for_each(|table| lock(table).close())
    }

    /// Closes open segments older than `segment_max_age_secs`. Call it every few seconds: an idle table closes only here.
    ///
    /// # Errors
    /// As for [`Store::flush`].
    pub fn close_aged(&self) -> Result<(), StoreError> {
        let max_age = Duration::from_secs(self.0.config.segment_max_age_secs);
        self.tables().into_iter().try_for_each(|table| lock(table).close_if_older_than(max_age))
    }

    /// Flushes and notes where record ids go on, so that the next process skips none. The store stays usable.
    ///
    /// # Errors
    /// As for [`Store::flush`].
    pub fn close(&self) -> Result<(), StoreError> {
        self.flush()?;
        if self.0.access == Access::ReadWrite {
            let mut reserved = lock(&self.0.reserved);
            let next = self.next_record_id();
            self.0.database.set_meta(RESERVED_KEY, next)?;
            *reserved = next;
        }
        Ok(())
    }

    /// Inserts templates or updates those of the same id, in one transaction.
    ///
    /// # Errors
    /// When SQLite fails; nothing has been written then.
    pub fn put_templates(&self, templates: &[Template]) -> Result<(), StoreError> {
        if templates.is_empty() { Ok(()) } else { self.0.database.put_templates(templates) }
    }

    /// Takes note of templates (first) that others (second) have taken the place of, in one transaction.
    ///
    /// # Errors
    /// When SQLite fails; nothing has been written then.
    pub fn put_aliases(&self, aliases: &[(TemplateId, TemplateId)]) -> Result<(), StoreError> {
        if aliases.is_empty() { Ok(()) } else { self.0.database.put_aliases(aliases) }
    }

    /// Keeps what a person says of an alert; it is on disk afterwards. The same verdict again does not go to the detectors
    /// anew, another one does.
    ///
    /// # Errors
    /// When SQLite fails; nothing has been written then.
    pub fn put_feedback(&self, feedback: &Feedback) -> Result<(), StoreError> {
        self.0.database.put_feedback(feedback)
    }

    /// Marks a verdict as applied, unless another one has been given meanwhile.
    ///
    /// # Errors
    /// When SQLite fails; nothing has been written then.
    pub fn settle_feedback(&self, alert: AlertId, verdict: Verdict, outcome: &Applied) -> Result<(), StoreError> {
        self.0.database.settle_feedback(alert, verdict, outcome)
    }

    /// What a person has said of an alert.
    ///
    /// # Errors
    /// A damaged row, or SQLite.
    pub fn feedback(&self, alert: AlertId) -> Result<Option<Feedback>, StoreError> {
        self.0.database.feedback(alert)
    }

    /// Up to `limit` verdicts that wait for the detectors, the earliest first.
    ///
    /// # Errors
    /// A damaged row, or SQLite.
    pub fn waiting_feedback(&self, limit: usize) -> Result<Vec<Feedback>, StoreError> {
        self.0.database.waiting_feedback(limit)
    }

    /// By detector how many of its alerts people have judged, and how.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn judged(&self) -> Result<BTreeMap<String, Judged>, StoreError> {
        self.0.database.judged()
    }

    /// Inserts alerts or updates those of the same id, in one transaction.
    ///
    /// # Errors
    /// When SQLite fails; nothing has been written then.
    pub fn put_alerts(&self, alerts: &[Alert]) -> Result<(), StoreError> {
        self.publish(alerts, &[])
    }

    /// Inserts incidents or updates those of the same id, and links their alerts to them, in one transaction.
    ///
    /// # Errors
    /// When SQLite fails; nothing has been written then.
    pub fn put_incidents(&self, incidents: &[Incident]) -> Result<(), StoreError> {
        self.publish(&[], incidents)
    }

    /// [`Store::put_alerts`] and [`Store::put_incidents`] in one transaction: nobody sees the one without the other.
    ///
    /// # Errors
    /// When SQLite fails; nothing has been written then.
    pub fn publish(&self, alerts: &[Alert], incidents: &[Incident]) -> Result<(), StoreError> {
        let members =
            |incident: &Incident| incident.alerts.iter().map(|alert| (*alert, incident.id)).collect::<Vec<_>>();
        let moved: Vec<_> = incidents.iter().flat_map(members).collect();
        self.apply(&Changes { alerts, incidents, moved: &moved, absorbed: &[] })
    }

    /// Writes what has changed, in one transaction.
    ///
    /// # Errors
    /// When SQLite fails; nothing has been written then.
    pub fn apply(&self, changes: &Changes<'_>) -> Result<(), StoreError> {
        if changes.is_empty() { Ok(()) } else { self.0.database.put(changes) }
    }

    /// Writes how the detectors in service do; what was known of others is forgotten.
    ///
    /// # Errors
    /// When SQLite fails; nothing has been written then.
    pub fn put_detectors(&self, detectors: &[DetectorStatus]) -> Result<(), StoreError> {
        self.0.database.put_detectors(detectors)
    }

    /// How the detectors did when that was last written, by name.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn detectors(&self) -> Result<Vec<DetectorStatus>, StoreError> {
        self.0.database.detectors()
    }

    /// One page of alerts, latest start first, then by id.
    ///
    /// # Errors
    /// A limit out of range, a foreign cursor, a damaged row, or SQLite.
    pub fn alerts(&self, filter: &AlertFilter) -> Result<Page<Alert>, StoreError> {
        self.0.database.alerts(filter)
    }

    /// One alert.
    ///
    /// # Errors
    /// A damaged row, or SQLite.
    pub fn alert(&self, id: AlertId) -> Result<Option<Alert>, StoreError> {
        self.0.database.alert(id)
    }

    /// One page of incidents, latest start first, then by id.
    ///
    /// # Errors
    /// As for [`Store::alerts`].
    pub fn incidents(&self, filter: &IncidentFilter) -> Result<Page<Incident>, StoreError> {
        self.0.database.incidents(filter)
    }

    /// One incident.
    ///
    /// # Errors
    /// A damaged row, or SQLite.
    pub fn incident(&self, id: IncidentId) -> Result<Option<Incident>, StoreError> {
        self.0.database.incident(id)
    }

    /// One page of templates, by stream, then id.
    ///
    /// # Errors
    /// As for [`Store::alerts`].
    pub fn templates(&self, filter: &TemplateFilter) -> Result<Page<Template>, StoreError> {
        self.0.database.templates(filter)
    }

    /// The templates among `ids` that exist, by id; at most [`MAX_PAGE`] ids.
    ///
    /// # Errors
    /// Too many ids, a damaged row, or SQLite.
    pub fn templates_by_id(&self, ids: &[TemplateId]) -> Result<Vec<Template>, StoreError> {
        self.0.database.templates_by_id(ids)
    }

    /// For each of `ids` that exists the template that it stands for by now, which is another one where it was merged into that;
    /// at most [`MAX_PAGE`] ids.
    ///
    /// # Errors
    /// Too many ids, a damaged row, or SQLite.
    pub fn resolved_templates(&self, ids: &[TemplateId]) -> Result<Vec<(TemplateId, Template)>, StoreError> {
        self.0.database.resolved_templates(ids)
    }

    /// The templates that were merged into `template`, by id; at most [`MAX_PAGE`].
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn aliases_of(&self, template: TemplateId) -> Result<Vec<TemplateId>, StoreError> {
        self.0.database.aliases_of(template)
    }

    /// Runs one reading SQL statement over `logs`, `spans`, `metrics`, `templates`, `alerts`, `incidents`, `feedback` and
    /// `log_records`, which is `logs` with the text of each record's template.
    ///
    /// # Errors
    /// SQL that is wrong, writes, or asks for more than the limits of [`StoreConfig`]; a damaged file.
    pub fn query(&self, sql: &str) -> Result<QueryResult, StoreError> {
        let begin = Instant::now();
        let snapshots = self.tables().map(|table| lock(table).snapshot());
        let records = ["logs", "spans", "metrics"].into_iter().zip(snapshots).collect::<Vec<_>>();
        let sources = sql::Sources { records, database: Arc::clone(&self.0.database) };
        let result = self.0.engine.run(&sources, sql).map_err(|error| name_damaged_segment(error, &sources));
        let outcome = if result.is_ok() { "ok" } else { "error" };
        metrics::counter!("faultline_queries_total", "outcome" => outcome).increment(1);
        metrics::histogram!("faultline_query_duration_seconds").record(begin.elapsed().as_secs_f64());
        result
    }
}

impl Drop for Inner {
    /// Whoever forgets [`Store::close`] keeps the records all the same; only an error goes unreported but in the log.
    fn drop(&mut self) {
        if self.access == Access::ReadWrite {
            for table in [&self.logs, &self.spans, &self.metrics] {
                if let Err(error) = lock(table).close() {
                    tracing::error!(%error, "records of an open segment are lost: it could not be written at shutdown");
                }
            }
        }
    }
}

/// DataFusion does not say in which file reading failed: the first whose footer cannot be read is named instead.
fn name_damaged_segment(error: StoreError, sources: &sql::Sources) -> StoreError {
    let StoreError::Engine { source } = &error else { return error };
    let reason = source.strip_backtrace();
    let segments = sources.records.iter().flat_map(|(_, snapshot)| &snapshot.closed);
    match segments.into_iter().find(|segment| lookup::verify(&segment.path).is_err()) {
        Some(segment) => StoreError::Segment { path: segment.path.clone(), reason },
        None => error,
    }
}

/// Registers help texts of this crate's metrics with the recorder that is installed.
pub fn describe_metrics() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_counter!("faultline_store_records_total", "Records appended to the store, by table.");
    describe_counter!("faultline_store_segments_closed_total", "Parquet segments closed, by table.");
    describe_counter!("faultline_store_write_failures_total", "Failed attempts to write an open segment, by table.");
    describe_gauge!("faultline_store_segments", "Closed Parquet segments, by table.");
    describe_gauge!("faultline_store_segment_bytes", Unit::Bytes, "Size of closed Parquet segments, by table.");
    describe_gauge!("faultline_store_open_segment_bytes", Unit::Bytes, "Memory held by the open segment, by table.");
    describe_counter!("faultline_queries_total", "SQL queries answered, by outcome.");
    describe_histogram!("faultline_query_duration_seconds", Unit::Seconds, "Time from a SQL query to its answer.");
}
