//! One incident as the correlator keeps it: its alerts, and what a further alert is compared with.

use std::collections::{BTreeMap, BTreeSet};

use faultline_core::{Alert, AlertId, AlertState, Cause, Evidence, Incident, IncidentId, Severity, hash::StableHash};
use rustc_hash::FxHashMap;

/// A span of event time, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hull {
    pub start: i64,
    pub end: i64,
}

impl Hull {
    pub fn join(&mut self, other: Self) {
        self.start = self.start.min(other.start);
        self.end = self.end.max(other.end);
    }

    /// Whether the two overlap or are at most `slack` apart.
    pub fn meets(&self, other: Self, slack: i64) -> bool {
        self.start.saturating_sub(slack) <= other.end && other.start <= self.end.saturating_add(slack)
    }
}

pub(crate) struct OpenIncident {
    pub id: IncidentId,
    /// In order of their start, then id.
    pub alerts: BTreeMap<(i64, AlertId), Alert>,
    /// Start of each alert, to find it in `alerts`.
    pub starts: FxHashMap<AlertId, i64>,
    /// Activity by session.
    pub sessions: FxHashMap<(String, String), Hull>,
    /// Activity by service that the graph knows.
    pub services: BTreeMap<String, Hull>,
    /// Starts of alerts that the graph cannot place, by stream.
    pub onsets: FxHashMap<String, Hull>,
    /// From the first start to the last start.
    pub span: Hull,
    /// The latest abnormal record.
    pub end: i64,
    pub state: AlertState,
    pub causes: Vec<Cause>,
    /// Watermark at which the causes were last looked for; `None` before.
    pub localized_at: Option<i64>,
    pub is_changed: bool,
}

impl OpenIncident {
    /// An incident that `alert` founds.
    pub fn founded_by(alert: &Alert) -> Self {
        Self {
            id: IncidentId(StableHash::new().text("incident").number(alert.id.0).finish()),
            alerts: BTreeMap::new(),
            starts: FxHashMap::default(),
            sessions: FxHashMap::default(),
            services: BTreeMap::new(),
            onsets: FxHashMap::default(),
            span: Hull { start: alert.start_unix_nano, end: alert.start_unix_nano },
            end: alert.end_unix_nano,
            state: AlertState::Firing,
            causes: Vec::new(),
            localized_at: None,
            is_changed: true,
        }
    }

    /// Takes `alert` in, or its newer version. `placed` are the services that the graph places it at.
    pub fn put(&mut self, alert: &Alert, placed: &[String]) {
        let lean = lean(alert);
        if let Some(start) = self.starts.get(&alert.id).copied() {
            if self.alerts.get(&(start, alert.id)) == Some(&lean) {
                return;
            }
            self.alerts.remove(&(start, alert.id));
        }
        self.is_changed = true;
        let (start, end) = (alert.start_unix_nano, alert.end_unix_nano.max(alert.start_unix_nano));
        let hull = Hull { start, end };
        let session = (alert.stream.clone(), alert.session.clone());
        self.sessions.entry(session).or_insert(hull).join(hull);
        for service in placed {
            self.services.entry(service.clone()).or_insert(hull).join(hull);
        }
        if placed.is_empty() {
            let onset = Hull { start, end: start };
            self.onsets.entry(alert.stream.clone()).or_insert(onset).join(onset);
        }
        self.span.join(Hull { start, end: start });
        self.end = self.end.max(end);
        self.starts.insert(alert.id, start);
        self.alerts.insert((start, alert.id), lean);
    }

    /// Takes everything of `other` in.
    pub fn absorb(&mut self, other: Self) {
        self.is_changed = true;
        self.span.join(other.span);
        self.end = self.end.max(other.end);
        self.starts.extend(other.starts);
        self.alerts.extend(other.alerts);
        for (session, hull) in other.sessions {
            self.sessions.entry(session).or_insert(hull).join(hull);
        }
        for (service, hull) in other.services {
            self.services.entry(service).or_insert(hull).join(hull);
        }
        for (stream, hull) in other.onsets {
            self.onsets.entry(stream).or_insert(hull).join(hull);
        }
    }

    pub fn is_quiet(&self) -> bool {
        self.alerts.values().all(|alert| alert.state == AlertState::Resolved)
    }

    /// The incident as others see it.
    pub fn publish(&self) -> Incident {
        let named = self.alerts.values().filter(|alert| !alert.service.is_empty());
        let services: BTreeSet<&str> = named.map(|alert| alert.service.as_str()).collect();
        Incident {
            id: self.id,
            severity: self.alerts.values().map(|alert| alert.severity).max().unwrap_or(Severity::Info),
            state: self.state,
            start_unix_nano: self.span.start,
            end_unix_nano: self.end,
            alerts: self.alerts.keys().map(|(_, id)| *id).collect(),
            summary: self.summary(&services),
            services: services.into_iter().map(str::to_owned).collect(),
            causes: self.causes.clone(),
        }
    }

    fn summary(&self, services: &BTreeSet<&str>) -> String {
        let n_alerts = match self.alerts.len() {
            1 => "1 alert".into(),
            n => format!("{n} alerts"),
        };
        let place = match services.len() {
            0 => {
                let streams: BTreeSet<&str> = self.alerts.values().map(|alert| alert.stream.as_str()).collect();
                enumerate(&streams)
            }
            _ => enumerate(services),
        };
        match self.causes.first() {
            None => format!("{n_alerts} in {place}"),
            Some(cause) => {
                let kind = match cause.kind {
                    faultline_core::CauseKind::Template => "template ",
                    _ => "",
                };
                let percent = cause.confidence * 100.0;
                format!("{kind}{} is the likely cause ({percent:.0} %) of {n_alerts} in {place}", cause.name)
            }
        }
    }
}

/// "a", "a and b", "a, b, c and 4 more".
fn enumerate(names: &BTreeSet<&str>) -> String {
    let names: Vec<&str> = names.iter().copied().collect();
    match names.as_slice() {
        [] => "no named service".into(),
        [one] => (*one).into(),
        [first @ .., last] if names.len() <= 4 => format!("{} and {last}", first.join(", ")),
        _ => format!("{} and {} more", names[..3].join(", "), names.len() - 3),
    }
}

/// The alert without the parts of its evidence that localizers do not read, so that many can be kept.
fn lean(alert: &Alert) -> Alert {
    let evidence = Evidence { seen: alert.evidence.seen, culprit: alert.evidence.culprit, ..Evidence::default() };
    Alert {
        id: alert.id,
        detector: alert.detector.clone(),
        model_version: alert.model_version,
        signal: alert.signal.clone(),
        stream: alert.stream.clone(),
        session: alert.session.clone(),
        service: alert.service.clone(),
        severity: alert.severity,
        state: alert.state,
        p_value: alert.p_value,
        score: alert.score,
        start_unix_nano: alert.start_unix_nano,
        end_unix_nano: alert.end_unix_nano,
        n_windows: alert.n_windows,
        evidence,
        incident: None,
    }
}
