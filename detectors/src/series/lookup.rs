//! Which source a point belongs to: the way from the texts of a batch to a source, and new sources.

use std::sync::Arc;

use arrow::array::Int32Array;
use faultline_core::MetricBatch;

use super::{
    SeriesStation,
    columns::{Form, Points, key_at, texts},
    identity::{Found, Instances, hash_of, labels},
    source::Source,
    table::Name,
};

/// Dictionary keys of a service and a resource.
type Keys = (Option<usize>, Option<usize>);

/// What a batch says once for many points.
pub(super) struct Shared<'a> {
    /// Texts with their hashes.
    names: Vec<(&'a str, u64)>,
    scopes: Vec<(&'a str, u64)>,
    services: Vec<&'a str>,
    resources: Vec<&'a str>,
    name_keys: &'a Int32Array,
    scope_keys: &'a Int32Array,
    service_keys: &'a Int32Array,
    resource_keys: &'a Int32Array,
    /// Keys of the latest service and resource, and their instance.
    latest: Option<(Keys, Option<u32>)>,
}

/// What a source is called.
struct Identity<'a> {
    instance: u32,
    name: &'a str,
    scope: &'a str,
    scope_hash: u32,
    /// Attributes as they came.
    text: &'a str,
}

impl<'a> Shared<'a> {
    pub fn of(batch: &'a MetricBatch) -> Self {
        let hashed = |texts: Vec<&'a str>| texts.into_iter().map(|text| (text, hash_of(&text))).collect();
        Self {
            names: hashed(texts(batch.name())),
            scopes: hashed(texts(batch.scope_name())),
            services: texts(batch.service_name()),
            resources: texts(batch.resource()),
            name_keys: batch.name().keys(),
            scope_keys: batch.scope_name().keys(),
            service_keys: batch.service_name().keys(),
            resource_keys: batch.resource().keys(),
            latest: None,
        }
    }

    /// The instance of a row.
    fn instance(&mut self, row: usize, instances: &mut Instances) -> Option<u32> {
        let keys = (key_at(self.service_keys, row), key_at(self.resource_keys, row));
        if let Some((latest, instance)) = self.latest
            && latest == keys
        {
            return instance;
        }
        let text_of = |texts: &[&'a str], key: Option<usize>| key.and_then(|key| texts.get(key)).copied();
        let service = text_of(&self.services, keys.0).unwrap_or_default();
        let resource = text_of(&self.resources, keys.1).unwrap_or_default();
        let instance = instances.resolve(service, resource);
        self.latest = Some((keys, instance));
        instance
    }
}

impl SeriesStation {
    /// The source of a point, new where need be; `None` where there is no room for it.
    pub(super) fn source_of(
        &mut self,
        points: &Points<'_>,
        shared: &mut Shared<'_>,
        row: usize,
        form: Form,
    ) -> Option<u32> {
        let found = shared.instance(row, &mut self.stage.instances).and_then(|instance| {
            let (name, name_hash) = key_at(shared.name_keys, row).and_then(|key| shared.names.get(key).copied())?;
            let scope = key_at(shared.scope_keys, row).and_then(|key| shared.scopes.get(key).copied());
            let (scope, scope_hash) = scope.unwrap_or_default();
            let text = points.attributes(row);
            let hash = hash_of(&(instance, name_hash, scope_hash, text));
            match self.index.get(hash) {
                Found::Source(idx) => Some(idx),
                Found::Refused => None,
                // Whether it is an old one in new words is not worth the look: there would be no room to remember it.
                Found::Unknown if self.index.is_full() && !self.stage.table.has_room(1) => None,
                Found::Unknown => {
                    let id = Identity { instance, name, scope, scope_hash: scope_hash as u32, text };
                    let idx = self.find_or_open(&id, points, row, form);
                    match idx {
                        Some(idx) => self.index.remember(hash, idx),
                        None => {
                            self.index.refuse(hash);
                            self.stage.stats.n_refused_series += 1;
                        }
                    }
                    idx
                }
            }
        });
        self.stage.stats.n_refused += u64::from(found.is_none());
        found
    }

    /// A source by what it is, not by the words in which it came.
    fn find_or_open(&mut self, id: &Identity<'_>, points: &Points<'_>, row: usize, form: Form) -> Option<u32> {
        let labels = labels(id.text);
        // The first scope that sends a metric has its plain name, any other is named beside it.
        let plain = hash_of(&("plain", id.instance, id.name, labels.as_str()));
        let scoped = hash_of(&("scoped", id.instance, id.name, labels.as_str(), id.scope_hash));
        if let Found::Source(idx) = self.index.get(scoped) {
            return Some(idx);
        }
        let (hash, scope) = match self.index.get(plain) {
            Found::Source(idx) => {
                let first = self.sources.get(idx as usize).and_then(Option::as_ref);
                if first.is_some_and(|first| first.scope == id.scope_hash) {
                    return Some(idx);
                }
                // Where the other one has no name, its hash has to do.
                let scope = if id.scope.is_empty() { "no scope" } else { id.scope };
                (scoped, scope)
            }
            Found::Refused | Found::Unknown => (plain, ""),
        };
        let (made, quantiles) = Source::plan(points, row, form, &self.quantiles);
        if !self.stage.table.has_room(made.len()) {
            return None;
        }
        let metric = if labels.is_empty() { id.name.to_owned() } else { format!("{}{{{labels}}}", id.name) };
        let instance = self.stage.instances.get_mut(id.instance)?;
        instance.n_sources += 1;
        let name = Name {
            stream: &instance.key.stream,
            is_service: instance.is_service(),
            metric: &metric,
            scope,
            instance: &instance.name,
            quantiles: &quantiles,
        };
        let outputs = self.stage.table.open(&name, &made)?;
        let source = Source::new(form, Arc::clone(&quantiles), outputs, id.instance, id.scope_hash);
        let idx = match self.free.pop() {
            Some(idx) => {
                self.sources[idx as usize] = Some(source);
                idx
            }
            None => {
                self.sources.push(Some(source));
                (self.sources.len() - 1) as u32
            }
        };
        self.index.insert(hash, idx);
        Some(idx)
    }
}
