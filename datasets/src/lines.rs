//! Reading text files line by line, compressed or not, with the line number at hand for errors.
//!
//! `.zst` and `.gz` are told by their first bytes, not by name. A line's end is LF or CRLF; a last line without one
//! counts. Cost: one pass, one buffer. Fails on a line longer than [`MAX_LINE_BYTES`], so that a binary file passed by
//! mistake is an error instead of an allocation.

use std::{
    fs::File,
    io::{BufRead, BufReader, Cursor, Read},
    path::Path,
};

use crate::error::DatasetError;

/// Longest line any dataset file may have.
pub const MAX_LINE_BYTES: usize = 16 << 20;

const BUFFER_BYTES: usize = 256 << 10;

/// Opens a text file, decompressing zstd or gzip.
///
/// # Errors
/// When the file cannot be read.
pub fn open(path: &Path) -> Result<Box<dyn BufRead>, DatasetError> {
    let io = |source| DatasetError::Io { operation: "read", path: path.to_owned(), source };
    let mut file = File::open(path).map_err(io)?;
    let mut magic = Vec::with_capacity(4);
    file.by_ref().take(4).read_to_end(&mut magic).map_err(io)?;
    let kind = magic.clone();
    let whole = Cursor::new(magic).chain(file);
    Ok(match kind.as_slice() {
        [0x28, 0xb5, 0x2f, 0xfd] => {
            let mut decoder = zstd::Decoder::new(whole).map_err(io)?;
            decoder.window_log_max(31).map_err(io)?;
            Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder))
        }
        [0x1f, 0x8b, ..] => {
            Box::new(BufReader::with_capacity(BUFFER_BYTES, flate2::read::MultiGzDecoder::new(BufReader::new(whole))))
        }
        _ => Box::new(BufReader::with_capacity(BUFFER_BYTES, whole)),
    })
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Next line, please.
    On,
    /// Enough.
    Stop,
}

/// Calls `each` with every line's number (from 1) and bytes, without its end.
///
/// # Errors
/// When the file cannot be read or holds an overlong line, and whatever `each` returns.
pub fn for_each(
    path: &Path,
    mut each: impl FnMut(u64, &[u8]) -> Result<Flow, DatasetError>,
) -> Result<(), DatasetError> {
    let mut reader = open(path)?;
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let n = reader
            .by_ref()
            .take(MAX_LINE_BYTES as u64 + 1)
            .read_until(b'\n', &mut line)
            .map_err(|source| DatasetError::Io { operation: "read", path: path.to_owned(), source })?;
        if n == 0 {
            break;
        }
        if n > MAX_LINE_BYTES {
            return Err(DatasetError::record(path, number, format!("a line of more than {MAX_LINE_BYTES} bytes")));
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        if each(number, &line)? == Flow::Stop {
            break;
        }
    }
    Ok(())
}

/// Number of lines.
///
/// # Errors
/// As [`for_each`].
pub fn count(path: &Path) -> Result<u64, DatasetError> {
    let mut n = 0;
    for_each(path, |_, _| {
        n += 1;
        Ok(Flow::On)
    })?;
    Ok(n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, io::Write};

    fn lines_of(path: &Path) -> Vec<String> {
        let mut lines = Vec::new();
        for_each(path, |number, line| {
            lines.push(format!("{number}:{}", String::from_utf8_lossy(line)));
            Ok(Flow::On)
        })
        .expect("readable");
        lines
    }

    #[test]
    fn plain_gzip_and_zstd_read_alike_and_the_last_line_needs_no_end() {
        let dir = tempfile::tempdir().expect("a folder");
        let text = b"one\r\n\ntwo";
        let (plain, gz, zst) = (dir.path().join("a"), dir.path().join("b"), dir.path().join("c"));
        fs::write(&plain, text).expect("written");
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).expect("compressed");
        fs::write(&gz, encoder.finish().expect("finished")).expect("written");
        fs::write(&zst, zstd::encode_all(&text[..], 1).expect("compressed")).expect("written");
        for path in [&plain, &gz, &zst] {
            assert_eq!(lines_of(path), ["1:one", "2:", "3:two"]);
        }
        assert_eq!(count(&plain).expect("readable"), 3);
    }

    #[test]
    fn an_overlong_line_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("binary");
        let mut bytes = b"fine\n".to_vec();
        bytes.resize(MAX_LINE_BYTES + 100, b'x');
        fs::write(&path, bytes).expect("written");
        let error = count(&path).expect_err("too long").to_string();
        assert!(error.contains("binary:2:"), "{error}");
    }
}
