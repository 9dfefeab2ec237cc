//! What a person says of an alert: kept first, then offered to the detectors, which learn from what was no fault.
//!
//! A verdict is on disk before it is answered. The detect station looks for waiting ones between two rounds of judging, and
//! again when it starts: what nobody could apply is applied by the next `faultline run`.

use axum::{
    Json,
    extract::{Path, Request, State},
    http::StatusCode,
};
use faultline_core::{AlertId, Feedback, Verdict};
use faultline_store::{StoreError, rfc3339};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    ApiState, Order,
    errors::{ApiError, ErrorBody},
    params::path_id,
    routes::{blocking, json_body},
};

/// A verdict on an alert.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FeedbackRequest {
    /// `false_positive`: what it tells of is normal, and the detector learns so. `true_positive`: something was wrong, and the
    /// session teaches no model.
    #[schema(value_type = String, example = "false_positive")]
    verdict: Verdict,
    /// Why; at most 4096 characters.
    #[serde(default)]
    #[schema(example = "the nightly backup")]
    comment: String,
    /// Who says so; at most 256 characters.
    #[serde(default)]
    #[schema(example = "ann")]
    by: String,
}

/// What a person has said of an alert, and what came of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct FeedbackItem {
    /// `false_positive` or `true_positive`.
    pub verdict: &'static str,
    /// Why, in that person's words.
    pub comment: String,
    /// Who.
    pub by: String,
    /// When it was said.
    pub time: String,
    /// See `time`.
    pub time_unix_nano: i64,
    /// Whether the detectors have seen it.
    pub applied: bool,
    /// Things that the detector has learned because of it; null while it waits.
    pub learned: Option<u64>,
    /// What came of it, in words: what was learned, why nothing was, or what it waits for.
    pub outcome: String,
}

impl FeedbackItem {
    /// As this process shows it, which may or may not be the one that runs the detectors.
    pub(crate) fn new(feedback: Feedback, state: &ApiState) -> Self {
        let waits_for = match state.operator {
            Some(_) => "waits for the detectors, which look between two rounds of judging once they are in service",
            None => "no detectors run in this process: it will be applied when faultline runs next",
        };
        Self {
            verdict: feedback.verdict.name(),
            comment: feedback.comment,
            by: feedback.by,
            time: rfc3339(feedback.time_unix_nano),
            time_unix_nano: feedback.time_unix_nano,
            applied: feedback.outcome.is_some(),
            learned: feedback.outcome.as_ref().map(|outcome| outcome.n_learned),
            outcome: feedback.outcome.map_or_else(|| waits_for.to_owned(), |outcome| outcome.note),
        }
    }
}

/// Says whether an alert was right. A later verdict takes the place of an earlier one.
#[utoipa::path(post, path = "/api/v1/alerts/{id}/feedback", tag = "alerts", request_body = FeedbackRequest,
    params(("id" = String, Path, description = "Sixteen hexadecimal digits")),
    responses(
        (status = 202, description = "Kept; `applied` turns true once the detectors have seen it", body = FeedbackItem),
        (status = 400, description = "The body is not a verdict", body = ErrorBody),
        (status = 404, description = "No such alert", body = ErrorBody),
        (status = 409, description = "This process only reads the data directory", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 415, description = "The body is not JSON", body = ErrorBody),
    ))]
pub(crate) async fn give(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    request: Request,
) -> Result<(StatusCode, Json<FeedbackItem>), ApiError> {
    let alert: AlertId = path_id("alert", &id)?;
    let FeedbackRequest { verdict, comment, by } = json_body(request).await?;
    for (key, text, limit) in [("comment", &comment, Feedback::MAX_COMMENT), ("by", &by, Feedback::MAX_BY)] {
        if text.chars().count() > limit {
            return Err(ApiError::BadBody { reason: format!("`{key}` has more than {limit} characters") });
        }
    }
    let now = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
    let feedback = Feedback { alert, verdict, comment, by, time_unix_nano: now, outcome: None };
    let kept = blocking(&state, move |store| {
        if store.alert(alert)?.is_none() {
            return Ok(None);
        }
        store.put_feedback(&feedback)?;
        store.feedback(alert)
    });
    let kept = kept.await.map_err(|error| match error {
        ApiError::Store(StoreError::ReadOnly) => ApiError::Conflict {
            what: format!("alert `{id}`"),
            reason: "this process only reads the data directory; give the verdict to the one that runs",
        },
        other => other,
    })?;
    let Some(kept) = kept else { return Err(ApiError::UnknownId { kind: "alert", id }) };
    if let Some(operator) = &state.operator {
        operator(&id, Order::Judge);
    }
    Ok((StatusCode::ACCEPTED, Json(FeedbackItem::new(kept, &state))))
}
