//! [`Transfer`]: the pieces of a torrent: which we have and want, whom to ask for which blocks next,
//! and what the disk says of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use btdht::{Rng, Time};

use super::blocks::{Arrival, Blocks, Duplicates, Relation};
use super::deadlines::{Deadlines, patience};
use super::has::Has;
use super::limits::Limits;
use super::picker::{Picker, Strategy};
use super::verify::Verify;
use crate::bitfield::Bitfield;
use crate::metainfo::Info;
use crate::peer::TorrentShape;
use crate::piece::{BLOCK_LEN, BlockRef, PieceIndex, Slot};
use crate::storage::Verdict;

/// The pieces of one torrent.
#[derive(Debug)]
pub(super) struct Transfer {
    info: Arc<Info>,
    shape: TorrentShape,
    have: Bitfield,
    have_bytes: u64,
    /// Wanted and not verified.
    missing: Bitfield,
    wanted_bytes: u64,
    left: u64,
    /// Pieces that each file lacks.
    files: Vec<u32>,
    picker: Picker,
    deadlines: Deadlines,
    blocks: Blocks,
    verify: Verify,
    /// Bytes with the disk threads that are not on disk.
    buffered: u64,
    /// Pieces verified in this run: the first ones are chosen at random.
    verified: u32,
}

/// A peer that could be asked for something.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) slot: Slot,
    pub(super) addr: SocketAddr,
    pub(super) has: &'a Has,
    /// How many requests it could use.
    pub(super) room: usize,
    /// Bytes per second that it gives; looked at where pieces have deadlines only.
    pub(super) rate: u64,
}

/// What a verdict leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Judged {
    /// The piece is ours, and these files are complete with it; these peers lied about it before.
    Good { files: Vec<usize>, liars: Vec<SocketAddr> },
    /// The piece has to be fetched again; these peers are convicted.
    Bad { liars: Vec<SocketAddr> },
    /// We have it already, or there is no such piece.
    Known,
}

/// Requests that are always allowed when nothing is under way, so that blocks which the disk threads
/// keep until their piece is whole can never stop the transfer.
const LIVENESS: usize = 16;

impl Transfer {
    /// A transfer that starts with the pieces in `have`.
    pub(super) fn new(
        info: Arc<Info>,
        have: Bitfield,
        priority: impl Fn(usize) -> u16,
        limits: &Limits,
        rng: &mut Rng,
    ) -> Self {
        let shape = info.shape();
        let mut have = have;
        if have.len() != shape.pieces {
            have = Bitfield::new(shape.pieces);
        }
        let mut files = vec![0; info.files().len()];
        for (left, file) in files.iter_mut().zip(info.files()) {
            *left = file.piece_range().filter(|&piece| !have.contains(piece)).count() as u32;
        }
        let mut transfer = Self {
            picker: Picker::new(shape.pieces),
            deadlines: Deadlines::default(),
            missing: Bitfield::new(shape.pieces),
            blocks: Blocks::new(shape),
            verify: Verify::new(limits.max_suspicions),
            info,
            shape,
            have_bytes: have.iter().map(|piece| u64::from(shape.piece_len(PieceIndex(piece)))).sum(),
            have,
            wanted_bytes: 0,
            left: 0,
            files,
            buffered: 0,
            verified: 0,
        };
        transfer.want(priority, rng);
        transfer
    }

    /// Wants the files of a priority above 0; the others are weights. Of files that share a piece the
    /// highest counts. Pieces that are begun are finished.
    pub(super) fn want(&mut self, priority: impl Fn(usize) -> u16, rng: &mut Rng) {
        let mut weights = vec![0; self.shape.pieces as usize];
        for file in self.info.files().filter(|file| file.is_stored()) {
            let priority = priority(file.index);
            for piece in file.piece_range() {
                let weight: &mut u16 = &mut weights[piece as usize];
                *weight = priority.max(*weight);
            }
        }
        // Pieces of padding alone have no file that could be skipped.
        if (0..self.files.len()).all(|file| priority(file) > 0) {
            weights.iter_mut().for_each(|weight| *weight = (*weight).max(1));
        }
        let mut fresh = Bitfield::new(self.shape.pieces);
        (self.left, self.wanted_bytes) = (0, 0);
        for (piece, &weight) in (0..).zip(&weights) {
            let len = u64::from(self.shape.piece_len(PieceIndex(piece)));
            let missing = weight > 0 && !self.have.contains(piece);
            self.wanted_bytes += if weight > 0 { len } else { 0 };
            if missing {
                self.left += len;
                self.missing.insert(piece);
            } else {
                self.missing.remove(piece);
                self.deadlines.set(piece, None);
            }
            if missing && !self.blocks.contains(PieceIndex(piece)) {
                fresh.insert(piece);
            }
        }
        self.picker.reset(&fresh, &weights, rng);
    }

    /// Needs `piece` at `at`, or no longer at a certain time.
    pub(super) fn need(&mut self, piece: PieceIndex, at: Option<Time>) {
        self.deadlines.set(piece.0, at.filter(|_| self.missing.contains(piece.0)));
    }

    /// Whether a piece has a deadline.
    pub(super) fn is_urgent(&self) -> bool {
        !self.deadlines.is_empty()
    }

    /// A peer came with these pieces; returns how many of them we want.
    pub(super) fn peer_came(&mut self, has: &Has) -> u32 {
        self.picker.add_peer(has);
        has.common(&self.missing)
    }

    /// What a peer said before no longer counts.
    pub(super) fn peer_lost(&mut self, has: &Has) {
        self.picker.remove_peer(has);
    }

    /// A peer has gone.
    pub(super) fn peer_gone(&mut self, slot: Slot, addr: SocketAddr, has: &Has) {
        self.picker.remove_peer(has);
        self.blocks.give_back_all(slot);
        self.verify.forget(addr);
    }

    /// A peer got a further piece; returns whether we want it.
    pub(super) fn peer_has(&mut self, piece: PieceIndex) -> bool {
        self.picker.add(piece.0);
        self.missing.contains(piece.0)
    }

    /// Chooses the blocks to ask a peer for.
    pub(super) fn pick(
        &mut self,
        now: Time,
        peer: Asked<'_>,
        limits: &Limits,
        rng: &mut Rng,
    ) -> Vec<BlockRef> {
        let mut out = Vec::new();
        let count = peer.room.min(self.allowance(peer.slot, limits));
        let suspect = self.verify.is_suspect(peer.addr);
        if self.is_urgent() {
            self.pick_urgent(now, peer, count, limits, &mut out);
        }
        self.share(now, peer, Relation::Own, count, &mut out);
        if !suspect {
            self.share(now, peer, Relation::Orphan, count, &mut out);
        }
        self.begin(now, peer, count, limits, rng, &mut out);
        if suspect && out.is_empty() {
            // Nothing is left that it could fetch alone.
            self.share(now, peer, Relation::Orphan, count, &mut out);
        }
        if !suspect {
            self.share(now, peer, Relation::Foreign, count, &mut out);
        }
        if out.is_empty() && count > 0 && self.picker.is_empty() {
            let rule = Duplicates {
                holders: limits.endgame_holders,
                holders_late: limits.endgame_holders_late,
                patience: limits.endgame_patience,
            };
            let verify = &self.verify;
            let may = |piece| peer.has.contains(piece) && verify.admits(peer.addr, PieceIndex(piece));
            self.blocks.request_again(now, peer.slot, may, rule, count, &mut out);
        }
        let mut last = None;
        for block in &out {
            if last != Some(block.piece) {
                self.verify.involve(peer.addr, block.piece);
                last = Some(block.piece);
            }
        }
        out
    }

    /// A block arrived. `None`: it is of no use.
    pub(super) fn receive(
        &mut self,
        (slot, addr): (Slot, SocketAddr),
        block: BlockRef,
        bytes: &[u8],
    ) -> Option<Arrival> {
        let arrival = self.blocks.receive(slot, addr, block)?;
        self.verify.note(block, bytes);
        self.buffered += u64::from(block.len);
        Some(arrival)
    }

    /// A request will not be answered.
    pub(super) fn give_back(&mut self, slot: Slot, block: BlockRef) {
        self.blocks.give_back(slot, block);
    }

    /// Takes back all requests to a peer that stays; returns them.
    pub(super) fn take_back(&mut self, slot: Slot) -> Vec<BlockRef> {
        let mut asked = Vec::new();
        while let Some(block) = self.blocks.requests().front(slot) {
            self.blocks.give_back(slot, block);
            asked.push(block);
        }
        asked
    }

    /// A piece that was verified is no longer right. [`Transfer::want`] decides whether it is wanted.
    pub(super) fn lose(&mut self, piece: PieceIndex) {
        if self.have.remove(piece.0) {
            let len = self.shape.piece_len(piece);
            self.have_bytes -= u64::from(len);
            for file in self.files_of(piece, len) {
                self.files[file] += 1;
            }
        }
    }

    /// A peer answers too slowly: others may be asked for what it holds.
    pub(super) fn snubbed(&mut self, slot: Slot) {
        self.blocks.overdue(slot);
    }

    /// Connections that have owed us a block for longer than `most`.
    pub(super) fn late(&self, now: Time, most: Duration) -> Vec<Slot> {
        self.blocks.requests().late(now, most)
    }

    /// Wanted files without any bytes, which no piece brings.
    pub(super) fn empty_files(&self, wanted: impl Fn(usize) -> bool) -> Vec<usize> {
        let empty = self.info.files().filter(|file| file.is_stored() && file.is_empty());
        empty.map(|file| file.index).filter(|&file| wanted(file)).collect()
    }

    /// The disk threads have room again.
    pub(super) fn freed(&mut self, bytes: u32) {
        self.buffered = self.buffered.saturating_sub(u64::from(bytes));
    }

    /// The disk threads have judged a piece.
    pub(super) fn judge(&mut self, piece: PieceIndex, verdict: &Verdict) -> Judged {
        if piece.0 >= self.shape.pieces || self.have.contains(piece.0) {
            return Judged::Known;
        }
        let givers = self.blocks.finish(piece).unwrap_or_default();
        match verdict {
            Verdict::Good => {
                let liars = self.verify.good(piece, &givers);
                self.verified += 1;
                Judged::Good { files: self.gain(piece), liars }
            }
            Verdict::Bad { blocks } => {
                let liars = self.verify.bad(piece, &givers, blocks);
                if self.missing.contains(piece.0) {
                    self.picker.put(piece.0);
                }
                Judged::Bad { liars }
            }
        }
    }

    /// Peers that have `piece`, those that came with everything not counted.
    pub(super) fn availability(&self, piece: u32) -> u16 {
        self.picker.availability(piece)
    }

    /// The torrent.
    pub(super) fn info(&self) -> &Arc<Info> {
        &self.info
    }

    /// The verified pieces.
    pub(super) fn have(&self) -> &Bitfield {
        &self.have
    }

    /// Bytes in them.
    pub(super) fn have_bytes(&self) -> u64 {
        self.have_bytes
    }

    /// The wanted pieces that are not verified.
    pub(super) fn missing(&self) -> &Bitfield {
        &self.missing
    }

    /// Bytes wanted in all.
    pub(super) fn wanted_bytes(&self) -> u64 {
        self.wanted_bytes
    }

    /// Wanted bytes that are not verified.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// Files that lack nothing.
    pub(super) fn complete_files(&self) -> impl Iterator<Item = usize> + '_ {
        let lacking_none = |file: &crate::metainfo::File<'_>| file.is_stored() && self.files[file.index] == 0;
        self.info.files().filter(lacking_none).map(|file| file.index)
    }

    /// How many blocks `slot` may be asked for before the disk has to catch up. Where it is slow peers
    /// that use the budget up and not the disk, everybody else still gets a few.
    fn allowance(&self, slot: Slot, limits: &Limits) -> usize {
        let requests = self.blocks.requests();
        let used = self.buffered + requests.outstanding();
        let free = limits.write_budget.saturating_sub(used) / u64::from(BLOCK_LEN.min(self.shape.piece_len));
        let few = match self.buffered < limits.write_budget / 2 {
            true => limits.requests_beyond_budget.saturating_sub(requests.on_time(slot)),
            false => 0,
        };
        match usize::try_from(free).unwrap_or(usize::MAX).max(few) {
            0 if self.blocks.is_stalled() => LIVENESS,
            free => free,
        }
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
        let open = self.blocks.open_for(peer.slot, peer.has, relation);
        let open: Vec<_> = open.take(count - out.len()).collect();
        for piece in open {
            // A bad piece is fetched again by one peer.
            let mixes = verify.is_case(piece) && relation == Relation::Foreign;
            if out.len() < count && !mixes && verify.admits(peer.addr, piece) {
                self.blocks.request(now, peer.slot, piece, count - out.len(), out);
                if relation == Relation::Orphan {
                    self.blocks.adopt(piece, peer.slot);
                }
            }
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
        out: &mut Vec<BlockRef>,
    ) {
        let strategy = match limits.sequential {
            true => Strategy::Sequential,
            false if self.verified < limits.random_first => Strategy::Random,
            false => Strategy::RarestFirst,
        };
        while out.len() < count {
            let committed = self.blocks.committed() + u64::from(self.shape.piece_len);
            if committed > limits.unfinished_bytes && self.blocks.unfinished() >= 2 {
                return;
            }
            let Some(piece) = self.picker.choose(peer.has, strategy, limits.pick_steps, rng) else { return };
            let piece = PieceIndex(piece);
            if !self.verify.admits(peer.addr, piece) {
                return;
            }
            self.begin_piece(piece, peer);
            self.blocks.request(now, peer.slot, piece, count - out.len(), out);
        }
    }

    fn begin_piece(&mut self, piece: PieceIndex, peer: Asked<'_>) {
        self.picker.take(piece.0);
        self.blocks.begin(piece, peer.slot);
        if self.verify.is_case(piece) || self.verify.is_suspect(peer.addr) {
            self.blocks.reserve(piece);
        }
        self.verify.involve(peer.addr, piece);
    }

    /// Asks for blocks of pieces with a deadline: first those that nobody is on, then those that the
    /// peer would have brought sooner than whoever is. May begin as much again as other pieces may.
    fn pick_urgent(
        &mut self,
        now: Time,
        peer: Asked<'_>,
        count: usize,
        limits: &Limits,
        out: &mut Vec<BlockRef>,
    ) {
        let urgent: Vec<_> = self.deadlines.urgent().filter(|&piece| peer.has.contains(piece)).collect();
        for piece in urgent.into_iter().map(PieceIndex) {
            if out.len() >= count {
                return;
            }
            // A bad piece is fetched again by one peer, a suspect's by nobody else.
            let alone = self.verify.is_case(piece) || self.verify.is_suspect(peer.addr);
            let fresh = self.picker.is_fresh(piece.0);
            if alone && !fresh || !self.verify.admits(peer.addr, piece) {
                continue;
            }
            if fresh {
                if self.blocks.committed() > 2 * limits.unfinished_bytes && self.blocks.unfinished() >= 2 {
                    continue;
                }
                self.begin_piece(piece, peer);
            }
            self.blocks.request(now, peer.slot, piece, count - out.len(), out);
            let owed = self.blocks.requests().on_time(peer.slot);
            if let Some(patience) = patience(peer.rate, owed) {
                let rule = Duplicates { holders: 1, holders_late: 2, patience };
                let left = count.saturating_sub(out.len());
                self.blocks.request_again(now, peer.slot, |other| other == piece.0, rule, left, out);
            }
        }
    }

    /// A piece is verified; returns the files that are complete with it.
    fn gain(&mut self, piece: PieceIndex) -> Vec<usize> {
        self.have.insert(piece.0);
        self.picker.take(piece.0);
        self.deadlines.set(piece.0, None);
        let len = self.shape.piece_len(piece);
        self.have_bytes += u64::from(len);
        if self.missing.remove(piece.0) {
            self.left -= u64::from(len);
        }
        let mut complete = Vec::new();
        for file in self.files_of(piece, len) {
            let left = &mut self.files[file];
            *left = left.saturating_sub(1);
            if *left == 0 && self.info.file(file).is_some_and(|file| file.is_stored()) {
                complete.push(file);
            }
        }
        complete
    }

    /// The files that have bytes in a piece.
    fn files_of(&self, piece: PieceIndex, len: u32) -> Vec<usize> {
        let spans = self.info.layout().spans(piece, 0, len).filter(|span| span.len > 0);
        let mut files: Vec<_> = spans.map(|span| span.file).collect();
        files.dedup();
        files
    }
}
