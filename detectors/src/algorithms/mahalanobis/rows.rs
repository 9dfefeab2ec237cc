//! The rows of one instance until there are enough to fit on, thinned out evenly where there are more than are kept.

use crate::bytes::{Reader, Writer};

/// Rows that are kept at most. On SMD 4096 of 23,700 fit as well as all, 1024 a little worse.
const MAX_ROWS: usize = 4096;

/// Cells of one instance that are kept at most: 1 MiB.
const MAX_CELLS: usize = 1 << 18;

/// Cells of all instances together: 64 MiB, the whole of what 64 of them may keep.
const MAX_SHARED_CELLS: usize = 1 << 24;

/// Cells that each of so many instances may keep.
pub fn share(n_instances: usize) -> usize {
    (MAX_SHARED_CELLS / n_instances.max(1)).min(MAX_CELLS)
}

/// See the file's documentation. What is not a number is a gap.
#[derive(Clone, Debug)]
pub struct Rows {
    n_columns: usize,
    cells: Vec<f32>,
    /// Cells that it may keep; not in snapshots.
    max_cells: usize,
    /// Every so many rows one is kept, 2 to this power.
    halvings: u32,
    n_seen: u64,
}

impl Default for Rows {
    fn default() -> Self {
        Self { n_columns: 0, cells: Vec::new(), max_cells: MAX_CELLS, halvings: 0, n_seen: 0 }
    }
}

impl Rows {
    /// From the next row that it keeps on it has no more cells than this, as far as that leaves two rows.
    pub fn limit(&mut self, max_cells: usize) {
        self.max_cells = max_cells;
    }

    /// Takes a row. It has as many columns as the one before, or more.
    pub fn push(&mut self, row: &[f64]) {
        if row.len() > self.n_columns {
            self.widen(row.len());
        }
        let is_kept = self.n_seen.is_multiple_of(self.stride());
        self.n_seen += 1;
        if is_kept && self.n_columns > 0 {
            let max_rows = MAX_ROWS.min(self.max_cells / self.n_columns).max(2);
            // One row more than it may keep, until it is thinned out.
            let most = (max_rows + 1) * self.n_columns;
            self.grow(most);
            self.cells.extend(row.iter().map(|cell| *cell as f32));
            self.cells.resize(self.cells.len() + self.n_columns - row.len(), f32::NAN);
            while self.len() > max_rows {
                self.thin();
            }
            if self.cells.capacity() > most + most / 4 {
                self.cells.shrink_to(most);
            }
        }
    }

    /// Sets aside room for a row: twice as much as there was, but no more than for `most` cells.
    fn grow(&mut self, most: usize) {
        let wanted = self.cells.len() + self.n_columns;
        if wanted > self.cells.capacity() {
            let room = (2 * self.cells.capacity()).min(most).max(wanted);
            self.cells.reserve_exact(room - self.cells.len());
        }
    }

    /// Rows that were taken.
    pub fn n_seen(&self) -> u64 {
        self.n_seen
    }

    /// Rows that are kept.
    pub fn len(&self) -> usize {
        self.cells.len() / self.n_columns.max(1)
    }

    pub fn n_columns(&self) -> usize {
        self.n_columns
    }

    /// Rows from one that is kept to the next.
    pub fn stride(&self) -> u64 {
        1 << self.halvings
    }

    /// The rows that are kept, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[f32]> {
        self.cells.chunks_exact(self.n_columns.max(1))
    }

    /// Memory that they take.
    pub fn bytes(&self) -> usize {
        self.cells.capacity() * size_of::<f32>()
    }

    fn widen(&mut self, n_columns: usize) {
        let mut wider = Vec::with_capacity(self.len() * n_columns);
        for row in self.iter() {
            wider.extend_from_slice(row);
            wider.resize(wider.len() + n_columns - row.len(), f32::NAN);
        }
        (self.cells, self.n_columns) = (wider, n_columns);
    }

    /// Leaves out every second row.
    fn thin(&mut self) {
        let n_columns = self.n_columns;
        let n_kept = self.len().div_ceil(2);
        for row in 1..n_kept {
            self.cells.copy_within(2 * row * n_columns..(2 * row + 1) * n_columns, row * n_columns);
        }
        self.cells.truncate(n_kept * n_columns);
        self.halvings += 1;
    }

    pub fn write(&self, writer: &mut Writer) {
        writer.number(self.n_columns as u64);
        writer.word(self.halvings);
        writer.number(self.n_seen);
        writer.number(self.cells.len() as u64);
        self.cells.iter().for_each(|cell| writer.word(cell.to_bits()));
    }

    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let n_columns = usize::try_from(reader.number()?).ok().filter(|n_columns| *n_columns <= MAX_CELLS)?;
        let halvings = reader.word().filter(|halvings| *halvings < 64)?;
        let (n_seen, n_cells) = (reader.number()?, reader.length(4)?);
        let cells: Option<Vec<f32>> = (0..n_cells).map(|_| reader.word().map(f32::from_bits)).collect();
        let cells = cells.filter(|cells| cells.iter().all(|cell| !cell.is_infinite()))?;
        n_cells.is_multiple_of(n_columns.max(1)).then_some(Self {
            n_columns,
            cells,
            max_cells: MAX_CELLS,
            halvings,
            n_seen,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_cells(rows: &Rows) -> Vec<f32> {
        rows.iter().map(|row| row[0]).collect()
    }

    #[test]
    fn rows_are_thinned_out_evenly() {
        let mut rows = Rows::default();
        for idx in 0..20_000 {
            rows.push(&[f64::from(idx), 1.0]);
        }
        assert_eq!((rows.n_seen(), rows.stride(), rows.len()), (20_000, 8, 2_500));
        assert!(first_cells(&rows).iter().enumerate().all(|(idx, cell)| *cell == (8 * idx) as f32));
        let mut wide = Rows::default();
        (0..5_000).for_each(|idx| wide.push(&[f64::from(idx); 256]));
        assert!(wide.len() <= 1024 && wide.bytes() <= (MAX_CELLS + 256) * size_of::<f32>(), "{}", wide.bytes());
    }

    #[test]
    fn a_column_that_comes_later_is_a_gap_before() {
        let mut rows = Rows::default();
        rows.push(&[1.0]);
        rows.push(&[2.0, 3.0]);
        rows.push(&[4.0]);
        let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(ToString::to_string).collect()).collect();
        assert_eq!(rows, [["1", "NaN"], ["2", "3"], ["4", "NaN"]]);
    }

    #[test]
    fn many_instances_share_what_few_may_have() {
        assert_eq!((share(0), share(64)), (MAX_CELLS, MAX_CELLS));
        assert!([65, 1_000, 1_000_000].into_iter().all(|n| n * share(n) <= MAX_SHARED_CELLS && share(n) < MAX_CELLS));
        let mut rows = Rows::default();
        (0..2_000).for_each(|idx| rows.push(&[f64::from(idx); 100]));
        assert_eq!((rows.len(), rows.stride()), (2_000, 1));
        rows.limit(share(1_000));
        (2_000..3_000).for_each(|idx| rows.push(&[f64::from(idx); 100]));
        let most = (share(1_000) + 100) * size_of::<f32>() * 5 / 4;
        assert!(rows.bytes() <= most && rows.len() > 80, "{} in {} bytes", rows.len(), rows.bytes());
        let stride = rows.stride() as usize;
        assert!(first_cells(&rows).iter().enumerate().all(|(idx, cell)| *cell == (stride * idx) as f32), "evenly");
        rows.limit(0);
        (3_000..20_000).for_each(|idx| rows.push(&[f64::from(idx); 100]));
        assert!(rows.len() <= 2, "{} rows", rows.len());
    }
}
