//! What the station has counted.

use serde::Serialize;

/// What the series station has done so far, and what it holds. Every point and span that was not used is in one of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SeriesStats {
    /// Points taken into a series.
    pub n_points: u64,
    /// Points flagged as without a value (a stale series), or with none.
    pub n_no_value: u64,
    /// Values that are NaN or infinite, or whose difference is.
    pub n_non_finite: u64,
    /// Points of a time that their series has had.
    pub n_duplicate: u64,
    /// Points of a step that has been shown: left out.
    pub n_late: u64,
    /// Points that were overtaken by a newer one. Filed where they belong, unless they are cumulative or late.
    pub n_backwards: u64,
    /// Points and spans more than a day from their series' present: left out.
    pub n_strange: u64,
    /// Times that so many of them came that they were the present.
    pub n_moved: u64,
    /// Points more than 146 years from the epoch.
    pub n_out_of_range: u64,
    /// Counters and histograms that began anew.
    pub n_resets: u64,
    /// Points of another kind than the first one of their name and attributes: left out.
    pub n_conflicting: u64,
    /// Points of a kind that is not known.
    pub n_unknown_kind: u64,
    /// Histograms whose buckets are too many, not in order, or of an impossible scale: count and mean are used.
    pub n_unusable_buckets: u64,
    /// Sources that were refused because there were `max_series` series.
    pub n_refused_series: u64,
    /// Points and spans of refused sources, and of services and instances beyond their limits.
    pub n_refused: u64,
    /// Sources that were dropped after a silence of `retire_after_ms`.
    pub n_retired: u64,
    /// Gaps filled in between two points of a series.
    pub n_gaps: u64,
    /// Steps shown before they were complete, because too many waited.
    pub n_released_early: u64,
    /// Points that were never shown, because too many waited to be settled.
    pub n_lost: u64,
    /// Series that are no column of their instance: their step is another, or there are `max_columns`.
    pub n_ungrouped: u64,
    /// Values that came after the row of their instance had been shown.
    pub n_late_cells: u64,
    /// Spans and calls that were counted.
    pub n_spans: u64,
    /// Spans and calls of a step that has been shown: left out.
    pub n_late_spans: u64,
    /// Spans whose operation was one too many of its service: counted under `*`.
    pub n_folded_spans: u64,
    /// Series now.
    pub n_series: usize,
    /// Metrics with one set of attributes each, now.
    pub n_sources: usize,
    /// Operations and call edges now.
    pub n_operations: usize,
    /// Instances now.
    pub n_instances: usize,
}
