//! Splits a stream into lines without copying them.
//!
//! One buffer that grows to the longest line (at most the cap and one chunk); `memchr` finds the ends. A line longer
//! than the cap is cut at a character and the rest of it skipped. Cost: each byte is read once and searched once.

use std::{
    io::{self, Read},
    ops::Range,
};

const CHUNK_BYTES: usize = 256 << 10;

pub(super) struct Lines {
    reader: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    /// Unread bytes are `buffer[start..end]`.
    start: usize,
    end: usize,
    is_at_eof: bool,
    /// Bytes of the stream before `buffer[start]`.
    offset: u64,
    max_line_bytes: usize,
    /// Whether the rest of a cut line is still to be skipped.
    is_skipping: bool,
    pub(super) n_truncated: u64,
    pub(super) n_lines: u64,
}

impl Lines {
    pub(super) fn new(reader: Box<dyn Read + Send>, max_line_bytes: usize) -> Self {
        Self {
            reader,
            buffer: vec![0; 2 * CHUNK_BYTES],
            start: 0,
            end: 0,
            is_at_eof: false,
            offset: 0,
            max_line_bytes,
            is_skipping: false,
            n_truncated: 0,
            n_lines: 0,
        }
    }

    /// Changes the cap; before the first line has been taken.
    pub(super) fn set_max_line_bytes(&mut self, max_line_bytes: usize) {
        self.max_line_bytes = max_line_bytes;
    }

    /// What has been read ahead, and the reader behind it.
    pub(super) fn into_parts(self) -> (Vec<u8>, Box<dyn Read + Send>) {
        (self.buffer[self.start..self.end].to_vec(), self.reader)
    }

    /// Bytes of the stream before the next line.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The first bytes of the stream, before any line has been taken.
    pub(super) fn peek(&mut self) -> io::Result<&[u8]> {
        if self.end == 0 {
            self.fill()?;
        }
        Ok(&self.buffer[self.start..self.end])
    }

    /// The next line without its end (`\n` or `\r\n`), as a range of [`Lines::bytes`]; `None` at the end.
    #[inline]
    pub(super) fn next_line(&mut self) -> io::Result<Option<Range<usize>>> {
        let mut n_searched = 0;
        loop {
            let unread = &self.buffer[self.start + n_searched..self.end];
            match memchr::memchr(b'\n', unread) {
                Some(at) => {
                    let line = self.start..self.start + n_searched + at;
                    self.consume(line.len() + 1);
                    if std::mem::take(&mut self.is_skipping) {
                        n_searched = 0;
                        continue;
                    }
                    return Ok(Some(self.trimmed(line)));
                }
                None if self.is_skipping => {
                    self.consume(self.end - self.start);
                    n_searched = 0;
                    if self.is_at_eof {
                        return Ok(None);
                    }
                }
                None if self.end - self.start > self.max_line_bytes + 1 => {
                    let line = self.start..self.end;
                    self.consume(line.len());
                    self.is_skipping = true;
                    return Ok(Some(self.trimmed(line)));
                }
                None if self.is_at_eof => {
                    let line = self.start..self.end;
                    self.consume(line.len());
                    return Ok((!line.is_empty()).then(|| self.trimmed(line)));
                }
                None => n_searched = self.end - self.start,
            }
            self.fill()?;
        }
    }

    /// Valid until the next call to [`Lines::next_line`].
    #[inline]
    pub(super) fn bytes(&self, line: Range<usize>) -> &[u8] {
        &self.buffer[line]
    }

    #[inline]
    fn consume(&mut self, n_bytes: usize) {
        self.start += n_bytes;
        self.offset += n_bytes as u64;
    }

    /// Without a carriage return, and cut at the cap.
    #[inline]
    fn trimmed(&mut self, mut line: Range<usize>) -> Range<usize> {
        self.n_lines += 1;
        if self.buffer[line.clone()].ends_with(b"\r") {
            line.end -= 1;
        }
        if line.len() > self.max_line_bytes {
            self.n_truncated += 1;
            line.end = line.start + self.max_line_bytes;
            // Back to the start of a character, if this is text at all.
            let mut end = line.end;
            while end > line.start && line.end - end < 4 && self.buffer[end] & 0xc0 == 0x80 {
                end -= 1;
            }
            if self.buffer[end] & 0xc0 != 0x80 {
                line.end = end;
            }
        }
        line
    }

    fn fill(&mut self) -> io::Result<()> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.buffer.len() - self.end < CHUNK_BYTES {
            self.buffer.resize((self.buffer.len() * 2).min(self.max_line_bytes + 2 * CHUNK_BYTES), 0);
        }
        loop {
            match self.reader.read(&mut self.buffer[self.end..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => {
                    let n_read = outcome?;
                    self.end += n_read;
                    self.is_at_eof = n_read == 0;
                    return Ok(());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Hands out `bytes` in pieces of these sizes.
    struct Pieces(Vec<u8>, Vec<usize>);

    impl Read for Pieces {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let wanted = self.1.pop().unwrap_or(usize::MAX);
            let n_bytes = wanted.min(self.0.len()).min(out.len());
            out[..n_bytes].copy_from_slice(&self.0[..n_bytes]);
            self.0.drain(..n_bytes);
            Ok(n_bytes)
        }
    }

    fn all(mut lines: Lines) -> (Vec<Vec<u8>>, Lines) {
        let mut found = Vec::new();
        while let Some(line) = lines.next_line().unwrap() {
            found.push(lines.bytes(line).to_vec());
        }
        (found, lines)
    }

    proptest! {
        #[test]
        fn lines_are_the_same_however_the_bytes_arrive(
            text in "[ab\r\n]{0,60}",
            pieces in proptest::collection::vec(1_usize..7, 0..40),
        ) {
            let reader = Pieces(text.clone().into_bytes(), pieces);
            let (found, lines) = all(Lines::new(Box::new(reader), 1000));
            let mut expected: Vec<Vec<u8>> = text.split('\n').map(|line| {
                line.strip_suffix('\r').unwrap_or(line).as_bytes().to_vec()
            }).collect();
            // What follows the last line end is a line only when there is something.
            if text.is_empty() || text.ends_with('\n') {
                expected.pop();
            }
            prop_assert_eq!(found, expected);
            prop_assert_eq!(lines.offset(), text.len() as u64);
        }

        #[test]
        fn long_lines_are_cut_and_the_rest_is_skipped(
            lengths in proptest::collection::vec(0_usize..40, 0..20),
            pieces in proptest::collection::vec(1_usize..9, 0..80),
        ) {
            let text: String = lengths.iter().map(|&length| "x".repeat(length) + "\n").collect();
            let (found, lines) = all(Lines::new(Box::new(Pieces(text.into_bytes(), pieces)), 10));
            let got: Vec<usize> = found.iter().map(Vec::len).collect();
            let expected: Vec<usize> = lengths.iter().map(|&length| length.min(10)).collect();
            prop_assert_eq!(got, expected);
            prop_assert_eq!(lines.n_truncated, lengths.iter().filter(|&&length| length > 10).count() as u64);
        }
    }

    #[test]
    fn a_line_is_cut_at_a_character() {
        let (found, _) = all(Lines::new(Box::new("aaaé\nb".as_bytes()), 4));
        assert_eq!(found, [b"aaa".to_vec(), b"b".to_vec()]);
    }

    #[test]
    fn a_line_longer_than_the_buffer_is_whole_when_the_cap_allows_it() {
        let long = "y".repeat(5 * CHUNK_BYTES);
        let (found, _) = all(Lines::new(Box::new(io::Cursor::new(format!("{long}\nz\n"))), 8 * CHUNK_BYTES));
        assert_eq!(found, [long.into_bytes(), b"z".to_vec()]);
        let (found, lines) =
            all(Lines::new(Box::new(io::Cursor::new("y".repeat(9 * CHUNK_BYTES) + "\nz\n")), CHUNK_BYTES));
        assert_eq!((found[0].len(), found[1].as_slice(), lines.n_truncated), (CHUNK_BYTES, &b"z"[..], 1));
    }
}
