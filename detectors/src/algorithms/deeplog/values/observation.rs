//! What a value model sees of a record: the time since the record before it and its numbers, each on the scale that is
//! forecast, and the same of the records of its template before it.

use faultline_core::LogWindow;

/// Vectors before the judged one that a forecast sees.
pub const WINDOW: usize = 5;

/// Records of the session among which they are looked for.
const REACH: usize = 64;

/// The time since the record before, as ln(1 + µs). None where there is none before.
pub fn elapsed(log: &LogWindow<'_>, at: usize) -> Option<f32> {
    let (before, record) = (log.records.get(at.checked_sub(1)?)?, log.records.get(at)?);
    let nanos = record.time_unix_nano.saturating_sub(before.time_unix_nano).max(0);
    Some((nanos as f64 / 1e3).ln_1p() as f32)
}

/// An elapsed time, as the person who reads of it knows it.
pub fn milliseconds(elapsed: f64) -> f64 {
    elapsed.exp_m1() / 1e3
}

/// A number x, as ±ln(1 + |x|).
pub fn on_scale(number: f32) -> f32 {
    f64::from(number.abs()).ln_1p().copysign(f64::from(number)) as f32
}

/// The number that is `value` on the scale of [`on_scale`], or the largest there is.
pub fn off_scale(value: f64) -> f64 {
    value.abs().min(88.0).exp_m1().copysign(value)
}

/// A vector of parameters with those before it. What is not there is not a number.
#[derive(Clone, Debug)]
pub struct Observation {
    /// At most [`WINDOW`] vectors, one after another, the latest first.
    pub before: Vec<f32>,
    /// The vector itself: elapsed time, then the numbers.
    pub next: Vec<f32>,
}

impl Observation {
    /// Of record `at` of `log`, for a model that knows `n_numbers` numbers. A record with more or fewer counts as one
    /// without numbers. None where there is neither a number nor an elapsed time.
    pub fn of(log: &LogWindow<'_>, at: usize, n_numbers: usize) -> Option<Self> {
        let mut next = Vec::with_capacity(1 + n_numbers);
        if !push_vector(log, at, n_numbers, &mut next) {
            return None;
        }
        let template = log.records[at].template;
        let alike = (at.saturating_sub(REACH)..at).rev().filter(|&before| log.records[before].template == template);
        let mut before = Vec::with_capacity(WINDOW * next.len());
        for at in alike {
            push_vector(log, at, n_numbers, &mut before);
            if before.len() == WINDOW * next.len() {
                break;
            }
        }
        Some(Self { before, next })
    }
}

/// Appends the vector of record `at`, or nothing, and says so, where all of it is missing.
fn push_vector(log: &LogWindow<'_>, at: usize, n_numbers: usize, vector: &mut Vec<f32>) -> bool {
    let elapsed = elapsed(log, at);
    let numbers = Some(log.numbers.of(at)).filter(|numbers| n_numbers > 0 && numbers.len() == n_numbers);
    if elapsed.is_none() && numbers.is_none() {
        return false;
    }
    vector.push(elapsed.unwrap_or(f32::NAN));
    match numbers {
        Some(numbers) => vector.extend(numbers.iter().map(|&number| on_scale(number))),
        None => vector.extend(std::iter::repeat_n(f32::NAN, n_numbers)),
    }
    true
}

#[cfg(test)]
mod tests {
    use faultline_core::RecordNumbers;

    use super::*;
    use crate::testing::Session;

    #[test]
    fn the_scale_goes_both_ways_and_ends() {
        for number in [0.0, 1.0, -3.5, 67_108_864.0] {
            let back = off_scale(f64::from(on_scale(number)));
            assert!((back - f64::from(number)).abs() <= f64::from(number).abs() * 1e-5, "{number}: {back}");
        }
        assert!(off_scale(1e9).is_finite() && off_scale(-1e9).is_finite());
        assert!(on_scale(f32::MAX).is_finite());
    }

    #[test]
    fn an_observation_holds_the_latest_vectors_of_its_template_first() {
        let mut session = Session::of("a", &[7, 8, 7, 7, 8]);
        let numbers: [&[f32]; 5] = [&[1.0], &[2.0], &[3.0], &[4.0, 5.0], &[6.0]];
        session.numbers = numbers.iter().map(|own| RecordNumbers::of(own.iter().copied())).collect();
        let window = session.closed();
        let log = window.as_log().expect("a log window");
        let second = elapsed(log, 1).expect("a record is before it");
        assert_eq!(elapsed(log, 0), None);
        let of = |at: usize| Observation::of(log, at, 1).expect("it has a number or a record before it");
        assert_eq!(of(2).next, [second, on_scale(3.0)]);
        assert!(of(2).before[0].is_nan() && of(2).before[1..] == [on_scale(1.0)], "the first has no elapsed time");
        assert!(of(3).next[0] == second && of(3).next[1].is_nan(), "two numbers instead of one are none");
        assert_eq!(of(3).before[..2], [second, on_scale(3.0)], "the latest first");
        assert_eq!((of(4).before.len(), of(0).before.len()), (2, 0));
        assert!(Observation::of(log, 0, 0).is_none(), "neither numbers nor elapsed time");
        let plain = Observation::of(log, 3, 0).expect("a record is before it");
        assert_eq!((plain.next, plain.before), (vec![second], vec![second]));
    }
}
