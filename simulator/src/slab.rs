//! Values under keys that are never mistaken for a later value in the same place: a late timeout or answer finds nothing.

/// Where a value is, and which value it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    idx: u32,
    generation: u32,
}

pub(crate) struct Slab<T> {
    entries: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub fn new() -> Self {
        Self { entries: Vec::new(), free: Vec::new() }
    }

    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub fn insert(&mut self, value: T) -> Key {
        if let Some(idx) = self.free.pop() {
            let (generation, place) = &mut self.entries[idx as usize];
            *place = Some(value);
            Key { idx, generation: *generation }
        } else {
            self.entries.push((0, Some(value)));
            Key { idx: (self.entries.len() - 1) as u32, generation: 0 }
        }
    }

    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let (generation, place) = &mut self.entries[key.idx as usize];
        if *generation == key.generation { place.as_mut() } else { None }
    }

    pub fn remove(&mut self, key: Key) -> Option<T> {
        let (generation, place) = &mut self.entries[key.idx as usize];
        if *generation != key.generation {
            return None;
        }
        let value = place.take()?;
        *generation = generation.wrapping_add(1);
        self.free.push(key.idx);
        Some(value)
    }
}
