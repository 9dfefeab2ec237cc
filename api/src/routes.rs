//! Reading alerts, incidents and templates, and SQL over everything.
//!
//! Handlers check the request, call one method of the store on a blocking thread and shape the answer.
#![allow(unused_qualifications, reason = "the code that utoipa writes for query parameters")]

use axum::{
    Json,
    body::Bytes,
    extract::{FromRequest, Path, Request, State},
    http::{StatusCode, header},
};
use faultline_core::{Alert, AlertId, IncidentId, TemplateId};
use faultline_store::{AlertFilter, IncidentFilter, QueryResult, Store, StoreError, TemplateFilter};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    ApiState, MAX_BODY_BYTES,
    dto::{AlertDetail, AlertItem, IncidentItem, Page, TemplateDetail, TemplateItem},
    errors::{ApiError, ErrorBody},
    feedback::FeedbackItem,
    params::{Params, path_id},
};

/// Runs `read` where blocking is allowed.
pub(crate) async fn blocking<T: Send + 'static>(
    state: &ApiState,
    read: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, ApiError> {
    let store = state.store.clone();
    match tokio::task::spawn_blocking(move || read(&store)).await {
        Ok(result) => result.map_err(ApiError::Store),
        Err(error) => Err(ApiError::Internal { what: format!("a reader did not end well: {error}") }),
    }
}

fn page<T, U: From<T>>(page: faultline_store::Page<T>) -> Json<Page<U>> {
    Json(Page { items: page.items.into_iter().map(U::from).collect(), next_cursor: page.next_cursor })
}

/// Documentation of the parameters that [`alerts`] reads.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "read by the derive only: the handler names the bad parameter itself")]
pub(crate) struct AlertParams {
    /// Service, exactly.
    service: Option<String>,
    /// `info`, `warning` or `critical`.
    severity: Option<String>,
    /// Detector, exactly.
    detector: Option<String>,
    /// `firing` or `resolved`.
    state: Option<String>,
    /// Only alerts that end at or after this: RFC 3339 or nanoseconds since the epoch.
    from: Option<String>,
    /// Only alerts that begin before this: RFC 3339 or nanoseconds since the epoch.
    to: Option<String>,
    /// Only alerts of this incident.
    incident: Option<String>,
    /// Only alerts of which a person has said this: `false_positive` or `true_positive`.
    verdict: Option<String>,
    /// Items on the page.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Alerts, latest start first.
#[utoipa::path(get, path = "/api/v1/alerts", tag = "alerts", params(AlertParams), responses(
    (status = 200, body = Page<AlertItem>),
    (status = 400, description = "A parameter is unknown or wrong", body = ErrorBody),
))]
pub(crate) async fn alerts(State(state): State<ApiState>, params: Params) -> Result<Json<Page<AlertItem>>, ApiError> {
    const ALLOWED: &[&str] =
        &["service", "severity", "detector", "state", "from", "to", "incident", "verdict", "limit", "cursor"];
    let mut params = params.only(ALLOWED)?;
    let filter = AlertFilter {
        service: params.text("service"),
        severity: params.severity()?,
        detector: params.text("detector"),
        state: params.state()?,
        from_unix_nano: params.time("from")?,
        to_unix_nano: params.time("to")?,
        incident: params.id("incident")?,
        verdict: params.verdict()?,
        limit: params.limit()?,
        cursor: params.text("cursor"),
    };
    blocking(&state, move |store| store.alerts(&filter)).await.map(page)
}

/// One alert with its evidence: raw lines, spans or metric points, expected against seen; and what a person has said of it.
///
/// Of the records that the evidence names (at most 32) it shows those that the store still holds.
#[utoipa::path(get, path = "/api/v1/alerts/{id}", tag = "alerts",
    params(("id" = String, Path, description = "Sixteen hexadecimal digits")),
    responses(
        (status = 200, body = AlertDetail),
        (status = 400, description = "A parameter is given: this route takes none", body = ErrorBody),
        (status = 404, description = "No such alert", body = ErrorBody),
        (status = 500, description = "A file or row of the store is damaged; the message names it", body = ErrorBody),
        (status = 503, description = "A file cannot be read at present; the message names it", body = ErrorBody),
    ))]
pub(crate) async fn alert(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Json<AlertDetail>, ApiError> {
    params.only(&[])?;
    let alert_id: AlertId = path_id("alert", &id)?;
    let detail = blocking(&state, move |store| {
        let Some(alert) = store.alert(alert_id)? else { return Ok(None) };
        let records = store.records_behind(&alert)?;
        let mut template_ids: Vec<TemplateId> = records.lines.iter().filter_map(|line| line.template_id).collect();
        template_ids.extend(alert_templates(&alert));
        template_ids.sort_unstable();
        template_ids.dedup();
        // An alert names few templates; one that names more than a page of them shows the rest by id only.
        template_ids.truncate(faultline_store::MAX_PAGE);
        let templates = store.resolved_templates(&template_ids)?;
        let feedback = store.feedback(alert_id)?;
        Ok(Some((AlertDetail::new(alert, records, &templates), feedback)))
    });
    let Some((detail, feedback)) = detail.await? else { return Err(ApiError::UnknownId { kind: "alert", id }) };
    let feedback = feedback.map(|feedback| FeedbackItem::new(feedback, &state));
    Ok(Json(AlertDetail { feedback, ..detail }))
}

fn alert_templates(alert: &Alert) -> impl Iterator<Item = TemplateId> {
    alert.evidence.seen.into_iter().chain(alert.evidence.expected.iter().map(|expected| expected.template))
}

/// Documentation of the parameters that [`incidents`] reads.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "read by the derive only: the handler names the bad parameter itself")]
pub(crate) struct IncidentParams {
    /// Only incidents with an alert on this service.
    service: Option<String>,
    /// `info`, `warning` or `critical`.
    severity: Option<String>,
    /// `firing` or `resolved`.
    state: Option<String>,
    /// Only incidents that end at or after this: RFC 3339 or nanoseconds since the epoch.
    from: Option<String>,
    /// Only incidents that begin before this: RFC 3339 or nanoseconds since the epoch.
    to: Option<String>,
    /// Items on the page.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Incidents, latest start first.
#[utoipa::path(get, path = "/api/v1/incidents", tag = "incidents", params(IncidentParams), responses(
    (status = 200, body = Page<IncidentItem>),
    (status = 400, description = "A parameter is unknown or wrong", body = ErrorBody),
))]
pub(crate) async fn incidents(
    State(state): State<ApiState>,
    params: Params,
) -> Result<Json<Page<IncidentItem>>, ApiError> {
    let mut params = params.only(&["service", "severity", "state", "from", "to", "limit", "cursor"])?;
    let filter = IncidentFilter {
        service: params.text("service"),
        severity: params.severity()?,
        state: params.state()?,
        from_unix_nano: params.time("from")?,
        to_unix_nano: params.time("to")?,
        limit: params.limit()?,
        cursor: params.text("cursor"),
    };
    blocking(&state, move |store| store.incidents(&filter)).await.map(page)
}

/// One incident with its ranked suspects.
#[utoipa::path(get, path = "/api/v1/incidents/{id}", tag = "incidents",
    params(("id" = String, Path, description = "Sixteen hexadecimal digits")),
    responses(
        (status = 200, body = IncidentItem),
        (status = 404, description = "No such incident", body = ErrorBody),
    ))]
pub(crate) async fn incident(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Json<IncidentItem>, ApiError> {
    params.only(&[])?;
    let incident_id: IncidentId = path_id("incident", &id)?;
    let incident = blocking(&state, move |store| store.incident(incident_id)).await?;
    incident.map(|incident| Json(incident.into())).ok_or(ApiError::UnknownId { kind: "incident", id })
}

/// Documentation of the parameters that [`templates`] reads.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "read by the derive only: the handler names the bad parameter itself")]
pub(crate) struct TemplateParams {
    /// Stream, exactly.
    stream: Option<String>,
    /// Text that the template contains, whatever the case of ASCII letters.
    text: Option<String>,
    /// Items on the page.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Log templates, by stream, then id.
#[utoipa::path(get, path = "/api/v1/templates", tag = "templates", params(TemplateParams), responses(
    (status = 200, body = Page<TemplateItem>),
    (status = 400, description = "A parameter is unknown or wrong", body = ErrorBody),
))]
pub(crate) async fn templates(
    State(state): State<ApiState>,
    params: Params,
) -> Result<Json<Page<TemplateItem>>, ApiError> {
    let mut params = params.only(&["stream", "text", "limit", "cursor"])?;
    let filter = TemplateFilter {
        stream: params.text("stream"),
        text: params.text("text"),
        limit: params.limit()?,
        cursor: params.text("cursor"),
    };
    blocking(&state, move |store| store.templates(&filter)).await.map(page)
}

/// One log template. The id of one that was merged into another gives that other one.
#[utoipa::path(get, path = "/api/v1/templates/{id}", tag = "templates",
    params(("id" = u64, Path, description = "As in `template_id`")),
    responses(
        (status = 200, body = TemplateDetail),
        (status = 404, description = "No such template", body = ErrorBody),
    ))]
pub(crate) async fn template(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Json<TemplateDetail>, ApiError> {
    params.only(&[])?;
    let unknown = || ApiError::UnknownId { kind: "template", id: id.clone() };
    let asked: TemplateId = id.parse().map(TemplateId).map_err(|_| unknown())?;
    let found = blocking(&state, move |store| {
        let Some((_, template)) = store.resolved_templates(&[asked])?.pop() else { return Ok(None) };
        let aliases = store.aliases_of(template.id)?;
        Ok(Some(TemplateDetail { template: template.into(), aliases: aliases.into_iter().map(|id| id.0).collect() }))
    });
    found.await?.map(Json).ok_or_else(unknown)
}

/// A SQL query.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct QueryRequest {
    /// One reading statement over `logs`, `spans`, `metrics`, `templates`, `alerts`, `incidents`, `feedback`, and `log_records`:
    /// `logs` with the template's text as `log_record_template`.
    #[schema(example = "SELECT service_name, count(*) AS n FROM logs GROUP BY service_name ORDER BY n DESC")]
    sql: String,
}

/// Answer to a SQL query.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct QueryAnswer {
    /// The columns, in order.
    columns: Vec<ColumnItem>,
    /// The rows, one value a column.
    #[schema(value_type = Vec<Vec<Object>>)]
    rows: Vec<Vec<serde_json::Value>>,
    /// Whether there were more rows than the limits allow.
    truncated: bool,
}

/// One column of an answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ColumnItem {
    /// Its name.
    name: String,
    /// `string`, `uint64`, `int64`, `float64`, `boolean`, `timestamp`, `list<...>`, or Arrow's name in lower case.
    #[serde(rename = "type")]
    type_name: String,
}

impl From<QueryResult> for QueryAnswer {
    fn from(result: QueryResult) -> Self {
        let columns = result.columns.into_iter();
        let columns = columns.map(|column| ColumnItem { name: column.name, type_name: column.type_name });
        Self { columns: columns.collect(), rows: result.rows, truncated: result.truncated }
    }
}

/// Runs one reading SQL statement, within limits of rows, time and memory.
#[utoipa::path(post, path = "/api/v1/query", tag = "query", request_body = QueryRequest, responses(
    (status = 200, body = QueryAnswer),
    (status = 400, description = "The SQL is wrong, writes, or asks for too much", body = ErrorBody),
    (status = 413, description = "The body is too large", body = ErrorBody),
    (status = 415, description = "The body is not JSON", body = ErrorBody),
    (status = 503, description = "Too many queries are running", body = ErrorBody),
))]
pub(crate) async fn query(State(state): State<ApiState>, request: Request) -> Result<Json<QueryAnswer>, ApiError> {
    let QueryRequest { sql } = json_body(request).await?;
    blocking(&state, move |store| store.query(&sql)).await.map(|result| Json(result.into()))
}

/// Reads a JSON body. Insisting on its content type also keeps other sites' forms from posting here.
pub(crate) async fn json_body<T: serde::de::DeserializeOwned>(request: Request) -> Result<T, ApiError> {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let content_type = content_type.map_or("", |value| value.to_str().unwrap_or("?")).to_owned();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(ApiError::UnsupportedMediaType { found: content_type });
    }
    let body = Bytes::from_request(request, &()).await.map_err(|error| {
        if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
            ApiError::BodyTooLarge { limit: MAX_BODY_BYTES }
        } else {
            ApiError::BadBody { reason: error.body_text() }
        }
    })?;
    serde_json::from_slice(&body).map_err(|error| ApiError::BadBody { reason: error.to_string() })
}
