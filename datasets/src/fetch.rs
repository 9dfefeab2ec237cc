//! Getting a whole dataset from its official addresses: download every file, check it, unpack it, make it visible.
//!
//! Downloads stay under `<cache>/downloads/<dataset>` until the dataset is whole, so that a run that is stopped goes on
//! where it was; then they are removed. The dataset's folder appears in one rename. A file without a checksum in the
//! catalogue is checked against Zenodo's record, where it lies there.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    ProgressFn, archive,
    catalog::{DatasetInfo, Digest, RemoteFile, Unpack, dataset},
    download::{Downloader, Request, RetryPolicy, Sum},
    error::DatasetError,
    import::replace,
    locate::{Scratch, inner_folder},
};

/// How a dataset is fetched.
#[derive(Clone, Debug, Default)]
pub struct FetchOptions {
    /// Asked instead of the official hosts, with the same paths: `http://mirror.local:8080`.
    pub mirror: Option<String>,
    /// How patient downloads are.
    pub retry: RetryPolicy,
}

/// Fetches the dataset `name` into `cache` and returns its folder. What is there under that name is replaced.
///
/// # Errors
/// [`DatasetError::NotFetchable`] when no address is known; what downloading and unpacking return.
pub fn fetch(
    name: &str,
    cache: &Path,
    options: &FetchOptions,
    progress: &mut ProgressFn<'_>,
) -> Result<PathBuf, DatasetError> {
    fetch_info(dataset(name)?, cache, options, progress)
}

/// As [`fetch`], for a catalogue entry.
///
/// # Errors
/// As [`fetch`].
pub fn fetch_info(
    info: &DatasetInfo,
    cache: &Path,
    options: &FetchOptions,
    progress: &mut ProgressFn<'_>,
) -> Result<PathBuf, DatasetError> {
    if !info.is_fetchable() {
        return Err(DatasetError::NotFetchable {
            dataset: info.name.to_owned(),
            reason: format!("no public address is known for it (published by: {})", info.source),
        });
    }
    let downloader = Downloader::new(options.retry);
    let downloads = cache.join("downloads").join(info.name);
    let mut files = Vec::new();
    for (i, remote) in info.files.iter().enumerate() {
        let url = mirrored(remote.url, options.mirror.as_deref());
        // Numbered, because two files of a dataset may have one name.
        let file = downloads.join(format!("{i:02}-{}", file_name(remote.url)));
        let published = published(&downloader, &url, remote)?;
        let request = Request {
            url: &url,
            file: &file,
            bytes: published.bytes,
            sum: published.sum,
            authority: host(remote.url),
            n_lines: remote.n_lines,
        };
        downloader.download(&request, progress)?;
        files.push(file);
    }
    let scratch = Scratch::new(cache)?;
    let whole = scratch.path().join("whole");
    for (remote, file) in info.files.iter().zip(&files) {
        place(remote, file, &whole, &scratch, progress)?;
    }
    let target = cache.join(info.name);
    replace(&whole, &target, &scratch)?;
    fs::remove_dir_all(&downloads).map_err(DatasetError::io("remove", &downloads))?;
    Ok(target)
}

fn place(
    remote: &RemoteFile,
    file: &Path,
    whole: &Path,
    scratch: &Scratch,
    progress: &mut ProgressFn<'_>,
) -> Result<(), DatasetError> {
    let to = whole.join(remote.place);
    let parent = to.parent().unwrap_or(whole);
    fs::create_dir_all(parent).map_err(DatasetError::io("create", parent))?;
    match remote.unpack {
        Unpack::No => {
            fs::copy(file, &to).map_err(DatasetError::io("copy", file))?;
        }
        Unpack::Archive => {
            let inside = scratch.path().join("inside");
            fs::create_dir(&inside).map_err(DatasetError::io("create", &inside))?;
            archive::unpack(file, &inside, progress)?;
            let folder = inner_folder(inside.clone())?;
            fs::rename(&folder, &to).map_err(DatasetError::io("move", &folder))?;
            if inside.exists() {
                fs::remove_dir_all(&inside).map_err(DatasetError::io("remove", &inside))?;
            }
        }
    }
    Ok(())
}

struct PublishedSum {
    bytes: Option<u64>,
    sum: Option<Sum>,
}

fn published(downloader: &Downloader, url: &str, remote: &RemoteFile) -> Result<PublishedSum, DatasetError> {
    let sum = match remote.digest {
        Digest::Md5(sum) => Some(Sum::Md5(sum.to_owned())),
        Digest::Sha256(sum) => Some(Sum::Sha256(sum.to_owned())),
        Digest::Unpublished => match zenodo_record(url) {
            Some((record, key)) => return from_record(&downloader.text(&record)?, &record, &key),
            None => None,
        },
    };
    Ok(PublishedSum { bytes: remote.bytes, sum })
}

/// The address of a file's record in Zenodo's API, and the file's key there.
fn zenodo_record(url: &str) -> Option<(String, String)> {
    let (before, after) = url.split_once("/records/")?;
    let (id, file) = after.split_once("/files/")?;
    let key = file.split(['?', '/']).next().unwrap_or(file);
    Some((format!("{}/api/records/{id}", before.trim_end_matches("/api")), key.to_owned()))
}

fn from_record(json: &str, url: &str, key: &str) -> Result<PublishedSum, DatasetError> {
    #[derive(Deserialize)]
    struct Record {
        files: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        key: String,
        checksum: String,
        size: Option<u64>,
    }
    let unusable = |reason: &str| DatasetError::Download {
        url: url.to_owned(),
        attempts: 1,
        source: format!("the record cannot be used to check `{key}`: {reason}").into(),
    };
    let record: Record = serde_json::from_str(json).map_err(|error| unusable(&error.to_string()))?;
    let entry = record.files.iter().find(|file| file.key == key).ok_or_else(|| unusable("it does not list it"))?;
    let sum = entry.checksum.strip_prefix("md5:").ok_or_else(|| unusable("it gives no MD5 sum"))?;
    Ok(PublishedSum { bytes: entry.size, sum: Some(Sum::Md5(sum.to_ascii_lowercase())) })
}

fn mirrored(url: &str, mirror: Option<&str>) -> String {
    let Some(mirror) = mirror else { return url.to_owned() };
    let path = url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, path)| path);
    format!("{}/{path}", mirror.trim_end_matches('/'))
}

fn host(url: &'static str) -> &'static str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

fn file_name(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url).rsplit('/').next().unwrap_or(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_apart_as_published() {
        let url = "https://zenodo.org/records/8196385/files/BGL.zip?download=1";
        assert_eq!(
            zenodo_record(url),
            Some(("https://zenodo.org/api/records/8196385".to_owned(), "BGL.zip".to_owned()))
        );
        assert_eq!((host(url), file_name(url)), ("zenodo.org", "BGL.zip"));
        assert_eq!(
            mirrored(url, Some("http://127.0.0.1:1/")),
            "http://127.0.0.1:1/records/8196385/files/BGL.zip?download=1"
        );
        assert_eq!(zenodo_record("https://raw.githubusercontent.com/a/b"), None);
    }

    #[test]
    fn a_record_gives_size_and_sum_and_its_lack_is_an_error() {
        let json =
            r#"{"id":1,"files":[{"key":"a.zip","size":3,"checksum":"md5:ABC"},{"key":"b","checksum":"sha1:x"}]}"#;
        let published = from_record(json, "u", "a.zip").expect("listed");
        assert_eq!((published.bytes, published.sum), (Some(3), Some(Sum::Md5("abc".to_owned()))));
        for key in ["b", "c"] {
            assert!(from_record(json, "u", key).is_err(), "{key}");
        }
        assert!(from_record("<html>", "u", "a.zip").is_err());
    }

    #[test]
    fn a_dataset_without_an_address_says_how_else_to_get_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let error =
            fetch("nab", dir.path(), &FetchOptions::default(), &mut |_| ()).expect_err("no address").to_string();
        assert!(error.contains("faultline datasets import"), "{error}");
    }
}
