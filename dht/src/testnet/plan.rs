//! [`Plan`]: what the nodes of a testnet are made of, as a function of its options and of where they live.
//! The sockets are left to others, so that the same nodes can live in a virtual network too.

use std::net::SocketAddr;
use std::sync::Arc;

use krpc::Id;

use super::options::Options;
use super::topology::{self, Topology};
use crate::net::link::{Lines, Link};
use crate::{Acquaintance, Config, Home, Node, Rng, Seeds, Time};

/// Neighbours that a node can begin anew with.
const SAVED: usize = 16;

/// All nodes of a testnet, by their numbers.
pub(super) struct Plan {
    ids: Vec<Id>,
    locals: Vec<SocketAddr>,
    topology: Topology,
    lines: Arc<Lines>,
    config: Arc<Config>,
    seeds: Seeds,
}

impl Plan {
    /// A network as `options` say whose nodes live at `locals`.
    pub(super) fn new(options: &Options, locals: Vec<SocketAddr>) -> Self {
        let seeds = Seeds::from_u64(options.seed);
        let ids = topology::ids(locals.len(), seeds);
        let lines = Lines::new(locals.iter().copied(), options.latency.clone(), options.loss, seeds);
        let config = Config { allow_local: true, ..options.config.clone() };
        let topology = Topology::new(&ids);
        Self { ids, locals, topology, lines: Arc::new(lines), config: Arc::new(config), seeds }
    }

    /// A node, which knows whom it needs from the start.
    pub(super) fn node(&self, number: u32, now: Time) -> Node {
        let seeds = self.seeds(number);
        let known = self.known(number, now, seeds);
        // Where to begin anew for a node that has lost everybody, as after a long stop of the process.
        let saved = known.iter().rev().take(SAVED).map(|known| (known.id, known.addr)).collect();
        let local = self.locals[number as usize];
        let home = Home { id: self.id(number), local, external: None, saved };
        Node::grown(Arc::clone(&self.config), home, &known, seeds.derive("node"), now)
    }

    /// What its line does, if it does anything.
    pub(super) fn link(&self, number: u32) -> Option<Link> {
        (!self.lines.are_perfect()).then(|| self.lines.link(number))
    }

    /// The id of a node.
    pub(super) fn id(&self, number: u32) -> Id {
        self.ids[number as usize]
    }

    /// Everything random about a node.
    pub(super) fn seeds(&self, number: u32) -> Seeds {
        self.seeds.derive(&format!("node {number}"))
    }

    /// The numbers of all nodes.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Whom a node knows from the start. They answered at some time or other while they would not have been
    /// asked again yet, so that the upkeep of the network is spread over time as in one that has run for
    /// long.
    fn known(&self, number: u32, now: Time, seeds: Seeds) -> Vec<Acquaintance> {
        let mut rng = Rng::new(seeds.derive("known"));
        let others = self.topology.known_by(number, &self.config, &mut rng);
        let of = |(other, id): (u32, Id)| Acquaintance {
            id,
            addr: self.locals[other as usize],
            rtt: self.lines.round_trip(number, other),
            seen: now - self.config.questionable_after * rng.below(900) as u32 / 1000,
        };
        others.into_iter().map(of).collect()
    }
}
