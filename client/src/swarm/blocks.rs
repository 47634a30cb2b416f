//! [`Blocks`]: the blocks of pieces that are begun and not verified yet.
//!
//! A block is *open* when nobody who is on time was asked for it. A request that is overdue (its peer
//! is snubbing us) leaves its block open for others, but its answer is still welcome. Whatever
//! arrives counts only for the peer that was asked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use btdht::Time;

use super::has::Has;
use super::requests::Requests;
use crate::peer::TorrentShape;
use crate::piece::{BLOCK_LEN, BlockRef, PieceIndex, Slot};

/// States of the blocks of unfinished pieces.
#[derive(Debug)]
pub(super) struct Blocks {
    shape: TorrentShape,
    pieces: BTreeMap<u32, Unfinished>,
    /// Unfinished pieces with an open block.
    open: BTreeSet<u32>,
    requests: Requests,
    committed: u64,
}

/// What a block that arrived leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    /// Others that were asked for the same block: to be sent a cancel.
    pub(super) cancel: Vec<Slot>,
}

/// When a block may be asked for once more although somebody is on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Duplicates {
    /// Peers that may be asked for one block.
    pub(super) holders: usize,
    /// The same once the first request has waited for `patience`; twice as many each time that it has
    /// waited for as long again, so that no number of silent peers can keep a block to themselves.
    pub(super) holders_late: usize,
    /// See `holders_late`.
    pub(super) patience: Duration,
}

impl Duplicates {
    fn holders_after(&self, waited: Duration) -> usize {
        let late = waited.as_micros() / self.patience.as_micros().max(1);
        match u32::try_from(late).unwrap_or(u32::MAX) {
            0 => self.holders,
            times => self.holders_late.saturating_mul(1 << (times - 1).min(16)),
        }
    }
}

/// How a begun piece relates to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    /// The peer works on it.
    Own,
    /// Nobody works on it.
    Orphan,
    /// Another peer works on it.
    Foreign,
}

#[derive(Debug)]
struct Unfinished {
    blocks: Vec<BlockState>,
    open: u32,
    missing: u32,
    /// No block before this one is open.
    cursor: u32,
    /// The peer that works on this piece; others begin pieces of their own as long as they may.
    owner: Option<Slot>,
    /// Only the owner may be asked: the piece is to have one contributor.
    alone: bool,
    givers: Vec<SocketAddr>,
}

#[derive(Clone, Debug, Default)]
struct BlockState {
    /// When it was first asked for since it was open.
    since: Time,
    giver: u16,
    /// Requests that are on time.
    asked: u16,
    received: bool,
    /// Somebody holds an overdue request, or more than one peer was asked.
    shared: bool,
}

impl Blocks {
    /// No piece is begun.
    pub(super) fn new(shape: TorrentShape) -> Self {
        Self {
            shape,
            pieces: BTreeMap::new(),
            open: BTreeSet::new(),
            requests: Requests::default(),
            committed: 0,
        }
    }

    /// Begins `piece` with all of its blocks open.
    pub(super) fn begin(&mut self, piece: PieceIndex, owner: Slot) {
        let len = self.shape.piece_len(piece);
        let count = len.div_ceil(BLOCK_LEN);
        let unfinished = Unfinished {
            blocks: vec![BlockState::default(); count as usize],
            open: count,
            missing: count,
            cursor: 0,
            owner: Some(owner),
            alone: false,
            givers: Vec::new(),
        };
        if self.pieces.insert(piece.0, unfinished).is_none() {
            self.committed += u64::from(len);
        }
        self.open.insert(piece.0);
    }

    /// Asks `slot` for up to `count` open blocks of `piece`, appended to `out`.
    pub(super) fn request(
        &mut self,
        now: Time,
        slot: Slot,
        piece: PieceIndex,
        count: usize,
        out: &mut Vec<BlockRef>,
    ) {
        let Some(unfinished) = self.pieces.get_mut(&piece.0) else { return };
        let held_late = self.requests.has_overdue(slot);
        let piece_len = self.shape.piece_len(piece);
        let (mut taken, mut passed) = (0, false);
        for index in unfinished.cursor as usize..unfinished.blocks.len() {
            if taken == count || unfinished.open == 0 {
                break;
            }
            let state = &mut unfinished.blocks[index];
            if state.received || state.asked > 0 {
                continue;
            }
            let block = block_at(piece, index, piece_len);
            if held_late && self.requests.holds(slot, block) {
                passed = true;
                continue;
            }
            state.asked = 1;
            state.since = now;
            unfinished.open -= 1;
            if !passed {
                unfinished.cursor = index as u32 + 1;
            }
            self.requests.add(now, slot, block);
            out.push(block);
            taken += 1;
        }
        if unfinished.open == 0 {
            self.open.remove(&piece.0);
        }
    }

    /// End game: asks `slot` for up to `count` blocks that others were asked for already, in pieces
    /// that `may` allows. The last ones first: whoever was asked first begins at the other end.
    pub(super) fn request_again(
        &mut self,
        now: Time,
        slot: Slot,
        may: impl Fn(u32) -> bool,
        rule: Duplicates,
        count: usize,
        out: &mut Vec<BlockRef>,
    ) {
        let mut taken = 0;
        for (&piece, unfinished) in self.pieces.iter_mut().rev() {
            if unfinished.missing == 0 || !may(piece) {
                continue;
            }
            let piece = PieceIndex(piece);
            let piece_len = self.shape.piece_len(piece);
            for (index, state) in unfinished.blocks.iter_mut().enumerate().rev() {
                if taken == count {
                    return;
                }
                let late = now.since(state.since) >= rule.patience;
                let most = rule.holders_after(now.since(state.since));
                let closed = unfinished.alone && unfinished.owner != Some(slot) && !late;
                if state.received || state.asked == 0 || usize::from(state.asked) >= most || closed {
                    continue;
                }
                let block = block_at(piece, index, piece_len);
                if self.requests.holds(slot, block) {
                    continue;
                }
                state.asked += 1;
                state.shared = true;
                self.requests.add(now, slot, block);
                out.push(block);
                taken += 1;
            }
        }
    }

    /// A block arrived from `slot`, whose address is `from`. `None`: it was not asked for, or is
    /// there already.
    pub(super) fn receive(&mut self, slot: Slot, from: SocketAddr, block: BlockRef) -> Option<Arrival> {
        let on_time = self.requests.strike(slot, block)?;
        let unfinished = self.pieces.get_mut(&block.piece.0)?;
        let state = unfinished.blocks.get_mut((block.begin / BLOCK_LEN) as usize)?;
        if state.received {
            return None;
        }
        if state.asked == 0 {
            unfinished.open -= 1;
            if unfinished.open == 0 {
                self.open.remove(&block.piece.0);
            }
        }
        state.asked -= u16::from(on_time);
        state.received = true;
        state.giver = match unfinished.givers.iter().position(|&giver| giver == from) {
            Some(at) => at as u16,
            None => {
                unfinished.givers.push(from); // one per block at most: 16,384
                unfinished.givers.len() as u16 - 1
            }
        };
        unfinished.missing -= 1;
        let cancel = if state.shared { self.requests.strike_all(block) } else { Vec::new() };
        Some(Arrival { cancel })
    }

    /// `slot` will not answer this request.
    pub(super) fn give_back(&mut self, slot: Slot, block: BlockRef) {
        if self.requests.strike(slot, block) == Some(true) {
            self.unask(block);
        }
    }

    /// `slot` has gone or been told to stop: none of its requests will be answered.
    pub(super) fn give_back_all(&mut self, slot: Slot) {
        while let Some(block) = self.requests.front(slot) {
            self.give_back(slot, block);
        }
        self.disown(slot);
    }

    /// `slot` answers too slowly: its blocks are open for others, and its pieces for new owners.
    pub(super) fn overdue(&mut self, slot: Slot) {
        for block in self.requests.overdue(slot) {
            if let Some(state) = self.state_mut(block) {
                state.shared = true;
            }
            self.unask(block);
        }
        self.disown(slot);
    }

    /// Takes a piece out, all of whose blocks are there; returns who gave each block, in order.
    pub(super) fn finish(&mut self, piece: PieceIndex) -> Option<Vec<SocketAddr>> {
        let unfinished = self.pieces.remove(&piece.0)?;
        self.committed -= u64::from(self.shape.piece_len(piece));
        self.open.remove(&piece.0);
        let Unfinished { blocks, givers, .. } = unfinished;
        Some(blocks.iter().filter_map(|state| givers.get(usize::from(state.giver)).copied()).collect())
    }

    /// Makes the owner of `piece`, from which nothing has arrived yet, its one contributor.
    pub(super) fn reserve(&mut self, piece: PieceIndex) {
        if let Some(unfinished) = self.pieces.get_mut(&piece.0) {
            unfinished.alone = true;
        }
    }

    /// Makes `slot` the owner of `piece`.
    pub(super) fn adopt(&mut self, piece: PieceIndex, slot: Slot) {
        if let Some(unfinished) = self.pieces.get_mut(&piece.0) {
            unfinished.owner = Some(slot);
        }
    }

    /// Begun pieces with an open block that `slot` has and may be asked for, of one relation to it.
    pub(super) fn open_for<'a>(
        &'a self,
        slot: Slot,
        has: &'a Has,
        relation: Relation,
    ) -> impl Iterator<Item = PieceIndex> + 'a {
        let fits = move |piece: &&u32| {
            let unfinished = &self.pieces[*piece];
            let fits = match (relation, unfinished.owner) {
                (Relation::Own, owner) => owner == Some(slot),
                (Relation::Orphan, owner) => owner.is_none(),
                (Relation::Foreign, owner) => owner.is_some() && owner != Some(slot) && !unfinished.alone,
            };
            fits && has.contains(**piece)
        };
        self.open.iter().filter(fits).map(|&piece| PieceIndex(piece))
    }

    /// Whether `piece` is begun.
    pub(super) fn contains(&self, piece: PieceIndex) -> bool {
        self.pieces.contains_key(&piece.0)
    }

    /// Whether all blocks of `piece` are there.
    #[cfg(test)]
    pub(super) fn is_whole(&self, piece: PieceIndex) -> bool {
        self.pieces.get(&piece.0).is_some_and(|unfinished| unfinished.missing == 0)
    }

    /// Whether nothing is on its way, neither from peers nor a verdict from the disk.
    pub(super) fn is_stalled(&self) -> bool {
        self.requests.outstanding() == 0 && self.pieces.values().all(|unfinished| unfinished.missing > 0)
    }

    /// Begun pieces that are not verified.
    pub(super) fn unfinished(&self) -> usize {
        self.pieces.len()
    }

    /// Bytes of begun pieces, counted by whole pieces.
    pub(super) fn committed(&self) -> u64 {
        self.committed
    }

    /// Who was asked for what.
    pub(super) fn requests(&self) -> &Requests {
        &self.requests
    }

    /// One peer less that is on time is on this block; without any it is open.
    fn unask(&mut self, block: BlockRef) {
        let index = block.begin / BLOCK_LEN;
        let Some(unfinished) = self.pieces.get_mut(&block.piece.0) else { return };
        let Some(state) = unfinished.blocks.get_mut(index as usize) else { return };
        state.asked -= 1;
        if state.asked == 0 && !state.received {
            unfinished.open += 1;
            unfinished.cursor = unfinished.cursor.min(index);
            self.open.insert(block.piece.0);
        }
    }

    fn disown(&mut self, slot: Slot) {
        for unfinished in self.pieces.values_mut().filter(|unfinished| unfinished.owner == Some(slot)) {
            unfinished.owner = None;
        }
    }

    fn state_mut(&mut self, block: BlockRef) -> Option<&mut BlockState> {
        let unfinished = self.pieces.get_mut(&block.piece.0)?;
        unfinished.blocks.get_mut((block.begin / BLOCK_LEN) as usize)
    }
}

fn block_at(piece: PieceIndex, index: usize, piece_len: u32) -> BlockRef {
    let begin = index as u32 * BLOCK_LEN;
    BlockRef { piece, begin, len: (piece_len - begin).min(BLOCK_LEN) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};

    use super::*;

    const NOW: Time = Time::from_secs(1);
    const RULE: Duplicates = Duplicates { holders: 2, holders_late: 4, patience: Duration::from_secs(2) };

    fn shape(pieces: u32, blocks: u32) -> TorrentShape {
        let piece_len = blocks * BLOCK_LEN;
        TorrentShape { pieces, piece_len, last_piece_len: piece_len - 5, metadata_size: 100 }
    }

    fn slot(index: u32) -> Slot {
        Slot { index, generation: 0 }
    }

    fn addr(index: u32) -> SocketAddr {
        SocketAddr::from(([9, 9, 9, index as u8], 1))
    }

    fn request(blocks: &mut Blocks, slot: Slot, piece: u32, count: usize) -> Vec<BlockRef> {
        let mut out = Vec::new();
        blocks.request(NOW, slot, PieceIndex(piece), count, &mut out);
        out
    }

    fn again(blocks: &mut Blocks, now: Time, slot: Slot) -> Vec<BlockRef> {
        let mut out = Vec::new();
        blocks.request_again(now, slot, |_| true, RULE, 100, &mut out);
        out
    }

    #[test]
    fn each_block_is_asked_for_once_and_the_last_one_is_short() {
        let mut blocks = Blocks::new(shape(1, 3));
        blocks.begin(PieceIndex(0), slot(0));
        let first = request(&mut blocks, slot(0), 0, 2);
        let second = request(&mut blocks, slot(1), 0, 9);
        assert_eq!((first.len(), second.len()), (2, 1));
        assert_eq!(second[0].len, BLOCK_LEN - 5);
        assert!(blocks.open.is_empty() && request(&mut blocks, slot(2), 0, 9).is_empty());
        assert_eq!(blocks.requests.outstanding(), u64::from(3 * BLOCK_LEN - 5));
    }

    #[test]
    fn a_block_counts_only_from_the_peer_that_was_asked_and_once() {
        let mut blocks = Blocks::new(shape(1, 2));
        blocks.begin(PieceIndex(0), slot(0));
        let asked = request(&mut blocks, slot(0), 0, 2);
        assert_eq!(blocks.receive(slot(1), addr(1), asked[0]), None);
        assert!(blocks.receive(slot(0), addr(0), asked[0]).is_some());
        assert_eq!(blocks.receive(slot(0), addr(0), asked[0]), None);
        assert!(!blocks.is_whole(PieceIndex(0)));
        blocks.receive(slot(0), addr(0), asked[1]).unwrap();
        assert!(blocks.is_whole(PieceIndex(0)));
        assert_eq!(blocks.finish(PieceIndex(0)), Some(vec![addr(0); 2]));
        assert_eq!((blocks.committed(), blocks.requests.outstanding()), (0, 0));
    }

    #[test]
    fn what_a_peer_gives_back_is_open_again() {
        let mut blocks = Blocks::new(shape(1, 4));
        blocks.begin(PieceIndex(0), slot(0));
        let asked = request(&mut blocks, slot(0), 0, 4);
        blocks.give_back(slot(0), asked[2]);
        assert_eq!(request(&mut blocks, slot(1), 0, 9), [asked[2]]);
        blocks.give_back_all(slot(0));
        assert_eq!(request(&mut blocks, slot(1), 0, 9).len(), 3);
        assert_eq!(blocks.requests.of(slot(0)), 0);
    }

    #[test]
    fn overdue_blocks_go_to_others_but_are_welcome_from_the_late_peer() {
        let mut blocks = Blocks::new(shape(1, 2));
        blocks.begin(PieceIndex(0), slot(0));
        let asked = request(&mut blocks, slot(0), 0, 2);
        blocks.overdue(slot(0));
        assert!(request(&mut blocks, slot(0), 0, 2).is_empty(), "not asked for twice of one peer");
        assert_eq!(request(&mut blocks, slot(1), 0, 1), [asked[0]]);
        let arrival = blocks.receive(slot(0), addr(0), asked[0]).unwrap();
        assert_eq!(arrival.cancel, [slot(1)]);
        assert!(blocks.receive(slot(0), addr(0), asked[1]).unwrap().cancel.is_empty());
        assert!(blocks.is_whole(PieceIndex(0)) && blocks.open.is_empty());
        assert_eq!(blocks.requests.outstanding(), 0);
    }

    #[test]
    fn end_game_asks_two_then_four_and_cancels_the_others() {
        let mut blocks = Blocks::new(shape(1, 1));
        blocks.begin(PieceIndex(0), slot(0));
        let asked = request(&mut blocks, slot(0), 0, 1);
        assert_eq!(again(&mut blocks, NOW, slot(1)), asked);
        assert!(again(&mut blocks, NOW, slot(1)).is_empty());
        assert!(again(&mut blocks, NOW, slot(2)).is_empty());
        let later = NOW + Duration::from_secs(2);
        assert_eq!(again(&mut blocks, later, slot(2)).len(), 1);
        assert_eq!(again(&mut blocks, later, slot(3)).len(), 1);
        assert!(again(&mut blocks, later, slot(4)).is_empty());
        let arrival = blocks.receive(slot(2), addr(2), asked[0]).unwrap();
        assert_eq!(arrival.cancel, [slot(0), slot(1), slot(3)]);
        assert_eq!(blocks.requests.outstanding(), 0);
    }

    #[test]
    fn silent_peers_cannot_keep_a_block_to_themselves_for_long() {
        let mut blocks = Blocks::new(shape(1, 1));
        blocks.begin(PieceIndex(0), slot(0));
        request(&mut blocks, slot(0), 0, 1);
        // Whoever may ask does so, and nobody answers.
        let holders = [0, 2, 4, 6, 8].map(|seconds| {
            let later = NOW + Duration::from_secs(seconds);
            (1..99).for_each(|n| _ = again(&mut blocks, later, slot(n)));
            (0..99).filter(|&n| blocks.requests.of(slot(n)) > 0).count()
        });
        assert_eq!(holders, [2, 4, 8, 16, 32]);
    }

    #[test]
    fn a_reserved_piece_is_closed_to_others_until_its_owner_goes() {
        let mut blocks = Blocks::new(shape(1, 2));
        blocks.begin(PieceIndex(0), slot(0));
        blocks.reserve(PieceIndex(0));
        let open = |blocks: &Blocks, relation| blocks.open_for(slot(1), &Has::All, relation).count();
        assert_eq!((open(&blocks, Relation::Foreign), open(&blocks, Relation::Orphan)), (0, 0));
        blocks.give_back_all(slot(0));
        assert_eq!(open(&blocks, Relation::Orphan), 1);
    }

    #[test]
    fn a_slot_that_was_given_out_again_holds_nothing() {
        let mut blocks = Blocks::new(shape(1, 2));
        blocks.begin(PieceIndex(0), slot(0));
        let asked = request(&mut blocks, slot(0), 0, 1);
        blocks.give_back_all(slot(0));
        let newer = Slot { index: 0, generation: 1 };
        assert_eq!(request(&mut blocks, newer, 0, 1), asked);
        assert_eq!(blocks.receive(slot(0), addr(0), asked[0]), None);
        assert!(blocks.receive(newer, addr(1), asked[0]).is_some());
    }

    proptest! {
        /// Whatever peers do, in the end one honest peer can finish: no block is lost, none that
        /// is there is asked for, and the sums are right.
        #[test]
        fn no_block_is_ever_lost(history in prop::collection::vec((0u8..7, 0u32..4, 0u32..3, 0usize..6), 0..300)) {
            let mut blocks = Blocks::new(shape(3, 4));
            for piece in 0..3 {
                blocks.begin(PieceIndex(piece), slot(piece));
            }
            let mut held: Vec<Vec<BlockRef>> = vec![Vec::new(); 5];
            let mut got = BTreeSet::new();
            for (kind, who, piece, n) in history {
                let peer = slot(who);
                let mine = &mut held[who as usize];
                match kind {
                    0 | 1 => {
                        let asked = request(&mut blocks, peer, piece, n);
                        prop_assert!(asked.iter().all(|block| !got.contains(block)));
                        mine.extend(asked);
                    }
                    2 => {
                        let asked = again(&mut blocks, NOW, peer);
                        prop_assert!(asked.iter().all(|block| !got.contains(block) && !mine.contains(block)));
                        mine.extend(asked);
                    }
                    3 if !mine.is_empty() => {
                        let block = mine.remove(n % mine.len());
                        let arrival = blocks.receive(peer, addr(who), block);
                        prop_assert_eq!(arrival.is_some(), got.insert(block));
                        for other in arrival.into_iter().flat_map(|arrival| arrival.cancel) {
                            held[other.index as usize].retain(|&held| held != block);
                        }
                    }
                    4 if !mine.is_empty() => {
                        let block = mine.remove(n % mine.len());
                        blocks.give_back(peer, block);
                    }
                    5 => blocks.overdue(peer),
                    6 if n == 0 => {
                        blocks.give_back_all(peer);
                        mine.clear();
                    }
                    _ => {}
                }
                for (who, held) in held.iter().enumerate() {
                    prop_assert_eq!(blocks.requests.of(slot(who as u32)), held.len());
                }
            }
            for who in 0..4 {
                blocks.give_back_all(slot(who));
            }
            prop_assert_eq!(blocks.requests.outstanding(), 0);
            for piece in 0..3 {
                for block in request(&mut blocks, slot(4), piece, 9) {
                    prop_assert!(got.insert(block));
                    prop_assert!(blocks.receive(slot(4), addr(4), block).is_some());
                }
                prop_assert!(blocks.is_whole(PieceIndex(piece)));
                prop_assert_eq!(blocks.finish(PieceIndex(piece)).map(|givers| givers.len()), Some(4));
            }
            prop_assert_eq!((got.len(), blocks.committed()), (12, 0));
        }
    }
}
