//! Raw container logs of MapReduce applications, each labelled with the fault that was injected into it, if any.
//!
//! Data: Lin, Zhang, Lou, Zhang, Chen: "Log Clustering Based Problem Identification for Online Service Systems" (ICSE
//! 2016), as Loghub publishes it: a folder an application (`application_...`) with a log a container, and
//! `abnormal_label.txt`, a list of applications under headings of workload (`### WordCount`) and of fault (`Machine down:`).
//! The label is the application's: which of its containers the fault reached is not known. Blank lines are left out,
//! and so is a log without any line that begins with a time.
//!
//! Cost: one pass; all lines are kept, as text. Fails on an application that the list does not have.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::{
    error::DatasetError,
    lines::{self, Flow},
    scan::files_under,
};

/// The applications, in order of their begin.
#[derive(Clone, Debug, Default)]
pub struct HadoopLogs {
    /// The applications.
    pub applications: Vec<Application>,
}

/// One run of a job.
#[derive(Clone, Debug)]
pub struct Application {
    /// `application_...`.
    pub id: String,
    /// What ran, such as `WordCount`; empty where the list does not say.
    pub workload: String,
    /// What was injected; none in a normal application.
    pub fault: Option<String>,
    /// First time in any of its logs as it is written there, `2015-10-17 15:37:56,547`, so that text order is time order.
    pub begin: String,
    /// Last time in any of its logs.
    pub end: String,
    /// Its containers, in order of id: the application master first, then tasks in the order they were given out.
    pub containers: Vec<Container>,
}

/// One container of an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Name of its log without the extension.
    pub id: String,
    /// Its lines, in file order.
    pub lines: Vec<String>,
}

/// What the list says of an application.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Label {
    workload: String,
    fault: Option<String>,
}

impl HadoopLogs {
    /// Reads every application under `data`.
    ///
    /// # Errors
    /// When there is no list or more than one, no application, one that the list does not have, or a file cannot be read.
    pub fn load(data: &Path) -> Result<Self, DatasetError> {
        let files = files_under(data)?;
        let is_list = |path: &&PathBuf| path.file_name().is_some_and(|name| name == "abnormal_label.txt");
        let lists: Vec<&PathBuf> = files.iter().filter(is_list).collect();
        let labels = match lists.as_slice() {
            [one] => read_labels(one)?,
            [] => return Err(DatasetError::layout(data, "no abnormal_label.txt in it")),
            _ => return Err(DatasetError::layout(data, "several abnormal_label.txt in it; pass the folder of one")),
        };
        let mut all: BTreeMap<String, Application> = BTreeMap::new();
        for path in &files {
            let Some(id) = application_of(path) else { continue };
            let Some(label) = labels.get(&id) else {
                return Err(DatasetError::layout(data, format!("{id} is not in abnormal_label.txt")));
            };
            let Some((container, begin, end)) = read_container(path)? else { continue };
            let application = all.entry(id.clone()).or_insert_with(|| Application {
                id,
                workload: label.workload.clone(),
                fault: label.fault.clone(),
                begin: begin.clone(),
                end: end.clone(),
                containers: Vec::new(),
            });
            if begin < application.begin {
                application.begin = begin;
            }
            if end > application.end {
                application.end = end;
            }
            application.containers.push(container);
        }
        if all.is_empty() {
            return Err(DatasetError::layout(data, "no folder application_... with container logs in it"));
        }
        let mut applications: Vec<Application> = all.into_values().collect();
        applications.sort_by(|a, b| (&a.begin, &a.id).cmp(&(&b.begin, &b.id)));
        Ok(Self { applications })
    }
}

/// The application whose folder a log lies in.
fn application_of(path: &Path) -> Option<String> {
    path.extension().filter(|extension| *extension == "log")?;
    let folder = path.parent()?.file_name()?.to_string_lossy();
    folder.starts_with("application_").then(|| folder.into_owned())
}

fn read_labels(path: &Path) -> Result<BTreeMap<String, Label>, DatasetError> {
    let mut labels = BTreeMap::new();
    let mut workload = String::new();
    let mut heading: Option<String> = None;
    lines::for_each(path, |number, line| {
        let line = String::from_utf8_lossy(line);
        let line = line.trim();
        if let Some(name) = line.strip_prefix("###") {
            name.trim().clone_into(&mut workload);
            heading = None;
        } else if let Some(id) = line.strip_prefix('+') {
            let Some(heading) = &heading else {
                return Err(DatasetError::record(path, number, "an application above the first heading"));
            };
            let fault = (!heading.eq_ignore_ascii_case("normal")).then(|| heading.clone());
            labels.insert(id.trim().to_owned(), Label { workload: workload.clone(), fault });
        } else if let Some(name) = line.strip_suffix(':') {
            heading = Some(name.to_owned());
        }
        Ok(Flow::On)
    })?;
    Ok(labels)
}

/// A container with its first and its last time; none without any.
fn read_container(path: &Path) -> Result<Option<(Container, String, String)>, DatasetError> {
    let mut lines = Vec::new();
    let mut span: Option<(String, String)> = None;
    lines::for_each(path, |_, line| {
        let line = String::from_utf8_lossy(line);
        if line.trim().is_empty() {
            return Ok(Flow::On);
        }
        if let Some(time) = time_of(&line) {
            let (begin, end) = span.get_or_insert_with(|| (time.to_owned(), time.to_owned()));
            if time < begin.as_str() {
                time.clone_into(begin);
            }
            if time > end.as_str() {
                time.clone_into(end);
            }
        }
        lines.push(line.into_owned());
        Ok(Flow::On)
    })?;
    let id = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(span.map(|(begin, end)| (Container { id, lines }, begin, end)))
}

/// The time at the begin of a line: `2015-10-17 15:37:56,547`.
fn time_of(line: &str) -> Option<&str> {
    const SHAPE: &[u8] = b"0000-00-00 00:00:00,000";
    let time = line.get(..SHAPE.len())?;
    let fits = |(byte, shape): (u8, &u8)| if *shape == b'0' { byte.is_ascii_digit() } else { byte == *shape };
    time.bytes().zip(SHAPE).all(fits).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const LIST: &str = "Two jobs.\n\n### WordCount\nNormal:\n+ application_1_0002\n\nMachine down:\n+ application_1_0001\n\
                        ### PageRank\nDisk full:\n+ application_1_0009\n";

    fn line(time: &str) -> String {
        format!("2015-10-17 {time},547 INFO [main] org.apache.hadoop.Foo: up\n")
    }

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("created");
            fs::write(path, text).expect("written");
        }
        dir
    }

    #[test]
    fn applications_come_in_order_of_time_with_workload_fault_and_containers() {
        let trace = line("15:00:02") + "\n\tat java.Foo(Foo.java:1)\n" + &line("14:00:00");
        let dir = folder(&[
            ("raw/abnormal_label.txt", LIST),
            ("raw/application_1_0001/container_1_0001_01_000002.log", &line("16:00:00")),
            ("raw/application_1_0001/container_1_0001_01_000001.log", &line("15:59:59")),
            ("raw/application_1_0001/container_1_0001_01_000003.log", "no time\n"),
            ("raw/application_1_0002/container_1_0002_01_000001.log", &trace),
        ]);
        let logs = HadoopLogs::load(dir.path()).expect("loads");
        let [first, second] = logs.applications.as_slice() else { panic!("two: {logs:?}") };
        assert_eq!(
            (first.id.as_str(), first.workload.as_str(), &first.fault),
            ("application_1_0002", "WordCount", &None)
        );
        assert_eq!((first.begin.as_str(), first.end.as_str()), ("2015-10-17 14:00:00,547", "2015-10-17 15:00:02,547"));
        assert_eq!(first.containers[0].lines.len(), 3, "the blank line is left out");
        assert_eq!(second.fault.as_deref(), Some("Machine down"));
        assert_eq!(
            (second.begin.as_str(), second.end.as_str()),
            ("2015-10-17 15:59:59,547", "2015-10-17 16:00:00,547")
        );
        let ids: Vec<&str> = second.containers.iter().map(|container| container.id.as_str()).collect();
        assert_eq!(
            ids,
            ["container_1_0001_01_000001", "container_1_0001_01_000002"],
            "the one without a time is left out"
        );
    }

    #[test]
    fn an_application_without_a_label_is_named() {
        let dir = folder(&[("abnormal_label.txt", LIST), ("application_7/c.log", &line("15:00:00"))]);
        let error = HadoopLogs::load(dir.path()).expect_err("no label").to_string();
        assert!(error.contains("application_7 is not in"), "{error}");
        let dir = folder(&[("abnormal_label.txt", "+ application_7\n"), ("application_7/c.log", "")]);
        let error = HadoopLogs::load(dir.path()).expect_err("no heading").to_string();
        assert!(error.contains("abnormal_label.txt:1:"), "{error}");
    }

    #[test]
    fn times_are_told_by_their_shape() {
        assert_eq!(time_of("2015-10-17 15:37:56,547 INFO x"), Some("2015-10-17 15:37:56,547"));
        for line in ["", "\tat java", "2015-10-17 15:37:56.547 INFO", "2015-10-1715:37:56,547  INFO"] {
            assert_eq!(time_of(line), None, "{line}");
        }
    }
}
