//! One file over HTTP: resumed where it stopped, tried again with growing pauses, checked before it becomes visible.
//!
//! Bytes gather in `<file>.part`; a later run goes on from there with a Range request, and a server that ignores Range
//! sends the whole again. Only when size and checksum agree is the file renamed into place. Bounded: a number of failures
//! in a row without a new byte, a number of attempts at all, a pause of at most [`RetryPolicy::longest_pause`]. Fails for
//! good at once on an answer that does not change by asking again (404 and the like).

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use md5::Md5;
use sha2::Sha256;

use crate::{
    Progress, ProgressFn, Step,
    error::DatasetError,
    lines::{self, Flow},
};

/// Most attempts for one file, whatever progress they make.
const MAX_ATTEMPTS: u32 = 200;
const CHUNK_BYTES: usize = 256 << 10;

/// How patient a download is.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Failures in a row, without a new byte between them, after which it gives up.
    pub failures: u32,
    /// Pause after the first failure; doubled after each further one.
    pub first_pause: Duration,
    /// Longest pause, also where the server asks for a longer one.
    pub longest_pause: Duration,
    /// Longest silence of the server before the attempt counts as failed.
    pub silence: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            failures: 6,
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(60),
            silence: Duration::from_secs(60),
        }
    }
}

/// A checksum to compare with, in lower-case hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sum {
    /// MD5.
    Md5(String),
    /// SHA-256.
    Sha256(String),
}

/// One file to download.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Address.
    pub url: &'a str,
    /// Where it goes.
    pub file: &'a Path,
    /// Size, where known.
    pub bytes: Option<u64>,
    /// Checksum, where known.
    pub sum: Option<Sum>,
    /// Who published size and checksum.
    pub authority: &'a str,
    /// Lines it must have, checked where there is no checksum.
    pub n_lines: Option<u64>,
}

/// Downloads files.
#[derive(Clone, Debug)]
pub struct Downloader {
    agent: ureq::Agent,
    policy: RetryPolicy,
}

enum Failure {
    /// Trying again may help.
    Passing { source: Box<dyn std::error::Error + Send + Sync>, pause: Option<Duration> },
    /// It will not.
    Final(DatasetError),
}

impl Failure {
    fn passing(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Passing { source: source.into(), pause: None }
    }
}

impl Downloader {
    /// A downloader of this patience.
    #[must_use]
    pub fn new(policy: RetryPolicy) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(policy.silence))
            .timeout_recv_response(Some(policy.silence))
            .timeout_per_read(Some(policy.silence))
            .user_agent(concat!("faultline/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { agent: config.new_agent(), policy }
    }

    /// Downloads a file unless it is there already.
    ///
    /// # Errors
    /// [`DatasetError::Checksum`] when the bytes are not those published, twice from the beginning;
    /// [`DatasetError::Refused`] and [`DatasetError::Download`] when they cannot be had; [`DatasetError::Io`] when they
    /// cannot be written.
    pub fn download(&self, request: &Request<'_>, progress: &mut ProgressFn<'_>) -> Result<(), DatasetError> {
        let name = request.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if request.file.is_file() && verify(request.file, &name, request, progress).is_ok() {
            return Ok(());
        }
        let part = part_of(request.file);
        if let Some(parent) = part.parent() {
            fs::create_dir_all(parent).map_err(DatasetError::io("create", parent))?;
        }
        // What was resumed may be the tail of another version, and a line may flip a bit: a file that fails its check is
        // fetched once more from the beginning.
        self.receive(request, &part, &name, progress)?;
        if let Err(error) = verify(&part, &name, request, progress) {
            tracing::warn!(file = name, %error, "downloading it once more from the beginning");
            fs::remove_file(&part).map_err(DatasetError::io("remove", &part))?;
            self.receive(request, &part, &name, progress)?;
            if let Err(error) = verify(&part, &name, request, progress) {
                fs::remove_file(&part).map_err(DatasetError::io("remove", &part))?;
                return Err(error);
            }
        }
        fs::rename(&part, request.file).map_err(DatasetError::io("rename into place", request.file))
    }

    /// The body of a small document.
    ///
    /// # Errors
    /// As [`Downloader::download`].
    pub fn text(&self, url: &str) -> Result<String, DatasetError> {
        self.persist(
            url,
            || 0,
            || {
                let mut response = self.agent.get(url).call().map_err(Failure::passing)?;
                check_status(url, response.status().as_u16(), retry_after(response.headers()))?;
                response.body_mut().with_config().limit(4 << 20).read_to_string().map_err(Failure::passing)
            },
        )
    }

    fn receive(
        &self,
        request: &Request<'_>,
        part: &Path,
        name: &str,
        progress: &mut ProgressFn<'_>,
    ) -> Result<(), DatasetError> {
        self.persist(request.url, || len(part), || self.attempt(request, part, name, progress))
    }

    /// Calls `attempt` until it succeeds, fails for good, or fails too often without `measure` growing.
    fn persist<T>(
        &self,
        url: &str,
        measure: impl Fn() -> u64,
        mut attempt: impl FnMut() -> Result<T, Failure>,
    ) -> Result<T, DatasetError> {
        let mut failures = 0;
        for attempts in 1.. {
            let before = measure();
            let (source, asked) = match attempt() {
                Ok(value) => return Ok(value),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing { source, pause }) => (source, pause),
            };
            failures = if measure() > before { 1 } else { failures + 1 };
            if failures >= self.policy.failures || attempts >= MAX_ATTEMPTS {
                return Err(DatasetError::Download { url: url.to_owned(), attempts, source });
            }
            let doubled = self.policy.first_pause.saturating_mul(1 << (failures - 1).min(16));
            let pause = asked.unwrap_or(doubled).min(self.policy.longest_pause);
            tracing::warn!(url, attempts, error = %source, pause_ms = pause.as_millis(), "download failed, trying again");
            std::thread::sleep(pause);
        }
        unreachable!("the number of attempts is bounded")
    }

    fn attempt(
        &self,
        request: &Request<'_>,
        part: &Path,
        name: &str,
        progress: &mut ProgressFn<'_>,
    ) -> Result<(), Failure> {
        let io = |operation: &'static str| {
            let path = part.to_owned();
            move |source| Failure::Final(DatasetError::Io { operation, path, source })
        };
        let mut have = len(part);
        if request.bytes.is_some_and(|bytes| have > bytes) {
            fs::remove_file(part).map_err(io("remove"))?;
            have = 0;
        }
        if have > 0 && request.bytes == Some(have) {
            return Ok(());
        }
        let mut call = self.agent.get(request.url).header("accept-encoding", "identity");
        if have > 0 {
            call = call.header("range", format!("bytes={have}-"));
        }
        let response = call.call().map_err(Failure::passing)?;
        let status = response.status().as_u16();
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let range = header("content-range").as_deref().and_then(parse_range);
        if status == 416 {
            // Nothing after what is here: either that is all, or it belongs to another version.
            if range.is_some_and(|(_, total)| total == Some(have)) {
                return Ok(());
            }
            fs::remove_file(part).map_err(io("remove"))?;
            return Err(Failure::passing("the server has less of the file than is here; starting again"));
        }
        check_status(request.url, status, retry_after(response.headers()))?;
        let length: Option<u64> = header("content-length").and_then(|value| value.parse().ok());
        let total = if status == 206 {
            match range {
                Some((Some(start), total)) if start == have => total.or(length.map(|length| have + length)),
                _ => {
                    fs::remove_file(part).or_else(absent_is_fine).map_err(io("remove"))?;
                    return Err(Failure::passing("the server sent another range than was asked for; starting again"));
                }
            }
        } else {
            // The whole file, asked for or not.
            have = 0;
            length
        };
        if let (Some(offered), Some(published)) = (total, request.bytes)
            && offered != published
        {
            return Err(Failure::Final(DatasetError::Checksum {
                file: name.to_owned(),
                authority: request.authority.to_owned(),
                expected: format!("{published} bytes"),
                found: format!("{offered} bytes"),
            }));
        }
        let mut file = OpenOptions::new().create(true).append(true).open(part).map_err(io("write"))?;
        file.set_len(have).map_err(io("write"))?;
        let total = total.or(request.bytes);
        let mut body = response.into_body().into_with_config().limit(u64::MAX).reader();
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            progress(Progress { step: Step::Download, item: name, bytes_done: have, bytes_total: total });
            let n = match body.read(&mut chunk) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Failure::passing(error)),
            };
            file.write_all(&chunk[..n]).map_err(io("write"))?;
            have += n as u64;
        }
        if total.is_some_and(|total| have < total) {
            return Err(Failure::passing(format!("the connection ended at byte {have}")));
        }
        file.sync_all().map_err(io("write"))
    }
}

fn part_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    PathBuf::from(name)
}

fn len(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

fn absent_is_fine(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

fn check_status(url: &str, status: u16, pause: Option<Duration>) -> Result<(), Failure> {
    match status {
        200 | 206 => Ok(()),
        408 | 425 | 429 | 500..=599 => {
            Err(Failure::Passing { source: format!("the server answered HTTP {status}").into(), pause })
        }
        _ => Err(Failure::Final(DatasetError::Refused { url: url.to_owned(), status })),
    }
}

/// `Retry-After` in seconds; the form with a date is left to the doubling pause.
fn retry_after(headers: &ureq::http::HeaderMap) -> Option<Duration> {
    Some(Duration::from_secs(headers.get("retry-after")?.to_str().ok()?.trim().parse().ok()?))
}

/// `bytes 5-9/10`, `bytes 5-9/*` or `bytes */10` as (start, total).
fn parse_range(value: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (span, total) = value.trim().strip_prefix("bytes")?.trim().split_once('/')?;
    let start = span.split_once('-').and_then(|(start, _)| start.trim().parse().ok());
    Some((start, total.trim().parse().ok()))
}

fn verify(path: &Path, name: &str, request: &Request<'_>, progress: &mut ProgressFn<'_>) -> Result<(), DatasetError> {
    let mismatch = |expected: String, found: String| DatasetError::Checksum {
        file: name.to_owned(),
        authority: request.authority.to_owned(),
        expected,
        found,
    };
    let size = len(path);
    if let Some(bytes) = request.bytes.filter(|bytes| *bytes != size) {
        return Err(mismatch(format!("{bytes} bytes"), format!("{size} bytes")));
    }
    match &request.sum {
        Some(Sum::Md5(expected)) => {
            let found = hash::<Md5>(path, name, progress)?;
            if found != *expected {
                return Err(mismatch(format!("MD5 {expected}"), found));
            }
        }
        Some(Sum::Sha256(expected)) => {
            let found = hash::<Sha256>(path, name, progress)?;
            if found != *expected {
                return Err(mismatch(format!("SHA-256 {expected}"), found));
            }
        }
        None => {
            if let Some(n_lines) = request.n_lines {
                let mut found = 0;
                lines::for_each(path, |_, _| {
                    found += 1;
                    Ok(Flow::On)
                })?;
                if found != n_lines {
                    return Err(mismatch(format!("{n_lines} lines"), format!("{found} lines")));
                }
            }
        }
    }
    Ok(())
}

fn hash<D: sha2::Digest>(path: &Path, name: &str, progress: &mut ProgressFn<'_>) -> Result<String, DatasetError> {
    let total = len(path);
    let mut file = File::open(path).map_err(DatasetError::io("read", path))?;
    let (mut hasher, mut chunk, mut done) = (D::new(), vec![0; CHUNK_BYTES], 0);
    loop {
        let n = file.read(&mut chunk).map_err(DatasetError::io("read", path))?;
        if n == 0 {
            break;
        }
        hasher.update(&chunk[..n]);
        done += n as u64;
        progress(Progress { step: Step::Verify, item: name, bytes_done: done, bytes_total: Some(total) });
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
