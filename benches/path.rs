//! Lines per second of the whole path, from a file to alerts, with every detector on: `cargo bench --bench path`.
//!
//! Runs the program as a user does: `fit` on a log, `replay` of a log with those models. Prints lines per second by the
//! clock, CPU seconds of each station's thread, which other work on the machine distorts less, and the largest resident
//! memory of either run. The logs are made here, in the form of HDFS; `-- FILE` takes a log of HDFS instead, for both.
//! Threads and memory are told by Linux only.

#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

/// Blocks of the log to fit on, and of the log to replay; twenty lines or so each.
const FIT_BLOCKS: u64 = 10_000;
const REPLAY_BLOCKS: u64 = 50_000;
/// Blocks that are written at a time.
const AT_A_TIME: usize = 64;
/// How often threads and memory are looked at.
const LOOK: Duration = Duration::from_millis(20);

fn main() {
    let program =
        env::var_os("FAULTLINE_BIN").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_faultline")), Into::into);
    let dir = tempfile::tempdir().expect("a directory for logs and models");
    // Cargo adds flags of its own.
    let given = env::args_os().skip(1).map(PathBuf::from).find(|argument| argument.is_file());
    let (fit_log, replay_log) = match given {
        Some(file) => (file.clone(), file),
        None => (dir.path().join("fit.log"), dir.path().join("replay.log")),
    };
    if !fit_log.exists() {
        make_log(&fit_log, FIT_BLOCKS, 1);
        make_log(&replay_log, REPLAY_BLOCKS, 2);
    }
    let models = dir.path().join("models.json");
    let fit = watch(Command::new(&program).arg("fit").arg(&fit_log).args(["--preset", "hdfs", "--out"]).arg(&models));
    println!("fit     {:6.1} s, {:4.0} MiB", fit.elapsed.as_secs_f64(), fit.peak_mib);
    for _ in 0..3 {
        let mut replay = Command::new(&program);
        replay.arg("replay").arg(&replay_log).args(["--preset", "hdfs", "--json", "--models"]).arg(&models);
        let run = watch(&mut replay);
        let totals: Value = run.output.lines().last().and_then(|line| serde_json::from_str(line).ok()).expect("totals");
        let n_lines = totals["n_lines"].as_f64().unwrap_or_default();
        let cpu: f64 = run.threads.values().sum();
        println!(
            "replay  {:6.1} s, {:4.0} MiB, {n_lines} lines, {:.0} lines/s, {} alerts; {cpu:.2} CPU s, {:.2} µs a line:",
            run.elapsed.as_secs_f64(),
            run.peak_mib,
            totals["lines_per_second"].as_f64().unwrap_or_default(),
            totals["n_alerts"],
            cpu * 1e6 / n_lines
        );
        for (thread, seconds) in run.threads.iter().filter(|(_, seconds)| **seconds > 0.005) {
            println!("        {seconds:6.2} s {thread}");
        }
    }
}

/// What one run of the program took.
struct Run {
    output: String,
    elapsed: Duration,
    /// CPU seconds by the thread's name, which Linux cuts to fifteen letters.
    threads: BTreeMap<String, f64>,
    peak_mib: f64,
}

fn watch(command: &mut Command) -> Run {
    let began = Instant::now();
    let mut child = command.stdout(Stdio::piped()).spawn().expect("the program starts");
    let mut stdout = child.stdout.take().expect("a pipe");
    let reader = std::thread::spawn(move || std::io::read_to_string(&mut stdout).expect("text"));
    let (mut threads, mut peak_mib) = (BTreeMap::new(), 0.0);
    let status = loop {
        look(&child, &mut threads, &mut peak_mib);
        match child.try_wait().expect("a child") {
            Some(status) => break status,
            None => std::thread::sleep(LOOK),
        }
    };
    assert!(status.success(), "{command:?}: {status}");
    let mut by_name = BTreeMap::new();
    for ((_, name), seconds) in threads {
        *by_name.entry(name).or_default() += seconds;
    }
    let output = reader.join().expect("the reader ends with the program");
    Run { output, elapsed: began.elapsed(), threads: by_name, peak_mib }
}

/// Takes note of the CPU time of every thread so far and of the largest memory so far. A thread that has ended keeps
/// what it had at the last look.
fn look(child: &Child, threads: &mut BTreeMap<(String, String), f64>, peak_mib: &mut f64) {
    let process = PathBuf::from(format!("/proc/{}", child.id()));
    let text = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
    let status = text(process.join("status"));
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
    *peak_mib = peak.map_or(*peak_mib, |kib: f64| peak_mib.max(kib / 1024.0));
    for task in fs::read_dir(process.join("task")).into_iter().flatten().flatten() {
        let name = text(task.path().join("comm"));
        let nanos: Option<f64> =
            text(task.path().join("schedstat")).split(' ').next().and_then(|nanos| nanos.parse().ok());
        if let Some(nanos) = nanos.filter(|_| !name.is_empty()) {
            let id = task.file_name().to_string_lossy().into_owned();
            threads.insert((id, name.trim().to_owned()), nanos / 1e9);
        }
    }
}

/// The life of a block, as HDFS logs it; `{b}` is the block, `{a}` to `{c}` are addresses.
const LIFE: [&str; 21] = [
    "INFO dfs.FSNamesystem: BLOCK* NameSystem.allocateBlock: /user/root/rand/_temporary/part-{n}. {b}",
    "INFO dfs.DataNode$DataXceiver: Receiving block {b} src: /{a}:50123 dest: /{a}:50010",
    "INFO dfs.DataNode$DataXceiver: Receiving block {b} src: /{a}:41234 dest: /{b2}:50010",
    "INFO dfs.DataNode$DataXceiver: Receiving block {b} src: /{b2}:39876 dest: /{c}:50010",
    "INFO dfs.DataNode$PacketResponder: PacketResponder 2 for block {b} terminating",
    "INFO dfs.DataNode$PacketResponder: Received block {b} of size 67108864 from /{a}",
    "INFO dfs.FSNamesystem: BLOCK* NameSystem.addStoredBlock: blockMap updated: {c}:50010 is added to {b} size 67108864",
    "INFO dfs.DataNode$PacketResponder: PacketResponder 1 for block {b} terminating",
    "INFO dfs.DataNode$PacketResponder: Received block {b} of size 67108864 from /{b2}",
    "INFO dfs.FSNamesystem: BLOCK* NameSystem.addStoredBlock: blockMap updated: {b2}:50010 is added to {b} size 67108864",
    "INFO dfs.DataNode$PacketResponder: PacketResponder 0 for block {b} terminating",
    "INFO dfs.DataNode$PacketResponder: Received block {b} of size 67108864 from /{c}",
    "INFO dfs.FSNamesystem: BLOCK* NameSystem.addStoredBlock: blockMap updated: {a}:50010 is added to {b} size 67108864",
    "INFO dfs.DataBlockScanner: Verification succeeded for {b}",
    "INFO dfs.DataNode$DataXceiver: {a}:50010 Served block {b} to /{c}",
    "INFO dfs.FSNamesystem: BLOCK* NameSystem.delete: {b} is added to invalidSet of {a}:50010",
    "INFO dfs.FSNamesystem: BLOCK* NameSystem.delete: {b} is added to invalidSet of {b2}:50010",
    "INFO dfs.FSNamesystem: BLOCK* NameSystem.delete: {b} is added to invalidSet of {c}:50010",
    "INFO dfs.FSDataset: Deleting block {b} file /mnt/hadoop/dfs/data/current/subdir1/{b}",
    "INFO dfs.FSDataset: Deleting block {b} file /mnt/hadoop/dfs/data/current/subdir2/{b}",
    "INFO dfs.FSDataset: Deleting block {b} file /mnt/hadoop/dfs/data/current/subdir3/{b}",
];
const FAILURE: &str = "WARN dfs.DataNode$DataXceiver: {a}:50010:Got exception while serving {b} to /{c}:";

/// Writes a log of `n_blocks` blocks, of which one in fifty fails and one in fifty loses a line.
fn make_log(path: &Path, n_blocks: u64, seed: u64) {
    let mut log = BufWriter::new(File::create(path).expect("a log"));
    let mut random = seed;
    let mut next = move |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let (mut begun, mut n_lines) = (0, 0_u64);
    // Number, next line, and what is odd about it.
    let mut open: Vec<(u64, usize, u64)> = Vec::new();
    while begun < n_blocks || !open.is_empty() {
        if open.len() < AT_A_TIME && begun < n_blocks {
            open.push((begun, 0, next(100)));
            begun += 1;
            continue;
        }
        let chosen = next(open.len() as u64) as usize;
        let (block, line, oddity) = open[chosen];
        let text = if line == 14 && oddity < 2 { FAILURE } else { LIFE[line] };
        if line + 1 == LIFE.len() {
            open.swap_remove(chosen);
        } else {
            open[chosen].1 += 1 + usize::from(line == 3 && (2..4).contains(&oddity));
        }
        // Twenty lines a second, as in a busy cluster; a month has 28 days here.
        let second = n_lines / 20;
        let (day, of_day) = (second / 86_400, second % 86_400);
        let name = format!("blk_{}", (block ^ seed << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 1);
        let address = |of: u64| format!("10.250.{}.{}", (block + of) % 16, (block * 7 + of * 31) % 250);
        let text = text
            .replace("{b2}", &address(1))
            .replace("{b}", &name)
            .replace("{a}", &address(0))
            .replace("{c}", &address(2))
            .replace("{n}", &block.to_string());
        let time = format!("{:02}{:02}{:02}", of_day / 3600, of_day / 60 % 60, of_day % 60);
        writeln!(log, "08{:02}{:02} {time} {} {text}", 1 + day / 28, 1 + day % 28, 20 + block % 200).expect("written");
        n_lines += 1;
    }
    log.flush().expect("written");
}
