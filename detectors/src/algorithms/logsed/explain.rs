//! What is wrong with a window, as a sentence, records and figures.

use faultline_core::{Evidence, Expected, LogWindow, Score, Window};

use super::{
    Model,
    account::{Anomaly, Kind, worst},
    graph::NodeIdx,
    weigh::Account,
};
use crate::evidence;

impl Model {
    /// Why `window` got `score`.
    pub(super) fn evidence(&self, window: &Window<'_>, score: &Score) -> Evidence {
        let Some((log, culprit)) = window.as_log().and_then(|log| Some((log, log.records.get(score.culprit)?))) else {
            return Evidence { summary: "the window holds no record".to_owned(), ..Evidence::default() };
        };
        let (account, decided) = self.account_and_decided(log);
        let anomalies = &account.anomalies;
        let deciding = anomalies.iter().map(|anomaly| log.records[anomaly.position].record);
        let mut evidence = Evidence {
            seen: Some(culprit.template),
            culprit: Some(culprit.record),
            records: evidence::around(log.records, score.culprit, deciding),
            ..Evidence::default()
        };
        let n_of = |kind: Kind| anomalies.iter().filter(|anomaly| anomaly.kind == kind).count() as f64;
        let mut figure = |name: &str, value: f64| evidence.figures.insert(name.to_owned(), value);
        figure("n_sequence", n_of(Kind::Sequence));
        figure("n_redundancy", n_of(Kind::Redundancy));
        if let Some(slowness) = account.slowness {
            figure("slowness_nats", slowness);
        }
        if let Some(latest) = account.latest {
            figure("latest_surprise", latest.surprise);
        }
        let Some(worst) = decided else {
            evidence.summary = "the session follows the control flow graph".to_owned();
            return evidence;
        };
        figure("surprise", worst.surprise);
        let template = |node: NodeIdx| self.graph.nodes[node as usize].place.template;
        let Some(edge) = worst.edge else {
            evidence.summary = match worst.kind {
                Kind::Slowness => "latency: the session took longer for all its steps than normal ones do".to_owned(),
                _ => format!("redundancy: hardly any normal session holds template {}", culprit.template),
            };
            return evidence;
        };
        let (from, to) = (template(edge.from), template(edge.to));
        let resolution = if log.is_stream { self.streams.resolution_nanos } else { self.graph.resolution_nanos };
        let expected_nanos = edge.lag.quantile_nanos(self.config.lag_quantile, resolution);
        figure("edge_from", from.0 as f64);
        figure("edge_to", to.0 as f64);
        figure("expected_lag_ms", expected_nanos / 1e6);
        figure("median_lag_ms", edge.lag.p50_nanos as f64 / 1e6);
        if let Some(lag) = worst.lag_nanos {
            figure("lag_ms", lag as f64 / 1e6);
        }
        let quantile = self.config.lag_quantile;
        evidence.summary = match worst.kind {
            Kind::Sequence => {
                evidence.expected = vec![Expected { template: to, probability: 1.0 - edge.missing_successor() }];
                let by = if log.is_closed() && !log.is_stream { "by the end of the session" } else { "in time" };
                format!("sequence: template {from} was not followed by template {to} {by}")
            }
            Kind::Redundancy => {
                evidence.expected = vec![Expected { template: from, probability: 1.0 - edge.missing_predecessor() }];
                format!("redundancy: template {to} came without template {from} before it")
            }
            Kind::Slowness => format!(
                "latency: the session took longer for all its steps than normal ones do; the latest is template {to}, {:.0} ms \
                 after template {from}",
                worst.lag_nanos.unwrap_or(0) as f64 / 1e6,
            ),
            Kind::Latency => format!(
                "latency: template {to} came {:.0} ms after template {from}; {quantile} of them come within {:.0} ms",
                worst.lag_nanos.unwrap_or(0) as f64 / 1e6,
                expected_nanos / 1e6,
            ),
        };
        evidence
    }

    /// What is wrong with a window that was scored or told of, and what decided that.
    fn account_and_decided(&self, window: &LogWindow<'_>) -> (Account, Option<Anomaly>) {
        // An open window without anything fresh is one that `advance` told of.
        let is_told = window.fresh == window.records.len() && !window.is_closed();
        if let Some(told) = self.told.get(window.key).filter(|_| is_told)
            && told.anomalies.iter().all(|anomaly| anomaly.position < window.records.len())
        {
            return (told.clone(), worst(told.anomalies.iter()).copied());
        }
        let account = self.account(window);
        let (_, decided) = self.weigh(window, &account);
        (account, decided)
    }
}
