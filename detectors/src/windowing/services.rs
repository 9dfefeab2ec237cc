//! The names of services, so that an entry holds a number instead of one.

use std::sync::Arc;

use arrow::array::{Array, StringArray};
use faultline_core::{ServiceIdx, batch::DictArray};
use rustc_hash::FxHashMap;

/// Service names, each once. Index 0 is the empty name.
#[derive(Debug)]
pub(super) struct Services {
    /// By index.
    pub names: Vec<Arc<str>>,
    idx: FxHashMap<Arc<str>, ServiceIdx>,
}

impl Default for Services {
    fn default() -> Self {
        Self { names: vec![Arc::from("")], idx: FxHashMap::default() }
    }
}

impl Services {
    /// More distinct names than this share the empty one.
    const MAX: usize = 65_536;

    /// The index of each value of a dictionary column.
    pub fn resolve(&mut self, column: &DictArray) -> Vec<ServiceIdx> {
        let Some(values) = column.values().as_any().downcast_ref::<StringArray>() else { return Vec::new() };
        values.iter().map(|name| self.idx_of(name.unwrap_or_default())).collect()
    }

    fn idx_of(&mut self, name: &str) -> ServiceIdx {
        if name.is_empty() {
            return 0;
        }
        if let Some(&idx) = self.idx.get(name) {
            return idx;
        }
        if self.names.len() >= Self::MAX {
            return 0;
        }
        let (name, idx) = (Arc::<str>::from(name), self.names.len() as ServiceIdx);
        self.names.push(Arc::clone(&name));
        self.idx.insert(name, idx);
        idx
    }
}
