//! The flags that all verbs of both programs share (see `--help`).

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args};

use super::value::BindAddr;

/// Flags before or after any verb.
#[derive(Args, Clone, Debug, Default)]
pub struct Flags {
    /// Port to listen on; 0 takes any. [default: 6881 or the next free one up to 6889 for what runs
    /// long, 0 for the rest]
    #[arg(short, long, global = true, value_name = "N", help_heading = "Common")]
    pub port: Option<u16>,

    /// Address to listen on, with or without a port; repeatable. [default: 0.0.0.0 and ::]
    #[arg(long, global = true, value_name = "ADDR[:PORT]", help_heading = "Common")]
    pub bind: Vec<BindAddr>,

    /// Router to bootstrap from; repeatable; replaces the list of bootstrap.toml
    #[arg(long, global = true, value_name = "HOST:PORT", help_heading = "Common")]
    pub bootstrap: Vec<String>,

    /// Settings file to use in place of the user's own bootstrap.toml
    #[arg(long, global = true, value_name = "FILE", help_heading = "Common")]
    pub config: Option<PathBuf>,

    /// Folder for the saved id and nodes. [default: the user's state folder]
    #[arg(long, global = true, value_name = "DIR", conflicts_with = "no_state", help_heading = "Common")]
    pub state: Option<PathBuf>,

    /// Read and keep no state
    #[arg(long, global = true, help_heading = "Common")]
    pub no_state: bool,

    /// Accept loopback, private and link-local addresses as nodes, peers and trackers
    #[arg(long, global = true, help_heading = "Common")]
    pub allow_local: bool,

    /// Use IPv4 only
    #[arg(long, global = true, conflicts_with = "ipv6_only", help_heading = "Common")]
    pub ipv4_only: bool,

    /// Use IPv6 only
    #[arg(long, global = true, help_heading = "Common")]
    pub ipv6_only: bool,

    /// Give up after so many seconds
    #[arg(long, global = true, value_name = "SECONDS", value_parser = seconds, help_heading = "Common")]
    pub timeout: Option<Duration>,

    /// One JSON object a line
    #[arg(short, long, global = true, help_heading = "Common")]
    pub json: bool,

    /// Say more on stderr; twice for details, three times for everything
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Common")]
    pub verbose: u8,

    /// Say nothing but errors
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Common")]
    pub quiet: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "expected a number of seconds".into())
}
