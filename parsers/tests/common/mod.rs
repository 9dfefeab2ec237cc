//! Where real data lies, for tests and benches: `FAULTLINE_DATA`, else `../shared/data` beside the repository.
//! Cargo runs both in the folder of their crate.
#![allow(dead_code, reason = "each user takes what it needs")]

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    path::PathBuf,
};

pub fn data(archive: &str) -> Option<PathBuf> {
    let root = std::env::var_os("FAULTLINE_DATA").map_or_else(|| PathBuf::from("../../shared/data"), PathBuf::from);
    let path = root.join(format!("{archive}.tar.zst"));
    path.is_file().then_some(path)
}

/// The files of an archive whose path `wanted` takes, unpacked in memory.
pub fn files(archive: &str, wanted: impl Fn(&str) -> bool) -> Option<BTreeMap<String, Vec<u8>>> {
    let file = std::fs::File::open(data(archive)?).expect("the archive can be opened");
    let mut tar = tar::Archive::new(zstd::Decoder::new(file).expect("a zstd stream"));
    let mut files = BTreeMap::new();
    for entry in tar.entries().expect("a tar archive") {
        let mut entry = entry.expect("a whole archive");
        let path = entry.path().expect("a path").to_string_lossy().into_owned();
        if wanted(&path) {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).expect("a whole archive");
            files.insert(path, bytes);
        }
    }
    Some(files)
}

/// Says that a test could not run, past the test harness, which shows the output of failed tests only.
pub fn skipped(test: &str) {
    writeln!(std::io::stderr(), "skipped: {test}: no data (FAULTLINE_DATA)").expect("stderr is open");
}
