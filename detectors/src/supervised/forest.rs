//! Decision trees for classes (CART: Breiman, Friedman, Olshen, Stone, "Classification and Regression Trees", 1984) and
//! forests of them (Breiman, "Random Forests", Machine Learning 2001).
//!
//! A tree asks of each split whether one feature is above a threshold, chosen so that the Gini impurity falls most: of
//! all features that the split may look at and all thresholds between two values, exactly (`tree`). A forest lets each
//! tree see a sample of the rows, drawn with replacement, and each split a few of the features; its answer is the mean
//! of the trees'. The sample holds as many rows of each class, since faults are few among what is normal (Chen, Liaw,
//! Breiman, "Using Random Forest to Learn Imbalanced Data", 2004): so a probability says how alike a row is to the
//! classes, not how frequent they are.
//!
//! Cost of a fit: for each tree and level a sort of at most `rows_a_tree` values for each feature looked at. Memory: 16
//! bytes a node and 4 bytes a leaf and class; both are bounded by `n_trees`, `rows_a_tree` and `min_leaf`. Features
//! must be finite; what is not counts as 0. Fails where classes differ by what no single feature shows, and beyond the
//! values of training, where the outermost leaf answers.

mod tree;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::tree::Tree;
use crate::bytes::{Reader, Writer};

/// How a forest grows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ForestConfig {
    /// Trees. Default 100; more cost time and only steady the answer.
    pub n_trees: usize,
    /// Splits from the root to a leaf, at most. Default 12.
    pub max_depth: usize,
    /// Rows of a leaf, at least. Default 3; raise it where labels are uncertain.
    pub min_leaf: usize,
    /// Rows that each tree sees, all classes together. Default 4096: a bound on time and memory.
    pub rows_a_tree: usize,
}

impl Default for ForestConfig {
    fn default() -> Self {
        Self { n_trees: 100, max_depth: 12, min_leaf: 3, rows_a_tree: 4_096 }
    }
}

/// Rows of features, each with its class.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    n_features: usize,
    values: Vec<f32>,
    classes: Vec<u32>,
}

impl Table {
    /// A table without rows.
    #[must_use]
    pub fn new(n_features: usize) -> Self {
        Self { n_features, values: Vec::new(), classes: Vec::new() }
    }

    /// Adds a row. Features beyond the number of the table are left out, missing ones are 0.
    pub fn push(&mut self, row: &[f32], class: u32) {
        let sound = row.iter().map(|value| if value.is_finite() { *value } else { 0.0 });
        self.values.extend(sound.chain(std::iter::repeat(0.0)).take(self.n_features));
        self.classes.push(class);
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.classes.len()
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }

    fn value(&self, row: u32, feature: usize) -> f32 {
        self.values[row as usize * self.n_features + feature]
    }

    fn class(&self, row: u32) -> usize {
        self.classes[row as usize] as usize
    }
}

/// A fitted forest.
#[derive(Clone, Debug, PartialEq)]
pub struct Forest {
    n_features: usize,
    n_classes: usize,
    trees: Vec<Tree>,
}

impl Forest {
    /// Grows a forest; `None` where there is no row. Classes are counted from 0; there are at least two.
    #[must_use]
    pub fn fit(table: &Table, config: &ForestConfig, seed: u64) -> Option<Self> {
        let n_classes = table.classes.iter().max()?.saturating_add(1).max(2) as usize;
        let mut of_class: Vec<Vec<u32>> = vec![Vec::new(); n_classes];
        for row in 0..u32::try_from(table.len()).ok()? {
            of_class[table.class(row)].push(row);
        }
        of_class.retain(|rows| !rows.is_empty());
        let n_each = (config.rows_a_tree / of_class.len()).max(1);
        // A sample larger than the class would only repeat its rows.
        let most = of_class.iter().map(Vec::len).max().unwrap_or(1);
        let n_each = n_each.min(most.max(2 * config.min_leaf));
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut rows = Vec::with_capacity(n_each * of_class.len());
        let trees = (0..config.n_trees.max(1)).map(|_| {
            rows.clear();
            for own in &of_class {
                rows.extend((0..n_each).map(|_| own[rng.random_range(0..own.len())]));
            }
            Tree::grow(table, &mut rows, n_classes, config, &mut rng)
        });
        let trees = trees.collect();
        Some(Self { n_features: table.n_features, n_classes, trees })
    }

    /// Number of classes.
    #[must_use]
    pub fn n_classes(&self) -> usize {
        self.n_classes
    }

    /// How likely each class is, 0 to 1, together 1. A row that is too short has zeros behind it.
    #[must_use]
    pub fn predict(&self, row: &[f32]) -> Vec<f64> {
        let mut shares = vec![0.0; self.n_classes];
        for tree in &self.trees {
            for (share, own) in shares.iter_mut().zip(tree.leaf(row, self.n_classes)) {
                *share += f64::from(*own);
            }
        }
        let sum: f64 = shares.iter().sum();
        shares.iter_mut().for_each(|share| *share /= sum.max(f64::MIN_POSITIVE));
        shares
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.number(self.n_features as u64);
        writer.number(self.n_classes as u64);
        writer.number(self.trees.len() as u64);
        self.trees.iter().for_each(|tree| tree.write(writer));
    }

    /// Reads what [`Self::write`] wrote; nothing where it is damaged.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let n_features = usize::try_from(reader.number()?).ok()?;
        // Every tree has a leaf, which has a share for each class.
        let n_classes = reader.length(4)?;
        let n_trees = reader.length(4)?;
        let mut trees = Vec::with_capacity(n_trees);
        for _ in 0..n_trees {
            trees.push(Tree::read(reader, n_features, n_classes)?);
        }
        (n_classes >= 2 && !trees.is_empty()).then_some(Self { n_features, n_classes, trees })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::Magic;

    const MAGIC: &Magic = b"faultline foresT";

    /// Class 1 where both of two features are above a half or both below; a third is noise.
    fn table(seed: u64, n: usize) -> Table {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut table = Table::new(3);
        for _ in 0..n {
            let row: [f32; 3] = [rng.random(), rng.random(), rng.random()];
            table.push(&row, u32::from((row[0] > 0.5) == (row[1] > 0.5)));
        }
        table
    }

    fn row(table: &Table, idx: usize) -> &[f32] {
        &table.values[3 * idx..3 * (idx + 1)]
    }

    #[test]
    fn what_no_feature_shows_alone_is_found_and_the_same_again() {
        let (training, later) = (table(1, 2_000), table(2, 500));
        let forest = Forest::fit(&training, &ForestConfig::default(), 7).expect("there are rows");
        let is_right = |idx: usize| {
            let shares = forest.predict(row(&later, idx));
            assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{shares:?}");
            (shares[1] > 0.5) == (later.classes[idx] == 1)
        };
        let n_right = (0..later.len()).filter(|&idx| is_right(idx)).count();
        assert!(n_right > 460, "{n_right} of 500");
        assert_eq!(Forest::fit(&training, &ForestConfig::default(), 7), Some(forest.clone()));
        assert_ne!(Forest::fit(&training, &ForestConfig::default(), 8), Some(forest));
    }

    #[test]
    fn a_rare_class_is_heard() {
        let mut table = Table::new(1);
        (0..10_000).for_each(|idx| table.push(&[f32::from(u8::from(idx % 50 == 0))], 0));
        (0..20).for_each(|_| table.push(&[1.0], 1));
        let forest = Forest::fit(&table, &ForestConfig::default(), 1).expect("there are rows");
        // Two in a hundred of what is normal look like it, which is ten times as many.
        assert!(forest.predict(&[1.0])[1] > 0.9 && forest.predict(&[0.0])[1] < 0.05);
    }

    #[test]
    fn what_is_no_number_and_rows_of_another_length_do_not_upset_it() {
        let mut table = Table::new(2);
        table.push(&[f32::NAN], 0);
        table.push(&[f32::INFINITY, 1.0, 7.0], 1);
        assert_eq!(table.values, [0.0, 0.0, 0.0, 1.0]);
        let config = ForestConfig { min_leaf: 1, ..ForestConfig::default() };
        let forest = Forest::fit(&table, &config, 1).expect("there are rows");
        for row in [&[][..], &[f32::NAN, f32::NAN], &[1.0; 9]] {
            assert!(forest.predict(row).iter().all(|share| (0.0..=1.0).contains(share)));
        }
        assert_eq!(Forest::fit(&Table::new(2), &config, 1), None);
        let mut one = Table::new(1);
        one.push(&[1.0], 0);
        assert_eq!(Forest::fit(&one, &config, 1).expect("there is a row").predict(&[3.0]), [1.0, 0.0]);
    }

    #[test]
    fn what_is_written_is_read_to_the_bit_and_damage_is_refused() {
        let forest = Forest::fit(&table(1, 300), &ForestConfig::default(), 7).expect("there are rows");
        let mut writer = Writer::new(MAGIC);
        forest.write(&mut writer);
        let bytes = writer.finish();
        let mut reader = Reader::open(MAGIC, &bytes).expect("its own");
        assert_eq!(Forest::read(&mut reader), Some(forest));
        assert!(reader.is_empty());
        let mut writer = Writer::new(MAGIC);
        // One feature, two classes, one tree of one split whose sides are itself.
        [1, 2, 1, 1].into_iter().for_each(|number| writer.number(number));
        writer.short(0);
        writer.float(0.0);
        [0, 0].into_iter().for_each(|number| writer.word(number));
        writer.number(0);
        let bytes = writer.finish();
        assert_eq!(Forest::read(&mut Reader::open(MAGIC, &bytes).expect("its own")), None);
    }
}
