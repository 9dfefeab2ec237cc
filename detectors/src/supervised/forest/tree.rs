//! One tree: how it grows and how it answers.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{ForestConfig, Table};
use crate::bytes::{Reader, Writer};

/// Deepest tree, whatever the configuration says: a bound on the way of a row.
const MAX_DEPTH: usize = 64;

/// A question, or an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Node {
    /// Where rows go on: to `below` where the feature is not above the threshold, else to `above`.
    Split { feature: u16, threshold: f32, below: u32, above: u32 },
    /// Which of the leaves it is.
    Leaf(u32),
}

/// A grown tree. Every split lies before what it leads to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    /// Shares of the classes, leaf by leaf.
    leaves: Vec<f32>,
}

/// The best way to part some rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Split {
    pub feature: usize,
    /// Rows whose value is not above it go below.
    pub threshold: f32,
    /// Σ n_c² / n of both sides together: the more, the purer.
    pub purity: f64,
}

/// Rows that wait to become a node.
struct Pending {
    /// The node that leads here, and whether from above.
    from: Option<(usize, bool)>,
    start: usize,
    end: usize,
    depth: usize,
}

impl Tree {
    /// Grows a tree on `rows`, which are put into another order.
    pub fn grow(
        table: &Table,
        rows: &mut [u32],
        n_classes: usize,
        config: &ForestConfig,
        rng: &mut ChaCha8Rng,
    ) -> Self {
        let mut tree = Self { nodes: Vec::new(), leaves: Vec::new() };
        let mut features: Vec<usize> = (0..table.n_features).collect();
        let n_looked_at = (table.n_features as f64).sqrt().ceil() as usize;
        let mut pending = vec![Pending { from: None, start: 0, end: rows.len(), depth: 0 }];
        let mut column = Vec::with_capacity(rows.len());
        while let Some(Pending { from, start, end, depth }) = pending.pop() {
            let node = tree.nodes.len();
            if let Some((parent, is_above)) = from
                && let Node::Split { below, above, .. } = &mut tree.nodes[parent]
            {
                *(if is_above { above } else { below }) = node as u32;
            }
            let own = &mut rows[start..end];
            let is_deep = depth >= config.max_depth.min(MAX_DEPTH);
            let split = if is_deep || own.len() < 2 * config.min_leaf {
                None
            } else {
                draw(&mut features, n_looked_at, rng);
                best_split(table, own, &features[..n_looked_at], n_classes, config.min_leaf, &mut column)
            };
            let Some(Split { feature, threshold, .. }) = split else {
                tree.push_leaf(table, own, n_classes);
                continue;
            };
            let n_below = part(own, |row| table.value(row, feature) <= threshold);
            tree.nodes.push(Node::Split { feature: feature as u16, threshold, below: 0, above: 0 });
            let middle = start + n_below;
            let depth = depth + 1;
            pending.push(Pending { from: Some((node, true)), start: middle, end, depth });
            pending.push(Pending { from: Some((node, false)), start, end: middle, depth });
        }
        tree
    }

    fn push_leaf(&mut self, table: &Table, rows: &[u32], n_classes: usize) {
        let first = self.leaves.len();
        self.leaves.resize(first + n_classes, 0.0);
        for row in rows {
            self.leaves[first + table.class(*row)] += 1.0;
        }
        let n_rows = rows.len().max(1) as f32;
        self.leaves[first..].iter_mut().for_each(|share| *share /= n_rows);
        self.nodes.push(Node::Leaf((first / n_classes) as u32));
    }

    /// The shares of the classes where a row comes to. What is no number counts as 0, and so does what is missing.
    pub fn leaf(&self, row: &[f32], n_classes: usize) -> &[f32] {
        let mut node = 0;
        loop {
            match self.nodes[node] {
                Node::Leaf(leaf) => return &self.leaves[leaf as usize * n_classes..][..n_classes],
                Node::Split { feature, threshold, below, above } => {
                    let value = row.get(usize::from(feature)).copied().filter(|value| value.is_finite());
                    node = if value.unwrap_or(0.0) <= threshold { below as usize } else { above as usize };
                }
            }
        }
    }

    pub fn write(&self, writer: &mut Writer) {
        const LEAF: u16 = u16::MAX;
        writer.number(self.nodes.len() as u64);
        for node in &self.nodes {
            match *node {
                Node::Leaf(leaf) => {
                    writer.short(LEAF);
                    writer.word(leaf);
                }
                Node::Split { feature, threshold, below, above } => {
                    writer.short(feature);
                    writer.float(threshold);
                    writer.word(below);
                    writer.word(above);
                }
            }
        }
        writer.number(self.leaves.len() as u64);
        writer.floats(&self.leaves);
    }

    /// Reads what [`Self::write`] wrote; nothing where it is damaged or leads in a circle.
    pub fn read(reader: &mut Reader<'_>, n_features: usize, n_classes: usize) -> Option<Self> {
        const LEAF: u16 = u16::MAX;
        let n_nodes = reader.length(6)?;
        let mut nodes = Vec::with_capacity(n_nodes);
        for idx in 0..n_nodes {
            let feature = reader.short()?;
            if feature == LEAF {
                nodes.push(Node::Leaf(reader.word()?));
                continue;
            }
            let (threshold, below, above) = (reader.float()?, reader.word()?, reader.word()?);
            let leads_on = |to: u32| (idx + 1..n_nodes).contains(&(to as usize));
            if usize::from(feature) >= n_features || !leads_on(below) || !leads_on(above) {
                return None;
            }
            nodes.push(Node::Split { feature, threshold, below, above });
        }
        let n_shares = reader.length(4)?;
        let leaves: Vec<f32> = (0..n_shares).map(|_| reader.float()).collect::<Option<_>>()?;
        let is_there = |node: &Node| match node {
            Node::Leaf(leaf) => (*leaf as usize) < n_shares / n_classes.max(1),
            Node::Split { .. } => true,
        };
        (!nodes.is_empty() && nodes.iter().all(is_there)).then_some(Self { nodes, leaves })
    }
}

/// Puts `n` features drawn without replacement in front.
fn draw(features: &mut [usize], n: usize, rng: &mut ChaCha8Rng) {
    for idx in 0..n.min(features.len().saturating_sub(1)) {
        features.swap(idx, rng.random_range(idx..features.len()));
    }
}

/// Puts the rows that go below in front; says how many they are.
fn part(rows: &mut [u32], goes_below: impl Fn(u32) -> bool) -> usize {
    let mut n_below = 0;
    for idx in 0..rows.len() {
        if goes_below(rows[idx]) {
            rows.swap(n_below, idx);
            n_below += 1;
        }
    }
    n_below
}

/// The purest split of some rows by one of some features that leaves `min_leaf` rows on each side; none where none is
/// purer than the rows are. The first of several, in the order of the features and then of the thresholds.
pub(super) fn best_split(
    table: &Table,
    rows: &[u32],
    features: &[usize],
    n_classes: usize,
    min_leaf: usize,
    column: &mut Vec<(f32, usize)>,
) -> Option<Split> {
    let mut of_all = vec![0_u64; n_classes];
    for row in rows {
        of_all[table.class(*row)] += 1;
    }
    let n = rows.len();
    let squares_of_all: u64 = of_all.iter().map(|count| count * count).sum();
    let purity_of_all = squares_of_all as f64 / n as f64;
    let mut best: Option<Split> = None;
    for &feature in features {
        column.clear();
        column.extend(rows.iter().map(|row| (table.value(*row, feature), table.class(*row))));
        column.sort_unstable_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
        let (mut above, mut below) = (of_all.clone(), vec![0_u64; n_classes]);
        let (mut squares_above, mut squares_below) = (squares_of_all, 0);
        for n_below in 1..n {
            // One more row goes below. A square grows by 2 n + 1 and falls by 2 n − 1.
            let (value, class) = column[n_below - 1];
            squares_below += 2 * below[class] + 1;
            squares_above -= 2 * above[class] - 1;
            below[class] += 1;
            above[class] -= 1;
            let next = column[n_below].0;
            // Zeros of both signs are one value.
            if value >= next || n_below < min_leaf || n - n_below < min_leaf {
                continue;
            }
            let purity = squares_below as f64 / n_below as f64 + squares_above as f64 / (n - n_below) as f64;
            if purity > best.map_or(purity_of_all * (1.0 + 1e-12), |best| best.purity) {
                best = Some(Split { feature, threshold: between(value, next), purity });
            }
        }
    }
    best
}

/// A threshold that `value` does not exceed and `next` does.
fn between(value: f32, next: f32) -> f32 {
    let middle = value / 2.0 + next / 2.0;
    if middle >= value && middle < next { middle } else { value }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;

    use super::*;

    /// Purity of the two sides of a threshold, counted anew.
    fn purity(table: &Table, rows: &[u32], feature: usize, threshold: f32, n_classes: usize) -> (f64, usize) {
        let (below, above): (Vec<u32>, Vec<u32>) =
            rows.iter().partition(|row| table.value(**row, feature) <= threshold);
        let of = |side: &[u32]| {
            let counts = (0..n_classes).map(|class| side.iter().filter(|row| table.class(**row) == class).count());
            counts.map(|count| (count * count) as f64).sum::<f64>() / side.len().max(1) as f64
        };
        (of(&below) + of(&above), below.len().min(above.len()))
    }

    proptest! {
        #[test]
        fn the_best_split_is_the_best_of_all(
            cells in proptest::collection::vec((-3..4i8, -3..4i8, 0..3u32), 1..40),
            min_leaf in 1..5usize,
        ) {
            let mut table = Table::new(2);
            for (one, other, class) in &cells {
                table.push(&[f32::from(*one) / 3.0, f32::from(*other) * 1e6], *class);
            }
            let rows: Vec<u32> = (0..cells.len() as u32).collect();
            let found = best_split(&table, &rows, &[0, 1], 3, min_leaf, &mut Vec::new());
            let mut best = purity(&table, &rows, 0, f32::INFINITY, 3).0;
            let whole = best;
            for feature in 0..2 {
                for row in &rows {
                    let (own, smaller) = purity(&table, &rows, feature, table.value(*row, feature), 3);
                    if smaller >= min_leaf {
                        best = best.max(own);
                    }
                }
            }
            match found {
                Some(split) => {
                    let (own, smaller) = purity(&table, &rows, split.feature, split.threshold, 3);
                    prop_assert!((own - best).abs() < 1e-9 && (own - split.purity).abs() < 1e-9 && smaller >= min_leaf);
                    prop_assert!(own > whole);
                }
                None => prop_assert!(best - whole < 1e-9, "{best} is purer than {whole}"),
            }
        }

        #[test]
        fn a_threshold_lies_between_the_values(one in any::<f32>(), other in any::<f32>()) {
            prop_assume!(one.is_finite() && other.is_finite() && one != other);
            let (low, high) = (one.min(other), one.max(other));
            let threshold = between(low, high);
            prop_assert!(low <= threshold && high > threshold);
        }
    }

    #[test]
    fn a_tree_that_may_look_at_everything_learns_its_rows_by_heart() {
        let mut table = Table::new(1);
        (0..64_u16).for_each(|idx| table.push(&[f32::from(idx)], u32::from(idx / 3 % 2)));
        let config = ForestConfig { min_leaf: 1, max_depth: 64, ..ForestConfig::default() };
        let mut rows: Vec<u32> = (0..64).collect();
        let tree = Tree::grow(&table, &mut rows, 2, &config, &mut ChaCha8Rng::seed_from_u64(1));
        for idx in 0..64_u16 {
            assert_eq!(tree.leaf(&[f32::from(idx)], 2)[usize::from(idx / 3 % 2)], 1.0, "row {idx}");
        }
        rows.sort_unstable();
        assert_eq!(rows, (0..64).collect::<Vec<u32>>());
    }

    #[test]
    fn depth_and_the_size_of_leaves_are_bounded() {
        let mut table = Table::new(1);
        (0..256_u16).for_each(|idx| table.push(&[f32::from(idx)], u32::from(idx % 2)));
        let grow = |max_depth, min_leaf| {
            let config = ForestConfig { max_depth, min_leaf, ..ForestConfig::default() };
            let mut rows: Vec<u32> = (0..256).collect();
            Tree::grow(&table, &mut rows, 2, &config, &mut ChaCha8Rng::seed_from_u64(1))
        };
        assert_eq!(grow(0, 1).nodes, [Node::Leaf(0)]);
        assert!(grow(3, 1).nodes.len() <= 15);
        assert!(grow(64, 50).leaves.len() <= 2 * 256 / 50);
        // The purest split takes one row off the end, so the way is as long as it may be.
        assert_eq!(grow(usize::MAX, 1).nodes.len(), 2 * MAX_DEPTH + 1);
    }
}
