//! The flags that a server is started with: the same for `serve`, for the verbs that explain a
//! configuration, and for a program that is built with the framework.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use crate::config::Sources;
use crate::config::layers::{Flag, PROFILES};

/// What a server is told on its command line.
#[derive(Debug, Clone, Default, Args)]
pub struct ServeOptions {
    /// Development: loopback only, a secret kept in the data directory, the relay switched on
    #[arg(long)]
    pub dev: bool,
    /// Configuration file
    #[arg(long, value_name = "FILE", env = "TIDEGATE_CONFIG")]
    pub config: Option<PathBuf>,
    /// A complete configuration that the program comes with
    #[arg(long, value_name = "NAME", env = "TIDEGATE_PROFILE", value_parser = profile_names())]
    pub profile: Option<String>,
    /// Address and port; port 0 lets the system choose [server.listen]
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub listen: Option<SocketAddr>,
    /// Development: listen for TLS too, with a certificate made for localhost [tls.dev]
    #[arg(long)]
    pub dev_tls: bool,
    /// Where topics, cursors and logs are kept [server.data_dir]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Threads that serve, one pinned to a core each; 0 takes all cores [server.shards]
    #[arg(long, value_name = "N")]
    pub shards: Option<u16>,
    /// Level of the log, or a filter such as info,tidegate::ws=debug [log.level]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

impl ServeOptions {
    /// All layers: these flags over the environment of this process, the file and the profile.
    pub fn sources(&self) -> Sources {
        let flag = |name, key, value: Option<String>| value.map(|value| Flag { name, key, value });
        let flags = [
            flag(
                "--listen",
                "server.listen",
                self.listen.map(|value| value.to_string()),
            ),
            flag(
                "--data",
                "server.data_dir",
                self.data.as_ref().map(|value| value.display().to_string()),
            ),
            flag(
                "--shards",
                "server.shards",
                self.shards.map(|value| value.to_string()),
            ),
            flag(
                "--dev-tls",
                "tls.dev",
                self.dev_tls.then(|| "true".to_owned()),
            ),
            flag("--log-level", "log.level", self.log_level.clone()),
        ];
        Sources {
            dev: self.dev,
            profile: self.profile.clone(),
            file: self.config.clone(),
            flags: flags.into_iter().flatten().collect(),
            ..Sources::of_process()
        }
    }
}

fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| {
        "write IP:PORT, such as 127.0.0.1:4000 or [::1]:4000; names are not looked up, and port 0 \
         takes any that is free"
    })
}

fn profile_names() -> Vec<&'static str> {
    PROFILES.iter().map(|(name, _)| *name).collect()
}
