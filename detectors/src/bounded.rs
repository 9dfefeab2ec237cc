//! A map by window key that holds no more than so many values: those that have not been touched for longest go.
//!
//! When it is full a sixty-fourth goes at once, so that a flood of new keys costs a look at all values only every so often.
//! Cost: two look-ups and a hash each. The order in which values leave does not depend on the hash.

use faultline_core::WindowKey;
use rustc_hash::FxHashMap;

/// Share of a full map that makes room for a new key.
const SHARE_OUT: usize = 64;

/// See the file's documentation.
#[derive(Debug)]
pub(crate) struct Bounded<T> {
    slots: FxHashMap<WindowKey, Box<Slot<T>>>,
    max: usize,
    /// Counts touches.
    clock: u64,
}

#[derive(Debug)]
struct Slot<T> {
    /// Number of the latest touch; no two slots have the same.
    touched: u64,
    value: T,
}

impl<T> Bounded<T> {
    /// An empty map of at most `max` values, one at least.
    pub fn new(max: usize) -> Self {
        Self { slots: FxHashMap::default(), max: max.max(1), clock: 0 }
    }

    /// The value of a key, touched; made where there is none.
    pub fn touch(&mut self, key: &WindowKey, make: impl FnOnce() -> T) -> &mut T {
        if !self.slots.contains_key(key) {
            self.make_room();
            self.slots.insert(key.clone(), Box::new(Slot { touched: 0, value: make() }));
        }
        self.clock += 1;
        let slot = self.slots.get_mut(key).expect("it is there, or has just been put there");
        slot.touched = self.clock;
        &mut slot.value
    }

    /// The value of a key.
    pub fn get(&self, key: &WindowKey) -> Option<&T> {
        self.slots.get(key).map(|slot| &slot.value)
    }

    /// The values, those that were touched longest ago first.
    pub fn in_order(&self) -> Vec<(&WindowKey, &T)> {
        let mut slots: Vec<_> = self.slots.iter().collect();
        slots.sort_unstable_by_key(|(_, slot)| slot.touched);
        slots.into_iter().map(|(key, slot)| (key, &slot.value)).collect()
    }

    /// All values, in no order.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.values_mut().map(|slot| &mut slot.value)
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Memory that the map and its values take, without what they hold elsewhere. Keys are shared with whoever made them.
    pub fn bytes(&self) -> usize {
        // Of eight places seven are used at most; each has a byte of its own beside its entry.
        let n_places = self.slots.capacity().div_ceil(7) * 8;
        let entry = size_of::<(WindowKey, Box<Slot<T>>)>() + 1;
        n_places * entry + self.slots.len() * size_of::<Slot<T>>()
    }

    fn make_room(&mut self) {
        if self.slots.len() < self.max {
            return;
        }
        let n_out = (self.max / SHARE_OUT).max(1);
        let mut touched: Vec<u64> = self.slots.values().map(|slot| slot.touched).collect();
        let (_, last_out, _) = touched.select_nth_unstable(n_out - 1);
        let last_out = *last_out;
        self.slots.retain(|_, slot| slot.touched > last_out);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn key(n: u32) -> WindowKey {
        WindowKey { stream: Arc::from("test"), session: Arc::from(n.to_string()) }
    }

    fn held(map: &Bounded<u32>) -> Vec<u32> {
        map.in_order().into_iter().map(|(_, value)| *value).collect()
    }

    #[test]
    fn what_was_not_touched_for_longest_goes_first() {
        let mut map = Bounded::new(3);
        for n in [1, 2, 3, 1, 4] {
            *map.touch(&key(n), || 0) = n;
        }
        assert_eq!(held(&map), [3, 1, 4]);
        assert_eq!((map.get(&key(2)), map.get(&key(3)), map.len()), (None, Some(&3), 3));
        *map.touch(&key(3), || 0) += 1;
        assert_eq!(held(&map), [1, 4, 4], "touched, not made anew");
    }

    #[test]
    fn a_flood_of_keys_stays_within_the_bound() {
        let mut map = Bounded::new(640);
        for n in 0..10_000 {
            map.touch(&key(n), || n);
            assert!(map.len() <= 640);
        }
        assert!(map.len() > 600);
        assert!(held(&map).is_sorted() && held(&map).last() == Some(&9_999));
        assert!(map.bytes() > map.len() * (size_of::<WindowKey>() + size_of::<Slot<u32>>()));
    }
}
