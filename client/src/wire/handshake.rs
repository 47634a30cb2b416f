//! The handshake (BEP 3): 68 bytes, and the reserved bits that tell of extensions.

use krpc::Id;

/// Bytes of a handshake.
pub const LEN: usize = 68;
/// Bytes up to and including the infohash: enough to tell which torrent a caller wants.
pub const INFOHASH_END: usize = 48;
/// What every handshake begins with.
const PROTOCOL: &[u8; 20] = b"\x13BitTorrent protocol";

/// What a handshake says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// Bits that tell of extensions.
    pub reserved: [u8; 8],
    /// The torrent.
    pub infohash: Id,
    /// The sender.
    pub peer_id: [u8; 20],
}

impl Handshake {
    /// Our handshake: extension protocol (BEP 10), fast extension (BEP 6), and the DHT (BEP 5) if a
    /// node of ours runs.
    pub fn new(infohash: Id, peer_id: [u8; 20], dht: bool) -> Self {
        let reserved = [0, 0, 0, 0, 0, 0x10, 0, 0x04 | u8::from(dht)];
        Self { reserved, infohash, peer_id }
    }

    /// The wire form.
    pub fn encode(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[..20].copy_from_slice(PROTOCOL);
        bytes[20..28].copy_from_slice(&self.reserved);
        bytes[28..48].copy_from_slice(self.infohash.as_bytes());
        bytes[48..].copy_from_slice(&self.peer_id);
        bytes
    }

    /// Reads the wire form; `None` for another protocol.
    pub fn decode(bytes: &[u8; LEN]) -> Option<Self> {
        let (protocol, rest) = bytes.split_first_chunk::<20>()?;
        let (reserved, rest) = rest.split_first_chunk::<8>()?;
        let (infohash, rest) = rest.split_first_chunk::<20>()?;
        let peer_id = rest.first_chunk::<20>()?;
        (protocol == PROTOCOL).then(|| Self {
            reserved: *reserved,
            infohash: Id::new(*infohash),
            peer_id: *peer_id,
        })
    }

    /// Whether the sender speaks the extension protocol (BEP 10).
    pub fn extended(&self) -> bool {
        self.reserved[5] & 0x10 != 0
    }

    /// Whether the sender speaks the fast extension (BEP 6).
    pub fn fast(&self) -> bool {
        self.reserved[7] & 0x04 != 0
    }

    /// Whether the sender runs a DHT node (BEP 5).
    pub fn dht(&self) -> bool {
        self.reserved[7] & 0x01 != 0
    }
}

/// Whether `bytes` may become a handshake: what is there of the first twenty is right. So that a
/// stranger who speaks something else is known by its first bytes.
pub fn may_begin(bytes: &[u8]) -> bool {
    bytes.iter().zip(PROTOCOL).all(|(got, wanted)| got == wanted)
}

/// The infohash among the first [`INFOHASH_END`] bytes of a handshake.
pub fn infohash(bytes: &[u8; INFOHASH_END]) -> Id {
    Id::from_slice(&bytes[28..]).expect("48 - 28 = 20 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_survives_a_round_trip() {
        let ours = Handshake::new(Id::new([7; 20]), *b"-bd0100-abcdefghijkl", true);
        let bytes = ours.encode();
        assert_eq!(bytes[..28], *b"\x13BitTorrent protocol\0\0\0\0\0\x10\0\x05");
        assert_eq!(Handshake::decode(&bytes), Some(ours));
        assert!(ours.extended() && ours.fast() && ours.dht());
        assert!(!Handshake::new(ours.infohash, ours.peer_id, false).dht());
        assert_eq!(infohash(bytes.first_chunk().unwrap()), ours.infohash);
    }

    #[test]
    fn other_protocols_are_known_by_their_first_bytes() {
        let mut bytes = Handshake::new(Id::ZERO, [1; 20], false).encode();
        assert!((0..=LEN).all(|len| may_begin(&bytes[..len])));
        assert!(!may_begin(b"GET / HTTP/1.1") && !may_begin(b"\x13BitTorrent Protocol"));
        bytes[19] = b'L';
        assert_eq!(Handshake::decode(&bytes), None);
    }
}
