//! What Donut keeps of a series: its scale, its last points, and the points of a training part in one piece.

use std::collections::BTreeMap;

use faultline_core::{SeriesWindow, WindowKey};

use super::net::Windows;

/// Points that are kept to explain scores by; more than any window holds.
const KEPT: usize = 2048;

/// Standardised values end here, so that nothing overflows.
const MOST: f64 = 1e6;

/// Interquartile ranges beyond the quartiles from which on a point says nothing of the scale.
const REACH: f64 = 3.0;

/// Deviations smaller than this share of the mean are rounding.
const LEAST: f64 = 1e-9;

/// Whether the last point of a standardised window can be judged: it is there, and so is half of the window.
pub fn is_judged(window: &[f32]) -> bool {
    window.last().is_some_and(|last| !last.is_nan())
        && 2 * window.iter().filter(|value| !value.is_nan()).count() >= window.len()
}

/// The scale of a series: mean and deviation of the points that lie within [`REACH`] interquartile ranges of the
/// quartiles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standard {
    /// The mean.
    pub mean: f64,
    /// The deviation, more than zero.
    pub deviation: f64,
}

impl Standard {
    /// That of `points`; none where they do not vary.
    pub fn of(points: &[f64]) -> Option<Self> {
        let mut points: Vec<f64> = points.iter().copied().filter(|point| point.is_finite()).collect();
        points.sort_unstable_by(f64::total_cmp);
        let last = points.len().checked_sub(1)?;
        let [lower, upper] = [last / 4, last - last / 4].map(|idx| points[idx]);
        let reach = REACH * (upper - lower);
        // More than half of the points are alike: the others are all the variation there is.
        let is_kept = |point: f64| reach <= 0.0 || (lower - reach..=upper + reach).contains(&point);
        let kept: Vec<f64> = points.into_iter().filter(|&point| is_kept(point)).collect();
        let n = kept.len() as f64;
        let mean = kept.iter().sum::<f64>() / n;
        let deviation = (kept.iter().map(|point| (point - mean).powi(2)).sum::<f64>() / n).sqrt();
        let varies =
            mean.is_finite() && deviation.is_finite() && deviation > (LEAST * mean.abs()).max(f64::MIN_POSITIVE);
        varies.then_some(Self { mean, deviation })
    }

    /// A point in deviations from the mean; not a number where there is none.
    pub fn standardised(self, point: f64) -> f32 {
        if point.is_finite() { ((point - self.mean) / self.deviation).clamp(-MOST, MOST) as f32 } else { f32::NAN }
    }

    /// The point that is so many deviations from the mean.
    pub fn point(self, standardised: f64) -> f64 {
        self.mean + standardised * self.deviation
    }
}

/// The latest points of a series, standardised, a gap not a number. There are always enough for all but the last point
/// of a window, if only gaps.
#[derive(Clone, Debug)]
pub struct History {
    values: Vec<f32>,
    /// The step after the last value.
    next_step: i64,
}

impl History {
    /// One of these values, of which there are as many as a window has points before its last.
    pub fn new(values: Vec<f32>, next_step: i64) -> Self {
        Self { values, next_step }
    }

    /// The step after the last value.
    pub fn next_step(&self) -> i64 {
        self.next_step
    }

    /// Goes on at `step`: steps in between are gaps. Where the series goes back in time, it begins anew.
    pub fn begin(&mut self, step: i64, length: usize) {
        match step.checked_sub(self.next_step).and_then(|gap| usize::try_from(gap).ok()) {
            Some(n_missing) => self.values.extend(std::iter::repeat_n(f32::NAN, n_missing.min(length))),
            None => {
                self.values.clear();
                self.values.resize(length - 1, f32::NAN);
            }
        }
        self.next_step = step;
    }

    /// Adds a chunk of values, at most as many as are kept.
    pub fn extend(&mut self, values: impl ExactSizeIterator<Item = f32>) {
        if self.values.len() > 2 * KEPT {
            self.values.drain(..self.values.len() - KEPT);
        }
        self.next_step = self.next_step.saturating_add(i64::try_from(values.len()).unwrap_or(i64::MAX));
        self.values.extend(values);
    }

    /// The window that ends `n_after` values before the last.
    pub fn window(&self, n_after: usize, length: usize) -> &[f32] {
        let end = self.values.len() - n_after;
        &self.values[end - length..end]
    }

    /// The last `n` values.
    pub fn last(&self, n: usize) -> &[f32] {
        &self.values[self.values.len() - n..]
    }

    /// The value of a step; not a number where none is kept.
    pub fn at(&self, step: i64) -> f32 {
        let back = self.next_step.checked_sub(step).and_then(|back| usize::try_from(back).ok());
        let idx = back.filter(|&back| back > 0).and_then(|back| self.values.len().checked_sub(back));
        idx.map_or(f32::NAN, |idx| self.values[idx])
    }
}

/// A training part of one series.
#[derive(Debug)]
pub struct Training<'a> {
    /// Which series.
    pub key: &'a WindowKey,
    /// Its step.
    pub step_nanos: i64,
    /// Its points; a gap is not a number. No gap is longer than a window.
    pub points: Vec<f64>,
    /// The step after the last point.
    pub next_step: i64,
}

impl<'a> Training<'a> {
    /// The first `most` series of `windows` that have at least `least` points, in the order in which they begin. Pieces
    /// of another step than a series' first are left out.
    pub fn of(windows: &[&SeriesWindow<'a>], most: usize, least: usize, length: usize) -> Vec<Self> {
        let mut found: BTreeMap<&WindowKey, (usize, usize)> = BTreeMap::new();
        for (idx, window) in windows.iter().enumerate() {
            let (first, n_points) = found.entry(window.key).or_insert((idx, 0));
            if windows[*first].step_nanos == window.step_nanos {
                *n_points += window.points.iter().filter(|point| point.is_finite()).count();
            }
        }
        let mut firsts: Vec<usize> =
            found.into_values().filter(|(_, n_points)| *n_points >= least).map(|(first, _)| first).collect();
        firsts.sort_unstable();
        firsts.truncate(most);
        let mut series: Vec<Self> = firsts.iter().map(|&first| Self::beginning(windows[first])).collect();
        let place_of: BTreeMap<&WindowKey, usize> =
            series.iter().enumerate().map(|(idx, own)| (own.key, idx)).collect();
        for window in windows {
            if let Some(&place) = place_of.get(window.key) {
                series[place].extend(window, length);
            }
        }
        series
    }

    fn beginning(window: &SeriesWindow<'a>) -> Self {
        let (key, step_nanos, next_step) = (window.key, window.step_nanos, window.first_step());
        Self { key, step_nanos, points: Vec::new(), next_step }
    }

    /// Adds a piece. One that goes back in time is as one that comes long after: no window holds points of both.
    fn extend(&mut self, window: &SeriesWindow<'_>, length: usize) {
        if window.step_nanos != self.step_nanos {
            return;
        }
        let gap = window.first_step().checked_sub(self.next_step).and_then(|gap| usize::try_from(gap).ok());
        self.points.extend(std::iter::repeat_n(f64::NAN, gap.unwrap_or(length).min(length)));
        self.points.extend(window.points.iter().map(|&point| if point.is_finite() { point } else { f64::NAN }));
        let n_points = i64::try_from(window.points.len()).unwrap_or(i64::MAX);
        self.next_step = window.first_step().saturating_add(n_points);
    }

    /// Its windows of `length` of which at least half is there.
    pub fn windows(&self, standard: Standard, length: usize) -> Windows {
        let values: Vec<f32> = self.points.iter().map(|&point| standard.standardised(point)).collect();
        let mut n_known = 0;
        let mut ends = Vec::new();
        for (idx, value) in values.iter().enumerate() {
            n_known += usize::from(!value.is_nan());
            if let Some(left) = idx.checked_sub(length) {
                n_known -= usize::from(!values[left].is_nan());
            }
            if idx + 1 >= length && 2 * n_known >= length {
                ends.push(idx + 1);
            }
        }
        Windows { values, ends }
    }

    /// The points that service goes on from.
    pub fn history(&self, standard: Standard, length: usize) -> History {
        let n = self.points.len().min(length - 1);
        let mut values = vec![f32::NAN; length - 1 - n];
        let last = &self.points[self.points.len() - n..];
        values.extend(last.iter().map(|&point| standard.standardised(point)));
        History::new(values, self.next_step)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use faultline_core::SeriesKind;

    use super::*;

    #[test]
    fn the_scale_is_that_of_the_body() {
        let mut points: Vec<f64> = (0..1000).map(|i| 50.0 + f64::from(i % 11)).collect();
        let clean = Standard::of(&points).expect("they vary");
        assert!((clean.mean - 55.0).abs() < 0.05 && (clean.deviation - 10f64.sqrt()).abs() < 0.05, "{clean:?}");
        points.extend([1e9, -1e9, 4000.0, f64::NAN, f64::INFINITY]);
        assert_eq!(Standard::of(&points), Some(clean));
        assert_eq!((clean.standardised(clean.point(2.0)), clean.standardised(1e308)), (2.0, 1e6));
        assert!(clean.standardised(f64::NAN).is_nan() && clean.standardised(f64::NEG_INFINITY).is_nan());
    }

    #[test]
    fn what_does_not_vary_has_no_scale() {
        for points in
            [&[][..], &[f64::NAN; 5], &[7.0; 100], &[0.0; 100], &[1e308, -1e308, 1e308], &[1e15, 1e15 + 0.125]]
        {
            assert_eq!(Standard::of(points), None, "{points:?}");
        }
        let mostly_zero: Vec<f64> = (0..100).map(|i| f64::from(u8::from(i % 10 == 0))).collect();
        let rare = Standard::of(&mostly_zero).expect("they vary");
        assert!((rare.mean - 0.1).abs() < 1e-9 && (rare.deviation - 0.3).abs() < 1e-9, "{rare:?}");
    }

    #[test]
    fn a_history_fills_gaps_forgets_and_begins_anew() {
        let mut history = History::new(vec![1.0, 2.0], 10);
        history.begin(10, 3);
        history.extend([3.0, 4.0].into_iter());
        assert_eq!((history.window(1, 3), history.window(0, 3)), (&[1.0, 2.0, 3.0][..], &[2.0, 3.0, 4.0][..]));
        assert_eq!((history.next_step(), history.at(11), history.at(8)), (12, 4.0, 1.0));
        assert!(history.at(12).is_nan() && history.at(7).is_nan() && history.at(i64::MIN).is_nan());
        history.begin(13, 3);
        history.extend([6.0].into_iter());
        assert!(history.at(12).is_nan() && history.at(13) == 6.0 && history.last(1) == [6.0]);
        history.begin(i64::MAX, 3);
        history.extend([7.0].into_iter());
        assert!(history.window(0, 3)[..2].iter().all(|value| value.is_nan()), "a long gap is no longer than a window");
        history.begin(5, 3);
        assert!(history.last(2).iter().all(|value| value.is_nan()), "it went back");
        for _ in 0..100 {
            history.extend([0.5; 1000].into_iter());
        }
        assert!(history.values.len() <= 2 * KEPT + 1000, "{}", history.values.len());
        assert_eq!(history.next_step(), 100_005);
    }

    fn key(session: &str) -> WindowKey {
        WindowKey { stream: Arc::from("cart"), session: Arc::from(session) }
    }

    fn piece<'a>(key: &'a WindowKey, first_step: i64, step_nanos: i64, points: &'a [f64]) -> SeriesWindow<'a> {
        SeriesWindow {
            key,
            kind: SeriesKind::Gauge,
            start_unix_nano: first_step * step_nanos,
            step_nanos,
            points,
            records: &[],
            service: &key.stream,
        }
    }

    #[test]
    fn pieces_of_a_series_are_one_training_part() {
        let keys = [key("late"), key("b"), key("a"), key("few")];
        let sparse = [1.0, f64::NAN, f64::NAN, f64::NAN];
        let odd = [4.0, f64::INFINITY, 6.0];
        let windows = [
            piece(&keys[1], 10, 60, &[1.0, 2.0]),
            piece(&keys[2], 10, 60, &[1.0, 2.0, 3.0]),
            piece(&keys[3], 10, 60, &sparse),
            piece(&keys[1], 13, 60, &odd),
            piece(&keys[1], 16, 30, &[9.0; 9]),
            piece(&keys[1], 1_000_000, 60, &[7.0]),
            piece(&keys[1], 2, 60, &[8.0]),
            piece(&keys[0], 9, 60, &[1.0, 2.0, 3.0]),
        ];
        let windows: Vec<&SeriesWindow<'_>> = windows.iter().collect();
        let series = Training::of(&windows, 2, 3, 2);
        let sessions: Vec<&str> = series.iter().map(|own| &*own.key.session).collect();
        assert_eq!(sessions, ["b", "a"], "the first two that have enough, whatever their names");
        let points: Vec<String> = series[0].points.iter().map(ToString::to_string).collect();
        assert_eq!(points.join(" "), "1 2 NaN 4 NaN 6 NaN NaN 7 NaN NaN 8");
        assert_eq!((series[0].next_step, series[1].next_step), (3, 13));
        let standard = Standard { mean: 0.0, deviation: 1.0 };
        let known = series[0].windows(standard, 2);
        assert_eq!(known.ends, [2, 3, 4, 5, 6, 7, 9, 10, 12], "half of each is there");
        let history = series[1].history(standard, 5);
        assert!(history.values[0].is_nan() && history.values.len() == 4, "{history:?}");
        assert_eq!((history.last(3), history.next_step()), (&[1.0, 2.0, 3.0][..], 13));
    }
}
