//! [`Query`]: the questions of KRPC and their arguments, borrowed from the datagram.

use crate::Id;

/// The question of a KRPC message, without the sender's id (see [`crate::Body::Query`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Query<'a> {
    /// `ping` (BEP 5).
    Ping,
    /// `find_node` (BEP 5).
    FindNode {
        /// The id to be near to.
        target: Id,
        /// Address families wanted in the reply (BEP 32).
        want: Want,
    },
    /// `get_peers` (BEP 5).
    GetPeers {
        /// The torrent whose peers are sought.
        infohash: Id,
        /// Address families wanted in the reply (BEP 32).
        want: Want,
        /// Whether bloom filters are asked for (BEP 33 `scrape`).
        scrape: bool,
        /// Whether seeds may be left out of `values` (BEP 33 `noseed`).
        no_seed: bool,
    },
    /// `announce_peer` (BEP 5).
    AnnouncePeer {
        /// The torrent that is announced.
        infohash: Id,
        /// The peer's port as sent, 0 when absent: any `i64`, so that 65616 is not mistaken for 80.
        port: i64,
        /// Take the datagram's source port instead of `port` (BEP 5 `implied_port`).
        implied_port: bool,
        /// The token from an earlier `get_peers` reply.
        token: &'a [u8],
        /// Whether the peer is a seed (BEP 33).
        seed: bool,
    },
    /// `get` (BEP 44).
    Get {
        /// The SHA-1 of the value, or of the key and the salt.
        target: Id,
        /// Send a mutable value only if its sequence number is greater.
        seq: Option<i64>,
        /// Address families wanted in the reply (BEP 32).
        want: Want,
    },
    /// `put` (BEP 44).
    Put {
        /// The token from an earlier `get` reply.
        token: &'a [u8],
        /// The bencoded value, byte by byte as it came: hashes and signatures are over these bytes.
        value: &'a [u8],
        /// What makes the item a mutable one; an immutable one has nothing of it.
        signed: Option<Signed<'a>>,
    },
    /// `sample_infohashes` (BEP 51).
    SampleInfohashes {
        /// The id to be near to.
        target: Id,
        /// Address families wanted in the reply (BEP 32).
        want: Want,
    },
    /// A method that this crate has no type for. BEP 5: "method unknown", unless it carries a
    /// `target` or `info_hash`, in which case it is treated as `find_node`.
    Other {
        /// The value of `q`.
        method: &'a [u8],
        /// `target` or `info_hash` of the arguments, if it is an id.
        target: Option<Id>,
        /// Address families wanted in the reply (BEP 32).
        want: Want,
    },
}

impl Query<'_> {
    /// The method's name on the wire (`q`).
    pub fn method(&self) -> &[u8] {
        match self {
            Self::Ping => b"ping",
            Self::FindNode { .. } => b"find_node",
            Self::GetPeers { .. } => b"get_peers",
            Self::AnnouncePeer { .. } => b"announce_peer",
            Self::Get { .. } => b"get",
            Self::Put { .. } => b"put",
            Self::SampleInfohashes { .. } => b"sample_infohashes",
            Self::Other { method, .. } => method,
        }
    }
}

/// What a `put` of a mutable item says beside the value (BEP 44). Nothing here has been verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed<'a> {
    /// The public key (`k`).
    pub key: &'a [u8; 32],
    /// The signature over salt, sequence number and value (`sig`).
    pub signature: &'a [u8; 64],
    /// The sequence number (`seq`).
    pub seq: i64,
    /// The salt, empty where there is none; of any length.
    pub salt: &'a [u8],
    /// Store only if this is the sequence number stored so far (`cas`).
    pub cas: Option<i64>,
}

/// The `want` argument of BEP 32. [`Want::UNSPECIFIED`]: the key was absent, so the family of the
/// datagram's own address is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Want {
    /// `n4` was asked for.
    pub n4: bool,
    /// `n6` was asked for.
    pub n6: bool,
}

impl Want {
    /// No `want` key.
    pub const UNSPECIFIED: Self = Self { n4: false, n6: false };
    /// `[n4, n6]`.
    pub const BOTH: Self = Self { n4: true, n6: true };
}
