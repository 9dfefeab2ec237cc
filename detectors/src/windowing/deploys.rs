//! What a new version of a service writes, told apart from what is simply new.
//!
//! A deploy rewords lines. To every detector a reworded line is an unknown template in each session, and alerts follow until
//! someone fits anew. So when a service shows a `service.version` (OpenTelemetry resource attribute) that it did not have
//! while detectors were fitted, a template that this version founds within a time is *new since the deploy*: it stands for the
//! old template of its stream that it has most words in common with, in order (longest common subsequence, as a share of both), and
//! so inherits everything that detectors know of that one. Its first record is marked, so that it is reported once.
//!
//! What has no old relative stays what it is, unknown. A record of severity ERROR or above never stands for another: an error
//! that comes with a deploy is what one wants to hear of.
//!
//! Cost: a look at the distinct resources of a batch; a hash lookup a record once there has been a deploy; a comparison with the old
//! templates of its stream for each new one. Memory: the words of known templates as hashes, [`MAX_TEMPLATES`] at most.

use std::sync::Arc;

use arrow::array::{Array, StringArray};
use faultline_core::{LogBatch, ServiceIdx, Template, TemplateId, batch::DictArray, hash::StableHash};
use rustc_hash::{FxHashMap, FxHashSet};

/// Templates whose words are kept.
const MAX_TEMPLATES: usize = 100_000;

/// Distinct resources whose version is remembered.
const MAX_RESOURCES: usize = 4096;

/// Versions that are remembered of a service.
const MAX_VERSIONS: usize = 64;

/// OpenTelemetry severity from which a record is an error.
const ERROR: u8 = 17;

/// A service that has changed its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deploy {
    /// Its name.
    pub service: Arc<str>,
    /// The version that it has now.
    pub version: Arc<str>,
}

/// See the file's documentation.
#[derive(Debug)]
pub(super) struct Deploys {
    window_nanos: i64,
    similarity: f64,
    /// Whether detectors are in service: what comes before is what they are fitted on.
    pub(super) is_watching: bool,
    version_of: FxHashMap<Box<str>, Option<Arc<str>>>,
    services: FxHashMap<ServiceIdx, Versions>,
    words: FxHashMap<TemplateId, Words>,
    standing: FxHashMap<TemplateId, Standing>,
    pub(super) news: Vec<Deploy>,
}

#[derive(Debug, Default)]
struct Versions {
    known: FxHashSet<Arc<str>>,
    /// The versions that came while detectors were in service, with the event time until which their templates count as new.
    deployed: Vec<(Arc<str>, i64)>,
}

/// The words of a template without its variable parts, and the stream that it belongs to.
#[derive(Debug)]
struct Words {
    stream: u64,
    words: Box<[u64]>,
}

/// What a template that is new since a deploy stands for.
#[derive(Clone, Copy, Debug)]
struct Standing {
    old: Option<TemplateId>,
    is_marked: bool,
}

impl Deploys {
    /// With a window of no length nothing is ever new since a deploy.
    pub(super) fn new(window_ms: u64, similarity: f64) -> Self {
        Self {
            window_nanos: i64::try_from(window_ms).unwrap_or(i64::MAX).saturating_mul(1_000_000),
            similarity,
            is_watching: false,
            version_of: FxHashMap::default(),
            services: FxHashMap::default(),
            words: FxHashMap::default(),
            standing: FxHashMap::default(),
            news: Vec::new(),
        }
    }

    /// Takes note of the versions in a batch, and of the templates that it founded. `service_of` has the service of each value of
    /// the batch's dictionary of services, whose names are `names`.
    pub(super) fn observe(
        &mut self,
        batch: &LogBatch,
        templates: &[Template],
        service_of: &[ServiceIdx],
        names: &[Arc<str>],
    ) {
        if self.window_nanos == 0 {
            return;
        }
        let versions = self.versions_of(batch.resource());
        let (resources, services) = (batch.resource().keys(), batch.service_name().keys());
        let at = |row: usize| -> Option<(ServiceIdx, &Arc<str>)> {
            let version = versions.get(resources.is_valid(row).then(|| resources.value(row) as usize)?)?.as_ref()?;
            let service = service_of.get(services.is_valid(row).then(|| services.value(row) as usize)?)?;
            Some((*service, version))
        };
        if versions.iter().any(Option::is_some) {
            let mut last = None;
            for row in 0..batch.len() {
                let here = (
                    resources.is_valid(row).then(|| resources.value(row)),
                    services.is_valid(row).then(|| services.value(row)),
                );
                if last.replace(here) != Some(here)
                    && let Some((service, version)) = at(row)
                {
                    self.see(service, version, batch.time_unix_nano().value(row), names);
                }
            }
        }
        for template in templates {
            let words = Words::of(template);
            let is_new = !self.words.contains_key(&template.id);
            if is_new && self.is_watching && !self.services.is_empty() {
                let ids = batch.template_id();
                let row = (0..batch.len()).find(|&row| ids.is_valid(row) && ids.value(row) == template.id.0);
                let is_deployed = |row: usize| {
                    let (service, version) = at(row)?;
                    let time = batch.time_unix_nano().value(row);
                    let deployed = &self.services.get(&service)?.deployed;
                    deployed.iter().any(|(new, until)| new == version && time <= *until).then_some(())
                };
                if row.and_then(is_deployed).is_some() {
                    let old = self.nearest(&words);
                    self.standing.insert(template.id, Standing { old, is_marked: false });
                    // It is no relative for others: chains would drift away from what was fitted.
                    continue;
                }
            }
            if !self.standing.contains_key(&template.id) && (self.words.len() < MAX_TEMPLATES || !is_new) {
                self.words.insert(template.id, words);
            }
        }
    }

    /// What a record counts as: its template, and whether it is the one to report.
    pub(super) fn standing_of(&mut self, template: TemplateId, severity_number: u8) -> (TemplateId, bool) {
        if self.standing.is_empty() {
            return (template, false);
        }
        let Some(standing) = self.standing.get_mut(&template) else { return (template, false) };
        match standing.old {
            Some(old) if severity_number < ERROR => {
                let is_first = !std::mem::replace(&mut standing.is_marked, true);
                (old, is_first)
            }
            _ => (template, true),
        }
    }

    /// The version of each value of a dictionary of resources.
    fn versions_of(&mut self, resources: &DictArray) -> Vec<Option<Arc<str>>> {
        let Some(values) = resources.values().as_any().downcast_ref::<StringArray>() else { return Vec::new() };
        values.iter().map(|resource| self.version_of(resource?)).collect()
    }

    fn version_of(&mut self, resource: &str) -> Option<Arc<str>> {
        if !resource.contains("service.version") {
            return None;
        }
        if let Some(version) = self.version_of.get(resource) {
            return version.clone();
        }
        let attributes: Option<serde_json::Value> = serde_json::from_str(resource).ok();
        let version =
            attributes.as_ref().and_then(|attributes| attributes.get("service.version")?.as_str().map(Arc::from));
        if self.version_of.len() >= MAX_RESOURCES {
            self.version_of.clear();
        }
        self.version_of.insert(resource.into(), version.clone());
        version
    }

    fn see(&mut self, service: ServiceIdx, version: &Arc<str>, time_unix_nano: i64, names: &[Arc<str>]) {
        let versions = self.services.entry(service).or_default();
        if versions.known.contains(version) {
            return;
        }
        if versions.known.len() >= MAX_VERSIONS {
            versions.known.clear();
        }
        let is_first = versions.known.is_empty();
        versions.known.insert(Arc::clone(version));
        versions.deployed.retain(|(_, until)| *until >= time_unix_nano);
        if self.is_watching && !is_first {
            versions.deployed.push((Arc::clone(version), time_unix_nano.saturating_add(self.window_nanos)));
            let service = names.get(service as usize).cloned().unwrap_or_else(|| Arc::from(""));
            self.news.push(Deploy { service, version: Arc::clone(version) });
        }
    }

    /// The template of the same stream that is most alike, if any is alike enough; the lowest id of equals.
    fn nearest(&self, new: &Words) -> Option<TemplateId> {
        let candidates = self.words.iter().filter(|(_, words)| words.stream == new.stream);
        let alike = candidates.map(|(id, words)| (words.similarity(new), *id));
        let nearest = alike.max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(&a.1)))?;
        (nearest.0 >= self.similarity && nearest.0 > 0.0).then_some(nearest.1)
    }
}

impl Words {
    fn of(template: &Template) -> Self {
        let is_word = |token: &&str| !(token.contains('<') && token.contains('>'));
        let words = template.text.split(' ').filter(is_word).map(|word| StableHash::new().text(word).finish());
        Self { stream: StableHash::new().text(&template.stream).finish(), words: words.collect() }
    }

    /// Words in common, in order, as a share of those of both.
    fn similarity(&self, other: &Self) -> f64 {
        let (a, b) = (&self.words, &other.words);
        if a.is_empty() || b.is_empty() {
            return 0.0;
        }
        // Longest common subsequence, one row at a time.
        let mut row = vec![0usize; b.len() + 1];
        for word in a {
            let mut diagonal = 0;
            for (idx, other) in b.iter().enumerate() {
                let above = row[idx + 1];
                row[idx + 1] = if word == other { diagonal + 1 } else { above.max(row[idx]) };
                diagonal = above;
            }
        }
        2.0 * row[b.len()] as f64 / (a.len() + b.len()) as f64
    }
}
