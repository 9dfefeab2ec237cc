//! The JSON that the API speaks, apart from the core types so that both can change on their own.
//!
//! Every moment is given twice: as RFC 3339 text for people and as nanoseconds since the epoch for programs.

use std::collections::BTreeMap;

use faultline_core::{Alert, Cause, DetectorStatus, Incident, Template, TemplateId};
use faultline_store::{Judged, Records, rfc3339};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    evidence::{EvidenceLine, EvidencePoint, EvidenceSpan},
    feedback::FeedbackItem,
};

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The items, in order.
    pub items: Vec<T>,
    /// Pass it as `cursor` to get the next page; null on the last one.
    pub next_cursor: Option<String>,
}

/// An alert in a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct AlertItem {
    /// Sixteen hexadecimal digits, the same in a replay.
    #[schema(example = "5f0c2a9d4b1e7788")]
    pub id: String,
    /// Name of the detector.
    pub detector: String,
    /// Version of the fitted model, hexadecimal.
    pub model_version: String,
    /// Kind of telemetry: `logs`, `metrics` or `traces`.
    pub signal: String,
    /// Stream of the session.
    pub stream: String,
    /// Session that behaved abnormally.
    pub session: String,
    /// Service that wrote the deciding record; empty where the source names none.
    pub service: String,
    /// `info`, `warning` or `critical`.
    pub severity: &'static str,
    /// `firing` or `resolved`.
    pub state: &'static str,
    /// Smallest p-value in the episode.
    pub p_value: f64,
    /// Raw score at that moment; comparable within one detector only.
    pub score: f64,
    /// When the episode began, event time.
    pub start: String,
    /// See `start`.
    pub start_unix_nano: i64,
    /// Latest abnormal record, event time.
    pub end: String,
    /// See `end`.
    pub end_unix_nano: i64,
    /// Abnormal windows folded into this alert.
    pub n_windows: u64,
    /// Why, in one sentence.
    pub evidence: EvidenceSummary,
    /// The incident it belongs to.
    pub incident: Option<String>,
    /// Where to go from here.
    pub links: AlertLinks,
}

/// Why, in one sentence.
#[derive(Debug, Serialize, ToSchema)]
pub struct EvidenceSummary {
    /// A sentence that a person can check against the records.
    pub summary: String,
}

/// Where to go from an alert.
#[derive(Debug, Serialize, ToSchema)]
pub struct AlertLinks {
    /// This alert with its evidence.
    #[serde(rename = "self")]
    pub this: String,
    /// Its incident.
    pub incident: Option<String>,
}

impl From<Alert> for AlertItem {
    fn from(alert: Alert) -> Self {
        let incident = alert.incident.map(|id| id.to_string());
        let links = AlertLinks {
            this: format!("/api/v1/alerts/{}", alert.id),
            incident: incident.as_ref().map(|id| format!("/api/v1/incidents/{id}")),
        };
        Self {
            id: alert.id.to_string(),
            detector: alert.detector,
            model_version: format!("{:016x}", alert.model_version),
            signal: alert.signal,
            stream: alert.stream,
            session: alert.session,
            service: alert.service,
            severity: alert.severity.name(),
            state: alert.state.name(),
            p_value: alert.p_value,
            score: alert.score,
            start: rfc3339(alert.start_unix_nano),
            start_unix_nano: alert.start_unix_nano,
            end: rfc3339(alert.end_unix_nano),
            end_unix_nano: alert.end_unix_nano,
            n_windows: alert.n_windows,
            evidence: EvidenceSummary { summary: alert.evidence.summary },
            incident,
            links,
        }
    }
}

/// An alert with everything that speaks for it.
#[derive(Debug, Serialize, ToSchema)]
pub struct AlertDetail {
    /// Sixteen hexadecimal digits, the same in a replay.
    pub id: String,
    /// Name of the detector.
    pub detector: String,
    /// Version of the fitted model, hexadecimal.
    pub model_version: String,
    /// Kind of telemetry: `logs`, `metrics` or `traces`.
    pub signal: String,
    /// Stream of the session.
    pub stream: String,
    /// Session that behaved abnormally.
    pub session: String,
    /// Service that wrote the deciding record; empty where the source names none.
    pub service: String,
    /// `info`, `warning` or `critical`.
    pub severity: &'static str,
    /// `firing` or `resolved`.
    pub state: &'static str,
    /// Smallest p-value in the episode.
    pub p_value: f64,
    /// Raw score at that moment; comparable within one detector only.
    pub score: f64,
    /// When the episode began, event time.
    pub start: String,
    /// See `start`.
    pub start_unix_nano: i64,
    /// Latest abnormal record, event time.
    pub end: String,
    /// See `end`.
    pub end_unix_nano: i64,
    /// Abnormal windows folded into this alert.
    pub n_windows: u64,
    /// Expected against seen, with figures.
    pub evidence: EvidenceDetail,
    /// For an alert on logs the raw lines, in order, the culprit among them; else empty.
    pub lines: Vec<EvidenceLine>,
    /// For an alert on traces the spans, by start, the culprit among them; for one on a metric that was made of spans,
    /// such as the error rate of an operation, the newest span of each step that is shown; else empty.
    pub spans: Vec<EvidenceSpan>,
    /// For an alert on metrics the points, by time, the culprit among them; else empty, and empty where a detector looks
    /// at all metrics of an instance side by side and names no points.
    pub points: Vec<EvidencePoint>,
    /// What a person has said of it.
    pub feedback: Option<FeedbackItem>,
    /// The incident it belongs to.
    pub incident: Option<String>,
    /// Where to go from here.
    pub links: AlertLinks,
}

/// Expected against seen.
#[derive(Debug, Serialize, ToSchema)]
pub struct EvidenceDetail {
    /// A sentence that a person can check against the records.
    pub summary: String,
    /// The template that was seen where the detector took offence.
    pub seen: Option<TemplateRef>,
    /// What was expected there instead, likeliest first.
    pub expected: Vec<ExpectedTemplate>,
    /// Record id of the line, span or point that decided the score; null where no single one did.
    pub culprit: Option<u64>,
    /// Named figures behind the score.
    pub figures: BTreeMap<String, f64>,
}

/// A template by id, with its text.
#[derive(Debug, Serialize, ToSchema)]
pub struct TemplateRef {
    /// Its id, at most 53 bits.
    pub template_id: u64,
    /// Its text; null when the template is not known.
    pub text: Option<String>,
}

/// A template that a detector expected.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExpectedTemplate {
    /// Its id.
    pub template_id: u64,
    /// Its text; null when the template is not known.
    pub text: Option<String>,
    /// How likely the detector held it, 0 to 1.
    pub probability: f64,
}

impl AlertDetail {
    /// The alert with its records, template texts filled in from `templates`, which say for each id what it stands for.
    pub(crate) fn new(alert: Alert, records: Records, templates: &[(TemplateId, Template)]) -> Self {
        let text = |id: TemplateId| templates.iter().find(|known| known.0 == id).map(|known| known.1.text.clone());
        let evidence = EvidenceDetail {
            summary: alert.evidence.summary.clone(),
            seen: alert.evidence.seen.map(|id| TemplateRef { template_id: id.0, text: text(id) }),
            expected: (alert.evidence.expected.iter())
                .map(|expected| ExpectedTemplate {
                    template_id: expected.template.0,
                    text: text(expected.template),
                    probability: expected.probability,
                })
                .collect(),
            culprit: alert.evidence.culprit,
            figures: alert.evidence.figures.clone(),
        };
        let culprit = evidence.culprit;
        let lines = records.lines.into_iter().map(|line| {
            let template = line.template_id.and_then(text);
            EvidenceLine::new(line, template, culprit)
        });
        let lines = lines.collect();
        let spans = records.spans.into_iter().map(|span| EvidenceSpan::new(span, culprit)).collect();
        let points = records.points.into_iter().map(|point| EvidencePoint::new(point, culprit)).collect();
        let item = AlertItem::from(alert);
        Self {
            id: item.id,
            detector: item.detector,
            model_version: item.model_version,
            signal: item.signal,
            stream: item.stream,
            session: item.session,
            service: item.service,
            severity: item.severity,
            state: item.state,
            p_value: item.p_value,
            score: item.score,
            start: item.start,
            start_unix_nano: item.start_unix_nano,
            end: item.end,
            end_unix_nano: item.end_unix_nano,
            n_windows: item.n_windows,
            evidence,
            lines,
            spans,
            points,
            feedback: None,
            incident: item.incident,
            links: item.links,
        }
    }
}

/// Alerts that belong together, with suspects.
#[derive(Debug, Serialize, ToSchema)]
pub struct IncidentItem {
    /// Sixteen hexadecimal digits, the same in a replay.
    pub id: String,
    /// Worst severity among its alerts.
    pub severity: &'static str,
    /// Whether any of its alerts still fires.
    pub state: &'static str,
    /// One sentence.
    pub summary: String,
    /// Earliest abnormal record, event time.
    pub start: String,
    /// See `start`.
    pub start_unix_nano: i64,
    /// Latest abnormal record, event time.
    pub end: String,
    /// See `end`.
    pub end_unix_nano: i64,
    /// Ids of its alerts, in order of their start.
    pub alerts: Vec<String>,
    /// Services with an alert in it.
    pub services: Vec<String>,
    /// Suspects, likeliest first.
    pub causes: Vec<CauseItem>,
    /// Where to go from here.
    pub links: IncidentLinks,
}

/// One suspect.
#[derive(Debug, Serialize, ToSchema)]
pub struct CauseItem {
    /// `service`, `operation`, `host`, `template` or `metric`.
    #[schema(value_type = String)]
    pub kind: faultline_core::CauseKind,
    /// Its name.
    pub name: String,
    /// Ranking score; comparable within one incident only.
    pub score: f64,
    /// Share of the total score, 0 to 1.
    pub confidence: f64,
    /// Sentences a person can check.
    pub evidence: Vec<String>,
    /// The localizer that named it.
    pub localizer: String,
}

/// Where to go from an incident.
#[derive(Debug, Serialize, ToSchema)]
pub struct IncidentLinks {
    /// This incident.
    #[serde(rename = "self")]
    pub this: String,
    /// Its alerts.
    pub alerts: String,
}

impl From<Cause> for CauseItem {
    fn from(cause: Cause) -> Self {
        let Cause { kind, name, score, confidence, evidence, localizer } = cause;
        Self { kind, name, score, confidence, evidence, localizer }
    }
}

impl From<Incident> for IncidentItem {
    fn from(incident: Incident) -> Self {
        let links = IncidentLinks {
            this: format!("/api/v1/incidents/{}", incident.id),
            alerts: format!("/api/v1/alerts?incident={}", incident.id),
        };
        Self {
            id: incident.id.to_string(),
            severity: incident.severity.name(),
            state: incident.state.name(),
            summary: incident.summary,
            start: rfc3339(incident.start_unix_nano),
            start_unix_nano: incident.start_unix_nano,
            end: rfc3339(incident.end_unix_nano),
            end_unix_nano: incident.end_unix_nano,
            alerts: incident.alerts.iter().map(ToString::to_string).collect(),
            services: incident.services,
            causes: incident.causes.into_iter().map(CauseItem::from).collect(),
            links,
        }
    }
}

/// A log template.
#[derive(Debug, Serialize, ToSchema)]
pub struct TemplateItem {
    /// Its id, at most 53 bits; `logs.template_id` in SQL.
    pub id: u64,
    /// The stream whose lines it describes.
    pub stream: String,
    /// Its text, with `<*>` or a typed placeholder for variable parts.
    pub text: String,
    /// Earlier texts, oldest first.
    pub lineage: Vec<String>,
    /// Lines that matched it.
    pub count: u64,
    /// First line, event time.
    pub first_seen: String,
    /// See `first_seen`.
    pub first_seen_unix_nano: i64,
    /// Latest line, event time.
    pub last_seen: String,
    /// See `last_seen`.
    pub last_seen_unix_nano: i64,
}

impl From<Template> for TemplateItem {
    fn from(template: Template) -> Self {
        Self {
            id: template.id.0,
            stream: template.stream,
            text: template.text,
            lineage: template.lineage,
            count: template.count,
            first_seen: rfc3339(template.first_seen_unix_nano),
            first_seen_unix_nano: template.first_seen_unix_nano,
            last_seen: rfc3339(template.last_seen_unix_nano),
            last_seen_unix_nano: template.last_seen_unix_nano,
        }
    }
}

/// A log template with those that were merged into it.
#[derive(Debug, Serialize, ToSchema)]
pub struct TemplateDetail {
    /// The template itself.
    #[serde(flatten)]
    pub template: TemplateItem,
    /// Ids that stand for it too, because their templates were merged into it; at most 1000.
    pub aliases: Vec<u64>,
}

/// The alert budget and who spends it. Rates are over event time and over about the last four thousand sessions.
#[derive(Debug, Serialize, ToSchema)]
pub struct Detectors {
    /// False alerts a day that were promised, over all detectors; null without a budget.
    pub promised_per_day: Option<f64>,
    /// Alerts a day.
    pub alerts_per_day: f64,
    /// False ones among these, as the false-discovery estimate has it.
    pub false_per_day: f64,
    /// Detectors in service, by name.
    pub items: Vec<DetectorItem>,
}

/// A detector in service.
#[derive(Debug, Serialize, ToSchema)]
pub struct DetectorItem {
    /// Its name.
    pub name: String,
    /// `active`, `drifted` or `sidelined`.
    pub state: String,
    /// Version of the model that decides, sixteen hexadecimal digits.
    pub model_version: String,
    /// Version of the model that a rollback brings back.
    pub previous_version: Option<String>,
    /// Event time of this account.
    pub time: String,
    /// See `time`.
    pub time_unix_nano: i64,
    /// Sessions judged since the model came into service.
    pub n_sessions: u64,
    /// Alerts raised since then.
    pub n_alerts: u64,
    /// Sessions a day.
    pub sessions_per_day: f64,
    /// Its share of the promise; null without a budget.
    pub promised_per_day: Option<f64>,
    /// Alerts a day.
    pub alerts_per_day: f64,
    /// False ones among these, as the false-discovery estimate has it.
    pub false_per_day: f64,
    /// The false-discovery rate in effect.
    pub false_discovery_rate: f64,
    /// Alerts of it that people have called false, since the data directory began.
    pub confirmed_false: u64,
    /// Alerts of it that people have called right, since the data directory began.
    pub confirmed_true: u64,
    /// Share of recent sessions that are abnormal beyond what the calibration allows.
    pub drift: f64,
    /// Share of the sessions it was fitted on that hold a template which the parser has merged into another since.
    pub merged_share: f64,
    /// A model fitted on recent sessions, which waits for its promotion.
    pub shadow: Option<ShadowItem>,
}

/// A model that scores beside the one that decides.
#[derive(Debug, Serialize, ToSchema)]
pub struct ShadowItem {
    /// Its version, sixteen hexadecimal digits.
    pub model_version: String,
    /// Sessions it was fitted on.
    pub n_training: u64,
    /// Later sessions on which both were compared.
    pub n_validation: u64,
    /// Share of these that is abnormal to it.
    pub abnormal_share: f64,
    /// Share of these that is abnormal to the model that decides.
    pub active_abnormal_share: f64,
}

impl Detectors {
    pub(crate) fn new(detectors: Vec<DetectorStatus>, judged: &BTreeMap<String, Judged>) -> Self {
        Self {
            promised_per_day: detectors.iter().map(|detector| detector.promised_per_day).sum(),
            alerts_per_day: detectors.iter().map(|detector| detector.alerts_per_day).sum(),
            false_per_day: detectors.iter().map(|detector| detector.false_per_day).sum(),
            items: detectors.into_iter().map(|status| DetectorItem::new(status, judged)).collect(),
        }
    }
}

impl DetectorItem {
    pub(crate) fn new(status: DetectorStatus, judged: &BTreeMap<String, Judged>) -> Self {
        let Judged { n_false, n_true } = judged.get(&status.detector).copied().unwrap_or_default();
        let version = |version: u64| format!("{version:016x}");
        Self {
            name: status.detector,
            state: status.state.name().to_owned(),
            model_version: version(status.model_version),
            previous_version: status.previous_version.map(version),
            time: rfc3339(status.time_unix_nano),
            time_unix_nano: status.time_unix_nano,
            n_sessions: status.n_sessions,
            n_alerts: status.n_alerts,
            sessions_per_day: status.sessions_per_day,
            promised_per_day: status.promised_per_day,
            alerts_per_day: status.alerts_per_day,
            false_per_day: status.false_per_day,
            false_discovery_rate: status.false_discovery_rate,
            confirmed_false: n_false,
            confirmed_true: n_true,
            drift: status.drift,
            merged_share: status.merged_share,
            shadow: status.shadow.map(|shadow| ShadowItem {
                model_version: version(shadow.model_version),
                n_training: shadow.n_training,
                n_validation: shadow.n_validation,
                abnormal_share: shadow.abnormal_share,
                active_abnormal_share: shadow.active_abnormal_share,
            }),
        }
    }
}
