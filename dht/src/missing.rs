//! [`Missing`]: nodes that had a place in the table, fell silent and lost it. Most are gone for good. But when
//! the network had fallen in parts, whoever lived in another part looks the same, and once the parts
//! hear each other again nobody knows anybody beyond the cut: tables are full of nodes that answer, so
//! that no bootstrap is due and no router is asked. One old acquaintance who is back is the way there.
//!
//! So a home pings one of them every [`Config::missing_retry`]. When one answers it looks up its own id
//! from that node alone (with its own table it would end among those whom it knows), which brings the
//! neighbourhood of either part together; after that it rests for [`Config::refresh_after`], the pace at
//! which BEP 5 has buckets refreshed, since in a whole network it is no more than such a refresh.
//!
//! All of them answered us once, and each is asked every half hour, so that they make nobody a reflector.

use std::collections::VecDeque;
use std::net::SocketAddr;

use krpc::Id;

use crate::{Config, Time};

/// The missing nodes of a home. Most homes have none, which costs a word.
#[derive(Debug, Default)]
pub(crate) struct Missing(Option<Box<Acquaintances>>);

#[derive(Debug)]
struct Acquaintances {
    /// The one to be asked next first; at most [`Config::missing_nodes`].
    nodes: VecDeque<(Id, SocketAddr)>,
    /// Nobody is asked before this.
    next: Time,
}

impl Missing {
    /// Remembers a node that has just lost its place, in that of the one asked least recently if there are
    /// too many.
    pub(crate) fn note(&mut self, now: Time, node: (Id, SocketAddr), config: &Config) {
        if config.missing_nodes == 0 {
            return;
        }
        let fresh = || Acquaintances { nodes: VecDeque::new(), next: now + config.missing_retry }.into();
        let nodes = &mut self.0.get_or_insert_with(fresh).nodes;
        nodes.retain(|&(_, addr)| addr != node.1);
        if nodes.len() >= config.missing_nodes {
            nodes.pop_front();
        }
        nodes.push_back(node);
    }

    /// Somebody at `addr` answered: whoever was missing there no longer is.
    pub(crate) fn found(&mut self, addr: SocketAddr) {
        if let Some(missing) = &mut self.0 {
            missing.nodes.retain(|&(_, other)| other != addr);
            self.0.take_if(|missing| missing.nodes.is_empty());
        }
    }

    /// Whom to ask now, if it is time for that. All have their turn.
    pub(crate) fn next(&mut self, now: Time, config: &Config) -> Option<(Id, SocketAddr)> {
        let missing = self.0.as_mut().filter(|missing| missing.next <= now)?;
        missing.next = now + config.missing_retry;
        let node = missing.nodes.pop_front()?;
        missing.nodes.push_back(node);
        Some(node)
    }

    /// One of them is back, and what it knows is being looked at: the others can wait.
    pub(crate) fn rest(&mut self, now: Time, config: &Config) {
        if let Some(missing) = &mut self.0 {
            missing.next = now + config.refresh_after;
        }
    }

    /// What it knows could not be looked at after all.
    pub(crate) fn resume(&mut self, now: Time, config: &Config) {
        if let Some(missing) = &mut self.0 {
            missing.next = missing.next.min(now + config.missing_retry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8) -> (Id, SocketAddr) {
        (Id::new([n; Id::LEN]), ([81, 2, 3, n], 6881).into())
    }

    fn asked(missing: &mut Missing, minutes: u64, config: &Config) -> Option<u8> {
        let node = missing.next(Time::from_secs(60 * minutes), config);
        node.map(|(id, _)| id.as_bytes()[0])
    }

    #[test]
    fn missing_nodes_are_asked_in_turn_until_they_answer() {
        let config = Config::default();
        let mut missing = Missing::default();
        assert_eq!(asked(&mut missing, 0, &config), None);
        for n in [1, 2, 1, 3] {
            missing.note(Time::ZERO, node(n), &config);
        }
        let turns = [1, 2, 3, 4, 5, 6, 7, 8].map(|minute| asked(&mut missing, minute, &config));
        assert_eq!(turns, [None, Some(2), None, Some(1), None, Some(3), None, Some(2)]);
        missing.found(node(1).1);
        missing.rest(Time::from_secs(480), &config);
        missing.resume(Time::from_secs(480), &config);
        assert_eq!([9, 10].map(|minute| asked(&mut missing, minute, &config)), [None, Some(3)]);
        missing.rest(Time::from_secs(600), &config);
        assert_eq!([24, 25, 27].map(|minute| asked(&mut missing, minute, &config)), [None, Some(2), Some(3)]);
        missing.found(node(2).1);
        missing.found(node(3).1);
        assert!(missing.0.is_none() && asked(&mut missing, 99, &config).is_none());
    }

    #[test]
    fn only_so_many_are_remembered_and_none_if_the_cap_is_zero() {
        let config = Config { missing_nodes: 3, ..Config::default() };
        let mut missing = Missing::default();
        (0..200).for_each(|n| missing.note(Time::ZERO, node(n), &config));
        let nodes = &missing.0.as_ref().unwrap().nodes;
        assert_eq!(*nodes, [node(197), node(198), node(199)]);
        let mut none = Missing::default();
        none.note(Time::ZERO, node(1), &Config { missing_nodes: 0, ..config });
        assert!(none.0.is_none());
    }
}
