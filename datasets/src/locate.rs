//! From a dataset's name to its folder: what the user passed, else the places it is usually kept, else the cache.
//!
//! Order: `--data`, then `FAULTLINE_DATA`, then `../shared/data` beside the working directory, then the cache
//! (`FAULTLINE_CACHE`, else `$XDG_CACHE_HOME/faultline/datasets`, else `~/.cache/faultline/datasets`). In each place a
//! folder named after the dataset wins over an archive of that name. An archive is unpacked once into the cache, under a key
//! made of its path, size and time of change, into a temporary folder that is renamed when it is whole; a process that
//! dies half-way leaves only a temporary folder, which a later run removes.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use faultline_core::hash::StableHash;

use crate::{
    ProgressFn, archive,
    catalog::{DatasetInfo, dataset},
    error::DatasetError,
};

/// Temporary folders older than this belong to no living process.
const STALE: Duration = Duration::from_secs(24 * 3_600);

/// Where to look for datasets.
#[derive(Clone, Debug)]
pub struct Locator {
    /// What the user passed with `--data`: a folder, an archive or a file.
    pub explicit: Option<PathBuf>,
    /// Folders that hold datasets by name, in order.
    pub data_dirs: Vec<PathBuf>,
    /// The cache: `<cache>/<dataset>` is what was fetched or imported.
    pub cache: PathBuf,
}

/// A dataset that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Its folder (or file, when the user passed one).
    pub root: PathBuf,
    /// Where it came from, for people.
    pub origin: String,
}

impl Locator {
    /// Looks where the environment says.
    #[must_use]
    pub fn from_env() -> Self {
        Self::new(|name| std::env::var_os(name))
    }

    /// Looks where `variable` says.
    #[must_use]
    pub fn new(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let path = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let cache = path("FAULTLINE_CACHE")
            .or_else(|| {
                path("XDG_CACHE_HOME").filter(|home| home.is_absolute()).map(|home| home.join("faultline/datasets"))
            })
            .or_else(|| path("HOME").map(|home| home.join(".cache/faultline/datasets")))
            .unwrap_or_else(|| std::env::temp_dir().join("faultline-datasets"));
        let data_dirs = path("FAULTLINE_DATA").into_iter().chain([PathBuf::from("../shared/data")]).collect();
        Self { explicit: None, data_dirs, cache }
    }

    /// The same with what the user passed as `--data`.
    #[must_use]
    pub fn with_data(mut self, data: Option<PathBuf>) -> Self {
        self.explicit = data;
        self
    }

    /// Finds the dataset `name`, unpacking its archive if need be.
    ///
    /// # Errors
    /// [`DatasetError::Missing`] with the command that gets it, [`DatasetError::UnknownDataset`], or what unpacking
    /// returns.
    pub fn locate(&self, name: &str, progress: &mut ProgressFn<'_>) -> Result<Located, DatasetError> {
        let info = dataset(name)?;
        if let Some(explicit) = &self.explicit {
            return self.explicit(explicit, name, progress);
        }
        for dir in &self.data_dirs {
            if let Some(located) = self.within(dir, name, progress)? {
                return Ok(located);
            }
        }
        let cached = self.cache.join(name);
        if cached.is_dir() {
            return Ok(Located { origin: format!("cache {}", cached.display()), root: cached });
        }
        Err(self.missing(info))
    }

    /// Where the dataset `name` lies, without unpacking anything: its folder or its archive, for people. None when it is
    /// nowhere.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<String> {
        let dirs = self.explicit.iter().chain(&self.data_dirs).chain([&self.cache]);
        dirs.flat_map(|dir| candidates(dir, name)).find(|path| path.exists()).map(|path| path.display().to_string())
    }

    /// Resolves a path the user passed, such as `--train-data`: a folder or file as it is, an archive unpacked.
    ///
    /// # Errors
    /// When it is not there or cannot be unpacked.
    pub fn resolve(&self, path: &Path, progress: &mut ProgressFn<'_>) -> Result<Located, DatasetError> {
        let metadata = fs::metadata(path).map_err(DatasetError::io("read", path))?;
        let origin = path.display().to_string();
        if metadata.is_file() && archive::is_archive_name(path) {
            return Ok(Located { root: self.unpacked(path, progress)?, origin });
        }
        Ok(Located { root: path.to_owned(), origin })
    }

    fn explicit(&self, path: &Path, name: &str, progress: &mut ProgressFn<'_>) -> Result<Located, DatasetError> {
        // A folder of datasets will do as well as the dataset's own folder.
        if path.is_dir()
            && let Some(located) = self.within(path, name, progress)?
        {
            return Ok(located);
        }
        self.resolve(path, progress)
    }

    fn within(&self, dir: &Path, name: &str, progress: &mut ProgressFn<'_>) -> Result<Option<Located>, DatasetError> {
        for path in candidates(dir, name) {
            if path.exists() {
                return self.resolve(&path, progress).map(Some);
            }
        }
        Ok(None)
    }

    /// The folder an archive was unpacked into, unpacking it first where that has not been done.
    fn unpacked(&self, archive: &Path, progress: &mut ProgressFn<'_>) -> Result<PathBuf, DatasetError> {
        let metadata = fs::metadata(archive).map_err(DatasetError::io("read", archive))?;
        let whole = fs::canonicalize(archive).map_err(DatasetError::io("read", archive))?;
        let changed = metadata.modified().ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        let key = StableHash::new()
            .text(&whole.to_string_lossy())
            .number(metadata.len())
            .bytes(&changed.map_or(0, |time| time.as_nanos()).to_le_bytes())
            .finish();
        let stem = archive::stem(archive).unwrap_or("archive");
        let target = self.cache.join("unpacked").join(format!("{stem}-{key:016x}"));
        if !target.is_dir() {
            let scratch = Scratch::new(&self.cache)?;
            archive::unpack(archive, scratch.path(), progress)?;
            scratch.settle(&target)?;
        }
        inner_folder(target)
    }

    fn missing(&self, info: &DatasetInfo) -> DatasetError {
        let mut looked: Vec<String> =
            self.data_dirs.iter().map(|dir| dir.join(info.name).display().to_string()).collect();
        looked.push(self.cache.join(info.name).display().to_string());
        let import = "`faultline datasets import <archive or folder>` takes a copy, `--data <path>` uses one in place";
        let hint = if info.is_fetchable() {
            format!("`faultline datasets fetch {}` downloads it ({}), {import}", info.name, info.source)
        } else {
            format!("no public address is known ({}): {import}", info.source)
        };
        DatasetError::Missing { dataset: info.name.to_owned(), looked: looked.join(", "), hint }
    }
}

/// What a folder of datasets may hold of the dataset `name`: its folder, then its archives.
fn candidates(dir: &Path, name: &str) -> impl Iterator<Item = PathBuf> {
    let (dir, name) = (dir.to_owned(), name.to_owned());
    ["", ".tar.zst", ".tar.gz", ".tgz", ".tzst", ".zip", ".tar"]
        .into_iter()
        .map(move |end| dir.join(format!("{name}{end}")))
}

/// An archive usually holds one folder named after the dataset: that folder is the dataset.
pub(crate) fn inner_folder(folder: PathBuf) -> Result<PathBuf, DatasetError> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(&folder).map_err(DatasetError::io("read", &folder))? {
        let entry = entry.map_err(DatasetError::io("read", &folder))?;
        if entry.file_name() != "__MACOSX" {
            entries.push(entry.path());
        }
    }
    match entries.as_slice() {
        [only] if only.is_dir() => Ok(only.clone()),
        _ => Ok(folder),
    }
}

/// A temporary folder in the cache, removed unless it is settled.
pub(crate) struct Scratch {
    folder: Option<PathBuf>,
}

impl Scratch {
    pub(crate) fn new(cache: &Path) -> Result<Self, DatasetError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        fs::create_dir_all(cache).map_err(DatasetError::io("create the cache", cache))?;
        remove_stale(cache);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = cache.join(format!(".tmp-{}-{n}", std::process::id()));
        // Left over by an earlier process of the same number.
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(DatasetError::io("remove", &folder))?;
        }
        fs::create_dir(&folder).map_err(DatasetError::io("create", &folder))?;
        Ok(Self { folder: Some(folder) })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.as_deref().expect("a scratch folder is there until it is settled")
    }

    /// Makes the folder visible as `target`. When another process was quicker, its result stands.
    pub(crate) fn settle(mut self, target: &Path) -> Result<(), DatasetError> {
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(DatasetError::io("create", parent))?;
        }
        match fs::rename(self.path(), target) {
            Ok(()) => {
                self.folder = None;
                Ok(())
            }
            Err(_) if target.is_dir() => Ok(()),
            Err(source) => Err(DatasetError::Io { operation: "rename into place", path: target.to_owned(), source }),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(folder) = &self.folder {
            // What cannot be removed now is removed as stale by a later run.
            let _ = fs::remove_dir_all(folder);
        }
    }
}

fn remove_stale(cache: &Path) {
    let Ok(entries) = fs::read_dir(cache) else { return };
    for entry in entries.flatten() {
        let age = entry.metadata().and_then(|metadata| metadata.modified()).ok().and_then(|time| time.elapsed().ok());
        if entry.file_name().to_string_lossy().starts_with(".tmp-") && age.is_some_and(|age| age > STALE) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::tests::{tar_of, zip_of, zst};
    use std::cell::Cell;

    struct Place {
        dir: tempfile::TempDir,
        locator: Locator,
    }

    fn place() -> Place {
        let dir = tempfile::tempdir().expect("a folder");
        let locator =
            Locator { explicit: None, data_dirs: vec![dir.path().join("data")], cache: dir.path().join("cache") };
        fs::create_dir(dir.path().join("data")).expect("created");
        Place { dir, locator }
    }

    fn quiet(locator: &Locator, name: &str) -> Result<Located, DatasetError> {
        locator.locate(name, &mut |_| ())
    }

    #[test]
    fn the_environment_names_data_and_cache() {
        let locator = Locator::new(|name| match name {
            "FAULTLINE_DATA" => Some("/d".into()),
            "FAULTLINE_CACHE" => Some("/c".into()),
            _ => Some("/home/x".into()),
        });
        assert_eq!(locator.data_dirs, [PathBuf::from("/d"), PathBuf::from("../shared/data")]);
        assert_eq!(locator.cache, PathBuf::from("/c"));
        let locator = Locator::new(|name| (name == "HOME").then(|| "/home/x".into()));
        assert_eq!(locator.cache, PathBuf::from("/home/x/.cache/faultline/datasets"));
        let locator = Locator::new(|name| match name {
            "XDG_CACHE_HOME" => Some("/xdg".into()),
            "FAULTLINE_CACHE" => Some("".into()),
            _ => None,
        });
        assert_eq!(locator.cache, PathBuf::from("/xdg/faultline/datasets"));
    }

    #[test]
    fn a_missing_dataset_names_the_command_that_gets_it() {
        let place = place();
        let error = quiet(&place.locator, "hdfs").expect_err("absent").to_string();
        assert!(error.contains("`faultline datasets fetch hdfs`") && error.contains("cache/hdfs"), "{error}");
        let error = quiet(&place.locator, "nab").expect_err("absent").to_string();
        assert!(error.contains("`faultline datasets import") && !error.contains("fetch"), "{error}");
        assert!(matches!(quiet(&place.locator, "hdsf"), Err(DatasetError::UnknownDataset { .. })));
    }

    #[test]
    fn an_archive_is_unpacked_once_and_again_only_when_it_changes() {
        let place = place();
        let archive = place.dir.path().join("data/hdfs.tar.zst");
        fs::write(&archive, zst(&tar_of(&[("hdfs/a", b"one")]))).expect("written");
        assert_eq!(place.locator.find("hdfs"), Some(archive.display().to_string()));
        assert_eq!(place.locator.find("bgl"), None);
        assert!(!place.locator.cache.exists(), "nothing was unpacked");
        let unpackings = Cell::new(0);
        let locate = || place.locator.locate("hdfs", &mut |_| unpackings.set(unpackings.get() + 1)).expect("found");
        let first = locate();
        assert_eq!(fs::read(first.root.join("a")).expect("there"), b"one");
        assert!(unpackings.replace(0) > 0);
        assert_eq!(locate(), first);
        assert_eq!(unpackings.get(), 0, "the second time nothing is unpacked");
        fs::write(&archive, zst(&tar_of(&[("hdfs/a", b"longer than before")]))).expect("written");
        let second = locate();
        assert_ne!(second.root, first.root);
        assert_eq!(fs::read(second.root.join("a")).expect("there"), b"longer than before");
    }

    #[test]
    fn a_damaged_or_unsafe_archive_leaves_nothing_in_the_cache() {
        let place = place();
        let archive = place.dir.path().join("data/hdfs.tar.zst");
        let whole = zst(&tar_of(&[("hdfs/a", &[7; 100_000])]));
        for bytes in [whole[..whole.len() / 2].to_vec(), zst(&tar_of(&[("ok", b"x"), ("../../evil", b"x")]))] {
            fs::write(&archive, bytes).expect("written");
            quiet(&place.locator, "hdfs").expect_err("refused");
            let left: Vec<_> = fs::read_dir(&place.locator.cache).expect("there").flatten().map(|e| e.path()).collect();
            assert!(left.is_empty(), "{left:?}");
            assert!(!place.dir.path().join("evil").exists());
        }
    }

    #[test]
    fn what_the_user_passes_wins_and_may_be_folder_archive_file_or_a_folder_of_datasets() {
        let mut place = place();
        fs::create_dir_all(place.dir.path().join("data/hdfs")).expect("created");
        let other = place.dir.path().join("other");
        fs::create_dir_all(other.join("bgl")).expect("created");
        fs::write(other.join("part.zip"), zip_of(&[("x/train", b"1 2")])).expect("written");
        place.locator.explicit = Some(other.clone());
        assert_eq!(quiet(&place.locator, "hdfs").expect("found").root, other);
        assert_eq!(quiet(&place.locator, "bgl").expect("found").root, other.join("bgl"));
        place.locator.explicit = Some(other.join("part.zip"));
        assert!(quiet(&place.locator, "hdfs").expect("found").root.join("train").is_file());
        place.locator.explicit = Some(other.join("absent"));
        let error = quiet(&place.locator, "hdfs").expect_err("absent").to_string();
        assert!(error.contains("other/absent"), "{error}");
        place.locator.explicit = None;
        assert_eq!(quiet(&place.locator, "hdfs").expect("found").root, place.dir.path().join("data/hdfs"));
    }
}
