//! What can go wrong in the store. A message names the file, the table or the configuration key to change.

use std::path::PathBuf;

use faultline_core::{Classified, Domain};

/// Why the store could not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file or directory could not be read or written.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Another process holds the data directory.
    #[error("data directory {} is in use by another faultline process", dir.display())]
    InUse {
        /// The data directory.
        dir: PathBuf,
    },
    /// There is no data at the place where a reader expected some.
    #[error("{} holds no faultline data (no faultline.db)", dir.display())]
    NoData {
        /// The data directory.
        dir: PathBuf,
    },
    /// A Parquet segment is damaged.
    #[error("segment {} is damaged ({reason}); move it out of the data directory to go on without its records", path.display())]
    Segment {
        /// The segment.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Writing a Parquet segment failed.
    #[error("cannot write segment {}", path.display())]
    Write {
        /// The temporary file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: parquet::errors::ParquetError,
    },
    /// SQLite failed.
    #[error("cannot {operation} in alert database {}", path.display())]
    Database {
        /// What was tried.
        operation: &'static str,
        /// The database file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: rusqlite::Error,
    },
    /// The database was written by a newer or an unknown program.
    #[error("alert database {} has schema version {found}, this faultline knows {known}", path.display())]
    SchemaVersion {
        /// The database file.
        path: PathBuf,
        /// Version in the file.
        found: i64,
        /// Version this program writes.
        known: i64,
    },
    /// A row of the database does not hold what it should.
    #[error("alert database: {table} {id}: column {column} is damaged: {reason}")]
    Row {
        /// Table.
        table: &'static str,
        /// Id of the row.
        id: String,
        /// Column.
        column: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A batch whose records carry no record id.
    #[error("a batch of {table} reached the store without record ids (station 3 numbers them from 1)")]
    Unnumbered {
        /// Table of the batch.
        table: &'static str,
    },
    /// Writing through a store that was opened for reading.
    #[error("the store is open for reading only")]
    ReadOnly,
    /// A page cursor that this store did not hand out.
    #[error("cursor `{cursor}` is not one that a page of {of} returned as next_cursor")]
    Cursor {
        /// The cursor.
        cursor: String,
        /// What is being paged.
        of: &'static str,
    },
    /// A request beyond a fixed limit.
    #[error("{what} is {asked}, at most {limit}")]
    TooMany {
        /// What was asked for.
        what: &'static str,
        /// How much.
        asked: usize,
        /// How much is allowed.
        limit: usize,
    },
    /// SQL that would change something.
    #[error("only one reading statement (SELECT, WITH, EXPLAIN, SHOW, DESCRIBE) is accepted: {reason}")]
    NotReadOnly {
        /// What DataFusion said.
        reason: String,
    },
    /// SQL that cannot be planned or run.
    #[error("{message}")]
    Sql {
        /// DataFusion's message.
        message: String,
    },
    /// A query took longer than allowed.
    #[error("the query ran longer than {limit_ms} ms (storage.query_timeout_ms); narrow it, for example by time")]
    QueryTimeout {
        /// The limit.
        limit_ms: u64,
    },
    /// A query needs more memory than allowed.
    #[error(
        "the query needs more than {limit_bytes} bytes of memory (storage.query_memory_bytes); narrow or aggregate it"
    )]
    QueryMemory {
        /// The limit.
        limit_bytes: usize,
        /// DataFusion's account of who holds what.
        #[source]
        source: Box<datafusion::error::DataFusionError>,
    },
    /// All query slots are taken.
    #[error("{limit} queries are running already (storage.query_concurrency); try again")]
    Busy {
        /// Slots.
        limit: usize,
    },
    /// The query engine failed for a reason that is not the query's.
    #[error("the query failed while reading the store")]
    Engine {
        /// The cause.
        #[source]
        source: Box<datafusion::error::DataFusionError>,
    },
    /// A bug in faultline.
    #[error("internal error in the store: {what}")]
    Internal {
        /// What should not have happened.
        what: String,
    },
}

impl Classified for StoreError {
    fn domain(&self) -> Domain {
        match self {
            Self::NoData { .. }
            | Self::Cursor { .. }
            | Self::TooMany { .. }
            | Self::NotReadOnly { .. }
            | Self::Sql { .. }
            | Self::QueryTimeout { .. }
            | Self::QueryMemory { .. } => Domain::User,
            Self::Io { .. }
            | Self::InUse { .. }
            | Self::Segment { .. }
            | Self::Write { .. }
            | Self::Database { .. }
            | Self::SchemaVersion { .. }
            | Self::Row { .. }
            | Self::Busy { .. }
            | Self::Engine { .. } => Domain::External,
            Self::Unnumbered { .. } | Self::ReadOnly | Self::Internal { .. } => Domain::Internal,
        }
    }

    fn retryable(&self) -> bool {
        match self {
            Self::Io { .. } | Self::Write { .. } | Self::Busy { .. } => true,
            Self::Database { source, .. } => matches!(
                source.sqlite_error_code(),
                Some(
                    rusqlite::ErrorCode::DatabaseBusy
                        | rusqlite::ErrorCode::DatabaseLocked
                        | rusqlite::ErrorCode::DiskFull
                        | rusqlite::ErrorCode::SystemIoFailure
                )
            ),
            _ => false,
        }
    }
}

/// Attaches the operation and the path to an I/O error.
pub(crate) fn io<T>(
    result: std::io::Result<T>,
    operation: &'static str,
    path: &std::path::Path,
) -> Result<T, StoreError> {
    result.map_err(|source| StoreError::Io { operation, path: path.to_path_buf(), source })
}
