//! Where tests find public datasets: `FAULTLINE_DATA`, else `../shared/data`. Nothing from there is ever committed.

use std::path::{Path, PathBuf};

/// The archive `<name>.tar.zst`, if it is on this machine.
pub fn archive(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("FAULTLINE_DATA").map_or_else(|| PathBuf::from("../shared/data"), PathBuf::from);
    let path = folder.join(format!("{name}.tar.zst"));
    path.is_file().then_some(path)
}

/// Unpacks one file of an archive into `into` and returns its path.
pub fn extract(archive: &Path, file: &str, into: &Path) -> PathBuf {
    let reader = zstd::Decoder::new(std::fs::File::open(archive).expect("the archive opens")).expect("zstd");
    let mut entries = tar::Archive::new(reader);
    for entry in entries.entries().expect("a tar archive") {
        let mut entry = entry.expect("a tar entry");
        if entry.path().expect("a path").ends_with(file) {
            let path = into.join(Path::new(file).file_name().expect("a file name"));
            entry.unpack(&path).expect("writable");
            return path;
        }
    }
    panic!("{} holds no {file}", archive.display());
}
