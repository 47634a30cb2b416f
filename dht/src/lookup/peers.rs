//! [`Peers`]: the peers that one lookup has found, each told once (D9).

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::Config;
use crate::addr::{acceptable, is_local};

/// Addresses told so far; at most [`Config::lookup_max_peers`] of them.
#[derive(Debug, Default)]
pub(crate) struct Peers(BTreeSet<SocketAddr>);

impl Peers {
    /// Whether `peer` is new and worth telling; it is remembered. Refused are port 0, addresses that no
    /// peer can have, ports of an IP beyond [`Config::lookup_ports_per_ip`] (a list may be aimed
    /// at one victim) and peers beyond the cap.
    pub(crate) fn insert(&mut self, peer: SocketAddr, config: &Config) -> bool {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        if !acceptable(peer, config.allow_local)
            || self.0.len() >= config.lookup_max_peers
            || self.0.contains(&peer)
        {
            return false;
        }
        let ports = SocketAddr::new(peer.ip(), 0)..=SocketAddr::new(peer.ip(), u16::MAX);
        let by_port = config.allow_local && is_local(peer.ip());
        if !by_port && self.0.range(ports).count() >= config.lookup_ports_per_ip {
            return false;
        }
        self.0.insert(peer)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(peers: &mut Peers, text: &str, config: &Config) -> bool {
        peers.insert(text.parse().unwrap(), config)
    }

    #[test]
    fn each_peer_is_told_once_and_only_from_an_address_it_can_have() {
        let (mut peers, config) = (Peers::default(), Config::default());
        assert!(insert(&mut peers, "81.2.3.4:1", &config));
        assert!(!insert(&mut peers, "81.2.3.4:1", &config));
        assert!(!insert(&mut peers, "[::ffff:81.2.3.4]:1", &config));
        assert!(insert(&mut peers, "[2001:db8::1]:1", &config));
        for refused in ["81.2.3.4:0", "127.0.0.1:1", "10.0.0.1:1", "224.0.0.1:1", "[::]:1"] {
            assert!(!insert(&mut peers, refused, &config), "{refused}");
        }
        assert_eq!(peers.len(), 2);
    }

    #[test]
    fn list_aimed_at_one_victim_yields_eight_ports() {
        let (mut peers, config) = (Peers::default(), Config::default());
        let told = (1..=200).filter(|port| insert(&mut peers, &format!("81.2.3.4:{port}"), &config));
        assert_eq!(told.count(), 8);
        assert!(insert(&mut peers, "81.2.3.5:1", &config));
        let local = Config { allow_local: true, ..config };
        let told = (1..=200).filter(|port| insert(&mut peers, &format!("127.0.0.1:{port}"), &local));
        assert_eq!(told.count(), 200);
    }

    #[test]
    fn peers_are_capped() {
        let (mut peers, config) = (Peers::default(), Config { lookup_max_peers: 3, ..Config::default() });
        let told = (0..9).filter(|n| insert(&mut peers, &format!("81.2.3.{n}:1"), &config));
        assert_eq!(told.count(), 3);
    }
}
