//! A node's presence at one address: one id, one family, one table (BEP 32, BEP 45). All homes of a
//! node share one store and one token server.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use arrayvec::ArrayVec;
use krpc::{Id, Want};

use crate::external::External;
use crate::missing::Missing;
use crate::network::Line;
use crate::reach::{Reach, Reachability};
use crate::secure_id::is_secure;
use crate::store::Family;
use crate::table::{FamilyTable, MAX_CLOSEST, OwnIps};
use crate::{Config, Rng, Time};

/// What a node is given for each of its sockets. Its index in the list is the socket's index.
#[derive(Clone, Debug)]
pub struct Home {
    /// Our id at this address (BEP 42, BEP 45: another one for each address).
    pub id: Id,
    /// The address that the socket is bound to; its family decides which nodes live in the table, and
    /// nodes and peers that claim to live there are refused.
    pub local: SocketAddr,
    /// Our address as others saw it in an earlier run; an id that belongs to it (BEP 42) is kept until
    /// other nodes agree on another address.
    pub external: Option<IpAddr>,
    /// Nodes known from an earlier run. They are asked before any router.
    pub saved: Vec<(Id, SocketAddr)>,
}

/// What is worth keeping of a home between runs, for [`Home`]; see [`crate::Node::saved`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HomeRecord {
    /// Our id there.
    pub id: Id,
    /// Our address as others see it, once they agree.
    pub external: Option<IpAddr>,
    /// Nodes, trusty ones first.
    pub nodes: Vec<(Id, SocketAddr)>,
}

/// How a home's routing table stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HomeStats {
    /// Our id there.
    pub id: Id,
    /// The address that the socket is bound to.
    pub local: SocketAddr,
    /// Our address there as others see it, once they agree (BEP 42). Behind a NAT the port is not that of
    /// `local`; it is 0 when it was in an earlier run that they agreed.
    pub external: Option<SocketAddr>,
    /// What the networks heard of last say that our address is: how many name which, most first.
    pub votes: Vec<(IpAddr, usize)>,
    /// Whether strangers reach us there, and whether we are read-only (BEP 43).
    pub reachability: Reachability,
    /// How long ago a query came from an address that we had not asked for
    /// [`Config::reach_window`], to a second; `None` if none did.
    pub last_unsolicited: Option<Duration>,
    /// Nodes in the table.
    pub nodes: usize,
    /// Nodes that are good in the sense of BEP 5.
    pub trusty: usize,
    /// Nodes in the table whose id does not belong to their address (BEP 42).
    pub insecure: usize,
    /// Buckets down to the deepest that holds a node.
    pub buckets: usize,
    /// Nodes that answered and wait for a place.
    pub candidates: usize,
    /// Median of the nodes' round-trip times; zero in an empty table.
    pub median_rtt: Duration,
    /// Whether the network works, as far as is known: `false` when nobody answers any more.
    pub online: bool,
}

/// A home at work.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) local: SocketAddr,
    pub(crate) family: Family,
    pub(crate) table: FamilyTable,
    pub(crate) external: External,
    /// Whether strangers reach us.
    pub(crate) reach: Reach,
    pub(crate) line: Line,
    /// Nodes that lost their place in the table for being silent.
    pub(crate) missing: Missing,
    /// Nodes of an earlier run, until we have bootstrapped.
    pub(crate) saved: Vec<(Id, SocketAddr)>,
}

impl Place {
    pub(crate) fn new(now: Time, home: Home, config: &Config, rng: &mut Rng) -> Self {
        let family = family_of(home.local);
        let saved = home.saved.into_iter().filter(|&(_, addr)| family_of(addr) == family).collect();
        let table = FamilyTable::new(family, home.id);
        // An id that does not belong there is of another life: let others say where we are.
        let external = External::new(home.external.filter(|&ip| is_secure(&home.id, ip)));
        let reach = Reach::new(now, config, rng);
        let (line, missing) = (Line::default(), Missing::default());
        Self { local: home.local, family, table, external, reach, line, missing, saved }
    }

    /// Our id here.
    pub(crate) fn id(&self) -> Id {
        *self.table.own()
    }

    /// The addresses whose inhabitants we reach without any network: none where local addresses are
    /// accepted, because there all nodes may be on one machine.
    pub(crate) fn own(&self, config: &Config) -> OwnIps {
        if config.allow_local { [None; 2] } else { [Some(self.local.ip()), self.external.ip()] }
    }

    /// What is worth keeping of this home between runs.
    pub(crate) fn record(&self, now: Time, config: &Config) -> HomeRecord {
        let mut nodes = self.table.saved(now, config);
        // Until we have bootstrapped, those of the last run may still be worth more than the few
        // that have answered.
        let known = nodes.len();
        for &node in &self.saved {
            if !nodes[..known].contains(&node) {
                nodes.push(node);
            }
        }
        HomeRecord { id: self.id(), external: self.external.ip(), nodes }
    }

    /// Where a lookup of `target` starts: with the nearest nodes, and in a grown table with those that
    /// are near and quick to answer.
    pub(crate) fn starts(&self, target: &Id, config: &Config) -> ArrayVec<(Id, SocketAddr), MAX_CLOSEST> {
        let width = config.lookup_start_width.max(config.k);
        if self.table.len() >= GROWN {
            self.table.quickest(target, width, config)
        } else {
            self.table.closest(target, width, config)
        }
    }

    pub(crate) fn stats(&self, now: Time, config: &Config) -> HomeStats {
        HomeStats {
            id: self.id(),
            local: self.local,
            external: self.external.agreed(),
            votes: self.external.votes(),
            reachability: self.reach.state(),
            last_unsolicited: self.reach.unsolicited().map(|at| now.since(at)),
            nodes: self.table.len(),
            trusty: self.table.trusty(now, config),
            insecure: self.table.insecure(),
            buckets: self.table.buckets(),
            candidates: self.table.candidates(),
            median_rtt: self.table.median_rtt(),
            online: !self.line.is_lost(),
        }
    }
}

impl AsRef<FamilyTable> for Place {
    fn as_ref(&self) -> &FamilyTable {
        &self.table
    }
}

/// Nodes in a table that lets a lookup choose where to start.
const GROWN: usize = 64;

/// The `want` of our queries: both families when we live in both, else nothing, which means the
/// family of the datagram (BEP 32).
pub(crate) fn want(places: &[Place]) -> Want {
    let lives_in = |family| places.iter().any(|place| place.family == family);
    if lives_in(Family::V4) && lives_in(Family::V6) { Want::BOTH } else { Want::UNSPECIFIED }
}

/// The first home that can talk to `to`.
pub(crate) fn reaching(places: &[Place], to: SocketAddr) -> Option<usize> {
    places.iter().position(|place| place.family == family_of(to))
}

/// The family of `addr`; an IPv4-mapped IPv6 address is IPv4.
pub(crate) fn family_of(addr: SocketAddr) -> Family {
    if addr.ip().to_canonical().is_ipv4() { Family::V4 } else { Family::V6 }
}
