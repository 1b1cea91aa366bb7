//! What a host is made of, as the command line says it for the commands that need all of it.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use semel_brokers::FileName;

use crate::admin;
use crate::config::{Config, DEFAULT_FILE, DEFAULT_PLUGINS};
use crate::host::Incoming;

#[derive(Args, Debug)]
pub(super) struct SetupArgs {
    /// The configuration [default: ./semel.toml, if there is one]
    #[arg(long, value_name = "FILE", env = "SEMEL_CONFIG")]
    config: Option<PathBuf>,

    /// Where the plugins are: every `*.wasm` there is one [default: ./plugins]
    #[arg(long, value_name = "DIR")]
    plugins: Option<PathBuf>,

    /// The store: `redb:DIRECTORY`, `redis://HOST:PORT`, or `mysql:` or `postgres:` with
    /// `//USER:PASSWORD@HOST:PORT/DATABASE` [default: redb:./semel-data]
    #[arg(long, value_name = "URL", env = "SEMEL_STORE", hide_env_values = true)]
    store: Option<String>,

    /// The JSON Lines file that messages come from, or `-` for stdin: a run ends with it
    #[arg(long, value_name = "FILE", conflicts_with = "source")]
    input: Option<PathBuf>,

    /// The JSON Lines file that everything is published to, or `-` for stdout
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// The broker that messages come from, such as `rocketmq://127.0.0.1:9876`,
    /// `kafka://127.0.0.1:9092` or `amqp://127.0.0.1:5672`, or where they are posted to, such as
    /// `http://127.0.0.1:8080`
    #[arg(long, value_name = "URL")]
    source: Option<String>,
}

impl SetupArgs {
    /// Reads the configuration.
    pub(super) fn load(&self) -> Result<Config> {
        Config::load(self.config.as_deref())
    }

    /// The configuration's file, if there is one.
    pub(super) fn config_file(&self) -> Option<PathBuf> {
        let default = PathBuf::from(DEFAULT_FILE);
        let given = self.config.clone();
        given.or_else(|| default.exists().then_some(default))
    }

    /// The plugins' directory.
    pub(super) fn plugins(&self, config: &Config) -> PathBuf {
        let given = self.plugins.clone().or_else(|| config.plugins_dir.clone());
        given.unwrap_or_else(|| DEFAULT_PLUGINS.into())
    }

    /// The store's URL.
    pub(super) fn store(&self, config: &Config) -> String {
        admin::store_url(self.store.as_deref(), config).to_owned()
    }

    /// The file that everything is published to, if it is one.
    pub(super) fn output(&self) -> Option<FileName> {
        self.output.as_ref().map(FileName::from_argument)
    }

    /// Where messages come from: the command line's file or URL, else the configuration's.
    pub(super) fn incoming(&self, wait_for_parked: bool, config: &Config) -> Option<Incoming> {
        if let Some(file) = &self.input {
            let file = FileName::from_argument(file);
            return Some(Incoming::Input {
                file,
                wait_for_parked,
            });
        }
        let configured = config.source.as_ref();
        let given = self.source.clone();
        Some(Incoming::Broker {
            url: given.or_else(|| configured.map(|source| source.url.clone()))?,
            group_prefix: configured.and_then(|source| source.group_prefix.clone()),
            redelivery: configured
                .and_then(|source| source.redelivery)
                .map(|span| span.0),
        })
    }
}
