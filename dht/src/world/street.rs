//! A street of nodes for tests of lookups from several addresses of one family (BEP 45), which write down who asks.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;

use krpc::ErrorBody;
use krpc::compact::{self, Address, Contact, V4, V6};

use super::*;

/// A query of a lookup that came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    target: Id,
    pub(super) to: SocketAddr,
    /// Which of our addresses.
    pub(super) from: SocketAddr,
}

/// Where nobody lives who speaks our protocol.
pub(super) const VICTIM: ([u8; 4], u16) = ([203, 0, 113, 7], 6881);

type Log = Rc<RefCell<Vec<Asked>>>;

/// A network of sixty nodes that all know each other, name the eight nearest, write down who asks and
/// are deaf to some, and a node with so many homes among them that has met all of it.
pub(super) struct Street {
    pub(super) world: World,
    pub(super) node: usize,
    log: Log,
    pub(super) deaf_to: Rc<RefCell<BTreeSet<SocketAddr>>>,
    /// Nodes that do not ignore but refuse whom others are deaf to.
    pub(super) refusing: Rc<RefCell<BTreeSet<SocketAddr>>>,
    pub(super) nodes: Rc<RefCell<Vec<(Id, SocketAddr)>>>,
    /// Whether of whoever follows only the very first query is answered at once, by whomever it goes to, and all
    /// other nodes ignore its first one.
    pub(super) is_forgetful: Rc<Cell<bool>>,
}

impl Street {
    pub(super) fn new(seed: u64, homes: usize) -> Self {
        let addrs: Vec<_> = (100..100 + homes).map(World::v4).collect();
        let street = Self::of(World::new(seed, Config::default()), &addrs);
        let homes = street.world.node(street.node).stats(street.world.now);
        assert!(homes.iter().all(|home| home.nodes >= 20));
        street
    }

    /// One with a node at `addrs` in `world`, and nodes of IPv6 too if it has such addresses.
    pub(super) fn of(world: World, addrs: &[SocketAddr]) -> Self {
        let (log, deaf_to, refusing, is_forgetful) = Default::default();
        let nodes = Rc::<RefCell<Vec<(Id, SocketAddr)>>>::default();
        let mut street = Self { world, node: 0, log, deaf_to, refusing, nodes, is_forgetful };
        let is_v6 = addrs.iter().any(SocketAddr::is_ipv6);
        let all: Vec<_> = (0..60).map(World::v4).chain((0..60).filter(|_| is_v6).map(World::v6)).collect();
        for addr in all {
            let id = street.add(addr);
            street.nodes.borrow_mut().push((id, addr));
        }
        let saved = street.nodes.borrow().clone();
        street.node = street.world.add_node_at(addrs, &saved);
        street.world.run(Duration::from_secs(60));
        street.log.borrow_mut().clear();
        let homes = street.world.node(street.node).stats(street.world.now);
        assert!(homes.iter().all(|home| home.nodes > 0));
        street
    }

    /// Adds somebody who knows everybody and whom nobody knows. Its id.
    pub(super) fn add(&mut self, addr: SocketAddr) -> Id {
        let id = self.world.random_id();
        let (log, deaf_to) = (Rc::clone(&self.log), Rc::clone(&self.deaf_to));
        let (refusing, nodes) = (Rc::clone(&self.refusing), Rc::clone(&self.nodes));
        let is_forgetful = Rc::clone(&self.is_forgetful);
        self.world.add_actor_at(
            addr,
            Box::new(move |_, from, message| {
                let Body::Query { query, .. } = &message.body else { return Vec::new() };
                if let Some(target) = target_in(query) {
                    log.borrow_mut().push(Asked { target, to: addr, from });
                }
                if is_forgetful.get() && is_first_here(&log.borrow()) {
                    return Vec::new();
                }
                if deaf_to.borrow().contains(&from) {
                    let refuses = refusing.borrow().contains(&addr);
                    return if refuses { vec![(from, refusal(message.tid))] } else { Vec::new() };
                }
                let issued = from.to_string().into_bytes();
                if let Query::AnnouncePeer { token, .. } | Query::Put { token, .. } = query {
                    assert_eq!(*token, &issued[..], "BEP 45: the token of another address");
                }
                let (v4, v6) = (near::<V4>(&nodes.borrow(), query), near::<V6>(&nodes.borrow(), query));
                let (v4, v6) = (Some(&v4[..]), Some(&v6[..]).filter(|v6| !v6.is_empty()));
                let response = Response { nodes: v4, nodes6: v6, token: Some(&issued), ..Response::new(id) };
                vec![(from, reply(message.tid, response))]
            }),
        );
        id
    }

    /// Runs a lookup; how it ended, and what came because of it.
    pub(super) fn look_up(&mut self, command: Command) -> (Found, Vec<Asked>) {
        self.world.run(Duration::from_secs(20));
        let target = command.target().unwrap();
        self.log.borrow_mut().clear();
        let found = self.world.look_up(self.node, command);
        (found, self.asked(target))
    }

    /// What came because of `target`.
    pub(super) fn asked(&self, target: Id) -> Vec<Asked> {
        self.log.borrow().iter().copied().filter(|asked| asked.target == target).collect()
    }

    /// Has everybody name a victim, who never answers, under ids of their own, nearest to the infohash that is
    /// returned. Its host.
    pub(super) fn name_a_victim(&mut self) -> (Id, usize) {
        let (infohash, log) = (self.world.random_id(), Rc::clone(&self.log));
        for n in 1..=6 {
            let mut id = *infohash.as_bytes();
            id[19] ^= n;
            self.nodes.borrow_mut().push((Id::new(id), VICTIM.into()));
        }
        let note = move |_, from, message: &Message<'_>| {
            if let Body::Query { query, .. } = &message.body
                && let Some(target) = target_in(query)
            {
                log.borrow_mut().push(Asked { target, to: VICTIM.into(), from });
            }
            Vec::new()
        };
        (infohash, self.world.add_actor_at(VICTIM.into(), Box::new(note)))
    }

    pub(super) fn announce(infohash: Id) -> Command {
        let announce = Some(Announce { port: 4444, implied: false, seed: false });
        Command::GetPeers { infohash, announce, trace: false }
    }

    pub(super) fn find_node(&mut self) -> Command {
        Command::FindNode { target: self.world.random_id(), trace: false }
    }
}

/// What a query of a lookup or an announce is about.
fn target_in(query: &Query<'_>) -> Option<Id> {
    match *query {
        Query::FindNode { target, .. } | Query::Get { target, .. } => Some(target),
        Query::GetPeers { infohash, .. } | Query::AnnouncePeer { infohash, .. } => Some(infohash),
        _ => None,
    }
}

/// Whether the last query that came is the first of whoever follows to where it went, but not the first of all
/// that it sent.
fn is_first_here(log: &[Asked]) -> bool {
    let Some((last, before)) = log.split_last() else { return false };
    let mut same = before.iter().filter(|asked| asked.target == last.target).peekable();
    let follows = same.peek().is_some_and(|first| first.from != last.from);
    let mut own = same.filter(|asked| asked.from == last.from).peekable();
    follows && own.peek().is_some() && own.all(|asked| asked.to != last.to)
}

fn refusal(tid: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let body = Body::Error(ErrorBody { code: 201, text: b"no" });
    Message { tid, version: None, ip: None, read_only: false, body }.encode(&mut bytes);
    bytes
}

/// The eight nodes of a family nearest to what is looked for.
fn near<A: Address>(nodes: &[(Id, SocketAddr)], query: &Query<'_>) -> Vec<u8> {
    let Some(target) = target_in(query) else { return Vec::new() };
    let of_family = |&(id, addr): &(Id, SocketAddr)| Some(Contact { id, addr: A::from_socket(addr)? });
    let mut nodes: Vec<Contact<A>> = nodes.iter().filter_map(of_family).collect();
    nodes.sort_by_key(|node| node.id.distance(&target));
    let mut bytes = Vec::new();
    for node in nodes.iter().take(8) {
        compact::put_node(&mut bytes, node);
    }
    bytes
}

pub(super) fn askers(log: &[Asked]) -> BTreeSet<SocketAddr> {
    log.iter().map(|asked| asked.from).collect()
}
