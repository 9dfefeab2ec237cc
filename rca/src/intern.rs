//! Names as small numbers. Bounded: past the limit a new name has no number, and what bears it is left out.

use rustc_hash::FxHashMap;

#[derive(Debug)]
pub(crate) struct Names {
    by_name: FxHashMap<String, u32>,
    names: Vec<String>,
    max: usize,
}

impl Names {
    pub fn new(max: usize) -> Self {
        Self { by_name: FxHashMap::default(), names: Vec::new(), max }
    }

    /// The number of `name`, a new one if need be. `None` for no name, and past the limit.
    pub fn number(&mut self, name: &str) -> Option<u32> {
        if let Some(number) = self.by_name.get(name) {
            return Some(*number);
        }
        if name.is_empty() || self.names.len() >= self.max {
            return None;
        }
        let number = self.names.len() as u32;
        self.names.push(name.into());
        self.by_name.insert(name.into(), number);
        Some(number)
    }

    /// The number of `name` if it has one.
    pub fn find(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    pub fn name(&self, number: u32) -> &str {
        self.names.get(number as usize).map_or("", String::as_str)
    }
}
