//! What DataFusion sees: `logs`, `spans` and `metrics` as Parquet segments plus the open segment, and `templates`,
//! `alerts`, `incidents` and `feedback` streamed out of SQLite.
//!
//! A table is a snapshot: one query sees each record once, whatever is appended or closed meanwhile. Filters are
//! handed to the Parquet reader for pruning and applied again above it. A SQLite table is read in chunks by one
//! `SELECT`, so its size does not bound memory.

use std::sync::{Arc, LazyLock};

use arrow::{
    array::{
        ArrayRef, Float64Builder, ListBuilder, RecordBatch, StringBuilder, TimestampNanosecondBuilder, UInt64Builder,
    },
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{DFSchema, DataFusionError, Result},
    datasource::{
        TableType,
        listing::PartitionedFile,
        memory::MemorySourceConfig,
        physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource},
        source::DataSourceExec,
    },
    execution::{SendableRecordBatchStream, TaskContext, object_store::ObjectStoreUrl},
    logical_expr::{Expr, TableProviderFilterPushDown, utils::conjunction},
    object_store::path::Path as ObjectPath,
    physical_plan::{
        ExecutionPlan, stream::RecordBatchReceiverStreamBuilder, streaming::PartitionStream, union::UnionExec,
    },
};
use faultline_core::{Cause, Evidence};
use rusqlite::Row;

use crate::{
    database::Database,
    reads::{ALERTS, INCIDENTS},
    segment::TableSnapshot,
};

/// Rows in one chunk out of SQLite.
const CHUNK_ROWS: usize = 4_096;

/// One of `logs`, `spans`, `metrics` as of one moment.
#[derive(Debug)]
pub(crate) struct RecordTable(pub(crate) TableSnapshot);

#[async_trait]
impl TableProvider for RecordTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.0.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = self.schema();
        let open: Arc<dyn ExecutionPlan> = MemorySourceConfig::try_new_exec(
            std::slice::from_ref(&self.0.open),
            Arc::clone(&schema),
            projection.cloned(),
        )?;
        if self.0.closed.is_empty() {
            return Ok(open);
        }
        let mut files = Vec::with_capacity(self.0.closed.len());
        for segment in &self.0.closed {
            let mut file = PartitionedFile::new("", segment.bytes);
            file.object_meta.location = ObjectPath::from_absolute_path(&segment.path)?;
            files.push(file);
        }
        let mut source = ParquetSource::new(Arc::clone(&schema));
        if let Some(filter) = conjunction(filters.to_vec()) {
            let df_schema = DFSchema::try_from(schema)?;
            source = source.with_predicate(state.create_physical_expr(filter, &df_schema)?);
        }
        let groups = FileGroup::new(files).split_files(state.config().target_partitions());
        let config = FileScanConfigBuilder::new(ObjectStoreUrl::local_filesystem(), Arc::new(source))
            .with_file_groups(groups)
            .with_projection_indices(projection.cloned())?
            // A limit below an inexact filter would cut rows that pass it.
            .with_limit(if filters.is_empty() { limit } else { None })
            .build();
        let closed: Arc<dyn ExecutionPlan> = DataSourceExec::from_data_source(config);
        if self.0.open.is_empty() { Ok(closed) } else { UnionExec::try_new(vec![closed, open]) }
    }
}

/// One of the tables in SQLite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StateTable {
    Templates,
    Alerts,
    Incidents,
    Feedback,
}

impl StateTable {
    pub(crate) const ALL: [Self; 4] = [Self::Templates, Self::Alerts, Self::Incidents, Self::Feedback];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Templates => "templates",
            Self::Alerts => "alerts",
            Self::Incidents => "incidents",
            Self::Feedback => "feedback",
        }
    }

    /// An older program may have written the database, before there were feedback and aliases.
    fn select(self, database: &Database) -> &'static str {
        match self {
            Self::Templates if database.has_feedback() => TEMPLATES,
            Self::Templates => OLD_TEMPLATES,
            Self::Alerts => ALERTS,
            Self::Incidents => INCIDENTS,
            Self::Feedback if database.has_feedback() => FEEDBACK,
            Self::Feedback => OLD_FEEDBACK,
        }
    }

    fn columns(self) -> &'static [Column] {
        match self {
            Self::Templates => TEMPLATE_COLUMNS,
            Self::Alerts => ALERT_COLUMNS,
            Self::Incidents => INCIDENT_COLUMNS,
            Self::Feedback => FEEDBACK_COLUMNS,
        }
    }

    pub(crate) fn schema(self) -> SchemaRef {
        static SCHEMAS: LazyLock<[SchemaRef; 4]> = LazyLock::new(|| {
            StateTable::ALL.map(|table| {
                let fields =
                    table.columns().iter().map(|column| Field::new(column.name, column.kind.data_type(), true));
                Arc::new(Schema::new(fields.collect::<Vec<_>>()))
            })
        });
        Arc::clone(&SCHEMAS[self as usize])
    }
}

/// A column of a state table: its name in SQL and how it is made of the columns that the `SELECT` returns.
struct Column {
    name: &'static str,
    /// Index in the `SELECT`.
    from: usize,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Unsigned,
    Float,
    Time,
    /// A JSON array of strings.
    Texts,
    /// [`Evidence::summary`] of a JSON object.
    Summary,
    /// Name of the first [`Cause`] in a JSON array; null where there is none.
    RootCause,
}

impl Kind {
    fn data_type(self) -> DataType {
        match self {
            Self::Text | Self::Summary | Self::RootCause => DataType::Utf8,
            Self::Unsigned => DataType::UInt64,
            Self::Float => DataType::Float64,
            Self::Time => DataType::Timestamp(TimeUnit::Nanosecond, Some(Arc::from("UTC"))),
            Self::Texts => DataType::List(Arc::new(Field::new("item", DataType::Utf8, true))),
        }
    }
}

const fn column(name: &'static str, from: usize, kind: Kind) -> Column {
    Column { name, from, kind }
}

const TEMPLATE_COLUMNS: &[Column] = &[
    column("id", 0, Kind::Unsigned),
    column("stream", 1, Kind::Text),
    column("text", 2, Kind::Text),
    column("lineage", 3, Kind::Texts),
    column("count", 4, Kind::Unsigned),
    column("first_seen_unix_nano", 5, Kind::Time),
    column("last_seen_unix_nano", 6, Kind::Time),
    column("merged_into", 7, Kind::Unsigned),
];

const ALERT_COLUMNS: &[Column] = &[
    column("id", 0, Kind::Text),
    column("detector", 1, Kind::Text),
    column("model_version", 2, Kind::Unsigned),
    column("signal", 3, Kind::Text),
    column("stream", 4, Kind::Text),
    column("session", 5, Kind::Text),
    column("service", 6, Kind::Text),
    column("severity", 7, Kind::Text),
    column("state", 8, Kind::Text),
    column("p_value", 9, Kind::Float),
    column("score", 10, Kind::Float),
    column("start_unix_nano", 11, Kind::Time),
    column("end_unix_nano", 12, Kind::Time),
    column("n_windows", 13, Kind::Unsigned),
    column("summary", 14, Kind::Summary),
    column("evidence", 14, Kind::Text),
    column("incident", 15, Kind::Text),
];

const INCIDENT_COLUMNS: &[Column] = &[
    column("id", 0, Kind::Text),
    column("severity", 1, Kind::Text),
    column("state", 2, Kind::Text),
    column("start_unix_nano", 3, Kind::Time),
    column("end_unix_nano", 4, Kind::Time),
    column("alerts", 5, Kind::Texts),
    column("services", 6, Kind::Texts),
    column("root_cause", 7, Kind::RootCause),
    column("causes", 7, Kind::Text),
    column("summary", 8, Kind::Text),
];

const FEEDBACK_COLUMNS: &[Column] = &[
    column("alert", 0, Kind::Text),
    column("verdict", 1, Kind::Text),
    column("comment", 2, Kind::Text),
    column("given_by", 3, Kind::Text),
    column("time_unix_nano", 4, Kind::Time),
    column("n_learned", 5, Kind::Unsigned),
    column("outcome", 6, Kind::Text),
];

const TEMPLATES: &str = "SELECT id, stream, text, lineage, count, first_seen_unix_nano, last_seen_unix_nano, \
     (SELECT template FROM template_aliases WHERE alias = id) FROM templates";
const OLD_TEMPLATES: &str =
    "SELECT id, stream, text, lineage, count, first_seen_unix_nano, last_seen_unix_nano, NULL FROM templates";
const FEEDBACK: &str = "SELECT alert, verdict, comment, given_by, time_unix_nano, n_learned, outcome FROM feedback";
const OLD_FEEDBACK: &str = "SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL WHERE 0";

/// Streams one state table out of SQLite.
#[derive(Debug)]
pub(crate) struct StateStream {
    table: StateTable,
    schema: SchemaRef,
    database: Arc<Database>,
}

impl StateStream {
    pub(crate) fn new(table: StateTable, database: Arc<Database>) -> Self {
        Self { table, schema: table.schema(), database }
    }
}

impl PartitionStream for StateStream {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut builder = RecordBatchReceiverStreamBuilder::new(Arc::clone(&self.schema), 2);
        let (sender, table, database) = (builder.tx(), self.table, Arc::clone(&self.database));
        builder.spawn_blocking(move || {
            let read = database.read("query", |connection| {
                let mut statement = connection.prepare_cached(table.select(&database))?;
                let mut rows = statement.query([])?;
                let mut chunk = Chunk::new(table);
                loop {
                    let row = rows.next()?;
                    if let Some(row) = row {
                        chunk.push(row)?;
                    }
                    let last = row.is_none();
                    if chunk.n_rows >= CHUNK_ROWS || (last && chunk.n_rows > 0) {
                        // Nobody listens any more: the query is over.
                        if sender.blocking_send(Ok(chunk.finish())).is_err() {
                            return Ok(());
                        }
                    }
                    if last {
                        return Ok(());
                    }
                }
            });
            read.map_err(|error| DataFusionError::External(Box::new(error)))
        });
        builder.build()
    }
}

/// Columns under construction.
struct Chunk {
    table: StateTable,
    builders: Vec<Builder>,
    n_rows: usize,
}

enum Builder {
    Text(StringBuilder),
    Unsigned(UInt64Builder),
    Float(Float64Builder),
    Time(TimestampNanosecondBuilder),
    Texts(ListBuilder<StringBuilder>),
}

impl Chunk {
    fn new(table: StateTable) -> Self {
        let builders = table.columns().iter().map(|column| match column.kind {
            Kind::Text | Kind::Summary | Kind::RootCause => Builder::Text(StringBuilder::new()),
            Kind::Unsigned => Builder::Unsigned(UInt64Builder::new()),
            Kind::Float => Builder::Float(Float64Builder::new()),
            Kind::Time => Builder::Time(TimestampNanosecondBuilder::new().with_timezone("UTC")),
            Kind::Texts => Builder::Texts(ListBuilder::new(StringBuilder::new())),
        });
        Self { table, builders: builders.collect(), n_rows: 0 }
    }

    fn push(&mut self, row: &Row<'_>) -> rusqlite::Result<()> {
        for (column, builder) in self.table.columns().iter().zip(&mut self.builders) {
            match builder {
                Builder::Text(builder) => {
                    let text: Option<String> = row.get(column.from)?;
                    builder.append_option(match column.kind {
                        Kind::Summary => text.and_then(|text| Some(parse::<Evidence>(&text)?.summary)),
                        Kind::RootCause => {
                            text.and_then(|text| parse::<Vec<Cause>>(&text)?.into_iter().next()).map(|cause| cause.name)
                        }
                        _ => text,
                    });
                }
                Builder::Unsigned(builder) => {
                    builder.append_option(row.get::<_, Option<i64>>(column.from)?.map(i64::cast_unsigned));
                }
                Builder::Float(builder) => builder.append_option(row.get::<_, Option<f64>>(column.from)?),
                Builder::Time(builder) => builder.append_value(row.get(column.from)?),
                Builder::Texts(builder) => {
                    let text: String = row.get(column.from)?;
                    for item in parse::<Vec<String>>(&text).unwrap_or_default() {
                        builder.values().append_value(item);
                    }
                    builder.append(true);
                }
            }
        }
        self.n_rows += 1;
        Ok(())
    }

    fn finish(&mut self) -> RecordBatch {
        self.n_rows = 0;
        let columns = self.builders.iter_mut().map(|builder| match builder {
            Builder::Text(builder) => Arc::new(builder.finish()) as ArrayRef,
            Builder::Unsigned(builder) => Arc::new(builder.finish()),
            Builder::Float(builder) => Arc::new(builder.finish()),
            Builder::Time(builder) => Arc::new(builder.finish()),
            Builder::Texts(builder) => Arc::new(builder.finish()),
        });
        RecordBatch::try_new(self.table.schema(), columns.collect()).expect("the builders are made from the schema")
    }
}

/// A JSON column that does not parse shows as null in SQL; reading the row by its id names the damage.
fn parse<T: serde::de::DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_str(text).ok()
}
