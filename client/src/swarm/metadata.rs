//! [`Fetch`]: the info dictionary from peers (BEP 9), and [`answer`], which gives it to others.
//!
//! A few peers race, each for a copy of its own, so that a copy with the wrong hash convicts its
//! peer, and garbage cannot poison what honest peers give. When a racer leaves, another may go on
//! with its copy; a wrong hash of such a mixed copy convicts nobody, but ends mixing.

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use btdht::Time;
use krpc::Id;
use sha1::{Digest as _, Sha1};

use super::limits::Limits;
use crate::peer::MetadataMessage;
use crate::piece::Slot;

/// Bytes of a metadata piece but the last (BEP 9).
pub(super) const METADATA_PIECE: u32 = 16 << 10;

/// The metadata phase of a magnet.
#[derive(Debug)]
pub(super) struct Fetch {
    infohash: Id,
    /// When somebody was there to be asked, after nobody was.
    began: Time,
    sources: BTreeMap<Slot, MetadataSource>,
    copies: Vec<Copy>,
    mixing: bool,
    /// Orders sources by arrival.
    arrivals: u64,
}

/// What came of a piece.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Got {
    /// More is missing.
    Progress,
    /// It was not asked for, has the wrong length or contradicts the size: not counted.
    Unfit,
    /// The whole dictionary; its hash is right.
    Whole(Arc<[u8]>),
    /// The whole, but with the wrong hash; these are to blame.
    Garbage(Vec<SocketAddr>),
}

#[derive(Debug)]
struct MetadataSource {
    addr: SocketAddr,
    size: u32,
    /// Lower comes first; one that was too slow goes to the end.
    turn: u64,
}

/// A copy that is being put together.
#[derive(Debug)]
struct Copy {
    size: u32,
    racer: Option<Slot>,
    /// What is there of the beginning without a gap, in one place that grows.
    whole: Vec<u8>,
    /// Pieces behind a gap; no more than were asked for at a time.
    pieces: BTreeMap<u32, Vec<u8>>,
    /// Pieces asked for and when to ask again.
    asked: BTreeMap<u32, Time>,
    /// No piece from here on was asked for.
    cursor: u32,
    givers: BTreeSet<SocketAddr>,
    began: Time,
    progress: Time,
}

impl Fetch {
    /// Nothing is known but the infohash.
    pub(super) fn new(infohash: Id, now: Time) -> Self {
        Self { infohash, began: now, sources: BTreeMap::new(), copies: Vec::new(), mixing: true, arrivals: 0 }
    }

    /// A peer offers the dictionary and says how long it is. Sizes above the limit are ignored.
    pub(super) fn offer(&mut self, slot: Slot, addr: SocketAddr, size: u32, limits: &Limits) {
        if size > 0 && size <= limits.max_metadata && !self.sources.contains_key(&slot) {
            self.arrivals += 1;
            self.sources.insert(slot, MetadataSource { addr, size, turn: self.arrivals });
        }
    }

    /// A connection is over, or its peer is of no use.
    pub(super) fn lost(&mut self, slot: Slot) {
        self.sources.remove(&slot);
        self.retire(slot);
    }

    /// A piece arrived; `out` gets what to ask for next.
    pub(super) fn data(
        &mut self,
        now: Time,
        (slot, piece, total_size): (Slot, u32, u32),
        bytes: Vec<u8>,
        limits: &Limits,
        out: &mut Vec<(Slot, u32)>,
    ) -> Got {
        let Some(source) = self.sources.get(&slot) else { return Got::Unfit };
        let Some(at) = self.copies.iter().position(|copy| copy.racer == Some(slot)) else {
            return Got::Unfit;
        };
        let copy = &mut self.copies[at];
        if total_size != copy.size
            || bytes.len() != piece_len(copy.size, piece) as usize
            || copy.asked.remove(&piece).is_none()
        {
            return Got::Unfit;
        }
        copy.take(piece, bytes);
        copy.givers.insert(source.addr);
        copy.progress = now;
        if copy.whole.len() < copy.size as usize {
            copy.ask(now, slot, limits, out);
            self.shed(now, limits);
            return Got::Progress;
        }
        let copy = self.copies.swap_remove(at);
        if Sha1::digest(&copy.whole)[..] == self.infohash.as_bytes()[..] {
            // Nothing else of what may be long is kept while it is copied to where it stays.
            self.copies.clear();
            return Got::Whole(copy.whole.into());
        }
        if copy.givers.len() > 1 {
            // Its last racer may be the honest one: it begins again with a copy of its own.
            self.mixing = false;
            return Got::Garbage(Vec::new());
        }
        self.sources.remove(&slot);
        Got::Garbage(copy.givers.into_iter().collect())
    }

    /// A peer refuses a piece: it is asked again later.
    pub(super) fn rejected(&mut self, now: Time, slot: Slot, piece: u32, limits: &Limits) {
        if let Some(copy) = self.copies.iter_mut().find(|copy| copy.racer == Some(slot))
            && let Some(again) = copy.asked.get_mut(&piece)
        {
            *again = now + limits.metadata_retry;
        }
    }

    /// Admits racers, drops those that are stuck and repeats requests; `out` gets what to ask for.
    pub(super) fn drive(&mut self, now: Time, limits: &Limits, out: &mut Vec<(Slot, u32)>) {
        let stuck: Vec<_> = self
            .copies
            .iter()
            .filter(|copy| now.since(copy.progress) >= limits.metadata_retry * STUCK_RETRIES)
            .filter_map(|copy| copy.racer)
            .collect();
        for slot in stuck {
            self.arrivals += 1;
            if let Some(source) = self.sources.get_mut(&slot) {
                source.turn = self.arrivals;
            }
            self.retire(slot);
        }
        for copy in &mut self.copies {
            if let Some(slot) = copy.racer {
                copy.ask(now, slot, limits, out);
            }
        }
        if self.racers() == 0 {
            self.began = now;
        }
        let patient = self.patient(now, limits);
        while self.racers() < patient.saturating_add(1) && self.admit(now, u64::MAX, limits, out) {}
        while self.racers() < patient.saturating_add(limits.metadata_racers)
            && self.admit(now, limits.metadata_memory, limits, out)
        {}
    }

    /// When [`Fetch::drive`] has something to do.
    pub(super) fn next(&self, now: Time, limits: &Limits) -> Time {
        if self.sources.is_empty() {
            return Time::NEVER;
        }
        let asked =
            self.copies.iter().filter(|copy| copy.racer.is_some()).flat_map(|copy| copy.asked.values());
        asked.copied().chain([now + limits.metadata_patience]).min().unwrap_or(Time::NEVER)
    }

    /// How many race beside the first, whatever they claim: one more each time that patience has run out.
    fn patient(&self, now: Time, limits: &Limits) -> usize {
        let waited = now.since(self.began).as_micros() / limits.metadata_patience.as_micros().max(1);
        usize::try_from(waited).unwrap_or(usize::MAX)
    }

    fn racers(&self) -> usize {
        self.copies.iter().filter(|copy| copy.racer.is_some()).count()
    }

    /// Has one more race with whose claim all have no more than `room` bytes; whether there is such a one.
    fn admit(&mut self, now: Time, room: u64, limits: &Limits, out: &mut Vec<(Slot, u32)>) -> bool {
        let racing: BTreeSet<_> = self.copies.iter().filter_map(|copy| copy.racer).collect();
        let mut votes: BTreeMap<u32, usize> = BTreeMap::new();
        for source in self.sources.values() {
            *votes.entry(source.size).or_default() += 1;
        }
        // Sizes take turns, the one with most votes first: a wrong size that many claim delays an
        // honest peer, but cannot keep it out.
        let mut heats: BTreeMap<u32, usize> = BTreeMap::new();
        for copy in self.copies.iter().filter(|copy| copy.racer.is_some()) {
            *heats.entry(copy.size).or_default() += 1;
        }
        // What somebody left may never grow.
        let claim = |copy: &Copy| if copy.racer.is_some() { copy.size.into() } else { copy.bytes() };
        let claimed: u64 = self.copies.iter().map(claim).sum();
        let fits = |source: &MetadataSource| claimed.saturating_add(source.size.into()) <= room;
        let waiting = self.sources.iter().filter(|(slot, source)| !racing.contains(slot) && fits(source));
        let next = waiting.min_by_key(|(_, source)| {
            let heat = heats.get(&source.size).copied().unwrap_or(0);
            (heat, usize::MAX - votes.get(&source.size).copied().unwrap_or(0), source.turn)
        });
        let Some((&slot, source)) = next else { return false };
        let size = source.size;
        let left = self.copies.iter().position(|copy| copy.racer.is_none() && copy.size == size);
        let at = left.filter(|_| self.mixing).unwrap_or_else(|| {
            self.copies.retain(|copy| copy.racer.is_some() || copy.size != size);
            self.copies.push(Copy::new(size, now));
            self.copies.len() - 1
        });
        let copy = &mut self.copies[at];
        copy.racer = Some(slot);
        copy.progress = now;
        copy.asked.values_mut().for_each(|again| *again = now);
        copy.ask(now, slot, limits, out);
        true
    }

    /// When all copies together have become too long, gives up those that nobody goes on with, then one that claims
    /// most, the slowest of these, so that claiming much and giving slowly cannot fill our memory. Its racer
    /// may begin again behind all others.
    fn shed(&mut self, now: Time, limits: &Limits) {
        let rate = |copy: &Copy| {
            // The first moments say little.
            let took = now.since(copy.began).max(limits.metadata_patience);
            u128::from(copy.bytes()) * 1_000_000 / took.as_micros().max(1)
        };
        while self.held() > limits.metadata_memory {
            let claim = |at: &usize| {
                let copy = &self.copies[*at];
                (copy.racer.is_some(), Reverse(copy.size), rate(copy))
            };
            let given_up = (0..self.copies.len()).min_by_key(claim);
            let racer = given_up.and_then(|at| self.copies.swap_remove(at).racer);
            if let Some(source) = racer.and_then(|slot| self.sources.get_mut(&slot)) {
                self.arrivals += 1;
                source.turn = self.arrivals;
            }
        }
    }

    /// Bytes of all copies.
    fn held(&self) -> u64 {
        self.copies.iter().map(Copy::bytes).sum()
    }

    /// Takes a racer off its copy; the copy is kept if somebody can go on with it.
    fn retire(&mut self, slot: Slot) {
        for copy in self.copies.iter_mut().filter(|copy| copy.racer == Some(slot)) {
            copy.racer = None;
        }
        let mixing = self.mixing;
        self.copies.retain(|copy| copy.racer.is_some() || mixing && copy.bytes() > 0);
    }
}

/// A racer without progress for so many retries makes room.
const STUCK_RETRIES: u32 = 3;

impl Copy {
    fn new(size: u32, now: Time) -> Self {
        Self {
            size,
            racer: None,
            whole: Vec::new(),
            pieces: BTreeMap::new(),
            asked: BTreeMap::new(),
            cursor: 0,
            givers: BTreeSet::new(),
            began: now,
            progress: now,
        }
    }

    /// Asks `slot` for what is overdue and then for new pieces, up to the window.
    fn ask(&mut self, now: Time, slot: Slot, limits: &Limits, out: &mut Vec<(Slot, u32)>) {
        for (&piece, again) in self.asked.iter_mut().filter(|(_, again)| **again <= now) {
            *again = now + limits.metadata_retry;
            out.push((slot, piece));
        }
        while self.asked.len() < limits.metadata_window && self.cursor < count(self.size) {
            self.asked.insert(self.cursor, now + limits.metadata_retry);
            out.push((slot, self.cursor));
            self.cursor += 1;
        }
    }

    fn take(&mut self, piece: u32, bytes: Vec<u8>) {
        self.pieces.insert(piece, bytes);
        while let Some(next) = self.pieces.remove(&(self.whole.len() as u32 / METADATA_PIECE)) {
            self.whole.extend_from_slice(&next);
        }
    }

    fn bytes(&self) -> u64 {
        self.whole.len() as u64 + self.pieces.values().map(|piece| piece.len() as u64).sum::<u64>()
    }
}

/// The answer to a request for a piece of `raw`, a whole info dictionary (BEP 9).
pub(super) fn answer(raw: &[u8], piece: u32) -> MetadataMessage {
    let begin = u64::from(piece) * u64::from(METADATA_PIECE);
    let rest = usize::try_from(begin).ok().and_then(|begin| raw.get(begin..)).unwrap_or_default();
    if rest.is_empty() {
        return MetadataMessage::Reject { piece };
    }
    let bytes = rest[..rest.len().min(METADATA_PIECE as usize)].to_vec();
    MetadataMessage::Data { piece, total_size: raw.len() as u32, bytes }
}

/// Pieces of a dictionary of `size` bytes.
pub(super) fn count(size: u32) -> u32 {
    size.div_ceil(METADATA_PIECE)
}

fn piece_len(size: u32, piece: u32) -> u32 {
    let begin = u64::from(piece) * u64::from(METADATA_PIECE);
    u64::from(size).saturating_sub(begin).min(u64::from(METADATA_PIECE)) as u32
}
