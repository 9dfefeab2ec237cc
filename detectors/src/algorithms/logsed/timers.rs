//! Timers on event time: what becomes overdue is noticed when its deadline passes, not at its session's next record.
//!
//! A hierarchical timer wheel (Varghese and Lauck, "Hashed and Hierarchical Timing Wheels", SOSP 1987): six levels of 64
//! slots, of which a slot at level *l* spans 64^l ticks of 2^20 ns (about a millisecond). A watched session has one timer. It is
//! lazy: a session that goes on only writes down its new deadline; a timer that fires before it is set anew. Only a
//! deadline that is earlier than the timer sets a second one; the first is then stale, skipped when its slot comes up, and swept
//! out when most are. A deadline beyond the wheel, two years, waits at its end.
//!
//! Cost: a look-up for each open session with news; O(1) for each timer that fires or moves a level down; nothing for empty
//! slots, however far time jumps. Memory: [`MAX_SESSIONS`] sessions, [`MAX_WAITS`] deadlines each, the earliest; some 30 MiB
//! where all are taken. A session too many is not watched until its next record. Not part of a snapshot: the next window
//! of a session sets its timer again.

use std::sync::Arc;

use faultline_core::{LogEntry, WindowKey};
use rustc_hash::FxHashMap;

use super::graph::EdgeIdx;

/// Sessions that are watched at a time.
const MAX_SESSIONS: usize = 65_536;

/// Deadlines that are kept of one session.
pub const MAX_WAITS: usize = 4;

const LEVELS: usize = 6;
const SLOTS: usize = 64;
const TICK_LOG2: u32 = 20;
/// Ticks of one turn of the highest level.
const SPAN: u64 = 1 << 36;

/// A record that waits for its successor.
#[derive(Clone, Debug, PartialEq)]
pub struct Wait {
    /// Event time after which the successor is overdue.
    pub deadline_unix_nano: i64,
    /// The edge it waits on.
    pub edge: EdgeIdx,
    /// The record.
    pub entry: LogEntry,
    /// Who wrote it.
    pub service: Arc<str>,
}

/// What a session waits for.
#[derive(Clone, Debug)]
pub struct Watched {
    /// Which session.
    pub key: WindowKey,
    /// Records it has.
    pub n_records: usize,
    /// Lags it has.
    pub n_lags: f64,
    /// In order of deadline.
    pub waits: Vec<Wait>,
}

#[derive(Debug)]
struct Watch {
    watched: Watched,
    /// The tick of the timer that counts, and its number.
    armed_at: u64,
    armed: u64,
}

/// See the file's documentation.
#[derive(Debug)]
pub struct Timers {
    slot_of: FxHashMap<WindowKey, u32>,
    watches: Vec<Option<Watch>>,
    free: Vec<u32>,
    wheel: Wheel,
    n_armed: u64,
    max_sessions: usize,
    watermark_unix_nano: i64,
}

impl Default for Timers {
    fn default() -> Self {
        Self::of(MAX_SESSIONS)
    }
}

impl Timers {
    fn of(max_sessions: usize) -> Self {
        Self {
            slot_of: FxHashMap::default(),
            watches: Vec::new(),
            free: Vec::new(),
            wheel: Wheel::default(),
            n_armed: 0,
            max_sessions,
            watermark_unix_nano: i64::MIN,
        }
    }

    /// Event time up to which deadlines have been told.
    pub fn watermark_unix_nano(&self) -> i64 {
        self.watermark_unix_nano
    }

    /// Replaces what a session waits for, given in order of deadline.
    pub fn watch(&mut self, watched: Watched) {
        let Some(first) = watched.waits.first() else { return self.forget(&watched.key) };
        let at = tick(first.deadline_unix_nano);
        let slot = match self.slot_of.get(&watched.key) {
            Some(&slot) => {
                let Some(watch) = self.watches[slot as usize].as_mut() else { return };
                watch.watched = watched;
                if at >= watch.armed_at {
                    return;
                }
                slot
            }
            None if self.slot_of.len() >= self.max_sessions => return,
            None => {
                let key = watched.key.clone();
                let watch = Some(Watch { watched, armed_at: at, armed: 0 });
                let slot = if let Some(slot) = self.free.pop() {
                    self.watches[slot as usize] = watch;
                    slot
                } else {
                    self.watches.push(watch);
                    (self.watches.len() - 1) as u32
                };
                self.slot_of.insert(key, slot);
                slot
            }
        };
        self.arm(slot, at);
        if self.wheel.n_timers > 4 * self.slot_of.len() + 1024 {
            let watches = &self.watches;
            self.wheel.retain(|timer| is_current(watches, timer));
        }
    }

    /// The session has ended, or waits for nothing.
    pub fn forget(&mut self, key: &WindowKey) {
        if self.slot_of.is_empty() {
            return;
        }
        if let Some(slot) = self.slot_of.remove(key) {
            self.watches[slot as usize] = None;
            self.free.push(slot);
        }
    }

    /// Event time has reached `watermark_unix_nano`: what is overdue since, each told once, in order of deadline.
    pub fn advance(&mut self, watermark_unix_nano: i64) -> Vec<Watched> {
        let mut all = Vec::new();
        if watermark_unix_nano <= self.watermark_unix_nano {
            return all;
        }
        self.watermark_unix_nano = watermark_unix_nano;
        for timer in self.wheel.advance(tick(watermark_unix_nano)) {
            if !is_current(&self.watches, &timer) {
                continue;
            }
            let Some(watch) = self.watches[timer.slot as usize].as_mut() else { continue };
            let waits = &mut watch.watched.waits;
            let n_due = waits.partition_point(|wait| wait.deadline_unix_nano < watermark_unix_nano);
            let later = waits.split_off(n_due);
            let due = Watched { waits: std::mem::take(waits), ..watch.watched.clone() };
            match later.first() {
                // Not before the tick after this one: within a tick a deadline is rounded down.
                Some(next) => {
                    let at = tick(next.deadline_unix_nano).max(self.wheel.now + 1);
                    watch.watched.waits = later;
                    self.arm(timer.slot, at);
                }
                None => self.forget(&due.key),
            }
            if !due.waits.is_empty() {
                all.push(due);
            }
        }
        all.sort_by(|a, b| (a.waits[0].deadline_unix_nano, &a.key).cmp(&(b.waits[0].deadline_unix_nano, &b.key)));
        all
    }

    fn arm(&mut self, slot: u32, at: u64) {
        self.n_armed += 1;
        if let Some(watch) = self.watches[slot as usize].as_mut() {
            (watch.armed_at, watch.armed) = (at, self.n_armed);
            self.wheel.insert(Timer { at, slot, armed: self.n_armed });
        }
    }
}

/// Whether it is the one that counts for its session.
fn is_current(watches: &[Option<Watch>], timer: &Timer) -> bool {
    watches[timer.slot as usize].as_ref().is_some_and(|watch| watch.armed == timer.armed)
}

/// The tick of an event time, rounded down. Times before the epoch are the first tick.
fn tick(time_unix_nano: i64) -> u64 {
    time_unix_nano.max(0).unsigned_abs() >> TICK_LOG2
}

#[derive(Clone, Copy, Debug)]
struct Timer {
    at: u64,
    slot: u32,
    armed: u64,
}

#[derive(Debug)]
struct Wheel {
    /// Everything up to this tick has fired.
    now: u64,
    slots: Vec<Vec<Timer>>,
    /// Which slots of each level hold timers.
    occupied: [u64; LEVELS],
    n_timers: usize,
}

impl Default for Wheel {
    fn default() -> Self {
        Self { now: 0, slots: vec![Vec::new(); LEVELS * SLOTS], occupied: [0; LEVELS], n_timers: 0 }
    }
}

impl Wheel {
    fn insert(&mut self, timer: Timer) {
        self.n_timers += 1;
        self.place(timer);
    }

    /// The level is that of the highest digit, base 64, in which the timer's tick differs from now.
    fn place(&mut self, timer: Timer) {
        let at = timer.at.clamp(self.now, self.now | (SPAN - 1));
        let level = ((63 - ((at ^ self.now) | 1).leading_zeros()) / 6) as usize;
        let slot = (at >> (6 * level)) as usize % SLOTS;
        self.occupied[level] |= 1 << slot;
        self.slots[level * SLOTS + slot].push(timer);
    }

    /// Moves on to tick `to` and returns the timers up to it; of those beyond the wheel some too early.
    fn advance(&mut self, to: u64) -> Vec<Timer> {
        let mut fired = Vec::new();
        while let Some((level, slot, start)) = self.next().filter(|(.., start)| *start <= to) {
            self.now = self.now.max(start);
            self.occupied[level] &= !(1 << slot);
            let timers = std::mem::take(&mut self.slots[level * SLOTS + slot]);
            if level == 0 {
                self.n_timers -= timers.len();
                fired.extend(timers);
            } else {
                timers.into_iter().for_each(|timer| self.place(timer));
            }
        }
        self.now = self.now.max(to);
        fired
    }

    /// The next slot that holds timers, with its first tick. Lower levels come first: their slots lie within the current
    /// one of the level above.
    fn next(&self) -> Option<(usize, usize, u64)> {
        (0..LEVELS).find_map(|level| {
            let digit = (self.now >> (6 * level)) % SLOTS as u64;
            let ahead = self.occupied[level] >> digit;
            let slot = digit + u64::from(ahead.trailing_zeros());
            let turn = self.now >> (6 * (level + 1)) << (6 * (level + 1));
            (ahead != 0).then_some((level, slot as usize, turn + (slot << (6 * level))))
        })
    }

    fn retain(&mut self, mut keep: impl FnMut(&Timer) -> bool) {
        for (idx, slot) in self.slots.iter_mut().enumerate() {
            slot.retain(&mut keep);
            if slot.is_empty() {
                self.occupied[idx / SLOTS] &= !(1 << (idx % SLOTS));
            }
        }
        self.n_timers = self.slots.iter().map(Vec::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use faultline_core::TemplateId;
    use proptest::prelude::*;

    use super::*;

    fn key(name: &str) -> WindowKey {
        WindowKey { stream: "s".into(), session: name.into() }
    }

    /// The session waits until each of these times.
    fn until(name: &str, deadlines: impl IntoIterator<Item = i64>) -> Watched {
        let wait = |deadline_unix_nano: i64| {
            let (template, record) = (TemplateId(1), deadline_unix_nano.unsigned_abs());
            let (time_unix_nano, service, severity_number, is_since_deploy) = (0, 0, 0, false);
            let entry = LogEntry { template, time_unix_nano, record, service, severity_number, is_since_deploy };
            Wait { deadline_unix_nano, edge: 0, entry, service: "service".into() }
        };
        Watched { key: key(name), n_records: 1, n_lags: 0.0, waits: deadlines.into_iter().map(wait).collect() }
    }

    fn told(due: &[Watched]) -> Vec<(String, Vec<i64>)> {
        let deadlines = |due: &Watched| due.waits.iter().map(|wait| wait.deadline_unix_nano).collect();
        due.iter().map(|due| (due.key.session.to_string(), deadlines(due))).collect()
    }

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn a_deadline_is_told_once_when_time_has_passed_it() {
        let mut timers = Timers::default();
        timers.watch(until("a", [5 * SECOND, 9 * SECOND]));
        timers.watch(until("b", [6 * SECOND]));
        assert!(timers.advance(4 * SECOND).is_empty());
        assert_eq!(told(&timers.advance(7 * SECOND)), [("a".into(), vec![5 * SECOND]), ("b".into(), vec![6 * SECOND])]);
        assert!(timers.advance(8 * SECOND).is_empty() && timers.advance(3 * SECOND).is_empty());
        assert_eq!(told(&timers.advance(i64::MAX)), [("a".into(), vec![9 * SECOND])]);
        assert!(timers.slot_of.is_empty() && timers.advance(i64::MAX).is_empty());
    }

    #[test]
    fn a_session_that_goes_on_or_ends_is_not_overdue() {
        let mut timers = Timers::default();
        timers.watch(until("goes on", [SECOND]));
        timers.watch(until("ends", [SECOND]));
        timers.watch(until("goes on", [3 * SECOND]));
        timers.forget(&key("ends"));
        assert!(timers.advance(2 * SECOND).is_empty());
        assert_eq!(told(&timers.advance(4 * SECOND)), [("goes on".into(), vec![3 * SECOND])]);
    }

    #[test]
    fn a_deadline_that_comes_nearer_or_lies_beyond_the_wheel_is_kept() {
        let mut timers = Timers::default();
        let years = 10 * 365 * 86_400 * SECOND;
        timers.advance(40 * 365 * 86_400 * SECOND);
        let now = timers.watermark_unix_nano();
        timers.watch(until("near", [now + 100 * SECOND]));
        timers.watch(until("near", [now + SECOND]));
        timers.watch(until("far", [now + years]));
        assert_eq!(told(&timers.advance(now + 2 * SECOND)), [("near".into(), vec![now + SECOND])]);
        for part in 1..10 {
            assert!(timers.advance(now + years / 10 * part).is_empty(), "after {part} tenths");
        }
        assert_eq!(told(&timers.advance(now + years + SECOND)), [("far".into(), vec![now + years])]);
    }

    #[test]
    fn sessions_and_stale_timers_are_bounded() {
        let mut timers = Timers::of(2);
        for name in ["a", "b", "c"] {
            timers.watch(until(name, [SECOND]));
        }
        assert_eq!((timers.slot_of.len(), timers.advance(i64::MAX).len()), (2, 2));
        let mut timers = Timers::default();
        for i in (0..10_000).rev() {
            timers.watch(until("a", [i * SECOND]));
        }
        assert!(timers.wheel.n_timers < 1100, "{}", timers.wheel.n_timers);
        for i in 0..10_000 {
            timers.watch(until(&i.to_string(), [86_400 * SECOND]));
            timers.forget(&key(&i.to_string()));
        }
        assert!(timers.wheel.n_timers < 1100 && timers.watches.len() <= 2, "{}", timers.wheel.n_timers);
    }

    proptest! {
        #[test]
        fn the_wheel_fires_what_a_sorted_list_would(
            steps in prop::collection::vec((0u8..8, 0usize..4, 0i64..50_000_000_000), 1..120),
            start in prop::sample::select(vec![0i64, 1_383_001_949_000_000_000 >> TICK_LOG2 << TICK_LOG2]),
        ) {
            let mut timers = Timers::default();
            let mut list: BTreeMap<u8, i64> = BTreeMap::new();
            let mut now = start;
            timers.advance(now);
            for (session, scale, nanos) in steps {
                // Whole ticks: within a tick the wheel may be one tick late.
                let nanos = nanos >> TICK_LOG2 << TICK_LOG2;
                if session == 0 {
                    now += nanos * [1, 40, 5_000, 400_000][scale];
                    let fired = told(&timers.advance(now));
                    let mut expected: Vec<(i64, u8)> =
                        list.iter().filter(|(_, at)| **at < now).map(|(session, at)| (*at, *session)).collect();
                    expected.sort_unstable();
                    list.retain(|_, at| *at >= now);
                    let expected: Vec<(String, Vec<i64>)> =
                        expected.into_iter().map(|(at, session)| (session.to_string(), vec![at])).collect();
                    prop_assert_eq!(fired, expected);
                } else {
                    let at = now + nanos * [1, 40, 5_000, 4_000_000][scale];
                    list.insert(session, at);
                    timers.watch(until(&session.to_string(), [at]));
                }
            }
        }
    }
}
