//! Reading alerts, incidents and templates: filters, stable order, pages (station 10).
//!
//! Alerts and incidents come newest first (start descending, then id); templates by stream, then id. A cursor names
//! the last row of the page before, so rows that arrive meanwhile shift nothing: every row that existed when paging
//! began is returned exactly once.

use faultline_core::{Alert, AlertId, AlertState, Incident, IncidentId, Severity, Template, TemplateId, Verdict};
use rusqlite::{Row, ToSql, types::Value};
use serde::de::DeserializeOwned;

use crate::{database::Database, error::StoreError};

/// Most rows on one page.
pub const MAX_PAGE: usize = 1_000;
/// Rows on one page unless a filter says otherwise.
pub const DEFAULT_PAGE: usize = 100;

/// Which alerts to return. Every field narrows; the default is all of them, [`DEFAULT_PAGE`] at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertFilter {
    /// Service, exactly.
    pub service: Option<String>,
    /// Severity, exactly.
    pub severity: Option<Severity>,
    /// Detector, exactly.
    pub detector: Option<String>,
    /// State, exactly.
    pub state: Option<AlertState>,
    /// Only alerts whose episode ends at or after this.
    pub from_unix_nano: Option<i64>,
    /// Only alerts whose episode begins before this.
    pub to_unix_nano: Option<i64>,
    /// Only alerts of this incident.
    pub incident: Option<IncidentId>,
    /// Only alerts of which a person has said this.
    pub verdict: Option<Verdict>,
    /// Rows on the page, 1 to [`MAX_PAGE`].
    pub limit: usize,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

impl Default for AlertFilter {
    fn default() -> Self {
        Self {
            service: None,
            severity: None,
            detector: None,
            state: None,
            from_unix_nano: None,
            to_unix_nano: None,
            incident: None,
            verdict: None,
            limit: DEFAULT_PAGE,
            cursor: None,
        }
    }
}

/// Which incidents to return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncidentFilter {
    /// Only incidents with an alert on this service.
    pub service: Option<String>,
    /// Severity, exactly.
    pub severity: Option<Severity>,
    /// State, exactly.
    pub state: Option<AlertState>,
    /// Only incidents that end at or after this.
    pub from_unix_nano: Option<i64>,
    /// Only incidents that begin before this.
    pub to_unix_nano: Option<i64>,
    /// Rows on the page, 1 to [`MAX_PAGE`].
    pub limit: usize,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

impl Default for IncidentFilter {
    fn default() -> Self {
        Self {
            service: None,
            severity: None,
            state: None,
            from_unix_nano: None,
            to_unix_nano: None,
            limit: DEFAULT_PAGE,
            cursor: None,
        }
    }
}

/// Which templates to return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateFilter {
    /// Stream, exactly.
    pub stream: Option<String>,
    /// Text that the template contains, whatever the case of ASCII letters.
    pub text: Option<String>,
    /// Rows on the page, 1 to [`MAX_PAGE`].
    pub limit: usize,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

impl Default for TemplateFilter {
    fn default() -> Self {
        Self { stream: None, text: None, limit: DEFAULT_PAGE, cursor: None }
    }
}

/// One page.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    /// The rows, in order.
    pub items: Vec<T>,
    /// Cursor of the next page; `None` on the last.
    pub next_cursor: Option<String>,
}

impl Database {
    pub(crate) fn alerts(&self, filter: &AlertFilter) -> Result<Page<Alert>, StoreError> {
        let mut select = Select::new(ALERTS, filter.limit)?;
        select.equal("service", filter.service.clone());
        select.equal("severity", filter.severity.map(|severity| severity.name().to_owned()));
        select.equal("detector", filter.detector.clone());
        select.equal("state", filter.state.map(|state| state.name().to_owned()));
        select.equal("incident", filter.incident.map(|id| id.to_string()));
        match filter.verdict {
            Some(verdict) if self.has_feedback() => {
                let judged = "id IN (SELECT alert FROM feedback WHERE verdict = ?)";
                select.condition(judged, [verdict.name().to_owned().into()]);
            }
            // Nobody could say anything to the program that wrote it.
            Some(_) => select.condition("0", []),
            None => {}
        }
        select.overlap(filter.from_unix_nano, filter.to_unix_nano);
        select.after_start(filter.cursor.as_deref(), "alerts")?;
        let rows = self.rows("read alerts", &select, "ORDER BY start_unix_nano DESC, id", alert_row)?;
        Ok(page(rows, filter.limit, |alert: &Alert| start_cursor(alert.start_unix_nano, alert.id.0)))
    }

    pub(crate) fn alert(&self, id: AlertId) -> Result<Option<Alert>, StoreError> {
        let mut select = Select::new(ALERTS, 1)?;
        select.equal("id", Some(id.to_string()));
        Ok(self.rows("read an alert", &select, "", alert_row)?.pop())
    }

    pub(crate) fn incidents(&self, filter: &IncidentFilter) -> Result<Page<Incident>, StoreError> {
        let mut select = Select::new(INCIDENTS, filter.limit)?;
        if let Some(service) = &filter.service {
            select.condition("EXISTS (SELECT 1 FROM json_each(services) WHERE value = ?)", [service.clone().into()]);
        }
        select.equal("severity", filter.severity.map(|severity| severity.name().to_owned()));
        select.equal("state", filter.state.map(|state| state.name().to_owned()));
        select.overlap(filter.from_unix_nano, filter.to_unix_nano);
        select.after_start(filter.cursor.as_deref(), "incidents")?;
        let rows = self.rows("read incidents", &select, "ORDER BY start_unix_nano DESC, id", incident_row)?;
        Ok(page(rows, filter.limit, |incident: &Incident| start_cursor(incident.start_unix_nano, incident.id.0)))
    }

    pub(crate) fn incident(&self, id: IncidentId) -> Result<Option<Incident>, StoreError> {
        let mut select = Select::new(INCIDENTS, 1)?;
        select.equal("id", Some(id.to_string()));
        Ok(self.rows("read an incident", &select, "", incident_row)?.pop())
    }

    pub(crate) fn templates(&self, filter: &TemplateFilter) -> Result<Page<Template>, StoreError> {
        let mut select = Select::new(TEMPLATES, filter.limit)?;
        select.equal("stream", filter.stream.clone());
        if let Some(text) = &filter.text {
            let escaped = text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
            select.condition("text LIKE ? ESCAPE '\\'", [format!("%{escaped}%").into()]);
        }
        if let Some(cursor) = &filter.cursor {
            // The stream of the last row is looked up by its id: templates are never deleted.
            let id = cursor.strip_prefix('t').and_then(|digits| u64::from_str_radix(digits, 16).ok());
            let last = match id {
                Some(id) => self.templates_by_id(&[TemplateId(id)])?.pop(),
                None => None,
            };
            let Some(last) = last else {
                return Err(StoreError::Cursor { cursor: cursor.clone(), of: "templates" });
            };
            select.condition("(stream, id) > (?, ?)", [last.stream.into(), last.id.0.cast_signed().into()]);
        }
        let rows = self.rows("read templates", &select, "ORDER BY stream, id", template_row)?;
        Ok(page(rows, filter.limit, |template: &Template| format!("t{:014x}", template.id.0)))
    }

    /// The templates of `ids` that exist, by id.
    pub(crate) fn templates_by_id(&self, ids: &[TemplateId]) -> Result<Vec<Template>, StoreError> {
        let mut select = Select::new(TEMPLATES, ids.len().max(1))?;
        let places = vec!["?"; ids.len()].join(", ");
        select.condition(&format!("id IN ({places})"), ids.iter().map(|id| id.0.cast_signed().into()));
        self.rows("read templates", &select, "ORDER BY id", template_row)
    }

    fn rows<T>(
        &self,
        operation: &'static str,
        select: &Select,
        order: &str,
        read_row: impl Fn(&Row<'_>) -> rusqlite::Result<Result<T, StoreError>>,
    ) -> Result<Vec<T>, StoreError> {
        let sql = format!("{} WHERE {} {order} LIMIT {}", select.from, select.conditions, select.limit + 1);
        let rows = self.read(operation, |connection| {
            let mut statement = connection.prepare_cached(&sql)?;
            let params = select.values.iter().map(|value| value as &dyn ToSql);
            let rows = statement.query_map(rusqlite::params_from_iter(params), |row| read_row(row))?;
            rows.collect::<rusqlite::Result<Vec<Result<T, StoreError>>>>()
        })?;
        rows.into_iter().collect()
    }
}

pub(crate) const ALERTS: &str = "SELECT id, detector, model_version, signal, stream, session, service, severity, state, \
     p_value, score, start_unix_nano, end_unix_nano, n_windows, evidence, incident FROM alerts";
pub(crate) const INCIDENTS: &str =
    "SELECT id, severity, state, start_unix_nano, end_unix_nano, alerts, services, causes, summary FROM incidents";
const TEMPLATES: &str =
    "SELECT id, stream, text, lineage, count, first_seen_unix_nano, last_seen_unix_nano FROM templates";

/// A `SELECT` under construction: conditions with `?` for values that SQLite binds.
struct Select {
    from: &'static str,
    conditions: String,
    values: Vec<Value>,
    limit: usize,
}

impl Select {
    fn new(from: &'static str, limit: usize) -> Result<Self, StoreError> {
        if (1..=MAX_PAGE).contains(&limit) {
            Ok(Self { from, conditions: "1".into(), values: Vec::new(), limit })
        } else {
            Err(StoreError::TooMany { what: "limit", asked: limit, limit: MAX_PAGE })
        }
    }

    fn condition(&mut self, condition: &str, values: impl IntoIterator<Item = Value>) {
        self.conditions.push_str(" AND ");
        self.conditions.push_str(condition);
        self.values.extend(values);
    }

    fn equal(&mut self, column: &str, value: Option<String>) {
        if let Some(value) = value {
            self.condition(&format!("{column} = ?"), [value.into()]);
        }
    }

    fn overlap(&mut self, from_unix_nano: Option<i64>, to_unix_nano: Option<i64>) {
        if let Some(from) = from_unix_nano {
            self.condition("end_unix_nano >= ?", [from.into()]);
        }
        if let Some(to) = to_unix_nano {
            self.condition("start_unix_nano < ?", [to.into()]);
        }
    }

    fn after_start(&mut self, cursor: Option<&str>, of: &'static str) -> Result<(), StoreError> {
        if let Some(cursor) = cursor {
            let (start, id) =
                parse_start_cursor(cursor).ok_or_else(|| StoreError::Cursor { cursor: cursor.into(), of })?;
            let values = [start.into(), start.into(), id.into()];
            self.condition("(start_unix_nano < ? OR (start_unix_nano = ? AND id > ?))", values);
        }
        Ok(())
    }
}

fn start_cursor(start_unix_nano: i64, id: u64) -> String {
    format!("s{:016x}{id:016x}", start_unix_nano.cast_unsigned())
}

fn parse_start_cursor(cursor: &str) -> Option<(i64, String)> {
    let digits = cursor.strip_prefix('s')?;
    if digits.len() != 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let (start, id) = digits.split_at(16);
    Some((u64::from_str_radix(start, 16).ok()?.cast_signed(), id.to_ascii_lowercase()))
}

/// Cuts the row that shows whether there is a next page.
fn page<T>(mut rows: Vec<T>, limit: usize, cursor: impl Fn(&T) -> String) -> Page<T> {
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next_cursor = if more { rows.last().map(cursor) } else { None };
    Page { items: rows, next_cursor }
}

fn alert_row(row: &Row<'_>) -> rusqlite::Result<Result<Alert, StoreError>> {
    let id: String = row.get(0)?;
    let cell = Cell { table: "alerts", id: &id };
    let (severity, state): (String, String) = (row.get(7)?, row.get(8)?);
    let (evidence, incident): (String, Option<String>) = (row.get(14)?, row.get(15)?);
    let texts: [String; 5] = [row.get(1)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?];
    let [detector, signal, stream, session, service] = texts;
    let (model_version, n_windows): (i64, i64) = (row.get(2)?, row.get(13)?);
    let (p_value, score): (Option<f64>, Option<f64>) = (row.get(9)?, row.get(10)?);
    let (start_unix_nano, end_unix_nano): (i64, i64) = (row.get(11)?, row.get(12)?);
    let alert = || {
        Ok(Alert {
            id: cell.text("id", &id)?,
            detector,
            model_version: model_version.cast_unsigned(),
            signal,
            stream,
            session,
            service,
            severity: cell.name("severity", &severity)?,
            state: cell.name("state", &state)?,
            // SQLite keeps no NaN: it comes back as null.
            p_value: p_value.unwrap_or(f64::NAN),
            score: score.unwrap_or(f64::NAN),
            start_unix_nano,
            end_unix_nano,
            n_windows: n_windows.cast_unsigned(),
            evidence: cell.json("evidence", &evidence)?,
            incident: incident.map(|id| cell.text("incident", &id)).transpose()?,
        })
    };
    Ok(alert())
}

fn incident_row(row: &Row<'_>) -> rusqlite::Result<Result<Incident, StoreError>> {
    let id: String = row.get(0)?;
    let cell = Cell { table: "incidents", id: &id };
    let (severity, state): (String, String) = (row.get(1)?, row.get(2)?);
    let (start_unix_nano, end_unix_nano): (i64, i64) = (row.get(3)?, row.get(4)?);
    let (alerts, services, causes): (String, String, String) = (row.get(5)?, row.get(6)?, row.get(7)?);
    let summary: String = row.get(8)?;
    let incident = || {
        Ok(Incident {
            id: cell.text("id", &id)?,
            severity: cell.name("severity", &severity)?,
            state: cell.name("state", &state)?,
            start_unix_nano,
            end_unix_nano,
            alerts: cell.json("alerts", &alerts)?,
            services: cell.json("services", &services)?,
            causes: cell.json("causes", &causes)?,
            summary,
        })
    };
    Ok(incident())
}

fn template_row(row: &Row<'_>) -> rusqlite::Result<Result<Template, StoreError>> {
    let id: i64 = row.get(0)?;
    let lineage: String = row.get(3)?;
    let (stream, text): (String, String) = (row.get(1)?, row.get(2)?);
    let (count, first_seen_unix_nano, last_seen_unix_nano): (i64, i64, i64) = (row.get(4)?, row.get(5)?, row.get(6)?);
    let id_text = id.to_string();
    let cell = Cell { table: "templates", id: &id_text };
    Ok(cell.json("lineage", &lineage).map(|lineage| Template {
        id: TemplateId(id.cast_unsigned()),
        stream,
        text,
        lineage,
        count: count.cast_unsigned(),
        first_seen_unix_nano,
        last_seen_unix_nano,
    }))
}

/// Names the row in errors about its columns.
#[derive(Clone, Copy)]
struct Cell<'a> {
    table: &'static str,
    id: &'a str,
}

impl Cell<'_> {
    fn damaged(self, column: &'static str, reason: &dyn std::fmt::Display) -> StoreError {
        StoreError::Row { table: self.table, id: self.id.into(), column, reason: reason.to_string() }
    }

    fn text<T: std::str::FromStr<Err: std::fmt::Display>>(
        self,
        column: &'static str,
        text: &str,
    ) -> Result<T, StoreError> {
        text.parse().map_err(|error| self.damaged(column, &error))
    }

    fn json<T: DeserializeOwned>(self, column: &'static str, text: &str) -> Result<T, StoreError> {
        serde_json::from_str(text).map_err(|error| self.damaged(column, &error))
    }

    /// A unit variant by its serde name.
    fn name<T: DeserializeOwned>(self, column: &'static str, name: &str) -> Result<T, StoreError> {
        serde_json::from_value(name.into()).map_err(|error| self.damaged(column, &error))
    }
}
