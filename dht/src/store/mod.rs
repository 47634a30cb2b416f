//! [`Store`]: the peers that announced themselves (BEP 5, "announce_peer"), with every cap on them:
//! peers of an infohash, ports of a source, infohashes of a source, age, and one budget of memory
//! over everything (D5). Tokens, replies and which addresses are acceptable are decided elsewhere.
//!
//! When the budget is spent, the stalest infohash of 16 drawn at random goes with all its
//! peers, which evicts from the stalest tenth or so of the store without keeping the store in order.
//! A *source* is an IPv4 address or an IPv6 /64.
//!
//! A store that holds nothing is some 50 bytes: a simulated node, of which there are a million, holds
//! nothing most of the time. What it is made of otherwise is in `full`.

mod archive;
mod blocks;
mod budget;
mod full;
mod index;
mod items;
mod kept;
mod limits;
mod lost;
mod peers;
mod returned;
mod samples;
mod select;
mod sketch;
mod slab;
mod striped;
mod table;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use krpc::{Id, Signed};

use self::budget::Budget;
use self::full::Full;
pub(crate) use self::items::Put;
use self::sketch::Sketch;
use crate::addr::SourceKey;
use crate::item::Item;
use crate::{Config, Rng, Seeds, Time};

pub use self::archive::{Archive, Archiving, Counts, Damaged};
pub use self::full::Announced;
pub use self::kept::Kept;
pub use self::lost::Lost;
pub use self::select::{Scrape, StoredPeer, Wanted};
pub use self::striped::Striped;
pub use crate::addr::Family;

/// The peers of infohashes.
#[derive(Debug)]
pub struct Store {
    /// Made by the first announce or put, gone when the last has expired.
    full: Option<Box<Full>>,
    config: Arc<Config>,
    /// Of a store that holds nothing; otherwise it is further on, in `full`.
    rng: Rng,
}

impl Store {
    /// An empty store with the caps of `config`. It allocates nothing before the first announce.
    pub fn new(config: &Arc<Config>, rng: &mut Rng) -> Self {
        let mut seed = [0; 32];
        rng.fill(&mut seed);
        Self { full: None, config: Arc::clone(config), rng: Rng::new(Seeds(seed)) }
    }

    /// An empty store that has its memory and counts the infohashes of sources together with others.
    fn stripe(config: &Arc<Config>, rng: &mut Rng, budget: Budget, sketch: Option<Sketch>) -> Self {
        let mut store = Self::new(config, rng);
        let full = store.filled();
        (full.budget, full.sketch) = (budget, sketch);
        store
    }

    /// Stores `peer` for `infohash` or makes it young again. Port 0 is refused.
    ///
    /// A source that has all its ports loses the stalest one; an infohash that has all its peers
    /// loses the stalest of 16 drawn at random.
    pub fn announce(&mut self, now: Time, infohash: &Id, peer: SocketAddr, seed: bool) -> Announced {
        self.filled().announce(now, infohash, peer, seed)
    }

    /// Appends a random sample of the peers of `infohash` as bencoded strings (`6:…` or `18:…`) to
    /// `out`; says how many. All peers come if they fit, and every peer is equally likely to come if
    /// they do not. Expired ones never come.
    pub fn values(
        &mut self,
        now: Time,
        infohash: &Id,
        wanted: Wanted,
        rng: &mut Rng,
        out: &mut Vec<u8>,
    ) -> usize {
        self.full.as_mut().map_or(0, |full| full.values(now, infohash, wanted, rng, out))
    }

    /// The filters of BEP 33 over seeds and over all others; `None` without any peer. Each IP is in
    /// one of them, and in that of the seeds if any of its ports is one.
    pub fn scrape(&mut self, now: Time, infohash: &Id) -> Option<Scrape> {
        self.full.as_mut()?.scrape(now, infohash)
    }

    /// Removes expired peers of up to 256 infohashes, some 20 µs of work. Called when
    /// [`Store::timeout`] is due, this passes the whole store in an eighth of [`Config::peer_expiry`]
    /// (within 1 s to 5 minutes). What went since the last call of this or of [`Store::take_lost`].
    pub fn expire(&mut self, now: Time) -> Lost {
        let Some(full) = &mut self.full else { return Lost::default() };
        full.expire(now);
        let lost = full.take_lost();
        let is_stripe = full.budget.is_shared();
        if full.is_empty() && full.items() == 0 && !is_stripe {
            self.rng = full.rng.clone();
            self.full = None;
        }
        lost
    }

    /// What went since the last call, to be counted by whoever has just stored something.
    pub fn take_lost(&mut self) -> Lost {
        self.full.as_mut().map_or_else(Lost::default, |full| full.take_lost())
    }

    /// When [`Store::expire`] wants to be called: [`Time::NEVER`] while the store is empty.
    pub fn timeout(&self) -> Time {
        self.full.as_ref().map_or(Time::NEVER, |full| full.timeout())
    }

    /// The item of BEP 44 under `target`.
    pub(crate) fn item(&mut self, now: Time, target: &Id) -> Option<&Item> {
        self.full.as_mut()?.items.get(now, target)
    }

    /// What a put would come to, as far as numbers decide. Verify the signature if it is `None`, and
    /// then [`Store::put_item`] it.
    pub(crate) fn item_objection(
        &self,
        now: Time,
        target: &Id,
        value: &[u8],
        signed: Option<&Signed<'_>>,
    ) -> Option<Put> {
        self.full.as_ref()?.items.objection(now, target, value, signed)
    }

    /// Stores an item that was found good, signature included.
    pub(crate) fn put_item(
        &mut self,
        now: Time,
        target: Id,
        source: SourceKey,
        item: (&[u8], Option<Signed<'_>>),
    ) -> Put {
        self.filled().items.put(now, target, source, item)
    }

    /// Items of BEP 44 that are stored, with expired ones that no sweep has met yet.
    pub fn items(&self) -> usize {
        self.full.as_ref().map_or(0, |full| full.items())
    }

    /// Every item of BEP 44 that has not expired with its age, least recently used first.
    pub fn iter_items(&self, now: Time) -> impl Iterator<Item = (&Item, Duration)> {
        self.full.iter().flat_map(move |full| full.items.iter(now))
    }

    /// Whether an announce of this address would be taken: for withholding a token from a source that
    /// announced its share of infohashes already (BEP 5 lets a node do so by sending none).
    pub fn accepts_more(&self, infohash: &Id, ip: IpAddr) -> bool {
        self.full.as_ref().is_none_or(|full| full.accepts_more(infohash, ip))
    }

    /// Peers stored, with expired ones that no sweep has met yet.
    pub fn len(&self) -> usize {
        self.full.as_ref().map_or(0, |full| full.len())
    }

    /// Whether no peer is stored.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Infohashes that have peers.
    pub fn infohashes(&self) -> usize {
        self.full.as_ref().map_or(0, |full| full.infohashes())
    }

    /// Bytes allocated for peers, with what the allocator adds.
    pub fn memory(&self) -> usize {
        self.full.as_ref().map_or(0, |full| full.memory())
    }

    /// The infohashes that a node may tell of now (BEP 51): 20 bytes each one behind the other, and the
    /// seconds for which they stay the same.
    pub(crate) fn samples(&mut self, now: Time, rng: &mut Rng) -> (&[u8], u32) {
        match &mut self.full {
            Some(full) => full.samples(now, rng),
            None => (&[], self.config.sample_interval.as_secs().try_into().unwrap_or(u32::MAX)),
        }
    }

    /// Tells of `stored` infohashes that lie elsewhere, of which `choose` draws at most so many; a store
    /// that holds none itself.
    fn stand_for(&mut self, now: Time, stored: usize, choose: impl FnOnce(usize) -> Vec<Id>) {
        self.filled().stand_for(now, stored, choose);
    }

    /// Up to `max` different infohashes drawn at random (BEP 51, "samples").
    pub fn sample_infohashes(&self, max: usize, rng: &mut Rng) -> Vec<Id> {
        self.full.as_ref().map_or_else(Vec::new, |full| full.sample_infohashes(max, rng))
    }

    /// Every peer that has not expired.
    pub fn iter(&self, now: Time) -> impl Iterator<Item = StoredPeer> {
        self.full.iter().flat_map(move |full| full.iter(now))
    }

    fn filled(&mut self) -> &mut Full {
        self.full.get_or_insert_with(|| Full::new(&self.config, self.rng.clone()).into())
    }
}

#[cfg(test)]
mod tests;
