//! Turns alerts into incidents.
//!
//! Station 9. Two alerts belong together when they are near in event time and near in the system:
//! - they share a session (the same trace, block, host), or their services are the same or at most `max_distance` edges
//!   of the service graph apart, in either direction, and their episodes overlap or are at most `slack_seconds` apart;
//!   an alert that names no service but whose session is a trace counts for every service of that trace;
//! - or the graph knows neither (file replay, sources without spans), they are of one stream, and their episodes
//!   *begin* at most `stream_slack_seconds` apart. Beginnings, because a block or a job may be abnormal now and again in
//!   two hours; what lies between says nothing.
//!
//! An alert that links several incidents merges them; the one with the smallest (start, id) survives. An incident takes
//! alerts whose beginnings span at most `max_span_seconds`, so that under a steady rain of alerts a new incident begins
//! every hour. It is resolved when all its alerts are and `slack_seconds` of event time have passed since; a late
//! alert (sessions close hours after they began) still joins it as long as it is remembered. Its id is a hash of its founding alert's, so a replay finds it again.
//!
//! Cost: a few hash look-ups per alert and remembered incident; localizing at most every `refresh_seconds` of event
//! time. Everything kept is bounded. Fails where two faults strike neighbours at once: they become one incident,
//! whose ranked causes name both.

use std::collections::{BTreeMap, VecDeque};

use faultline_core::{Alert, AlertId, AlertState, Incident, IncidentId, Localizer, SpanBatch};
use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    graph::{GraphConfig, ServiceGraph},
    incident::{Hull, OpenIncident},
    registry::{LOCALIZERS, RcaError, build_all},
};

/// How alerts become incidents; the `rca` section of the configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RcaConfig {
    /// How far apart in event time two episodes may be and still belong together, and how long an incident must be quiet
    /// before it is resolved, seconds. Larger where telemetry is slow or faults come and go.
    pub slack_seconds: f64,
    /// How far apart episodes may begin and still belong together where no spans tell how services relate, seconds.
    pub stream_slack_seconds: f64,
    /// How many edges of the service graph apart two services may be and still share an incident.
    pub max_distance: u32,
    /// The longest time over which an incident takes new alerts, seconds.
    pub max_span_seconds: f64,
    /// How often the causes of an open incident are looked for again, seconds of event time.
    pub refresh_seconds: f64,
    /// The most incidents remembered, so that late alerts find them; past it the longest resolved is forgotten, or if
    /// none is, the longest quiet closed.
    pub max_incidents: usize,
    /// The most alerts in an incident; a further one begins another.
    pub max_alerts: usize,
    /// Localizers in order of trust: the first that has an answer leads.
    pub localizers: Vec<String>,
    /// Options of localizers by their name.
    pub options: BTreeMap<String, serde_json::Value>,
    /// Bounds of the service graph.
    pub graph: GraphConfig,
}

impl Default for RcaConfig {
    fn default() -> Self {
        Self {
            slack_seconds: 30.0,
            stream_slack_seconds: 300.0,
            max_distance: 2,
            max_span_seconds: 3_600.0,
            refresh_seconds: 2.0,
            max_incidents: 256,
            max_alerts: 1_000,
            localizers: LOCALIZERS.iter().map(|entry| entry.name.into()).collect(),
            options: BTreeMap::new(),
            graph: GraphConfig::default(),
        }
    }
}

/// What one call changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Update {
    /// New and changed incidents, whole, in order of start and id.
    pub incidents: Vec<Incident>,
    /// Alerts that now belong to another incident than before (or to their first), in order of alert id.
    pub alerts: Vec<(AlertId, IncidentId)>,
    /// Incidents that were absorbed, with the one that absorbed them; they are no more.
    pub merged: Vec<(IncidentId, IncidentId)>,
}

/// What the correlator has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CorrelatorCounters {
    /// Alerts that were new.
    pub n_alerts: u64,
    /// Incidents that were founded.
    pub n_incidents: u64,
    /// Incidents that were absorbed by another.
    pub n_merged: u64,
    /// Incidents closed before they were quiet, because `max_incidents` were open.
    pub n_evicted: u64,
}

/// The most alerts whose incident is remembered after the incident itself is forgotten.
const MAX_MEMBERS: usize = 200_000;

/// See the module.
pub struct Correlator {
    config: RcaConfig,
    graph: ServiceGraph,
    localizers: Vec<Box<dyn Localizer>>,
    incidents: BTreeMap<IncidentId, OpenIncident>,
    members: FxHashMap<AlertId, IncidentId>,
    member_order: VecDeque<AlertId>,
    watermark: i64,
    n_spans: u64,
    counters: CorrelatorCounters,
    update: Update,
}

impl Correlator {
    /// A correlator that has seen nothing.
    ///
    /// # Errors
    /// Names the key that is out of range or the localizer or option that does not exist.
    pub fn new(config: RcaConfig) -> Result<Self, RcaError> {
        let seconds = [
            ("slack_seconds", config.slack_seconds),
            ("stream_slack_seconds", config.stream_slack_seconds),
            ("max_span_seconds", config.max_span_seconds),
            ("refresh_seconds", config.refresh_seconds),
        ];
        for (key, value) in seconds {
            if !(0.0..=1e9).contains(&value) {
                return Err(RcaError::Invalid { key, reason: format!("{value} is not within 0 to 1e9 seconds") });
            }
        }
        for (key, value) in [("max_incidents", config.max_incidents), ("max_alerts", config.max_alerts)] {
            if value == 0 {
                return Err(RcaError::Invalid { key, reason: "must be at least 1".into() });
            }
        }
        Ok(Self {
            graph: ServiceGraph::new(config.graph.clone()),
            localizers: build_all(&config.localizers, &config.options)?,
            config,
            incidents: BTreeMap::new(),
            members: FxHashMap::default(),
            member_order: VecDeque::new(),
            watermark: i64::MIN,
            n_spans: 0,
            counters: CorrelatorCounters::default(),
            update: Update::default(),
        })
    }

    /// Takes note of spans: the graph and every localizer learn from them.
    pub fn observe(&mut self, spans: &SpanBatch) {
        self.n_spans += spans.len() as u64;
        self.graph.observe(spans);
        for localizer in &mut self.localizers {
            localizer.observe(spans);
        }
    }

    /// Moves event time forward. Without it, time moves with the alerts only.
    pub fn advance_to(&mut self, watermark_unix_nano: i64) {
        self.watermark = self.watermark.max(watermark_unix_nano);
    }

    /// Takes new alerts and new versions of earlier ones, in order, and says what changed. Call it with no alerts now
    /// and then, so that open incidents find their causes and quiet ones are resolved.
    pub fn update(&mut self, alerts: &[Alert]) -> Update {
        for alert in alerts {
            self.watermark = self.watermark.max(alert.end_unix_nano);
            self.take(alert);
        }
        self.settle();
        self.publish()
    }

    /// The input has ended: every incident that is not resolved gets its causes once more and, when its alerts are
    /// resolved, is resolved too.
    pub fn finish(&mut self) -> Update {
        for incident in self.incidents.values_mut().filter(|incident| incident.state == AlertState::Firing) {
            if incident.is_quiet() {
                incident.state = AlertState::Resolved;
            }
            incident.is_changed = true;
            incident.localized_at = None;
        }
        self.localize();
        self.publish()
    }

    /// The incident that an alert belongs to; none for an alert it has not seen, or long ago.
    #[must_use]
    pub fn incident_of(&self, alert: AlertId) -> Option<IncidentId> {
        self.members.get(&alert).copied()
    }

    /// Who calls whom.
    #[must_use]
    pub fn graph(&self) -> &ServiceGraph {
        &self.graph
    }

    /// Figures for `/metrics`.
    #[must_use]
    pub fn counters(&self) -> CorrelatorCounters {
        self.counters
    }

    /// Incidents that are not resolved.
    #[must_use]
    pub fn n_open(&self) -> usize {
        self.incidents.values().filter(|incident| incident.state == AlertState::Firing).count()
    }

    fn take(&mut self, alert: &Alert) {
        let placed = self.place(alert);
        if let Some(id) = self.members.get(&alert.id) {
            if let Some(incident) = self.incidents.get_mut(id) {
                incident.put(alert, &placed);
            }
            return;
        }
        self.counters.n_alerts += 1;
        let mut linked = self.linked(alert, &placed);
        linked.sort_by_key(|id| self.incidents.get(id).map(|incident| (incident.span.start, incident.id)));
        let id = match linked.split_first() {
            None => self.found(alert),
            Some((survivor, rest)) => {
                for other in rest {
                    self.merge(*survivor, *other, alert.start_unix_nano);
                }
                *survivor
            }
        };
        if let Some(incident) = self.incidents.get_mut(&id) {
            incident.put(alert, &placed);
            if alert.state == AlertState::Firing {
                incident.state = AlertState::Firing;
            }
        }
        self.assign(alert.id, id);
    }

    /// Services that the graph places the alert at: its own, else those of its trace.
    fn place(&self, alert: &Alert) -> Vec<String> {
        if !alert.service.is_empty() {
            return if self.graph.knows(&alert.service) { vec![alert.service.clone()] } else { Vec::new() };
        }
        self.graph.services_of_trace(&alert.session).into_iter().map(str::to_owned).collect()
    }

    /// Incidents that the alert belongs to and that still take it.
    fn linked(&self, alert: &Alert, placed: &[String]) -> Vec<IncidentId> {
        let (slack, stream_slack) = (nanos(self.config.slack_seconds), nanos(self.config.stream_slack_seconds));
        let start = alert.start_unix_nano;
        let hull = Hull { start, end: alert.end_unix_nano.max(start) };
        let session = (alert.stream.clone(), alert.session.clone());
        let mut near: BTreeMap<&str, u32> = BTreeMap::new();
        for service in placed {
            near.extend(self.graph.near(service, self.config.max_distance));
        }
        let is_linked = |incident: &OpenIncident| {
            let meets = |other: &Hull| other.meets(hull, slack);
            let same_session = !alert.session.is_empty() && incident.sessions.get(&session).is_some_and(meets);
            let neighbours =
                || incident.services.iter().any(|(name, other)| near.contains_key(name.as_str()) && meets(other));
            let same_stream = || {
                let onset = Hull { start, end: start };
                placed.is_empty() && incident.onsets.get(&alert.stream).is_some_and(|o| o.meets(onset, stream_slack))
            };
            same_session || neighbours() || same_stream()
        };
        let fits = |incident: &OpenIncident| {
            incident.alerts.len() < self.config.max_alerts
                && self.spans_little(incident.span, Hull { start, end: start })
        };
        let mine = self.incidents.values().filter(|incident| fits(incident) && is_linked(incident));
        mine.map(|incident| incident.id).collect()
    }

    fn spans_little(&self, mut span: Hull, other: Hull) -> bool {
        span.join(other);
        span.end.saturating_sub(span.start) <= nanos(self.config.max_span_seconds)
    }

    fn found(&mut self, alert: &Alert) -> IncidentId {
        if self.incidents.len() >= self.config.max_incidents {
            self.evict();
        }
        self.counters.n_incidents += 1;
        let incident = OpenIncident::founded_by(alert);
        let id = incident.id;
        self.incidents.insert(id, incident);
        id
    }

    /// Makes room: the resolved incident that ended first goes, else the firing one that did.
    fn evict(&mut self) {
        let key = |incident: &OpenIncident| (incident.state == AlertState::Firing, incident.end, incident.id);
        let Some(id) = self.incidents.values().min_by_key(|incident| key(incident)).map(|incident| incident.id) else {
            return;
        };
        if let Some(mut incident) = self.incidents.remove(&id) {
            if incident.state == AlertState::Firing {
                self.counters.n_evicted += 1;
                incident.state = AlertState::Resolved;
                incident.is_changed = true;
            }
            if incident.is_changed {
                self.update.incidents.push(incident.publish());
            }
        }
    }

    /// Lets `survivor` absorb `other`, unless they are too long or too large together with an alert that begins at
    /// `start`.
    fn merge(&mut self, survivor: IncidentId, other: IncidentId, start: i64) {
        let (Some(a), Some(b)) = (self.incidents.get(&survivor), self.incidents.get(&other)) else { return };
        let mut span = a.span;
        span.join(Hull { start, end: start });
        if a.alerts.len() + b.alerts.len() >= self.config.max_alerts || !self.spans_little(span, b.span) {
            return;
        }
        let Some(absorbed) = self.incidents.remove(&other) else { return };
        for alert in absorbed.starts.keys().copied().collect::<std::collections::BTreeSet<_>>() {
            self.members.insert(alert, survivor);
            self.update.alerts.push((alert, survivor));
        }
        self.counters.n_merged += 1;
        self.update.merged.push((other, survivor));
        if let Some(incident) = self.incidents.get_mut(&survivor) {
            if absorbed.state == AlertState::Firing {
                incident.state = AlertState::Firing;
            }
            incident.absorb(absorbed);
        }
    }

    fn assign(&mut self, alert: AlertId, incident: IncidentId) {
        if self.members.insert(alert, incident).is_none() {
            self.member_order.push_back(alert);
            if self.member_order.len() > MAX_MEMBERS
                && let Some(oldest) = self.member_order.pop_front()
            {
                self.members.remove(&oldest);
            }
        }
        self.update.alerts.push((alert, incident));
    }

    /// Resolves what is quiet, looks for causes.
    fn settle(&mut self) {
        let (slack, stream_slack) = (nanos(self.config.slack_seconds), nanos(self.config.stream_slack_seconds));
        for incident in self.incidents.values_mut().filter(|incident| incident.state == AlertState::Firing) {
            let slack = if incident.services.is_empty() { stream_slack } else { slack };
            if self.watermark > incident.end.saturating_add(slack) && incident.is_quiet() {
                incident.state = AlertState::Resolved;
                incident.is_changed = true;
                incident.localized_at = None;
            }
        }
        self.localize();
    }

    fn localize(&mut self) {
        let refresh = nanos(self.config.refresh_seconds);
        for incident in self.incidents.values_mut() {
            let is_due = match incident.localized_at {
                None => true,
                Some(at) => incident.state == AlertState::Firing && self.watermark.saturating_sub(at) >= refresh,
            };
            let is_without = incident.causes.is_empty() && incident.is_changed;
            if !(is_due || is_without) {
                continue;
            }
            incident.localized_at = Some(self.watermark);
            let alerts: Vec<&Alert> = incident.alerts.values().collect();
            let answers = self.localizers.iter().map(|localizer| localizer.localize(&alerts));
            let causes = answers.into_iter().find(|causes| !causes.is_empty()).unwrap_or_default();
            if causes != incident.causes {
                incident.causes = causes;
                incident.is_changed = true;
            }
        }
    }

    fn publish(&mut self) -> Update {
        for incident in self.incidents.values_mut().filter(|incident| incident.is_changed) {
            incident.is_changed = false;
            self.update.incidents.push(incident.publish());
        }
        let mut update = std::mem::take(&mut self.update);
        update.incidents.retain(|incident| !update.merged.iter().any(|(gone, _)| *gone == incident.id));
        update.incidents.sort_by_key(|incident| (incident.start_unix_nano, incident.id));
        // An alert that moved twice ends where the last move put it.
        update.alerts.reverse();
        update.alerts.sort_by_key(|(alert, _)| *alert);
        update.alerts.dedup_by_key(|(alert, _)| *alert);
        update
    }
}

fn nanos(seconds: f64) -> i64 {
    (seconds * 1e9) as i64
}

#[cfg(test)]
pub(crate) fn test_alert(service: &str, session: &str, start_s: f64, end_s: f64) -> Alert {
    let (start_unix_nano, end_unix_nano) = (nanos(start_s), nanos(end_s));
    Alert {
        id: AlertId::of("test", 1, "app", &format!("{service}/{session}"), start_unix_nano),
        detector: "test".into(),
        model_version: 1,
        signal: "logs".into(),
        stream: "app".into(),
        session: session.into(),
        service: service.into(),
        severity: faultline_core::Severity::Warning,
        state: AlertState::Resolved,
        p_value: 1e-6,
        score: 1.0,
        start_unix_nano,
        end_unix_nano,
        n_windows: 1,
        evidence: faultline_core::Evidence::default(),
        incident: None,
    }
}

#[cfg(test)]
#[path = "correlate_tests.rs"]
mod tests;
