//! [`Blocks`]: the blocks of pieces that are begun and not verified yet.
//!
//! A block is *open* when nobody who is on time was asked for it. A request that is overdue (its peer
//! is snubbing us) leaves its block open for others, but its answer is still welcome. Whatever
//! arrives counts only for the peer that was asked.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use btdht::Time;

use super::has::Has;
use super::requests::Requests;
use crate::peer::TorrentShape;
use crate::piece::{BLOCK_LEN, BlockRef, PieceIndex, Slot};
use crate::steps;

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

/// How long one peer may have a piece to itself. A few that are slow and under suspicion would otherwise
/// keep all that may be begun of a torrent with large pieces from those who are neither.
const ALONE: Duration = Duration::from_secs(30);

/// What a block that arrived leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    /// Others that were asked for the same block: to be sent a cancel.
    pub(super) cancel: Vec<Slot>,
}

/// A piece that is judged.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Finished {
    /// Who gave each block that came, in order.
    pub(super) givers: Vec<SocketAddr>,
    /// Who was asked for blocks that are of no use any more: to be sent a cancel.
    pub(super) called_off: Vec<(Slot, BlockRef)>,
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
    /// Nobody works on it, or whoever does was asked for nothing: it rejected, chokes or is left alone,
    /// and must not keep the piece from others for as long.
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
    /// Since when only the owner may be asked: the piece is to have one contributor. Not for longer than
    /// [`ALONE`].
    alone: Option<Time>,
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
            alone: None,
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

    /// End game: asks `slot` for up to `count` blocks that others were asked for already, all of one piece
    /// that `may` allows; returns which. The last ones first: whoever was asked first begins at the other
    /// end.
    pub(super) fn request_again(
        &mut self,
        now: Time,
        slot: Slot,
        may: impl Fn(u32) -> bool,
        rule: Duplicates,
        count: usize,
        out: &mut Vec<BlockRef>,
    ) -> Option<PieceIndex> {
        let mut taken = 0;
        for (&piece, unfinished) in self.pieces.iter_mut().rev() {
            steps::count(1);
            if unfinished.missing == 0 || !may(piece) {
                continue;
            }
            let piece = PieceIndex(piece);
            let piece_len = self.shape.piece_len(piece);
            for (index, state) in unfinished.blocks.iter_mut().enumerate().rev() {
                steps::count(1);
                if taken == count {
                    break;
                }
                let late = now.since(state.since) >= rule.patience;
                let most = rule.holders_after(now.since(state.since));
                let closed = unfinished.alone.is_some() && unfinished.owner != Some(slot) && !late;
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
            if taken > 0 {
                return Some(piece);
            }
        }
        None
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

    /// Takes a piece out that is judged. As a rule all of its blocks are there; requests for those that are
    /// not, because the piece was found on disk, are struck.
    pub(super) fn finish(&mut self, piece: PieceIndex) -> Option<Finished> {
        let unfinished = self.pieces.remove(&piece.0)?;
        self.committed -= u64::from(self.shape.piece_len(piece));
        self.open.remove(&piece.0);
        let Unfinished { blocks, givers, missing, .. } = unfinished;
        let called_off = if missing > 0 { self.requests.strike_piece(piece) } else { Vec::new() };
        let giver = |state: &BlockState| givers.get(usize::from(state.giver)).copied();
        let received = blocks.iter().filter(|state| state.received);
        Some(Finished { givers: received.filter_map(giver).collect(), called_off })
    }

    /// Forgets a piece that is not all there, and requests for it that are overdue; returns the bytes that had
    /// come, and who is to hear that nothing more is wanted.
    pub(super) fn give_up(&mut self, piece: PieceIndex) -> (u64, Vec<(Slot, BlockRef)>) {
        let Some(unfinished) = self.pieces.remove(&piece.0) else { return (0, Vec::new()) };
        let len = self.shape.piece_len(piece);
        self.committed -= u64::from(len);
        self.open.remove(&piece.0);
        let received = (0..).zip(&unfinished.blocks).filter(|(_, state)| state.received);
        let bytes = received.map(|(index, _)| u64::from(block_at(piece, index, len).len)).sum();
        (bytes, self.requests.strike_piece(piece))
    }

    /// Opens again what liars gave of pieces that others may complete; returns it. Looks at the givers of
    /// all begun pieces, and at the blocks of those that a liar gave part of.
    pub(super) fn disbelieve(&mut self, lies: impl Fn(SocketAddr) -> bool) -> Vec<BlockRef> {
        let mut dropped = Vec::new();
        // Of a piece that is all there the disk threads say what it is worth.
        for (&piece, unfinished) in self.pieces.iter_mut().filter(|(_, piece)| piece.missing > 0) {
            if !unfinished.givers.iter().any(|&giver| lies(giver)) {
                continue;
            }
            let (piece, before) = (PieceIndex(piece), dropped.len());
            let piece_len = self.shape.piece_len(piece);
            let blocks = unfinished.disbelieve(&lies).into_iter();
            dropped.extend(blocks.map(|index| block_at(piece, index, piece_len)));
            if dropped.len() > before {
                self.open.insert(piece.0);
            }
        }
        dropped
    }

    /// Makes the owner of `piece`, from which nothing has arrived yet, its one contributor for a while.
    pub(super) fn reserve(&mut self, now: Time, piece: PieceIndex) {
        if let Some(unfinished) = self.pieces.get_mut(&piece.0) {
            unfinished.alone = Some(now);
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
        now: Time,
        slot: Slot,
        has: &'a Has,
        relation: Relation,
    ) -> impl Iterator<Item = PieceIndex> + 'a {
        let fits = move |piece: &&u32| {
            let unfinished = &self.pieces[*piece];
            let alone = unfinished.alone.is_some_and(|since| now.since(since) < ALONE);
            let active = |&owner: &Slot| owner == slot || self.requests.on_time(owner) > 0;
            let fits = match (relation, unfinished.owner.filter(active)) {
                (Relation::Own, owner) => owner == Some(slot),
                (Relation::Orphan, owner) => owner.is_none(),
                (Relation::Foreign, owner) => owner.is_some() && owner != Some(slot) && !alone,
            };
            fits && has.contains(**piece)
        };
        self.open.iter().filter(fits).map(|&piece| PieceIndex(piece))
    }

    /// Begun pieces that nobody was asked for anything of, but for what is overdue, and how many blocks
    /// of each are there.
    pub(super) fn idle(&self) -> impl Iterator<Item = (PieceIndex, u32)> {
        let begun = self.open.iter().map(|&piece| (piece, &self.pieces[&piece]));
        begun
            .inspect(|_| steps::count(1))
            .filter(|(_, unfinished)| unfinished.open == unfinished.missing)
            .map(|(piece, unfinished)| {
                (PieceIndex(piece), unfinished.blocks.len() as u32 - unfinished.missing)
            })
    }

    /// Whether `piece` is begun.
    pub(super) fn contains(&self, piece: PieceIndex) -> bool {
        self.pieces.contains_key(&piece.0)
    }

    /// Whether `piece` is begun and not all of its blocks are there.
    pub(super) fn lacks(&self, piece: PieceIndex) -> bool {
        self.pieces.get(&piece.0).is_some_and(|unfinished| unfinished.missing > 0)
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

    /// See [`Requests::restart`].
    pub(super) fn restart(&mut self, now: Time) {
        self.requests.restart(now);
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

impl Unfinished {
    /// Opens again what liars gave, and forgets them as givers; returns the blocks' indexes.
    fn disbelieve(&mut self, lies: impl Fn(SocketAddr) -> bool) -> Vec<usize> {
        let givers = std::mem::take(&mut self.givers);
        // Where each giver is found among those that are left, which keep their order.
        let mut places = Vec::with_capacity(givers.len());
        for giver in givers {
            steps::count(1);
            let honest = !lies(giver);
            places.push(honest.then_some(self.givers.len() as u16));
            if honest {
                self.givers.push(giver);
            }
        }
        let mut dropped = Vec::new();
        for (index, state) in self.blocks.iter_mut().enumerate().filter(|(_, state)| state.received) {
            match places.get(usize::from(state.giver)).copied().flatten() {
                Some(place) => state.giver = place,
                None => {
                    // Nobody is on it: whoever else was asked has been told that it is there.
                    *state = BlockState::default();
                    dropped.push(index);
                }
            }
        }
        self.open += dropped.len() as u32;
        self.missing += dropped.len() as u32;
        self.cursor = dropped.first().map_or(self.cursor, |&first| self.cursor.min(first as u32));
        dropped
    }
}

fn block_at(piece: PieceIndex, index: usize, piece_len: u32) -> BlockRef {
    let begin = index as u32 * BLOCK_LEN;
    BlockRef { piece, begin, len: (piece_len - begin).min(BLOCK_LEN) }
}
