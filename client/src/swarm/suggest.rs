//! [`Suggest`]: a seed tells those it serves which pieces nobody has yet (BEP 6, "Suggest Piece").
//!
//! Downloaders know neither what others were given that they are not connected to, nor what is on its
//! way to anybody. The seed knows: it suggests different pieces to each, and each piece to one, until
//! all have been seen with somebody. Whoever follows no suggestions is served all the same, and what it
//! asks for is suggested to nobody else.

use std::collections::BTreeMap;

use arrayvec::ArrayVec;

use super::{Action, Stage, Swarm};
use crate::bitfield::Bitfield;
use crate::peer::PeerCommand;
use crate::piece::{PieceIndex, Slot};

/// Which pieces are suggested to whom.
#[derive(Debug)]
pub(super) struct Suggest {
    /// Pieces that nobody has been seen with and that are neither suggested nor on their way.
    free: Bitfield,
    /// Where the search for the next one begins.
    cursor: u32,
    /// At most one for each peer that is unchoked.
    served: BTreeMap<Slot, Served>,
}

/// What a peer is about to get. Nobody has been seen with any of it.
#[derive(Debug, Default)]
struct Served {
    /// Suggested to it, and not asked for.
    ahead: ArrayVec<u32, AHEAD>,
    /// Asked for.
    begun: ArrayVec<u32, MAX_BEGUN>,
}

/// Suggestions to a peer that it has not followed yet. With fewer, peers with fast lines choose by
/// themselves before the next one is there, and meet: three leeches on lines of 25 Mbit/s need 1.11 times
/// the torrent of their seed with three, and 1.06 times with four.
const AHEAD: usize = 4;
/// Pieces on their way to one peer; further ones may be suggested to others.
const MAX_BEGUN: usize = 32;

impl Suggest {
    /// Suggests the pieces in `free`, those from `cursor` on first.
    pub(super) fn new(free: Bitfield, cursor: u32) -> Self {
        Self { free, cursor, served: BTreeMap::new() }
    }

    /// A peer is served from here on.
    pub(super) fn serve(&mut self, slot: Slot) {
        self.served.entry(slot).or_default();
    }

    /// What is to be suggested to a peer now: as much as it has room for. Costs a step per 64 pieces between one that is free and the next.
    pub(super) fn next(&mut self, slot: Slot) -> ArrayVec<u32, AHEAD> {
        let mut told = ArrayVec::new();
        let Some(served) = self.served.get_mut(&slot) else { return told };
        while !served.ahead.is_full() && !self.free.is_empty() {
            let from = |cursor| self.free.first_common(&self.free, cursor);
            let Some(piece) = from(self.cursor).or_else(|| from(0)) else { break };
            self.free.remove(piece);
            self.cursor = piece + 1;
            served.ahead.push(piece);
            told.push(piece);
        }
        told
    }

    /// A peer asks for a block of `piece`. Returns whether it may be told of more: it follows.
    pub(super) fn begun(&mut self, slot: Slot, piece: u32) -> bool {
        let Some(served) = self.served.get_mut(&slot) else { return false };
        let followed = served.ahead.iter().position(|&ahead| ahead == piece);
        let unseen = match followed {
            Some(at) => served.ahead.remove(at) == piece,
            None => self.free.remove(piece),
        };
        if unseen && served.begun.try_push(piece).is_err() {
            self.free.insert(piece);
        }
        followed.is_some()
    }

    /// Somebody has `piece` for the first time.
    pub(super) fn seen(&mut self, piece: u32) {
        self.free.remove(piece);
        self.forget(|other| other == piece);
    }

    /// Somebody came with `pieces`.
    pub(super) fn seen_all(&mut self, pieces: &Bitfield) {
        for piece in pieces.iter() {
            self.free.remove(piece);
        }
        self.forget(|piece| pieces.contains(piece));
    }

    /// The only one that had `piece` is gone.
    pub(super) fn lost(&mut self, piece: u32) {
        self.free.insert(piece);
    }

    /// A peer is choked or gone: what is on its way to it may not arrive.
    pub(super) fn end(&mut self, slot: Slot) {
        let Served { ahead, begun } = self.served.remove(&slot).unwrap_or_default();
        for piece in ahead.into_iter().chain(begun) {
            self.free.insert(piece);
        }
    }

    fn forget(&mut self, which: impl Fn(u32) -> bool) {
        for Served { ahead, begun } in self.served.values_mut() {
            ahead.retain(|piece| !which(*piece));
            begun.retain(|piece| !which(*piece));
        }
    }
}

impl Swarm {
    /// Suggests pieces to a peer that is about to be unchoked.
    pub(super) fn suggest_first(&mut self, slot: Slot, out: &mut Vec<Action>) {
        self.begin_to_suggest();
        if let Some(suggest) = &mut self.suggest {
            suggest.serve(slot);
        }
        self.suggest_more(slot, out);
    }

    /// A peer is given a block of a piece.
    pub(super) fn suggest_after(&mut self, slot: Slot, piece: PieceIndex, out: &mut Vec<Action>) {
        if self.suggest.as_mut().is_some_and(|suggest| suggest.begun(slot, piece.0)) {
            self.suggest_more(slot, out);
        }
    }

    fn suggest_more(&mut self, slot: Slot, out: &mut Vec<Action>) {
        let fast = self.conns.get(slot).and_then(|conn| conn.hello).is_some_and(|hello| hello.fast);
        let Some(suggest) = self.suggest.as_mut().filter(|_| fast) else { return };
        let told = suggest.next(slot).into_iter();
        out.extend(told.map(|piece| Action::Tell(slot, PeerCommand::Suggest(PieceIndex(piece)))));
    }

    /// Only a seed suggests: whoever downloads wants to have something to trade first. A super-seed
    /// shows no more than it offers.
    fn begin_to_suggest(&mut self) {
        let Stage::Transfer(transfer) = &self.stage else { return };
        if self.suggest.is_some() || self.super_seed.is_some() || !transfer.have().is_full() {
            return;
        }
        let mut free = Bitfield::full(transfer.have().len());
        for piece in (0..free.len()).filter(|&piece| transfer.availability(piece) > 0) {
            free.remove(piece);
        }
        let cursor = self.rng.below(free.len().max(1) as usize) as u32;
        self.suggest = Some(Suggest::new(free, cursor));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Slot = Slot { index: 1, generation: 0 };
    const TWO: Slot = Slot { index: 2, generation: 0 };

    /// Nobody has anything; two are served.
    fn suggest(pieces: u32, cursor: u32) -> Suggest {
        let mut suggest = Suggest::new(Bitfield::full(pieces), cursor);
        [ONE, TWO].into_iter().for_each(|slot| suggest.serve(slot));
        suggest
    }

    #[test]
    fn each_piece_is_suggested_to_one_and_the_next_when_one_is_followed() {
        let mut suggest = suggest(10, 8);
        assert_eq!(suggest.next(ONE)[..], [8, 9, 0, 1]);
        assert_eq!(suggest.next(TWO)[..], [2, 3, 4, 5]);
        assert!(suggest.next(ONE).is_empty(), "it has not followed any");
        assert!(suggest.begun(ONE, 9) && !suggest.begun(ONE, 9));
        assert_eq!(suggest.next(ONE)[..], [6]);
        // What a peer takes by itself is on its way, too.
        assert!(!suggest.begun(TWO, 7) && suggest.begun(TWO, 3));
        assert!(suggest.next(TWO).is_empty());
    }

    #[test]
    fn what_does_not_arrive_is_suggested_to_others_and_what_was_seen_to_nobody() {
        let mut suggest = suggest(5, 0);
        assert_eq!(suggest.next(ONE)[..], [0, 1, 2, 3]);
        assert!(suggest.begun(ONE, 0) && suggest.begun(ONE, 1));
        assert_eq!(suggest.next(ONE)[..], [4]);
        suggest.seen(1);
        suggest.end(ONE);
        assert_eq!(suggest.next(TWO)[..], [0, 2, 3, 4]);
        let mut came = Bitfield::new(5);
        assert!(came.insert(0) && came.insert(2));
        suggest.seen_all(&came);
        suggest.end(TWO);
        assert!(suggest.next(ONE).is_empty(), "it is not served");
        suggest.serve(ONE);
        assert_eq!(suggest.next(ONE)[..], [3, 4]);
        suggest.lost(2);
        assert_eq!(suggest.next(ONE)[..], [2], "who had it has gone");
    }

    #[test]
    fn no_peer_can_keep_more_than_so_many_pieces_from_others() {
        let pieces = MAX_BEGUN as u32 + 9;
        let mut suggest = suggest(pieces, 0);
        suggest.next(ONE);
        (0..pieces).for_each(|piece| {
            suggest.begun(ONE, piece);
        });
        assert_eq!(suggest.next(TWO).len(), AHEAD);
        assert_eq!(suggest.served[&ONE].begun.len(), MAX_BEGUN);
        assert!(!suggest.begun(Slot { index: 9, generation: 0 }, pieces - 1), "it is not served");
    }
}
