//! The steps of one series: how long they are, where they begin, which of them have been shown.
//!
//! The step is found from the first points: their median spacing, rounded up to a usual interval, a spacing up to a ninth
//! too long forgiven. Where a series has one point a step, its steps are laid so that a point falls at three quarters of
//! its own; then neither jitter nor a sender that aligns its exports with the clock makes a gap beside a double. A step is
//! named by the multiple of the step at or before the first point, so a label is never later than its point.
//!
//! Steps without a point are gaps. They are filled in when the next point comes, so a series that has ended leaves no trail.

use faultline_core::RecordId;

use super::spread::Spread;

/// No time at all.
pub(super) const NEVER: i64 = i64::MIN;

/// Times further from the epoch (146 years) are taken for garbage, which also keeps sums of two within range.
pub(super) const MAX_TIME: i64 = 1 << 62;

/// Steps of a series that wait at a time; one more releases the oldest early.
pub(super) const MAX_SLOTS: usize = 64;

/// Points from which a step is found.
const SETTLING_POINTS: usize = 4;

/// Nanoseconds of a second.
pub(super) const SECOND: i64 = 1_000_000_000;

/// Steps that are found, in seconds.
const USUAL_STEPS_S: [i64; 13] = [1, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600];

/// The step of a series that ends with its first point.
const DEFAULT_STEP: i64 = 60 * SECOND;

/// A day. Records that are further from what came before are not taken at their word.
pub(super) const MAX_JUMP: u64 = 86_400 * SECOND as u64;

/// Strange records in a row after which time has indeed jumped.
const CONFIRMATIONS: u8 = 8;

/// Whether a record belongs to the present of its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Near,
    /// A day or more away from it: leave it out.
    Strange,
    /// So were those before: this is the present now.
    Moved,
}

/// Keeps one wrong clock reading from carrying a series off.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guard {
    /// Newest time taken, [`NEVER`] at first.
    pub newest: i64,
    n_strange: u8,
}

impl Default for Guard {
    fn default() -> Self {
        Self { newest: NEVER, n_strange: 0 }
    }
}

impl Guard {
    pub fn admit(&mut self, time: i64) -> Admission {
        if self.newest == NEVER || time.abs_diff(self.newest) <= MAX_JUMP {
            self.n_strange = 0;
            return Admission::Near;
        }
        self.n_strange += 1;
        if self.n_strange < CONFIRMATIONS {
            return Admission::Strange;
        }
        *self = Self::default();
        Admission::Moved
    }

    pub fn see(&mut self, time: i64) {
        self.newest = self.newest.max(time);
    }
}

/// How steps are found and when they are complete.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// The step of every series, where configured.
    pub fixed_step: Option<i64>,
    /// The least step that is found.
    pub min_step: i64,
    pub lateness: i64,
    /// Steps without a point that are filled with gaps; a longer silence begins anew.
    pub max_gap: i64,
}

/// What has come within one step so far; before the step is known, one point.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    /// Time of its newest point.
    pub time: i64,
    /// Time that increments cover, 0 where not known.
    pub covered: i64,
    /// Its newest record.
    pub record: RecordId,
    /// The level, or what was added.
    pub value: f64,
    pub spread: Option<Box<Spread>>,
}

/// What two points of one step are together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Merge {
    /// The later of them.
    Latest,
    /// Their sum.
    Sum,
}

impl Slot {
    fn absorb(&mut self, other: Self, merge: Merge) {
        let is_later = other.time >= self.time;
        match merge {
            Merge::Latest if is_later => (self.value, self.record) = (other.value, other.record),
            Merge::Latest => {}
            Merge::Sum => {
                self.value += other.value;
                self.covered = self.covered.saturating_add(other.covered);
                self.record = self.record.max(other.record);
                if let Some(more) = other.spread {
                    match &mut self.spread {
                        Some(spread) => spread.merge(*more, is_later),
                        None => self.spread = Some(more),
                    }
                }
            }
        }
        self.time = self.time.max(other.time);
    }

    /// Seconds that its increments are of: those they cover where that is a good part of the step, else the step.
    pub fn seconds(&self, step: i64) -> f64 {
        let nanos = if self.covered >= step / 2 { self.covered } else { step };
        nanos.max(1) as f64 / SECOND as f64
    }

    /// Memory beside the struct itself.
    pub fn heap_bytes(&self) -> usize {
        self.spread.as_ref().map_or(0, |spread| size_of::<Spread>() + spread.heap_bytes())
    }
}

/// See the file's documentation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Track {
    pub guard: Guard,
    /// The step, 0 while it is not known.
    pub step: i64,
    phase: i64,
    /// The first step that has not been shown, [`NEVER`] where the next one shown begins anew.
    pub next: i64,
    /// Whether a step has one point.
    is_regular: bool,
}

impl Default for Track {
    fn default() -> Self {
        Self { guard: Guard::default(), step: 0, phase: 0, next: NEVER, is_regular: false }
    }
}

impl Track {
    pub fn is_settled(&self) -> bool {
        self.step != 0
    }

    /// Whether there are points enough to find the step from.
    pub fn is_ripe(slots: &[Slot]) -> bool {
        slots.len() >= SETTLING_POINTS
    }

    /// Number of the step that a time belongs to.
    pub fn step_of(&self, time: i64) -> i64 {
        time.saturating_sub(self.phase).div_euclid(self.step.max(1))
    }

    /// Whether the step of this time has been shown.
    pub fn is_past(&self, time: i64) -> bool {
        self.is_settled() && self.next != NEVER && self.step_of(time) < self.next
    }

    /// Step and phase, where a step has one point, so that others can keep pace.
    pub fn pace(&self) -> Option<(i64, i64)> {
        self.is_regular.then_some((self.step, self.phase))
    }

    /// Time from which on nothing more is expected for a slot.
    pub fn due(&self, slot: &Slot) -> i64 {
        if self.is_regular {
            return slot.time;
        }
        let end = (self.step_of(slot.time) + 1).saturating_mul(self.step);
        end.saturating_add(self.phase)
    }

    /// What an increment up to `time` covers: the time since its start, or since the point before where that is later.
    pub fn covered(&self, start: i64, time: i64) -> i64 {
        let newest = self.guard.newest;
        if start == NEVER || time < newest {
            return 0;
        }
        time.saturating_sub(start.max(newest)).max(0)
    }

    /// What comes from now on has nothing to do with what came before. The step stays as it is.
    pub fn restart(&mut self) {
        (self.guard, self.next) = (Guard::default(), NEVER);
    }

    /// Files a slot among the others, which are in order of time.
    pub fn place(&self, slots: &mut Vec<Slot>, slot: Slot, merge: Merge) {
        let idx = slots.iter().rposition(|other| other.time < slot.time).map_or(0, |before| before + 1);
        if self.is_settled() {
            let step = self.step_of(slot.time);
            let neighbours = [idx.checked_sub(1), Some(idx)];
            let same = |place: &usize| slots.get(*place).is_some_and(|other| self.step_of(other.time) == step);
            if let Some(place) = neighbours.into_iter().flatten().find(same) {
                slots[place].absorb(slot, merge);
                return;
            }
        }
        slots.insert(idx, slot);
    }

    /// Finds the step from the points so far and files them anew. `pace` is that of the series beside it.
    pub fn settle(&mut self, slots: &mut Vec<Slot>, timing: &Timing, pace: Option<(i64, i64)>, merge: Merge) {
        // No more than the first ones, so that it makes no difference how many came at once.
        let first_slots = &slots[..slots.len().min(SETTLING_POINTS)];
        let mut spacings: Vec<i64> =
            first_slots.windows(2).map(|pair| pair[1].time.saturating_sub(pair[0].time)).collect();
        spacings.sort_unstable();
        let median = spacings.get(spacings.len() / 2).copied().unwrap_or(DEFAULT_STEP);
        self.step = timing.fixed_step.unwrap_or_else(|| usual_step(median, timing.min_step)).max(1);
        let step = self.step;
        // Within a day, so nothing here can overflow.
        let is_spaced = spacings.first().is_some_and(|least| least * 5 > step * 4);
        self.is_regular = is_spaced && median * 4 <= step * 5;
        if let (true, Some(first)) = (self.is_regular, slots.first()) {
            let own = first.time.rem_euclid(step) - step / 4 * 3;
            let is_safe = |phase: i64| {
                let place = first.time.saturating_sub(phase).rem_euclid(step);
                place >= step / 4 && place <= step / 16 * 15
            };
            self.phase = pace.filter(|pace| pace.0 == step && is_safe(pace.1)).map_or(own, |pace| pace.1);
        }
        for slot in std::mem::replace(slots, Vec::with_capacity(1)) {
            self.place(slots, slot, merge);
        }
    }
}

/// The least usual step of no less than `spacing`, of which a tenth is forgiven, and `min_step`.
fn usual_step(spacing: i64, min_step: i64) -> i64 {
    let wanted = (spacing - spacing / 10).max(min_step);
    let mut usual = USUAL_STEPS_S.iter().map(|seconds| seconds * SECOND);
    usual.find(|step| *step >= wanted).unwrap_or(min_step.max(3600 * SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMING: Timing = Timing { fixed_step: None, min_step: SECOND, lateness: 0, max_gap: 60 };

    fn slot(time_ms: i64) -> Slot {
        Slot { time: time_ms * 1_000_000, covered: 0, record: 0, value: 1.0, spread: None }
    }

    fn settled(times_ms: &[i64]) -> (Track, Vec<Slot>) {
        let (mut track, mut slots) = (Track::default(), Vec::new());
        times_ms.iter().for_each(|time| track.place(&mut slots, slot(*time), Merge::Sum));
        track.settle(&mut slots, &TIMING, None, Merge::Sum);
        (track, slots)
    }

    #[test]
    fn a_spacing_is_rounded_up_to_a_usual_step() {
        for (spacing_ms, step_s) in [(40, 1), (1_000, 1), (1_050, 1), (14_900, 15), (15_400, 15), (45_000, 60)] {
            assert_eq!(usual_step(spacing_ms * 1_000_000, SECOND), step_s * SECOND, "{spacing_ms} ms");
        }
        assert_eq!(usual_step(59_000_000_000, SECOND), 60 * SECOND);
        assert_eq!(usual_step(66_000_000_000, SECOND), 60 * SECOND);
        assert_eq!(usual_step(15 * SECOND, 60 * SECOND), 60 * SECOND);
        assert_eq!(usual_step(20 * 3600 * SECOND, SECOND), 3600 * SECOND);
        assert_eq!(usual_step(SECOND, 7200 * SECOND), 7200 * SECOND);
    }

    #[test]
    fn exports_at_the_full_minute_do_not_fall_between_two_steps() {
        // 120 s, then 60 ms early, 40 ms late, 10 ms early: always one point a step.
        let (track, slots) = settled(&[120_000, 179_940, 240_040, 299_990]);
        assert_eq!((track.step, slots.len()), (60 * SECOND, 4));
        assert!(track.pace().is_some());
        let steps: Vec<i64> = slots.iter().map(|slot| track.step_of(slot.time)).collect();
        assert_eq!(steps, [2, 3, 4, 5]);
    }

    #[test]
    fn points_that_share_a_step_are_merged_when_the_step_is_found() {
        let (track, slots) = settled(&[0, 45_000, 90_000, 135_000]);
        assert_eq!(track.step, 60 * SECOND);
        assert_eq!(slots.iter().map(|slot| slot.value).collect::<Vec<_>>(), [2.0, 1.0, 1.0]);
        assert_eq!(track.due(&slots[0]), 60 * SECOND, "its step has to be over");
    }

    #[test]
    fn a_series_keeps_pace_with_the_one_beside_it_where_that_is_safe() {
        let (first, _) = settled(&[59_990, 119_990, 179_990, 239_990]);
        let mut second = Track::default();
        let mut slots: Vec<Slot> = [60_010, 120_010, 180_010].map(slot).into();
        second.settle(&mut slots, &TIMING, first.pace(), Merge::Sum);
        assert_eq!(second.step_of(60_010_000_000), first.step_of(59_990_000_000));
        let mut apart = Track::default();
        let mut slots: Vec<Slot> = [75_000, 135_000, 195_000].map(slot).into();
        apart.settle(&mut slots, &TIMING, first.pace(), Merge::Sum);
        assert_ne!(apart.pace(), first.pace(), "it would stand at the border of two steps");
    }

    #[test]
    fn one_wrong_clock_reading_is_left_out_and_a_jump_is_believed_in_the_end() {
        let mut guard = Guard::default();
        assert_eq!(guard.admit(0), Admission::Near);
        guard.see(0);
        assert_eq!(guard.admit(MAX_TIME), Admission::Strange);
        assert_eq!(guard.admit(60 * SECOND), Admission::Near);
        let answers: Vec<Admission> = (0..8).map(|_| guard.admit(-MAX_TIME)).collect();
        assert!(answers[..7].iter().all(|answer| *answer == Admission::Strange));
        assert_eq!((answers[7], guard.newest), (Admission::Moved, NEVER));
    }
}
