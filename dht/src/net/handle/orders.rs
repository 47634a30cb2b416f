//! Orders that stand until their handle is dropped: announcing (BEP 5), keeping an item (BEP 44),
//! following a key (BEP 44, BEP 46).

use std::net::SocketAddr;
use std::task::Poll;

use krpc::Id;

use super::reading::{newest, read};
use super::writing::put;
use super::{Dht, PutReport, WeakDht};
use crate::item::{Item, MutableItem, PublicKey};
use crate::net::Error;
use crate::net::shard::Request;
use crate::net::standing::{End, Order, Round, StandingOrder, Step};
use crate::net::subscribers::{Topic, subscription};
use crate::standing::{Pace, Schedule};
use crate::{Announce, Command, Event, Outcome};

/// What became of an announce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnounceReport {
    /// Nodes that stored it.
    pub stored: Vec<(Id, SocketAddr)>,
    /// Nodes that refused it, with the KRPC error code.
    pub refused: Vec<(SocketAddr, i64)>,
    /// Peers that were met on the way.
    pub peers: u32,
    /// How the lookup ended.
    pub outcome: Outcome,
}

impl Dht {
    /// Announces `infohash` to the closest nodes and goes on doing so until the handle is dropped:
    /// every 15 minutes or so ([`Config::announce_every`](crate::Config::announce_every)), soon
    /// again when no node stored it, and at once when our network or address changes. Each round is
    /// reported.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    ///
    /// ```
    /// # use btdht::Announce;
    /// # use btdht::net::{Dht, Options};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), btdht::net::Error> {
    /// let first = Dht::bind(Options::loopback([]))?;
    /// let second = Dht::bind(Options::loopback(first.local_addrs()))?;
    /// let infohash = krpc::Id::new([7; 20]);
    /// let announce = Announce { port: 7777, implied: false, seed: false };
    /// let mut announcing = second.announce(infohash, announce).await?;
    /// let round = announcing.next().await.expect("the node runs");
    /// assert_eq!(round.result.stored.len(), 1);
    /// println!("stored by {:?}, again in {:?}", round.result.stored, round.next);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn announce(
        &self,
        infohash: Id,
        announce: Announce,
    ) -> Result<StandingOrder<Round<AnnounceReport>>, Error> {
        let order = Announcing { node: self.downgrade(), infohash, announce };
        self.order(order, self.shared.paces.announces, Some).await
    }

    /// Stores `item` with the closest nodes and does so again every hour or so
    /// ([`Config::keep_every`](crate::Config::keep_every), BEP 44) until the handle is dropped. An item
    /// of somebody else can be kept as well: the signature is all that is needed. Each round is reported.
    ///
    /// A mutable item gives way to a newer version: before each round the closest nodes are asked for
    /// one, and when there is one the order ends with a last report that has it as
    /// [`PutReport::newer`]. It is never overwritten. Where another value of its own number is met, which nodes
    /// that have it keep, each report names that one there, and the order goes on.
    ///
    /// # Errors
    /// [`Error::Item`] when it is no item, [`Error::Stopped`].
    ///
    /// ```
    /// # use btdht::item::Item;
    /// # use btdht::net::{Dht, Options};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), btdht::net::Error> {
    /// let first = Dht::bind(Options::loopback([]))?;
    /// let second = Dht::bind(Options::loopback(first.local_addrs()))?;
    /// let item = Item::Immutable { value: b"12:Hello World!".to_vec() };
    /// let mut keeping = second.keep(item.clone()).await?;
    /// let round = keeping.next().await.expect("the node runs");
    /// assert_eq!((round.number, round.result.stored.len()), (1, 1));
    /// let third = Dht::bind(Options::loopback(first.local_addrs()))?;
    /// assert!(third.get_immutable(item.target()).await?.is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn keep(&self, item: Item) -> Result<StandingOrder<Round<PutReport>>, Error> {
        item.check().map_err(Error::Item)?;
        let order = Keeping { node: self.downgrade(), item };
        self.order(order, self.shared.paces.items, Some).await
    }

    /// Asks for the newest version of the item of `key` and `salt`, and for newer ones every hour or so
    /// ([`Config::follow_every`](crate::Config::follow_every)), until the handle is dropped: a stream
    /// of versions, each newer than the one before. As long as there is none it asks more often.
    ///
    /// For a mutable torrent (BEP 46) take [`infohash_in`](crate::mutable_torrent::infohash_in) of the
    /// value.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    ///
    /// ```
    /// # use btdht::item::SecretKey;
    /// # use btdht::mutable_torrent::{infohash_in, value_of};
    /// # use btdht::net::{Dht, Options};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), btdht::net::Error> {
    /// let first = Dht::bind(Options::loopback([]))?;
    /// let second = Dht::bind(Options::loopback(first.local_addrs()))?;
    /// let secret = SecretKey::from_seed(&[7; 32]);
    /// let infohash = krpc::Id::new([9; 20]);
    /// second.update(&secret, b"releases", &value_of(&infohash)).await?;
    /// let third = Dht::bind(Options::loopback(first.local_addrs()))?;
    /// let mut versions = third.follow(secret.public(), b"releases", None).await?;
    /// let version = versions.next().await.expect("the node runs");
    /// assert_eq!((version.seq, infohash_in(&version.value)), (1, Some(infohash)));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn follow(
        &self,
        key: PublicKey,
        salt: &[u8],
        seq: Option<i64>,
    ) -> Result<StandingOrder<MutableItem>, Error> {
        self.follow_as(key, salt, (seq, Upkeep::Nothing)).await
    }

    /// [`Dht::follow`], and beside it [`Dht::keep`] of the newest version seen: BEP 46 has whoever consumes
    /// an item put it again as its publisher does, so that it lives as long as anybody wants it. Every version
    /// is signed by the publisher, and none gives way to an older one. Version `seq` itself is kept as soon
    /// as it is met, and not told.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn follow_and_keep(
        &self,
        key: PublicKey,
        salt: &[u8],
        seq: Option<i64>,
    ) -> Result<StandingOrder<MutableItem>, Error> {
        self.follow_as(key, salt, (seq, Upkeep::Newest(None))).await
    }

    async fn follow_as(
        &self,
        key: PublicKey,
        salt: &[u8],
        (seq, upkeep): (Option<i64>, Upkeep),
    ) -> Result<StandingOrder<MutableItem>, Error> {
        let order = Following { node: self.downgrade(), key, salt: salt.into(), seq, upkeep };
        self.order(order, self.shared.paces.keys, |round| round.result).await
    }

    async fn order<O: Order, R: Send + 'static>(
        &self,
        order: O,
        pace: Pace,
        report: impl Fn(Round<O::Result>) -> Option<R> + Send + 'static,
    ) -> Result<StandingOrder<R>, Error> {
        let (subscriber, events) = subscription(Topic::Node);
        self.send(Request::Subscribe(subscriber)).await?;
        let clock = self.shared.clock;
        let schedule = Schedule::new(clock.now(), pace, self.shared.rng());
        Ok(StandingOrder::start(order, schedule, move || clock.now(), events, report))
    }
}

struct Announcing {
    node: WeakDht,
    infohash: Id,
    announce: Announce,
}

impl Order for Announcing {
    type Result = AnnounceReport;

    async fn round(&mut self) -> Option<Step<AnnounceReport>> {
        let (infohash, announce) = (self.infohash, Some(self.announce));
        let mut lookup = self.node.start(Command::GetPeers { infohash, announce, trace: false }).await?;
        let (mut stored, mut refused) = (Vec::new(), Vec::new());
        loop {
            match lookup.next().await? {
                Event::Stored { id, node, .. } => stored.push((id, node)),
                Event::Refused { node, code, .. } => refused.push((node, code)),
                Event::Done { outcome, stats, .. } => {
                    let end = if stored.is_empty() { End::Failure } else { End::Success };
                    let result = AnnounceReport { stored, refused, peers: stats.peers, outcome };
                    return Some(Step { result, end });
                }
                _ => {}
            }
        }
    }
}

struct Keeping {
    node: WeakDht,
    item: Item,
}

impl Order for Keeping {
    type Result = PutReport;

    async fn round(&mut self) -> Option<Step<PutReport>> {
        let mut result = PutReport::of(self.item.target());
        if let Item::Mutable(MutableItem { key, salt, seq, .. }) = &self.item {
            // Versions from its own number on, since others may have another value of that one.
            let (key, salt, seq) = (*key, salt.clone(), seq.checked_sub(1));
            let lookup = self.node.start(Command::GetMutable { key, salt, seq, trace: false }).await?;
            result.newer = read(lookup).await.ok()?.other_than(&self.item);
        }
        let has_gone = |result: &PutReport| result.newer.as_ref().map(|newer| newer.seq) > self.item.seq();
        if has_gone(&result) {
            return Some(Step { result, end: End::Final });
        }
        let item = Box::new(self.item.clone());
        let lookup = self.node.start(Command::Put { item, cas: None, trace: false }).await?;
        put(lookup, &self.item, &mut result).await.ok()?;
        let end = match (has_gone(&result), result.stored.is_empty()) {
            (true, _) => End::Final,
            (false, true) => End::Failure,
            (false, false) => End::Success,
        };
        Some(Step { result, end })
    }
}

struct Following {
    node: WeakDht,
    key: PublicKey,
    salt: Vec<u8>,
    /// The newest version so far.
    seq: Option<i64>,
    upkeep: Upkeep,
}

/// What is kept alive of a key that is followed.
enum Upkeep {
    Nothing,
    /// The newest version, once there is one.
    Newest(Option<Kept>),
}

/// A version, and the order that keeps it.
struct Kept {
    item: MutableItem,
    order: StandingOrder<Round<PutReport>>,
}

impl Following {
    /// Versions newer than this are asked for. A version that is known by its number alone is to be kept as
    /// well, and has to be seen for that.
    fn asks_beyond(&self) -> Option<i64> {
        match self.upkeep {
            Upkeep::Newest(None) => None,
            Upkeep::Nothing | Upkeep::Newest(Some(_)) => self.seq,
        }
    }

    /// Keeps the newest of what was `found` and of what the order that keeps has met; which one that is.
    /// `None` when the node has stopped.
    async fn keep_newest(&mut self, found: Option<MutableItem>) -> Option<Option<MutableItem>> {
        let Upkeep::Newest(kept) = &mut self.upkeep else { return Some(found) };
        let (met, has_ended) = kept.as_mut().map_or((None, false), Kept::news);
        let newest = met.into_iter().chain(found).max_by_key(|item| item.seq);
        let known = kept.as_ref().map(|kept| kept.item.seq);
        let is_wanted = |item: &&MutableItem| Some(item.seq) >= self.seq && Some(item.seq) > known;
        let item = match (newest.as_ref().filter(is_wanted), &kept) {
            (Some(item), _) => item.clone(),
            // Without a newer version that it gave way to: it is not over.
            (None, Some(kept)) if has_ended => kept.item.clone(),
            (None, _) => return Some(newest),
        };
        let order = self.node.upgrade()?.keep(Item::Mutable(item.clone())).await.ok()?;
        *kept = Some(Kept { item, order });
        Some(newest)
    }
}

impl Kept {
    /// The newer version that the order has met, if it has, and whether it has ended.
    fn news(&mut self) -> (Option<MutableItem>, bool) {
        match self.order.unread() {
            Poll::Ready(Some(round)) => (round.result.newer, round.next.is_none()),
            Poll::Ready(None) => (None, true),
            Poll::Pending => (None, false),
        }
    }
}

impl Order for Following {
    type Result = Option<MutableItem>;

    async fn round(&mut self) -> Option<Step<Option<MutableItem>>> {
        let (key, salt, seq) = (self.key, self.salt.clone(), self.asks_beyond());
        let lookup = self.node.start(Command::GetMutable { key, salt, seq, trace: false }).await?;
        let (found, outcome) = newest(lookup).await.ok()?;
        let newest = self.keep_newest(mutable(found)).await?;
        let newer = newest.filter(|item| Some(item.seq) > self.seq);
        self.seq = newer.as_ref().map(|item| item.seq).max(self.seq);
        let answered = matches!(outcome, Outcome::Converged | Outcome::OutOfBudget);
        let end = if answered && self.seq.is_some() { End::Success } else { End::Failure };
        Some(Step { result: newer, end })
    }
}

fn mutable(item: Option<Item>) -> Option<MutableItem> {
    match item? {
        Item::Mutable(item) => Some(item),
        Item::Immutable { .. } => None,
    }
}

#[cfg(test)]
mod tests;
