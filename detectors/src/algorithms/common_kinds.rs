//! Common kinds: an ended session that holds a fact which is not common among the sessions of late.
//!
//! Station 7. A fact about a session is how often it holds a template: n times, or not at all. Modes of operation come and go but hold a
//! good share of the sessions while they last; kinds of failure stay rare. So a fact becomes common, for good, once its
//! share of the sessions has demonstrably exceeded what failures reach, and a session is abnormal while it
//! holds a fact that is not. The demonstration is Page's one-sided cumulative sum ("Continuous Inspection Schemes", Biometrika
//! 1954) over sessions x ∈ {0, 1}: S ← max(0, S + x − k), common when S > h, at two speeds: more than `slow_share` for
//! long, or more than `fast_share` for a few sessions. The facts of the training sessions are common from a share of
//! `common_share` on. Counts of a template that has no usual count are one fact, "occurs".
//!
//! It learns from every session that it scores, abnormal or not, because a new mode is abnormal at first. What an attacker can teach it is
//! bounded by that share: sessions of his kind have to be one in twelve of all for hundreds, or two in five at once.
//! A few failures in the training data do not matter. Where drift makes the count vector and DeepLog flag most
//! sessions (HDFS in order of time, ten starts), this one's F1 is .94.
//!
//! Cost: a hash lookup and two additions for each distinct template of a session. Memory: `max_templates` times
//! [`MAX_COUNTS`] facts. Fails where sessions are of many seldom kinds, which then stay abnormal, and on failures that hold
//! more than `slow_share` of the sessions for long. Streams without a session key, and sessions of which the length
//! cap has cut records off, are not judged.

use faultline_core::{Detector, DetectorError, Evidence, LogWindow, Score, Signal, TemplateId, Window};
use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::count_vector::{Counts, count_into};
use crate::{algorithm::Algorithm, evidence, snapshot};

/// Hyperparameters of [`CommonKinds`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Share of sessions that no kind of failure is thought to hold for long. Default 0.08.
    pub slow_share: f64,
    /// Sessions beyond that share that make a fact common. Default 40.
    pub slow_excess: u32,
    /// Share of sessions that no kind of failure is thought to hold even for a while. Default 0.4.
    pub fast_share: f64,
    /// Sessions beyond that share that make a fact common. Default 10.
    pub fast_excess: u32,
    /// Share of the training sessions from which a fact is common. Default 0.03; must exceed the share of failures in the
    /// training data.
    pub common_share: f64,
    /// Share of the sessions with a template that must agree in its count for other counts to be facts of their own. Default
    /// 0.97.
    pub rigid_share: f64,
    /// Templates to remember, a memory bound. Beyond it nothing new is learned.
    pub max_templates: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            slow_share: 0.08,
            slow_excess: 40,
            fast_share: 0.4,
            fast_excess: 10,
            common_share: 0.03,
            rigid_share: 0.97,
            max_templates: 20_000,
        }
    }
}

/// See the file's documentation.
pub struct CommonKinds;

/// Distinct counts of one template that are told apart; a template with more has no usual count.
pub const MAX_COUNTS: usize = 32;

/// Thousandths in which cumulative sums are kept: integers come back from a snapshot as they were.
const UNIT: i64 = 1_000;

/// One fact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Fact {
    /// Sessions that held it.
    n: u64,
    /// Number of the last of them.
    last: u64,
    slow: i64,
    fast: i64,
    is_common: bool,
}

/// The facts about one template.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Facts {
    present: Fact,
    /// None once sessions without the template are common.
    absent: Option<Fact>,
    /// By count, in order of appearance.
    counts: Vec<(u32, Fact)>,
    /// Position in `counts` of the most frequent one.
    mode: usize,
}

/// What a snapshot holds, sorted so that equal models write equal bytes.
#[derive(Serialize, Deserialize)]
struct State {
    version: u64,
    n_sessions: u64,
    templates: Vec<(TemplateId, Facts)>,
}

/// The facts about sessions so far.
#[derive(Debug)]
pub struct Model {
    config: Config,
    version: u64,
    n_sessions: u64,
    templates: FxHashMap<TemplateId, Facts>,
    /// Templates that sessions without are not common, in order.
    universal: Vec<TemplateId>,
    scratch: Counts,
}

/// A fact that is not common.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Odd {
    template: TemplateId,
    /// How often the session holds it.
    count: u32,
    /// Sessions that held the fact before.
    n: u64,
}

impl Algorithm for CommonKinds {
    const NAME: &'static str = "common-kinds";
    const SUMMARY: &'static str =
        "an ended session with a template or a count that is not common of late; follows drift";
    const PAPER: &'static str =
        "Page: Continuous Inspection Schemes, Biometrika 1954, on the presence and count of templates";
    const SIGNAL: Signal = Signal::Logs;
    /// Any fact that is not common.
    const PUBLISHED_THRESHOLD: Option<f64> = Some(0.0);
    /// A member of the ensemble.
    const IS_DEFAULT: bool = false;

    type Config = Config;
    type Model = Model;

    fn fit(config: &Config, training: &[Window<'_>], _seed: u64) -> Result<Model, DetectorError> {
        check(config)?;
        let state = State { version: 0, n_sessions: 0, templates: Vec::new() };
        let mut model = Model::with(config.clone(), state);
        let mut counts = Counts::new();
        for log in training.iter().filter_map(judged) {
            count_into(log, &mut counts);
            model.observe(&counts);
        }
        if model.n_sessions == 0 {
            let reason = "no training session has ended".to_owned();
            return Err(DetectorError::Fit { detector: Self::NAME.to_owned(), reason });
        }
        model.accept_frequent();
        model.version = snapshot::version_of(Self::NAME, &(config, model.state()))?;
        Ok(model)
    }

    fn load(config: &Config, bytes: &[u8]) -> Result<Model, DetectorError> {
        check(config)?;
        Ok(Model::with(config.clone(), snapshot::decode(Self::NAME, bytes)?))
    }
}

fn check(config: &Config) -> Result<(), DetectorError> {
    let shares = [
        ("slow_share", config.slow_share),
        ("fast_share", config.fast_share),
        ("common_share", config.common_share),
        ("rigid_share", config.rigid_share),
    ];
    match shares.into_iter().find(|(_, share)| !(*share > 0.0 && *share <= 1.0)) {
        Some((key, share)) => {
            let reason = format!("key `{key}`: {share} is not above 0 and at most 1");
            Err(DetectorError::Config { detector: CommonKinds::NAME.to_owned(), reason })
        }
        None => Ok(()),
    }
}

fn judged<'w, 'a>(window: &'w Window<'a>) -> Option<&'w LogWindow<'a>> {
    let is_whole = |log: &&LogWindow<'_>| log.is_closed() && !log.is_stream && log.n_dropped == 0;
    window.as_log().filter(is_whole).filter(|log| !log.records.is_empty())
}

impl Fact {
    /// Session number `now` holds it. The sums of the sessions since `last`, which did not, are made up for.
    fn observe(&mut self, now: u64, config: &Config) {
        let missed = i64::try_from(now - 1 - self.last).unwrap_or(i64::MAX);
        let step = |sum: i64, share: f64, excess: u32| {
            let share = (share * UNIT as f64).round() as i64;
            let sum = sum.saturating_sub(missed.saturating_mul(share)).max(0) + UNIT - share;
            let enough = i64::from(excess) * UNIT;
            (sum.min(enough), sum > enough)
        };
        let (slow, is_steady) = step(self.slow, config.slow_share, config.slow_excess);
        let (fast, has_taken_over) = step(self.fast, config.fast_share, config.fast_excess);
        let is_common = self.is_common || is_steady || has_taken_over;
        *self = Self { n: self.n + 1, last: now, slow, fast, is_common };
    }

    /// One that all of the first `n` sessions held.
    fn of_all(n: u64, config: &Config) -> Self {
        let n_signed = i64::try_from(n).unwrap_or(i64::MAX);
        let sum = |share: f64, excess: u32| {
            let rise = UNIT - (share * UNIT as f64).round() as i64;
            let enough = i64::from(excess) * UNIT;
            let sum = n_signed.saturating_mul(rise);
            (sum.min(enough), sum > enough)
        };
        let (slow, is_steady) = sum(config.slow_share, config.slow_excess);
        let (fast, has_taken_over) = sum(config.fast_share, config.fast_excess);
        Self { n, last: n, slow, fast, is_common: is_steady || has_taken_over }
    }
}

impl Facts {
    /// Whether most sessions with the template agree in its count.
    fn is_rigid(&self, config: &Config) -> bool {
        let usual = self.counts.get(self.mode).map_or(0, |(_, fact)| fact.n);
        usual as f64 >= config.rigid_share * self.present.n as f64
    }

    fn of_count(&self, count: u32) -> Option<&Fact> {
        self.counts.iter().find(|(other, _)| *other == count).map(|(_, fact)| fact)
    }

    /// Makes a count common; says whether it was not. Where there are too many counts the rarest makes room.
    fn accept_count(&mut self, count: u32) -> bool {
        if let Some((_, fact)) = self.counts.iter_mut().find(|(other, _)| *other == count) {
            return !std::mem::replace(&mut fact.is_common, true);
        }
        let accepted = (count, Fact { is_common: true, ..Fact::default() });
        if self.counts.len() < MAX_COUNTS {
            self.counts.push(accepted);
            return true;
        }
        let others = (0..self.counts.len()).filter(|at| *at != self.mode);
        let rarest = others.min_by_key(|&at| (self.counts[at].1.is_common, self.counts[at].1.n));
        if let Some(at) = rarest {
            self.counts[at] = accepted;
        }
        rarest.is_some()
    }
}

impl Model {
    fn with(config: Config, state: State) -> Self {
        let universal = state.templates.iter().filter(|(_, facts)| facts.absent.is_some()).map(|(id, _)| *id).collect();
        Self {
            config,
            version: state.version,
            n_sessions: state.n_sessions,
            templates: state.templates.into_iter().collect(),
            universal,
            scratch: Counts::new(),
        }
    }

    fn state(&self) -> State {
        let mut templates: Vec<_> = self.templates.iter().map(|(id, facts)| (*id, facts.clone())).collect();
        templates.sort_unstable_by_key(|(id, _)| *id);
        State { version: self.version, n_sessions: self.n_sessions, templates }
    }

    /// Whether sessions that hold `template` are common.
    #[must_use]
    pub fn is_common(&self, template: TemplateId) -> bool {
        self.templates.get(&template).is_some_and(|facts| facts.present.is_common)
    }

    /// The facts about a session of these counts that are not common: present templates first.
    fn odd<'a>(&'a self, counts: &'a Counts) -> impl Iterator<Item = Odd> + 'a {
        let present = counts.iter().filter_map(|&(template, count)| {
            let Some(facts) = self.templates.get(&template) else { return Some(Odd { template, count, n: 0 }) };
            let fact = if facts.is_rigid(&self.config) {
                facts.of_count(count).copied().unwrap_or_default()
            } else {
                facts.present
            };
            (!fact.is_common).then_some(Odd { template, count, n: fact.n })
        });
        let is_absent = |template: &&TemplateId| counts.binary_search_by_key(*template, |(id, _)| *id).is_err();
        let absent = self.universal.iter().filter(is_absent).map(|&template| Odd {
            template,
            count: 0,
            n: self.templates.get(&template).and_then(|facts| facts.absent).map_or(0, |fact| fact.n),
        });
        present.chain(absent)
    }

    /// −ln of the share of sessions that hold the fact.
    fn rarity(&self, odd: &Odd) -> f64 {
        ((self.n_sessions + 2) as f64 / (odd.n + 1) as f64).ln()
    }

    /// Takes note of a session.
    fn observe(&mut self, counts: &Counts) {
        self.n_sessions += 1;
        let (now, config) = (self.n_sessions, &self.config);
        for &(template, count) in counts {
            if !self.templates.contains_key(&template) {
                if self.templates.len() >= config.max_templates {
                    continue;
                }
                let absent = Some(Fact::of_all(now - 1, config)).filter(|fact| !fact.is_common);
                if absent.is_some() {
                    let at = self.universal.partition_point(|other| *other < template);
                    self.universal.insert(at, template);
                }
                let facts = Facts { present: Fact::default(), absent, counts: Vec::new(), mode: 0 };
                self.templates.insert(template, facts);
            }
            let Some(facts) = self.templates.get_mut(&template) else { continue };
            facts.present.observe(now, config);
            let at = match facts.counts.iter().position(|(other, _)| *other == count) {
                Some(at) => at,
                None if facts.counts.len() >= MAX_COUNTS => continue,
                None => {
                    facts.counts.push((count, Fact::default()));
                    facts.counts.len() - 1
                }
            };
            facts.counts[at].1.observe(now, config);
            if facts.counts[at].1.n > facts.counts[facts.mode].1.n {
                facts.mode = at;
            }
        }
        let templates = &mut self.templates;
        self.universal.retain(|template| {
            let is_present = counts.binary_search_by_key(template, |(id, _)| *id).is_ok();
            let Some(facts) = templates.get_mut(template) else { return false };
            if !is_present && let Some(absent) = &mut facts.absent {
                absent.observe(now, config);
                if absent.is_common {
                    facts.absent = None;
                }
            }
            facts.absent.is_some()
        });
    }

    /// The end of the training: what is frequent in it is common.
    fn accept_frequent(&mut self) {
        let least = self.config.common_share * self.n_sessions as f64;
        let is_frequent = |fact: &Fact| fact.n as f64 >= least;
        for facts in self.templates.values_mut() {
            facts.present.is_common |= is_frequent(&facts.present);
            for (_, fact) in &mut facts.counts {
                fact.is_common |= is_frequent(fact);
            }
            facts.absent = facts.absent.filter(|fact| !is_frequent(fact));
        }
        let templates = &self.templates;
        self.universal.retain(|template| templates.get(template).is_some_and(|facts| facts.absent.is_some()));
    }
}

impl Detector for Model {
    fn name(&self) -> &'static str {
        CommonKinds::NAME
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn signal(&self) -> Signal {
        CommonKinds::SIGNAL
    }

    /// The sum of the rarities of the facts that are not common, 0 without one. The culprit is the first record of the
    /// rarest; the last record when something is only missing.
    fn score(&mut self, windows: &[Window<'_>], scores: &mut Vec<Option<Score>>) {
        let mut counts = std::mem::take(&mut self.scratch);
        for window in windows {
            let Some(log) = judged(window) else {
                scores.push(None);
                continue;
            };
            count_into(log, &mut counts);
            let (mut value, mut rarest) = (0.0, None);
            for odd in self.odd(&counts) {
                let rarity = self.rarity(&odd);
                value += rarity;
                if odd.count > 0 && rarest.is_none_or(|(most, _)| rarity > most) {
                    rarest = Some((rarity, odd.template));
                }
            }
            let first = rarest.and_then(|(_, template)| log.records.iter().position(|r| r.template == template));
            scores.push(Some(Score { value, culprit: first.unwrap_or(log.records.len() - 1) }));
            self.observe(&counts);
        }
        self.scratch = counts;
    }

    fn explain(&self, window: &Window<'_>, score: &Score) -> Evidence {
        let Some((log, culprit)) = window.as_log().and_then(|log| Some((log, log.records.get(score.culprit)?))) else {
            return Evidence { summary: "the window holds no record".to_owned(), ..Evidence::default() };
        };
        let mut counts = Counts::new();
        count_into(log, &mut counts);
        let odd: Vec<Odd> = self.odd(&counts).collect();
        let told: Vec<String> = odd
            .iter()
            .take(MAX_TOLD)
            .map(|odd| match odd.count {
                0 => format!("template {} is missing, as in {} of {}", odd.template, odd.n, self.n_sessions),
                count => {
                    format!("template {} occurs {count} times, as in {} of {}", odd.template, odd.n, self.n_sessions)
                }
            })
            .collect();
        let deciding = log.records.iter().filter(|record| odd.iter().any(|odd| odd.template == record.template));
        Evidence {
            summary: if told.is_empty() {
                "everything about the session is common by now".to_owned()
            } else {
                format!("not common among sessions: {}", told.join("; "))
            },
            seen: Some(culprit.template),
            expected: Vec::new(),
            culprit: Some(culprit.record),
            records: evidence::around(log.records, score.culprit, deciding.map(|record| record.record)),
            figures: [("n_odd_facts".to_owned(), odd.len() as f64), ("n_sessions".to_owned(), self.n_sessions as f64)]
                .into(),
        }
    }

    /// Does nothing: it has learned from the windows when it scored them. See the file's documentation.
    fn learn(&mut self, _windows: &[Window<'_>]) {}

    /// What it holds is common from now on; how often, and what it does not hold, once it has ended.
    fn accept(&mut self, window: &Window<'_>, _cut: f64) -> usize {
        let Some(log) = window.as_log().filter(|log| !log.is_stream) else { return 0 };
        let mut counts = Counts::new();
        count_into(log, &mut counts);
        let is_whole = judged(window).is_some();
        let mut n_learned = 0;
        for &(template, count) in &counts {
            if self.templates.len() >= self.config.max_templates && !self.templates.contains_key(&template) {
                continue;
            }
            let facts = self.templates.entry(template).or_insert_with(|| Facts {
                present: Fact::default(),
                absent: None,
                counts: Vec::new(),
                mode: 0,
            });
            n_learned += usize::from(!std::mem::replace(&mut facts.present.is_common, true));
            n_learned += usize::from(is_whole && facts.accept_count(count));
        }
        if is_whole {
            let templates = &mut self.templates;
            self.universal.retain(|template| {
                let is_present = counts.binary_search_by_key(template, |(id, _)| *id).is_ok();
                if !is_present && let Some(facts) = templates.get_mut(template) {
                    facts.absent = None;
                    n_learned += 1;
                }
                is_present
            });
        }
        if n_learned > 0 {
            self.version = snapshot::version_after(self.version, window);
        }
        n_learned
    }

    fn snapshot(&self) -> Result<Vec<u8>, DetectorError> {
        snapshot::encode(CommonKinds::NAME, &self.state())
    }
}

/// Facts that a summary names.
const MAX_TOLD: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Session, score_all};

    fn sessions(n: usize, templates: &[u64]) -> Vec<Session> {
        (0..n).map(|idx| Session::of(&format!("{idx}"), templates)).collect()
    }

    fn fitted(sessions: &[Session]) -> Model {
        let windows: Vec<_> = sessions.iter().map(Session::closed).collect();
        CommonKinds::fit(&Config::default(), &windows, 0).expect("there are ended sessions")
    }

    fn value(model: &mut Model, templates: &[u64]) -> f64 {
        score_all(model, &[Session::of("x", templates).closed()])[0].expect("judged").value
    }

    #[test]
    fn an_unusual_count_a_missing_and_an_unseen_template_are_odd() {
        let mut model = fitted(&sessions(200, &[1, 2, 2, 3]));
        assert_eq!(value(&mut model, &[3, 2, 1, 2]), 0.0);
        assert!(value(&mut model, &[1, 2, 2, 2, 3]) > 0.0, "three instead of two");
        assert!(value(&mut model, &[1, 2, 2]) > 0.0, "without its end");
        assert!(value(&mut model, &[1, 2, 2, 3, 9]) > 0.0, "a new template");
    }

    #[test]
    fn a_template_without_a_usual_count_may_occur_any_number_of_times() {
        let mixed: Vec<_> = (0..200).map(|idx| Session::of("s", &[vec![1; 1 + idx % 7], vec![2]].concat())).collect();
        let mut model = fitted(&mixed);
        assert_eq!(value(&mut model, &[vec![1; 30], vec![2]].concat()), 0.0);
        assert!(value(&mut model, &[2]) > 0.0, "but it has to occur");
    }

    #[test]
    fn a_few_failures_in_training_stay_failures() {
        let mut training = sessions(200, &[1, 2]);
        training.extend(sessions(3, &[1, 8]));
        assert!(value(&mut fitted(&training), &[1, 8]) > 0.0);
    }

    #[test]
    fn a_mode_that_takes_over_is_common_after_a_few_sessions() {
        let mut model = fitted(&sessions(200, &[1, 2]));
        let n_odd = (0..100).filter(|_| value(&mut model, &[1, 2, 5]) > 0.0).count();
        assert_eq!(n_odd, 17, "S exceeds 10 after 17 sessions of 1 − .4 each");
    }

    #[test]
    fn a_failure_that_stays_below_the_share_is_never_learned() {
        let mut model = fitted(&sessions(200, &[1, 2]));
        for _ in 0..400 {
            for _ in 0..14 {
                assert_eq!(value(&mut model, &[1, 2]), 0.0);
            }
            assert!(value(&mut model, &[1, 2, 6]) > 0.0, "one in fifteen");
        }
    }

    #[test]
    fn a_snapshot_in_the_middle_of_a_rise_goes_on_rising() {
        let mut model = fitted(&sessions(200, &[1, 2]));
        for _ in 0..10 {
            value(&mut model, &[1, 2, 5]);
        }
        let bytes = model.snapshot().expect("written");
        let mut restored = CommonKinds::load(&Config::default(), &bytes).expect("its own");
        let n_odd = (0..100).filter(|_| value(&mut restored, &[1, 2, 5]) > 0.0).count();
        assert_eq!(n_odd, 7);
    }
}
