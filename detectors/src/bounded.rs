//! A map by window key that holds no more than so many values: those that have not been touched for longest go.
//!
//! When it is full a sixty-fourth goes at once, so that a flood of new keys costs a look at all values only every so often.
//! Values stand in chunks, so growing moves none of them and no allocator rounds each of them up (beyond two kilobytes by up
//! to a quarter). Cost: a look-up and a hash. The order in which values leave does not depend on the hash.

use std::num::NonZeroU64;

use faultline_core::WindowKey;
use rustc_hash::FxHashMap;

/// Share of a full map that makes room for a new key.
const SHARE_OUT: usize = 64;

/// Values in a chunk.
const CHUNK: usize = 64;

/// See the file's documentation.
#[derive(Debug)]
pub(crate) struct Bounded<T> {
    places: FxHashMap<WindowKey, u32>,
    /// All but the last have [`CHUNK`] places.
    chunks: Vec<Vec<Option<Slot<T>>>>,
    /// Places without a value.
    free: Vec<u32>,
    max: usize,
    /// Counts touches.
    clock: NonZeroU64,
}

#[derive(Debug)]
struct Slot<T> {
    /// Number of the latest touch; no two slots have the same. Never zero, so that an empty place is no larger.
    touched: NonZeroU64,
    value: T,
}

impl<T> Bounded<T> {
    /// An empty map of at most `max` values, one at least.
    pub fn new(max: usize) -> Self {
        let max = max.clamp(1, u32::MAX as usize);
        let (places, chunks, free) = Default::default();
        Self { places, chunks, free, max, clock: NonZeroU64::MIN }
    }

    /// The value of a key, touched; made where there is none.
    pub fn touch(&mut self, key: &WindowKey, make: impl FnOnce() -> T) -> &mut T {
        self.clock = self.clock.saturating_add(1);
        let place = match self.places.get(key) {
            Some(&place) => place,
            None => {
                self.make_room();
                self.put(key, make())
            }
        };
        let (chunk, place) = split(place);
        let slot = self.chunks[chunk][place].as_mut().expect("a place that a key has is taken");
        slot.touched = self.clock;
        &mut slot.value
    }

    /// The value of a key.
    pub fn get(&self, key: &WindowKey) -> Option<&T> {
        self.places.get(key).and_then(|place| self.slot(*place)).map(|slot| &slot.value)
    }

    /// The value of a key, to be changed without having been seen.
    pub fn get_mut(&mut self, key: &WindowKey) -> Option<&mut T> {
        let (chunk, place) = split(*self.places.get(key)?);
        self.chunks[chunk][place].as_mut().map(|slot| &mut slot.value)
    }

    /// The values, those that were touched longest ago first.
    pub fn in_order(&self) -> Vec<(&WindowKey, &T)> {
        let slots = self.places.iter().filter_map(|(key, place)| Some((key, self.slot(*place)?)));
        let mut slots: Vec<_> = slots.collect();
        slots.sort_unstable_by_key(|(_, slot)| slot.touched);
        slots.into_iter().map(|(key, slot)| (key, &slot.value)).collect()
    }

    /// All values, in no order.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flatten().flatten().map(|slot| &slot.value)
    }

    /// All values, in no order.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.chunks.iter_mut().flatten().flatten().map(|slot| &mut slot.value)
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Memory that the map and its values take, without what they hold elsewhere. Keys are shared with whoever made them; what
    /// has not been used of the last chunk has never been touched.
    pub fn bytes(&self) -> usize {
        // Of eight places seven are used at most; each has a byte of its own beside its entry.
        let n_places = self.places.capacity().div_ceil(7) * 8;
        let entry = size_of::<(WindowKey, u32)>() + 1;
        let n_slots: usize = self.chunks.iter().map(Vec::len).sum();
        let lists =
            self.chunks.capacity() * size_of::<Vec<Option<Slot<T>>>>() + self.free.capacity() * size_of::<u32>();
        n_places * entry + n_slots * size_of::<Option<Slot<T>>>() + lists
    }

    fn slot(&self, place: u32) -> Option<&Slot<T>> {
        let (chunk, place) = split(place);
        self.chunks.get(chunk)?.get(place)?.as_ref()
    }

    /// Gives a new key its place.
    fn put(&mut self, key: &WindowKey, value: T) -> u32 {
        let slot = Some(Slot { touched: self.clock, value });
        let place = match self.free.pop() {
            Some(place) => {
                let (chunk, idx) = split(place);
                self.chunks[chunk][idx] = slot;
                place
            }
            None => {
                if self.chunks.last().is_none_or(|last| last.len() == CHUNK) {
                    self.chunks.push(Vec::with_capacity(CHUNK));
                }
                let chunk = self.chunks.len() - 1;
                self.chunks[chunk].push(slot);
                (chunk * CHUNK + self.chunks[chunk].len() - 1) as u32
            }
        };
        self.places.insert(key.clone(), place);
        place
    }

    fn make_room(&mut self) {
        if self.places.len() < self.max {
            return;
        }
        let n_out = (self.max / SHARE_OUT).max(1);
        let Self { places, chunks, free, .. } = self;
        let mut touched: Vec<NonZeroU64> = chunks.iter().flatten().flatten().map(|slot| slot.touched).collect();
        let (_, last_out, _) = touched.select_nth_unstable(n_out - 1);
        let last_out = *last_out;
        places.retain(|_, place| {
            let (chunk, idx) = split(*place);
            let is_out = chunks[chunk][idx].take_if(|slot| slot.touched <= last_out).is_some();
            if is_out {
                free.push(*place);
            }
            !is_out
        });
    }
}

/// A place as its chunk and where it is in it.
fn split(place: u32) -> (usize, usize) {
    (place as usize / CHUNK, place as usize % CHUNK)
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
        assert_eq!(map.values().count(), map.len());
        assert_eq!(map.chunks.len(), 640 / CHUNK, "places are used again");
        assert_eq!(size_of::<Option<Slot<u64>>>(), 16, "an empty place is no larger");
    }
}
