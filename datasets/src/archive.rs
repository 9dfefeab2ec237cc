//! Unpacking archives safely: `.tar`, `.tar.zst`, `.tar.gz`, `.zip`, and single compressed files, told by their first
//! bytes.
//!
//! Nothing outside the target folder is ever written: a member with an absolute path or a `..` refuses the whole
//! archive before it is written, links and devices are skipped (no dataset needs them), permissions are not restored.
//! Bounded: [`MAX_UNPACKED_BYTES`] and [`MAX_MEMBERS`]. Cost: one pass. On failure the caller's folder is left half
//! full; callers unpack into a temporary folder and rename it.

use std::{
    cell::Cell,
    fs::{self, File},
    io::{self, BufReader, Cursor, Read, Write},
    path::{Component, Path, PathBuf},
    rc::Rc,
};

use crate::{Progress, ProgressFn, Step, error::DatasetError};

/// Most bytes an archive may unpack to (Thunderbird, the largest known, is 32 GB).
pub const MAX_UNPACKED_BYTES: u64 = 64 << 30;
/// Most members an archive may have.
pub const MAX_MEMBERS: usize = 1_000_000;

const CHUNK_BYTES: usize = 1 << 20;

/// Whether the file's name is that of an archive this module reads.
#[must_use]
pub fn is_archive_name(path: &Path) -> bool {
    stem(path).is_some()
}

/// The file's name without its archive ending: `hdfs` for `/data/hdfs.tar.zst`. None when it has none.
#[must_use]
pub fn stem(path: &Path) -> Option<&str> {
    let name = path.file_name()?.to_str()?;
    [".tar.zst", ".tar.gz", ".tzst", ".tgz", ".tar", ".zip"].iter().find_map(|ending| name.strip_suffix(ending))
}

/// Unpacks `archive` into the existing folder `into`.
///
/// # Errors
/// [`DatasetError::UnsafeMember`] when a member points outside, [`DatasetError::Archive`] when the archive is damaged,
/// of an unknown kind or over the limits, [`DatasetError::Io`] when a file cannot be read or written.
pub fn unpack(archive: &Path, into: &Path, progress: &mut ProgressFn<'_>) -> Result<(), DatasetError> {
    let reading = |source| DatasetError::Io { operation: "read", path: archive.to_owned(), source };
    let file = File::open(archive).map_err(reading)?;
    let total = file.metadata().map_err(reading)?.len();
    let done = Rc::new(Cell::new(0));
    let mut source = Counted { inner: file, done: Rc::clone(&done) };
    let magic = peek(&mut source, 4).map_err(reading)?;
    let mut sink = Unpacking { archive, into, done, total, n_members: 0, n_bytes: 0, progress };
    if magic.starts_with(b"PK\x03\x04") || magic.starts_with(b"PK\x05\x06") {
        drop(source);
        return sink.zip();
    }
    let whole = BufReader::with_capacity(CHUNK_BYTES, Cursor::new(magic.clone()).chain(source));
    if magic == [0x28, 0xb5, 0x2f, 0xfd] {
        let mut decoder = zstd::Decoder::with_buffer(whole).map_err(reading)?;
        decoder.window_log_max(31).map_err(reading)?;
        sink.stream(decoder, Compressed::Yes)
    } else if magic.starts_with(&[0x1f, 0x8b]) {
        sink.stream(flate2::bufread::MultiGzDecoder::new(whole), Compressed::Yes)
    } else {
        sink.stream(whole, Compressed::No)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Compressed {
    Yes,
    No,
}

struct Unpacking<'a, 'f, 'p> {
    archive: &'a Path,
    into: &'a Path,
    done: Rc<Cell<u64>>,
    total: u64,
    n_members: usize,
    n_bytes: u64,
    progress: &'p mut ProgressFn<'f>,
}

impl Unpacking<'_, '_, '_> {
    fn stream(&mut self, mut reader: impl Read, compressed: Compressed) -> Result<(), DatasetError> {
        // The tar magic stands at byte 257 of the first header.
        let head = peek(&mut reader, 512).map_err(|error| self.damaged(&error))?;
        let is_tar = head.get(257..262) == Some(b"ustar");
        let mut whole = Cursor::new(head).chain(reader);
        if is_tar {
            return self.tar(whole);
        }
        if compressed == Compressed::No {
            return Err(self.refused("it is none of tar, tar.zst, tar.gz, zip, zst, gz"));
        }
        let name = self.archive.file_stem().and_then(|name| name.to_str()).unwrap_or("data").to_owned();
        self.member(&name, &mut whole)
    }

    fn tar(&mut self, reader: impl Read) -> Result<(), DatasetError> {
        let mut archive = tar::Archive::new(reader);
        let entries = archive.entries().map_err(|error| self.damaged(&error))?;
        for entry in entries {
            let mut entry = entry.map_err(|error| self.damaged(&error))?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let kind = entry.header().entry_type();
            if kind.is_file() || kind == tar::EntryType::Continuous || kind.is_gnu_sparse() {
                self.member(&name, &mut entry)?;
            } else if kind.is_dir() {
                self.folder(&name)?;
            } else {
                self.safe_path(&name)?;
                tracing::warn!(archive = %self.archive.display(), member = name, "skipped: neither file nor folder");
            }
        }
        Ok(())
    }

    fn zip(&mut self) -> Result<(), DatasetError> {
        let file = File::open(self.archive).map_err(DatasetError::io("read", self.archive))?;
        let mut archive =
            zip::ZipArchive::new(BufReader::new(file)).map_err(|error| self.refused(&error.to_string()))?;
        let mut packed = 0;
        for i in 0..archive.len() {
            let mut entry = archive.by_index(i).map_err(|error| self.refused(&error.to_string()))?;
            let name = entry.name().map_err(|error| self.refused(&error.to_string()))?.into_owned();
            packed += entry.compressed_size();
            if entry.is_dir() {
                self.folder(&name)?;
            } else if entry.is_symlink() {
                self.safe_path(&name)?;
                tracing::warn!(archive = %self.archive.display(), member = name, "skipped: a link");
            } else {
                self.member(&name, &mut entry)?;
            }
            self.done.set(packed.min(self.total));
        }
        Ok(())
    }

    fn folder(&mut self, name: &str) -> Result<(), DatasetError> {
        self.count_member()?;
        let path = self.safe_path(name)?;
        fs::create_dir_all(&path).map_err(DatasetError::io("create", path))
    }

    fn member(&mut self, name: &str, reader: &mut dyn Read) -> Result<(), DatasetError> {
        self.count_member()?;
        let path = self.safe_path(name)?;
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(DatasetError::io("create", parent))?;
        }
        let mut file = File::create(&path).map_err(DatasetError::io("write", &path))?;
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let n = match reader.read(&mut chunk) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.damaged(&error)),
            };
            self.n_bytes += n as u64;
            if self.n_bytes > MAX_UNPACKED_BYTES {
                return Err(self.refused("it unpacks to more than 64 GiB"));
            }
            file.write_all(&chunk[..n]).map_err(DatasetError::io("write", &path))?;
            (self.progress)(Progress {
                step: Step::Unpack,
                item: name,
                bytes_done: self.done.get().min(self.total),
                bytes_total: Some(self.total),
            });
        }
        Ok(())
    }

    fn count_member(&mut self) -> Result<(), DatasetError> {
        self.n_members += 1;
        if self.n_members > MAX_MEMBERS {
            return Err(self.refused("it has more than a million members"));
        }
        Ok(())
    }

    fn safe_path(&self, name: &str) -> Result<PathBuf, DatasetError> {
        // A backslash separates folders in archives made on Windows; nowhere is it part of a dataset's file name.
        let unified = name.replace('\\', "/");
        let mut path = self.into.to_owned();
        for component in Path::new(&unified).components() {
            match component {
                Component::Normal(part) if !unified.contains('\0') => path.push(part),
                Component::CurDir => {}
                _ => {
                    return Err(DatasetError::UnsafeMember { path: self.archive.to_owned(), member: name.to_owned() });
                }
            }
        }
        Ok(path)
    }

    fn damaged(&self, error: &io::Error) -> DatasetError {
        self.refused(&format!("it is cut short or damaged: {error}"))
    }

    fn refused(&self, reason: &str) -> DatasetError {
        DatasetError::Archive { path: self.archive.to_owned(), reason: reason.to_owned() }
    }
}

/// A reader that counts what went through it.
struct Counted<R> {
    inner: R,
    done: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.done.set(self.done.get() + n as u64);
        Ok(n)
    }
}

/// Up to `n` bytes from the front; fewer only at the end of the input.
fn peek(reader: &mut impl Read, n: u64) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    reader.by_ref().take(n).read_to_end(&mut head)?;
    Ok(head)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A tar of these files. Names are written as they are, so that an unsafe one can be made.
    pub(crate) fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes) in files {
            let mut header = tar::Header::new_ustar();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            builder.append(&header, *bytes).expect("appended");
        }
        builder.into_inner().expect("finished")
    }

    pub(crate) fn zst(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 3).expect("compressed")
    }

    pub(crate) fn zip_of(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in files {
            let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
            writer.start_file(*name, options).expect("started");
            writer.write_all(bytes).expect("written");
        }
        writer.finish().expect("finished").into_inner()
    }

    fn gz(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("compressed");
        encoder.finish().expect("finished")
    }

    fn try_unpack(name: &str, bytes: &[u8]) -> (tempfile::TempDir, Result<(), DatasetError>) {
        let dir = tempfile::tempdir().expect("a folder");
        let (archive, into) = (dir.path().join(name), dir.path().join("in/side"));
        fs::write(&archive, bytes).expect("written");
        fs::create_dir_all(&into).expect("created");
        let result = unpack(&archive, &into, &mut |_| ());
        (dir, result)
    }

    #[test]
    fn every_kind_of_archive_unpacks_whatever_its_name_says() {
        let tar = tar_of(&[("d/a.txt", b"alpha"), ("./d/b.txt", b"beta")]);
        let zip = zip_of(&[("d/a.txt", b"alpha"), ("d/b.txt", b"beta")]);
        for bytes in [tar.clone(), zst(&tar), gz(&tar), zip] {
            let (dir, result) = try_unpack("x.bin", &bytes);
            result.expect("unpacks");
            assert_eq!(fs::read(dir.path().join("in/side/d/a.txt")).expect("there"), b"alpha");
            assert_eq!(fs::read(dir.path().join("in/side/d/b.txt")).expect("there"), b"beta");
        }
        let (dir, result) = try_unpack("HDFS.log.zst", &zst(b"one line\n"));
        result.expect("unpacks");
        assert_eq!(fs::read(dir.path().join("in/side/HDFS.log")).expect("there"), b"one line\n");
    }

    #[test]
    fn a_member_that_points_outside_refuses_the_archive() {
        for name in ["../evil", "d/../../../evil", "/evil", "..\\evil"] {
            for bytes in [tar_of(&[(name, b"x")]), zip_of(&[(name, b"x")])] {
                let (dir, result) = try_unpack("x", &bytes);
                assert!(matches!(result, Err(DatasetError::UnsafeMember { .. })), "{name}: {result:?}");
                assert!(!dir.path().join("evil").exists() && !dir.path().join("in/evil").exists());
            }
        }
    }

    #[test]
    fn a_link_is_skipped_so_that_nothing_is_written_through_it() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, "door", "..").expect("appended");
        let mut bytes = builder.into_inner().expect("finished");
        bytes.truncate(512);
        bytes.extend(tar_of(&[("door/evil", b"x")]));
        let (dir, result) = try_unpack("x.tar", &bytes);
        result.expect("unpacks");
        assert!(!dir.path().join("in/evil").exists());
        assert!(dir.path().join("in/side/door/evil").exists(), "`door` is a plain folder");
    }

    #[test]
    fn a_cut_archive_and_a_file_that_is_none_are_errors_that_name_the_file() {
        let noise: Vec<u8> = (0..200_000_u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let whole = zst(&tar_of(&[("a", &noise)]));
        let (_dir, result) = try_unpack("cut.tar.zst", &whole[..whole.len() / 2]);
        let error = result.expect_err("cut").to_string();
        assert!(error.contains("cut.tar.zst") && error.contains("cut short"), "{error}");
        let (_dir, result) = try_unpack("notes.txt", b"just text");
        assert!(matches!(result, Err(DatasetError::Archive { .. })), "{result:?}");
    }

    #[test]
    fn stems_lose_the_whole_ending() {
        assert_eq!(stem(Path::new("/data/hdfs.tar.zst")), Some("hdfs"));
        assert_eq!(stem(Path::new("BGL.zip")), Some("BGL"));
        assert_eq!(stem(Path::new("hdfs.log")), None);
    }
}
