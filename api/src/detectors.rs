//! How detectors do, and what an operator may order: promotion of a shadow, rollback.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};

use crate::{
    ApiState, Order,
    dto::{DetectorItem, Detectors},
    errors::{ApiError, ErrorBody},
    params::Params,
    routes::blocking,
};

/// The alert budget, promised against observed, and every detector in service.
#[utoipa::path(get, path = "/api/v1/detectors", tag = "detectors", responses((status = 200, body = Detectors)))]
pub(crate) async fn list(State(state): State<ApiState>, params: Params) -> Result<Json<Detectors>, ApiError> {
    params.only(&[])?;
    let (detectors, judged) = blocking(&state, |store| Ok((store.detectors()?, store.judged()?))).await?;
    Ok(Json(Detectors::new(detectors, &judged)))
}

/// Lets the model that was fitted on recent sessions decide.
#[utoipa::path(post, path = "/api/v1/detectors/{name}/promote", tag = "detectors",
    params(("name" = String, Path, description = "Name of the detector")),
    responses(
        (status = 202, description = "Ordered; `model_version` changes with the next records", body = DetectorItem),
        (status = 404, description = "No such detector in service", body = ErrorBody),
        (status = 409, description = "It has no shadow", body = ErrorBody),
    ))]
pub(crate) async fn promote(
    State(state): State<ApiState>,
    Path(name): Path<String>,
) -> Result<(StatusCode, Json<DetectorItem>), ApiError> {
    order(state, name, Order::Promote).await
}

/// Brings back the model that decided before the present one.
#[utoipa::path(post, path = "/api/v1/detectors/{name}/rollback", tag = "detectors",
    params(("name" = String, Path, description = "Name of the detector")),
    responses(
        (status = 202, description = "Ordered; `model_version` changes with the next records", body = DetectorItem),
        (status = 404, description = "No such detector in service", body = ErrorBody),
        (status = 409, description = "No model decided before it", body = ErrorBody),
    ))]
pub(crate) async fn roll_back(
    State(state): State<ApiState>,
    Path(name): Path<String>,
) -> Result<(StatusCode, Json<DetectorItem>), ApiError> {
    order(state, name, Order::RollBack).await
}

async fn order(state: ApiState, name: String, order: Order) -> Result<(StatusCode, Json<DetectorItem>), ApiError> {
    let (detectors, judged) = blocking(&state, |store| Ok((store.detectors()?, store.judged()?))).await?;
    let Some(detector) = detectors.into_iter().find(|detector| detector.detector == name) else {
        return Err(ApiError::UnknownId { kind: "detector in service", id: name });
    };
    let reason = match order {
        Order::Promote if detector.shadow.is_none() => "it has no shadow that could be promoted",
        Order::RollBack if detector.previous_version.is_none() => "no model decided before the present one",
        _ => match &state.operator {
            Some(operator) => {
                operator(&name, order);
                return Ok((StatusCode::ACCEPTED, Json(DetectorItem::new(detector, &judged))));
            }
            None => "no detectors run in this process",
        },
    };
    Err(ApiError::Conflict { what: format!("detector `{name}`"), reason })
}
