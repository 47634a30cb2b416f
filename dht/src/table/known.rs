//! [`KnownNode`]: what a routing table knows of a node, for those who look at it from outside.

use std::net::SocketAddr;
use std::time::Duration;

use krpc::Id;
use krpc::compact::Address;

use super::bucket::bucket_number;
use super::{FamilyTable, Standing, Table};
use crate::{Config, Time};

/// A node in a routing table, as it stood when the table was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownNode {
    /// Index of the home whose table it is in.
    pub home: usize,
    /// Its id.
    pub id: Id,
    /// Where it lives.
    pub addr: SocketAddr,
    /// Whether its id belongs to its address (BEP 42).
    pub secure: bool,
    /// Its bucket: the bit length of its distance from our id, so that bucket n holds distances from
    /// 2^(n-1) to 2^n - 1 and 160 is the far half of the key space.
    pub bucket: u32,
    /// What its history says about it.
    pub standing: Standing,
    /// Queries in a row that it did not answer.
    pub failures: u8,
    /// Its round-trip time, smoothed.
    pub rtt: Duration,
    /// How long ago it was last heard of.
    pub age: Duration,
}

impl FamilyTable {
    /// Everybody in the table of the home with that index, farthest bucket first.
    pub(crate) fn known(&self, now: Time, home: usize, config: &Config) -> Vec<KnownNode> {
        match self {
            Self::V4(table) => known(table, now, home, config),
            Self::V6(table) => known(table, now, home, config),
        }
    }

    /// Removes whoever is at `addr`, from the buckets and from those who wait. Whether a bucket had it.
    pub(crate) fn forget(&mut self, addr: SocketAddr) -> bool {
        match self {
            Self::V4(table) => Address::from_socket(addr).is_some_and(|addr| forget(table, addr)),
            Self::V6(table) => Address::from_socket(addr).is_some_and(|addr| forget(table, addr)),
        }
    }
}

fn forget<A: Address>(table: &mut Table<A>, addr: A) -> bool {
    table.drop_candidates(|candidate| candidate.addr == addr);
    let index = table.entries.iter().position(|entry| entry.addr == addr);
    index.map(|index| table.remove(index)).is_some()
}

fn known<A: Address>(table: &Table<A>, now: Time, home: usize, config: &Config) -> Vec<KnownNode> {
    let of = |entry: &super::Entry<A>| KnownNode {
        home,
        id: entry.id,
        addr: entry.addr.to_socket(),
        secure: !entry.is_insecure(),
        bucket: bucket_number(table.own(), &entry.id),
        standing: entry.standing(now, config.questionable_after, config.bad_after_failures),
        failures: entry.fails(),
        rtt: entry.rtt(),
        age: now.since(entry.seen().time()),
    };
    table.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use krpc::compact::{Contact, V4};

    use super::*;

    #[test]
    fn a_view_has_bucket_numbers_by_distance_and_what_history_says() {
        let config = Config::default();
        let mut table = Table::new(Id::ZERO);
        let now = Time::from_secs(100);
        for (byte, host) in [(0x80, "81.1.1.1:1"), (0x40, "82.1.1.1:1")] {
            let mut id = [0; 20];
            id[0] = byte;
            let addr = V4::from_socket(host.parse().unwrap()).unwrap();
            table.insert(now, Contact { id: Id::new(id), addr }, Duration::from_millis(64), &config);
        }
        table.failed(V4::from_socket("82.1.1.1:1".parse().unwrap()).unwrap(), &config);
        let mut table = FamilyTable::V4(table);
        let known = table.known(now + Duration::from_secs(7), 3, &config);
        let seen: Vec<_> = known.iter().map(|node| (node.bucket, node.standing, node.failures)).collect();
        assert_eq!(seen, [(160, Standing::Trusty, 0), (159, Standing::Questionable, 1)]);
        assert!(known.iter().all(|n| n.home == 3 && n.age == Duration::from_secs(7) && !n.secure));
        assert!(table.forget(known[0].addr) && !table.forget(known[0].addr));
        let left = table.known(now, 3, &config);
        assert_eq!(left.iter().map(|node| node.addr).collect::<Vec<_>>(), [known[1].addr]);
    }
}
