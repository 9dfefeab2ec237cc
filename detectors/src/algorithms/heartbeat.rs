//! Heartbeat: an instance whose metrics have stopped coming.
//!
//! Station 7. Hayashibara, Défago, Yared and Katayama, "The φ Accrual Failure Detector", SRDS 2004, made adaptive and aware of losses
//! ([`crate::heartbeat`]). Each row of an instance is a heartbeat, at the beginning of its step. Silence has no window that
//! could be scored, so [`Detector::advance`] tells of it, once, when φ = −log₁₀ P(the next row is later still) has reached the
//! threshold: at steps that never failed before some five steps after the last row, later where they do fail. The score is φ in
//! nats; the alert lasts until the instance is heard of again.
//!
//! Time is event time, as far as any metric or span of the whole input has moved it. Where everything is silent it follows the clock in
//! service, and then every instance is silent: whoever stops a collector hears of it.
//!
//! Cost: 150 comparisons a row; of silent instances a sum of 64 terms each five seconds. Memory: 450 bytes an instance, at most
//! `max_instances`. Fails where instances come and go, as pods do: each that goes is an alert that nobody resolves. So it runs on request,
//! for fleets that are meant to stay.

use std::sync::Arc;

use faultline_core::{
    Detector, DetectorError, Evidence, GroupWindow, Overdue, Score, Signal, Silent, Window, WindowKey, hash::StableHash,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    algorithm::Algorithm,
    bounded::Bounded,
    bytes::{Magic, Reader, Writer},
    heartbeat::{Heartbeats, Rhythm},
    ranges::Ranges,
};

/// Event time between two looks for silent instances.
const LOOK_NANOS: i64 = 5_000_000_000;

/// Hyperparameters of [`Heartbeat`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// φ from which an instance is silent. Default 8: one silence in a hundred million is longer by chance. Lower it to hear sooner.
    pub threshold: f64,
    /// Instances to know: a memory bound. Default 10000; those not heard of for longest are forgotten first.
    pub max_instances: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { threshold: 8.0, max_instances: 10_000 }
    }
}

/// See the file's documentation.
pub struct Heartbeat;

/// A fitted model: when instances were heard of.
#[derive(Debug)]
pub struct Model {
    config: Config,
    version: u64,
    heartbeats: Heartbeats,
    instances: Bounded<Instance>,
    /// Event time of the latest look.
    looked_at: i64,
}

/// What has to be said of an instance when it is silent.
#[derive(Clone, Debug)]
struct Instance {
    column: Arc<str>,
    service: Arc<str>,
    step_nanos: i64,
    /// Where its last row begins.
    start_unix_nano: i64,
    is_told: bool,
}

const MAGIC: &Magic = b"faultlineHeartb1";

impl Algorithm for Heartbeat {
    const NAME: &'static str = "heartbeat";
    const SUMMARY: &'static str = "an instance whose metrics have stopped coming";
    const PAPER: &'static str = "Hayashibara, Défago, Yared, Katayama: The φ Accrual Failure Detector, SRDS 2004";
    const SIGNAL: Signal = Signal::Groups;
    const PUBLISHED_THRESHOLD: Option<f64> = None;
    const IS_SELF_CALIBRATED: bool = true;
    /// Instances that are meant to go would alert.
    const IS_DEFAULT: bool = false;

    type Config = Config;
    type Model = Model;

    fn fit(config: &Config, training: &[Window<'_>], _seed: u64) -> Result<Model, DetectorError> {
        let mut model = Model::new(config)?;
        training.iter().filter_map(Window::as_group).for_each(|window| model.hear(window));
        model.version = StableHash::new().bytes(&model.encode()).text(&format!("{config:?}")).finish();
        Ok(model)
    }

    fn load(config: &Config, snapshot: &[u8]) -> Result<Model, DetectorError> {
        let mut model = Model::new(config)?;
        let refuse = |reason: String| DetectorError::Snapshot { detector: Self::NAME.to_owned(), reason };
        let mut reader = Reader::open(MAGIC, snapshot).map_err(refuse)?;
        model.decode(&mut reader).ok_or_else(|| refuse("its content is damaged".to_owned()))?;
        Ok(model)
    }
}

impl Model {
    fn new(config: &Config) -> Result<Self, DetectorError> {
        let ranges = Ranges(Heartbeat::NAME);
        ranges.within([("threshold", config.threshold, 1.0..=100.0)])?;
        ranges.within([("max_instances", config.max_instances, 1..=1_000_000)])?;
        Ok(Self {
            config: config.clone(),
            version: 0,
            heartbeats: Heartbeats::new(config.max_instances),
            instances: Bounded::new(config.max_instances),
            looked_at: i64::MIN,
        })
    }

    /// Takes the rows that hold anything.
    fn hear(&mut self, window: &GroupWindow<'_>) {
        let Some(column) = window.columns.first() else { return };
        for row in (0..window.n_rows).filter(|row| window.row(*row).iter().any(|value| value.is_finite())) {
            let steps = i64::try_from(row).unwrap_or(i64::MAX);
            let at = window.start_unix_nano.saturating_add(window.step_nanos.saturating_mul(steps));
            self.heartbeats.arrive(window.key, at);
            let first = || Instance {
                column: Arc::clone(column),
                service: Arc::clone(window.service),
                step_nanos: window.step_nanos,
                start_unix_nano: at,
                is_told: false,
            };
            let instance = self.instances.touch(window.key, first);
            instance.step_nanos = window.step_nanos;
            instance.start_unix_nano = instance.start_unix_nano.max(at);
            instance.is_told = false;
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(MAGIC);
        writer.number(self.version);
        writer.integer(self.looked_at);
        self.heartbeats.write(&mut writer);
        writer.number(self.instances.len() as u64);
        for (key, instance) in self.instances.in_order() {
            writer.key(key);
            writer.text(&instance.column);
            writer.text(&instance.service);
            writer.integer(instance.step_nanos);
            writer.integer(instance.start_unix_nano);
            writer.byte(u8::from(instance.is_told));
        }
        writer.finish()
    }

    fn decode(&mut self, reader: &mut Reader<'_>) -> Option<()> {
        /// An instance has its lengths and times at least.
        const LEAST: usize = 32;
        self.version = reader.number()?;
        self.looked_at = reader.integer()?;
        self.heartbeats.read(reader)?;
        for _ in 0..reader.length(LEAST)? {
            let key = reader.key()?;
            let (column, service) = (reader.text()?, reader.text()?);
            let (step_nanos, start_unix_nano, is_told) = (reader.integer()?, reader.integer()?, reader.is()?);
            let instance = Instance { column, service, step_nanos, start_unix_nano, is_told };
            self.instances.touch(&key, || instance);
        }
        reader.is_empty().then_some(())
    }
}

impl Detector for Model {
    fn name(&self) -> &'static str {
        Heartbeat::NAME
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn signal(&self) -> Signal {
        Heartbeat::SIGNAL
    }

    /// 0: what sends is not silent.
    fn score(&mut self, windows: &[Window<'_>], scores: &mut Vec<Option<Score>>) {
        scores.extend(windows.iter().map(|window| {
            let group = window.as_group()?;
            self.hear(group);
            (!group.values.is_empty()).then_some(Score { value: 0.0, culprit: 0 })
        }));
    }

    fn advance(&mut self, watermark_unix_nano: i64) -> Vec<Overdue> {
        if watermark_unix_nano < self.looked_at.saturating_add(LOOK_NANOS) {
            return Vec::new();
        }
        self.looked_at = watermark_unix_nano;
        let is_quiet = |instance: &Instance| {
            let silence = watermark_unix_nano.saturating_sub(instance.start_unix_nano);
            !instance.is_told && silence > instance.step_nanos.saturating_mul(2)
        };
        let quiet = self.instances.in_order().into_iter().filter(|(_, instance)| is_quiet(instance));
        let quiet: Vec<(WindowKey, Instance)> = quiet.map(|(key, own)| (key.clone(), own.clone())).collect();
        let mut overdue = Vec::new();
        for (key, instance) in quiet {
            let phi = self.heartbeats.phi(&key, watermark_unix_nano).unwrap_or(0.0);
            if phi < self.config.threshold {
                continue;
            }
            if let Some(own) = self.instances.get_mut(&key) {
                own.is_told = true;
            }
            let Instance { column, service, step_nanos, start_unix_nano, .. } = instance;
            let silent = Some(Silent { column: [column], start_unix_nano, step_nanos, service });
            let score = Score { value: phi * std::f64::consts::LN_10, culprit: 0 };
            let (records, services) = (Vec::new(), Vec::new());
            overdue.push(Overdue { key, silent, records, services, is_stream: false, score });
        }
        overdue
    }

    fn explain(&self, window: &Window<'_>, score: &Score) -> Evidence {
        let key = window.key();
        let (instance, service) = (&key.session, &key.stream);
        let rhythm = self.heartbeats.rhythm(key).filter(|_| score.value > 0.0);
        let Some(Rhythm { interval_nanos, lost_share, .. }) = rhythm else {
            let summary = format!("{instance} of {service} sends its metrics");
            return Evidence { summary, ..Evidence::default() };
        };
        let silence = self.looked_at.saturating_sub(window.span_unix_nano().1) as f64 / 1e9;
        let interval = interval_nanos / 1e9;
        let summary = format!(
            "{instance} of {service} has sent no metrics for {silence:.0} s, where they came every {interval:.0} s and \
             {:.1} % of them were lost",
            100.0 * lost_share,
        );
        let figures = [
            ("phi", score.value / std::f64::consts::LN_10),
            ("silence_s", silence),
            ("interval_s", interval),
            ("lost_share", lost_share),
        ];
        let figures = figures.into_iter().map(|(name, figure)| (name.to_owned(), figure)).collect();
        Evidence { summary, figures, ..Evidence::default() }
    }

    fn learn(&mut self, _: &[Window<'_>]) {}

    fn snapshot(&self) -> Result<Vec<u8>, DetectorError> {
        Ok(self.encode())
    }
}

#[cfg(test)]
mod tests {
    use faultline_core::TemplateTexts;

    use super::*;
    use crate::testing::{GroupFixture, score_all};

    const MINUTE: i64 = 60_000_000_000;

    #[test]
    fn silence_is_told_once_until_there_are_news() {
        let fixture = GroupFixture::coupled("cart", 1, 1_000, 80, 0.0);
        let mut model = Heartbeat::fit(&Config::default(), &[], 0).expect("valid");
        let first: Vec<Window<'_>> = (0..50).map(|row| fixture.window(row..row + 1)).collect();
        assert!(score_all(&mut model, &first).iter().flatten().all(|score| score.value == 0.0));
        let last = first[49].span_unix_nano().1;
        assert_eq!(model.advance(last + 2 * MINUTE), [], "one row may be late");
        let told: Vec<i64> =
            (0..20).filter(|minutes| !model.advance(last + minutes * MINUTE + 3 * MINUTE).is_empty()).collect();
        assert!(told.len() == 1 && (0..8).contains(&told[0]), "{told:?}");
        score_all(&mut model, &[fixture.window(75..80)]);
        let news = fixture.window(75..80).span_unix_nano().1;
        let overdue = model.advance(news + 60 * MINUTE);
        let [again] = &overdue[..] else { panic!("{overdue:?}") };
        let window = again.window(TemplateTexts::NONE);
        let summary = model.explain(&window, &again.score).summary;
        assert!(summary.contains("no metrics for 3600 s, where they came every 60 s"), "{summary}");
        let culprit = window.culprit(again.score.culprit).expect("its service");
        assert_eq!((culprit.time_unix_nano, culprit.service), (news, "service"));
        let mut loaded = Heartbeat::load(&Config::default(), &model.snapshot().expect("written")).expect("its own");
        assert_eq!(loaded.advance(i64::MAX), [], "it has been told");
        assert_eq!(loaded.snapshot().expect("written").len(), model.snapshot().expect("written").len());
    }

    #[test]
    fn values_out_of_range_are_refused_by_key() {
        let error = Heartbeat::fit(&Config { threshold: 0.5, ..Config::default() }, &[], 0).expect_err("too low");
        assert!(error.to_string().contains("key `threshold`"), "{error}");
    }
}
