//! `faultline eval`: run a protocol of `faultline_datasets::PROTOCOLS` with the detectors of this binary.
//!
//! `datasets` knows the data, the splits and the metrics but no detector; the registry knows detectors but no labels.
//! They meet here: a detector is fitted on the training part, its threshold is fixed, and only then is the test part
//! scored and the labels looked at.

mod chronological;
mod figures;
mod hadoop;
mod lines;
mod machines;
mod nab;
mod nezha;
mod nezha_supervised;
mod openstack;
mod parsing;
mod points;
mod raw;
mod report;
mod series;
mod sessions;
mod traceanomaly;
mod tracebench;
mod trivial;
mod verdicts;
mod windows;

use std::path::PathBuf;

use faultline_datasets::{
    Locator,
    protocol::{PROTOCOLS, ProtocolInfo, protocol},
    report::{ResultRow, table},
};

use crate::{
    commands::{ConfigArgs, datasets::Bar},
    exit::{self, Exit},
    out::outln,
};

/// Arguments of `faultline eval`.
#[derive(clap::Args)]
pub struct Args {
    /// Protocol, such as `hdfs-deeplog`; `--list` shows them.
    #[arg(required_unless_present_any = ["list", "render"])]
    protocol: Option<String>,
    /// Only these detectors. Repeatable.
    #[arg(long, value_name = "NAME")]
    pub detector: Vec<String>,
    /// The data, in the layout of the catalogue: a folder or a .tar.zst. Default: FAULTLINE_DATA, ../shared/data, the cache.
    #[arg(long, value_name = "PATH")]
    pub data: Option<PathBuf>,
    /// The training part, where it comes separately.
    #[arg(long, value_name = "PATH")]
    pub train_data: Option<PathBuf>,
    /// One JSON object a row on stdout, nothing else.
    #[arg(long)]
    json: bool,
    /// Show every protocol and what it needs.
    #[arg(long)]
    list: bool,
    /// Run nothing; print the rows that `--json` has written to these files as Markdown.
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["protocol", "list", "json"])]
    render: Vec<PathBuf>,
    /// Seeds for detectors with randomness in them.
    #[arg(long, value_delimiter = ',', default_value = "1,2,3")]
    pub seeds: Vec<u64>,
    #[command(flatten)]
    pub config: ConfigArgs,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    if args.list {
        list();
        return Ok(());
    }
    if !args.render.is_empty() {
        print!("{}", report::render(&args.render)?);
        return Ok(());
    }
    let info = known(args.protocol.as_deref().unwrap_or_default())?;
    for name in &args.detector {
        let is_baseline = trivial::is_known(name)
            || name.contains('|')
            || traceanomaly::has_method(name)
            || nezha::has_method(name)
            || nezha_supervised::has_method(name);
        if name != "default" && !is_baseline {
            faultline_detectors::entry(name)?;
        }
    }
    let mut rows = Vec::new();
    let mut push = |row: ResultRow| {
        if args.json {
            outln!("{}", row.to_json());
        }
        rows.push(row);
    };
    match info.name {
        "hdfs-deeplog" => sessions::hdfs_deeplog(args, &mut push)?,
        "hdfs-chrono" => chronological::hdfs_chrono(args, &mut push)?,
        "hdfs-raw" => raw::hdfs_raw(args, &mut push)?,
        "bgl-windows" => windows::bgl_windows(args, &mut push)?,
        "bgl-lines" => lines::bgl_lines(args, &mut push)?,
        "hadoop" => hadoop::hadoop(args, &mut push)?,
        "openstack" => openstack::openstack(args, &mut push)?,
        "loghub-2k" => parsing::loghub_2k(args, &mut push)?,
        "tracebench" => tracebench::tracebench(args, &mut push)?,
        "aiops" | "wsd" | "donut" => series::series(args, info, &mut push)?,
        "smd" | "asd" => machines::machines(args, info, &mut push)?,
        "nab" => nab::nab(args, info, &mut push)?,
        "traceanomaly" => traceanomaly::traceanomaly(args, info, &mut push)?,
        "nezha" => nezha::nezha(args, info, &mut push)?,
        "nezha-supervised" | "nezha-ob-supervised" => nezha_supervised::nezha_supervised(args, info, &mut push)?,
        other => {
            let message = format!(
                "protocol {other} is planned but not part of this version; `faultline eval --list` shows which are"
            );
            return Err(Exit::new(exit::UNAVAILABLE, message).into());
        }
    }
    if !args.json {
        outln!("{}: {}\n", info.name, info.summary);
        print!("{}", table(&rows, info.published));
    }
    Ok(())
}

/// Where the data is.
struct Files {
    data: PathBuf,
    train: Option<PathBuf>,
}

fn locate(args: &Args, dataset: &str) -> anyhow::Result<Files> {
    let mut bar = Bar::default();
    let locator = Locator::from_env().with_data(args.data.clone());
    let data = locator.locate(dataset, &mut |progress| bar.show(progress))?.root;
    let train = match &args.train_data {
        Some(path) => Some(locator.resolve(path, &mut |progress| bar.show(progress))?.root),
        None => None,
    };
    Ok(Files { data, train })
}

fn known(name: &str) -> anyhow::Result<&'static ProtocolInfo> {
    protocol(name).ok_or_else(|| {
        let nearest = PROTOCOLS
            .iter()
            .min_by_key(|candidate| strsim::damerau_levenshtein(candidate.name, name))
            .map_or("", |candidate| candidate.name);
        Exit::new(exit::USAGE, format!("no protocol `{name}`; did you mean `{nearest}`? (--list shows all)")).into()
    })
}

fn list() {
    for info in PROTOCOLS {
        let status = if info.is_available() { "" } else { " [not in this version]" };
        outln!("{:15} {}{status}", info.name, info.summary);
        outln!("{:15}   needs {}: {}", "", info.dataset, info.needs);
    }
}
