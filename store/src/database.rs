//! The alert database: templates, alerts, incidents and what people say of alerts, in SQLite (station 10).
//!
//! One writer connection behind a mutex and a small pool of readers, in write-ahead mode, so that a reader never waits
//! for the writer. Every write is one transaction and an upsert by id: a replay that writes the same alerts again
//! changes nothing. Timestamps are nanoseconds since the epoch; alert and incident ids are the sixteen
//! hexadecimal digits that people see.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use faultline_core::{Alert, AlertId, DetectorStatus, Incident, IncidentId, Template};
use rusqlite::{Connection, OpenFlags, Transaction, params};
use serde::Serialize;

use crate::{Changes, error::StoreError};

/// Version of the schema below; written to `PRAGMA user_version`.
const SCHEMA_VERSION: i64 = 3;

/// Reader connections that are kept open when idle.
const IDLE_READERS: usize = 4;

const SCHEMA: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE templates (
    id INTEGER PRIMARY KEY,
    stream TEXT NOT NULL,
    text TEXT NOT NULL,
    lineage TEXT NOT NULL,
    count INTEGER NOT NULL,
    first_seen_unix_nano INTEGER NOT NULL,
    last_seen_unix_nano INTEGER NOT NULL
);
CREATE INDEX templates_by_stream ON templates (stream, id);
CREATE TABLE alerts (
    id TEXT PRIMARY KEY,
    detector TEXT NOT NULL,
    model_version INTEGER NOT NULL,
    signal TEXT NOT NULL,
    stream TEXT NOT NULL,
    session TEXT NOT NULL,
    service TEXT NOT NULL,
    severity TEXT NOT NULL,
    state TEXT NOT NULL,
    p_value REAL,
    score REAL,
    start_unix_nano INTEGER NOT NULL,
    end_unix_nano INTEGER NOT NULL,
    n_windows INTEGER NOT NULL,
    evidence TEXT NOT NULL,
    incident TEXT
);
CREATE INDEX alerts_by_start ON alerts (start_unix_nano DESC, id);
CREATE INDEX alerts_by_service ON alerts (service, start_unix_nano DESC, id);
CREATE INDEX alerts_by_incident ON alerts (incident, start_unix_nano DESC, id);
CREATE TABLE incidents (
    id TEXT PRIMARY KEY,
    severity TEXT NOT NULL,
    state TEXT NOT NULL,
    start_unix_nano INTEGER NOT NULL,
    end_unix_nano INTEGER NOT NULL,
    alerts TEXT NOT NULL,
    services TEXT NOT NULL,
    causes TEXT NOT NULL,
    summary TEXT NOT NULL
);
CREATE INDEX incidents_by_start ON incidents (start_unix_nano DESC, id);
";

/// What version 2 added: how each detector does, as JSON.
const DETECTORS: &str = "CREATE TABLE detectors (name TEXT PRIMARY KEY, status TEXT NOT NULL) WITHOUT ROWID;";

/// What version 3 added: what people say of alerts, and which template has taken the place of which.
const FEEDBACK: &str = "
CREATE TABLE feedback (
    alert TEXT PRIMARY KEY,
    verdict TEXT NOT NULL,
    comment TEXT NOT NULL,
    given_by TEXT NOT NULL,
    time_unix_nano INTEGER NOT NULL,
    n_learned INTEGER,
    outcome TEXT
) WITHOUT ROWID;
CREATE INDEX feedback_by_verdict ON feedback (verdict, alert);
CREATE INDEX feedback_waiting ON feedback (time_unix_nano, alert) WHERE outcome IS NULL;
CREATE TABLE template_aliases (alias INTEGER PRIMARY KEY, template INTEGER NOT NULL);
CREATE INDEX template_aliases_by_template ON template_aliases (template, alias);
";

/// Whether the database may be created and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    ReadWrite,
    ReadOnly,
}

#[derive(Debug)]
pub(crate) struct Database {
    path: PathBuf,
    /// Version of its schema, which an older program may have written.
    version: i64,
    /// `None` when opened for reading only.
    writer: Option<Mutex<Connection>>,
    idle_readers: Mutex<Vec<Connection>>,
}

impl Database {
    pub(crate) fn open(path: PathBuf, access: Access) -> Result<Self, StoreError> {
        let mut database = Self { path, version: 0, writer: None, idle_readers: Mutex::new(Vec::new()) };
        if access == Access::ReadWrite {
            let mut connection = database.attempt("open", Connection::open(&database.path))?;
            database.attempt("prepare", prepare(&connection))?;
            database.migrate(&mut connection)?;
            database.writer = Some(Mutex::new(connection));
        } else {
            database.read("open", |connection| version(connection).map(|_| ()))?;
        }
        // A reader has to do with what an older program wrote.
        let found = database.read("read the schema version", version)?;
        let oldest = if access == Access::ReadOnly { 1 } else { SCHEMA_VERSION };
        if !(oldest..=SCHEMA_VERSION).contains(&found) {
            return Err(database.unknown_version(found));
        }
        database.version = found;
        Ok(database)
    }

    /// Whether it has the tables of version 3.
    pub(crate) fn has_feedback(&self) -> bool {
        self.version >= 3
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn unknown_version(&self, found: i64) -> StoreError {
        StoreError::SchemaVersion { path: self.path.clone(), found, known: SCHEMA_VERSION }
    }

    fn migrate(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let found = self.attempt("read the schema version", version(connection))?;
        let steps: &[&str] = match found {
            0 => &[SCHEMA, DETECTORS, FEEDBACK],
            1 => &[DETECTORS, FEEDBACK],
            2 => &[FEEDBACK],
            SCHEMA_VERSION => return Ok(()),
            other => return Err(self.unknown_version(other)),
        };
        let mut migrate = || {
            let transaction = connection.transaction()?;
            steps.iter().try_for_each(|step| transaction.execute_batch(step))?;
            transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
            transaction.commit()
        };
        self.attempt("create the tables", migrate())
    }

    fn attempt<T>(&self, operation: &'static str, result: rusqlite::Result<T>) -> Result<T, StoreError> {
        result.map_err(|source| StoreError::Database { operation, path: self.path.clone(), source })
    }

    /// Runs `read` on a connection of the pool.
    pub(crate) fn read<T>(
        &self,
        operation: &'static str,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let idle = lock(&self.idle_readers).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => {
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                let connection = self.attempt("open", Connection::open_with_flags(&self.path, flags))?;
                self.attempt("open", connection.busy_timeout(Duration::from_secs(5)))?;
                connection
            }
        };
        let result = read(&connection);
        // A connection that has just failed is not kept.
        if result.is_ok() {
            let mut idle = lock(&self.idle_readers);
            if idle.len() < IDLE_READERS {
                idle.push(connection);
            }
        }
        self.attempt(operation, result)
    }

    /// Runs `write` in one transaction.
    pub(crate) fn write<T>(
        &self,
        operation: &'static str,
        write: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let mut connection = lock(self.writer.as_ref().ok_or(StoreError::ReadOnly)?);
        let result = (|| {
            let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let value = write(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })();
        self.attempt(operation, result)
    }

    /// A number kept under `key`.
    pub(crate) fn meta(&self, key: &str) -> Result<Option<u64>, StoreError> {
        self.read("read meta", |connection| {
            let mut statement = connection.prepare_cached("SELECT value FROM meta WHERE key = ?1")?;
            let mut rows = statement.query([key])?;
            rows.next()?.map(|row| row.get::<_, i64>(0).map(i64::cast_unsigned)).transpose()
        })
    }

    pub(crate) fn set_meta(&self, key: &str, value: u64) -> Result<(), StoreError> {
        self.write("write meta", |transaction| {
            let sql = "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
            transaction.execute(sql, params![key, value.cast_signed()]).map(|_| ())
        })
    }

    pub(crate) fn put_templates(&self, templates: &[Template]) -> Result<(), StoreError> {
        self.write("write templates", |transaction| {
            // A parser that begins anew counts from one: the larger count and the wider span of time are the true ones.
            let mut statement = transaction.prepare_cached(
                "INSERT INTO templates VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (id) DO UPDATE SET
                 stream = excluded.stream, text = excluded.text, lineage = excluded.lineage,
                 count = max(count, excluded.count),
                 first_seen_unix_nano = min(first_seen_unix_nano, excluded.first_seen_unix_nano),
                 last_seen_unix_nano = max(last_seen_unix_nano, excluded.last_seen_unix_nano)",
            )?;
            // A template that the parser tells of is its own, whatever it was once merged into.
            let any_alias = "SELECT EXISTS (SELECT 1 FROM template_aliases)";
            let any_alias: bool = transaction.query_row(any_alias, [], |row| row.get(0))?;
            let mut own = transaction.prepare_cached("DELETE FROM template_aliases WHERE alias = ?1")?;
            for template in templates {
                if any_alias {
                    own.execute([template.id.0.cast_signed()])?;
                }
                statement.execute(params![
                    template.id.0.cast_signed(),
                    template.stream,
                    template.text,
                    json(&template.lineage),
                    template.count.cast_signed(),
                    template.first_seen_unix_nano,
                    template.last_seen_unix_nano,
                ])?;
            }
            Ok(())
        })
    }

    /// How detectors do, each in the place of what was known of it.
    pub(crate) fn put_detectors(&self, detectors: &[DetectorStatus]) -> Result<(), StoreError> {
        self.write("write detectors", |transaction| {
            transaction.execute("DELETE FROM detectors", [])?;
            let mut statement = transaction.prepare_cached("INSERT INTO detectors VALUES (?1, ?2)")?;
            for detector in detectors {
                statement.execute(params![detector.detector, json(detector)])?;
            }
            Ok(())
        })
    }

    /// How detectors did when they were last written, by name; none in a database of an older program.
    pub(crate) fn detectors(&self) -> Result<Vec<DetectorStatus>, StoreError> {
        if self.version < 2 {
            return Ok(Vec::new());
        }
        let texts = self.read("read detectors", |connection| {
            let mut statement = connection.prepare_cached("SELECT status FROM detectors ORDER BY name")?;
            let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        })?;
        // A row that another version of the program wrote is no reason to fail.
        Ok(texts.iter().filter_map(|text| serde_json::from_str(text).ok()).collect())
    }

    /// Writes alerts and incidents together, so that a reader never sees one without the other.
    pub(crate) fn put(&self, changes: &Changes<'_>) -> Result<(), StoreError> {
        self.write("write alerts and incidents", |transaction| {
            put_alerts(transaction, changes.alerts)?;
            put_incidents(transaction, changes.incidents)?;
            move_alerts(transaction, changes.moved)?;
            let mut statement = transaction.prepare_cached("DELETE FROM incidents WHERE id = ?1")?;
            for id in changes.absorbed {
                statement.execute([id.to_string()])?;
            }
            Ok(())
        })
    }
}

fn put_alerts(transaction: &Transaction<'_>, alerts: &[Alert]) -> rusqlite::Result<()> {
    // An alert that is published again before correlation has seen it keeps the incident it already belongs to.
    let mut statement = transaction.prepare_cached(
        "INSERT INTO alerts VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)
         ON CONFLICT (id) DO UPDATE SET
         detector = excluded.detector, model_version = excluded.model_version, signal = excluded.signal,
         stream = excluded.stream, session = excluded.session, service = excluded.service,
         severity = excluded.severity, state = excluded.state, p_value = excluded.p_value, score = excluded.score,
         start_unix_nano = excluded.start_unix_nano, end_unix_nano = excluded.end_unix_nano,
         n_windows = excluded.n_windows, evidence = excluded.evidence,
         incident = coalesce(excluded.incident, incident)",
    )?;
    for alert in alerts {
        statement.execute(params![
            alert.id.to_string(),
            alert.detector,
            alert.model_version.cast_signed(),
            alert.signal,
            alert.stream,
            alert.session,
            alert.service,
            alert.severity.name(),
            alert.state.name(),
            alert.p_value,
            alert.score,
            alert.start_unix_nano,
            alert.end_unix_nano,
            alert.n_windows.cast_signed(),
            json(&alert.evidence),
            alert.incident.map(|id| id.to_string()),
        ])?;
    }
    Ok(())
}

fn put_incidents(transaction: &Transaction<'_>, incidents: &[Incident]) -> rusqlite::Result<()> {
    let mut upsert = transaction.prepare_cached(
        "INSERT INTO incidents VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (id) DO UPDATE SET
         severity = excluded.severity, state = excluded.state, start_unix_nano = excluded.start_unix_nano,
         end_unix_nano = excluded.end_unix_nano, alerts = excluded.alerts, services = excluded.services,
         causes = excluded.causes, summary = excluded.summary",
    )?;
    for incident in incidents {
        upsert.execute(params![
            incident.id.to_string(),
            incident.severity.name(),
            incident.state.name(),
            incident.start_unix_nano,
            incident.end_unix_nano,
            json(&incident.alerts),
            json(&incident.services),
            json(&incident.causes),
            incident.summary,
        ])?;
    }
    Ok(())
}

/// Writes to which incident alerts belong that are there already.
fn move_alerts(transaction: &Transaction<'_>, moved: &[(AlertId, IncidentId)]) -> rusqlite::Result<()> {
    let mut statement =
        transaction.prepare_cached("UPDATE alerts SET incident = ?1 WHERE id = ?2 AND incident IS NOT ?1")?;
    for (alert, incident) in moved {
        statement.execute([incident.to_string(), alert.to_string()])?;
    }
    Ok(())
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(5))?;
    // A published alert survives a power cut: `FULL` syncs the log at every commit. Commits are few.
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("core types have string keys only")
}

/// A poisoned mutex guards data that every holder leaves consistent, so the panic of another thread is no reason to stop.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
