//! SQL over everything, read-only and bounded (station 10).
//!
//! Queries run on threads of their own, so that a heavy one never delays ingestion, and on one memory pool, so that many
//! together stay within `query_memory_bytes`. Nothing spills to disk. A query that runs too long is answered with
//! an error at once and stopped at its next yield; it keeps its slot until it has really ended.

use std::{sync::Arc, time::Duration};

use arrow::{datatypes::SchemaRef, error::ArrowError};
use datafusion::{
    catalog::{TableProvider, streaming::StreamingTable},
    common::DataFusionError,
    execution::{
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
    },
    logical_expr::{LogicalPlan, LogicalPlanBuilder},
    prelude::{SQLOptions, SessionConfig, SessionContext},
};
use futures::StreamExt;
use serde::Serialize;
use serde_json::Value;
use tokio::{
    runtime::Runtime,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::{
    config::StoreConfig,
    database::Database,
    error::StoreError,
    json,
    segment::TableSnapshot,
    tables::{RecordTable, StateStream, StateTable},
};

/// Longest SQL text that is looked at.
pub const MAX_SQL_BYTES: usize = 64 << 10;

/// `logs` with the text of each record's template, by the name that the OpenTelemetry Collector's drain processor gives it
/// (`log.record.template`). A join instead of a column: texts widen after records are written, and a segment is immutable.
const LOG_RECORDS: &str = "SELECT l.*, coalesce(s.text, t.text) AS log_record_template FROM logs l
     LEFT JOIN templates t ON l.template_id = t.id
     LEFT JOIN templates s ON t.merged_into = s.id";

/// How long a query waits for a slot before it is asked to come back.
const SLOT_WAIT: Duration = Duration::from_secs(1);

/// Rows that are turned into JSON between two looks at the size of the answer.
const SLICE_ROWS: usize = 256;

/// One column of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct QueryColumn {
    /// Its name.
    pub name: String,
    /// Its type: `string`, `uint64`, `int64`, `float64`, `boolean`, `timestamp`, `list<...>`, or Arrow's name in lower case.
    #[serde(rename = "type")]
    pub type_name: String,
}

/// The answer to a query.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct QueryResult {
    /// The columns, in order.
    pub columns: Vec<QueryColumn>,
    /// The rows, one value a column.
    pub rows: Vec<Vec<Value>>,
    /// Whether there were more rows than the limits allow.
    pub truncated: bool,
}

/// What a query reads, as of one moment.
pub(crate) struct Sources {
    pub(crate) records: Vec<(&'static str, TableSnapshot)>,
    pub(crate) database: Arc<Database>,
}

#[derive(Debug)]
pub(crate) struct Engine {
    /// `None` only while dropping.
    runtime: Option<Runtime>,
    environment: Arc<RuntimeEnv>,
    slots: Arc<Semaphore>,
    limits: Limits,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    max_rows: usize,
    max_bytes: usize,
    timeout: Duration,
    memory_bytes: usize,
    concurrency: usize,
    threads: usize,
}

impl Engine {
    pub(crate) fn new(config: &StoreConfig) -> Result<Self, StoreError> {
        let limits = Limits {
            max_rows: config.query_max_rows.max(1),
            max_bytes: config.query_max_result_bytes,
            timeout: Duration::from_millis(config.query_timeout_ms),
            memory_bytes: config.query_memory_bytes,
            concurrency: config.query_concurrency.max(1),
            threads: config.query_threads.max(1),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(limits.threads)
            .max_blocking_threads(4 * limits.threads + limits.concurrency)
            .thread_name("faultline-query")
            .enable_time()
            .build()
            .map_err(|error| StoreError::Internal { what: format!("cannot start query threads: {error}") })?;
        let environment = RuntimeEnvBuilder::new()
            .with_memory_limit(limits.memory_bytes, 1.0)
            .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
            .build_arc()
            .map_err(|error| StoreError::Engine { source: Box::new(error) })?;
        let slots = Arc::new(Semaphore::new(limits.concurrency));
        Ok(Self { runtime: Some(runtime), environment, slots, limits })
    }

    /// Runs one query; blocks the calling thread, which must not be a thread of an async runtime.
    pub(crate) fn run(&self, sources: &Sources, sql: &str) -> Result<QueryResult, StoreError> {
        if sql.len() > MAX_SQL_BYTES {
            return Err(StoreError::TooMany { what: "length of the SQL text", asked: sql.len(), limit: MAX_SQL_BYTES });
        }
        let runtime = self.runtime.as_ref().expect("only drop takes the runtime away");
        let context = self.session(sources)?;
        let (sql, limits) = (sql.to_owned(), self.limits);
        runtime.block_on(async {
            let slot = match timeout(SLOT_WAIT, Arc::clone(&self.slots).acquire_owned()).await {
                Ok(Ok(slot)) => slot,
                Ok(Err(_)) | Err(_) => return Err(StoreError::Busy { limit: limits.concurrency }),
            };
            let mut task = runtime.spawn(execute(context, sql, limits, slot));
            match timeout(limits.timeout, &mut task).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(error)) => Err(StoreError::Internal { what: format!("a query did not end well: {error}") }),
                Err(_) => {
                    task.abort();
                    let limit_ms = u64::try_from(limits.timeout.as_millis()).unwrap_or(u64::MAX);
                    Err(StoreError::QueryTimeout { limit_ms })
                }
            }
        })
    }

    fn session(&self, sources: &Sources) -> Result<SessionContext, StoreError> {
        let config = SessionConfig::new().with_information_schema(true).with_target_partitions(self.limits.threads);
        let context = SessionContext::new_with_config_rt(config, Arc::clone(&self.environment));
        let register = |name: &str, table: Arc<dyn TableProvider>| {
            context.register_table(name, table).map_err(|error| StoreError::Engine { source: Box::new(error) })
        };
        for (name, snapshot) in &sources.records {
            register(name, Arc::new(RecordTable(snapshot.clone())))?;
        }
        for table in StateTable::ALL {
            let stream = Arc::new(StateStream::new(table, Arc::clone(&sources.database)));
            let table_provider = StreamingTable::try_new(table.schema(), vec![stream])
                .map_err(|error| StoreError::Engine { source: Box::new(error) })?;
            register(table.name(), Arc::new(table_provider))?;
        }
        Ok(context)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Waiting for threads here would panic when the last store is dropped inside an async runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn execute(
    context: SessionContext,
    sql: String,
    limits: Limits,
    slot: OwnedSemaphorePermit,
) -> Result<QueryResult, StoreError> {
    let answer = collect(&context, &sql, limits).await;
    drop(slot);
    answer
}

async fn collect(context: &SessionContext, sql: &str, limits: Limits) -> Result<QueryResult, StoreError> {
    let classify = |error: DataFusionError| classify(error, limits);
    let view = context.sql(LOG_RECORDS).await.map_err(classify)?.into_view();
    context.register_table("log_records", view).map_err(classify)?;
    let plan = context.state().create_logical_plan(sql).await.map_err(classify)?;
    SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false)
        .verify_plan(&plan)
        .map_err(|error| StoreError::NotReadOnly { reason: error.strip_backtrace() })?;
    // One row more than is returned tells whether there are more; a limit lets sorts keep only what is asked for.
    let plan = match plan {
        plan @ (LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::DescribeTable(_)) => plan,
        plan => LogicalPlanBuilder::from(plan)
            .limit(0, Some(limits.max_rows + 1))
            .and_then(LogicalPlanBuilder::build)
            .map_err(classify)?,
    };
    let frame = context.execute_logical_plan(plan).await.map_err(classify)?;
    let mut stream = frame.execute_stream().await.map_err(classify)?;
    let mut result = QueryResult { columns: columns(&stream.schema()), rows: Vec::new(), truncated: false };
    let mut bytes = 0;
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(classify)?;
        let mut offset = 0;
        while offset < batch.num_rows() {
            if result.rows.len() >= limits.max_rows || bytes > limits.max_bytes {
                result.truncated = true;
                return Ok(result);
            }
            let n_rows = SLICE_ROWS.min(batch.num_rows() - offset).min(limits.max_rows - result.rows.len());
            let slice = batch.slice(offset, n_rows);
            offset += n_rows;
            let columns = slice.columns().iter().map(|column| json::values(column));
            let columns = columns.collect::<Result<Vec<_>, _>>().map_err(|error| classify(error.into()))?;
            bytes += columns.iter().flatten().map(json::size).sum::<usize>();
            let mut columns: Vec<_> = columns.into_iter().map(Vec::into_iter).collect();
            result.rows.extend((0..n_rows).map(|_| columns.iter_mut().filter_map(Iterator::next).collect()));
        }
    }
    Ok(result)
}

fn columns(schema: &SchemaRef) -> Vec<QueryColumn> {
    let fields = schema.fields().iter();
    fields
        .map(|field| QueryColumn { name: field.name().clone(), type_name: json::type_name(field.data_type()) })
        .collect()
}

/// Tells the query's own mistakes from those of the store.
fn classify(error: DataFusionError, limits: Limits) -> StoreError {
    match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => {
            StoreError::QueryMemory { limit_bytes: limits.memory_bytes, source: Box::new(error) }
        }
        // Decoding a damaged page fails inside Arrow; a failed cast or a division by zero, also Arrow's, is the query's.
        DataFusionError::ArrowError(inner, _)
            if matches!(
                **inner,
                ArrowError::ParquetError(_) | ArrowError::IoError(..) | ArrowError::ExternalError(_)
            ) =>
        {
            StoreError::Engine { source: Box::new(error) }
        }
        DataFusionError::IoError(_)
        | DataFusionError::ObjectStore(_)
        | DataFusionError::ParquetError(_)
        | DataFusionError::External(_)
        | DataFusionError::ExecutionJoin(_) => StoreError::Engine { source: Box::new(error) },
        DataFusionError::Internal(_) => StoreError::Internal { what: error.strip_backtrace() },
        _ => StoreError::Sql { message: error.strip_backtrace() },
    }
}
