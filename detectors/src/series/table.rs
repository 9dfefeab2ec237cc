//! The series that detectors are shown: their names, a bounded table of them.

use std::sync::Arc;

use faultline_core::{SeriesKind, WindowKey, hash::StableHash};

/// Marks a series that is no column of its instance.
pub(super) const NO_COLUMN: u32 = u32::MAX;

/// What was made of a metric, or of spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Made {
    /// The level itself.
    Value,
    /// What a counter or a number of observations grew by, a second.
    Rate,
    /// What a level changed by, a second.
    Change,
    Mean,
    /// The share of errors.
    Errors,
    /// The nth quantile of those that are asked for.
    Quantile(u8),
}

impl Made {
    fn kind(self) -> SeriesKind {
        match self {
            Self::Value => SeriesKind::Gauge,
            Self::Rate | Self::Change => SeriesKind::Rate,
            Self::Errors => SeriesKind::Share,
            Self::Mean | Self::Quantile(_) => SeriesKind::Quantile,
        }
    }

    fn suffix(self, quantiles: &[f64]) -> String {
        match self {
            Self::Value => String::new(),
            Self::Rate => " rate".to_owned(),
            Self::Change => " change".to_owned(),
            Self::Mean => " mean".to_owned(),
            Self::Errors => " errors".to_owned(),
            Self::Quantile(nth) => {
                let quantile = quantiles.get(usize::from(nth)).copied().unwrap_or_default();
                format!(" p{}", (quantile * 1e6).round() / 1e4)
            }
        }
    }
}

/// What a name is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name<'a> {
    pub stream: &'a Arc<str>,
    /// Whether the stream is the name of the service, and not that of all who have none.
    pub is_service: bool,
    /// The metric with its attributes.
    pub metric: &'a str,
    /// What tells it from another of the same name; empty where nothing has to.
    pub scope: &'a str,
    /// Empty where it is of no instance.
    pub instance: &'a str,
    /// The quantiles that are asked for.
    pub quantiles: &'a [f64],
}

/// One series.
#[derive(Debug)]
pub(super) struct Series {
    pub key: WindowKey,
    pub made: Made,
    /// Whether the stream of its key is a service.
    is_service: bool,
    /// Its place among the columns of its instance.
    pub column: u32,
}

impl Series {
    pub fn kind(&self) -> SeriesKind {
        self.made.kind()
    }
}

/// Which series a source has.
#[derive(Debug)]
pub(super) enum Outputs {
    One(u32),
    Many(Box<[u32]>),
}

impl Outputs {
    pub fn as_slice(&self) -> &[u32] {
        match self {
            Self::One(series) => std::slice::from_ref(series),
            Self::Many(all) => all,
        }
    }
}

/// All series.
#[derive(Debug)]
pub(super) struct Table {
    series: Vec<Series>,
    free: Vec<u32>,
    limit: usize,
    max_label_bytes: usize,
    /// The service of those that have none.
    nobody: Arc<str>,
}

impl Table {
    pub fn new(limit: usize, max_label_bytes: usize) -> Self {
        Self { series: Vec::new(), free: Vec::new(), limit, max_label_bytes, nobody: Arc::from("") }
    }

    pub fn len(&self) -> usize {
        self.series.len() - self.free.len()
    }

    pub fn has_room(&self, n: usize) -> bool {
        self.len() + n <= self.limit
    }

    /// One series for each of `made`; `None` when they are too many.
    pub fn open(&mut self, name: &Name<'_>, made: &[Made]) -> Option<Outputs> {
        if made.is_empty() || !self.has_room(made.len()) {
            return None;
        }
        let all: Vec<u32> = made.iter().map(|made| self.open_one(name, *made)).collect();
        Some(if let [series] = all[..] { Outputs::One(series) } else { Outputs::Many(all.into_boxed_slice()) })
    }

    fn open_one(&mut self, name: &Name<'_>, made: Made) -> u32 {
        let mut session = cut(name.metric, self.max_label_bytes);
        if !name.scope.is_empty() {
            session.push_str(" [");
            session.push_str(&cut(name.scope, self.max_label_bytes));
            session.push(']');
        }
        session.push_str(&made.suffix(name.quantiles));
        if !name.instance.is_empty() {
            session.push_str(" @");
            session.push_str(name.instance);
        }
        let key = WindowKey { stream: Arc::clone(name.stream), session: Arc::from(session) };
        let series = Series { key, made, is_service: name.is_service, column: NO_COLUMN };
        if let Some(idx) = self.free.pop() {
            self.series[idx as usize] = series;
            return idx;
        }
        self.series.push(series);
        (self.series.len() - 1) as u32
    }

    /// Gives series back. None of them may be waiting to be settled.
    pub fn free(&mut self, outputs: &Outputs) {
        for idx in outputs.as_slice() {
            self.series[*idx as usize].key =
                WindowKey { stream: Arc::clone(&self.nobody), session: Arc::clone(&self.nobody) };
            self.free.push(*idx);
        }
    }

    pub fn get(&self, idx: u32) -> &Series {
        &self.series[idx as usize]
    }

    pub fn get_mut(&mut self, idx: u32) -> &mut Series {
        &mut self.series[idx as usize]
    }

    /// The service of a series, empty when not known.
    pub fn service(&self, idx: u32) -> &Arc<str> {
        let series = self.get(idx);
        if series.is_service { &series.key.stream } else { &self.nobody }
    }

    /// Memory that it holds, roughly.
    pub fn bytes(&self) -> usize {
        let texts: usize = self.series.iter().map(|series| series.key.session.len() + 2 * size_of::<usize>()).sum();
        texts + self.series.capacity() * size_of::<Series>() + self.free.capacity() * size_of::<u32>()
    }
}

/// `text` where it has at most `max_bytes`; else its beginning and a hash of all of it.
pub(super) fn cut(text: &str, max_bytes: usize) -> String {
    const HASH: usize = 17;
    if text.len() <= max_bytes {
        return text.to_owned();
    }
    let end = max_bytes.saturating_sub(HASH);
    let end = (0..=end).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}~{:016x}", &text[..end], StableHash::new().text(text).finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_was_made_and_where_and_long_ones_stay_apart() {
        let mut table = Table::new(4, 32);
        let stream = Arc::from("cart");
        let name = Name {
            stream: &stream,
            is_service: true,
            metric: "latency{route=/}",
            scope: "",
            instance: "cart-1",
            quantiles: &[0.5, 0.999],
        };
        let outputs = table.open(&name, &[Made::Rate, Made::Quantile(0), Made::Quantile(1)]).expect("there is room");
        let names: Vec<&str> = outputs.as_slice().iter().map(|idx| &*table.get(*idx).key.session).collect();
        assert_eq!(
            names,
            ["latency{route=/} rate @cart-1", "latency{route=/} p50 @cart-1", "latency{route=/} p99.9 @cart-1"]
        );
        assert!(table.open(&name, &[Made::Rate, Made::Mean]).is_none(), "one place is left");
        table.free(&outputs);
        assert_eq!(table.len(), 0);
        assert!(table.open(&name, &[Made::Rate, Made::Mean]).is_some());
        let (long, other) = ("ü".repeat(40), "ü".repeat(41));
        assert!(cut(&long, 32).len() <= 32);
        assert_ne!(cut(&long, 32), cut(&other, 32));
    }
}
