//! [`Options`]: how a testnet is to be.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::Config;

/// How a [`Testnet`](super::Testnet) is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// Nodes; at least one.
    pub nodes: usize,
    /// Ids, tables, latencies and losses follow from it. Two runs still differ in what the machine decides:
    /// ports, if they are not given, and which datagram comes first.
    pub seed: u64,
    /// Bounds of the time that a datagram takes from one node to another. Each pair of nodes has a latency
    /// of its own in between, the same both ways, to a millisecond or two.
    pub latency: RangeInclusive<Duration>,
    /// Percent of the datagrams that are lost; 100 and more lose all.
    pub loss: u32,
    /// Where the nodes live, 127.0.0.1 unless told otherwise. A port that becomes free is soon another socket's, by
    /// which networks that begin and end beside each other may grow together; one with an address of its own, such as
    /// 127.20.0.3, stays alone. Linux has all of 127/8.
    pub ipv4: Ipv4Addr,
    /// Whether the nodes live at `::1` instead.
    pub ipv6: bool,
    /// Port of the first node; 0 takes any free one, as all others do.
    pub port: u16,
    /// The numbers of each node, by default [`Options::config_of_one_machine`]. Local addresses are accepted
    /// whatever it says.
    pub config: Config,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 20,
            seed: 0,
            latency: Duration::ZERO..=Duration::ZERO,
            loss: 0,
            ipv4: Ipv4Addr::LOCALHOST,
            ipv6: false,
            port: 0,
            config: Self::config_of_one_machine(Config::default()),
        }
    }
}

impl Options {
    /// `config` without the limits that hold for one source. Here everybody is one machine, and lookups take so
    /// little time that a test that makes some dozens of them in a row would be taken for a flood: 25 replies
    /// a second, 500 infohashes and 100 items to a source. The table of sources shrinks with them, which is
    /// most of the memory that an idle node takes.
    pub fn config_of_one_machine(config: Config) -> Config {
        Config {
            replies_per_second_per_ip: 0,
            infohashes_per_ip: 0,
            items_per_ip: 0,
            source_table_entries: 256,
            ..config
        }
    }
}
