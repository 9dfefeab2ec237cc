//! What a metric detector sees: points at a regular step, with a gap wherever nothing was measured.

use std::sync::Arc;

use crate::{
    template::RecordId,
    window::{Culprit, WindowKey},
};

/// What the points of a series are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SeriesKind {
    /// A value as measured, the last of its step.
    #[default]
    Gauge,
    /// What a counter grew by, a second.
    Rate,
    /// A share, 0 to 1.
    Share,
    /// A duration or size: a mean or a quantile of what was observed within the step.
    Quantile,
}

/// New points of one series.
///
/// Its key has the service as stream, and as session the metric with its attributes and what was made of it:
/// `http.server.duration{route=/cart} p99`.
#[derive(Clone, Copy, Debug)]
pub struct SeriesWindow<'a> {
    /// Which series.
    pub key: &'a WindowKey,
    /// What its points are.
    pub kind: SeriesKind,
    /// Where the step of `points[0]` begins; a multiple of `step_nanos`.
    pub start_unix_nano: i64,
    /// The step, more than zero.
    pub step_nanos: i64,
    /// One value for each step; NaN is a gap, anything else is finite. Not empty.
    pub points: &'a [f64],
    /// The newest record behind each point, 0 for a gap and where none is kept; empty or as long as `points`.
    pub records: &'a [RecordId],
    /// The service; empty when not known.
    pub service: &'a Arc<str>,
}

impl<'a> SeriesWindow<'a> {
    /// Number of the step of `points[0]`, counted from the epoch: the same at each restart, so that a season has a phase.
    #[must_use]
    pub fn first_step(&self) -> i64 {
        self.start_unix_nano.div_euclid(self.step_nanos.max(1))
    }

    /// Where the steps of the first and of the last point begin.
    #[must_use]
    pub fn span_unix_nano(&self) -> (i64, i64) {
        (self.start_unix_nano, step_start(self.start_unix_nano, self.step_nanos, self.points.len().saturating_sub(1)))
    }

    /// The point that a score names.
    #[must_use]
    pub fn culprit(&self, idx: usize) -> Option<Culprit<'a>> {
        self.points.get(idx)?;
        let time_unix_nano = step_start(self.start_unix_nano, self.step_nanos, idx);
        Some(Culprit { time_unix_nano, service: self.service, severity_number: 0 })
    }
}

/// New points of all series of one instance, side by side.
///
/// Its key has the service as stream and the instance as session. Series that appear later are new columns at the end.
#[derive(Clone, Copy, Debug)]
pub struct GroupWindow<'a> {
    /// Which instance.
    pub key: &'a WindowKey,
    /// Names of the columns, as the sessions of their series' keys.
    pub columns: &'a [Arc<str>],
    /// Where the step of the first row begins; a multiple of `step_nanos`.
    pub start_unix_nano: i64,
    /// The step, more than zero.
    pub step_nanos: i64,
    /// Number of rows, at least one.
    pub n_rows: usize,
    /// Row after row; NaN is a gap. As many as columns and rows ask for.
    pub values: &'a [f64],
    /// The service; empty when not known.
    pub service: &'a Arc<str>,
}

impl<'a> GroupWindow<'a> {
    /// One row, a value for each column.
    #[must_use]
    pub fn row(&self, idx: usize) -> &'a [f64] {
        let n_columns = self.columns.len();
        self.values.get(idx * n_columns..(idx + 1) * n_columns).unwrap_or_default()
    }

    /// Where the steps of the first and of the last row begin.
    #[must_use]
    pub fn span_unix_nano(&self) -> (i64, i64) {
        (self.start_unix_nano, step_start(self.start_unix_nano, self.step_nanos, self.n_rows.saturating_sub(1)))
    }

    /// The value that a score names by its place in `values`.
    #[must_use]
    pub fn culprit(&self, idx: usize) -> Option<Culprit<'a>> {
        self.values.get(idx)?;
        let row = idx / self.columns.len().max(1);
        let time_unix_nano = step_start(self.start_unix_nano, self.step_nanos, row);
        Some(Culprit { time_unix_nano, service: self.service, severity_number: 0 })
    }
}

fn step_start(start_unix_nano: i64, step_nanos: i64, idx: usize) -> i64 {
    let steps = i64::try_from(idx).unwrap_or(i64::MAX);
    start_unix_nano.saturating_add(step_nanos.saturating_mul(steps))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_has_the_time_of_its_step_and_a_value_that_of_its_row() {
        let key = WindowKey { stream: Arc::from("cart"), session: Arc::from("cpu") };
        let (service, columns) = (Arc::from("cart"), [Arc::from("cpu"), Arc::from("memory")]);
        let series = SeriesWindow {
            key: &key,
            kind: SeriesKind::Gauge,
            start_unix_nano: 600,
            step_nanos: 60,
            points: &[1.0, f64::NAN, 3.0],
            records: &[],
            service: &service,
        };
        assert_eq!((series.first_step(), series.span_unix_nano()), (10, (600, 720)));
        assert_eq!(series.culprit(2).map(|point| (point.time_unix_nano, point.service)), Some((720, "cart")));
        assert_eq!(series.culprit(3), None);
        let group = GroupWindow {
            key: &key,
            columns: &columns,
            start_unix_nano: 600,
            step_nanos: 60,
            n_rows: 2,
            values: &[1.0, 2.0, 3.0, 4.0],
            service: &service,
        };
        assert_eq!((group.row(1), group.row(2)), (&[3.0, 4.0][..], &[][..]));
        assert_eq!(group.culprit(3).map(|value| value.time_unix_nano), Some(660));
    }
}
