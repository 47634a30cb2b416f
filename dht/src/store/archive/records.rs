//! The bytes of an archive: how items and the stamps of peers are written, and how all of it is read again.

use std::net::SocketAddr;
use std::time::Duration;

use krpc::compact::Address;
use krpc::{Id, Signed};

use crate::addr::SourceKey;
use crate::item::{Item, MAX_SALT, MAX_VALUE, check_signed, check_value, immutable_target, mutable_target};

/// An archive that is none: damaged, or written by somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

/// A peer as it was archived.
pub(super) struct ArchivedPeer {
    pub(super) addr: SocketAddr,
    /// Seconds.
    pub(super) age: u32,
    pub(super) seed: bool,
}

/// An item as it was archived.
pub(super) struct ArchivedItem<'a> {
    pub(super) age: u32,
    pub(super) source: SourceKey,
    pub(super) value: &'a [u8],
    pub(super) signed: Option<Signed<'a>>,
}

impl ArchivedItem<'_> {
    pub(super) fn is_valid(&self) -> bool {
        check_value(self.value).is_ok()
            && self.signed.as_ref().is_none_or(|signed| check_signed(signed, self.value).is_ok())
    }

    pub(super) fn target(&self) -> Id {
        match &self.signed {
            Some(signed) => mutable_target(signed.key, signed.salt),
            None => immutable_target(self.value),
        }
    }
}

pub(super) fn put_item(out: &mut Vec<u8>, item: &Item, age: Duration, source: SourceKey) {
    out.push(u8::from(matches!(item, Item::Mutable(_))));
    out.extend_from_slice(&whole_seconds(age).to_be_bytes());
    out.extend_from_slice(&source.to_bytes());
    if let Item::Mutable(item) = item {
        out.extend_from_slice(&item.key);
        out.extend_from_slice(&item.signature);
        out.extend_from_slice(&item.seq.to_be_bytes());
        // At most 64 bytes, as the value is at most 1000.
        out.push(item.salt.len() as u8);
        out.extend_from_slice(&item.salt);
    }
    out.extend_from_slice(&(item.value().len() as u16).to_be_bytes());
    out.extend_from_slice(item.value());
}

/// The age of a peer, and whether it is a seed.
pub(super) fn put_stamp(out: &mut Vec<u8>, age: Duration, seed: bool) {
    let seed = if seed { SEED } else { 0 };
    out.extend_from_slice(&(whole_seconds(age) | seed).to_be_bytes());
}

/// Hands on the peers infohash by infohash, those before the damage too.
pub(super) fn read_peers<A: Address>(
    bytes: &[u8],
    mut take: impl FnMut(&Id, &mut dyn Iterator<Item = ArchivedPeer>),
) -> Result<(), Damaged> {
    let mut bytes = Bytes(bytes);
    while !bytes.0.is_empty() {
        let infohash = Id::new(*bytes.array()?);
        let count = u16::from_be_bytes(*bytes.array()?);
        let peers = bytes.take(usize::from(count) * (A::LEN + STAMP_LEN))?.chunks_exact(A::LEN + STAMP_LEN);
        take(&infohash, &mut peers.filter_map(read_peer::<A>));
    }
    Ok(())
}

/// `None` for bytes of another length only.
fn read_peer<A: Address>(bytes: &[u8]) -> Option<ArchivedPeer> {
    let (addr, stamp) = bytes.split_at_checked(A::LEN)?;
    let stamp = u32::from_be_bytes(stamp.try_into().ok()?);
    let addr = A::from_wire(addr)?.to_socket();
    Some(ArchivedPeer { addr, age: stamp & !SEED, seed: stamp & SEED != 0 })
}

pub(super) fn read_items(bytes: &[u8]) -> Result<Vec<ArchivedItem<'_>>, Damaged> {
    let (mut bytes, mut items) = (Bytes(bytes), Vec::new());
    while !bytes.0.is_empty() {
        let is_mutable = match bytes.array::<1>()? {
            [0] => false,
            [1] => true,
            _ => return Err(Damaged),
        };
        let age = u32::from_be_bytes(*bytes.array()?);
        let source = SourceKey::from_bytes(bytes.array()?);
        let signed = if is_mutable {
            let (key, signature) = (bytes.array()?, bytes.array()?);
            let seq = i64::from_be_bytes(*bytes.array()?);
            let [salt_len] = *bytes.array()?;
            Some(Signed { key, signature, seq, salt: bytes.take(salt_len.into())?, cas: None })
        } else {
            None
        };
        let len = u16::from_be_bytes(*bytes.array()?);
        items.push(ArchivedItem { age, source, value: bytes.take(len.into())?, signed });
    }
    Ok(items)
}

/// Bytes still to be read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Damaged> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Damaged)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], Damaged> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Damaged)?;
        self.0 = rest;
        Ok(taken)
    }
}

/// Rounded up: an announce must not get younger by being saved again and again.
fn whole_seconds(age: Duration) -> u32 {
    let seconds = age.as_secs() + u64::from(age.subsec_nanos() > 0);
    u32::try_from(seconds).unwrap_or(u32::MAX) & !SEED
}

/// Bit of a stamp: the peer is a seed.
const SEED: u32 = 1 << 31;

/// Bytes before the peers of an infohash, and behind each address.
pub(super) const HEAD_LEN: usize = Id::LEN + 2;
pub(super) const STAMP_LEN: usize = 4;

/// Bytes of the largest item: its kind, age and source; key, signature, number and salt; and its value.
pub(super) const MAX_ITEM_LEN: usize = 1 + 4 + 24 + (32 + 64 + 8 + 1 + MAX_SALT) + (2 + MAX_VALUE);
