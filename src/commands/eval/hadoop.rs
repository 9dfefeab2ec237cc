//! `hadoop`: raw container logs through our parser, one session a container, fitted on the normal applications that come first
//! and judged on those that begin after them.
//!
//! **Split.** The training part is the shortest run of first normal applications that has every workload in it; an
//! application without a fault is normal by the label file, and that is all that is used of the labels. What began before
//! the last of them ended is left out, the rest is judged. Where the training part comes separately (`--train-data`), it is
//! all normal applications there, and all of `--data` is judged. Every third container of a training application fixes the
//! threshold: its master, its mappers and its reducers come one after another, so a cut in time would keep whole kinds of
//! container from the fit.
//!
//! **Truth** is the application's. Most containers of an application with a fault see little of it, and there are rows for both:
//! `containers`, each with the label of its application, as published figures have it; and `applications`, of which one is
//! flagged when any of its containers is and scores as its worst. Most are abnormal, so that flagging everything
//! looks good: balanced accuracy and AUPRC decide.

use std::collections::BTreeSet;

use faultline_core::{LogBatchBuilder, LogEntry, LogRecord, Parser, TemplateId};
use faultline_datasets::{
    ResultRow,
    loaders::hadoop::{Application, Container, HadoopLogs},
};
use faultline_parsers::{LogParser, ParserConfig};

use super::{
    Args,
    sessions::{FLAG_ALL, Judged, Sessions, Training, flag_all, is_wanted, judge_all, row},
};

const PROTOCOL: &str = "hadoop";

/// One of so many containers of a training application fixes the threshold.
const HELD_OUT: usize = 3;

/// Runs the protocol.
pub fn hadoop(args: &Args, report: &mut dyn FnMut(ResultRow)) -> anyhow::Result<()> {
    let files = super::locate(args, "hadoop")?;
    let data = HadoopLogs::load(&files.data)?;
    let separate = files.train.as_deref().map(HadoopLogs::load).transpose()?;
    let (train, test) = parts(&data.applications, separate.as_ref().map(|logs| logs.applications.as_slice()));
    anyhow::ensure!(
        !train.is_empty() && !test.is_empty(),
        "{}: no normal application to fit on, or none that begins after those",
        files.data.display()
    );
    let mut reader = Reader::new()?;
    let training = reader.training(&train);
    let (mut sessions, mut application_of) = (Vec::new(), Vec::new());
    for (idx, application) in test.iter().enumerate() {
        for container in &application.containers {
            sessions.push(reader.read(container));
            application_of.push(idx);
        }
    }
    let sessions = Sessions::of_records(sessions, PROTOCOL);
    let truth: Vec<bool> = test.iter().map(|application| application.fault.is_some()).collect();
    let n_train = training.sessions.len();
    let mut tell = |verdict: &Judged| {
        for row in rows(verdict, &application_of, &truth) {
            report(row.with_extra("n_train", n_train).with_extra("n_train_applications", train.len()));
        }
    };
    judge_all(args, &training, &sessions, &mut tell)?;
    if is_wanted(args, FLAG_ALL) {
        tell(&flag_all(sessions.len()));
    }
    Ok(())
}

/// The applications to fit on, all normal, and those to judge. See the file's documentation.
fn parts<'a>(
    all: &'a [Application],
    separate: Option<&'a [Application]>,
) -> (Vec<&'a Application>, Vec<&'a Application>) {
    let is_normal = |application: &&Application| application.fault.is_none();
    if let Some(separate) = separate {
        return (separate.iter().filter(is_normal).collect(), all.iter().collect());
    }
    let mut train: Vec<&Application> = all.iter().filter(is_normal).collect();
    let workloads: BTreeSet<&str> = train.iter().map(|application| application.workload.as_str()).collect();
    let mut met = BTreeSet::new();
    let last = train.iter().position(|application| {
        met.insert(application.workload.as_str());
        met == workloads
    });
    train.truncate(last.map_or(0, |last| last + 1));
    let end = train.iter().map(|application| application.end.as_str()).max().unwrap_or_default();
    let test = all.iter().filter(|application| application.begin.as_str() > end).collect();
    (train, test)
}

/// Turns containers into sessions. Templates are learned line by line, in the order in which containers are read.
struct Reader {
    parser: LogParser,
    n_records: u64,
}

impl Reader {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { parser: LogParser::new(ParserConfig::preset("hadoop")?)?, n_records: 0 })
    }

    fn training(&mut self, applications: &[&Application]) -> Training {
        let (mut fit, mut held_out) = (Vec::new(), Vec::new());
        for application in applications {
            for (idx, container) in application.containers.iter().enumerate() {
                let part = if idx % HELD_OUT == HELD_OUT - 1 { &mut held_out } else { &mut fit };
                part.push(self.read(container));
            }
        }
        let cut = fit.len();
        fit.append(&mut held_out);
        Training {
            sessions: Sessions::of_records(fit, PROTOCOL),
            cut,
            rule: "calibrated on every third container of the training part",
        }
    }

    /// The records of a container in order of time. A line without a header, such as one of a stack trace, has the time of
    /// the line before it.
    fn read(&mut self, container: &Container) -> Vec<LogEntry> {
        let mut builder = LogBatchBuilder::default();
        for line in &container.lines {
            builder.push(&LogRecord { body: line, service_name: PROTOCOL, ..LogRecord::default() });
        }
        let parsed = self.parser.parse(builder.finish());
        let mut entries = Vec::with_capacity(parsed.len());
        let mut time_unix_nano = 0;
        let templates_and_times = parsed.template_id().iter().zip(parsed.time_unix_nano().iter());
        for ((template, time), severity) in templates_and_times.zip(parsed.severity_number().iter()) {
            time_unix_nano = time.filter(|time| *time > 0).unwrap_or(time_unix_nano);
            self.n_records += 1;
            entries.push(LogEntry {
                template: TemplateId(template.unwrap_or(0)),
                time_unix_nano,
                record: self.n_records,
                service: 0,
                severity_number: severity.and_then(|number| u8::try_from(number).ok()).unwrap_or(0),
                is_since_deploy: false,
            });
        }
        entries.sort_by_key(|entry| entry.time_unix_nano);
        entries
    }
}

/// The row of all containers and the row of all applications. `application_of` says whose a container is, `truth` which
/// applications are abnormal.
fn rows(verdict: &Judged, application_of: &[usize], truth: &[bool]) -> [ResultRow; 2] {
    let of_containers: Vec<bool> = application_of.iter().map(|&idx| truth[idx]).collect();
    let mut whole = Judged {
        scores: vec![f64::NEG_INFINITY; truth.len()],
        flagged: vec![false; truth.len()],
        flagged_by: Vec::new(),
        ..verdict.clone()
    };
    for (container, &idx) in application_of.iter().enumerate() {
        whole.scores[idx] = whole.scores[idx].max(verdict.scores[container]);
        whole.flagged[idx] |= verdict.flagged[container];
    }
    [row(PROTOCOL, "containers", verdict, &of_containers), row(PROTOCOL, "applications", &whole, truth)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn application(id: &str, workload: &str, fault: Option<&str>, begin: &str, end: &str) -> Application {
        Application {
            id: id.to_owned(),
            workload: workload.to_owned(),
            fault: fault.map(str::to_owned),
            begin: begin.to_owned(),
            end: end.to_owned(),
            containers: Vec::new(),
        }
    }

    fn ids<'a>(applications: &[&'a Application]) -> Vec<&'a str> {
        applications.iter().map(|application| application.id.as_str()).collect()
    }

    #[test]
    fn training_is_normal_has_every_workload_and_ends_before_the_test_begins() {
        let all = [
            application("a", "PageRank", None, "10:00", "10:05"),
            application("b", "PageRank", Some("Machine down"), "10:01", "10:09"),
            application("c", "PageRank", None, "10:10", "10:15"),
            application("d", "WordCount", None, "10:20", "10:30"),
            application("e", "WordCount", Some("Disk full"), "10:29", "10:50"),
            application("f", "WordCount", Some("Disk full"), "10:31", "10:40"),
            application("g", "PageRank", None, "10:32", "10:33"),
        ];
        let (train, test) = parts(&all, None);
        assert_eq!(ids(&train), ["a", "c", "d"]);
        assert_eq!(ids(&test), ["f", "g"]);
        let (train, test) = parts(&all[4..], Some(&all[..4]));
        assert_eq!(ids(&train), ["a", "c", "d"]);
        assert_eq!(ids(&test), ["e", "f", "g"]);
        assert!(parts(&all[4..6], None).0.is_empty());
    }

    #[test]
    fn lines_become_timed_records_and_a_stack_trace_has_the_time_of_its_line() {
        let line = |time: &str, level: &str, n: u32| {
            format!("2015-10-17 15:37:{time} {level} [main] org.apache.Foo: task {n} is up")
        };
        let trace = "\tat org.apache.Foo.run(Foo.java:7)".to_owned();
        let lines = vec![line("56,500", "INFO", 7), trace, line("57,000", "ERROR", 12)];
        let container = Container { id: "c".to_owned(), lines };
        let mut reader = Reader::new().expect("a preset");
        let records = reader.read(&container);
        assert_eq!(records.len(), 3);
        assert_eq!(records[0].time_unix_nano, records[1].time_unix_nano);
        assert_eq!(records[2].time_unix_nano - records[0].time_unix_nano, 500_000_000);
        assert_eq!(records[0].template, records[2].template, "numbers are masked");
        assert_ne!(records[0].template, records[1].template);
        assert!(records[2].severity_number > records[0].severity_number);
        assert_eq!(reader.read(&container)[0].record, 4, "numbers go on");
    }

    #[test]
    fn every_third_container_of_each_application_fixes_the_threshold() {
        let container = |n: usize| Container {
            id: n.to_string(),
            lines: vec![format!("2015-10-17 15:37:{:02},000 INFO [main] org.apache.Foo: up", n % 60); n],
        };
        let mut one = application("a", "PageRank", None, "", "");
        one.containers = (1..=5).map(container).collect();
        let training = Reader::new().expect("a preset").training(&[&one, &one]);
        assert_eq!((training.sessions.len(), training.cut), (10, 8));
        assert_eq!(training.sessions.n_records_of(8..10), 6, "the third of each, with three lines");
    }

    #[test]
    fn an_application_is_flagged_with_any_of_its_containers() {
        let verdict = Judged {
            flagged_by: Vec::new(),
            name: "test".to_owned(),
            seed: None,
            scores: vec![0.0, 3.0, 1.0, 2.0],
            flagged: vec![false, true, false, false],
            threshold: 2.5,
            rule: "",
            records_per_second: 1.0,
            cpu_seconds: None,
        };
        let [containers, applications] = rows(&verdict, &[0, 0, 1, 2], &[true, false, true]);
        assert_eq!((containers.n, containers.recall), (4, Some(1.0 / 3.0)));
        assert_eq!((applications.n, applications.precision, applications.recall), (3, Some(1.0), Some(0.5)));
        assert_eq!(applications.auprc, Some(1.0), "3 and 2 are above 1");
        assert_eq!(applications.extra["balanced_accuracy"], 0.75);
    }
}
