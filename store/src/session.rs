//! The records of one session as the windowing station had them, so that what is no longer held can be looked at again.
//!
//! Found by session key within a span of time, which Parquet statistics narrow to few row groups. Cost: a scan of these.

use faultline_core::{RecordId, TemplateId};
use serde_json::Value;

use crate::{QueryResult, Store, error::StoreError, json::rfc3339};

/// A log record as detectors see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRecord {
    /// Its id.
    pub record_id: RecordId,
    /// Event time.
    pub time_unix_nano: i64,
    /// Its template, when it was parsed.
    pub template: TemplateId,
    /// Service that wrote it; empty where the source names none.
    pub service: String,
    /// OpenTelemetry severity number, 0 (unset) to 24.
    pub severity_number: u8,
}

impl Store {
    /// The first `limit` records of `session` from one moment to another, both inclusive, in order of time. A key that only
    /// names the writer of its records is no session: then there are none.
    ///
    /// # Errors
    /// As for [`Store::query`], whose limits hold.
    pub fn session(
        &self,
        session: &str,
        from_unix_nano: i64,
        to_unix_nano: i64,
        limit: usize,
    ) -> Result<Vec<SessionRecord>, StoreError> {
        let sql = format!(
            "SELECT record_id, time_unix_nano, template_id, service_name, severity_number FROM logs
             WHERE session = '{}' AND NOT session_is_stream AND template_id IS NOT NULL
             AND time_unix_nano >= '{}' AND time_unix_nano <= '{}'
             ORDER BY time_unix_nano, record_id LIMIT {limit}",
            session.replace('\'', "''"),
            rfc3339(from_unix_nano),
            rfc3339(to_unix_nano),
        );
        let QueryResult { rows, truncated, .. } = self.query(&sql)?;
        if truncated {
            let what = "number of records of a session";
            return Err(StoreError::TooMany { what, asked: limit, limit: rows.len() });
        }
        let damaged = |what: &str| StoreError::Internal { what: format!("a record of a session has no {what}") };
        let record = |row: Vec<Value>| {
            let [record_id, time, template, service, severity] = &row[..] else { return Err(damaged("columns")) };
            let time = time.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
            let time = time.and_then(|time| i64::try_from(time.as_nanosecond()).ok());
            Ok(SessionRecord {
                record_id: record_id.as_u64().ok_or_else(|| damaged("record_id"))?,
                time_unix_nano: time.ok_or_else(|| damaged("time_unix_nano"))?,
                template: TemplateId(template.as_u64().ok_or_else(|| damaged("template_id"))?),
                service: service.as_str().unwrap_or_default().to_owned(),
                severity_number: severity.as_u64().and_then(|number| u8::try_from(number).ok()).unwrap_or(0).min(24),
            })
        };
        rows.into_iter().map(record).collect()
    }
}
