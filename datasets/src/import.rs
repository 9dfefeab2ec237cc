//! Taking a copy of a dataset into the cache from an archive or a folder, after looking into it for what it is.
//!
//! The copy becomes visible only when it is whole. Which dataset it is comes from the name the user gives, else from
//! the archive's or folder's name, else from what the files hold.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use crate::{
    Progress, ProgressFn, Step, archive,
    catalog::{CATALOG, DatasetInfo, dataset},
    error::DatasetError,
    loaders::sessions::holds_split,
    locate::{Scratch, inner_folder},
    scan::{FileKind, Found, files_under, scan},
};

/// What was taken into the cache.
#[derive(Debug)]
pub struct Imported {
    /// Which dataset.
    pub dataset: &'static DatasetInfo,
    /// Where it lies now.
    pub root: PathBuf,
    /// What it holds, commonest kind first.
    pub holdings: Vec<Holding>,
    /// Protocols for which everything needed is there.
    pub protocols: Vec<&'static str>,
}

/// Files of one kind in a dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// What they hold.
    pub kind: FileKind,
    /// How many there are.
    pub n_files: usize,
    /// The first of them, relative to the dataset.
    pub example: PathBuf,
}

/// Copies the archive or folder `source` into `cache`, in the place of what is there under that name.
///
/// # Errors
/// When it is not plain which dataset it is (pass `name`), or when it cannot be unpacked or copied.
pub fn import(
    source: &Path,
    name: Option<&str>,
    cache: &Path,
    progress: &mut ProgressFn<'_>,
) -> Result<Imported, DatasetError> {
    let named = name.map(dataset).transpose()?;
    let scratch = Scratch::new(cache)?;
    let inside = scratch.path().join("import");
    fs::create_dir(&inside).map_err(DatasetError::io("create", &inside))?;
    let metadata = fs::metadata(source).map_err(DatasetError::io("read", source))?;
    if metadata.is_dir() {
        copy(source, &inside, progress)?;
    } else {
        archive::unpack(source, &inside, progress)?;
    }
    let folder = inner_folder(inside.clone())?;
    let found = scan(&folder)?;
    // The folder inside an archive says more than the archive's own name.
    let names = [&folder, source].map(|path| {
        let stem = archive::stem(path).or_else(|| path.file_name().and_then(|name| name.to_str()));
        stem.unwrap_or_default().to_ascii_lowercase()
    });
    let info = match named.or_else(|| by_name(&names)).or_else(|| by_content(&folder, &found)) {
        Some(info) => info,
        None => {
            return Err(DatasetError::layout(
                source,
                format!(
                    "it is not plain which dataset this is ({}); say so with `--as <dataset>`: {}",
                    describe(&holdings(&found)),
                    CATALOG.iter().map(|info| info.name).collect::<Vec<_>>().join(", ")
                ),
            ));
        }
    };
    let protocols = runnable(info, &folder, &found);
    // Only the dataset's own folder moves into the cache.
    let target = cache.join(info.name);
    replace(&folder, &target, &scratch)?;
    Ok(Imported { dataset: info, root: target, holdings: holdings(&found), protocols })
}

/// What a folder holds, and which of `info`'s protocols can run on it.
///
/// # Errors
/// When it cannot be read.
pub fn inspect(info: &DatasetInfo, root: &Path) -> Result<(Vec<Holding>, Vec<&'static str>), DatasetError> {
    let found = scan(root)?;
    Ok((holdings(&found), runnable(info, root, &found)))
}

/// Moves `place` to `target`; what was there goes into the scratch folder and away with it.
pub(crate) fn replace(place: &Path, target: &Path, scratch: &Scratch) -> Result<(), DatasetError> {
    if target.exists() {
        fs::rename(target, scratch.path().join("old")).map_err(DatasetError::io("move aside", target))?;
    }
    fs::rename(place, target).map_err(DatasetError::io("rename into place", target))
}

fn copy(source: &Path, into: &Path, progress: &mut ProgressFn<'_>) -> Result<(), DatasetError> {
    let files = files_under(source)?;
    let mut total = 0;
    for file in &files {
        total += fs::metadata(file).map_err(DatasetError::io("read", file))?.len();
    }
    let mut done = 0;
    for file in &files {
        let relative = file.strip_prefix(source).unwrap_or(file);
        let to = into.join(relative);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(DatasetError::io("create", parent))?;
        }
        let mut reader = File::open(file).map_err(DatasetError::io("read", file))?;
        let mut writer = File::create(&to).map_err(DatasetError::io("write", &to))?;
        done += io::copy(&mut reader, &mut writer).map_err(DatasetError::io("copy", file))?;
        let item = relative.to_string_lossy();
        progress(Progress { step: Step::Copy, item: &item, bytes_done: done, bytes_total: Some(total) });
    }
    Ok(())
}

fn by_name(names: &[String]) -> Option<&'static DatasetInfo> {
    let exact = |name: &String| CATALOG.iter().find(|info| info.name == name);
    // `HDFS_v3_TraceBench.zip` is not `hdfs`; `HDFS_v1.zip`, `bgl-part2.tar.zst` are what they begin with.
    let begins = |name: &String| {
        CATALOG.iter().filter(|_| !name.contains("v2")).find(|info| {
            let rest = name.strip_prefix(info.name);
            rest.is_some_and(|rest| rest.starts_with(['_', '-', '.', ' '])) && !name.contains("tracebench")
        })
    };
    names
        .iter()
        .find_map(exact)
        .or_else(|| names.iter().any(|name| name.contains("tracebench")).then(|| dataset("hdfs_tracebench").ok())?)
        .or_else(|| names.iter().find_map(begins))
}

fn by_content(root: &Path, found: &[Found]) -> Option<&'static DatasetInfo> {
    let has = |kind: FileKind| found.iter().any(|found| found.kind == kind);
    let named = |part: &str| found.iter().any(|f| f.relative.to_string_lossy().to_ascii_lowercase().contains(part));
    let name = if has(FileKind::Structured) {
        "loghub_2k"
    } else if has(FileKind::HdfsLog) || has(FileKind::SessionTable) {
        "hdfs"
    } else if has(FileKind::LineTable) || (has(FileKind::AlertLog) && named("bgl")) {
        "bgl"
    } else if has(FileKind::AlertLog) && named("thunderbird") {
        "thunderbird"
    } else if holds_split(root, found) && named("openstack") {
        "openstack"
    } else if holds_split(root, found) && named("hdfs") {
        "hdfs"
    } else if named("abnormal_label.txt") && named("application_") {
        "hadoop"
    } else {
        return None;
    };
    dataset(name).ok()
}

fn runnable(info: &DatasetInfo, root: &Path, found: &[Found]) -> Vec<&'static str> {
    let has = |kind: FileKind| found.iter().any(|found| found.kind == kind);
    info.protocols()
        .filter(|protocol| match *protocol {
            "hdfs-deeplog" | "openstack" => holds_split(root, found),
            "hdfs-chrono" => has(FileKind::SessionTable),
            "hdfs-raw" => has(FileKind::HdfsLog) && has(FileKind::SessionLabels),
            "bgl-windows" => has(FileKind::BinaryLabels) && has(FileKind::SessionLines),
            "bgl-lines" => has(FileKind::LineTable),
            "loghub-2k" => has(FileKind::Structured),
            _ => !found.is_empty(),
        })
        .collect()
}

fn holdings(found: &[Found]) -> Vec<Holding> {
    let mut holdings: Vec<Holding> = Vec::new();
    for file in found {
        match holdings.iter_mut().find(|holding| holding.kind == file.kind) {
            Some(holding) => holding.n_files += 1,
            None => holdings.push(Holding { kind: file.kind, n_files: 1, example: file.relative.clone() }),
        }
    }
    holdings.sort_by(|a, b| (b.n_files, a.kind).cmp(&(a.n_files, b.kind)));
    holdings
}

fn describe(holdings: &[Holding]) -> String {
    if holdings.is_empty() {
        return "it holds no files".to_owned();
    }
    let parts: Vec<String> =
        holdings.iter().map(|held| format!("{} × {}", held.n_files, held.kind.describe())).collect();
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::tests::{tar_of, zst};

    const HDFS_LINE: &[u8] = b"081109 203518 143 INFO dfs.DataNode$X: Receiving block blk_1 src: /10.0.0.1\n";

    fn import_bytes(
        file: &str,
        bytes: &[u8],
        name: Option<&str>,
    ) -> (tempfile::TempDir, Result<Imported, DatasetError>) {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join(file);
        fs::write(&path, bytes).expect("written");
        let result = import(&path, name, &dir.path().join("cache"), &mut |_| ());
        (dir, result)
    }

    #[test]
    fn an_archive_is_known_by_what_it_holds_and_says_what_it_gives() {
        let tar = tar_of(&[
            ("stuff/raw.log", HDFS_LINE),
            ("stuff/labels.csv", b"BlockId,Label\nblk_1,Normal\n"),
            ("stuff/s/train", b"5 22\n22 5\n"),
            ("stuff/s/test_normal", b"5 22\n"),
            ("stuff/s/test_abnormal", b"5 9\n"),
        ]);
        let (dir, imported) = import_bytes("mine.tar.zst", &zst(&tar), None);
        let imported = imported.expect("recognised");
        assert_eq!(imported.dataset.name, "hdfs");
        assert_eq!(imported.protocols, ["hdfs-deeplog", "hdfs-raw"]);
        assert_eq!((imported.holdings[0].kind, imported.holdings[0].n_files), (FileKind::SessionLines, 3));
        assert!(dir.path().join("cache/hdfs/raw.log").is_file(), "the inner folder is the dataset");
        let left: Vec<_> =
            fs::read_dir(dir.path().join("cache")).expect("there").flatten().map(|e| e.file_name()).collect();
        assert_eq!(left, ["hdfs"], "no temporary folder stays");
    }

    #[test]
    fn a_second_import_takes_the_place_of_the_first() {
        let dir = tempfile::tempdir().expect("a folder");
        let (folder, cache) = (dir.path().join("bgl-held-out"), dir.path().join("cache"));
        fs::create_dir_all(folder.join("sub")).expect("created");
        for text in ["169\t0\n", "170\t1\n"] {
            fs::write(folder.join("sub/lines.tsv"), text).expect("written");
            let imported = import(&folder, None, &cache, &mut |_| ()).expect("recognised");
            assert_eq!((imported.dataset.name, imported.protocols), ("bgl", vec!["bgl-lines"]));
        }
        let lines = crate::loaders::BglLines::load(&cache.join("bgl")).expect("loads");
        assert_eq!(lines.events, [170]);
    }

    #[test]
    fn a_name_the_user_gives_decides_and_an_unknown_layout_asks_for_one() {
        let tar = tar_of(&[("x/y.txt", b"hello\n")]);
        let (_dir, result) = import_bytes("thing.tar", &tar, None);
        let error = result.expect_err("unknown").to_string();
        assert!(error.contains("--as <dataset>") && error.contains("1 × other"), "{error}");
        let (dir, result) = import_bytes("thing.tar", &tar, Some("nab"));
        assert_eq!(result.expect("named").dataset.name, "nab");
        assert!(dir.path().join("cache/nab/y.txt").is_file());
        let (_dir, result) = import_bytes("thing.tar", &tar, Some("nope"));
        assert!(matches!(result, Err(DatasetError::UnknownDataset { .. })));
    }

    #[test]
    fn names_decide_before_content() {
        for (name, expected) in [
            ("hdfs", Some("hdfs")),
            ("hdfs_v1", Some("hdfs")),
            ("hdfs_v3_tracebench", Some("hdfs_tracebench")),
            ("hdfs_tracebench", Some("hdfs_tracebench")),
            ("bgl-rest", Some("bgl")),
            ("hdfsx", None),
            ("hdfs_v2", None),
        ] {
            assert_eq!(by_name(&[name.to_owned()]).map(|info| info.name), expected, "{name}");
        }
    }

    #[test]
    fn an_unsafe_archive_leaves_the_cache_as_it_was() {
        let (dir, result) = import_bytes("hdfs.tar", &tar_of(&[("../evil", b"x")]), None);
        assert!(matches!(result, Err(DatasetError::UnsafeMember { .. })), "{result:?}");
        assert_eq!(fs::read_dir(dir.path().join("cache")).expect("there").count(), 0);
    }
}
