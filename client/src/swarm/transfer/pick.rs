//! Which blocks to ask a peer for.

use std::net::SocketAddr;

use btdht::{Rng, Time};

use super::Transfer;
use super::given_up::GivenUp;
use crate::piece::{BLOCK_LEN, BlockRef, PieceIndex, Slot, stretch};
use crate::storage::WRITE_CACHE;
use crate::swarm::blocks::{Duplicates, Relation};
use crate::swarm::deadlines::patience;
use crate::swarm::has::Has;
use crate::swarm::limits::Limits;
use crate::swarm::picker::Strategy;
use crate::swarm::rivals::Rivals;

/// A peer that could be asked for something.
#[derive(Clone, Copy, Debug)]
pub(in crate::swarm) struct Asked<'a> {
    pub(in crate::swarm) slot: Slot,
    pub(in crate::swarm) addr: SocketAddr,
    pub(in crate::swarm) has: &'a Has,
    /// How many requests it could use.
    pub(in crate::swarm) room: usize,
    /// Bytes per second that it gives; looked at where pieces have deadlines only.
    pub(in crate::swarm) rate: u64,
    /// Who else downloads.
    pub(in crate::swarm) rivals: &'a Rivals,
    /// Pieces that the peer suggested.
    pub(in crate::swarm) suggested: &'a [u32],
}

/// What comes of a choice.
#[derive(Debug, Default)]
pub(in crate::swarm) struct Picked {
    /// To be asked for.
    pub(in crate::swarm) blocks: Vec<BlockRef>,
    /// What had to make way for it.
    pub(in crate::swarm) given_up: Vec<GivenUp>,
}

/// Requests that are always allowed when nothing is under way, so that blocks which the disk threads
/// keep until their piece is whole can never stop the transfer. Of more than [`WRITE_CACHE`] they keep
/// none: then the disk is at work, however long that takes, and will have room.
const LIVENESS: usize = 16;

impl Transfer {
    /// Chooses the blocks to ask a peer for.
    pub(in crate::swarm) fn pick(
        &mut self,
        now: Time,
        peer: Asked<'_>,
        limits: &Limits,
        rng: &mut Rng,
    ) -> Picked {
        let mut out = Picked::default();
        let count = peer.room.min(self.allowance(peer.slot, limits));
        let suspect = self.verify.is_suspect(peer.addr);
        if self.is_urgent() {
            self.pick_urgent(now, peer, count, limits, &mut out);
        }
        self.share(now, peer, Relation::Own, count, &mut out.blocks);
        if !limits.sequential && self.is_source(peer) {
            self.begin(now, peer, count, limits, rng, &mut out);
        }
        if !suspect {
            self.share(now, peer, Relation::Orphan, count, &mut out.blocks);
        }
        self.begin(now, peer, count, limits, rng, &mut out);
        if suspect && out.blocks.is_empty() {
            // Nothing is left that it could fetch alone.
            self.share(now, peer, Relation::Orphan, count, &mut out.blocks);
        }
        if !suspect {
            self.share(now, peer, Relation::Foreign, count, &mut out.blocks);
        }
        if out.blocks.is_empty() && count > 0 {
            self.help(now, peer, count, limits, &mut out.blocks);
        }
        out
    }

    /// Whether a peer has what no downloader has, which others wait for, too. Then it has more to do than to
    /// finish what was begun with those who choke us now: they, or others like them, have that as well.
    fn is_source(&self, peer: Asked<'_>) -> bool {
        peer.has.is_all() && !peer.rivals.is_empty() && self.picker.has_unseen()
    }

    /// For a peer of whom nothing else may be asked: what others were asked for already. As long as a
    /// piece is begun nowhere (nobody has it, or who has it chokes us) only where nothing comes from
    /// anybody: in a crowd that is slow, the scarce bytes of seeds would come twice.
    fn help(&mut self, now: Time, peer: Asked<'_>, count: usize, limits: &Limits, out: &mut Vec<BlockRef>) {
        let rule = match self.picker.is_empty() {
            true => Duplicates {
                holders: limits.endgame_holders,
                holders_late: limits.endgame_holders_late,
                patience: limits.endgame_patience,
            },
            false if now.since(self.heard) < limits.silent_after => return,
            false => {
                Duplicates { holders: 1, holders_late: limits.endgame_holders, patience: limits.silent_after }
            }
        };
        self.share_again(now, peer, rule, count, out);
    }

    /// How many blocks `slot` may be asked for before the disk, or the line to us, has to catch up. Where it
    /// is slow peers that use the budget up and not the disk, everybody else still gets a few.
    fn allowance(&self, slot: Slot, limits: &Limits) -> usize {
        let requests = self.blocks.requests();
        let used = self.buffered + requests.outstanding();
        let free = limits.write_budget.saturating_sub(used) / u64::from(BLOCK_LEN.min(self.shape.piece_len));
        let few = match self.buffered < limits.write_budget / 2 {
            true => limits.requests_beyond_budget.saturating_sub(requests.on_time(slot)),
            false => 0,
        };
        let room = match usize::try_from(free).unwrap_or(usize::MAX).max(few) {
            0 if self.buffered <= WRITE_CACHE as u64 && self.blocks.is_stalled() => LIVENESS,
            free => free,
        };
        if limits.intake.is_none() {
            return room;
        }
        let own = requests.on_time(slot);
        let peers = requests.peers() + usize::from(own == 0);
        room.min(limits.intake.room(own, peers, requests.outstanding()))
    }

    /// Asks for open blocks of begun pieces.
    fn share(
        &mut self,
        now: Time,
        peer: Asked<'_>,
        relation: Relation,
        count: usize,
        out: &mut Vec<BlockRef>,
    ) {
        if out.len() >= count {
            return;
        }
        let verify = &self.verify;
        let open = self.blocks.open_for(now, peer.slot, peer.has, relation);
        let open = open.filter(|&piece| verify.admits(now, peer.addr, piece));
        let open: Vec<_> = open.take(count - out.len()).collect();
        for piece in open {
            // What it was asked for of the last one may be all that it is admitted to.
            if out.len() < count && self.verify.admits(now, peer.addr, piece) {
                self.blocks.request(now, peer.slot, piece, count - out.len(), out);
                // At once: the next piece may be one too many.
                self.verify.involve(peer.addr, piece);
                if relation == Relation::Orphan {
                    self.blocks.adopt(piece, peer.slot);
                }
            }
        }
    }

    /// Asks for blocks that others were asked for already.
    fn share_again(
        &mut self,
        now: Time,
        peer: Asked<'_>,
        rule: Duplicates,
        count: usize,
        out: &mut Vec<BlockRef>,
    ) {
        while out.len() < count {
            let verify = &self.verify;
            let may = |piece| peer.has.contains(piece) && verify.admits(now, peer.addr, PieceIndex(piece));
            let left = count - out.len();
            let Some(piece) = self.blocks.request_again(now, peer.slot, may, rule, left, out) else { return };
            self.verify.involve(peer.addr, piece);
        }
    }

    /// Begins further pieces and asks for their blocks.
    fn begin(
        &mut self,
        now: Time,
        peer: Asked<'_>,
        count: usize,
        limits: &Limits,
        rng: &mut Rng,
        out: &mut Picked,
    ) {
        let strategy = match limits.sequential {
            true => Strategy::Sequential,
            false if self.verified < limits.random_first => Strategy::Random,
            false if peer.rivals.is_empty() => Strategy::Beside(stretch(self.shape.piece_len)),
            false => Strategy::RarestFirst,
        };
        while out.blocks.len() < count {
            // Before anything is chosen, which costs more.
            if !self.verify.admits_another(now, peer.addr) || !self.may_begin(peer, 1, limits, out) {
                return;
            }
            let Some(piece) = self.fresh_piece(peer, strategy, limits, rng) else { return };
            self.make_way(peer, limits, out);
            let piece = PieceIndex(piece);
            self.begin_piece(now, piece, peer);
            self.blocks.request(now, peer.slot, piece, count - out.blocks.len(), &mut out.blocks);
        }
    }

    /// A piece that may be begun and that a peer has.
    fn fresh_piece(
        &mut self,
        peer: Asked<'_>,
        strategy: Strategy,
        limits: &Limits,
        rng: &mut Rng,
    ) -> Option<u32> {
        if let Some(told) = self.barren.get_mut(&peer.slot) {
            told.retain(|&piece| self.picker.is_fresh(piece));
            return self.picker.first_of(told, strategy);
        }
        if matches!(strategy, Strategy::RarestFirst | Strategy::Random)
            && let Some(piece) = self.picker.suggested(peer.suggested, peer.has)
        {
            return Some(piece);
        }
        let piece = self.picker.choose(peer.has, strategy, limits.pick_steps, peer.rivals, rng);
        if piece.is_none() {
            self.barren.insert(peer.slot, Vec::new()); // one a connection
        }
        piece
    }

    fn begin_piece(&mut self, now: Time, piece: PieceIndex, peer: Asked<'_>) {
        self.picker.take(piece.0);
        self.blocks.begin(piece, peer.slot);
        if self.verify.is_case(piece) || self.verify.is_suspect(peer.addr) {
            self.blocks.reserve(now, piece);
        }
        self.verify.involve(peer.addr, piece);
    }

    /// Asks for blocks of pieces with a deadline: first those that nobody is on, then those that the
    /// peer would have brought sooner than whoever is. May begin as much again as other pieces may.
    fn pick_urgent(&mut self, now: Time, peer: Asked<'_>, count: usize, limits: &Limits, out: &mut Picked) {
        let (picker, blocks) = (&self.picker, &self.blocks);
        let lacks = |piece| picker.is_fresh(piece) || blocks.lacks(PieceIndex(piece));
        let urgent: Vec<_> =
            self.deadlines.urgent(|piece| peer.has.contains(piece) && lacks(piece)).collect();
        for piece in urgent.into_iter().map(PieceIndex) {
            if out.blocks.len() >= count {
                return;
            }
            // A bad piece is fetched again by one peer, a suspect's by nobody else.
            let alone = self.verify.is_case(piece) || self.verify.is_suspect(peer.addr);
            let fresh = self.picker.is_fresh(piece.0);
            if alone && !fresh || !self.verify.admits(now, peer.addr, piece) {
                continue;
            }
            if fresh {
                if !self.may_begin(peer, 2, limits, out) {
                    continue;
                }
                self.make_way(peer, limits, out);
                self.begin_piece(now, piece, peer);
            }
            let out = &mut out.blocks;
            let asked = out.len();
            self.blocks.request(now, peer.slot, piece, count - out.len(), out);
            let owed = self.blocks.requests().on_time(peer.slot);
            if let Some(patience) = patience(peer.rate, owed) {
                let rule = Duplicates { holders: 1, holders_late: 2, patience };
                let left = count.saturating_sub(out.len());
                self.blocks.request_again(now, peer.slot, |other| other == piece.0, rule, left, out);
            }
            if out.len() > asked {
                self.verify.involve(peer.addr, piece);
            }
        }
    }
}
