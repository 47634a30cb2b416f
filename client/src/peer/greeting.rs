//! [`Greeting`]: the first bytes of a connection that came to us, until we know which torrent it is
//! about.

use std::time::Duration;

use btdht::Time;
use krpc::Id;

use super::{CloseReason, PeerConn, PeerSetup};
use crate::wire::handshake::{INFOHASH_END, infohash, may_begin};

/// An incoming connection before its infohash is known. Costs 64 bytes, whatever the stranger sends.
///
/// Receive into [`space`](Greeting::space) and say so with [`received`](Greeting::received), until it
/// gives the infohash; then find the swarm and [`accept`](Greeting::accept), or close. We say nothing
/// before that, so a stranger cannot find out which torrents we have but by name.
#[derive(Clone, Debug)]
pub struct Greeting {
    bytes: [u8; INFOHASH_END],
    len: usize,
    deadline: Time,
}

impl Greeting {
    /// A fresh connection; its whole handshake must be there after `timeout`
    /// ([`handshake_timeout`](super::PeerConfig::handshake_timeout)).
    pub fn new(now: Time, timeout: Duration) -> Self {
        Self { bytes: [0; INFOHASH_END], len: 0, deadline: now + timeout }
    }

    /// Where the next bytes belong; not empty before the infohash is there.
    pub fn space(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.len..).unwrap_or_default()
    }

    /// `n` bytes were received. Gives the infohash once it is there.
    ///
    /// # Errors
    /// [`CloseReason::BadHandshake`] at the first byte of another protocol.
    pub fn received(&mut self, n: usize) -> Result<Option<Id>, CloseReason> {
        self.len = (self.len + n).min(INFOHASH_END);
        if !may_begin(self.bytes.get(..self.len).unwrap_or_default()) {
            return Err(CloseReason::BadHandshake);
        }
        Ok((self.len == INFOHASH_END).then(|| infohash(&self.bytes)))
    }

    /// When to close with [`CloseReason::HandshakeTimeout`].
    pub fn timeout(&self) -> Time {
        self.deadline
    }

    /// Goes on as a connection of the torrent that was found; the deadline for the handshake stays.
    pub fn accept(self, now: Time, setup: PeerSetup) -> PeerConn {
        PeerConn::incoming(now, setup, self.bytes.get(..self.len).unwrap_or_default(), self.deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::handshake::Handshake;

    #[test]
    fn the_infohash_is_known_after_48_bytes() {
        let wire = Handshake::new(Id::new([3; 20]), [9; 20], false).encode();
        let mut greeting = Greeting::new(Time::ZERO, Duration::from_secs(10));
        for (at, &byte) in wire[..48].iter().enumerate() {
            greeting.space()[0] = byte;
            let known = greeting.received(1).unwrap();
            assert_eq!(known, (at == 47).then(|| Id::new([3; 20])));
        }
        assert!(greeting.space().is_empty());
        assert_eq!(greeting.timeout(), Time::from_secs(10));
    }

    #[test]
    fn another_protocol_is_known_by_its_first_byte() {
        let mut greeting = Greeting::new(Time::ZERO, Duration::from_secs(10));
        greeting.space()[0] = b'G';
        assert_eq!(greeting.received(1), Err(CloseReason::BadHandshake));
    }
}
