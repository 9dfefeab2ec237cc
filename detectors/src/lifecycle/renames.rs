//! Templates that the parser merges into others while detectors learn.
//!
//! From a merge on, records carry the survivor's id. Sessions that were collected before it are fitted on under that id too, so
//! that a model never knows two names for one template ([`Renames`]). A model that is in service already knows the sessions as
//! they were; how many of them hold a merged template ([`Vocabulary`]) says how much of what it knows has become void.
//!
//! Cost: a hash lookup a record of a fit, when there were merges. Memory: [`MAX_TEMPLATES`] ids each.

use faultline_core::{LogEntry, TemplateId, Window};
use rustc_hash::{FxHashMap, FxHashSet};

/// Templates that are remembered; the parser keeps fewer by default.
const MAX_TEMPLATES: usize = 262_144;

/// Ids of merged templates with those that took their place.
#[derive(Clone, Debug, Default)]
pub(crate) struct Renames(FxHashMap<TemplateId, TemplateId>);

impl Renames {
    pub(super) fn extend(&mut self, aliases: &[(TemplateId, TemplateId)]) {
        for (alias, template) in aliases {
            if self.0.len() < MAX_TEMPLATES || self.0.contains_key(alias) {
                self.0.insert(*alias, *template);
            }
            // It lives: whatever it was merged into in an earlier life.
            self.0.remove(template);
        }
    }

    /// All of them, in order.
    pub(super) fn pairs(&self) -> Vec<(TemplateId, TemplateId)> {
        let mut pairs: Vec<_> = self.0.iter().map(|(alias, template)| (*alias, *template)).collect();
        pairs.sort_unstable();
        pairs
    }

    /// Gives records the ids that the parser would give them now.
    pub(crate) fn apply(&self, records: &mut [LogEntry]) {
        /// The parser tells of survivors only, so there is more than one step only where it had to forget an alias.
        const MAX_STEPS: usize = 4;
        if self.0.is_empty() {
            return;
        }
        for record in records {
            for _ in 0..MAX_STEPS {
                let Some(template) = self.0.get(&record.template) else { break };
                record.template = *template;
            }
        }
    }
}

/// The sessions that models were fitted on, by the templates that they hold.
#[derive(Debug, Default)]
pub(super) struct Vocabulary {
    n_sessions: usize,
    n_with: FxHashMap<TemplateId, usize>,
}

impl Vocabulary {
    pub(super) fn of(windows: &[Window<'_>]) -> Self {
        let mut vocabulary = Self { n_sessions: windows.len(), n_with: FxHashMap::default() };
        let mut own: FxHashSet<TemplateId> = FxHashSet::default();
        for log in windows.iter().filter_map(Window::as_log) {
            own.clear();
            own.extend(log.records.iter().map(|record| record.template));
            for template in &own {
                if vocabulary.n_with.len() < MAX_TEMPLATES || vocabulary.n_with.contains_key(template) {
                    *vocabulary.n_with.entry(*template).or_default() += 1;
                }
            }
        }
        vocabulary
    }

    /// The share of sessions that hold a template, which is forgotten: it has been merged.
    pub(super) fn forget(&mut self, template: TemplateId) -> f64 {
        let n_with = self.n_with.remove(&template).unwrap_or(0);
        n_with as f64 / self.n_sessions.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Session;

    fn id(alias: u64, template: u64) -> (TemplateId, TemplateId) {
        (TemplateId(alias), TemplateId(template))
    }

    #[test]
    fn records_get_the_ids_of_the_survivors() {
        let mut renames = Renames::default();
        renames.extend(&[id(2, 1), id(3, 1)]);
        // The parser tells of all that a survivor had taken in when it is merged itself.
        renames.extend(&[id(1, 5), id(2, 5), id(3, 5)]);
        let mut session = Session::of("s", &[1, 2, 3, 4]);
        renames.apply(&mut session.records);
        assert_eq!(session.records.iter().map(|record| record.template.0).collect::<Vec<_>>(), [5, 5, 5, 4]);
        // Another parser, another order: the one that was merged survives.
        renames.extend(&[id(5, 1)]);
        let mut session = Session::of("s", &[1, 5]);
        renames.apply(&mut session.records);
        assert_eq!(session.records.iter().map(|record| record.template.0).collect::<Vec<_>>(), [1, 1]);
    }

    #[test]
    fn a_merged_template_counts_once_by_its_share_of_sessions() {
        let sessions =
            [Session::of("a", &[1, 1, 2]), Session::of("b", &[1]), Session::of("c", &[3]), Session::of("d", &[])];
        let windows: Vec<_> = sessions.iter().map(Session::closed).collect();
        let mut vocabulary = Vocabulary::of(&windows);
        assert_eq!((vocabulary.forget(TemplateId(1)), vocabulary.forget(TemplateId(2))), (0.5, 0.25));
        assert_eq!((vocabulary.forget(TemplateId(1)), vocabulary.forget(TemplateId(9))), (0.0, 0.0));
    }
}
