//! One file a subcommand: its arguments and what it does.

pub mod datasets;
pub mod demo;
pub mod detectors;
pub mod eval;
pub mod fit;
pub mod query;
pub mod replay;
pub mod run;
pub mod validate;

use std::path::PathBuf;

use crate::config::{Config, ConfigError, environment};
use crate::out::outln;

/// Where the configuration comes from; shared by the subcommands that need one.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct ConfigArgs {
    /// Configuration file, YAML or TOML.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Override one key, such as `--set api.endpoint=127.0.0.1:0`. Repeatable; wins over file and environment.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl ConfigArgs {
    /// Reads and checks the configuration.
    ///
    /// # Errors
    /// Names the file, key or variable that is wrong.
    pub fn load(&self) -> Result<Config, ConfigError> {
        self.load_with(None)
    }

    /// [`Self::load`] with a preset, where one is given, in place of one that the configuration names.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_with(&self, preset: Option<&str>) -> Result<Config, ConfigError> {
        let preset = preset.map(|name| format!("preset={name}"));
        let settings: Vec<String> = self.set.iter().cloned().chain(preset).collect();
        Config::load(self.config.as_deref(), &environment(), &settings)
    }
}

/// `faultline version`.
pub fn version() -> anyhow::Result<()> {
    outln!("faultline {}", env!("CARGO_PKG_VERSION"));
    Ok(())
}
