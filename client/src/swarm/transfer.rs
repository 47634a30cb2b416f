//! [`Transfer`]: the pieces of a torrent: which we have and want, what came of what was asked for, and
//! what the disk says. Whom to ask for which blocks next is chosen in `pick`.

mod given_up;
mod pick;
mod room;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use btdht::{Rng, Time};

pub(super) use self::given_up::GivenUp;
pub(super) use self::pick::{Asked, Picked};
use super::blocks::{Arrival, Blocks, Finished};
use super::deadlines::Deadlines;
use super::has::Has;
use super::limits::Limits;
use super::picker::Picker;
use super::verify::Verify;
use crate::bitfield::Bitfield;
use crate::metainfo::Info;
use crate::peer::TorrentShape;
use crate::piece::{BlockRef, PieceIndex, Slot};
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
    /// Peers of whose pieces none may be begun but those that they told of since, at most [`MAX_TOLD`]:
    /// nobody looks through all of them at each event.
    barren: BTreeMap<Slot, Vec<u32>>,
    /// When a block came last.
    heard: Time,
    deadlines: Deadlines,
    blocks: Blocks,
    verify: Verify,
    /// Bytes with the disk threads that are not on disk.
    buffered: u64,
    /// Pieces verified in this run: the first ones are chosen at random.
    verified: u32,
}

/// What a verdict leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Judged {
    /// The piece is ours, and these files are complete with it; these peers lied about it before. One that
    /// was begun may not be wanted any more.
    Good { wanted: bool, files: Vec<usize>, liars: Vec<SocketAddr> },
    /// The piece has to be fetched again; these peers are convicted.
    Bad { liars: Vec<SocketAddr> },
    /// The piece has to be fetched again, and no peer is to blame.
    Lost,
    /// We have it already, or there is no such piece.
    Known,
}

/// Pieces that a peer told of and nobody has begun: 4 KiB a connection.
const MAX_TOLD: usize = 1024;

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
            barren: BTreeMap::new(),
            heard: Time::ZERO,
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
        let given_up = transfer.want(priority, rng);
        debug_assert!(given_up.is_empty(), "nothing is begun");
        transfer
    }

    /// Wants the files of a priority above 0; the others are weights. Of files that share a piece the
    /// highest counts. Pieces that are begun are finished, but for those that are not wanted any more and
    /// of which nothing is on its way: these are given up.
    pub(super) fn want(&mut self, priority: impl Fn(usize) -> u16, rng: &mut Rng) -> Vec<GivenUp> {
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
        let given_up = self.give_up_unwanted(&weights);
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
        self.barren.clear();
        given_up
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
    pub(super) fn peer_came(&mut self, slot: Slot, has: &Has) -> u32 {
        self.barren.remove(&slot);
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
        self.barren.remove(&slot);
        self.blocks.give_back_all(slot);
        self.verify.forget(addr);
    }

    /// A peer got a further piece; returns whether we want it.
    pub(super) fn peer_has(&mut self, slot: Slot, piece: PieceIndex) -> bool {
        self.picker.add(piece.0);
        if self.picker.is_fresh(piece.0)
            && let Some(told) = self.barren.get_mut(&slot)
        {
            told.push(piece.0);
            if told.len() > MAX_TOLD {
                self.barren.remove(&slot); // all that it has is looked through once more
            }
        }
        self.missing.contains(piece.0)
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

    /// Opens again what liars gave of pieces that are not all there; returns it.
    pub(super) fn disbelieve(&mut self, lies: impl Fn(SocketAddr) -> bool) -> Vec<BlockRef> {
        self.blocks.disbelieve(lies)
    }

    /// A block came that was asked for.
    pub(super) fn heard(&mut self, now: Time) {
        self.heard = now;
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

    /// Connections that have owed us a block for too long.
    pub(super) fn late(&self, now: Time, limits: &Limits) -> Vec<Slot> {
        let requests = self.blocks.requests();
        let peers = requests.peers();
        requests.late(now, |own| limits.request_timeout + limits.intake.wait(own, peers))
    }

    /// What was asked for before no longer says anything about how long that takes.
    pub(super) fn restart(&mut self, now: Time) {
        self.blocks.restart(now);
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

    /// The disk threads have judged a piece. Also returns who was asked for blocks of it that are of no use
    /// any more.
    pub(super) fn judge(
        &mut self,
        now: Time,
        piece: PieceIndex,
        verdict: &Verdict,
    ) -> (Judged, Vec<(Slot, BlockRef)>) {
        if piece.0 >= self.shape.pieces || self.have.contains(piece.0) {
            return (Judged::Known, Vec::new());
        }
        let Finished { givers, called_off } = self.blocks.finish(piece).unwrap_or_default();
        (self.settle(now, piece, verdict, &givers), called_off)
    }

    fn settle(&mut self, now: Time, piece: PieceIndex, verdict: &Verdict, givers: &[SocketAddr]) -> Judged {
        match verdict {
            Verdict::Good => {
                let liars = self.verify.good(piece, givers);
                self.verified += 1;
                let wanted = self.missing.contains(piece.0);
                Judged::Good { wanted, files: self.gain(piece), liars }
            }
            Verdict::Bad { blocks } => {
                let liars = self.verify.bad(now, piece, givers, blocks);
                self.put_back(piece);
                Judged::Bad { liars }
            }
            Verdict::Lost => {
                self.put_back(piece);
                Judged::Lost
            }
        }
    }

    /// A piece that is not right is picked again, if it is wanted.
    fn put_back(&mut self, piece: PieceIndex) {
        if self.missing.contains(piece.0) {
            self.picker.put(piece.0);
            self.barren.clear();
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
