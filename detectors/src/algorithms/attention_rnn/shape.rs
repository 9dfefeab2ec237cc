//! What a network of the attention model is made of: its sizes, its symbols, its matrices. `net` trains it, `kernel` serves it.

use super::{Attention, Config, Direction};
pub use crate::language::Symbol;

/// Sizes of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Templates, or words. The symbol after them stands for what was before or comes after a session (a line), the one
    /// after that for what is unknown or masked.
    pub n_known: usize,
    /// Symbols that each side of a context holds.
    pub window: usize,
    /// Symbols in a segment of the tiered variant.
    pub segment: usize,
    /// Width of a state, as far as it is a value.
    pub hidden: usize,
    /// Width of keys and queries.
    pub attention_width: usize,
    /// Where the query comes from.
    pub attention: Attention,
    /// 1: what came before. 2: and what comes after, the farthest first.
    pub n_sides: usize,
    /// Whether the network says how likely something unknown is, because training held some.
    pub predicts_unknown: bool,
}

/// What a weight matrix is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `[4 * n_symbols, width]`: what a symbol adds to each gate.
    Input,
    /// `[4 * width, width]`: what the state before adds.
    Recurrent,
    /// `[hidden, attention_width]`: a value's key.
    Keys,
    /// The query, or what makes it.
    Query,
    /// `[4 * 2 * hidden, hidden]`: what a segment's last state and its attended value add to the upper tier's gates.
    UpperInput,
    /// `[4 * hidden, hidden]`.
    UpperRecurrent,
    /// `[4, hidden]`.
    UpperBias,
    /// `[4 * hidden, width]`: what the upper tier's state adds to the gates of the next segment.
    Context,
    /// `[hidden, n_outputs]`: from the last state.
    OutputState,
    /// `[hidden, n_outputs]`: from the attended value.
    OutputAttended,
    /// `[1, n_outputs]`.
    OutputBias,
}

impl Shape {
    /// The sizes that `config` asks for. What is unknown is not predicted.
    pub fn of(config: &Config, n_known: usize) -> Self {
        Self {
            n_known,
            window: config.window,
            segment: config.segment,
            hidden: config.hidden,
            attention_width: config.attention_width,
            attention: config.attention,
            n_sides: match config.direction {
                Direction::Forward => 1,
                Direction::Bidirectional => 2,
            },
            predicts_unknown: false,
        }
    }

    /// Symbols that a context may hold.
    pub fn n_symbols(&self) -> usize {
        self.n_known + 2
    }

    /// Symbols that may be predicted: what is known, the end, and perhaps what is unknown.
    pub fn n_outputs(&self) -> usize {
        self.n_known + 1 + usize::from(self.predicts_unknown)
    }

    /// Stands for what is outside the session or the line; as a prediction, for its end.
    pub fn outside(&self) -> Symbol {
        self.n_known as Symbol
    }

    /// Stands for what nothing is known of.
    pub fn unknown(&self) -> Symbol {
        self.n_known as Symbol + 1
    }

    /// Symbols in a context.
    pub fn context_length(&self) -> usize {
        self.n_sides * self.window
    }

    /// Width of an LSTM state. The second semantic variant lets the LSTM write its query beside its value.
    pub fn width(&self) -> usize {
        self.hidden + if self.attention == Attention::Semantic2 { self.attention_width } else { 0 }
    }

    /// The segments of a side; the last is the one that ends at the judged symbol. One segment where there are no tiers.
    pub fn segments(&self) -> Vec<std::ops::Range<usize>> {
        if self.attention != Attention::Tiered {
            return std::iter::once(0..self.window).collect();
        }
        let mut ends: Vec<usize> = (0..).map(|n| n * self.segment).take_while(|&n| n < self.window).collect();
        ends.reverse();
        let ends = ends.into_iter().map(|before_end| self.window - before_end);
        let mut start = 0;
        ends.map(|end| std::mem::replace(&mut start, end)..end).collect()
    }

    /// Every weight matrix with its rows and columns, in the order in which weights are listed.
    pub fn matrices(&self) -> Vec<(Part, [usize; 2])> {
        let (hidden, width, keys) = (self.hidden, self.width(), self.attention_width);
        let mut matrices = Vec::new();
        for _ in 0..self.n_sides {
            matrices.push((Part::Input, [4 * self.n_symbols(), width]));
            matrices.push((Part::Recurrent, [4 * width, width]));
            matrices.push((Part::Keys, [hidden, keys]));
            match self.attention {
                Attention::Fixed | Attention::Tiered => matrices.push((Part::Query, [1, keys])),
                Attention::Syntax => matrices.push((Part::Query, [self.window + 1, keys])),
                Attention::Semantic1 => matrices.push((Part::Query, [hidden, keys])),
                Attention::Semantic2 => {}
            }
            matrices.push((Part::OutputState, [hidden, self.n_outputs()]));
            if self.attention == Attention::Tiered {
                matrices.push((Part::UpperInput, [8 * hidden, hidden]));
                matrices.push((Part::UpperRecurrent, [4 * hidden, hidden]));
                matrices.push((Part::UpperBias, [4, hidden]));
                matrices.push((Part::Context, [4 * hidden, width]));
            } else {
                matrices.push((Part::OutputAttended, [hidden, self.n_outputs()]));
            }
        }
        matrices.push((Part::OutputBias, [1, self.n_outputs()]));
        matrices
    }

    /// Number of weights.
    pub fn n_weights(&self) -> usize {
        self.matrices().iter().map(|(_, [rows, columns])| rows * columns).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_end_at_the_judged_record() {
        let shape = |window, segment, attention| Shape {
            n_known: 3,
            window,
            segment,
            hidden: 4,
            attention_width: 4,
            attention,
            n_sides: 1,
            predicts_unknown: false,
        };
        assert_eq!(shape(10, 4, Attention::Tiered).segments(), [0..2, 2..6, 6..10]);
        assert_eq!(shape(8, 4, Attention::Tiered).segments(), [0..4, 4..8]);
        assert_eq!(shape(8, 4, Attention::Fixed).segments().len(), 1);
    }
}
