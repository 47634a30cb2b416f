//! [`FamilyTable`]: a [`Table`] of either address family behind socket addresses, so that a home can
//! be of either.

use std::net::SocketAddr;
use std::time::Duration;

use arrayvec::ArrayVec;
use krpc::Id;
use krpc::compact::{self, Address, Contact, V4, V6};

use super::closest::MAX_CLOSEST;
use super::{BucketFill, Failure, Insertion, OwnIps, Standing, Table};
use crate::store::Family;
use crate::{Config, Rng, Time};

/// A routing table of one family.
#[derive(Clone, Debug)]
pub(crate) enum FamilyTable {
    V4(Table<V4>),
    V6(Table<V6>),
}

/// Evaluates an expression on the table of whichever family it is.
macro_rules! either {
    ($self:expr, $table:ident => $value:expr) => {
        match $self {
            FamilyTable::V4($table) => $value,
            FamilyTable::V6($table) => $value,
        }
    };
}

/// An id and where it lives.
pub(crate) type Node = (Id, SocketAddr);

impl FamilyTable {
    pub(crate) fn new(family: Family, own: Id) -> Self {
        match family {
            Family::V4 => Self::V4(Table::new(own)),
            Family::V6 => Self::V6(Table::new(own)),
        }
    }

    pub(crate) fn family(&self) -> Family {
        match self {
            Self::V4(_) => Family::V4,
            Self::V6(_) => Family::V6,
        }
    }

    /// See [`Table::insert`]. An address of the other family is refused.
    pub(crate) fn insert(
        &mut self,
        now: Time,
        id: Id,
        addr: SocketAddr,
        rtt: Duration,
        config: &Config,
    ) -> Insertion<SocketAddr> {
        fn insert<A: Address>(
            table: &mut Table<A>,
            now: Time,
            (id, addr): Node,
            rtt: Duration,
            config: &Config,
        ) -> Insertion<SocketAddr> {
            let Some(addr) = A::from_socket(addr) else {
                return Insertion::Refused;
            };
            match table.insert(now, Contact { id, addr }, rtt, config) {
                Insertion::Candidate { ping } => {
                    let ping = ping.map(|c| Contact { id: c.id, addr: c.addr.to_socket() });
                    Insertion::Candidate { ping }
                }
                Insertion::Known => Insertion::Known,
                Insertion::Added => Insertion::Added,
                Insertion::Evicted => Insertion::Evicted,
                Insertion::Refused => Insertion::Refused,
            }
        }
        either!(self, table => insert(table, now, (id, addr), rtt, config))
    }

    /// See [`Table::heard`].
    pub(crate) fn heard(&mut self, now: Time, id: Id, addr: SocketAddr) -> bool {
        either!(self, table => contact(id, addr).is_some_and(|contact| table.heard(now, &contact)))
    }

    /// See [`Table::wants`].
    pub(crate) fn wants(&self, now: Time, id: Id, addr: SocketAddr, config: &Config) -> bool {
        either!(self, table => contact(id, addr).is_some_and(|contact| table.wants(now, &contact, config)))
    }

    /// See [`Table::knows_otherwise`].
    pub(crate) fn knows_otherwise(&self, id: Id, addr: SocketAddr) -> bool {
        either!(self, table => contact(id, addr).is_some_and(|contact| table.knows_otherwise(&contact)))
    }

    /// See [`Table::failed`].
    pub(crate) fn failed(&mut self, addr: SocketAddr, config: &Config) -> Failure {
        either!(self, table => match Address::from_socket(addr) {
            Some(addr) => table.failed(addr, config),
            None => Failure::Unknown,
        })
    }

    /// See [`Table::is_at_its_last`].
    pub(crate) fn is_at_its_last(&self, addr: SocketAddr, config: &Config) -> bool {
        either!(self, table => Address::from_socket(addr).is_some_and(|addr| table.is_at_its_last(addr, config)))
    }

    /// See [`Table::forgive`].
    pub(crate) fn forgive(&mut self, addr: SocketAddr) {
        either!(self, table => if let Some(addr) = Address::from_socket(addr) {
            table.forgive(addr);
        });
    }

    /// See [`Table::pardon_all`].
    pub(crate) fn pardon_all(&mut self) {
        either!(self, table => table.pardon_all());
    }

    /// See [`Table::is_trusty_at`].
    pub(crate) fn is_trusty_at(&self, now: Time, addr: SocketAddr, config: &Config) -> Option<bool> {
        either!(self, table => table.is_trusty_at(now, Address::from_socket(addr)?, config))
    }

    /// See [`Table::ping_freshest`].
    pub(crate) fn ping_freshest(&mut self, now: Time, own: OwnIps, config: &Config) -> Option<Node> {
        either!(self, table => table.ping_freshest(now, own, config).map(|c| (c.id, c.addr.to_socket())))
    }

    /// See [`Table::forget_candidate`].
    pub(crate) fn forget_candidate(&mut self, addr: SocketAddr) {
        either!(self, table => if let Some(addr) = Address::from_socket(addr) {
            table.forget_candidate(addr);
        });
    }

    /// See [`Table::ping_unheard_since`].
    pub(crate) fn ping_unheard_since(&mut self, since: Time) -> Option<Node> {
        either!(self, table => table.ping_unheard_since(since).map(|c| (c.id, c.addr.to_socket())))
    }

    /// See [`Table::any`].
    pub(crate) fn any(&self, rng: &mut Rng) -> Option<Node> {
        either!(self, table => table.any(rng).map(|c| (c.id, c.addr.to_socket())))
    }

    /// See [`Table::evict`].
    pub(crate) fn evict(&mut self, addr: SocketAddr, answered: &Id) -> bool {
        either!(self, table => Address::from_socket(addr).is_some_and(|addr| table.evict(addr, answered)))
    }

    /// See [`Table::ping_most_questionable`].
    pub(crate) fn ping_most_questionable(&mut self, now: Time, config: &Config) -> Option<Node> {
        either!(self, table => table.ping_most_questionable(now, config).map(|c| (c.id, c.addr.to_socket())))
    }

    /// See [`Table::rekey`].
    pub(crate) fn rekey(&mut self, now: Time, own: Id, config: &Config) {
        either!(self, table => table.rekey(now, own, config));
    }

    /// See [`Table::refreshing`].
    pub(crate) fn refreshing(&mut self, now: Time, number: u32) {
        either!(self, table => table.refreshing(now, number));
    }

    /// Makes room for so many further nodes and no more.
    #[cfg(feature = "sim")]
    pub(crate) fn reserve_exact(&mut self, nodes: usize) {
        either!(self, table => table.reserve_exact(nodes));
    }

    /// See [`crate::Node::warm`]: the far buckets, in which most ids belong.
    #[cfg(feature = "sim")]
    pub(crate) fn warm(&self) -> u64 {
        either!(self, table => {
            let far = table.iter().take(TOUCHED).step_by(2);
            far.fold(table.buckets() as u64, |sum, entry| sum ^ u64::from(entry.fails()))
        })
    }

    pub(crate) fn len(&self) -> usize {
        either!(self, table => table.len())
    }

    pub(crate) fn own(&self) -> &Id {
        either!(self, table => table.own())
    }

    pub(crate) fn candidates(&self) -> usize {
        either!(self, table => table.candidates())
    }

    pub(crate) fn buckets(&self) -> usize {
        either!(self, table => table.buckets())
    }

    /// See [`Table::fill`].
    pub(crate) fn fill(&self, now: Time, config: &Config) -> Vec<BucketFill> {
        either!(self, table => table.fill(now, config))
    }

    pub(crate) fn trusty(&self, now: Time, config: &Config) -> usize {
        either!(self, table => table.trusty(now, config))
    }

    /// See [`Table::trusty_elsewhere`].
    pub(crate) fn trusty_elsewhere(&self, now: Time, own: OwnIps, config: &Config) -> usize {
        either!(self, table => table.trusty_elsewhere(now, own, config))
    }

    /// See [`Table::network_size`].
    pub(crate) fn network_size(&self, config: &Config) -> u64 {
        either!(self, table => table.network_size(config))
    }

    /// See [`Table::insecure`].
    pub(crate) fn insecure(&self) -> usize {
        either!(self, table => table.insecure())
    }

    /// Median of the nodes' round-trip times.
    pub(crate) fn median_rtt(&self) -> Duration {
        let mut rtts: Vec<Duration> = either!(self, table => table.iter().map(super::Entry::rtt).collect());
        let middle = rtts.len() / 2;
        if rtts.is_empty() { Duration::ZERO } else { *rtts.select_nth_unstable(middle).1 }
    }

    /// See [`Table::is_full`].
    pub(crate) fn is_full(&self, id: &Id, config: &Config) -> bool {
        either!(self, table => table.is_full(id, config))
    }

    /// See [`Table::next_refresh`].
    pub(crate) fn next_refresh(&self, config: &Config) -> Option<(u32, Time)> {
        either!(self, table => table.next_refresh(config))
    }

    /// See [`Table::is_fresh`].
    pub(crate) fn is_fresh(&self, now: Time, number: u32, config: &Config) -> bool {
        either!(self, table => table.is_fresh(now, number, config))
    }

    /// See [`Table::random_id`].
    pub(crate) fn random_id(&self, number: u32, rng: &mut Rng) -> Id {
        either!(self, table => table.random_id(number, rng))
    }

    /// See [`Table::random_id_in_part`].
    pub(crate) fn random_id_in_part(&self, number: u32, part: (u32, u32), rng: &mut Rng) -> Id {
        either!(self, table => table.random_id_in_part(number, part, rng))
    }

    /// See [`Table::uncovered`].
    pub(crate) fn uncovered(&self, rng: &mut Rng, config: &Config) -> Option<Id> {
        either!(self, table => table.uncovered(rng, config))
    }

    /// See [`Table::gap_count`].
    pub(crate) fn gap_count(&self, config: &Config) -> usize {
        either!(self, table => table.gap_count(config))
    }

    /// See [`Table::is_gap`].
    pub(crate) fn is_gap(&self, id: &Id, config: &Config) -> bool {
        either!(self, table => table.is_gap(id, config))
    }

    /// See [`Table::next_questionable`].
    pub(crate) fn next_questionable(&self, config: &Config) -> Option<Time> {
        either!(self, table => table.next_questionable(config))
    }

    /// The nodes nearest to `target` that are not bad, nearest first; at most [`MAX_CLOSEST`].
    pub(crate) fn closest(&self, target: &Id, count: usize, config: &Config) -> ArrayVec<Node, MAX_CLOSEST> {
        let good = config.bad_after_failures;
        either!(self, table => {
            let closest = table.closest(target, count, |entry| entry.fails() < good);
            closest.map(|entry| (entry.id, entry.addr.to_socket())).collect()
        })
    }

    /// The nodes that promise to bring a lookup near `target` soonest, nearest first: each bit that a
    /// node is nearer makes up for [`BIT`] of round-trip time.
    pub(crate) fn quickest(&self, target: &Id, count: usize, config: &Config) -> ArrayVec<Node, MAX_CLOSEST> {
        let good = config.bad_after_failures;
        either!(self, table => {
            let fit = table.iter().filter(|entry| entry.fails() < good);
            let mut by_time: Vec<_> = fit
                .map(|entry| {
                    let handicap = BIT * (Id::BITS - entry.id.prefix_len(target));
                    (entry.rtt() + handicap, entry.id, entry.addr)
                })
                .collect();
            by_time.sort_unstable_by_key(|&(time, ..)| time);
            by_time.truncate(count.min(MAX_CLOSEST));
            by_time.sort_unstable_by_key(|(_, id, _)| id.distance(target));
            by_time.into_iter().map(|(_, id, addr)| (id, addr.to_socket())).collect()
        })
    }

    /// Appends the records of the nodes nearest to `target` that are not bad.
    pub(crate) fn put_closest(&self, target: &Id, count: usize, config: &Config, out: &mut Vec<u8>) {
        let good = config.bad_after_failures;
        either!(self, table => {
            for entry in table.closest(target, count, |entry| entry.fails() < good) {
                compact::put_record(out, &entry.id, &entry.addr);
            }
        });
    }

    /// All nodes that are worth saving: those that are not bad, trusty ones first.
    pub(crate) fn saved(&self, now: Time, config: &Config) -> Vec<Node> {
        fn saved<A: Address>(table: &Table<A>, now: Time, config: &Config) -> Vec<Node> {
            let standing =
                |e: &super::Entry<A>| e.standing(now, config.questionable_after, config.bad_after_failures);
            let of = |wanted| {
                table.iter().filter(move |&e| standing(e) == wanted).map(|e| (e.id, e.addr.to_socket()))
            };
            of(Standing::Trusty).chain(of(Standing::Questionable)).collect()
        }
        either!(self, table => saved(table, now, config))
    }
}

/// Entries of the three farthest buckets, of which two share a cache line.
#[cfg(feature = "sim")]
const TOUCHED: usize = 24;

/// Round-trip time that a bit of nearness is worth: a referral takes some 70 ms and brings three or four.
const BIT: Duration = Duration::from_millis(12);

fn contact<A: Address>(id: Id, addr: SocketAddr) -> Option<Contact<A>> {
    A::from_socket(addr).map(|addr| Contact { id, addr })
}
