//! [`Response`]: every optional field of a KRPC reply as a borrowed slice.

use crate::Id;
use crate::bencode::Strings;

/// The `r` dictionary of a reply. KRPC replies do not say which question they answer, so all fields
/// are optional and the asker looks at those that it asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response<'a> {
    /// Id of the answering node.
    pub id: Id,
    /// IPv4 node records of 26 bytes (BEP 5); see [`crate::compact::nodes`].
    pub nodes: Option<&'a [u8]>,
    /// IPv6 node records of 38 bytes (BEP 32).
    pub nodes6: Option<&'a [u8]>,
    /// Write token (BEP 5).
    pub token: Option<&'a [u8]>,
    /// Peers, each a string of 6 or 18 bytes (BEP 5, BEP 32); see [`crate::compact::peer`].
    pub values: Option<Strings<'a>>,
    /// Bloom filter of seeds, 256 bytes (BEP 33).
    pub bloom_seeds: Option<&'a [u8]>,
    /// Bloom filter of downloaders, 256 bytes (BEP 33).
    pub bloom_peers: Option<&'a [u8]>,
    /// Seconds until the samples change (BEP 51).
    pub interval: Option<i64>,
    /// Infohashes stored in all (BEP 51).
    pub num: Option<i64>,
    /// Infohashes of 20 bytes each (BEP 51).
    pub samples: Option<&'a [u8]>,
    /// The bencoded value of an item, byte by byte as it came (BEP 44 `v`).
    pub value: Option<&'a [u8]>,
    /// The public key of a mutable item, 32 bytes (BEP 44 `k`).
    pub key: Option<&'a [u8]>,
    /// The signature of a mutable item, 64 bytes (BEP 44 `sig`).
    pub signature: Option<&'a [u8]>,
    /// The sequence number of a mutable item (BEP 44).
    pub seq: Option<i64>,
}

impl Response<'_> {
    /// A reply that carries nothing but the id: the answer to `ping`, `announce_peer` and `put`.
    pub const fn new(id: Id) -> Self {
        Self {
            id,
            nodes: None,
            nodes6: None,
            token: None,
            values: None,
            bloom_seeds: None,
            bloom_peers: None,
            interval: None,
            num: None,
            samples: None,
            value: None,
            key: None,
            signature: None,
            seq: None,
        }
    }
}
