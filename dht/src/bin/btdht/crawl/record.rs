//! How infohashes and nodes are written to the database: records of fixed length, numbers with the most
//! significant byte first. Times are whole seconds since 1970.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use btdht::SwarmEstimate;
use krpc::Id;

/// Bytes of an [`Infohash`].
pub(super) const INFOHASH_LEN: usize = 54;
/// Bytes of a [`Node`].
pub(super) const NODE_LEN: usize = 47;

/// What is known of an infohash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Infohash {
    pub(super) first_seen: u64,
    pub(super) last_seen: u64,
    /// How often it was told.
    pub(super) times_seen: u32,
    /// A bit for each node that told it, by a hash of the node's source: see [`Infohash::nodes`].
    tellers: u128,
    /// The size of its swarm, as somebody last knew it.
    swarm: SwarmEstimate,
    /// When somebody knew it; 0 for never.
    sized_at: u64,
    /// When it was asked for; 0 for never.
    asked_at: u64,
}

/// A node that may be asked again at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) id: Id,
    pub(super) addr: SocketAddr,
    pub(super) standing: Standing,
    /// Until when; 0 where that has no meaning.
    pub(super) until: u64,
}

/// See `btdht::crawl::Standing`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Fresh,
    Resting,
    Silent,
    Refused,
}

impl Infohash {
    /// It was told by the node whose source has this hash.
    pub(super) fn told(&mut self, now: u64, teller: u64) {
        if self.times_seen == 0 {
            self.first_seen = now;
        }
        // A clock that was set back must not make it older; one that was far ahead must not be believed for good.
        self.last_seen = if is_ahead(self.last_seen, now) { now } else { self.last_seen.max(now) };
        self.first_seen = self.first_seen.min(self.last_seen);
        self.times_seen = self.times_seen.saturating_add(1);
        self.tellers |= 1 << (teller % u128::BITS as u64);
    }

    /// About how many nodes told it: seldom off by one for a handful, by some percent for more, and 621 at
    /// most.
    pub(super) fn nodes(&self) -> u32 {
        let bits = f64::from(u128::BITS);
        let zeroes = f64::from(self.tellers.count_zeros().max(1));
        (bits * (bits / zeroes).ln()).round() as u32
    }

    /// Nodes were asked for the size of its swarm. That nobody knew this time is no reason to forget what
    /// somebody knew.
    pub(super) fn sized(&mut self, now: u64, swarm: SwarmEstimate) {
        self.asked_at = now;
        if swarm.nodes > 0 {
            (self.swarm, self.sized_at) = (swarm, now);
        } else if is_ahead(self.sized_at, now) {
            // Nobody can say how old it is.
            (self.swarm, self.sized_at) = (SwarmEstimate::default(), 0);
        }
    }

    /// Whether a size has not been asked for within so many seconds.
    pub(super) fn is_unsized(&self, now: u64, kept: u64) -> bool {
        self.asked_at == 0 || is_ahead(self.asked_at, now) || now.saturating_sub(self.asked_at) > kept
    }

    /// The size of its swarm, and when somebody knew it.
    pub(super) fn size(&self) -> Option<(SwarmEstimate, u64)> {
        (self.sized_at > 0).then_some((self.swarm, self.sized_at))
    }

    pub(super) fn encode(&self) -> [u8; INFOHASH_LEN] {
        let SwarmEstimate { seeds, downloaders, nodes, .. } = self.swarm;
        let nodes = u16::try_from(nodes).unwrap_or(u16::MAX);
        // Until the year 2106.
        let short = |time: u64| u32::try_from(time).unwrap_or(u32::MAX).to_be_bytes();
        let mut bytes = [0; INFOHASH_LEN];
        let mut rest = &mut bytes[..];
        for part in [
            &self.first_seen.to_be_bytes()[..],
            &self.last_seen.to_be_bytes(),
            &self.times_seen.to_be_bytes(),
            &self.tellers.to_be_bytes(),
            &seeds.to_be_bytes(),
            &downloaders.to_be_bytes(),
            &nodes.to_be_bytes(),
            &short(self.sized_at),
            &short(self.asked_at),
        ] {
            let (place, after) = rest.split_at_mut(part.len());
            place.copy_from_slice(part);
            rest = after;
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8; INFOHASH_LEN]) -> Self {
        fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
            let (part, after) = rest.split_first_chunk().expect("the parts are as long as the record");
            *rest = after;
            *part
        }
        let rest = &mut &bytes[..];
        let mut infohash = Self {
            first_seen: u64::from_be_bytes(take(rest)),
            last_seen: u64::from_be_bytes(take(rest)),
            times_seen: u32::from_be_bytes(take(rest)),
            tellers: u128::from_be_bytes(take(rest)),
            swarm: SwarmEstimate {
                seeds: u32::from_be_bytes(take(rest)),
                downloaders: u32::from_be_bytes(take(rest)),
                nodes: u16::from_be_bytes(take(rest)).into(),
                ignored: 0,
            },
            sized_at: u32::from_be_bytes(take(rest)).into(),
            asked_at: u32::from_be_bytes(take(rest)).into(),
        };
        // Earlier versions wrote only when it was asked for, in eight bytes.
        if infohash.sized_at == 0 && infohash.swarm.nodes > 0 {
            infohash.sized_at = infohash.asked_at;
        }
        infohash
    }
}

impl Node {
    pub(super) fn encode(&self) -> [u8; NODE_LEN] {
        let ip = match self.addr.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let mut bytes = [0; NODE_LEN];
        bytes[..20].copy_from_slice(self.id.as_bytes());
        bytes[20..36].copy_from_slice(&ip.octets());
        bytes[36..38].copy_from_slice(&self.addr.port().to_be_bytes());
        bytes[38] = self.standing as u8;
        bytes[39..].copy_from_slice(&self.until.to_be_bytes());
        bytes
    }

    /// `None` for what nobody wrote.
    pub(super) fn decode(bytes: &[u8; NODE_LEN]) -> Option<Self> {
        let ip: [u8; 16] = bytes[20..36].try_into().ok()?;
        let port = u16::from_be_bytes([bytes[36], bytes[37]]);
        let standing = match bytes[38] {
            0 => Standing::Fresh,
            1 => Standing::Resting,
            2 => Standing::Silent,
            3 => Standing::Refused,
            _ => return None,
        };
        Some(Self {
            id: Id::from_slice(&bytes[..20])?,
            addr: SocketAddr::new(Ipv6Addr::from(ip).to_canonical(), port),
            standing,
            until: u64::from_be_bytes(bytes[39..].try_into().ok()?),
        })
    }
}

/// Whether a time that was written is farther ahead than clocks are set back: it is of one that was wrong.
pub(super) fn is_ahead(written: u64, now: u64) -> bool {
    written > now.saturating_add(24 * 3600)
}

/// Whole seconds since 1970.
pub(super) fn seconds(moment: SystemTime) -> u64 {
    moment.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The moment of so many seconds since 1970.
pub(super) fn moment(seconds: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_they_were_written() {
        let mut infohash = Infohash::default();
        infohash.told(1000, 77);
        infohash.told(900, 78);
        infohash.told(2000, 77);
        assert_eq!((infohash.first_seen, infohash.last_seen, infohash.times_seen), (1000, 2000, 3));
        assert_eq!((Infohash::decode(&infohash.encode()), infohash.size()), (infohash, None));
        let swarm = SwarmEstimate { seeds: 1, downloaders: 70_000, nodes: 3, ignored: 0 };
        infohash.sized(3000, swarm);
        infohash.sized(4000, SwarmEstimate::default());
        let read = Infohash::decode(&infohash.encode());
        assert_eq!((read, read.size()), (infohash, Some((swarm, 3000))));
        for addr in ["81.2.3.4:6881", "[2001:db8::1]:1"] {
            for standing in [Standing::Fresh, Standing::Resting, Standing::Silent, Standing::Refused] {
                let node =
                    Node { id: Id::new([7; 20]), addr: addr.parse().unwrap(), standing, until: 1 << 40 };
                assert_eq!(Node::decode(&node.encode()), Some(node));
            }
        }
        let mut bytes = [0; NODE_LEN];
        bytes[38] = 9;
        assert_eq!(Node::decode(&bytes), None);
    }

    /// The first form of the tables.
    #[test]
    fn of_earlier_records_a_size_is_as_old_as_the_question() {
        let mut bytes = [0; INFOHASH_LEN];
        // Told by somebody once, when a second had passed; seeds, downloaders, nodes, and a time of eight bytes.
        (bytes[7], bytes[15], bytes[19], bytes[35]) = (1, 1, 1, 1);
        assert_eq!(Infohash::decode(&bytes).size(), None);
        bytes[36..46].copy_from_slice(&[0, 0, 0, 5, 0, 0, 0, 2, 0, 3]);
        bytes[46..].copy_from_slice(&4000_u64.to_be_bytes());
        let swarm = SwarmEstimate { seeds: 5, downloaders: 2, nodes: 3, ignored: 0 };
        let infohash = Infohash::decode(&bytes);
        assert_eq!((infohash.first_seen, infohash.nodes(), infohash.size()), (1, 1, Some((swarm, 4000))));
        // Asked for, and nobody knew.
        bytes[36..46].fill(0);
        assert_eq!(Infohash::decode(&bytes).size(), None);
    }

    #[test]
    fn a_clock_that_was_ahead_is_not_believed_for_good() {
        let day = 24 * 3600;
        let mut infohash = Infohash::default();
        infohash.told(5 * day, 1);
        infohash.told(4 * day, 1);
        assert_eq!((infohash.first_seen, infohash.last_seen), (5 * day, 5 * day), "it may have been right");
        infohash.told(4 * day - 1, 1);
        assert_eq!((infohash.first_seen, infohash.last_seen), (4 * day - 1, 4 * day - 1));
        infohash.told(6 * day, 1);
        assert_eq!((infohash.first_seen, infohash.last_seen), (4 * day - 1, 6 * day));

        assert!(infohash.is_unsized(day, day));
        infohash.sized(5 * day, SwarmEstimate::default());
        let unsized_at =
            [4 * day - 1, 4 * day, 5 * day, 6 * day, 6 * day + 1].map(|now| infohash.is_unsized(now, day));
        assert_eq!(unsized_at, [true, false, false, false, true]);

        let size = SwarmEstimate { seeds: 1, downloaders: 1, nodes: 1, ignored: 0 };
        infohash.sized(5 * day, size);
        infohash.sized(4 * day, SwarmEstimate::default());
        assert_eq!(infohash.size(), Some((size, 5 * day)), "it may have been right");
        infohash.sized(4 * day - 1, SwarmEstimate::default());
        assert_eq!((infohash.size(), Infohash::decode(&infohash.encode()).size()), (None, None));
    }

    #[test]
    fn tellers_are_counted_once_each_few_of_them_exactly() {
        let mut infohash = Infohash::default();
        assert_eq!(infohash.nodes(), 0);
        for n in 0..8 {
            infohash.told(1, n * 37);
            infohash.told(1, n * 37);
            assert_eq!(u64::from(infohash.nodes()), n + 1);
        }
        let mut rng = btdht::Rng::from_seed(1);
        let mut many = Infohash::default();
        (0..100).for_each(|_| many.told(1, rng.next_u64()));
        assert!((80..=120).contains(&many.nodes()), "{}", many.nodes());
        many.tellers = u128::MAX;
        assert_eq!(many.nodes(), 621);
    }
}
