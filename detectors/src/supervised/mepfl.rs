//! MEPFL: whether a trace was disturbed, by which service, and by what kind of fault, learned from traces of which that
//! is known.
//!
//! Beside station 7 (see [`super`]). Zhou, Peng, Xie, Sun, Ji, Liu, Xiang, He, "Latent Error Prediction and Fault
//! Localization for Microservice Applications by Learning from System Trace Logs", FSE 2019. Three models: *latent
//! error* says whether something is wrong with a trace, *faulty service* ranks its services, *fault type* names the
//! kind. Each is a forest ([`super::forest`]) over figures of spans (`features`): times of their own and with what they
//! wait for, ways between services, calls that are missing or extra, calls side by side and calls that outlive their
//! caller, errors.
//!
//! Figures of normal traces are taken against what is usual in the other half of them, since new traces are not among those
//! that say what is usual either. The fault type is asked of the service that is ranked first.
//!
//! As a detector it scores the logarithm of the odds of a latent error, and its culprit is the first span of the
//! service that it ranks first. It is no member of the registry, because it cannot be fitted without labels.
//!
//! Cost of a fit: that of three forests, and two passes over the traces; of a score: two hash look-ups a span and
//! `n_trees` walks for each service of the trace. Memory: that of the forests, 100 bytes a task, and in a fit 88 bytes
//! for each service of each trace with a fault. Fails on kinds of faults that it was not shown, where one service fails
//! in all examples so that nothing tells the service from the fault, and once the application has changed so much that
//! what is usual is not.
//!
//! Differs from the paper: it has a feature for each service of the application, so that a service is only ever found
//! if it failed in training; here the services of one trace are rows of one table with the same features, relative to
//! what is usual, so that what failing looks like carries over. The paper injects faults into a second copy of the
//! application and traces resources and configuration, which spans do not tell; it compares forests with nearest
//! neighbours and perceptrons.

mod features;
#[cfg(test)]
mod tests;
mod usual;

use std::{collections::BTreeSet, sync::Arc};

use faultline_core::{
    Detector, DetectorError, Evidence, RecordId, Score, ServiceIdx, Signal, TraceWindow, Window, hash::StableHash,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::{
    features::{Extractor, Features, SERVICE, TRACE},
    usual::Usual,
};
use super::{
    forest::{Forest, ForestConfig, Table},
    labels::Label,
};
use crate::{
    algorithm::Algorithm,
    bytes::{Magic, Reader, Writer},
    ranges::Ranges,
};

/// Kinds of faults that are told apart.
const MAX_KINDS: usize = 256;

/// Hyperparameters of [`Mepfl`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How the three forests grow.
    pub forest: ForestConfig,
    /// Call paths and operations whose usual behaviour is known, the first ones of the normal traces. Default 16384: a
    /// memory bound.
    pub max_tasks: usize,
    /// Traces of each kind, normal ones and disturbed ones, that the forests learn from; of more, every so manieth. Default
    /// 100000: a memory bound.
    pub max_traces: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { forest: ForestConfig::default(), max_tasks: 16_384, max_traces: 100_000 }
    }
}

impl Config {
    fn check(&self) -> Result<(), DetectorError> {
        Ranges(Mepfl::NAME).within([
            ("forest.n_trees", self.forest.n_trees, 1..=10_000),
            ("forest.max_depth", self.forest.max_depth, 1..=64),
            ("forest.min_leaf", self.forest.min_leaf, 1..=1 << 20),
            ("forest.rows_a_tree", self.forest.rows_a_tree, 2..=1 << 24),
            ("max_tasks", self.max_tasks, 1..=1 << 20),
            ("max_traces", self.max_traces, 2..=1 << 24),
        ])
    }
}

/// See the file's documentation.
pub struct Mepfl;

const MAGIC: &Magic = b"faultline mepfl1";

/// A fitted model.
#[derive(Debug)]
pub struct Model {
    version: u64,
    usual: Usual,
    /// Kinds of faults, in order of name: the classes of `fault_type`.
    kinds: Vec<Arc<str>>,
    latent_error: Forest,
    faulty_service: Forest,
    fault_type: Forest,
    extractor: Extractor,
}

/// What a model says of a trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// How likely something is wrong with it, 0 to 1, were disturbed traces as frequent as others.
    pub error: f64,
    /// Its services, the likeliest culprit first, each with how likely it is one, were culprits as frequent as others.
    pub services: Vec<(ServiceIdx, f64)>,
    /// How likely each kind of fault is in the first of them, in the order of [`Model::kinds`].
    pub kinds: Vec<f64>,
}

impl Prediction {
    /// Index of the likeliest kind.
    #[must_use]
    pub fn kind(&self) -> Option<usize> {
        let kinds = self.kinds.iter().enumerate();
        // The first of several.
        kinds.reduce(|best, own| if own.1 > best.1 { own } else { best }).map(|(idx, _)| idx)
    }
}

impl Mepfl {
    /// Learns from traces of which it is known whether and how they were disturbed: a label for each trace, in order.
    /// Traces of which spans were left out teach nothing.
    ///
    /// # Errors
    /// When a value of the configuration is out of range, when there is not a label for each trace, or fewer than two
    /// normal traces or no disturbed one that called its faulty service.
    pub fn fit_labelled(
        config: &Config,
        traces: &[TraceWindow<'_>],
        labels: &[Label],
        seed: u64,
    ) -> Result<Model, DetectorError> {
        config.check()?;
        let refuse = |reason: &str| DetectorError::Fit { detector: Self::NAME.to_owned(), reason: reason.to_owned() };
        if traces.len() != labels.len() {
            return Err(refuse("there must be a label for each trace"));
        }
        let pairs = || traces.iter().zip(labels);
        let normal: Vec<&TraceWindow<'_>> =
            pairs().filter(|(_, label)| label.fault().is_none()).map(|(trace, _)| trace).collect();
        let disturbed: Vec<_> = pairs().filter_map(|(trace, label)| Some((trace, label.fault()?))).collect();
        let kinds: BTreeSet<&Arc<str>> = disturbed.iter().map(|(_, fault)| &fault.kind).collect();
        let kinds: Vec<Arc<str>> = kinds.into_iter().take(MAX_KINDS).cloned().collect();
        let mut extractor = Extractor::default();
        let mut learn = |usual: &mut Usual, half: Option<usize>| {
            for (_, trace) in normal.iter().enumerate().filter(|(idx, _)| half.is_none_or(|half| idx % 2 == half)) {
                if extractor.calls.take(trace) {
                    usual.learn(&mut extractor.calls, config.max_tasks);
                }
            }
        };
        let (mut usual, mut halves) = (Usual::default(), [Usual::default(), Usual::default()]);
        learn(&mut usual, None);
        halves.iter_mut().enumerate().for_each(|(half, own)| learn(own, Some(half)));

        let mut tables = Tables::default();
        for idx in (0..normal.len()).step_by(normal.len().div_ceil(config.max_traces).max(1)) {
            // What is usual is taken from the half that it is not in.
            if let Some(features) = extractor.features(normal[idx], &halves[1 - idx % 2]) {
                tables.errors.push(&features.trace, 0);
            }
        }
        for idx in (0..disturbed.len()).step_by(disturbed.len().div_ceil(config.max_traces).max(1)) {
            let (trace, fault) = disturbed[idx];
            if let Some(features) = extractor.features(trace, &usual) {
                let kind = kinds.binary_search(&fault.kind).ok();
                tables.push_disturbed(trace, &features, &fault.service, kind);
            }
        }
        let n_normal = tables.errors.len() - tables.n_disturbed;
        if n_normal < 2 || tables.n_disturbed == 0 || tables.kinds.is_empty() {
            let reason =
                "it takes two complete normal traces and one complete disturbed one that called the faulty service";
            return Err(refuse(reason));
        }
        let grow = |table: &Table, part: &str| {
            let seed = StableHash::new().text(part).number(seed).finish();
            Forest::fit(table, &config.forest, seed).ok_or_else(|| refuse("there is nothing to learn from"))
        };
        let mut model = Model {
            version: 0,
            usual,
            kinds,
            latent_error: grow(&tables.errors, "latent error")?,
            faulty_service: grow(&tables.services, "faulty service")?,
            fault_type: grow(&tables.kinds, "fault type")?,
            extractor,
        };
        model.version = StableHash::new().bytes(&model.encode()).text(&format!("{config:?}")).finish();
        Ok(model)
    }
}

/// What the three forests learn from.
struct Tables {
    /// Traces: whether they were disturbed.
    errors: Table,
    /// Services of disturbed traces: whether it was them.
    services: Table,
    /// Services that were faulty: how.
    kinds: Table,
    n_disturbed: usize,
}

impl Default for Tables {
    fn default() -> Self {
        let (errors, services) = (Table::new(TRACE.len()), Table::new(SERVICE.len()));
        Self { errors, services, kinds: Table::new(SERVICE.len()), n_disturbed: 0 }
    }
}

impl Tables {
    fn push_disturbed(&mut self, trace: &TraceWindow<'_>, features: &Features, culprit: &str, kind: Option<usize>) {
        self.errors.push(&features.trace, 1);
        self.n_disturbed += 1;
        let name = |service: ServiceIdx| trace.services.get(service as usize).map_or("", |name| &**name);
        if !features.services.iter().any(|(service, _)| name(*service) == culprit) {
            return;
        }
        for (service, own) in &features.services {
            let is_culprit = name(*service) == culprit;
            self.services.push(own, u32::from(is_culprit));
            if let Some(kind) = kind.filter(|_| is_culprit) {
                self.kinds.push(own, kind as u32);
            }
        }
    }
}

impl Algorithm for Mepfl {
    const NAME: &'static str = "mepfl";
    const SUMMARY: &'static str = "a trace that looks like those that faults disturbed; learns from labels only";
    const PAPER: &'static str = "Zhou et al.: Latent Error Prediction and Fault Localization for Microservice Applications by \
                                 Learning from System Trace Logs, FSE 2019";
    const SIGNAL: Signal = Signal::Traces;
    const PUBLISHED_THRESHOLD: Option<f64> = None;
    const IS_DEFAULT: bool = false;
    const IS_SEEDED: bool = true;
    type Config = Config;
    type Model = Model;

    /// Always an error: see [`Mepfl::fit_labelled`].
    fn fit(config: &Config, _training: &[Window<'_>], _seed: u64) -> Result<Model, DetectorError> {
        config.check()?;
        let reason = "it learns from labelled traces, normal ones and ones of which the faulty service and the kind of fault are \
                      known, and a warm-up has no labels; fit it on recorded fault injections and load what it wrote";
        Err(DetectorError::Fit { detector: Self::NAME.to_owned(), reason: reason.to_owned() })
    }

    fn load(config: &Config, snapshot: &[u8]) -> Result<Model, DetectorError> {
        config.check()?;
        let refuse = |reason: String| DetectorError::Snapshot { detector: Self::NAME.to_owned(), reason };
        let mut reader = Reader::open(MAGIC, snapshot).map_err(refuse)?;
        Model::decode(&mut reader).ok_or_else(|| refuse("its content is damaged".to_owned()))
    }
}

impl Model {
    /// Kinds of faults that it was shown, in order of name.
    #[must_use]
    pub fn kinds(&self) -> &[Arc<str>] {
        &self.kinds
    }

    /// What it says of a trace; nothing where that has no spans, or not all of them.
    pub fn predict(&mut self, trace: &TraceWindow<'_>) -> Option<Prediction> {
        let features = self.extractor.features(trace, &self.usual)?;
        Some(self.answer(&features))
    }

    fn answer(&self, features: &Features) -> Prediction {
        let error = self.latent_error.predict(&features.trace)[1];
        let shares = features.services.iter().map(|(service, own)| (*service, self.faulty_service.predict(own)[1]));
        let mut ranked: Vec<(usize, (ServiceIdx, f64))> = shares.enumerate().collect();
        // Of several those that came first.
        ranked.sort_by(|one, other| other.1.1.total_cmp(&one.1.1));
        let first = ranked.first().map(|(place, _)| &features.services[*place].1);
        let mut kinds = first.map_or_else(Vec::new, |own| self.fault_type.predict(own));
        kinds.resize(self.kinds.len(), 0.0);
        Prediction { error, services: ranked.into_iter().map(|(_, own)| own).collect(), kinds }
    }

    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(MAGIC);
        writer.number(self.version);
        self.usual.write(&mut writer);
        writer.number(self.kinds.len() as u64);
        self.kinds.iter().for_each(|kind| writer.text(kind));
        for forest in [&self.latent_error, &self.faulty_service, &self.fault_type] {
            forest.write(&mut writer);
        }
        writer.finish()
    }

    fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let (version, usual) = (reader.number()?, Usual::read(reader)?);
        let mut kinds = Vec::new();
        for _ in 0..reader.length(8)? {
            kinds.push(reader.text()?);
        }
        let (latent_error, faulty_service) = (Forest::read(reader)?, Forest::read(reader)?);
        let fault_type = Forest::read(reader)?;
        let is_sound = reader.is_empty() && !kinds.is_empty() && fault_type.n_classes() <= kinds.len().max(2);
        let extractor = Extractor::default();
        is_sound.then_some(Self { version, usual, kinds, latent_error, faulty_service, fault_type, extractor })
    }

    /// Logarithm of the odds, as far as so many trees can tell.
    fn odds(error: f64) -> f64 {
        const LEAST: f64 = 1e-3;
        ((error + LEAST) / (1.0 - error + LEAST)).ln()
    }
}

impl Detector for Model {
    fn name(&self) -> &'static str {
        Mepfl::NAME
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn signal(&self) -> Signal {
        Mepfl::SIGNAL
    }

    /// Logarithm of the odds of a latent error. The culprit is the first span of the likeliest service.
    fn score(&mut self, windows: &[Window<'_>], scores: &mut Vec<Option<Score>>) {
        for window in windows {
            let score = window.as_trace().and_then(|trace| {
                let found = self.predict(trace)?;
                let (service, _) = found.services.first()?;
                let culprit = trace.spans.iter().position(|span| span.service == *service)?;
                Some(Score { value: Self::odds(found.error), culprit })
            });
            scores.push(score);
        }
    }

    fn explain(&self, window: &Window<'_>, score: &Score) -> Evidence {
        let nothing = |why: &str| Evidence { summary: why.to_owned(), ..Evidence::default() };
        let Some(trace) = window.as_trace() else { return nothing("the window is no trace") };
        let mut extractor = Extractor::default();
        let Some(features) = extractor.features(trace, &self.usual) else {
            return nothing("the trace has no spans, or not all of them");
        };
        let found = self.answer(&features);
        let name = |service: ServiceIdx| trace.services.get(service as usize).map_or("", |name| &**name);
        let ranked: Vec<String> = found
            .services
            .iter()
            .take(3)
            .map(|(service, share)| format!("{} ({:.0} %)", name(*service), 100.0 * share))
            .collect();
        let kind = found.kind().map(|idx| (&self.kinds[idx], found.kinds[idx]));
        let summary = format!(
            "the trace looks like one that a fault disturbed ({:.0} %); likeliest in {}, and there as {} ({:.0} %)",
            100.0 * found.error,
            ranked.join(", "),
            kind.map_or("nothing known", |(name, _)| &**name),
            100.0 * kind.map_or(0.0, |(_, share)| share),
        );
        let culprit = trace.spans.get(score.culprit);
        let of_culprit = trace.spans.iter().filter(|span| culprit.is_some_and(|own| own.service == span.service));
        let records: Vec<RecordId> = of_culprit.map(|span| span.record).take(Evidence::MAX_RECORDS).collect();
        let mut figures = vec![("error".to_owned(), found.error)];
        figures.extend(found.services.first().map(|(_, share)| ("faulty_service".to_owned(), *share)));
        figures.extend(kind.map(|(_, share)| ("fault_type".to_owned(), share)));
        let of_first = found
            .services
            .first()
            .and_then(|(first, _)| features.services.iter().find(|(service, _)| service == first));
        if let Some((_, own)) = of_first {
            figures.extend(SERVICE.iter().zip(own).map(|(name, figure)| ((*name).to_owned(), f64::from(*figure))));
        }
        Evidence {
            summary,
            culprit: culprit.map(|span| span.record),
            records,
            figures: figures.into_iter().collect(),
            ..Evidence::default()
        }
    }

    /// Does nothing: it learns from labels.
    fn learn(&mut self, _windows: &[Window<'_>]) {}

    fn snapshot(&self) -> Result<Vec<u8>, DetectorError> {
        Ok(self.encode())
    }
}
