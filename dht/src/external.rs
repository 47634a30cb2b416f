//! [`External`]: what others say about our address at one home (BEP 42, the top-level `ip` of their
//! answers), and when we believe it.
//!
//! Nobody is believed alone, and a network is believed once: the last word of each of the
//! [`Config::address_votes`] networks (IPv4 /24, IPv6 /64) heard of last counts, and our address is what
//! at least [`Config::address_agreement`] of them say. It changes at most once per
//! [`Config::address_change_pause`], since a new address means a new id and that every node has to
//! learn it (D10, S16). Only answers to queries of ours have a vote; whether one is, is
//! checked elsewhere.
//!
//! Local addresses, as voters and as what they claim, count with [`Config::allow_local`] alone: a router
//! in the same house knows our private address, which is not the one that strangers see.

use std::net::{IpAddr, SocketAddr};

use crate::addr::{acceptable, subnet_key};
use crate::{Config, Time};

/// The votes on one home's address.
#[derive(Clone, Debug)]
pub(crate) struct External {
    /// The last to vote last; a network is in it once.
    votes: Vec<Vote>,
    /// What they claim, most often all the same.
    claims: Vec<SocketAddr>,
    agreed: Option<SocketAddr>,
    /// When others agreed on `agreed`; `None` if that was in an earlier run.
    since: Option<Time>,
}

#[derive(Clone, Copy, Debug)]
#[repr(Rust, packed(2))]
struct Vote {
    /// See [`crate::addr::SubnetKey`]: its short form.
    network: u64,
    /// Index of [`External::claims`].
    claim: u16,
}

/// Each node has some sixteen.
const _: () = assert!(size_of::<Vote>() == 10);

impl External {
    /// No votes yet; `known` is what others agreed on in an earlier run.
    pub(crate) fn new(known: Option<IpAddr>) -> Self {
        Self {
            votes: Vec::new(),
            claims: Vec::new(),
            agreed: known.map(|ip| SocketAddr::new(ip, 0)),
            since: None,
        }
    }

    /// Takes the word of `voter` that we are `claim`. Our address, if by this vote it is another IP
    /// address than before.
    pub(crate) fn vote(
        &mut self,
        now: Time,
        voter: SocketAddr,
        claim: SocketAddr,
        config: &Config,
    ) -> Option<SocketAddr> {
        if !acceptable(voter, config.allow_local) || !acceptable(claim, config.allow_local) {
            return None;
        }
        self.count(
            subnet_key(voter, config.allow_local).short(),
            claim,
            config.address_votes.clamp(1, usize::from(u16::MAX)),
        );
        let ip = claim.ip();
        if self.ports(ip).map(|(votes, _)| votes).sum::<usize>() < config.address_agreement {
            return None;
        }
        let moved = self.ip() != Some(ip);
        if moved && self.since.is_some_and(|since| now.since(since) < config.address_change_pause) {
            return None;
        }
        self.agreed = Some(SocketAddr::new(ip, self.port(ip)));
        if moved {
            self.since = Some(now);
        }
        self.agreed.filter(|_| moved)
    }

    /// Our address as others agree. Its port is the one that most of them see, behind a NAT another than
    /// our own; 0 if they agreed in an earlier run.
    pub(crate) fn agreed(&self) -> Option<SocketAddr> {
        self.agreed
    }

    /// The address of [`External::agreed`].
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        self.agreed.map(|addr| addr.ip())
    }

    /// See [`crate::Node::warm`].
    #[cfg(feature = "sim")]
    pub(crate) fn warm(&self) -> u64 {
        let claim = self.claims.first().map_or(0, |claim| claim.port().into());
        self.votes.iter().step_by(6).fold(claim, |sum, vote| sum ^ vote.network)
    }

    /// The votes that count now: addresses and how many networks name each, most first.
    pub(crate) fn votes(&self) -> Vec<(IpAddr, usize)> {
        let mut votes: Vec<(IpAddr, usize)> = Vec::new();
        for claim in self.claimed() {
            match votes.iter_mut().find(|(ip, _)| *ip == claim.ip()) {
                Some((_, count)) => *count += 1,
                None => votes.push((claim.ip(), 1)),
            }
        }
        votes.sort_by_key(|&(ip, count)| (std::cmp::Reverse(count), ip));
        votes
    }

    /// Puts the vote of a network in the place of its last one, or of the oldest of `most`.
    fn count(&mut self, network: u64, claim: SocketAddr, most: usize) {
        self.votes.retain(|vote| vote.network != network);
        if self.votes.len() >= most {
            self.votes.remove(0);
        }
        let known = self.claims.iter().position(|&other| other == claim);
        let index = known.unwrap_or_else(|| self.free_claim());
        match self.claims.get_mut(index) {
            Some(slot) => *slot = claim,
            None => {
                // Nearly always they all say the same.
                self.claims.reserve_exact(1);
                self.claims.push(claim);
            }
        }
        if self.votes.len() == self.votes.capacity() {
            self.votes.reserve_exact(ROOM.min(most - self.votes.len()));
        }
        self.votes.push(Vote { network, claim: index as u16 });
    }

    /// The index of a claim that nobody makes any more, or of the next one.
    fn free_claim(&self) -> usize {
        let made = |index: usize| self.votes.iter().any(|vote| usize::from(vote.claim) == index);
        (0..self.claims.len()).find(|&index| !made(index)).unwrap_or(self.claims.len())
    }

    /// What each vote says.
    fn claimed(&self) -> impl Iterator<Item = SocketAddr> {
        self.votes.iter().filter_map(|vote| self.claims.get(usize::from(vote.claim)).copied())
    }

    /// How many votes each claim of `ip` has, and its port. They are counted for each answer that comes, and
    /// nearly always there is one claim.
    fn ports(&self, ip: IpAddr) -> impl Iterator<Item = (usize, u16)> {
        let claims = self.claims.iter().enumerate().filter(move |(_, claim)| claim.ip() == ip);
        claims.map(|(index, claim)| {
            let votes = self.votes.iter().filter(|vote| usize::from(vote.claim) == index).count();
            (votes, claim.port())
        })
    }

    /// The port that most of those see who name `ip`; of several the smallest.
    fn port(&self, ip: IpAddr) -> u16 {
        let made = self.ports(ip).filter(|&(votes, _)| votes > 0);
        made.max_by_key(|&(votes, port)| (votes, std::cmp::Reverse(port))).map_or(0, |(_, port)| port)
    }
}

/// Votes that there is room for at a time.
const ROOM: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const TRUE: &str = "85.1.2.3:6881";
    const LIE: &str = "99.9.9.9:6881";

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// A voter in network `n`.
    fn voter(n: u8) -> SocketAddr {
        ([81, 1, n, 7], 6881).into()
    }

    fn vote(external: &mut External, seconds: u64, n: u8, claim: &str) -> Option<SocketAddr> {
        external.vote(Time::from_secs(seconds), voter(n), addr(claim), &Config::default())
    }

    /// Votes on which networks 0 to 15 agree.
    fn settled() -> External {
        let mut external = External::new(None);
        let told: Vec<_> = (0..16).filter_map(|n| vote(&mut external, 1, n, TRUE)).collect();
        assert_eq!(told, [addr(TRUE)]);
        external
    }

    #[test]
    fn nine_networks_make_an_address_and_eight_do_not() {
        let mut external = External::new(None);
        for n in 0..8 {
            assert_eq!(vote(&mut external, 1, n, TRUE), None);
        }
        assert_eq!((external.agreed(), external.votes()), (None, vec![(addr(TRUE).ip(), 8)]));
        assert_eq!(vote(&mut external, 1, 8, TRUE), Some(addr(TRUE)));
        assert_eq!(external.agreed(), Some(addr(TRUE)));
        assert_eq!(vote(&mut external, 1, 9, TRUE), None, "told once");
    }

    #[test]
    fn a_network_has_one_vote_however_many_hosts_it_has() {
        let mut external = External::new(None);
        for host in 1..=200 {
            let voter = ([81, 1, 1, host], 6881).into();
            assert_eq!(external.vote(Time::ZERO, voter, addr(LIE), &Config::default()), None);
        }
        assert_eq!(external.votes(), [(addr(LIE).ip(), 1)]);
        // An IPv6 /64 is one too.
        let claim = addr("[2001:db8::1]:6881");
        for host in 1..=200 {
            let voter = ([0x2001, 0xdb8, 1, 1, 0, 0, 0, host], 6881).into();
            assert_eq!(external.vote(Time::ZERO, voter, claim, &Config::default()), None);
        }
        assert_eq!(external.votes().len(), 2);
    }

    #[test]
    fn lies_of_seven_of_sixteen_networks_change_nothing() {
        let mut external = settled();
        for round in 0..100 {
            for n in 0..16 {
                let claim = if n < 7 { LIE } else { TRUE };
                assert_eq!(vote(&mut external, 1000 + round, n, claim), None);
            }
        }
        assert_eq!(external.agreed(), Some(addr(TRUE)));
        assert_eq!(external.votes(), [(addr(TRUE).ip(), 9), (addr(LIE).ip(), 7)]);
    }

    #[test]
    fn nine_of_sixteen_change_it_once_in_ten_minutes() {
        let mut external = settled();
        let told: Vec<_> = (0..9).filter_map(|n| vote(&mut external, 601, n, LIE)).collect();
        assert_eq!(told, [addr(LIE)]);
        // The others come back within ten minutes, and are heard after them.
        for n in 0..16 {
            assert_eq!(vote(&mut external, 1200, n, TRUE), None);
        }
        assert_eq!(external.agreed(), Some(addr(LIE)));
        assert_eq!(vote(&mut external, 1201, 3, TRUE), Some(addr(TRUE)));
    }

    #[test]
    fn the_oldest_vote_goes_when_a_new_network_speaks() {
        let mut external = settled();
        for n in 16..24 {
            assert_eq!(vote(&mut external, 1000, n, LIE), None);
        }
        assert_eq!(external.votes(), [(addr(TRUE).ip(), 8), (addr(LIE).ip(), 8)]);
        // Number 8 speaks again, so that number 9 is the oldest.
        assert_eq!(vote(&mut external, 1000, 8, TRUE), None);
        assert_eq!(vote(&mut external, 1000, 24, LIE), Some(addr(LIE)));
        assert_eq!(vote(&mut external, 1000, 8, TRUE), None);
    }

    #[test]
    fn local_voters_and_claims_count_only_where_they_are_allowed() {
        let (local, global) = (addr("192.168.1.1:6881"), addr(TRUE));
        let mut external = External::new(None);
        let strict = Config::default();
        external.vote(Time::ZERO, local, global, &strict);
        external.vote(Time::ZERO, global, local, &strict);
        external.vote(Time::ZERO, global, addr("0.0.0.0:1"), &strict);
        external.vote(Time::ZERO, global, addr("85.1.2.3:0"), &strict);
        assert!(external.votes().is_empty());
        let open = Config { allow_local: true, ..Config::default() };
        for port in 1..=9 {
            external.vote(Time::ZERO, ([127, 0, 0, 1], port).into(), addr("127.0.0.1:9"), &open);
        }
        assert_eq!(external.agreed(), Some(addr("127.0.0.1:9")));
    }

    #[test]
    fn an_address_of_an_earlier_run_stands_until_others_agree_on_another() {
        let known = addr(TRUE).ip();
        let mut external = External::new(Some(known));
        assert_eq!((external.ip(), external.agreed()), (Some(known), Some(SocketAddr::new(known, 0))));
        let told: Vec<_> = (0..16).filter_map(|n| vote(&mut external, 1, n, TRUE)).collect();
        assert_eq!((told, external.agreed()), (vec![], Some(addr(TRUE))));
        // Nobody knows since when it was ours, so that a move is noticed at once.
        let told: Vec<_> = (0..9).filter_map(|n| vote(&mut external, 2, n, LIE)).collect();
        assert_eq!(told, [addr(LIE)]);
    }

    #[test]
    fn the_port_is_what_most_see_behind_a_nat() {
        let mut external = External::new(None);
        for n in 0..9 {
            let port = [50_001, 50_000, 50_000][usize::from(n % 3)];
            external.vote(Time::ZERO, voter(n), SocketAddr::new(addr(TRUE).ip(), port), &Config::default());
        }
        assert_eq!(external.agreed(), Some(addr("85.1.2.3:50000")));
    }
}
