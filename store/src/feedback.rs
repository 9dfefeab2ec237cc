//! What people say of alerts: written by the API, read by it and by the detect station, which marks what it has applied.
//!
//! The table is the queue: a verdict without an outcome waits, whatever crashes meanwhile, until the detectors have seen it.

use std::collections::BTreeMap;

use faultline_core::{AlertId, Applied, Feedback, Verdict};
use rusqlite::{Params, Row, params};

use crate::{database::Database, error::StoreError};

/// Alerts of one detector that people have judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// Those called false.
    pub n_false: u64,
    /// Those called right.
    pub n_true: u64,
}

const SELECT: &str = "SELECT alert, verdict, comment, given_by, time_unix_nano, n_learned, outcome FROM feedback";

impl Database {
    /// Keeps a verdict. The same one again only changes who says so, and why; another one waits for the detectors anew.
    pub(crate) fn put_feedback(&self, feedback: &Feedback) -> Result<(), StoreError> {
        let Feedback { alert, verdict, comment, by, time_unix_nano, .. } = feedback;
        self.write("write feedback", |transaction| {
            let sql = "INSERT INTO feedback VALUES (?1, ?2, ?3, ?4, ?5, NULL, NULL) ON CONFLICT (alert) DO UPDATE SET
                 n_learned = CASE WHEN verdict = excluded.verdict THEN n_learned END,
                 outcome = CASE WHEN verdict = excluded.verdict THEN outcome END,
                 verdict = excluded.verdict, comment = excluded.comment, given_by = excluded.given_by,
                 time_unix_nano = excluded.time_unix_nano";
            let alert = alert.to_string();
            transaction.execute(sql, params![alert, verdict.name(), comment, by, time_unix_nano]).map(|_| ())
        })
    }

    /// Marks a verdict as applied, unless another one has been given meanwhile.
    pub(crate) fn settle_feedback(
        &self,
        alert: AlertId,
        verdict: Verdict,
        outcome: &Applied,
    ) -> Result<(), StoreError> {
        self.write("write feedback", |transaction| {
            let sql = "UPDATE feedback SET n_learned = ?3, outcome = ?4 WHERE alert = ?1 AND verdict = ?2";
            let n_learned = outcome.n_learned.cast_signed();
            transaction.execute(sql, params![alert.to_string(), verdict.name(), n_learned, outcome.note]).map(|_| ())
        })
    }

    pub(crate) fn feedback(&self, alert: AlertId) -> Result<Option<Feedback>, StoreError> {
        Ok(self.read_feedback("WHERE alert = ?1", [alert.to_string()])?.pop())
    }

    /// Verdicts that wait for the detectors, the earliest first.
    pub(crate) fn waiting_feedback(&self, limit: usize) -> Result<Vec<Feedback>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.read_feedback("WHERE outcome IS NULL ORDER BY time_unix_nano, alert LIMIT ?1", [limit])
    }

    /// By detector how many of its alerts people have judged, and how.
    pub(crate) fn judged(&self) -> Result<BTreeMap<String, Judged>, StoreError> {
        if !self.has_feedback() {
            return Ok(BTreeMap::new());
        }
        let rows = self.read("read feedback", |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT detector, verdict, count(*) FROM feedback JOIN alerts ON alerts.id = feedback.alert GROUP BY 1, 2",
            )?;
            let rows = statement.query_map([], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?))
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        })?;
        let mut judged: BTreeMap<String, Judged> = BTreeMap::new();
        for (detector, verdict, n) in rows {
            let own = judged.entry(detector).or_default();
            match verdict.parse::<Verdict>() {
                Ok(Verdict::FalsePositive) => own.n_false = n.cast_unsigned(),
                Ok(Verdict::TruePositive) => own.n_true = n.cast_unsigned(),
                Err(_) => {}
            }
        }
        Ok(judged)
    }

    fn read_feedback(&self, which: &str, params: impl Params) -> Result<Vec<Feedback>, StoreError> {
        if !self.has_feedback() {
            return Ok(Vec::new());
        }
        let rows = self.read("read feedback", |connection| {
            let mut statement = connection.prepare_cached(&format!("{SELECT} {which}"))?;
            let rows = statement.query_map(params, feedback_row)?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        })?;
        rows.into_iter().collect()
    }
}

fn feedback_row(row: &Row<'_>) -> rusqlite::Result<Result<Feedback, StoreError>> {
    let (id, verdict): (String, String) = (row.get(0)?, row.get(1)?);
    let (comment, by): (String, String) = (row.get(2)?, row.get(3)?);
    let time_unix_nano: i64 = row.get(4)?;
    let (n_learned, note): (Option<i64>, Option<String>) = (row.get(5)?, row.get(6)?);
    let damaged = |column, reason: String| StoreError::Row { table: "feedback", id: id.clone(), column, reason };
    let feedback = || {
        Ok(Feedback {
            alert: id
                .parse::<AlertId>()
                .map_err(|error: std::num::ParseIntError| damaged("alert", error.to_string()))?,
            verdict: verdict.parse::<Verdict>().map_err(|reason| damaged("verdict", reason))?,
            comment,
            by,
            time_unix_nano,
            outcome: note.map(|note| Applied { n_learned: n_learned.unwrap_or(0).cast_unsigned(), note }),
        })
    };
    Ok(feedback())
}
