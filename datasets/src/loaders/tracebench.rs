//! HDFS v3 TraceBench: traces of a cluster with injected faults, as sessions of timed records with ground truth.
//!
//! Data: Zhou, Chen, Wang, Zheng, Lyu: "TraceBench: An Open Data Set for Trace-Oriented Monitoring" (CloudCom 2014), as
//! Loghub publishes it: a folder a collection, in each `trace.csv`, `event.csv` and `edge.csv`. An event is a call with
//! its begin and its end and what came of it; here it is two log records, `<call> begins` and `<call> ends`, the latter
//! `<call> fails: <exception>` where the call says so. Case is levelled: some data nodes of the later collections write
//! `SUCCESS` for `Success`, which is another build and no fault.
//!
//! **Time.** Events carry the monotonic clock of their host, and every host has its own zero. Times on one host are
//! compared as they are. Between hosts, each thread is placed by the call that caused it (`edge.csv`): in the middle of
//! that call where it fits in, as Cristian's algorithm would, else at its begin. So a delay on the network is split evenly
//! between request and answer, and nothing is learned from the difference of two clocks.
//!
//! **Ground truth** is on each trace, and comes from the experiment and not from any detector:
//! - all nodes slowed: every trace of the collection is touched;
//! - *k* data nodes slowed: the *k* data nodes whose quickest connection is slowest are taken for the slowed ones (*k* is in
//!   the collection's name; the floors are bimodal, so that this is a count and not a threshold); a trace is touched when
//!   one of them wrote an event of it;
//! - data nodes killed, suspended, cut off, panicked, dead or read-only: a trace is touched when a call in it reports a
//!   failure. The others ran on healthy nodes only;
//! - the real bug: the trace whose command names the directory that triggers it.
//!
//! Cost: one pass a file, 16 bytes a record. Fails on a collection without its three files, naming the one that lacks.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
};

use crate::{
    error::DatasetError,
    lines::{self, Flow},
    scan::files_under,
    times::unix_nanos,
};

/// All collections, in order of their start.
#[derive(Clone, Debug, Default)]
pub struct TraceBench {
    /// What a template number says.
    pub templates: Vec<String>,
    /// Which part of the system a service number stands for.
    pub services: Vec<String>,
    /// The collections.
    pub collections: Vec<Collection>,
}

/// One run of a workload.
#[derive(Clone, Debug)]
pub struct Collection {
    /// Name of its folder.
    pub name: String,
    /// What was injected; none in a normal collection.
    pub fault: Option<Fault>,
    /// Its traces, in order of their start.
    pub traces: Vec<Trace>,
}

/// A fault as the collection's name has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Kind and workload, such as `slowDN_w`.
    pub kind: String,
    /// Milliseconds by which every packet is delayed, for faults that delay.
    pub delay_ms: Option<u32>,
    /// Data nodes it was injected into, of fifty; none where it was injected into all nodes.
    pub n_nodes: Option<u32>,
}

impl Fault {
    /// The fault in a collection's name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        let parts: Vec<&str> = name.split('_').collect();
        let number = |suffix: &str| parts.iter().find_map(|part| part.strip_suffix(suffix)?.parse::<u32>().ok());
        match parts.as_slice() {
            ["AN", _, kind, workload, ..] => {
                let kind = format!("{kind}_{workload}");
                Some(Self { kind, delay_ms: number("ms"), n_nodes: number("FDN") })
            }
            ["COM", _, kind, workload, ..] => {
                Some(Self { kind: format!("{}_{workload}", kind.to_lowercase()), delay_ms: None, n_nodes: None })
            }
            _ => None,
        }
    }

    /// Whether anything was injected: some collections are the zero of their series.
    #[must_use]
    pub fn is_injected(&self) -> bool {
        self.delay_ms != Some(0) && self.n_nodes != Some(0)
    }

    /// What varies within a kind: the number of nodes, else the delay, else nothing.
    #[must_use]
    pub fn level(&self) -> u32 {
        self.n_nodes.or(self.delay_ms).unwrap_or(1)
    }
}

/// One user request.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// Its id.
    pub id: String,
    /// The command, such as `fs -copyFromLocal`.
    pub title: String,
    /// Its records in order of time.
    pub records: Vec<Record>,
    /// Whether the collection's fault touched it; see the file's documentation.
    pub is_touched: bool,
}

impl Trace {
    /// The workload it belongs to: `w` writes a file, `r` reads one, `rpc` asks the name node only.
    #[must_use]
    pub fn workload(&self) -> &'static str {
        match self.title.as_str() {
            "fs -copyFromLocal" => "w",
            "fs -copyToLocal" => "r",
            _ => "rpc",
        }
    }
}

/// The begin or the end of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Wall time of the trace's begin plus the aligned time since.
    pub time_unix_nano: i64,
    /// Index into [`TraceBench::templates`].
    pub template: u32,
    /// Index into [`TraceBench::services`].
    pub service: u32,
}

/// A row of `event.csv`.
#[derive(Debug)]
struct Event {
    thread: String,
    call: String,
    start: i64,
    end: i64,
    address: String,
    host: String,
    agent: String,
    outcome: String,
}

/// A row of `edge.csv`: which call of which thread caused a thread.
#[derive(Debug)]
struct Cause {
    thread: String,
    start: i64,
}

impl TraceBench {
    /// Reads every collection under `data`.
    ///
    /// # Errors
    /// When there is none, one lacks a file, or a row cannot be read; the error names file and line.
    pub fn load(data: &Path) -> Result<Self, DatasetError> {
        let folders: BTreeSet<PathBuf> = files_under(data)?
            .into_iter()
            .filter(|path| path.file_name().is_some_and(|name| name == "event.csv"))
            .filter_map(|path| path.parent().map(Path::to_owned))
            .collect();
        if folders.is_empty() {
            return Err(DatasetError::layout(data, "no folder with event.csv, edge.csv and trace.csv"));
        }
        let mut all = Self::default();
        let (mut templates, mut services) = (Names::default(), Names::default());
        for folder in &folders {
            all.collections.push(collection(folder, &mut templates, &mut services)?);
        }
        let start = |collection: &Collection| {
            let records = collection.traces.iter().filter_map(|trace| trace.records.first());
            records.map(|record| record.time_unix_nano).min().unwrap_or(i64::MAX)
        };
        all.collections.sort_by_cached_key(|collection| (start(collection), collection.name.clone()));
        all.templates = templates.names;
        all.services = services.names;
        Ok(all)
    }
}

/// Strings by number, in order of first use.
#[derive(Default)]
struct Names {
    names: Vec<String>,
    numbers: HashMap<String, u32>,
}

impl Names {
    fn number(&mut self, name: &str) -> u32 {
        if let Some(&number) = self.numbers.get(name) {
            return number;
        }
        let number = self.names.len() as u32;
        self.names.push(name.to_owned());
        self.numbers.insert(name.to_owned(), number);
        number
    }
}

fn collection(folder: &Path, templates: &mut Names, services: &mut Names) -> Result<Collection, DatasetError> {
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let fault = Fault::of(&name);
    let mut events: HashMap<String, Vec<Event>> = HashMap::new();
    rows(&folder.join("event.csv"), 9, |columns| {
        let time = |text: &str| text.parse::<i64>().map_err(|_| format!("`{text}` is no time"));
        events.entry(columns[0].to_owned()).or_default().push(Event {
            thread: columns[1].to_owned(),
            call: columns[2].to_owned(),
            start: time(columns[3])?,
            end: time(columns[4])?,
            address: columns[5].to_owned(),
            host: columns[6].to_owned(),
            agent: columns[7].to_owned(),
            outcome: columns[8].to_owned(),
        });
        Ok(())
    })?;
    let mut causes: HashMap<String, HashMap<String, Cause>> = HashMap::new();
    rows(&folder.join("edge.csv"), 4, |columns| {
        let start = columns[2].parse().map_err(|_| format!("`{}` is no time", columns[2]))?;
        let of_trace = causes.entry(columns[0].to_owned()).or_default();
        of_trace.entry(columns[3].to_owned()).or_insert(Cause { thread: columns[1].to_owned(), start });
        Ok(())
    })?;
    let slowed = match &fault {
        Some(Fault { delay_ms: Some(_), n_nodes: Some(n), .. }) => slowed_nodes(events.values().flatten(), *n as usize),
        _ => BTreeSet::new(),
    };
    let mut traces: Vec<(i64, Trace)> = Vec::new();
    rows(&folder.join("trace.csv"), 8, |columns| {
        let begin = unix_nanos(columns[4]).ok_or_else(|| format!("`{}` is no time of day", columns[4]))?;
        let Some(events) = events.remove(columns[0]) else { return Ok(()) };
        let no_causes = HashMap::new();
        let offsets = offsets(&events, causes.get(columns[0]).unwrap_or(&no_causes));
        let is_touched = fault.as_ref().is_some_and(|fault| fault.is_injected() && touches(fault, &slowed, &events));
        let records = records(&events, &offsets, begin, templates, services);
        traces.push((begin, Trace { id: columns[0].to_owned(), title: columns[1].to_owned(), records, is_touched }));
        Ok(())
    })?;
    traces.sort_by_key(|(begin, _)| *begin);
    Ok(Collection { name, fault, traces: traces.into_iter().map(|(_, trace)| trace).collect() })
}

/// Calls `each` with the columns of every row after the header. The last column is the rest of the line: descriptions
/// hold commas and are not quoted.
fn rows(
    path: &Path,
    n_columns: usize,
    mut each: impl FnMut(&[&str]) -> Result<(), String>,
) -> Result<(), DatasetError> {
    lines::for_each(path, |number, line| {
        let line = String::from_utf8_lossy(line);
        if number == 1 || line.is_empty() {
            return Ok(Flow::On);
        }
        let columns: Vec<&str> = line.splitn(n_columns, ',').collect();
        if columns.len() < n_columns {
            let reason = format!("{} columns, expected {n_columns}", columns.len());
            return Err(DatasetError::record(path, number, reason));
        }
        each(&columns).map_err(|reason| DatasetError::record(path, number, reason))?;
        Ok(Flow::On)
    })
}

/// Whether a call ended as it should.
fn has_succeeded(event: &Event) -> bool {
    let outcome = event.outcome.to_ascii_lowercase();
    outcome.starts_with("success") || outcome.starts_with("a user task")
}

/// Whether `fault` touched the trace of `events`.
fn touches(fault: &Fault, slowed: &BTreeSet<String>, events: &[Event]) -> bool {
    match fault {
        Fault { delay_ms: Some(_), n_nodes: None, .. } => true,
        Fault { delay_ms: Some(_), .. } => events.iter().any(|event| slowed.contains(&event.address)),
        Fault { n_nodes: Some(_), .. } => !events.iter().all(has_succeeded),
        _ => events.iter().any(|event| event.agent.contains("A_Dir_Containing")),
    }
}

/// Addresses of the `n` data nodes whose quickest connection took longest.
fn slowed_nodes<'a>(events: impl Iterator<Item = &'a Event>, n: usize) -> BTreeSet<String> {
    let mut quickest: BTreeMap<String, i64> = BTreeMap::new();
    let mut saw = |address: &str, nanos: i64| {
        let quickest = quickest.entry(address.to_owned()).or_insert(i64::MAX);
        *quickest = nanos.min(*quickest);
    };
    for event in events.filter(|event| has_succeeded(event)) {
        let nanos = event.end - event.start;
        let peer = event.outcome.split_whitespace().filter_map(|word| word.trim_start_matches('/').split(':').next());
        let Some(peer) = peer.into_iter().find(|word| word.parse::<std::net::Ipv4Addr>().is_ok()) else { continue };
        match event.call.as_str() {
            "OP: connect next Datanode" => {
                saw(&event.address, nanos);
                saw(peer, nanos);
            }
            "createBlockOutputStream" | "OP: try new BlockReader" => saw(peer, nanos),
            _ => {}
        }
    }
    let mut nodes: Vec<(i64, String)> = quickest.into_iter().map(|(node, nanos)| (nanos, node)).collect();
    nodes.sort_unstable_by(|a, b| b.cmp(a));
    nodes.into_iter().take(n).map(|(_, node)| node).collect()
}

/// What to add to a thread's times so that they count from the begin of the trace.
fn offsets<'e>(events: &'e [Event], causes: &HashMap<String, Cause>) -> HashMap<&'e str, i64> {
    struct Thread<'e> {
        host: &'e str,
        span: (i64, i64),
        calls: HashMap<i64, i64>,
    }
    let mut threads: BTreeMap<&str, Thread<'_>> = BTreeMap::new();
    for event in events {
        let thread = threads.entry(&event.thread).or_insert_with(|| Thread {
            host: &event.host,
            span: (event.start, event.end),
            calls: HashMap::new(),
        });
        thread.span = (thread.span.0.min(event.start), thread.span.1.max(event.end));
        thread.calls.insert(event.start, event.end);
    }
    let mut placed: HashMap<&str, i64> = HashMap::new();
    // The thread that nothing caused and that lasted longest is the request itself.
    let roots = threads.iter().filter(|(id, _)| !causes.contains_key(**id));
    if let Some((root, thread)) =
        roots.max_by_key(|(id, thread)| (thread.span.1 - thread.span.0, std::cmp::Reverse(*id)))
    {
        placed.insert(root, -thread.span.0);
    }
    loop {
        let mut n_new = 0;
        for (&id, thread) in &threads {
            let Some(cause) = causes.get(id).filter(|_| !placed.contains_key(id)) else { continue };
            let Some((&father_offset, father)) =
                placed.get(cause.thread.as_str()).zip(threads.get(cause.thread.as_str()))
            else {
                continue;
            };
            let offset = if father.host == thread.host {
                father_offset
            } else {
                let call_end = father.calls.get(&cause.start).copied().unwrap_or(cause.start);
                let slack = (call_end - cause.start) - (thread.span.1 - thread.span.0);
                father_offset + cause.start + slack.max(0) / 2 - thread.span.0
            };
            placed.insert(id, offset);
            n_new += 1;
        }
        if n_new == 0 {
            break;
        }
    }
    // What no edge leads to stands with its host, else at the begin.
    let by_host: HashMap<&str, i64> =
        threads.iter().filter_map(|(id, thread)| Some((thread.host, *placed.get(id)?))).collect();
    for (&id, thread) in &threads {
        placed.entry(id).or_insert_with(|| by_host.get(thread.host).copied().unwrap_or(-thread.span.0));
    }
    placed
}

/// Two records an event, in order of time.
fn records(
    events: &[Event],
    offsets: &HashMap<&str, i64>,
    begin_unix_nano: i64,
    templates: &mut Names,
    services: &mut Names,
) -> Vec<Record> {
    let mut records = Vec::with_capacity(2 * events.len());
    for event in events {
        let offset = begin_unix_nano + offsets.get(event.thread.as_str()).copied().unwrap_or(0);
        let service = services.number(&event.agent.split(':').next().unwrap_or_default().to_lowercase());
        let begins = templates.number(&format!("{} begins", event.call));
        let ends = if has_succeeded(event) {
            templates.number(&format!("{} ends", event.call))
        } else {
            templates.number(&format!("{} fails: {}", event.call, failure(&event.outcome)))
        };
        records.push((
            event.start + offset,
            0,
            Record { time_unix_nano: event.start + offset, template: begins, service },
        ));
        records.push((event.end + offset, 1, Record { time_unix_nano: event.end + offset, template: ends, service }));
    }
    records.sort_by_key(|&(time, is_end, _)| (time, is_end));
    records.into_iter().map(|(_, _, record)| record).collect()
}

/// The exception that a description names, without its package; else its first word.
fn failure(outcome: &str) -> &str {
    let words =
        || outcome.split(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '$')).filter(|w| !w.is_empty());
    let class = |word: &'_ str| word.ends_with("Exception") && word.contains('.');
    let named = words().find(|word| class(word)).or_else(|| words().next()).unwrap_or("failure");
    named.rsplit('.').next().unwrap_or(named)
}

#[cfg(test)]
mod tests;
