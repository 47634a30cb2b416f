//! One disk thread: takes its tasks in order, keeps the write cache of its pieces and a little
//! read-ahead, and checks pieces when it has nothing better to do.

mod check;
mod renew;
mod reserve;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;

use super::ready::{Ready, write_row};
use super::reserving::Reserving;
use super::shared::Shared;
use super::tasks::{Barrier, Check, Found, Task};
use crate::buffer::Buffer;
use crate::hash::{Pieces, Source};
use crate::piece::{Block, BlockRef, PieceIndex, Slot};
use crate::storage::cache::Unfinished;
use crate::storage::{DiskError, DiskErrorKind, Done, Job, Verdict, span};

/// Bytes read at a time for peers, which ask for the blocks of a piece one after the other.
const CHUNK_LEN: u32 = 128 << 10;
/// Answers that are given together.
const MAX_ANSWERS: usize = 64;

/// Freed bytes that are told together.
const MAX_FREED: u32 = 256 << 10;

/// Pieces of the torrent on disk.
struct Stored<'a>(&'a Shared);

impl Source<PieceIndex> for Stored<'_> {
    type Error = DiskError;

    fn ahead(&self, piece: PieceIndex, begin: u32, len: u32) {
        span::ahead(&*self.0.storage, self.0.info.layout(), piece, begin, len);
    }

    fn read(&self, piece: PieceIndex, begin: u32, to: &mut [u8]) -> Result<bool, DiskError> {
        match span::read(&*self.0.storage, self.0.info.layout(), piece, begin, to) {
            Err(error) if error.kind == DiskErrorKind::Missing => Ok(false),
            read => read.map(|()| true),
        }
    }
}

/// What failed and will be tried again first.
enum Stuck {
    /// Hash on, and compare and write the piece if it is all there.
    Advance(PieceIndex),
    /// Write what is ready.
    WriteOut,
    /// Make room in the cache.
    Flush,
    /// Make empty files.
    MakeEmpty(Vec<usize>),
    /// Bring files back that are wanted again.
    BringBack(Vec<bool>),
    /// Judge the pieces of a check.
    Judge(Found),
}

pub(super) struct Worker {
    shared: Arc<Shared>,
    index: usize,
    tasks: VecDeque<Task>,
    stuck: Option<Stuck>,
    /// Pieces that a sync may have lost, to be written again.
    renewing: VecDeque<PieceIndex>,
    /// Those of them that are not there any more, which is not told yet.
    lost: Vec<PieceIndex>,
    /// Saves that wait for the end of that.
    postponed: Vec<Arc<Barrier>>,
    /// Space of wanted files that is being reserved.
    reserving: Option<Reserving>,
    /// The file system cannot reserve space.
    unreservable: bool,
    checks: VecDeque<Arc<Check>>,
    /// Pieces of the check at the front.
    checking: Option<Pieces<PieceIndex>>,
    /// Pieces of which parts were written before they were verified, until they are: what a check has read
    /// of them may have been written over since. Four bytes each.
    written_early: BTreeSet<PieceIndex>,
    /// Not only those: also what is ready.
    unfinished: BTreeMap<PieceIndex, Unfinished>,
    ready: Ready,
    /// Bytes of all unfinished pieces in memory.
    held: usize,
    chunks: LruCache<(PieceIndex, u32), Buffer>,
    check_buffer: Buffer,
    answers: Vec<Done>,
    freed: u32,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, index: usize) -> Self {
        let chunks = shared.config.read_cache / CHUNK_LEN as usize / shared.workers();
        Self {
            shared,
            index,
            tasks: VecDeque::new(),
            stuck: None,
            renewing: VecDeque::new(),
            lost: Vec::new(),
            postponed: Vec::new(),
            reserving: None,
            unreservable: false,
            checks: VecDeque::new(),
            checking: None,
            written_early: BTreeSet::new(),
            unfinished: BTreeMap::new(),
            ready: Ready::default(),
            held: 0,
            chunks: LruCache::new(NonZeroUsize::new(chunks).unwrap_or(NonZeroUsize::MIN)),
            check_buffer: Buffer::default(),
            answers: Vec::new(),
            freed: 0,
        }
    }

    /// Waits for something to do and does it: all tasks that are there, or one step of a check.
    pub(super) fn turn(&mut self) {
        let shared = Arc::clone(&self.shared);
        if shared.is_held() {
            self.pass_saves();
        }
        let idle = self.tasks.is_empty()
            && self.stuck.is_none()
            && self.renewing.is_empty()
            && self.reserving.is_none()
            && self.checks.is_empty()
            && self.ready.is_empty();
        let queue = shared.queue(self.index);
        let wait = || !shared.is_stopping() && (idle && !queue.is_to_renew() || shared.is_held());
        queue.take(&mut self.tasks, wait);
        if shared.is_held() {
            return self.pass_saves();
        }
        if queue.take_renew() {
            self.begin_renewing();
        }
        if let Err(error) = self.work() {
            shared.hold(error, false);
        }
        self.answer();
    }

    /// While the disk refuses, only saves go on.
    fn pass_saves(&mut self) {
        let shared = Arc::clone(&self.shared);
        self.tell_lost();
        self.answer();
        self.pass_postponed();
        self.tasks.retain(|task| {
            if let Task::Save(barrier) = task {
                shared.queue(self.index).ended();
                shared.arrive(barrier);
            }
            !matches!(task, Task::Save(_))
        });
    }

    fn work(&mut self) -> Result<(), DiskError> {
        if let Some(stuck) = self.stuck.take() {
            self.retry(stuck)?;
        }
        while !self.shared.is_held() && !self.shared.is_stopping() {
            // Nothing waits for a neighbour that may not come, and all else finds what came before it
            // on disk.
            if !matches!(self.tasks.front(), Some(Task::Job(Job::Write(..)))) {
                self.write_out()?;
            }
            // A step between two tasks, so that neither waits for long. What may be lost goes first, also
            // where there is no space to reserve for a long time.
            match self.renewing.is_empty() && self.postponed.is_empty() {
                true => self.reserve()?,
                false => self.renew()?,
            }
            let Some(task) = self.tasks.pop_front() else {
                // What comes meanwhile goes before the next step.
                let steps = self.reserving.is_some() || !self.renewing.is_empty();
                return if steps { Ok(()) } else { self.check() };
            };
            self.shared.queue(self.index).ended();
            match task {
                Task::Job(Job::Write(at, block)) => self.write(at, block)?,
                Task::Job(Job::Read(slot, at)) => self.read(slot, at)?,
                Task::Job(Job::Forget(at)) => self.forget(at),
                Task::Job(Job::Discard(piece)) => self.discard(piece),
                Task::Job(Job::MakeEmpty(files)) => self.make_empty(files)?,
                Task::Job(Job::Want(files)) => {
                    self.begin_reserving();
                    self.bring_back(files)?;
                }
                // Split up and given as tasks of their own.
                Task::Job(Job::Check(_) | Job::Save(..)) => {}
                Task::Check(check) => {
                    if let Some(pieces) = check.begin() {
                        self.shared.take_as_they_are(pieces);
                    }
                    self.checks.push_back(check);
                }
                Task::Found(found) => self.judge(found)?,
                // It would not claim what is written again in a moment; all else may go before it.
                Task::Save(barrier) if !self.renewing.is_empty() => self.postponed.push(barrier),
                Task::Save(barrier) => {
                    self.answer();
                    self.shared.arrive(&barrier);
                }
            }
            if self.answers.len() >= MAX_ANSWERS || self.freed >= MAX_FREED {
                self.answer();
            }
        }
        Ok(())
    }

    fn retry(&mut self, stuck: Stuck) -> Result<(), DiskError> {
        match stuck {
            Stuck::Advance(piece) => self.advance(piece),
            Stuck::WriteOut => self.write_out(),
            Stuck::Flush => self.flush(),
            Stuck::MakeEmpty(files) => self.make_empty(files),
            Stuck::BringBack(files) => self.bring_back(files),
            Stuck::Judge(found) => self.judge(found),
        }
    }

    fn write(&mut self, at: BlockRef, block: Block) -> Result<(), DiskError> {
        let len = block.len();
        let unfinished = match self.unfinished.get_mut(&at.piece) {
            Some(unfinished) => unfinished,
            // A late copy of a block whose piece is done.
            None if self.shared.lock_progress().written.contains(at.piece.0) => {
                self.freed += len as u32;
                return Ok(());
            }
            None => {
                let piece_len = self.shared.info.layout().piece_len(at.piece);
                self.unfinished.entry(at.piece).or_insert_with(|| Unfinished::new(piece_len))
            }
        };
        if unfinished.insert(at, block).is_err() {
            self.freed += len as u32;
            return Ok(());
        }
        self.held += len;
        self.advance(at.piece)?;
        if self.ready.held() >= self.shared.config.join as usize {
            self.write_out()?;
        }
        self.flush()
    }

    /// Hashes `piece` on; when it is all there, compares it, and it is ready or dropped. After an error
    /// that will be done again.
    fn advance(&mut self, piece: PieceIndex) -> Result<(), DiskError> {
        self.try_advance(piece).inspect_err(|_| self.stuck = Some(Stuck::Advance(piece)))
    }

    fn try_advance(&mut self, piece: PieceIndex) -> Result<(), DiskError> {
        let Some(unfinished) = self.unfinished.get_mut(&piece) else { return Ok(()) };
        let (storage, layout) = (&*self.shared.storage, self.shared.info.layout());
        let read = |begin, block: &mut [u8]| span::read(storage, layout, piece, begin, block);
        match unfinished.hash(read) {
            // Parts that were written early have gone with their file: nobody is to blame.
            Err(error) if error.kind == DiskErrorKind::Missing => {
                self.shared.excuse(piece);
                self.discard(piece);
                self.answers.push(Done::Piece(piece, Verdict::Lost));
                return Ok(());
            }
            hashed => hashed?,
        }
        let Some(digest) = unfinished.finished() else { return Ok(()) };
        if self.shared.info.piece_hash(piece) == Some(&digest) {
            self.ready.push(piece, unfinished.held());
            return Ok(());
        }
        // What was written early may not be what is read: then no peer is to blame.
        let lost = unfinished.has_stored() && self.shared.excuse(piece);
        let verdict = match lost {
            true => Verdict::Lost,
            false => Verdict::Bad { blocks: unfinished.block_hashes(read)? },
        };
        self.discard(piece);
        self.answers.push(Done::Piece(piece, verdict));
        Ok(())
    }

    /// Writes what is ready and tells of it. After an error the rest will be written again.
    fn write_out(&mut self) -> Result<(), DiskError> {
        self.try_write_out().inspect_err(|_| self.stuck = Some(Stuck::WriteOut))
    }

    fn try_write_out(&mut self) -> Result<(), DiskError> {
        let shared = Arc::clone(&self.shared);
        let layout = shared.info.layout();
        let mut doubts = false;
        while !self.ready.is_empty() {
            let row = self.ready.take_row(|row| {
                shared.write(row, || write_row(&*shared.storage, layout, row, &self.unfinished))
            })?;
            doubts |= shared.mark_written(&row);
            for piece in row {
                self.drop_chunks(piece);
                self.discard(piece);
                self.written_early.remove(&piece);
                self.answers.push(Done::Piece(piece, Verdict::Good));
            }
        }
        // Parts of them were written before a sync that failed.
        if doubts {
            self.begin_renewing();
        }
        Ok(())
    }

    fn make_empty(&mut self, files: Vec<usize>) -> Result<(), DiskError> {
        let absent = |file: usize| Ok(self.shared.storage.stamp(file)?.is_none());
        let make = |&file: &usize| match self.shared.config.finish && absent(file)? {
            true => self.shared.storage.finish(file),
            false => Ok(()),
        };
        files.iter().try_for_each(make).inspect_err(|_| self.stuck = Some(Stuck::MakeEmpty(files.clone())))
    }

    /// Files that are wanted get what lies elsewhere of them; never for
    /// [`Access::Seed`](crate::storage::Access::Seed).
    fn bring_back(&mut self, files: Vec<bool>) -> Result<(), DiskError> {
        let bring = |file: usize| {
            let brought = self.shared.storage.bring_back(file);
            if brought.map_err(|error| self.shared.gone_if_missing(file, error))? {
                self.shared.mark_brought_back(file);
            }
            Ok(())
        };
        let wanted = |&file: &usize| self.shared.writes && files.get(file).copied().unwrap_or(true);
        let brought = (0..self.shared.info.files().len()).filter(wanted).try_for_each(bring);
        brought.inspect_err(|_| self.stuck = Some(Stuck::BringBack(files)))
    }

    fn forget(&mut self, at: BlockRef) {
        if let Some(unfinished) = self.unfinished.get_mut(&at.piece) {
            let freed = unfinished.forget(at);
            self.held -= freed;
            self.freed += freed as u32;
        }
    }

    fn discard(&mut self, piece: PieceIndex) {
        if let Some(unfinished) = self.unfinished.remove(&piece) {
            self.held -= unfinished.held();
            self.freed += unfinished.held() as u32;
        }
    }

    /// Writes parts of unfinished pieces while the cache is over its budget: what is hashed already
    /// if there is any, else the piece that holds most, to be read back later.
    fn flush(&mut self) -> Result<(), DiskError> {
        self.try_flush().inspect_err(|_| self.stuck = Some(Stuck::Flush))
    }

    fn try_flush(&mut self) -> Result<(), DiskError> {
        let budget = self.shared.config.cache_of_one();
        if self.held > budget {
            self.try_write_out()?;
        }
        while self.held > budget {
            let by_hashed = self.unfinished.iter().max_by_key(|(_, piece)| piece.held_hashed());
            let hashed_only = by_hashed.is_some_and(|(_, piece)| piece.held_hashed() > 0);
            let victim = match hashed_only {
                true => by_hashed.map(|(&piece, _)| piece),
                false => {
                    self.unfinished.iter().max_by_key(|(_, piece)| piece.held()).map(|(&piece, _)| piece)
                }
            };
            let Some(piece) = victim else { return Ok(()) };
            let Some(unfinished) = self.unfinished.get_mut(&piece) else { return Ok(()) };
            let (storage, layout) = (&*self.shared.storage, self.shared.info.layout());
            self.written_early.insert(piece);
            let write = || {
                let mut runs = unfinished.runs(hashed_only).into_iter();
                runs.try_for_each(|run| span::write(storage, layout, piece, run.begin, &run.blocks))
            };
            self.shared.write(&[piece], write)?;
            let freed = unfinished.stored(hashed_only);
            self.held -= freed;
            self.freed += freed as u32;
        }
        Ok(())
    }

    /// Copies a block out of the read-ahead, reading the parts that are not there.
    fn read(&mut self, slot: Slot, at: BlockRef) -> Result<(), DiskError> {
        // Nothing leaves that was not verified; the swarm does not ask for it either.
        if !self.shared.lock_progress().written.contains(at.piece.0) {
            return Ok(());
        }
        let piece_len = self.shared.info.layout().piece_len(at.piece);
        let end = match at.begin.checked_add(at.len) {
            Some(end) if end <= piece_len => end,
            _ => return Ok(()),
        };
        let mut block = self.shared.config.blocks.take(at.len as usize);
        let mut from = at.begin;
        while from < end {
            let chunk = from / CHUNK_LEN;
            let start = chunk * CHUNK_LEN;
            let bytes = match self.chunk(at.piece, chunk, (piece_len - start).min(CHUNK_LEN)) {
                Ok(bytes) => bytes,
                Err(error) if error.kind == DiskErrorKind::Missing => {
                    self.give_up(at.piece, &error);
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            let until = end.min(start + CHUNK_LEN);
            let to = &mut block.as_mut_slice()[(from - at.begin) as usize..(until - at.begin) as usize];
            to.copy_from_slice(&bytes[(from - start) as usize..(until - start) as usize]);
            from = until;
        }
        self.answers.push(Done::Read(slot, at, block));
        Ok(())
    }

    /// A piece cannot be read because its file was taken away or cut. That stops nobody else: it is told as
    /// lost, with all that has gone with it.
    fn give_up(&mut self, piece: PieceIndex, error: &DiskError) {
        let lost = self.shared.lose_unreadable(piece);
        self.answers.push(Done::Warning(format!("{error}: {} pieces are lost", lost.len())));
        self.answers.push(Done::Lost(lost));
    }

    fn chunk(&mut self, piece: PieceIndex, chunk: u32, len: u32) -> Result<&[u8], DiskError> {
        let (key, len) = ((piece, chunk), len as usize);
        if !self.chunks.contains(&key) {
            // Into that of the oldest one, since memory of this size is often given back to the system in between. A
            // read that fails takes it along.
            let is_full = self.chunks.len() == self.chunks.cap().get();
            let oldest = if is_full { self.chunks.pop_lru() } else { None };
            let mut bytes = oldest.map_or_else(Buffer::default, |(_, bytes)| bytes);
            bytes.grow(len);
            let (storage, layout) = (&*self.shared.storage, self.shared.info.layout());
            span::read(storage, layout, piece, chunk * CHUNK_LEN, &mut bytes[..len])?;
            self.chunks.push(key, bytes);
        }
        Ok(self.chunks.get(&key).map_or(&[], |bytes| &bytes[..len]))
    }

    /// The piece was read, then found damaged or mended.
    fn drop_chunks(&mut self, piece: PieceIndex) {
        for chunk in 0..self.shared.info.layout().piece_len(piece).div_ceil(CHUNK_LEN) {
            self.chunks.pop(&(piece, chunk));
        }
    }

    fn is_hash(&self, piece: PieceIndex, digest: Option<&[u8; 20]>) -> bool {
        digest.is_some() && self.shared.info.piece_hash(piece) == digest
    }

    fn answer(&mut self) {
        if self.freed > 0 {
            self.answers.push(Done::Freed(std::mem::take(&mut self.freed)));
        }
        if !self.answers.is_empty() {
            (self.shared.on_done)(std::mem::take(&mut self.answers));
        }
    }
}
