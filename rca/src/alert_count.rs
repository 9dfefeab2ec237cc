//! Ranks services by how many alerts they have and how early: the localizer for when there are no spans.
//!
//! Station 9. No paper: the on-call's rule of thumb "who complained first and most". An alert counts
//! 1 / (1 + lateness / `patience_seconds`), where lateness is its start less the incident's. Without any service it
//! ranks the log templates that the detectors took offence at. Cost: one pass over the alerts. Fails whenever the
//! culprit keeps silent and its callers complain, which is common: that is why it comes last.

use std::collections::BTreeMap;

use faultline_core::{Alert, Cause, CauseKind, Localizer, SpanBatch};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::registry::LocalizerKind;

/// Options of `alert-count`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AlertCountConfig {
    /// Lateness at which an alert counts half, seconds. Smaller trusts the first complaint more.
    pub patience_seconds: f64,
    /// The most suspects named.
    pub max_causes: usize,
}

impl Default for AlertCountConfig {
    fn default() -> Self {
        Self { patience_seconds: 10.0, max_causes: 10 }
    }
}

/// See the module.
pub struct AlertCount {
    config: AlertCountConfig,
}

impl LocalizerKind for AlertCount {
    const NAME: &'static str = "alert-count";
    const SUMMARY: &'static str = "services (else log templates) by the number and earliness of their alerts";
    const PAPER: &'static str = "none: a rule of thumb, and the floor for the others";
    type Config = AlertCountConfig;

    fn new(config: Self::Config) -> Self {
        Self { config }
    }
}

#[derive(Default)]
struct Tally {
    weight: f64,
    n_alerts: usize,
    lateness_s: f64,
}

impl Localizer for AlertCount {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn observe(&mut self, _spans: &SpanBatch) {}

    fn localize(&self, alerts: &[&Alert]) -> Vec<Cause> {
        let Some(start) = alerts.iter().map(|alert| alert.start_unix_nano).min() else { return Vec::new() };
        let mut services: BTreeMap<&str, Tally> = BTreeMap::new();
        let mut templates: BTreeMap<u64, Tally> = BTreeMap::new();
        for alert in alerts {
            let lateness_s = alert.start_unix_nano.saturating_sub(start) as f64 / 1e9;
            let weight = 1.0 / (1.0 + lateness_s / self.config.patience_seconds.max(1e-3));
            let service = (!alert.service.is_empty()).then(|| services.entry(&alert.service).or_default());
            let template = alert.evidence.seen.map(|template| templates.entry(template.0).or_default());
            for tally in service.into_iter().chain(template) {
                tally.lateness_s = if tally.n_alerts == 0 { lateness_s } else { tally.lateness_s.min(lateness_s) };
                tally.weight += weight;
                tally.n_alerts += 1;
            }
        }
        if services.is_empty() {
            let templates = templates.into_iter().map(|(template, tally)| (template.to_string(), tally));
            self.rank(CauseKind::Template, templates, alerts.len())
        } else {
            let services = services.into_iter().map(|(service, tally)| (service.into(), tally));
            self.rank(CauseKind::Service, services, alerts.len())
        }
    }
}

impl AlertCount {
    fn rank(&self, kind: CauseKind, tallies: impl Iterator<Item = (String, Tally)>, n_alerts: usize) -> Vec<Cause> {
        let mut tallies: Vec<_> = tallies.collect();
        let total: f64 = tallies.iter().map(|(_, tally)| tally.weight).sum();
        tallies.sort_by(|(a, x), (b, y)| y.weight.total_cmp(&x.weight).then_with(|| a.cmp(b)));
        tallies.truncate(self.config.max_causes);
        let cause = |(name, tally): (String, Tally)| {
            let what = if kind == CauseKind::Template { "show this template" } else { "are its own" };
            let evidence = format!(
                "{} of {n_alerts} alerts {what}, the first {:.1} s after the incident began",
                tally.n_alerts, tally.lateness_s
            );
            Cause {
                kind,
                name,
                score: tally.weight,
                confidence: tally.weight / total,
                evidence: vec![evidence],
                localizer: Self::NAME.into(),
            }
        };
        tallies.into_iter().map(cause).collect()
    }
}

#[cfg(test)]
mod tests {
    use faultline_core::{Alert, CauseKind, Localizer, TemplateId};

    use super::{AlertCount, AlertCountConfig};
    use crate::{correlate::test_alert, registry::LocalizerKind};

    fn localizer() -> AlertCount {
        AlertCount::new(AlertCountConfig::default())
    }

    fn rank(alerts: &[Alert]) -> Vec<(CauseKind, String, String)> {
        let causes = localizer().localize(&alerts.iter().collect::<Vec<_>>());
        assert!((causes.iter().map(|cause| cause.confidence).sum::<f64>() - 1.0).abs() < 1e-9);
        causes.into_iter().map(|cause| (cause.kind, cause.name, cause.evidence[0].clone())).collect()
    }

    #[test]
    fn who_complains_first_and_most_leads() {
        let alerts = [
            test_alert("cart", "t1", 100.0, 100.0),
            test_alert("cart", "t2", 101.0, 101.0),
            test_alert("db", "t3", 130.0, 130.0),
        ];
        let ranked = rank(&alerts);
        assert_eq!(ranked[0].1, "cart");
        assert_eq!(ranked[0].2, "2 of 3 alerts are its own, the first 0.0 s after the incident began");
        assert_eq!(ranked[1].2, "1 of 3 alerts are its own, the first 30.0 s after the incident began");
        let late = [
            test_alert("db", "t3", 99.0, 99.0),
            test_alert("cart", "t1", 160.0, 160.0),
            test_alert("cart", "t2", 161.0, 161.0),
        ];
        assert_eq!(rank(&late)[0].1, "db", "one at once outweighs two a minute later");
    }

    #[test]
    fn without_services_the_offending_templates_are_ranked() {
        let mut alerts =
            [test_alert("", "b1", 1.0, 1.0), test_alert("", "b2", 1.0, 1.0), test_alert("", "b3", 1.0, 1.0)];
        for (alert, template) in alerts.iter_mut().zip([7, 9, 9]) {
            alert.evidence.seen = Some(TemplateId(template));
        }
        let ranked = rank(&alerts);
        assert_eq!((ranked[0].0, ranked[0].1.as_str()), (CauseKind::Template, "9"));
        assert!(ranked[0].2.starts_with("2 of 3 alerts show this template"));
    }
}
