//! Settings of the store: the `storage` section of the configuration file.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Limits of segments and queries. Every one has a default that suits one machine with a few GiB of memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// Records after which an open segment is closed, per table. Larger segments compress and scan better and keep more
    /// in memory until they close.
    pub segment_max_rows: usize,
    /// Bytes in memory after which an open segment is closed, per table.
    pub segment_max_bytes: usize,
    /// Age in seconds after which an open segment is closed, so that other programs see its Parquet file.
    pub segment_max_age_secs: u64,
    /// Most rows that one SQL query returns; the answer says `truncated` when there were more.
    pub query_max_rows: usize,
    /// Most bytes of values that one SQL query returns; the answer says `truncated` when there were more.
    pub query_max_result_bytes: usize,
    /// Milliseconds after which a SQL query is stopped.
    pub query_timeout_ms: u64,
    /// Bytes that all running SQL queries together may hold in sorts, joins and aggregations.
    pub query_memory_bytes: usize,
    /// SQL queries that run at the same time; further ones are asked to come back.
    pub query_concurrency: usize,
    /// Threads that run SQL queries.
    pub query_threads: usize,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            segment_max_rows: 256 * 1024,
            segment_max_bytes: 64 << 20,
            segment_max_age_secs: 600,
            query_max_rows: 10_000,
            query_max_result_bytes: 32 << 20,
            query_timeout_ms: 30_000,
            query_memory_bytes: 512 << 20,
            query_concurrency: 4,
            query_threads: 2,
        }
    }
}
