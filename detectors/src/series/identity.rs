//! Which series a point belongs to: its instance, metric and attributes, found by one hash of their texts as they came.
//!
//! A text that is new is read once: attributes are sorted by key, so their order makes no difference, and the hash of the
//! new text leads to the same series from then on. Two series whose texts have the same 64-bit hash would be taken for
//! one; with 100,000 series the odds are 1 in 3,000,000,000.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use faultline_core::WindowKey;
use rustc_hash::{FxHashMap, FxHasher};
use serde_json::Value;

use super::groups::Group;

/// Instances that are told apart.
const MAX_INSTANCES: usize = 65_536;

/// Distinct resource texts whose instance is remembered.
const MAX_RESOURCES: usize = 131_072;

/// Bytes of an instance's name that are kept.
const MAX_NAME_BYTES: usize = 96;

/// Resource attributes that name an instance, the first that is there.
const INSTANCE_KEYS: [&str; 4] = ["service.instance.id", "k8s.pod.name", "host.name", "container.id"];

/// A hash for tables that do not leave the process.
pub(super) fn hash_of(parts: &impl Hash) -> u64 {
    let mut hasher = FxHasher::default();
    parts.hash(&mut hasher);
    hasher.finish()
}

/// Where series stand under the hash of their identity.
#[derive(Debug)]
pub(super) struct Index {
    map: FxHashMap<u64, u32>,
    limit: usize,
}

/// Marks an identity that was refused for want of room.
const REFUSED: u32 = u32::MAX;

/// What is known of an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Source(u32),
    Refused,
    Unknown,
}

impl Index {
    pub fn new(limit: usize) -> Self {
        Self { map: FxHashMap::default(), limit }
    }

    pub fn get(&self, hash: u64) -> Found {
        match self.map.get(&hash) {
            Some(&REFUSED) => Found::Refused,
            Some(&source) => Found::Source(source),
            None => Found::Unknown,
        }
    }

    /// Whether no more texts are remembered.
    pub fn is_full(&self) -> bool {
        self.map.len() >= self.limit
    }

    /// The identity itself, which has room since sources are bounded.
    pub fn insert(&mut self, hash: u64, source: u32) {
        self.map.insert(hash, source);
    }

    /// One more text of it, where there is room.
    pub fn remember(&mut self, hash: u64, source: u32) {
        if !self.is_full() {
            self.map.insert(hash, source);
        }
    }

    /// As [`Self::remember`], for one that was refused.
    pub fn refuse(&mut self, hash: u64) {
        self.remember(hash, REFUSED);
    }

    /// Forgets everything about sources that `is_alive` denies, and who was refused.
    pub fn retain(&mut self, mut is_alive: impl FnMut(u32) -> bool) {
        self.map.retain(|_, source| *source != REFUSED && is_alive(*source));
    }

    pub fn bytes(&self) -> usize {
        // A slot of the table and its control byte; seven of eight are used at most.
        self.map.capacity() * 8 / 7 * (size_of::<(u64, u32)>() + 1)
    }
}

/// One instance of a service, or a host.
#[derive(Debug)]
pub(super) struct Instance {
    /// The service as stream and the name as session.
    pub key: WindowKey,
    is_service: bool,
    nobody: Arc<str>,
    /// What tells it from others of its service; empty when not given.
    pub name: Box<str>,
    pub n_sources: usize,
    pub group: Group,
    pub is_touched: bool,
    hash: u64,
}

impl Instance {
    /// Whether it names a service.
    pub fn is_service(&self) -> bool {
        self.is_service
    }

    /// The service, empty when not known.
    pub fn service(&self) -> &Arc<str> {
        if self.is_service { &self.key.stream } else { &self.nobody }
    }
}

/// All instances.
#[derive(Debug)]
pub(super) struct Instances {
    slots: Vec<Option<Instance>>,
    free: Vec<u32>,
    by_identity: FxHashMap<u64, u32>,
    by_resource: FxHashMap<u64, u32>,
    /// The stream of those without a service.
    stream: Arc<str>,
    nobody: Arc<str>,
}

impl Instances {
    pub fn new(stream: &str) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_identity: FxHashMap::default(),
            by_resource: FxHashMap::default(),
            stream: Arc::from(stream),
            nobody: Arc::from(""),
        }
    }

    pub fn len(&self) -> usize {
        self.by_identity.len()
    }

    pub fn get(&self, idx: u32) -> Option<&Instance> {
        self.slots.get(idx as usize)?.as_ref()
    }

    pub fn get_mut(&mut self, idx: u32) -> Option<&mut Instance> {
        self.slots.get_mut(idx as usize)?.as_mut()
    }

    /// Numbers of all of them.
    pub fn all(&self) -> Vec<u32> {
        let numbered = self.slots.iter().zip(0..);
        numbered.filter_map(|(instance, idx)| instance.as_ref().map(|_| idx)).collect()
    }

    /// The instance of a resource, new where need be; `None` when there are too many.
    pub fn resolve(&mut self, service: &str, resource: &str) -> Option<u32> {
        let text = hash_of(&(service, resource));
        if let Some(&idx) = self.by_resource.get(&text) {
            return Some(idx);
        }
        let name = instance_name(resource);
        let hash = hash_of(&(service, &*name));
        let idx = match self.by_identity.get(&hash) {
            Some(&idx) => idx,
            None if self.by_identity.len() >= MAX_INSTANCES => return None,
            None => self.open(service, name, hash),
        };
        if self.by_resource.len() >= MAX_RESOURCES {
            self.by_resource.clear();
        }
        self.by_resource.insert(text, idx);
        Some(idx)
    }

    fn open(&mut self, service: &str, name: String, hash: u64) -> u32 {
        let is_service = !service.is_empty();
        let stream = if is_service { Arc::from(service) } else { Arc::clone(&self.stream) };
        let session = if name.is_empty() { Arc::clone(&stream) } else { Arc::from(name.as_str()) };
        let instance = Instance {
            key: WindowKey { stream, session },
            is_service,
            nobody: Arc::clone(&self.nobody),
            name: name.into_boxed_str(),
            n_sources: 0,
            group: Group::default(),
            is_touched: false,
            hash,
        };
        let idx = match self.free.pop() {
            Some(idx) => {
                self.slots[idx as usize] = Some(instance);
                idx
            }
            None => {
                self.slots.push(Some(instance));
                (self.slots.len() - 1) as u32
            }
        };
        self.by_identity.insert(hash, idx);
        idx
    }

    /// Drops instances without a source. None of them may have rows that wait to be settled.
    pub fn retire(&mut self) {
        let mut is_any_gone = false;
        for (slot, idx) in self.slots.iter_mut().zip(0..) {
            if let Some(gone) = slot.take_if(|instance| instance.n_sources == 0) {
                self.by_identity.remove(&gone.hash);
                self.free.push(idx);
                is_any_gone = true;
            }
        }
        if is_any_gone {
            self.by_resource.clear();
        }
    }

    pub fn bytes(&self) -> usize {
        let alive = self.slots.iter().flatten();
        let texts: usize = alive.map(|instance| 2 * instance.name.len() + instance.group.heap_bytes()).sum();
        let maps = (self.by_identity.capacity() + self.by_resource.capacity()) * 8 / 7;
        texts + self.slots.capacity() * size_of::<Option<Instance>>() + maps * (size_of::<(u64, u32)>() + 1)
    }
}

/// What a resource says of its instance; empty when it says nothing.
fn instance_name(resource: &str) -> String {
    let Ok(Value::Object(attributes)) = serde_json::from_str(resource) else { return String::new() };
    let name = INSTANCE_KEYS.iter().find_map(|key| attributes.get(*key)?.as_str().filter(|name| !name.is_empty()));
    super::table::cut(name.unwrap_or_default(), MAX_NAME_BYTES)
}

/// Attributes as `key=value`, sorted by key and joined by commas; values that could be mistaken are quoted.
pub(super) fn labels(attributes: &str) -> String {
    if attributes.is_empty() {
        return String::new();
    }
    let Ok(Value::Object(attributes)) = serde_json::from_str(attributes) else { return attributes.to_owned() };
    let mut pairs: Vec<(&str, &Value)> = attributes.iter().map(|(key, value)| (key.as_str(), value)).collect();
    pairs.sort_by_key(|pair| pair.0);
    let mut text = String::new();
    for (key, value) in pairs {
        if !text.is_empty() {
            text.push(',');
        }
        match value {
            Value::String(value) => push_label(&mut text, key, value),
            other => push_label(&mut text, key, &other.to_string()),
        }
    }
    text
}

/// Appends `key=value`.
pub(super) fn push_label(text: &mut String, key: &str, value: &str) {
    let is_plain = |part: &str| !part.contains([',', '=', '{', '}', '"']);
    for (part, end) in [(key, "="), (value, "")] {
        if is_plain(part) {
            text.push_str(part);
        } else {
            text.push_str(&Value::from(part).to_string());
        }
        text.push_str(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_sorted_and_cannot_be_mistaken_for_others() {
        assert_eq!(labels(r#"{"route":"/cart","method":"GET","status":200}"#), "method=GET,route=/cart,status=200");
        assert_eq!(labels(""), "");
        assert_eq!(labels("not json"), "not json");
        assert_ne!(labels(r#"{"a":"1,b=2"}"#), labels(r#"{"a":"1","b":"2"}"#));
    }

    #[test]
    fn an_instance_is_what_its_resource_says_in_whatever_words() {
        let mut instances = Instances::new("metrics");
        let first = instances.resolve("cart", r#"{"host.name":"h1","service.version":"1"}"#).expect("room");
        let after_deploy = instances.resolve("cart", r#"{"service.version":"2","host.name":"h1"}"#);
        assert_eq!(after_deploy, Some(first));
        let other = instances.resolve("cart", r#"{"host.name":"h1","service.instance.id":"x"}"#).expect("room");
        assert_ne!(other, first, "the more specific name counts");
        let nobody = instances.resolve("", "").expect("room");
        let nobody = instances.get(nobody).expect("it is there");
        assert_eq!((&*nobody.key.stream, &**nobody.service()), ("metrics", ""));
        assert_eq!(instances.len(), 3);
        instances.get_mut(first).expect("it is there").n_sources = 1;
        instances.retire();
        assert_eq!((instances.len(), instances.all()), (1, vec![first]));
        assert_eq!(instances.resolve("cart", r#"{"host.name":"h1"}"#), Some(first));
    }

    #[test]
    fn what_was_refused_is_remembered_until_there_may_be_room() {
        let mut index = Index::new(2);
        index.insert(1, 7);
        index.refuse(2);
        assert_eq!((index.get(1), index.get(2), index.get(3)), (Found::Source(7), Found::Refused, Found::Unknown));
        index.remember(3, 7);
        assert_eq!(index.get(3), Found::Unknown, "it is full");
        index.retain(|source| source == 7);
        assert_eq!((index.get(1), index.get(2)), (Found::Source(7), Found::Unknown));
    }
}
