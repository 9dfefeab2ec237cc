//! `faultline datasets`: what is known, what is here, and how to get the rest.

use std::path::PathBuf;

use clap::Subcommand;
use faultline_datasets::{
    CATALOG, Locator, Progress, Step,
    fetch::{FetchOptions, fetch},
    import,
};
use indicatif::ProgressBar;

use crate::out::outln;
use crate::progress;

/// Arguments of `faultline datasets`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show every dataset, whether it is here, and which protocols run on it.
    List,
    /// Download a dataset from its official source; resumes, and checks the published checksums.
    Fetch {
        /// Name, as `list` shows it.
        name: String,
        /// Ask this host instead of the official ones, with the same paths.
        #[arg(long, value_name = "URL")]
        mirror: Option<String>,
    },
    /// Take a dataset from an archive or folder that you have.
    Import {
        /// The archive (.tar.zst, .tar.gz, .zip, .tar) or folder.
        path: PathBuf,
        /// Which dataset it is, where its name and content do not tell.
        #[arg(long = "as", value_name = "NAME")]
        name: Option<String>,
    },
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let locator = Locator::from_env();
    let mut bar = Bar::default();
    match &args.command {
        Command::List => list(&locator),
        Command::Fetch { name, mirror } => {
            let options = FetchOptions { mirror: mirror.clone(), ..FetchOptions::default() };
            let root = fetch(name, &locator.cache, &options, &mut |progress| bar.show(progress))?;
            outln!("{name} is in {}", root.display());
        }
        Command::Import { path, name } => {
            let imported = import::import(path, name.as_deref(), &locator.cache, &mut |progress| bar.show(progress))?;
            outln!("{} is in {}", imported.dataset.name, imported.root.display());
            for holding in &imported.holdings {
                outln!("  {} × {}, such as {}", holding.n_files, holding.kind.describe(), holding.example.display());
            }
            outln!("  protocols that can run: {}", or_none(&imported.protocols.join(", ")));
        }
    }
    Ok(())
}

fn list(locator: &Locator) {
    for info in CATALOG {
        let here = locator.find(info.name).unwrap_or_else(|| {
            let how = if info.is_fetchable() { "fetch" } else { "import" };
            format!("not here: faultline datasets {how} {}", if info.is_fetchable() { info.name } else { "<archive>" })
        });
        outln!("{:36} {}", info.name, info.holds);
        outln!("{:36}   {here}", "");
        outln!("{:36}   licence: {}", "", info.licence);
        outln!("{:36}   protocols: {}", "", or_none(&info.protocols().collect::<Vec<_>>().join(", ")));
    }
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

/// Shows what a long dataset operation does, one bar a file and step.
#[derive(Default)]
pub struct Bar {
    shown: Option<(Step, String, ProgressBar)>,
}

impl Bar {
    /// Takes the news of a long operation.
    pub fn show(&mut self, news: Progress<'_>) {
        let is_same = self.shown.as_ref().is_some_and(|(step, item, _)| *step == news.step && item == news.item);
        if !is_same {
            let verb = match news.step {
                Step::Download => "download",
                Step::Verify => "verify",
                Step::Unpack => "unpack",
                Step::Copy => "copy",
            };
            let bar = progress::bytes(news.bytes_total.unwrap_or(0), &format!("{verb} {}", news.item));
            if let Some((_, _, old)) = self.shown.replace((news.step, news.item.to_owned(), bar)) {
                old.finish_and_clear();
            }
        }
        if let Some((_, _, bar)) = &self.shown {
            bar.set_position(news.bytes_done);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some((_, _, bar)) = &self.shown {
            bar.finish_and_clear();
        }
    }
}
