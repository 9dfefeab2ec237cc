//! What station 10 writes: alerts and incidents that are new or have changed, each in its latest state.
//!
//! Publications of a burst are merged, so that an alert that fires and is resolved within it is written once. Merging
//! keeps what a reader sees in the end: of each alert and incident the latest state, of each alert the incident it has
//! moved to last, and no incident that another one has absorbed. Cost: a hash look-up for each alert and incident.

use std::hash::Hash;

use faultline_core::{Alert, AlertId, Incident, IncidentId};
use faultline_rca::Update;
use faultline_store::{Changes, Store};
use rustc_hash::{FxHashMap, FxHashSet};

/// Alerts and incidents that are merged at most, and that wait at most for a database that cannot be written.
pub const MAX_MERGED: usize = 16_384;

/// Alerts and incidents on their way to the database and the sinks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Publication {
    /// Alerts that are new or have changed, with the incident that each belongs to.
    pub alerts: Vec<Alert>,
    /// Incidents that are new or have changed.
    pub incidents: Vec<Incident>,
    /// Other alerts that now belong to another incident.
    moved: Vec<(AlertId, IncidentId)>,
    /// Incidents that another one has absorbed: they are no more.
    absorbed: Vec<IncidentId>,
}

impl Publication {
    /// The alerts of one round with what the correlator made of them.
    pub fn new(alerts: Vec<Alert>, update: Update) -> Self {
        let absorbed = update.merged.into_iter().map(|(absorbed, _)| absorbed).collect();
        Self { alerts, incidents: update.incidents, moved: update.alerts, absorbed }
    }

    /// What there is to tell after all of `rounds`, given in the order in which they happened.
    pub fn merged(rounds: impl IntoIterator<Item = Self>) -> Self {
        let mut merged = Self::default();
        for Self { alerts, incidents, moved, absorbed } in rounds {
            if !absorbed.is_empty() {
                let gone: FxHashSet<IncidentId> = absorbed.iter().copied().collect();
                merged.incidents.retain(|incident| !gone.contains(&incident.id));
            }
            merged.absorbed.retain(|id| incidents.iter().all(|incident| incident.id != *id));
            merged.alerts.extend(alerts);
            merged.incidents.extend(incidents);
            merged.moved.extend(moved);
            merged.absorbed.extend(absorbed);
        }
        keep_latest(&mut merged.alerts, |alert| alert.id);
        keep_latest(&mut merged.incidents, |incident| incident.id);
        keep_latest(&mut merged.moved, |moved| moved.0);
        merged.place_alerts();
        merged
    }

    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Alerts and incidents that it tells of.
    pub fn len(&self) -> usize {
        self.alerts.len() + self.incidents.len() + self.moved.len() + self.absorbed.len()
    }

    /// The same for the store.
    pub fn changes(&self) -> Changes<'_> {
        Changes { alerts: &self.alerts, incidents: &self.incidents, moved: &self.moved, absorbed: &self.absorbed }
    }

    /// An alert that is in it carries its move itself.
    fn place_alerts(&mut self) {
        let places: FxHashMap<AlertId, usize> =
            self.alerts.iter().enumerate().map(|(idx, alert)| (alert.id, idx)).collect();
        self.moved.retain(|(alert, incident)| match places.get(alert) {
            Some(&idx) => {
                self.alerts[idx].incident = Some(*incident);
                false
            }
            None => true,
        });
    }
}

/// Drops all but the last of those with one key.
fn keep_latest<T, K: Hash + Eq>(items: &mut Vec<T>, key: impl Fn(&T) -> K) {
    let mut seen = FxHashSet::default();
    items.reverse();
    items.retain(|item| seen.insert(key(item)));
    items.reverse();
}

/// Writes `publication` after what could not be written before it, and gives back what could not be written now.
pub fn write(store: &Store, unwritten: Publication, publication: &Publication) -> Publication {
    let joined = (!unwritten.is_empty()).then(|| Publication::merged([unwritten, publication.clone()]));
    let all = joined.as_ref().unwrap_or(publication);
    let Err(error) = store.apply(&all.changes()) else { return Publication::default() };
    metrics::counter!("faultline_store_failed_writes_total", "what" => "alerts").increment(1);
    let error = &error as &(dyn std::error::Error + 'static);
    if all.len() > MAX_MERGED {
        tracing::error!(
            n_lost = all.len(),
            error,
            "could not write alerts to the store, and too many wait: they are lost"
        );
        return Publication::default();
    }
    tracing::error!(
        n_waiting = all.len(),
        error,
        "could not write alerts to the store; they wait for the next attempt"
    );
    joined.unwrap_or_else(|| publication.clone())
}

#[cfg(test)]
mod tests {
    use faultline_core::{AlertState, Evidence, Severity};
    use faultline_store::{AlertFilter, StoreConfig};

    use super::*;

    fn alert(id: u64, state: AlertState, incident: Option<u64>) -> Alert {
        Alert {
            id: AlertId(id),
            detector: "ngram".into(),
            model_version: 1,
            signal: "logs".into(),
            stream: "app".into(),
            session: format!("session {id}"),
            service: String::new(),
            severity: Severity::Warning,
            state,
            p_value: 1e-4,
            score: 1.0,
            start_unix_nano: 1,
            end_unix_nano: 2,
            n_windows: 1,
            evidence: Evidence::default(),
            incident: incident.map(IncidentId),
        }
    }

    fn incident(id: u64, alerts: &[u64]) -> Incident {
        Incident {
            id: IncidentId(id),
            severity: Severity::Warning,
            state: AlertState::Firing,
            start_unix_nano: 1,
            end_unix_nano: 2,
            alerts: alerts.iter().copied().map(AlertId).collect(),
            services: Vec::new(),
            causes: Vec::new(),
            summary: String::new(),
        }
    }

    fn update(incidents: &[Incident], moved: &[(u64, u64)], merged: &[(u64, u64)]) -> Update {
        Update {
            incidents: incidents.to_vec(),
            alerts: moved.iter().map(|&(alert, incident)| (AlertId(alert), IncidentId(incident))).collect(),
            merged: merged.iter().map(|&(gone, stays)| (IncidentId(gone), IncidentId(stays))).collect(),
        }
    }

    #[test]
    fn of_each_the_latest_state_is_told() {
        let fires =
            Publication::new(vec![alert(1, AlertState::Firing, None)], update(&[incident(7, &[1])], &[(1, 7)], &[]));
        let ends = Publication::new(
            vec![alert(2, AlertState::Firing, None), alert(1, AlertState::Resolved, Some(7))],
            update(&[incident(7, &[1, 2])], &[(2, 7)], &[]),
        );
        let told = Publication::merged([fires, Publication::default(), ends]);
        assert_eq!(
            told.alerts,
            [alert(2, AlertState::Firing, Some(7)), alert(1, AlertState::Resolved, Some(7))],
            "each once, with its incident"
        );
        assert_eq!(told.incidents, [incident(7, &[1, 2])]);
        assert_eq!((told.changes().moved, told.changes().absorbed), (&[][..], &[][..]));
    }

    #[test]
    fn an_absorbed_incident_is_not_told_and_its_alerts_move() {
        let rounds = [
            Publication::new(vec![alert(1, AlertState::Firing, None)], update(&[incident(7, &[1])], &[(1, 7)], &[])),
            Publication::new(vec![alert(2, AlertState::Firing, None)], update(&[incident(8, &[2])], &[(2, 8)], &[])),
            Publication::new(Vec::new(), update(&[incident(7, &[1, 2, 3])], &[(2, 7), (3, 7)], &[(8, 7)])),
        ];
        let told = Publication::merged(rounds);
        assert_eq!(told.incidents, [incident(7, &[1, 2, 3])]);
        let expected = [alert(1, AlertState::Firing, Some(7)), alert(2, AlertState::Firing, Some(7))];
        assert_eq!(told.alerts, expected);
        assert_eq!(told.changes().moved, [(AlertId(3), IncidentId(7))], "an alert told of before");
        assert_eq!(told.changes().absorbed, [IncidentId(8)]);
    }

    #[test]
    fn merging_in_steps_is_merging_at_once() {
        let rounds = || {
            vec![
                Publication::new(
                    vec![alert(1, AlertState::Firing, None)],
                    update(&[incident(7, &[1])], &[(1, 7)], &[]),
                ),
                Publication::new(vec![alert(1, AlertState::Resolved, Some(7))], update(&[], &[(1, 9)], &[(7, 9)])),
                Publication::new(Vec::new(), update(&[incident(9, &[1])], &[(4, 9)], &[])),
            ]
        };
        let mut stepwise = Publication::default();
        for round in rounds() {
            stepwise = Publication::merged([stepwise, round]);
        }
        assert_eq!(stepwise, Publication::merged(rounds()));
    }

    #[test]
    fn what_could_not_be_written_is_written_with_the_next() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path(), StoreConfig::default()).expect("a store");
        let refuses = Store::open_for_reading(dir.path(), StoreConfig::default()).expect("a store");
        let publication = |id| Publication::new(vec![alert(id, AlertState::Firing, None)], Update::default());
        let unwritten = write(&refuses, Publication::default(), &publication(1));
        assert_eq!(unwritten, publication(1));
        let unwritten = write(&refuses, unwritten, &publication(2));
        assert_eq!(write(&store, unwritten, &publication(3)), Publication::default());
        let kept = store.alerts(&AlertFilter::default()).expect("read").items;
        assert_eq!(kept.iter().map(|alert| alert.id.0).collect::<Vec<_>>(), [1, 2, 3]);
    }
}
