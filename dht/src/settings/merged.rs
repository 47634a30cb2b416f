//! [`Settings`]: what the programs were told, after all sources were merged.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::error::Origin;
use super::shards::Shards;
use super::value::BindAddr;
use crate::Config;
use crate::net::Bind;

/// The merged settings.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Where to listen.
    pub listen: Listen,
    /// Where state lives.
    pub folders: Folders,
    /// The numbers of the core.
    pub config: Config,
    /// Routers, `host:port`, in order of preference.
    pub routers: Vec<String>,
    /// What was asked for and is taken otherwise, a sentence each.
    pub warnings: Vec<String>,
    pub(super) origins: BTreeMap<&'static str, Origin>,
}

/// Where to listen.
#[derive(Clone, Debug, Default)]
pub struct Listen {
    /// The port that was asked for.
    pub port: Option<u16>,
    /// Addresses that were asked for.
    pub bind: Vec<BindAddr>,
    /// Whether IPv4 is used.
    pub ipv4: bool,
    /// Whether IPv6 is used.
    pub ipv6: bool,
    /// Threads of a node that serves.
    pub shards: Shards,
}

/// Where state lives.
#[derive(Clone, Debug, Default)]
pub struct Folders {
    /// The state folder; `None` when there is none to be.
    pub state: Option<PathBuf>,
}

impl Settings {
    /// Where to listen: what was asked for, or every address of both families at `port`.
    pub fn binds(&self, port: u16) -> Vec<Bind> {
        let wanted = |ip: &IpAddr| if ip.is_ipv4() { self.listen.ipv4 } else { self.listen.ipv6 };
        if self.listen.bind.is_empty() {
            return [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)]
                .into_iter()
                .filter(wanted)
                .map(|ip| Bind { addr: SocketAddr::new(ip, port), required: false })
                .collect();
        }
        let asked = self.listen.bind.iter().filter(|bind| wanted(&bind.ip));
        asked
            .map(|bind| Bind { addr: SocketAddr::new(bind.ip, bind.port.unwrap_or(port)), required: true })
            .collect()
    }

    /// Where the value of `key` came from: `node.port`, `limits.k`, `router`.
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or_default()
    }
}
