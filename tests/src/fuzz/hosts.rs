//! The strangers of a fuzzed node and what they name: hosts, targets and items by a byte.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use btdht::Rng;
use btdht::item::{MutableItem, SecretKey, immutable_target, mutable_target};
use krpc::Id;

/// The address of host `n`: every fourth of IPv6, a few of a network of their own, one that cannot be.
pub(super) fn addr_of(n: u8) -> SocketAddr {
    match n {
        7 => ([127, 0, 0, 1], 6881).into(),
        8..=15 => ([81, 1, 1, n], 6881).into(),
        16..=23 => ([82, 2, 2, 2], u16::from(n)).into(),
        n if n % 4 == 3 => ([0x2001, 0xdb8, 1, u16::from(n), 0, 0, 0, 1], 6881).into(),
        n => ([80, n, 1, 1], 6881).into(),
    }
}

pub(super) fn id_of(n: u8) -> Id {
    thread_local! {
        static IDS: Vec<Id> = (0..256).map(|n| Rng::from_seed(n).id()).collect();
    }
    IDS.with(|ids| ids[usize::from(n)])
}

/// The id of whoever lives at `addr`.
pub(super) fn id_at(addr: SocketAddr) -> Id {
    thread_local! {
        static HOSTS: BTreeMap<SocketAddr, u8> = (0..=255).map(|n| (addr_of(n), n)).collect();
    }
    HOSTS.with(|hosts| hosts.get(&addr).copied().map_or(Id::ZERO, id_of))
}

pub(super) fn target_of(n: u8) -> Id {
    Id::new([n % 16; 20])
}

pub(super) fn value_of(n: u8) -> Vec<u8> {
    match n % 4 {
        0 => format!("i{n}e").into_bytes(),
        1 => [b"996:".to_vec(), vec![n; 996]].concat(),
        2 => b"d1:ai1e1:bli2eee".to_vec(),
        _ => b"d1:bi1e1:ai2ee".to_vec(),
    }
}

/// Versions of one item and of others.
pub(super) fn mutable_of(n: u8) -> MutableItem {
    thread_local! {
        // Signing takes longer than the rest of a run.
        static ITEMS: Vec<MutableItem> = (0..8u8).map(|n| {
            let secret = SecretKey::from_seed(&[n % 2; 32]);
            let value = if n == 5 { value_of(1) } else { value_of(0) };
            MutableItem::sign(&secret, b"salt", i64::from(n), &value).unwrap()
        }).collect();
    }
    ITEMS.with(|items| items[usize::from(n % 8)].clone())
}

/// What a `get` may be for.
pub(super) fn items_target(n: u8) -> Id {
    let item = mutable_of(n % 8);
    if n & 8 == 0 { immutable_target(&value_of(n)) } else { mutable_target(&item.key, &item.salt) }
}
