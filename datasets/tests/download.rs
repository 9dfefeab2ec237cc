//! Downloads against a real server on 127.0.0.1 that misbehaves in every way public archives do.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use faultline_datasets::{
    DatasetError, DatasetInfo,
    catalog::{Digest, RemoteFile, Unpack},
    download::{Downloader, Request, RetryPolicy, Sum},
    fetch::{FetchOptions, fetch_info},
};
use sha2::Digest as _;

/// One request as the server saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    path: String,
    range_start: Option<usize>,
}

/// What the server does with a request.
enum Reply {
    /// Status, further headers, body.
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// As before, but the connection ends after so many bytes of the body.
    Cut(u16, Vec<(&'static str, String)>, Vec<u8>, usize),
    /// Nothing, until the client hangs up.
    Silence,
}

struct Server {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(reply: impl Fn(usize, &Asked) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let (asked, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (log, stopping) = (Arc::clone(&asked), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopping.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(stream) = stream else { continue };
                let Some(request) = read_request(&stream) else { continue };
                let n = {
                    let mut log = log.lock().expect("not poisoned");
                    log.push(request.clone());
                    log.len() - 1
                };
                serve(stream, reply(n, &request));
            }
        });
        Self { url, asked, stop, thread: Some(thread) }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("not poisoned").clone()
    }

    fn ranges(&self) -> Vec<Option<usize>> {
        self.asked().iter().map(|asked| asked.range_start).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the accept call; a refused connection means that the thread has ended already.
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server did not panic");
        }
    }
}

fn read_request(stream: &TcpStream) -> Option<Asked> {
    let mut lines = BufReader::new(stream).lines();
    let path = lines.next()?.ok()?.split(' ').nth(1)?.to_owned();
    let mut range_start = None;
    for line in lines {
        let line = line.ok()?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(range) = line.strip_prefix("range: bytes=") {
            range_start = range.trim_end_matches('-').parse().ok();
        }
    }
    Some(Asked { path, range_start })
}

fn serve(mut stream: TcpStream, reply: Reply) {
    let (status, headers, body, sent) = match reply {
        Reply::Answer(status, headers, body) => {
            let sent = body.len();
            (status, headers, body, sent)
        }
        Reply::Cut(status, headers, body, sent) => (status, headers, body, sent),
        Reply::Silence => {
            let _ = stream.read_to_end(&mut Vec::new());
            return;
        }
    };
    let mut head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n", body.len());
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += "\r\n";
    // A client that has heard enough hangs up; that is its right.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body[..sent]));
}

fn whole(bytes: &[u8]) -> Reply {
    Reply::Answer(200, Vec::new(), bytes.to_vec())
}

fn part_of(bytes: &[u8], start: usize) -> Reply {
    let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
    Reply::Answer(206, vec![("content-range", range)], bytes[start..].to_vec())
}

fn data() -> Vec<u8> {
    (0..75_000_u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

fn sha256(bytes: &[u8]) -> Option<Sum> {
    Some(Sum::Sha256(sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()))
}

fn impatient() -> RetryPolicy {
    RetryPolicy {
        failures: 3,
        first_pause: Duration::from_millis(1),
        longest_pause: Duration::from_millis(5),
        silence: Duration::from_secs(20),
    }
}

fn download(url: &str, file: &Path, bytes: &[u8]) -> Result<(), DatasetError> {
    let request = Request {
        url,
        file,
        bytes: Some(bytes.len() as u64),
        sum: sha256(bytes),
        authority: "the test",
        n_lines: None,
    };
    Downloader::new(impatient()).download(&request, &mut |_| ())
}

fn part_file(file: &Path) -> std::path::PathBuf {
    file.with_file_name(format!("{}.part", file.file_name().expect("a name").to_string_lossy()))
}

#[test]
fn a_connection_cut_half_way_is_resumed_where_it_stopped() {
    let bytes = data();
    let served = bytes.clone();
    let server = Server::start(move |n, asked| match (n, asked.range_start) {
        (0, _) => Reply::Cut(200, Vec::new(), served.clone(), served.len() / 2),
        (_, Some(start)) => part_of(&served, start),
        (_, None) => whole(&served),
    });
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("sub/file.bin");
    let mut seen = Vec::new();
    let request = Request {
        url: &server.url,
        file: &file,
        bytes: None,
        sum: sha256(&bytes),
        authority: "the test",
        n_lines: None,
    };
    Downloader::new(impatient())
        .download(&request, &mut |progress| seen.push((progress.bytes_done, progress.bytes_total)))
        .expect("arrives");
    assert_eq!(fs::read(&file).expect("there"), bytes);
    assert_eq!(server.ranges(), [None, Some(bytes.len() / 2)], "half is not asked for again");
    assert_eq!(seen.last(), Some(&(bytes.len() as u64, Some(bytes.len() as u64))));
    assert!(!part_file(&file).exists());
    // Once there, it is not asked for again.
    download(&server.url, &file, &bytes).expect("is there");
    assert_eq!(server.asked().len(), 2);
}

#[test]
fn a_later_run_goes_on_where_an_earlier_one_gave_up() {
    let bytes = data();
    let served = bytes.clone();
    let server = Server::start(move |n, asked| match (n, asked.range_start) {
        (0, None) => Reply::Cut(200, Vec::new(), served.clone(), 1_000),
        (0..=3, _) => Reply::Cut(206, vec![("content-range", "bytes 1000-299999/300000".into())], vec![0; 299_000], 0),
        (_, Some(start)) => part_of(&served, start),
        _ => whole(&served),
    });
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("file.bin");
    let error = download(&server.url, &file, &bytes).expect_err("gives up");
    assert!(matches!(error, DatasetError::Download { attempts: 3, .. }), "{error:?}");
    assert!(error.to_string().contains("a later run resumes"), "{error}");
    assert_eq!(fs::read(part_file(&file)).expect("kept"), bytes[..1_000]);
    assert!(!file.exists());
    let error = download(&server.url, &file, &bytes);
    assert!(error.is_ok(), "{error:?}");
    assert_eq!(server.ranges()[3..], [Some(1_000), Some(1_000)]);
    assert_eq!(fs::read(&file).expect("there"), bytes);
}

#[test]
fn a_server_that_ignores_range_sends_the_whole_again() {
    let bytes = data();
    let served = bytes.clone();
    let server = Server::start(move |_, _| whole(&served));
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("file.bin");
    fs::write(part_file(&file), &bytes[..5_000]).expect("written");
    download(&server.url, &file, &bytes).expect("arrives");
    assert_eq!(server.ranges(), [Some(5_000)]);
    assert_eq!(fs::read(&file).expect("there"), bytes);
}

#[test]
fn corrupted_bytes_never_become_visible() {
    let bytes = data();
    let mut corrupted = bytes.clone();
    corrupted[123_456] ^= 1;
    let server = Server::start(move |_, _| whole(&corrupted));
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("file.bin");
    let error = download(&server.url, &file, &bytes).expect_err("corrupted");
    assert!(matches!(error, DatasetError::Checksum { .. }), "{error:?}");
    assert!(error.to_string().contains("the test") && error.to_string().contains("SHA-256"), "{error}");
    assert_eq!(server.asked().len(), 2, "once more from the beginning, and no more");
    assert_eq!(fs::read_dir(dir.path()).expect("there").count(), 0);
}

#[test]
fn a_resumed_tail_of_another_version_is_fetched_again_from_the_beginning() {
    let bytes = data();
    let served = bytes.clone();
    let server = Server::start(move |_, asked| match asked.range_start {
        Some(start) => part_of(&served, start),
        None => whole(&served),
    });
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("file.bin");
    fs::write(part_file(&file), vec![9; 10_000]).expect("written");
    download(&server.url, &file, &bytes).expect("arrives");
    assert_eq!(server.ranges(), [Some(10_000), None]);
    assert_eq!(fs::read(&file).expect("there"), bytes);
}

#[test]
fn a_partial_file_that_is_too_long_or_whole_is_handled() {
    let bytes = data();
    let served = bytes.clone();
    let server = Server::start(move |_, asked| match asked.range_start {
        Some(_) => Reply::Answer(416, vec![("content-range", format!("bytes */{}", served.len()))], Vec::new()),
        None => whole(&served),
    });
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("file.bin");
    fs::write(part_file(&file), vec![9; bytes.len() + 7]).expect("written");
    download(&server.url, &file, &bytes).expect("arrives");
    fs::remove_file(&file).expect("removed");
    // Whole already, but of unknown length: the server says that there is nothing more.
    fs::write(part_file(&file), &bytes).expect("written");
    let request = Request {
        url: &server.url,
        file: &file,
        bytes: None,
        sum: sha256(&bytes),
        authority: "the test",
        n_lines: None,
    };
    Downloader::new(impatient()).download(&request, &mut |_| ()).expect("is whole");
    assert_eq!(fs::read(&file).expect("there"), bytes);
    assert_eq!(server.ranges(), [None, Some(bytes.len())]);
}

#[test]
fn an_answer_that_does_not_change_is_not_asked_for_twice_and_a_busy_server_is() {
    let bytes = data();
    let served = bytes.clone();
    let server = Server::start(move |n, asked| match (asked.path.as_str(), n) {
        ("/gone", _) => Reply::Answer(404, Vec::new(), Vec::new()),
        (_, 1) => Reply::Answer(429, vec![("retry-after", "3600".into())], Vec::new()),
        (_, 2) => Reply::Answer(503, Vec::new(), Vec::new()),
        _ => whole(&served),
    });
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("file.bin");
    let error = download(&format!("{}/gone", server.url), &file, &bytes).expect_err("gone");
    assert!(matches!(error, DatasetError::Refused { status: 404, .. }), "{error:?}");
    assert_eq!(server.asked().len(), 1);
    download(&format!("{}/busy", server.url), &file, &bytes).expect("arrives on the third attempt");
    assert_eq!(server.asked().len(), 4);
}

#[test]
fn another_size_than_published_is_refused_before_it_is_downloaded() {
    let server = Server::start(move |_, _| whole(&[0; 10]));
    let dir = tempfile::tempdir().expect("a folder");
    let error = download(&server.url, &dir.path().join("file.bin"), &data()).expect_err("too small").to_string();
    assert!(error.contains("expected 300000 bytes, found 10 bytes"), "{error}");
}

#[test]
fn a_silent_server_is_given_up_on() {
    let server = Server::start(|_, _| Reply::Silence);
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("file.bin");
    let policy = RetryPolicy { failures: 2, silence: Duration::from_millis(100), ..impatient() };
    let request =
        Request { url: &server.url, file: &file, bytes: None, sum: None, authority: "the test", n_lines: None };
    let error = Downloader::new(policy).download(&request, &mut |_| ()).expect_err("silent");
    assert!(matches!(error, DatasetError::Download { attempts: 2, .. }), "{error:?}");
}

fn zip_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in files {
        writer.start_file(*name, zip::write::SimpleFileOptions::default()).expect("started");
        writer.write_all(bytes).expect("written");
    }
    writer.finish().expect("finished").into_inner()
}

const INVENTED: DatasetInfo = DatasetInfo {
    name: "hdfs",
    holds: "an invented one",
    source: "the test",
    licence: "none",
    citation: "none",
    files: &[
        RemoteFile {
            url: "https://zenodo.org/records/77/files/logs.zip?download=1",
            place: "HDFS_v1",
            unpack: Unpack::Archive,
            bytes: None,
            digest: Digest::Unpublished,
            n_lines: None,
        },
        RemoteFile {
            url: "https://raw.githubusercontent.com/somebody/repository/HEAD/data/hdfs_train",
            place: "deeplog_split/hdfs_train",
            unpack: Unpack::No,
            bytes: None,
            digest: Digest::Unpublished,
            n_lines: Some(2),
        },
    ],
};

fn zenodo(zip: Vec<u8>, train: &'static [u8]) -> Server {
    use md5::Md5;
    let sum: String = Md5::digest(&zip).iter().map(|byte| format!("{byte:02x}")).collect();
    Server::start(move |_, asked| match asked.path.as_str() {
        "/api/records/77" => {
            let size = zip.len();
            let json = format!("{{\"files\":[{{\"key\":\"logs.zip\",\"size\":{size},\"checksum\":\"md5:{sum}\"}}]}}");
            whole(json.as_bytes())
        }
        "/records/77/files/logs.zip?download=1" => whole(&zip),
        "/somebody/repository/HEAD/data/hdfs_train" => whole(train),
        _ => Reply::Answer(404, Vec::new(), Vec::new()),
    })
}

#[test]
fn a_dataset_is_fetched_checked_against_its_record_and_unpacked() {
    let server =
        zenodo(zip_of(&[("HDFS_v1/HDFS.log", b"line\n"), ("HDFS_v1/preprocessed/x.csv", b"a,b\n")]), b"5 5\n22 5");
    let dir = tempfile::tempdir().expect("a folder");
    let options = FetchOptions { mirror: Some(server.url.clone()), retry: impatient() };
    // An earlier copy is replaced only by a whole one.
    fs::create_dir(dir.path().join("hdfs")).expect("created");
    fs::write(dir.path().join("hdfs/old"), "old").expect("written");
    let root = fetch_info(&INVENTED, dir.path(), &options, &mut |_| ()).expect("fetched");
    assert_eq!(root, dir.path().join("hdfs"));
    assert_eq!(fs::read(root.join("HDFS_v1/HDFS.log")).expect("there"), b"line\n");
    assert_eq!(fs::read(root.join("HDFS_v1/preprocessed/x.csv")).expect("there"), b"a,b\n");
    assert_eq!(fs::read(root.join("deeplog_split/hdfs_train")).expect("there"), b"5 5\n22 5");
    assert!(!root.join("old").exists());
    let downloads: Vec<_> = fs::read_dir(dir.path().join("downloads")).expect("there").collect();
    assert!(downloads.is_empty(), "{downloads:?}");
}

#[test]
fn a_file_without_a_checksum_must_have_the_published_number_of_lines() {
    let server = zenodo(zip_of(&[("HDFS_v1/HDFS.log", b"line\n")]), b"5 5\n22 5\n5\n");
    let dir = tempfile::tempdir().expect("a folder");
    let options = FetchOptions { mirror: Some(server.url.clone()), retry: impatient() };
    let error = fetch_info(&INVENTED, dir.path(), &options, &mut |_| ()).expect_err("a line too many").to_string();
    assert!(error.contains("expected 2 lines, found 3 lines"), "{error}");
    assert!(!dir.path().join("hdfs").exists());
    assert!(dir.path().join("downloads/hdfs/00-logs.zip").is_file(), "what was checked is kept for the next run");
}
