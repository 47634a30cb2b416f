//! [`Pool`]: the disk threads of one torrent.
//!
//! Plain threads with bounded queues, not the runtime's blocking pool: its hundreds of threads would
//! hide that the disk is too slow. Jobs of a piece always go to the same thread, so a piece needs no
//! lock and its jobs keep their order. One more thread syncs and saves, so that a slow fsync stops
//! no hashing.
//!
//! When the disk refuses, [`Done::Failed`] is reported once and all threads hold: no block that was
//! accepted is lost, and what failed is tried again after [`Pool::resume`] (but for a read for a
//! peer, which is dropped, and a save, which has to be asked for again). Only saving goes on, so
//! that a download can end with what it has.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::{fmt, io};

use super::worker::{Check, Task, Worker};
use super::{DiskError, Done, Job, Lock, Resume, ResumeFile, Stamp, Storage, Totals};
use crate::bitfield::Bitfield;
use crate::hash::Lanes;
use crate::metainfo::Info;
use crate::piece::{BlockPool, BlockRef, PieceIndex};

/// Limits of a [`Pool`].
#[derive(Clone, Debug)]
pub struct PoolConfig {
    /// Threads that hash, write, read and check. Default 2.
    pub threads: NonZeroUsize,
    /// Bytes of unfinished pieces in memory before parts of them are written early. Should be less
    /// than what the swarm has on its way to the disk, or the swarm waits. Default 16 MiB.
    pub write_cache: usize,
    /// Bytes of read-ahead kept for seeding. Default 4 MiB.
    pub read_cache: usize,
    /// Blocks to be written or read that wait for one thread; further ones are refused. Default
    /// 8,192.
    pub queue: usize,
    /// Whether, when all pieces are verified, empty files are made and longer ones are cut. Never
    /// done for [`super::Access::Seed`]. Default yes.
    pub finish: bool,
    /// How many pieces each thread hashes side by side. Default [`Lanes::best`].
    pub lanes: Lanes,
    /// Where the blocks for peers come from.
    pub blocks: Arc<BlockPool>,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            threads: NonZeroUsize::new(2).unwrap_or(NonZeroUsize::MIN),
            write_cache: 16 << 20,
            read_cache: 4 << 20,
            queue: 8192,
            finish: true,
            lanes: Lanes::best(),
            blocks: BlockPool::new(64),
        }
    }
}

/// What a pool begins with; [`super::open()`] finds it out.
#[derive(Debug, Default)]
pub(super) struct Start {
    pub(super) have: Bitfield,
    pub(super) stamps: Vec<Option<Stamp>>,
    pub(super) resume: Option<ResumeFile>,
    /// Held as long as the pool lives.
    pub(super) lock: Option<Lock>,
}

/// The disk threads of one torrent. Dropping it waits for what each thread does at the moment (a
/// write, perhaps a sync) and forgets the rest; give [`Job::Save`] and wait for [`Done::Saved`]
/// before.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    _lock: Option<Lock>,
}

impl Pool {
    /// Starts the threads. `on_done` is called from them with one or more answers at a time; it must
    /// not block for long.
    pub(super) fn start(
        config: PoolConfig,
        info: Arc<Info>,
        storage: Arc<dyn Storage>,
        start: Start,
        on_done: impl Fn(Vec<Done>) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let Start { have, stamps, resume, lock } = start;
        let count = config.threads.get();
        let shared = Arc::new(Shared {
            info,
            storage,
            queues: (0..count).map(|_| Queue::default()).collect(),
            progress: Mutex::new(Progress { written: have, ..Progress::default() }),
            hold: Mutex::default(),
            held: AtomicBool::new(false),
            saves: Mutex::default(),
            save_wake: Condvar::new(),
            stopping: AtomicBool::new(false),
            on_done: Box::new(on_done),
            config,
        });
        // From here on a failure to start a thread drops the pool and so ends the others.
        let mut pool = Self { shared: Arc::clone(&shared), threads: Vec::new(), _lock: lock };
        for index in 0..count {
            let shared = Arc::clone(&shared);
            let name = format!("disk-{index}");
            let run = move || run_worker(&shared, index);
            pool.threads.push(std::thread::Builder::new().name(name).spawn(run)?);
        }
        let saver = Saver { shared, stamps, resume, finished: false };
        let run = move || saver.run();
        pool.threads.push(std::thread::Builder::new().name("disk-save".into()).spawn(run)?);
        Ok(pool)
    }

    /// Gives a job. A block to write or read comes back if its thread has too many waiting already
    /// ([`PoolConfig::queue`]); every other job is accepted. Does not block.
    pub fn submit(&self, job: Job) -> Result<(), Job> {
        let mut jobs = VecDeque::from([job]);
        self.submit_all(&mut jobs);
        jobs.pop_front().map_or(Ok(()), Err)
    }

    /// Gives jobs in order, as [`Pool::submit`] does, up to the first one that would come back: it and
    /// all behind it stay in `jobs`. A thread that waits is woken once for all that is new to it.
    pub fn submit_all(&self, jobs: &mut VecDeque<Job>) {
        let mut batches: Vec<Vec<Task>> = self.shared.queues.iter().map(|_| Vec::new()).collect();
        while let Some(job) = jobs.pop_front() {
            if let Err(job) = self.sort(job, &mut batches) {
                jobs.push_front(job);
                break;
            }
        }
        self.shared.queues.iter().zip(batches).for_each(|(queue, batch)| queue.push(batch));
    }

    /// Puts a job to the tasks of the threads that it concerns, unless they have too many.
    fn sort(&self, job: Job, batches: &mut [Vec<Task>]) -> Result<(), Job> {
        let all = |batches: &mut [Vec<Task>], task: &dyn Fn() -> Task| {
            batches.iter_mut().for_each(|batch| batch.push(task()));
        };
        match job {
            Job::Write(BlockRef { piece, .. }, _) | Job::Read(_, BlockRef { piece, .. }) => {
                let worker = self.shared.worker_of(piece);
                let waiting = self.shared.queues[worker].waiting.load(Ordering::Relaxed);
                if waiting + batches[worker].len() >= self.shared.config.queue {
                    return Err(job);
                }
                batches[worker].push(Task::Job(job));
            }
            Job::Discard(piece) => batches[self.shared.worker_of(piece)].push(Task::Job(job)),
            // Any thread will do; in front of the next save, as every thread passes that on.
            Job::MakeEmpty(_) => batches[0].push(Task::Job(job)),
            Job::Want(files) => {
                // At once, so that no thread makes a file that is skipped; the rest is work.
                self.shared.storage.want(&files);
                batches[0].push(Task::Job(Job::Want(files)));
            }
            Job::Check(pieces) => {
                let (workers, lanes) = (self.shared.workers(), self.shared.config.lanes);
                let check = Arc::new(Check::new(pieces.iter().collect(), workers, lanes));
                all(batches, &|| Task::Check(Arc::clone(&check)));
            }
            Job::Save(totals) => {
                let barrier = Arc::new(Barrier { left: AtomicUsize::new(batches.len()), totals });
                all(batches, &|| Task::Save(Arc::clone(&barrier)));
            }
        }
        Ok(())
    }

    /// Goes on after [`Done::Failed`]: tries again what failed, then all that waits. After a panic
    /// in a disk thread there is no going on; [`Done::Failed`] is repeated.
    pub fn resume(&self) {
        let repeated = {
            let mut hold = self.shared.lock_hold();
            if !hold.fatal {
                hold.error = None;
                self.shared.held.store(false, Ordering::Release);
            }
            hold.error.clone()
        };
        match repeated {
            Some(error) => (self.shared.on_done)(vec![Done::Failed(error)]),
            None => self.shared.queues.iter().for_each(Queue::wake),
        }
    }

    /// The pieces that are verified and written, though perhaps not synced.
    pub fn written(&self) -> Bitfield {
        self.shared.lock_progress().written.clone()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.queues.iter().for_each(Queue::wake);
        drop(self.shared.lock_saves());
        self.shared.save_wake.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads.len()).finish_non_exhaustive()
    }
}

/// What the threads of a pool share.
pub(super) struct Shared {
    pub(super) config: PoolConfig,
    pub(super) info: Arc<Info>,
    pub(super) storage: Arc<dyn Storage>,
    pub(super) on_done: Box<dyn Fn(Vec<Done>) + Send + Sync>,
    queues: Vec<Queue>,
    progress: Mutex<Progress>,
    hold: Mutex<Hold>,
    /// Copy of whether there is a hold, for a cheap look.
    held: AtomicBool,
    saves: Mutex<Saves>,
    save_wake: Condvar,
    stopping: AtomicBool,
}

/// What is written so far.
#[derive(Default)]
pub(super) struct Progress {
    /// Pieces that are verified and written.
    pub(super) written: Bitfield,
    /// Files written to, or believed because of what they hold, since they were last synced.
    dirty: Vec<usize>,
    /// Files whose sync failed once. The kernel may have dropped what it could not write, and report
    /// success the next time: their pieces are not claimed any more in this run.
    doubted: Vec<usize>,
}

/// Why all threads hold.
#[derive(Default)]
struct Hold {
    error: Option<DiskError>,
    /// A thread panicked.
    fatal: bool,
}

/// Saves that are due; several become one.
#[derive(Default)]
struct Saves {
    totals: Totals,
    answers: u32,
}

/// A [`Job::Save`] on its way through all threads: the last one that it reaches starts it.
pub(super) struct Barrier {
    left: AtomicUsize,
    totals: Totals,
}

/// Tasks for one worker.
#[derive(Default)]
pub(super) struct Queue {
    tasks: Mutex<VecDeque<Task>>,
    wake: Condvar,
    /// Tasks here and in the worker's hands.
    waiting: AtomicUsize,
}

impl Queue {
    pub(super) fn push(&self, tasks: Vec<Task>) {
        if !tasks.is_empty() {
            self.waiting.fetch_add(tasks.len(), Ordering::Relaxed);
            self.lock().extend(tasks);
            self.wake.notify_one();
        }
    }

    fn wake(&self) {
        // With the lock, so that a worker about to sleep does not miss it.
        drop(self.lock());
        self.wake.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Task>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves all tasks to `into`; waits for one if `wait` says so for as long as none is there.
    pub(super) fn take(&self, into: &mut VecDeque<Task>, wait: impl Fn() -> bool) {
        let mut tasks = self.lock();
        while tasks.is_empty() && wait() {
            tasks = self.wake.wait(tasks).unwrap_or_else(PoisonError::into_inner);
        }
        into.append(&mut tasks);
    }

    /// Notes that a task has been worked on.
    pub(super) fn ended(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    pub(super) fn queue(&self, worker: usize) -> &Queue {
        &self.queues[worker]
    }

    pub(super) fn worker_of(&self, piece: PieceIndex) -> usize {
        piece.0 as usize % self.queues.len()
    }

    pub(super) fn workers(&self) -> usize {
        self.queues.len()
    }

    pub(super) fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    pub(super) fn lock_progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that `piece` is verified and lies in its files.
    pub(super) fn mark_written(&self, piece: PieceIndex) {
        let len = self.info.layout().piece_len(piece);
        let mut progress = self.lock_progress();
        progress.written.insert(piece.0);
        self.dirty(&mut progress, piece, len);
    }

    /// Notes that part of `piece` was written before it was verified.
    pub(super) fn mark_dirty(&self, piece: PieceIndex) {
        let len = self.info.layout().piece_len(piece);
        self.dirty(&mut self.lock_progress(), piece, len);
    }

    fn dirty(&self, progress: &mut Progress, piece: PieceIndex, len: u32) {
        for span in self.info.layout().spans(piece, 0, len).filter(|span| !span.pad) {
            if let Err(at) = progress.dirty.binary_search(&span.file) {
                progress.dirty.insert(at, span.file);
            }
        }
    }

    /// These files are to be synced again.
    pub(super) fn put_back(&self, files: &[usize]) {
        let mut progress = self.lock_progress();
        progress.dirty.extend_from_slice(files);
        progress.dirty.sort_unstable();
        progress.dirty.dedup();
    }

    /// Lets all threads hold and reports why, unless they hold already.
    pub(super) fn hold(&self, error: DiskError, fatal: bool) {
        let mut hold = self.lock_hold();
        hold.fatal |= fatal;
        if hold.error.is_some() && !fatal {
            return;
        }
        hold.error = Some(error.clone());
        self.held.store(true, Ordering::Release);
        drop(hold);
        (self.on_done)(vec![Done::Failed(error)]);
    }

    /// A barrier has reached one more worker.
    pub(super) fn arrive(&self, barrier: &Barrier) {
        if barrier.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let mut saves = self.lock_saves();
            saves.totals = barrier.totals;
            saves.answers += 1;
            self.save_wake.notify_one();
        }
    }

    fn lock_hold(&self) -> MutexGuard<'_, Hold> {
        self.hold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_saves(&self) -> MutexGuard<'_, Saves> {
        self.saves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The main function of a worker's thread. A panic, which is a bug of ours, must not leave the owner
/// waiting: it becomes a failure that does not heal.
fn run_worker(shared: &Arc<Shared>, index: usize) {
    let mut worker = Worker::new(Arc::clone(shared), index);
    while !shared.is_stopping() {
        if catch_unwind(AssertUnwindSafe(|| worker.turn())).is_err() {
            shared.hold(panicked(), true);
        }
    }
}

fn panicked() -> DiskError {
    let error = io::Error::other("a disk thread panicked; this is a bug");
    DiskError::new("working on", Path::new("the disk"), &error)
}

/// Syncs files and writes the resume file.
struct Saver {
    shared: Arc<Shared>,
    /// The files when they were last looked at.
    stamps: Vec<Option<Stamp>>,
    resume: Option<ResumeFile>,
    /// Empty files are made, longer ones cut.
    finished: bool,
}

impl Saver {
    fn run(mut self) {
        while let Some((totals, answers)) = self.next() {
            match catch_unwind(AssertUnwindSafe(|| self.save(totals))) {
                Ok(Ok(())) => (self.shared.on_done)((0..answers).map(|_| Done::Saved).collect()),
                Ok(Err(error)) if self.shared.is_held() => (self.shared.on_done)(vec![Done::Failed(error)]),
                Ok(Err(error)) => self.shared.hold(error, false),
                Err(_) => self.shared.hold(panicked(), true),
            }
        }
    }

    fn next(&self) -> Option<(Totals, u32)> {
        let mut saves = self.shared.lock_saves();
        loop {
            if self.shared.is_stopping() {
                return None;
            }
            if saves.answers > 0 {
                return Some((saves.totals, std::mem::take(&mut saves.answers)));
            }
            saves = self.shared.save_wake.wait(saves).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn save(&mut self, totals: Totals) -> Result<(), DiskError> {
        // What is written after this moment is claimed by the next save.
        let (mut have, mut dirty, doubted) = {
            let mut progress = self.shared.lock_progress();
            (progress.written.clone(), std::mem::take(&mut progress.dirty), progress.doubted.clone())
        };
        // Before the syncs, which may take longer than the process is given at the end of a download.
        if have.is_full() && self.shared.config.finish && !self.finished {
            if let Err(error) = self.finish(&mut dirty) {
                self.shared.put_back(&dirty);
                return Err(error);
            }
            self.finished = true;
        }
        if let Err((error, rest)) = self.sync(&dirty) {
            self.shared.put_back(rest);
            self.shared.lock_progress().doubted.extend(rest.first());
            return Err(error);
        }
        let Some(file) = &self.resume else { return Ok(()) };
        // A file that was taken away meanwhile takes its claims with it.
        let gone = self.shared.info.files().filter(|file| file.is_stored());
        let gone = gone.filter(|file| self.stamps.get(file.index).is_none_or(Option::is_none));
        for index in gone.map(|file| file.index).chain(doubted) {
            for piece in self.shared.info.layout().piece_range(index) {
                have.remove(piece);
            }
        }
        file.save(&Resume { have, stamps: self.stamps.clone(), totals })
    }

    /// Syncs files and looks at them; on failure says which are left, the failed one first.
    fn sync<'a>(&mut self, files: &'a [usize]) -> Result<(), (DiskError, &'a [usize])> {
        for (at, &file) in files.iter().enumerate() {
            let synced = self.shared.storage.sync(file).and_then(|()| self.look(file));
            synced.map_err(|error| (error, files.get(at..).unwrap_or_default()))?;
        }
        Ok(())
    }

    fn look(&mut self, file: usize) -> Result<(), DiskError> {
        let stamp = self.shared.storage.stamp(file)?;
        if let Some(slot) = self.stamps.get_mut(file) {
            *slot = stamp;
        }
        Ok(())
    }

    /// All pieces are there: makes empty files and cuts longer ones, which are `dirty` then.
    fn finish(&mut self, dirty: &mut Vec<usize>) -> Result<(), DiskError> {
        let info = Arc::clone(&self.shared.info);
        for file in info.files().filter(|file| file.is_stored()) {
            let now = self.stamps.get(file.index).copied().flatten();
            let absent = now.is_none() && file.is_empty();
            let longer = now.is_some_and(|stamp| stamp.len > file.len());
            if absent || longer {
                self.shared.storage.finish(file.index)?;
                if !dirty.contains(&file.index) {
                    dirty.push(file.index);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::piece::{BLOCK_LEN, Block, Slot};
    use crate::storage::{DiskErrorKind, Fault, FaultyStorage, MemStorage, Opened, Verdict};
    use krpc::bencode::Writer;
    use sha1::{Digest, Sha1};
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    const PIECE_LEN: u32 = 3 * BLOCK_LEN;
    const LENGTHS: [u64; 4] = [100_000, 0, 7, 150_000];
    const PEER: Slot = Slot { index: 3, generation: 1 };

    fn payload() -> Vec<u8> {
        let total: u64 = LENGTHS.iter().sum();
        (0..total).map(|at| (at * at / 97) as u8).collect()
    }

    fn info() -> Arc<Info> {
        let hashes: Vec<u8> = payload().chunks(PIECE_LEN as usize).flat_map(Sha1::digest).collect();
        let mut raw = Vec::new();
        let mut writer = Writer::new(&mut raw);
        writer.dict().key(b"files").list();
        for (file, len) in LENGTHS.iter().enumerate() {
            writer.dict().key(b"length").int(*len as i64).key(b"path").list();
            writer.bytes(format!("f{file}").as_bytes()).end().end();
        }
        writer.end().key(b"name").bytes(b"n").key(b"piece length").int(i64::from(PIECE_LEN));
        writer.key(b"pieces").bytes(&hashes).end();
        Arc::new(Info::parse(&raw).unwrap())
    }

    struct Fixture {
        pool: Pool,
        storage: Arc<FaultyStorage<MemStorage>>,
        answers: Receiver<Vec<Done>>,
        info: Arc<Info>,
    }

    impl Fixture {
        fn new(config: PoolConfig) -> Self {
            Self::with(config, false)
        }

        fn with(config: PoolConfig, full: bool) -> Self {
            let info = info();
            let storage = Arc::new(FaultyStorage::new(MemStorage::new(LENGTHS)));
            let mut have = Bitfield::new(info.pieces());
            if full {
                have = Bitfield::full(info.pieces());
                let mut rest = &payload()[..];
                for (file, &len) in LENGTHS.iter().enumerate() {
                    let (bytes, behind) = rest.split_at(len as usize);
                    storage.write(file, 0, &mut [std::io::IoSlice::new(bytes)]).unwrap();
                    rest = behind;
                }
            }
            let opened = Opened::over(Arc::clone(&info), Arc::clone(&storage) as _, have).unwrap();
            let (sender, answers) = channel();
            let pool = opened.start(config, move |done| sender.send(done).unwrap_or(())).unwrap();
            Self { pool, storage, answers, info }
        }

        fn blocks(&self, piece: u32) -> Vec<(BlockRef, Vec<u8>)> {
            let start = piece as usize * PIECE_LEN as usize;
            let len = self.info.layout().piece_len(PieceIndex(piece)) as usize;
            let bytes = payload()[start..start + len].to_vec();
            let blocks = bytes.chunks(BLOCK_LEN as usize).enumerate().map(|(index, block)| {
                let begin = index as u32 * BLOCK_LEN;
                (BlockRef { piece: PieceIndex(piece), begin, len: block.len() as u32 }, block.to_vec())
            });
            blocks.collect()
        }

        fn write(&self, (at, bytes): (BlockRef, Vec<u8>)) {
            self.pool.submit(Job::Write(at, Block::from(bytes))).unwrap();
        }

        fn write_piece(&self, piece: u32) {
            self.blocks(piece).into_iter().for_each(|block| self.write(block));
        }

        /// Answers until one satisfies `last`; that one included.
        fn until(&self, mut last: impl FnMut(&Done) -> bool) -> Vec<Done> {
            let mut all = Vec::new();
            loop {
                let batch = self.answers.recv_timeout(Duration::from_secs(20)).expect("an answer in time");
                let ends = batch.iter().any(&mut last);
                all.extend(batch);
                if ends {
                    return all;
                }
            }
        }

        fn save(&self) -> Vec<Done> {
            self.pool.submit(Job::Save(Totals::default())).unwrap();
            self.until(|done| matches!(done, Done::Saved | Done::Failed(_)))
        }

        fn all_good(&self) {
            let mut good = 0;
            let mut freed = 0;
            let total = self.info.total();
            self.until(|done| {
                match done {
                    Done::Piece(_, Verdict::Good) => good += 1,
                    Done::Freed(bytes) => freed += u64::from(*bytes),
                    other => panic!("{other:?}"),
                }
                good == self.info.pieces() && freed == total
            });
            assert!(self.pool.written().is_full());
        }

        fn on_disk(&self) -> Vec<u8> {
            let files = 0..LENGTHS.len();
            files.flat_map(|file| self.storage.inner().bytes(file).unwrap_or_default()).collect()
        }
    }

    fn threads(count: usize) -> PoolConfig {
        PoolConfig { threads: NonZeroUsize::new(count).unwrap(), ..PoolConfig::default() }
    }

    #[test]
    fn a_batch_is_taken_in_order_up_to_the_first_job_without_room() {
        let config = PoolConfig { threads: NonZeroUsize::MIN, queue: 2, ..PoolConfig::default() };
        let fixture = Fixture::new(config);
        let write = |(at, bytes): (BlockRef, Vec<u8>)| Job::Write(at, Block::from(bytes));
        let mut jobs: VecDeque<Job> = fixture.blocks(0).into_iter().map(write).collect();
        jobs.push_back(Job::Save(Totals::default()));
        // Nothing is worked on while the threads hold, so what waits is known.
        fixture.pool.shared.hold(panicked(), false);
        fixture.pool.submit_all(&mut jobs);
        assert!(
            matches!(&jobs.make_contiguous(), [Job::Write(at, _), Job::Save(_)] if at.begin == 2 * BLOCK_LEN)
        );
        fixture.pool.resume();
        while !jobs.is_empty() {
            fixture.pool.submit_all(&mut jobs);
            std::thread::yield_now();
        }
        let done = fixture.until(|done| matches!(done, Done::Saved));
        let good = |done: &Done| matches!(done, Done::Piece(PieceIndex(0), Verdict::Good));
        assert!(done.iter().any(good), "{done:?}");
    }

    #[test]
    fn pieces_in_any_order_reach_their_files_and_give_their_budget_back() {
        for (count, write_cache) in [(1, 16 << 20), (2, 16 << 20), (3, 0), (2, 40_000)] {
            let fixture = Fixture::new(PoolConfig { write_cache, ..threads(count) });
            let blocks: Vec<_> = (0..fixture.info.pieces()).flat_map(|piece| fixture.blocks(piece)).collect();
            // Mixed well: 11 is prime and no divisor of the count.
            assert!(!blocks.len().is_multiple_of(11));
            (0..blocks.len()).for_each(|at| fixture.write(blocks[at * 11 % blocks.len()].clone()));
            fixture.all_good();
            assert_eq!(fixture.on_disk(), payload());
            assert_eq!(fixture.storage.inner().bytes(1), None);
            assert!(matches!(fixture.save()[..], [Done::Saved]));
            assert_eq!(fixture.storage.inner().bytes(1), Some(vec![]), "empty files come with completion");
        }
    }

    #[test]
    fn a_wrong_piece_is_not_written_and_its_block_hashes_are_told() {
        let fixture = Fixture::new(threads(2));
        let mut blocks = fixture.blocks(1);
        blocks[2].1[5] ^= 1;
        let expected: Vec<[u8; 20]> = blocks.iter().map(|(_, bytes)| Sha1::digest(bytes).into()).collect();
        blocks.into_iter().for_each(|block| fixture.write(block));
        let answers = fixture.until(|done| matches!(done, Done::Freed(bytes) if *bytes == PIECE_LEN));
        let verdict = answers.iter().find_map(|done| match done {
            Done::Piece(PieceIndex(1), verdict) => Some(verdict.clone()),
            _ => None,
        });
        assert_eq!(verdict, Some(Verdict::Bad { blocks: expected }));
        assert!(fixture.on_disk().is_empty() && fixture.pool.written().is_empty());
        (0..fixture.info.pieces()).for_each(|piece| fixture.write_piece(piece));
        fixture.all_good();
        assert_eq!(fixture.on_disk(), payload());
    }

    #[test]
    fn discarded_and_late_blocks_give_their_budget_back() {
        let fixture = Fixture::new(threads(2));
        let blocks = fixture.blocks(0);
        fixture.write(blocks[0].clone());
        fixture.write(blocks[0].clone());
        fixture.pool.submit(Job::Discard(PieceIndex(0))).unwrap();
        let mut freed = 0;
        fixture.until(|done| {
            freed += if let Done::Freed(bytes) = done { *bytes } else { 0 };
            freed == 2 * BLOCK_LEN
        });
        fixture.write_piece(0);
        fixture.until(|done| matches!(done, Done::Piece(PieceIndex(0), Verdict::Good)));
        fixture.write(blocks[1].clone());
        fixture.until(|done| matches!(done, Done::Freed(BLOCK_LEN)));
    }

    #[test]
    fn blocks_are_read_for_peers_across_files_and_chunks() {
        let fixture = Fixture::with(threads(2), true);
        let wanted: Vec<_> = (0..fixture.info.pieces()).flat_map(|piece| fixture.blocks(piece)).collect();
        let across = BlockRef { piece: PieceIndex(2), begin: 1000, len: PIECE_LEN - 2000 };
        for at in wanted.iter().map(|(at, _)| *at).chain([across]) {
            fixture.pool.submit(Job::Read(PEER, at)).unwrap();
        }
        let mut left = wanted.len() + 1;
        let answers = fixture.until(|done| {
            left -= usize::from(matches!(done, Done::Read(..)));
            left == 0
        });
        for done in answers {
            let Done::Read(PEER, at, block) = done else { panic!("{done:?}") };
            let start = at.piece.0 as usize * PIECE_LEN as usize + at.begin as usize;
            assert_eq!(&*block, &payload()[start..start + at.len as usize]);
        }
    }

    #[test]
    fn nothing_is_read_for_peers_that_is_not_verified_or_not_there() {
        let fixture = Fixture::new(threads(1));
        fixture.write_piece(0);
        fixture.until(|done| matches!(done, Done::Piece(..)));
        for (piece, begin, len) in
            [(1, 0, 10), (0, PIECE_LEN - 5, 6), (0, u32::MAX, 2), (99, 0, 1), (0, 0, 9)]
        {
            let at = BlockRef { piece: PieceIndex(piece), begin, len };
            fixture.pool.submit(Job::Read(PEER, at)).unwrap();
        }
        let answers = fixture.until(|done| matches!(done, Done::Read(..)));
        let reads: Vec<_> = answers.iter().filter(|done| matches!(done, Done::Read(..))).collect();
        assert!(matches!(reads[..], [Done::Read(_, BlockRef { len: 9, .. }, _)]));
    }

    #[test]
    fn a_check_finds_what_is_there() {
        let ways = Lanes::available().into_iter().flat_map(|lanes| [(lanes, 1), (lanes, 2)]);
        for (lanes, count) in ways {
            let fixture = Fixture::with(PoolConfig { lanes, ..threads(count) }, true);
            fixture.storage.write(3, 149_999, &mut [std::io::IoSlice::new(&[0x55])]).unwrap();
            fixture.pool.submit(Job::Check(Bitfield::full(fixture.info.pieces()))).unwrap();
            let mut good = Bitfield::new(fixture.info.pieces());
            let mut checked = 0;
            fixture.until(|done| {
                if let Done::Checked(piece, is_good) = done {
                    checked += 1;
                    assert!(!is_good || good.insert(piece.0));
                }
                matches!(done, Done::CheckEnded)
            });
            assert_eq!((checked, good.count()), (fixture.info.pieces(), fixture.info.pieces() - 1));
            assert_eq!(fixture.pool.written(), good);
            // An empty check ends too, and absent files are no error.
            fixture.pool.submit(Job::Check(Bitfield::new(fixture.info.pieces()))).unwrap();
            fixture.until(|done| matches!(done, Done::CheckEnded));
            let empty = Fixture::new(PoolConfig { lanes, ..threads(count) });
            empty.pool.submit(Job::Check(Bitfield::full(empty.info.pieces()))).unwrap();
            let answers = empty.until(|done| matches!(done, Done::CheckEnded));
            assert!(answers.iter().all(|done| matches!(done, Done::Checked(_, false) | Done::CheckEnded)));
        }
    }

    /// A storage whose reads wait, by the name of the thread that reads.
    #[derive(Debug)]
    struct Gated {
        inner: MemStorage,
        closed: Mutex<Vec<&'static str>>,
        opened: Condvar,
        arrived: std::sync::mpsc::Sender<String>,
    }

    impl Gated {
        fn open(&self, thread: &str) {
            self.closed.lock().unwrap().retain(|closed| *closed != thread);
            self.opened.notify_all();
        }
    }

    impl Storage for Gated {
        fn read(&self, file: usize, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
            let read = self.inner.read(file, offset, buf);
            let thread = std::thread::current().name().unwrap_or_default().to_owned();
            self.arrived.send(thread.clone()).unwrap_or(());
            let is_closed = |closed: &mut Vec<&str>| closed.iter().any(|closed| *closed == thread);
            drop(self.opened.wait_while(self.closed.lock().unwrap(), is_closed).unwrap());
            read
        }

        fn ahead(&self, _: usize, _: u64, _: u32) {}

        fn write(
            &self,
            file: usize,
            offset: u64,
            bufs: &mut [std::io::IoSlice<'_>],
        ) -> Result<(), DiskError> {
            self.inner.write(file, offset, bufs)
        }

        fn finish(&self, file: usize) -> Result<(), DiskError> {
            self.inner.finish(file)
        }

        fn sync(&self, file: usize) -> Result<(), DiskError> {
            self.inner.sync(file)
        }

        fn stamp(&self, file: usize) -> Result<Option<Stamp>, DiskError> {
            self.inner.stamp(file)
        }

        fn want(&self, files: &[bool]) {
            self.inner.want(files);
        }

        fn bring_back(&self, file: usize) -> Result<bool, DiskError> {
            self.inner.bring_back(file)
        }
    }

    #[test]
    fn a_piece_that_is_written_while_a_check_reads_it_stays() {
        // The thread that reads writes too; or another one does, that of the piece.
        for (threads_of_pool, reader) in [(1, "disk-0"), (2, "disk-0")] {
            let (arrived, arrivals) = channel();
            let closed = Mutex::new(vec!["disk-0", "disk-1"]);
            let storage =
                Arc::new(Gated { inner: MemStorage::new(LENGTHS), closed, opened: Condvar::new(), arrived });
            // Something is there of piece 1, and it is wrong; piece 3 is right.
            let payload = payload();
            storage.write(0, 0, &mut [std::io::IoSlice::new(&[0x55; 100_000])]).unwrap();
            storage.write(3, 0, &mut [std::io::IoSlice::new(&payload[100_007..])]).unwrap();
            let info = info();
            let mut have = Bitfield::new(info.pieces());
            have.insert(3);
            let opened = Opened::over(Arc::clone(&info), Arc::clone(&storage) as _, have).unwrap();
            let (sender, answers) = channel();
            let config = PoolConfig { lanes: Lanes::ONE, ..threads(threads_of_pool) };
            let pool = opened.start(config, move |done| sender.send(done).unwrap_or(())).unwrap();
            let wait = Duration::from_secs(20);
            let mut seen = Vec::new();
            let mut until = |last: &dyn Fn(&Done) -> bool| {
                while !seen.iter().any(last) {
                    seen.extend(answers.recv_timeout(wait).expect("an answer in time"));
                }
            };
            if threads_of_pool == 2 {
                // So that it does not take the check.
                let at = BlockRef { piece: PieceIndex(3), begin: 0, len: 9 };
                pool.submit(Job::Read(PEER, at)).unwrap();
                assert_eq!(arrivals.recv_timeout(wait).as_deref(), Ok("disk-1"));
            }
            let mut only = Bitfield::new(info.pieces());
            only.insert(1);
            pool.submit(Job::Check(only)).unwrap();
            assert_eq!(arrivals.recv_timeout(wait).as_deref(), Ok(reader));
            for begin in (0..PIECE_LEN).step_by(BLOCK_LEN as usize) {
                let start = (PIECE_LEN + begin) as usize;
                let block = payload[start..start + BLOCK_LEN as usize].to_vec();
                let at = BlockRef { piece: PieceIndex(1), begin, len: BLOCK_LEN };
                pool.submit(Job::Write(at, Block::from(block))).unwrap();
            }
            storage.open("disk-1");
            if threads_of_pool == 2 {
                until(&|done| matches!(done, Done::Piece(PieceIndex(1), Verdict::Good)));
            }
            storage.open("disk-0");
            until(&|done| matches!(done, Done::CheckEnded));
            let good = |done: &Done| matches!(done, Done::Piece(PieceIndex(1), Verdict::Good));
            assert!(seen.iter().any(good), "{seen:?}");
            let right = |done: &Done| matches!(done, Done::Checked(PieceIndex(1), true));
            assert!(seen.iter().any(right), "{seen:?}");
            assert!(pool.written().contains(1));
        }
    }

    #[test]
    fn a_full_disk_stops_everything_and_nothing_is_lost_when_it_resumes() {
        for write_cache in [0, 16 << 20] {
            let fixture = Fixture::new(PoolConfig { write_cache, ..threads(2) });
            fixture.storage.set(Some(Fault::NoSpace), 2);
            (0..fixture.info.pieces()).for_each(|piece| fixture.write_piece(piece));
            let mut answers = fixture.until(|done| matches!(done, Done::Failed(_)));
            // Saving goes on meanwhile, and a second resume without space fails again.
            answers.extend(fixture.save());
            fixture.pool.resume();
            answers.extend(fixture.until(|done| matches!(done, Done::Failed(_))));
            fixture.storage.set(None, 0);
            fixture.pool.resume();
            let count = |answers: &[Done]| {
                let mut sum = (0, 0_u64);
                for done in answers {
                    match done {
                        Done::Piece(_, Verdict::Good) => sum.0 += 1,
                        Done::Freed(bytes) => sum.1 += u64::from(*bytes),
                        Done::Failed(error) => assert_eq!(error.kind, DiskErrorKind::NoSpace),
                        Done::Saved => {}
                        other => panic!("{other:?}"),
                    }
                }
                sum
            };
            while count(&answers) != (fixture.info.pieces(), fixture.info.total()) {
                let more = fixture.until(|_| true);
                // A failure of the full disk's time may be told late, and it holds everything again.
                if more.iter().any(|done| matches!(done, Done::Failed(_))) {
                    fixture.pool.resume();
                }
                answers.extend(more);
            }
            assert_eq!(fixture.on_disk(), payload());
        }
    }

    #[test]
    fn empty_files_are_made_and_longer_ones_cut_before_the_disk_is_waited_for() {
        let fixture = Fixture::new(PoolConfig::default());
        (0..fixture.info.pieces()).for_each(|piece| fixture.write_piece(piece));
        fixture.storage.set(Some(Fault::SyncError), 0);
        fixture.pool.submit(Job::Save(Totals::default())).unwrap();
        fixture.until(|done| matches!(done, Done::Failed(_)));
        assert_eq!(fixture.storage.stamp(1).unwrap().map(|stamp| stamp.len), Some(0));
    }

    #[test]
    fn an_empty_file_is_made_without_the_others() {
        let fixture = Fixture::new(PoolConfig::default());
        fixture.pool.submit(Job::MakeEmpty(vec![1])).unwrap();
        fixture.pool.submit(Job::Save(Totals::default())).unwrap();
        fixture.until(|done| matches!(done, Done::Saved));
        assert_eq!(fixture.storage.stamp(1).unwrap().map(|stamp| stamp.len), Some(0));
        assert_eq!(fixture.storage.stamp(0).unwrap(), None);
    }

    #[test]
    fn a_failed_read_or_sync_is_reported_and_ends_with_its_cause() {
        let fixture = Fixture::with(threads(2), true);
        fixture.storage.set(Some(Fault::ReadError), 0);
        let at = BlockRef { piece: PieceIndex(0), begin: 0, len: 5 };
        fixture.pool.submit(Job::Read(PEER, at)).unwrap();
        fixture.until(|done| matches!(done, Done::Failed(error) if error.kind == DiskErrorKind::Io));
        fixture.storage.set(None, 0);
        fixture.pool.resume();
        fixture.pool.submit(Job::Read(PEER, at)).unwrap();
        fixture.until(|done| matches!(done, Done::Read(..)));
        fixture.pool.submit(Job::Check(Bitfield::full(fixture.info.pieces()))).unwrap();
        fixture.until(|done| matches!(done, Done::CheckEnded));
        fixture.storage.set(Some(Fault::SyncError), 0);
        assert!(matches!(fixture.save()[..], [Done::Failed(_)]));
        fixture.storage.set(None, 0);
        fixture.pool.resume();
        assert!(matches!(fixture.save()[..], [Done::Saved]));
    }

    #[test]
    fn a_panic_becomes_a_failure_that_stays() {
        let fixture = Fixture::new(threads(2));
        fixture.storage.set(Some(Fault::Panic), 0);
        fixture.write_piece(0);
        fixture.until(|done| matches!(done, Done::Failed(error) if error.detail.contains("panicked")));
        fixture.storage.set(None, 0);
        fixture.pool.resume();
        fixture.until(|done| matches!(done, Done::Failed(_)));
        assert!(matches!(fixture.save()[..], [Done::Saved]));
    }

    #[test]
    fn a_thread_with_too_much_to_do_refuses_more() {
        let fixture = Fixture::new(PoolConfig { queue: 2, ..threads(1) });
        fixture.storage.set(Some(Fault::WriteError), 0);
        fixture.write_piece(5);
        fixture.until(|done| matches!(done, Done::Failed(_)));
        let blocks = fixture.blocks(0);
        let submit = |at: usize| {
            let (at, bytes) = blocks[at].clone();
            fixture.pool.submit(Job::Write(at, Block::from(bytes)))
        };
        assert!(submit(0).is_ok() && submit(1).is_ok());
        assert!(matches!(submit(2), Err(Job::Write(at, _)) if at == blocks[2].0));
        assert!(fixture.pool.submit(Job::Discard(PieceIndex(0))).is_ok());
    }
}
