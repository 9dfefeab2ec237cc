//! Query parameters, checked: an unknown name is refused with the nearest valid one, a bad value with what would do.

use std::{fmt::Display, str::FromStr};

use axum::{
    extract::{FromRequestParts, Query},
    http::request::Parts,
};
use faultline_core::{AlertState, Severity, Verdict};
use faultline_store::MAX_PAGE;

use crate::errors::ApiError;

/// The query string as name and value pairs.
#[derive(Debug)]
pub(crate) struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        match Query::<Vec<(String, String)>>::try_from_uri(&parts.uri) {
            Ok(Query(pairs)) => Ok(Self(pairs)),
            Err(error) => Err(ApiError::BadParameter { name: "*", reason: error.to_string() }),
        }
    }
}

impl Params {
    /// Refuses names that are not in `allowed`, and names given twice.
    pub(crate) fn only(self, allowed: &'static [&'static str]) -> Result<Self, ApiError> {
        for (idx, (name, _)) in self.0.iter().enumerate() {
            let Some(known) = allowed.iter().find(|known| *known == name) else {
                return Err(ApiError::UnknownParameter { name: name.clone(), hint: hint(name, allowed) });
            };
            if self.0[..idx].iter().any(|(earlier, _)| earlier == name) {
                return Err(ApiError::BadParameter { name: known, reason: "given more than once".into() });
            }
        }
        Ok(self)
    }

    pub(crate) fn text(&mut self, name: &str) -> Option<String> {
        let idx = self.0.iter().position(|(given, _)| given == name)?;
        Some(self.0.swap_remove(idx).1)
    }

    fn with<T>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ApiError> {
        let parsed = self.text(name).map(|value| parse(&value));
        parsed.transpose().map_err(|reason| ApiError::BadParameter { name, reason })
    }

    /// An id of sixteen hexadecimal digits.
    pub(crate) fn id<T: FromStr>(&mut self, name: &'static str) -> Result<Option<T>, ApiError> {
        self.with(name, |text| text.parse().map_err(|_| format!("`{text}` is not an id (sixteen hexadecimal digits)")))
    }

    pub(crate) fn severity(&mut self) -> Result<Option<Severity>, ApiError> {
        self.with("severity", str::parse)
    }

    pub(crate) fn state(&mut self) -> Result<Option<AlertState>, ApiError> {
        let states = [AlertState::Firing, AlertState::Resolved];
        self.with("state", |text| {
            let state = states.into_iter().find(|state| state.name() == text);
            state.ok_or_else(|| format!("`{text}` is none of firing, resolved"))
        })
    }

    pub(crate) fn verdict(&mut self) -> Result<Option<Verdict>, ApiError> {
        self.with("verdict", str::parse)
    }

    /// A moment: RFC 3339, or nanoseconds since the epoch.
    pub(crate) fn time(&mut self, name: &'static str) -> Result<Option<i64>, ApiError> {
        self.with(name, |text| {
            if let Ok(unix_nano) = text.parse() {
                return Ok(unix_nano);
            }
            // `+` in an offset arrives as a space unless it was escaped.
            let time: jiff::Timestamp = text.replace(' ', "+").parse().map_err(|_| {
                format!("`{text}` is neither RFC 3339 (2026-11-22T10:00:00Z) nor nanoseconds since the epoch")
            })?;
            i64::try_from(time.as_nanosecond()).map_err(|_| format!("`{text}` is outside the years 1677 to 2262"))
        })
    }

    pub(crate) fn limit(&mut self) -> Result<usize, ApiError> {
        let limit = self.with("limit", |text| match text.parse() {
            Ok(limit) if (1..=MAX_PAGE).contains(&limit) => Ok(limit),
            _ => Err(format!("`{text}` is not a number from 1 to {MAX_PAGE}")),
        })?;
        Ok(limit.unwrap_or(faultline_store::DEFAULT_PAGE))
    }
}

/// An id in a path: what does not parse names nothing.
pub(crate) fn path_id<T: FromStr + Display>(kind: &'static str, text: &str) -> Result<T, ApiError> {
    // `from_str_radix` takes a sign and any length; an id is exactly sixteen digits.
    let id = if text.len() == 16 && !text.starts_with('+') { text.parse().ok() } else { None };
    id.ok_or_else(|| ApiError::UnknownId { kind, id: text.into() })
}

fn hint(name: &str, allowed: &[&str]) -> String {
    let nearest = allowed.iter().max_by(|a, b| strsim::jaro_winkler(name, a).total_cmp(&strsim::jaro_winkler(name, b)));
    match nearest {
        Some(nearest) if strsim::jaro_winkler(name, nearest) >= 0.7 => format!("did you mean `{nearest}`?"),
        Some(_) => format!("this route takes {}", allowed.join(", ")),
        None => "this route takes none".into(),
    }
}
