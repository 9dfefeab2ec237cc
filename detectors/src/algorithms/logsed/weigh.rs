//! What the anomalies of a session weigh together: three accounts of it, the most surprising of which is its score.
//!
//! - *structure*: what is missing, unexplained or unknown. One cause shows at several edges, so beside the worst the others count
//!   only [`REST`] each; and sessions of one size often break at the same edges for no fault, so the sum is scaled to what a tenth
//!   of the training sessions of that size exceed.
//! - *slowness*: the mean surprise of all lags, each held to [`CAP`], against its 90 % and 99 % quantiles in training. A fault that
//!   slows every step a little shows here and nowhere else.
//! - *a late record*: the longest lag, with a Pareto tail beyond its 99 % quantile ([`TAIL`]), for the number of lags.
//!
//! Sizes are classes of the number of records, powers of two, joined until each has [`ENOUGH`] training sessions: short and long
//! sessions are different work. The two accounts of time count only where at most a share `1 - lag_quantile` of sessions has the
//! like, so that everyday jitter does not add to the score.
//!
//! The three are apart because one threshold for their sum lies where the commonest of them puts it: on TraceBench that hid every
//! slow node behind writes that lack a step. `REST`, `CAP` and `TAIL` were chosen with sight of TraceBench and the HDFS
//! sample; `TAIL` agrees with the Hill exponents of training lags (quartile 1.8, tenth 1.25).

use serde::{Deserialize, Serialize};

use super::account::{Anomaly, Kind, MAX_SURPRISE, worst};
use crate::calibrate::exact;

/// What structural anomalies beside the worst count.
const REST: f64 = 0.25;

/// The most that one lag adds to the slowness of a session, nats.
pub const CAP: f64 = 5.0;

/// Training sessions that a size class needs.
const ENOUGH: usize = 200;

/// Least distance between the quantiles of slowness, nats.
const NARROWEST: f64 = 0.05;

/// −ln of a tenth: the surprise of the 90 % quantile.
const TENTH: f64 = std::f64::consts::LN_10;

const N_SIZES: usize = usize::BITS as usize + 1;

/// What is to be weighed of a session.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// Records of the session.
    pub n_records: usize,
    /// Its lags.
    pub n_lags: f64,
    /// What is wrong with its records, each edge and kind once.
    pub anomalies: Vec<Anomaly>,
    /// Mean surprise of its lags; none without lags or while it is open.
    pub slowness: Option<f64>,
    /// Its longest fresh lag.
    pub latest: Option<Anomaly>,
    /// Whether it has ended.
    pub is_closed: bool,
}

impl Account {
    /// The most surprising unknown or rare template.
    fn strange(&self) -> f64 {
        let strange = self.anomalies.iter().filter(|anomaly| anomaly.edge.is_none());
        strange.map(|anomaly| anomaly.surprise).fold(0.0, f64::max)
    }

    /// What is wrong along edges.
    fn structure(&self) -> f64 {
        let along_edges = || self.anomalies.iter().filter(|anomaly| anomaly.edge.is_some());
        let worst = along_edges().map(|anomaly| anomaly.surprise).fold(0.0, f64::max);
        worst + REST * (along_edges().map(|anomaly| anomaly.surprise).sum::<f64>() - worst)
    }
}

/// What normal sessions of each size look like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scales {
    /// The class of each bit length of the number of records.
    class_of: Vec<usize>,
    classes: Vec<Scale>,
    /// Lags of a long session, the 90 % quantile.
    #[serde(with = "exact")]
    n_lags: f64,
}

/// What normal sessions of one size class look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Scale {
    /// The 90 % quantile of the structural account; 0 where sessions are too few to tell.
    #[serde(with = "exact")]
    structure: f64,
    /// The 90 % and the 99 % quantile of slowness; infinite where sessions are too few to tell.
    #[serde(with = "exact")]
    slow: f64,
    #[serde(with = "exact")]
    slowest: f64,
}

impl Default for Scales {
    fn default() -> Self {
        Self::of(&[])
    }
}

impl Scales {
    /// Of whole training sessions.
    pub fn of(accounts: &[Account]) -> Self {
        let mut n_of_size = [0; N_SIZES];
        for account in accounts {
            n_of_size[size_of(account.n_records)] += 1;
        }
        let (mut class_of, mut class, mut n) = (vec![0; N_SIZES], 0, 0);
        for size in 0..N_SIZES {
            class_of[size] = class;
            n += n_of_size[size];
            if n >= ENOUGH && n_of_size[size + 1..].iter().sum::<usize>() >= ENOUGH {
                (class, n) = (class + 1, 0);
            }
        }
        let scale = |class: usize| {
            let members = || accounts.iter().filter(|account| class_of[size_of(account.n_records)] == class);
            let structure = sorted(members().map(Account::structure));
            let slowness = sorted(members().filter_map(|account| account.slowness));
            let slow = |q: f64| if slowness.len() >= ENOUGH { quantile(&slowness, q) } else { f64::INFINITY };
            Scale {
                structure: if structure.len() >= ENOUGH { quantile(&structure, 0.9) } else { 0.0 },
                slow: slow(0.9),
                slowest: slow(0.99),
            }
        };
        let n_lags = quantile(&sorted(accounts.iter().map(|account| account.n_lags)), 0.9);
        Self { classes: (0..=class).map(scale).collect(), class_of, n_lags }
    }

    /// Whether every size has a class that is there.
    pub fn is_sound(&self) -> bool {
        self.class_of.len() == N_SIZES && self.class_of.iter().all(|&class| class < self.classes.len())
    }

    /// The class of a session of so many records.
    pub fn class_of(&self, n_records: usize) -> usize {
        self.class_of[size_of(n_records)]
    }

    /// Lags that an open session is held to have: as many as a long one has, or more where it does by now.
    pub fn n_lags_of_open(&self, n_lags: f64) -> f64 {
        n_lags.max(self.n_lags)
    }

    /// The score of a session, and the anomaly that decided it.
    pub fn weigh(&self, account: &Account, beyond: f64) -> (f64, Option<Anomaly>) {
        let class = self.class_of(account.n_records);
        let damping = |scale: &Scale| if scale.structure > 0.0 { (TENTH / scale.structure).min(1.0) } else { 1.0 };
        // An open session may still grow into another class: the strongest damping of those that are left.
        let last = if account.is_closed { class } else { self.classes.len() - 1 };
        let damping = self.classes[class..=last].iter().map(damping).fold(1.0, f64::min);
        let (strange, structure) = (account.strange(), account.structure() * damping);
        let structural = strange.max(structure) + REST * strange.min(structure);
        let is_deciding = |anomaly: &&Anomaly| anomaly.edge.is_none() == (strange >= structure);
        let worst = worst(account.anomalies.iter().filter(is_deciding)).copied();

        let Scale { slow, slowest, .. } = self.classes[class];
        let slowness = match account.slowness.filter(|_| account.is_closed && slow.is_finite()) {
            Some(slowness) => TENTH + (slowness - slow) * TENTH / (slowest - slow).max(NARROWEST),
            None => 0.0,
        };
        // The longest of thirty lags is longer than any one of them, and an open session may yet have as many.
        let n_lags = if account.is_closed { account.n_lags } else { self.n_lags_of_open(account.n_lags) };
        let late = account.latest.map_or(0.0, |latest| latest.surprise - n_lags.max(1.0).ln());
        let timed = [(slowness, Kind::Slowness), (late, Kind::Latency)];
        let of_time = |(surprise, kind): (f64, Kind)| {
            let anomaly = account.latest.map(|latest| Anomaly { kind, surprise, ..latest });
            (if surprise > beyond { surprise } else { 0.0 }, anomaly)
        };
        let mut decided = (structural, worst);
        for candidate in timed.map(of_time) {
            if candidate.0 > decided.0 {
                decided = candidate;
            }
        }
        (decided.0.min(MAX_SURPRISE), decided.1)
    }
}

fn size_of(n_records: usize) -> usize {
    (usize::BITS - n_records.leading_zeros()) as usize
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn quantile(sorted: &[f64], q: f64) -> f64 {
    sorted.get((q * sorted.len() as f64) as usize).copied().unwrap_or(0.0)
}
