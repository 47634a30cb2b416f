//! [`Fetch`]: the info dictionary from peers (BEP 9), and [`answer`], which gives it to others.
//!
//! A few peers race, each for a copy of its own, so that a copy with the wrong hash convicts its
//! peer, and garbage cannot poison what honest peers give. When a racer leaves, another may go on
//! with its copy; a wrong hash of such a mixed copy convicts nobody, but ends mixing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

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
    Whole(Vec<u8>),
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
    pieces: BTreeMap<u32, Vec<u8>>,
    /// Pieces asked for and when to ask again.
    asked: BTreeMap<u32, Time>,
    /// No piece from here on was asked for.
    cursor: u32,
    givers: BTreeSet<SocketAddr>,
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
        copy.pieces.insert(piece, bytes);
        copy.givers.insert(source.addr);
        copy.progress = now;
        if copy.pieces.len() < count(copy.size) as usize {
            copy.ask(now, slot, limits, out);
            self.shed(limits);
            return Got::Progress;
        }
        let copy = self.copies.swap_remove(at);
        let whole = copy.pieces.into_values().flatten().collect::<Vec<_>>();
        if Sha1::digest(&whole)[..] == self.infohash.as_bytes()[..] {
            return Got::Whole(whole);
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
        while self.racers() < self.admitted(now, limits) && self.admit(now, limits, out) {}
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

    /// How many may race: one more each time that patience has run out.
    fn admitted(&self, now: Time, limits: &Limits) -> usize {
        let waited = now.since(self.began).as_micros() / limits.metadata_patience.as_micros().max(1);
        limits.metadata_racers.saturating_add(usize::try_from(waited).unwrap_or(usize::MAX))
    }

    fn racers(&self) -> usize {
        self.copies.iter().filter(|copy| copy.racer.is_some()).count()
    }

    fn admit(&mut self, now: Time, limits: &Limits, out: &mut Vec<(Slot, u32)>) -> bool {
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
        let next =
            self.sources.iter().filter(|(slot, _)| !racing.contains(slot)).min_by_key(|(_, source)| {
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

    /// Gives up the longest copy when all of them together have become too long, so that claiming much
    /// and giving slowly cannot fill our memory. Its racer may begin again behind all others.
    fn shed(&mut self, limits: &Limits) {
        if self.held() <= limits.metadata_memory {
            return;
        }
        let longest = (0..self.copies.len()).max_by_key(|&at| self.copies[at].bytes());
        let racer = longest.and_then(|at| self.copies.swap_remove(at).racer);
        if let Some(source) = racer.and_then(|slot| self.sources.get_mut(&slot)) {
            self.arrivals += 1;
            source.turn = self.arrivals;
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
        self.copies.retain(|copy| copy.racer.is_some() || mixing && !copy.pieces.is_empty());
    }
}

/// A racer without progress for so many retries makes room.
const STUCK_RETRIES: u32 = 3;

impl Copy {
    fn new(size: u32, now: Time) -> Self {
        Self {
            size,
            racer: None,
            pieces: BTreeMap::new(),
            asked: BTreeMap::new(),
            cursor: 0,
            givers: BTreeSet::new(),
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

    fn bytes(&self) -> u64 {
        self.pieces.len() as u64 * u64::from(METADATA_PIECE)
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

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        fetch: Fetch,
        raw: Vec<u8>,
        limits: Limits,
        now: Time,
        /// Requests that are not answered yet.
        asked: Vec<(Slot, u32)>,
    }

    fn slot(index: u32) -> Slot {
        Slot { index, generation: 0 }
    }

    fn addr(index: u32) -> SocketAddr {
        SocketAddr::from(([9, 9, 9, index as u8], 1))
    }

    impl World {
        fn new(len: usize) -> Self {
            let raw: Vec<u8> = (0..len).map(|at| (at * 7 % 251) as u8).collect();
            let fetch = Fetch::new(Id::new(Sha1::digest(&raw).into()), Time::ZERO);
            Self { fetch, raw, limits: Limits::default(), now: Time::ZERO, asked: Vec::new() }
        }

        fn offer(&mut self, index: u32) {
            self.fetch.offer(slot(index), addr(index), self.raw.len() as u32, &self.limits);
        }

        fn drive(&mut self) {
            self.fetch.drive(self.now, &self.limits, &mut self.asked);
        }

        /// Answers the oldest request; liars send zeros.
        fn answer(&mut self, liars: &[u32]) -> Option<(u32, Got)> {
            let (to, piece) = self.asked.remove(0);
            let MetadataMessage::Data { total_size, mut bytes, .. } = answer(&self.raw, piece) else {
                panic!("asked for piece {piece}")
            };
            if liars.contains(&to.index) {
                bytes.fill(0);
            }
            let got =
                self.fetch.data(self.now, (to, piece, total_size), bytes, &self.limits, &mut self.asked);
            Some((to.index, got))
        }

        /// Answers everything until the dictionary is whole; returns the banned.
        fn run(&mut self, liars: &[u32]) -> Vec<SocketAddr> {
            let mut banned = Vec::new();
            for _ in 0..10_000 {
                self.drive();
                if self.asked.is_empty() {
                    self.now = self.fetch.next(self.now, &self.limits);
                    continue;
                }
                match self.answer(liars) {
                    Some((_, Got::Whole(whole))) => {
                        assert_eq!(whole, self.raw);
                        return banned;
                    }
                    Some((_, Got::Garbage(culprits))) => banned.extend(culprits),
                    _ => {}
                }
            }
            panic!("never whole")
        }
    }

    #[test]
    fn one_peer_gives_all_pieces() {
        for len in [1, 16 << 10, (16 << 10) + 1, 1 << 20] {
            let mut world = World::new(len);
            world.offer(0);
            assert!(world.run(&[]).is_empty());
            assert_eq!(world.now, Time::ZERO);
        }
    }

    #[test]
    fn garbage_from_two_of_three_is_found_out_without_waiting() {
        let mut world = World::new(50_000);
        (0..3).for_each(|index| world.offer(index));
        let mut banned = world.run(&[0, 1]);
        banned.sort_unstable();
        assert!(banned.iter().all(|addr_| [addr(0), addr(1)].contains(addr_)));
        assert!(world.now <= Time::from_secs(1));
    }

    #[test]
    fn silent_peers_make_room_for_one_that_answers() {
        let mut world = World::new(50_000);
        (0..20).for_each(|index| world.offer(index));
        while world.now < Time::from_secs(60) {
            world.drive();
            // Peers 0 to 18 never answer.
            world.asked.retain(|(to, _)| to.index == 19);
            while !world.asked.is_empty() {
                if let Some((19, Got::Whole(_))) = world.answer(&[]) {
                    return;
                }
            }
            world.now = world.fetch.next(world.now, &world.limits);
        }
        panic!("the honest peer was never asked");
    }

    #[test]
    fn another_peer_goes_on_with_the_copy_of_one_that_left() {
        let mut world = World::new(100_000);
        world.offer(0);
        world.drive();
        for _ in 0..3 {
            world.answer(&[]);
        }
        world.fetch.lost(slot(0));
        world.asked.clear();
        world.offer(1);
        world.drive();
        assert_eq!(world.asked.len(), 4, "7 pieces, 3 are there");
        assert!(world.run(&[]).is_empty());
    }

    #[test]
    fn a_mixed_copy_with_the_wrong_hash_bans_nobody_and_is_fetched_again() {
        let mut world = World::new(100_000);
        world.offer(0);
        world.drive();
        world.answer(&[0]);
        world.fetch.lost(slot(0));
        world.asked.clear();
        world.offer(1);
        world.offer(2);
        assert!(world.run(&[]).is_empty());
    }

    #[test]
    fn the_only_honest_peer_begins_again_after_it_went_on_with_a_poisoned_copy() {
        let mut world = World::new(100_000);
        world.offer(0);
        world.drive();
        world.answer(&[0]);
        world.fetch.lost(slot(0));
        world.asked.clear();
        world.offer(1);
        assert!(world.run(&[]).is_empty());
    }

    #[test]
    fn claims_of_much_cannot_fill_the_memory_nor_keep_an_honest_peer_out() {
        let mut world = World::new(100_000);
        world.limits.metadata_memory = 600_000;
        let claimed = 1 << 20;
        (0..9).for_each(|index| world.fetch.offer(slot(index), addr(index), claimed, &world.limits));
        for second in 0..60 {
            world.now = Time::from_secs(second);
            world.drive();
            // They give all but the last pieces, so that no hash tells on them.
            for (to, piece) in std::mem::take(&mut world.asked) {
                if to.index == 20 {
                    world.asked.push((to, piece));
                } else if piece < 60 {
                    let bytes = vec![0; METADATA_PIECE as usize];
                    let mut more = Vec::new();
                    world.fetch.data(world.now, (to, piece, claimed), bytes, &world.limits, &mut more);
                    world.asked.extend(more);
                }
                assert!(world.fetch.held() <= 600_000, "{}", world.fetch.held());
            }
            if second == 10 {
                world.offer(20);
            }
            world.asked.retain(|(to, _)| to.index == 20);
            while !world.asked.is_empty() {
                if let Some((20, Got::Whole(_))) = world.answer(&[]) {
                    return;
                }
            }
        }
        panic!("the honest peer was kept out");
    }

    #[test]
    fn a_reject_or_silence_is_followed_by_the_same_request_after_three_seconds() {
        let mut world = World::new(10);
        world.offer(0);
        world.drive();
        assert_eq!(std::mem::take(&mut world.asked), [(slot(0), 0)]);
        world.fetch.rejected(world.now, slot(0), 0, &world.limits);
        world.drive();
        assert!(world.asked.is_empty());
        assert_eq!(world.fetch.next(world.now, &world.limits), Time::from_secs(3));
        world.now = Time::from_secs(3);
        world.drive();
        assert_eq!(world.asked, [(slot(0), 0)]);
    }

    #[test]
    fn unfit_data_is_not_counted_and_absurd_sizes_are_not_offers() {
        let mut world = World::new(20_000);
        for size in [0, u32::MAX, (64 << 20) + 1] {
            world.fetch.offer(slot(9), addr(9), size, &world.limits);
        }
        world.drive();
        assert!(world.asked.is_empty());
        world.offer(0);
        world.drive();
        let limits = world.limits.clone();
        let mut data = |piece, total, len| {
            let (now, mut out) = (world.now, Vec::new());
            world.fetch.data(now, (slot(0), piece, total), vec![0; len], &limits, &mut out)
        };
        assert_eq!(data(0, 20_000, 100), Got::Unfit);
        assert_eq!(data(0, 20_001, 16 << 10), Got::Unfit);
        assert_eq!(data(7, 20_000, 16 << 10), Got::Unfit);
        assert_eq!(data(0, 20_000, 16 << 10), Got::Progress);
        assert_eq!(data(0, 20_000, 16 << 10), Got::Unfit);
    }

    #[test]
    fn a_request_past_the_end_is_refused() {
        let raw = vec![1; 20_000];
        assert!(
            matches!(answer(&raw, 1), MetadataMessage::Data { bytes, total_size: 20_000, .. } if bytes.len() == 3616)
        );
        assert_eq!(answer(&raw, 2), MetadataMessage::Reject { piece: 2 });
        assert_eq!(answer(&raw, u32::MAX), MetadataMessage::Reject { piece: u32::MAX });
    }
}
