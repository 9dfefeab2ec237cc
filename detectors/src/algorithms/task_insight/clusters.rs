//! The clusters of one task's calls, as cluster features: how many, their mean, their squares around it.
//!
//! A call joins the nearest cluster if that stays tight, else it founds one. A full list loses its lightest cluster
//! that is no habit; where all are, the two nearest are joined. So a thousand calls that are each odd in their own way
//! take no more room than one, and none of them displaces a habit.

use super::Config;
use crate::bytes::{Reader, Writer};

/// Clusters of a task.
pub(super) const MAX_CLUSTERS: usize = 8;

/// Root mean square distance of a cluster's calls from its mean, at most, when one joins it.
const RADIUS: f64 = 0.5;

/// Distance from a cluster's mean up to which a call may join: a heavy one takes no notice of a single call.
const REACH: f64 = 1.0;

/// Calls that a habit holds at least.
const LEAST_WEIGHT: f64 = 3.0;

/// A spread is never less: a tenth of the time.
const LEAST_SPREAD: f64 = 0.1;

/// What a spread is held to be before there are calls, and how many calls that counts for.
const PRIOR_SPREAD: f64 = 0.3;
const PRIOR_CALLS: f64 = 4.0;

/// Most spreads beyond the first that a call counts for when it is measured how far calls lie outside.
const MOST_EXCESS: f64 = 4.0;

/// Mean of those spreads before there are calls and how many calls that counts for; it is never less than `LEAST_EXCESS`.
const PRIOR_EXCESS: f64 = 1.0;
const PRIOR_BEYOND: f64 = 5.0;
const LEAST_EXCESS: f64 = 0.3;

/// A call as a point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Call {
    /// Logarithm of its self time and the floor, milliseconds.
    pub time: f64,
    /// Logarithm of one and the calls it makes.
    pub calls: f64,
}

impl Call {
    pub fn new(self_nanos: i64, n_calls: u32, floor_ms: f64) -> Self {
        let ms = self_nanos.max(0) as f64 / 1e6;
        Self { time: (ms + floor_ms).ln(), calls: f64::from(n_calls).ln_1p() }
    }
}

/// Calls that are alike.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cluster {
    /// Calls, aged.
    pub weight: f64,
    /// Means.
    pub time: f64,
    pub calls: f64,
    /// Sums of the squares around the means.
    time_squares: f64,
    calls_squares: f64,
    /// Whether a person said that it is normal.
    is_accepted: bool,
}

impl Cluster {
    fn of(call: Call, weight: f64, is_accepted: bool) -> Self {
        Self { weight, time: call.time, calls: call.calls, time_squares: 0.0, calls_squares: 0.0, is_accepted }
    }

    fn squared_distance(&self, time: f64, calls: f64) -> f64 {
        (time - self.time).powi(2) + (calls - self.calls).powi(2)
    }

    /// Whether a call may join.
    fn takes(&self, call: Call) -> bool {
        let squared = self.squared_distance(call.time, call.calls);
        let squares = self.time_squares + self.calls_squares + squared * self.weight / (self.weight + 1.0);
        squared <= REACH * REACH && squares <= RADIUS * RADIUS * (self.weight + 1.0)
    }

    /// Takes in what another holds.
    fn join(&mut self, other: &Self) {
        let weight = self.weight + other.weight;
        let share = other.weight / weight;
        let (time, calls) = (other.time - self.time, other.calls - self.calls);
        self.time_squares += other.time_squares + time * time * self.weight * share;
        self.calls_squares += other.calls_squares + calls * calls * self.weight * share;
        self.time += time * share;
        self.calls += calls * share;
        self.weight = weight;
    }

    /// Deviations of its times and of its numbers of calls, as far as so many calls can tell.
    pub fn spreads(&self) -> (f64, f64) {
        let spread = |squares: f64| {
            let variance = (squares + PRIOR_CALLS * PRIOR_SPREAD * PRIOR_SPREAD) / (self.weight + PRIOR_CALLS);
            variance.sqrt().max(LEAST_SPREAD) * (1.0 + 1.0 / self.weight.max(1.0)).sqrt()
        };
        (spread(self.time_squares), spread(self.calls_squares))
    }
}

/// What is said of one call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Judged {
    /// How seldom a call of its task is so far from all habits: −ln of the share.
    pub nats: f64,
    /// Spreads from the nearest habit.
    pub distance: f64,
    /// The same in time alone, positive where it is slower, and in the number of calls alone.
    pub time_off: f64,
    pub calls_off: f64,
    /// The nearest habit.
    pub habit: Cluster,
}

/// What is known of one task.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Task {
    clusters: Vec<Cluster>,
    /// Calls whose distance was measured, those of them more than one spread outside, and the spreads beyond that one.
    n_measured: f64,
    n_beyond: f64,
    excess: f64,
}

impl Task {
    /// Bytes of a task in a snapshot, with its key, at least.
    pub const LEAST_BYTES: usize = 33;

    fn weight(&self) -> f64 {
        self.clusters.iter().map(|cluster| cluster.weight).sum()
    }

    /// Weight from which on a cluster is a habit.
    fn habit_weight(&self, config: &Config) -> f64 {
        (config.share * self.weight()).max(LEAST_WEIGHT)
    }

    /// Whether enough is known to say something.
    pub fn is_known(&self, config: &Config) -> bool {
        // Ages have made fractions of what were whole calls.
        self.weight() + 0.5 >= config.min_calls as f64
    }

    /// Its habits, the heaviest first, each with its share.
    pub fn habits(&self, config: &Config) -> Vec<(Cluster, f64)> {
        let (least, weight) = (self.habit_weight(config), self.weight().max(1.0));
        let habits = self.clusters.iter().filter(|cluster| cluster.is_accepted || cluster.weight >= least);
        let mut habits: Vec<_> = habits.map(|cluster| (*cluster, cluster.weight / weight)).collect();
        habits.sort_by(|one, other| other.1.total_cmp(&one.1));
        habits
    }

    /// How far a call is from the nearest habit; nothing where too little is known.
    pub fn judge(&self, call: Call, config: &Config) -> Option<Judged> {
        if !self.is_known(config) {
            return None;
        }
        let least = self.habit_weight(config);
        let habits = || self.clusters.iter().filter(move |cluster| cluster.is_accepted || cluster.weight >= least);
        let quickest = habits().map(|habit| habit.time).fold(f64::INFINITY, f64::min);
        let mut nearest: Option<Judged> = None;
        for habit in habits() {
            let (time_spread, calls_spread) = habit.spreads();
            let time_off = (call.time - habit.time) / time_spread;
            // Quicker than the quickest is not slow; quicker than another may be a slow one of the quickest.
            let time_off = if habit.time <= quickest { time_off.max(0.0) } else { time_off };
            let calls_off = (call.calls - habit.calls) / calls_spread;
            let distance = time_off.hypot(calls_off);
            if nearest.is_none_or(|nearest| distance < nearest.distance) {
                nearest = Some(Judged { nats: self.nats(distance), distance, time_off, calls_off, habit: *habit });
            }
        }
        nearest
    }

    /// −ln of the share of its calls that are so far outside, with an exponential tail from one spread on.
    fn nats(&self, distance: f64) -> f64 {
        let share = ((self.n_beyond + 1.0) / (self.n_measured + 10.0)).min(0.5);
        let excess = (self.excess + PRIOR_BEYOND * PRIOR_EXCESS) / (self.n_beyond + PRIOR_BEYOND);
        -share.ln() * distance.min(1.0) + (distance - 1.0).max(0.0) / excess.max(LEAST_EXCESS)
    }

    /// Notes how far outside a call is.
    pub fn note_distance(&mut self, call: Call, config: &Config) {
        let Some(judged) = self.judge(call, config) else { return };
        self.n_measured += 1.0;
        if judged.distance > 1.0 {
            self.n_beyond += 1.0;
            self.excess += (judged.distance - 1.0).min(MOST_EXCESS);
        }
        if self.n_measured > 2.0 * config.memory_calls as f64 {
            for figure in [&mut self.n_measured, &mut self.n_beyond, &mut self.excess] {
                *figure /= 2.0;
            }
        }
    }

    /// Puts a call into a cluster.
    pub fn learn(&mut self, call: Call, config: &Config) {
        let distances = self.clusters.iter().map(|cluster| cluster.squared_distance(call.time, call.calls));
        let nearest = distances.enumerate().min_by(|one, other| one.1.total_cmp(&other.1)).map(|(idx, _)| idx);
        match nearest.filter(|&idx| self.clusters[idx].takes(call)) {
            Some(idx) => self.clusters[idx].join(&Cluster::of(call, 1.0, false)),
            None => {
                if self.make_room(config) {
                    self.clusters.push(Cluster::of(call, 1.0, false));
                }
            }
        }
        if self.weight() > 2.0 * config.memory_calls as f64 {
            for cluster in &mut self.clusters {
                for figure in [&mut cluster.weight, &mut cluster.time_squares, &mut cluster.calls_squares] {
                    *figure /= 2.0;
                }
            }
        }
    }

    /// Makes a habit of what a call did; false where there is no room.
    pub fn accept(&mut self, call: Call, config: &Config) -> bool {
        let has_room = self.make_room(config);
        if has_room {
            self.clusters.push(Cluster::of(call, LEAST_WEIGHT, true));
        }
        has_room
    }

    /// Whether there is room for one more cluster, which is made where it can be.
    fn make_room(&mut self, config: &Config) -> bool {
        if self.clusters.len() < MAX_CLUSTERS {
            return true;
        }
        let least = self.habit_weight(config);
        let of_no_weight = self.clusters.iter().enumerate().filter(|(_, cluster)| !cluster.is_accepted);
        let lightest = of_no_weight.min_by(|one, other| one.1.weight.total_cmp(&other.1.weight));
        if let Some((idx, _)) = lightest.filter(|(_, cluster)| cluster.weight < least) {
            self.clusters.remove(idx);
            return true;
        }
        let mut nearest: Option<(f64, usize, usize)> = None;
        for (idx, one) in self.clusters.iter().enumerate() {
            for (other_idx, other) in self.clusters.iter().enumerate().skip(idx + 1) {
                let distance = one.squared_distance(other.time, other.calls);
                let is_bound = one.is_accepted || other.is_accepted;
                if !is_bound && nearest.is_none_or(|nearest| distance < nearest.0) {
                    nearest = Some((distance, idx, other_idx));
                }
            }
        }
        let Some((_, idx, other_idx)) = nearest else { return false };
        let other = self.clusters.remove(other_idx);
        self.clusters[idx].join(&other);
        true
    }

    pub fn write(&self, writer: &mut Writer) {
        for figure in [self.n_measured, self.n_beyond, self.excess] {
            writer.double(figure);
        }
        writer.byte(self.clusters.len() as u8);
        for cluster in &self.clusters {
            let Cluster { weight, time, calls, time_squares, calls_squares, is_accepted } = *cluster;
            for figure in [weight, time, calls, time_squares, calls_squares] {
                writer.double(figure);
            }
            writer.byte(u8::from(is_accepted));
        }
    }

    /// Reads what [`Self::write`] wrote; nothing where it is damaged.
    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let (n_measured, n_beyond, excess) = (reader.double()?, reader.double()?, reader.double()?);
        let n_clusters = usize::from(reader.byte()?);
        if n_clusters > MAX_CLUSTERS {
            return None;
        }
        let mut clusters = Vec::with_capacity(n_clusters);
        for _ in 0..n_clusters {
            let mut figure = || reader.double();
            let (weight, time, calls) = (figure()?, figure()?, figure()?);
            let (time_squares, calls_squares) = (figure()?, figure()?);
            let is_accepted = reader.is()?;
            clusters.push(Cluster { weight, time, calls, time_squares, calls_squares, is_accepted });
        }
        Some(Self { clusters, n_measured, n_beyond, excess })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(ms: f64, n_calls: u32) -> Call {
        Call::new((ms * 1e6) as i64, n_calls, 0.2)
    }

    /// A call within a few percent of so many milliseconds.
    fn near(ms: f64, idx: u32) -> Call {
        call(ms * (1.0 + f64::from(idx % 11) / 100.0), 0)
    }

    fn learned(calls: impl IntoIterator<Item = Call>) -> Task {
        let (mut task, config) = (Task::default(), Config::default());
        let calls: Vec<Call> = calls.into_iter().collect();
        calls.iter().for_each(|call| task.learn(*call, &config));
        calls.iter().for_each(|call| task.note_distance(*call, &config));
        task
    }

    fn distance(task: &Task, call: Call) -> f64 {
        task.judge(call, &Config::default()).expect("it is known").distance
    }

    #[test]
    fn a_cluster_has_the_mean_and_the_squares_of_its_calls() {
        let calls: Vec<Call> = (0..40).map(|idx| near(10.0, idx * 7)).collect();
        let task = learned(calls.iter().copied());
        let [cluster] = task.clusters.as_slice() else { panic!("{:?}", task.clusters) };
        let n = calls.len() as f64;
        let mean = calls.iter().map(|call| call.time).sum::<f64>() / n;
        let squares: f64 = calls.iter().map(|call| (call.time - mean).powi(2)).sum();
        assert!((cluster.weight - n).abs() < 1e-9 && (cluster.time - mean).abs() < 1e-12);
        assert!((cluster.time_squares - squares).abs() < 1e-9, "{} and {squares}", cluster.time_squares);
    }

    #[test]
    fn what_lies_between_two_habits_is_far_from_both() {
        // Nine of ten are answered from a cache.
        let task = learned((0..200).map(|idx| near(if idx % 10 == 0 { 200.0 } else { 2.0 }, idx)));
        assert_eq!(task.habits(&Config::default()).len(), 2);
        assert!(distance(&task, call(2.1, 0)) < 1.0 && distance(&task, call(205.0, 0)) < 1.0);
        assert!(distance(&task, call(20.0, 0)) > 5.0, "{}", distance(&task, call(20.0, 0)));
        assert!(distance(&task, call(2000.0, 0)) > 5.0);
        assert_eq!(distance(&task, call(0.1, 0)), 0.0, "quicker than the quickest is not slow");
        assert!(distance(&task, call(2.1, 3)) > 5.0, "three calls, where none is usual");
    }

    #[test]
    fn farther_is_never_less_surprising_and_restless_tasks_are_heard_less() {
        let steady = learned((0..200).map(|idx| near(10.0, idx)));
        let restless = learned((0..200).map(|idx| call(10.0 * 1.6_f64.powi((idx * 37 % 13) - 6), 0)));
        let nats = |task: &Task, ms: f64| task.judge(call(ms, 0), &Config::default()).expect("it is known").nats;
        let steps: Vec<f64> = (10..200).map(|ms| nats(&steady, f64::from(ms))).collect();
        assert!(steps.is_sorted() && steps[0] >= 0.0, "{steps:?}");
        assert!(nats(&steady, 400.0) > 2.0 * nats(&restless, 400.0));
    }

    #[test]
    fn a_few_failures_are_no_habit_and_a_flood_of_odd_calls_displaces_none() {
        let odd = |idx: u32| call(3.0_f64.powi((idx % 20) as i32), idx % 7 + 1);
        let mut task = learned((0..2_000).map(|idx| near(10.0, idx)));
        for idx in 0..19 {
            task.learn(odd(idx), &Config::default());
            assert!(task.clusters.len() <= MAX_CLUSTERS);
        }
        let habits = task.habits(&Config::default());
        assert_eq!(habits.len(), 1);
        assert!((habits[0].0.weight - 2_000.0).abs() < 1e-6);
        assert!(distance(&task, call(1_000.0, 0)) > 5.0);
    }

    #[test]
    fn a_new_habit_is_learned_and_an_old_one_forgotten() {
        let config = Config { memory_calls: 500, ..Config::default() };
        let mut task = Task::default();
        (0..2_000).for_each(|idx| task.learn(near(10.0, idx), &config));
        assert!(task.weight() <= 1_000.0);
        (0..20_000).for_each(|idx| task.learn(near(100.0, idx), &config));
        let habits = task.habits(&config);
        assert_eq!(habits.len(), 1);
        assert!((habits[0].0.time - 105.0_f64.ln()).abs() < 0.05, "{:?}", habits[0]);
    }

    #[test]
    fn habits_too_many_are_joined_and_what_a_person_accepted_never_is() {
        let config = Config { share: 0.0, ..Config::default() };
        let (mut task, times) = (Task::default(), (0..12).map(|idx| 4.0_f64.powi(idx)));
        for ms in times.flat_map(|ms| [ms; 5]) {
            task.learn(call(ms, 0), &config);
        }
        assert_eq!((task.clusters.len(), task.weight()), (MAX_CLUSTERS, 60.0));
        let accepted: Vec<Call> = (1..=9).map(|idx| call(5.0, idx * 20)).collect();
        let n_accepted = accepted.iter().filter(|call| task.accept(**call, &config)).count();
        // The last takes the place of the last that is not accepted, which has no other to be joined with.
        assert!((MAX_CLUSTERS - 1..=MAX_CLUSTERS).contains(&n_accepted), "{n_accepted}");
        for call in &accepted[..n_accepted] {
            assert_eq!(task.judge(*call, &config).expect("it is known").distance, 0.0);
        }
    }

    #[test]
    fn what_is_written_is_read_to_the_bit() {
        let mut task = learned((0..300).map(|idx| near(if idx % 3 == 0 { 70.0 } else { 1.0 }, idx)));
        assert!(task.accept(call(9.0, 4), &Config::default()));
        let mut writer = Writer::new(super::super::MAGIC);
        task.write(&mut writer);
        let bytes = writer.finish();
        let mut reader = Reader::open(super::super::MAGIC, &bytes).expect("its own");
        assert_eq!(Task::read(&mut reader), Some(task));
        assert!(reader.is_empty());
    }
}
