//! Between the owner task of a torrent and its disk threads: opening, the first check, jobs in order,
//! answers without waiting.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::backend::{self, Backend};
use super::phase::Failed;
use crate::bitfield::Bitfield;
use crate::metainfo::Info;
use crate::storage::{
    Access, DiskError, Done, Job, OpenError, OpenOptions, Pool, PoolConfig, Preallocation, Reserved, SaveId,
    Totals, open,
};

/// Bytes that the first check hashes between two saves of what it has found: a run that is killed looks at no
/// more than this once again.
const SAVE_EVERY: u64 = 4 << 30;

/// The open files of a torrent.
#[derive(Debug)]
pub(super) struct Disk {
    /// `None` only while it is being closed.
    pool: Option<Pool>,
    /// Jobs for the next [`Disk::flush`], and those that the pool had no room for.
    deferred: VecDeque<Job>,
    /// How often space was to be reserved before the first check, each of which has an end that is not told
    /// yet.
    reserving: usize,
    /// Space is to be reserved, and the first check waits for that.
    reserves: bool,
    check: Option<Check>,
    /// What was counted before, for a swarm that ends without having heard of it.
    unheard: Option<Totals>,
}

/// The check of what may be on disk before the swarm is told what is there.
#[derive(Debug)]
struct Check {
    have: Bitfield,
    to_check: Bitfield,
    /// Pieces that were hashed, and all that are to be.
    hashed: (u32, u32),
    /// Pieces between two saves; none is asked for when the swarm has asked for one, which is its last.
    save_every: u32,
    is_last_asked: bool,
    totals: Totals,
}

/// Answers of the disk threads. Each job has a bounded number of them and the swarm bounds its jobs,
/// so no thread ever waits here.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    done: Mutex<Vec<Done>>,
    filled: Notify,
}

/// What [`Disk::take`] makes of an answer.
#[derive(Debug)]
pub(super) enum Answer {
    /// For the swarm.
    Done(Done),
    /// The first check has ended: what is there.
    Opened(Bitfield, Totals),
    /// So many bytes of so many are reserved.
    Reserved(u64, u64),
    /// The user should know this.
    Warning(String),
    /// Part of what is done before the swarm begins, or after it has ended.
    Nothing,
}

impl Mailbox {
    fn put(&self, mut done: Vec<Done>) {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).append(&mut done);
        self.filled.notify_one();
    }

    /// Forgets answers of threads that have ended.
    pub(super) fn clear(&self) {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Waits for answers and takes them all. Cancel safe.
    pub(super) async fn take(&self) -> Vec<Done> {
        loop {
            let done = std::mem::take(&mut *self.done.lock().unwrap_or_else(PoisonError::into_inner));
            if !done.is_empty() {
                return done;
            }
            self.filled.notified().await;
        }
    }
}

impl Disk {
    /// Opens the files of `info` below `folder`, or its backend, and starts the disk threads; what the user
    /// should know comes along. Blocks.
    pub(super) fn open(
        info: &Arc<Info>,
        (folder, backend): (&Path, Option<&dyn Backend>),
        options: &OpenOptions,
        config: PoolConfig,
        mailbox: &Arc<Mailbox>,
    ) -> Result<(Self, Vec<String>), Failed> {
        let mut opened = match backend {
            Some(backend) => backend::open(backend, info).map_err(Failed::Disk)?,
            None => open(info, folder, options).map_err(explain)?,
        };
        let warnings = std::mem::take(&mut opened.warnings);
        let reserve = options.preallocation == Preallocation::Full && options.access == Access::Download;
        let config = PoolConfig { reserve, ..config };
        let (have, to_check) = (opened.have.clone(), opened.to_check.clone());
        let save_every = (SAVE_EVERY / u64::from(info.piece_length().max(1))).max(1);
        let save_every = u32::try_from(save_every).unwrap_or(u32::MAX);
        let hashed = (0, to_check.count());
        let check = Check { hashed, save_every, is_last_asked: false, have, to_check, totals: opened.totals };
        let mailbox = Arc::clone(mailbox);
        let pool = opened
            .start(config, move |done| mailbox.put(done))
            .map_err(|error| Failed::Disk(DiskError::new("starting threads for", folder, &error)))?;
        let (deferred, check) = (VecDeque::new(), Some(check));
        Ok((
            Self { pool: Some(pool), deferred, reserving: 0, reserves: reserve, check, unheard: None },
            warnings,
        ))
    }

    /// Has the space of the wanted files reserved, if that is chosen, and starts the first check; what is
    /// there at once if there is nothing to do.
    pub(super) fn begin(&mut self, wanted: Vec<bool>) -> Option<(Bitfield, Totals)> {
        if self.reserves {
            self.reserve(wanted);
            return None;
        }
        self.begin_check()
    }

    /// Other files are wanted: of importance while the swarm, which says so later, does not know what is
    /// there.
    pub(super) fn want(&mut self, wanted: Vec<bool>) {
        if self.reserving > 0 {
            self.reserve(wanted);
        }
    }

    fn reserve(&mut self, wanted: Vec<bool>) {
        self.reserving += 1;
        self.submit(Job::Want(wanted));
        self.flush();
    }

    fn begin_check(&mut self) -> Option<(Bitfield, Totals)> {
        let check = self.check.as_mut()?;
        if check.to_check.is_empty() {
            return self.check.take().map(|check| (check.have, check.totals));
        }
        let to_check = std::mem::take(&mut check.to_check);
        self.submit(Job::Check(to_check));
        self.flush();
        None
    }

    /// Gives a job with the next [`Disk::flush`]; never waits. A swarm that knows nothing of what is there
    /// knows no counters either.
    pub(super) fn submit(&mut self, job: Job) {
        if let (Some(check), Job::Save(id, _)) = (&mut self.check, &job) {
            check.is_last_asked |= *id != SaveId::IN_PASSING;
        }
        let totals = self.check.as_ref().map(|check| check.totals).or(self.unheard);
        self.deferred.push_back(match (totals, job) {
            (Some(totals), Job::Save(id, _)) => Job::Save(id, totals),
            (_, job) => job,
        });
    }

    /// The swarm ends without having heard of what is there, nor of what was counted before.
    pub(super) fn is_unheard(&mut self, totals: Totals) {
        self.unheard = Some(totals);
    }

    /// How many pieces the first check has hashed, of how many, while it is under way.
    pub(super) fn checked(&self) -> (u32, u32) {
        self.check.as_ref().map_or((0, 0), |check| check.hashed)
    }

    /// Gives the threads what was submitted, all at once, as far as they have room.
    pub(super) fn flush(&mut self) {
        if let Some(pool) = self.pool.as_ref().filter(|_| !self.deferred.is_empty()) {
            pool.submit_all(&mut self.deferred);
        }
    }

    /// Looks at an answer: the first check is kept from the swarm, which asked for no check.
    pub(super) fn take(&mut self, done: Done) -> Answer {
        self.flush();
        match (&mut self.check, done) {
            (Some(check), Done::Checked(piece, right)) => {
                check.hashed.0 += 1;
                if right {
                    check.have.insert(piece.0);
                }
                if check.hashed.0.is_multiple_of(check.save_every) && !check.is_last_asked {
                    self.submit(Job::Save(SaveId::IN_PASSING, Totals::default()));
                    self.flush();
                }
                Answer::Nothing
            }
            (_, Done::Saved { id: SaveId::IN_PASSING, .. } | Done::Unsaved(SaveId::IN_PASSING)) => {
                Answer::Nothing
            }
            // Their file was taken away: the swarm, which was not told of them, would not hear of that.
            (Some(check), Done::Lost(pieces)) => {
                for piece in pieces {
                    check.have.remove(piece.0);
                }
                Answer::Nothing
            }
            (Some(_), Done::CheckEnded) => {
                let check = self.check.take().expect("it was just looked at");
                Answer::Opened(check.have, check.totals)
            }
            (_, Done::Reserved(reserved)) => self.reserved(reserved),
            (_, Done::Warning(words)) => Answer::Warning(words),
            (_, done) => Answer::Done(done),
        }
    }

    fn reserved(&mut self, reserved: Reserved) -> Answer {
        match reserved {
            Reserved::Part { done, total } => Answer::Reserved(done, total),
            Reserved::Unsupported(error) => Answer::Warning(format!("files are not preallocated: {error}")),
            Reserved::Ended => {
                // Those that the swarm asks for later hold up nothing.
                let last = self.reserving == 1;
                self.reserving = self.reserving.saturating_sub(1);
                match last.then(|| self.begin_check()).flatten() {
                    Some((have, totals)) => Answer::Opened(have, totals),
                    None => Answer::Nothing,
                }
            }
        }
    }

    /// Lets the threads go on after the disk has refused.
    pub(super) fn resume(&self) {
        if let Some(pool) = &self.pool {
            pool.resume();
        }
    }

    /// Ends the threads, which may take as long as the disk does: off the runtime.
    pub(super) async fn close(mut self) {
        let pool = self.pool.take();
        let _ = tokio::task::spawn_blocking(move || drop(pool)).await;
    }
}

/// Disk threads of one of so many torrents. Each torrent has its own, but only the first and other checks,
/// which hash all there is, are worth more than two: those are what a torrent that is alone gets. A thread
/// costs its stack, and 32 KiB for each piece that it hashes side by side while it checks (256 KiB with
/// eight lanes, 512 KiB with sixteen); the caches are divided among them.
pub(super) fn threads(cores: usize, torrents: usize) -> NonZeroUsize {
    NonZeroUsize::new((cores / torrents.max(1)).clamp(2, MAX_THREADS)).unwrap_or(NonZeroUsize::MIN)
}

/// A disk is hardly ever faster than what these hash, and a part of the write cache for each must be worth
/// having.
const MAX_THREADS: usize = 8;

fn explain(error: OpenError) -> Failed {
    match error {
        OpenError::InUse(folder) => Failed::InUse(folder),
        OpenError::Disk(error) => Failed::Disk(error),
        OpenError::V2Only => Failed::Unsupported(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tests::{metainfo, put};
    use crate::piece::PieceIndex;

    #[test]
    fn a_torrent_alone_has_a_thread_a_core_and_one_of_many_has_two() {
        let threads = |cores, torrents| threads(cores, torrents).get();
        assert_eq!([1, 2, 4, 8, 64].map(|cores| threads(cores, 1)), [2, 2, 4, 8, 8]);
        assert_eq!([0, 2, 4, 5, 1000].map(|torrents| threads(16, torrents)), [8, 8, 4, 3, 2]);
    }

    #[test]
    fn the_first_check_waits_for_the_end_of_each_time_that_space_is_reserved() {
        let (have, to_check) = (Bitfield::full(3), Bitfield::new(3));
        let check = Some(Check {
            have,
            to_check,
            hashed: (0, 0),
            save_every: 1,
            is_last_asked: false,
            totals: Totals::default(),
        });
        let mut disk = Disk {
            pool: None,
            deferred: VecDeque::new(),
            reserving: 0,
            reserves: true,
            check,
            unheard: None,
        };
        assert!(disk.begin(vec![true]).is_none());
        // Both are on their way when the first one ends.
        disk.want(vec![false]);
        assert_eq!(disk.deferred.len(), 2);
        assert!(matches!(disk.take(Done::Reserved(Reserved::Ended)), Answer::Nothing));
        assert!(
            matches!(disk.take(Done::Reserved(Reserved::Ended)), Answer::Opened(have, _) if have.is_full())
        );
        // The swarm says for itself what it wants then.
        disk.want(vec![true]);
        assert_eq!(disk.deferred.len(), 2);
        assert!(matches!(disk.take(Done::Reserved(Reserved::Ended)), Answer::Nothing));
    }

    #[test]
    fn a_first_check_counts_and_saves_what_was_hashed_and_a_save_keeps_the_counters_of_before() {
        let (have, to_check) = (Bitfield::new(3), Bitfield::new(3));
        let totals = Totals { downloaded: 5, uploaded: 6 };
        let check =
            Some(Check { have, to_check, hashed: (0, 2), save_every: 2, is_last_asked: false, totals });
        let mut disk = Disk {
            pool: None,
            deferred: VecDeque::new(),
            reserving: 0,
            reserves: false,
            check,
            unheard: None,
        };
        assert!(matches!(disk.take(Done::Checked(PieceIndex(1), true)), Answer::Nothing));
        assert!(disk.deferred.is_empty());
        assert!(matches!(disk.take(Done::Checked(PieceIndex(2), false)), Answer::Nothing));
        assert_eq!(disk.checked(), (2, 2));
        // Every so many pieces what is found is kept; the swarm, which asked for nothing, hears nothing of it.
        let saves = std::mem::take(&mut disk.deferred);
        assert!(matches!(Vec::from(saves)[..], [Job::Save(SaveId::IN_PASSING, kept)] if kept == totals));
        let ended = [Done::Saved { id: SaveId::IN_PASSING, doubted: 1 }, Done::Unsaved(SaveId::IN_PASSING)];
        for done in ended {
            assert!(matches!(disk.take(done), Answer::Nothing));
        }
        // Nor of what is lost meanwhile, of which it knows nothing.
        assert!(matches!(disk.take(Done::Checked(PieceIndex(0), true)), Answer::Nothing));
        assert!(matches!(disk.take(Done::Lost(vec![PieceIndex(0)])), Answer::Nothing));
        let saved = |disk: &mut Disk| {
            disk.submit(Job::Save(SaveId(1), Totals::default()));
            match disk.deferred.pop_back() {
                Some(Job::Save(_, totals)) => totals,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(saved(&mut disk), totals);
        // That was the swarm's last one: none takes its place.
        assert!(matches!(disk.take(Done::Checked(PieceIndex(2), false)), Answer::Nothing));
        assert!(disk.deferred.is_empty());
        assert!(matches!(disk.take(Done::CheckEnded), Answer::Opened(have, _) if have.count() == 1));
        assert_eq!((disk.checked(), saved(&mut disk)), ((0, 0), Totals::default()));
        // Whoever seeds and finds that something is missing ends without having told the swarm.
        disk.is_unheard(totals);
        assert_eq!(saved(&mut disk), totals);
    }

    #[tokio::test]
    async fn a_run_that_is_killed_in_its_first_check_goes_on_where_it_was_saved() {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path());
        let info = Arc::new(metainfo().info);
        let mailbox = Arc::new(Mailbox::default());
        let open = || {
            let (options, config) = (OpenOptions::default(), PoolConfig::default());
            Disk::open(&info, (folder.path(), None), &options, config, &mailbox).unwrap().0
        };
        let known = |disk: &Disk| {
            let check = disk.check.as_ref().unwrap();
            (check.have.count(), check.to_check.count())
        };
        let mut disk = open();
        assert_eq!(known(&disk), (0, 20));
        disk.check.as_mut().unwrap().save_every = 5;
        assert!(disk.begin(vec![true, true]).is_none());
        let mut saved = false;
        while !saved {
            for done in mailbox.take().await {
                saved |= matches!(done, Done::Saved { id: SaveId::IN_PASSING, .. });
                disk.take(done);
            }
        }
        // Nobody says good-bye.
        disk.close().await;
        let (have, to_check) = known(&open());
        assert!(have >= 5 && have + to_check == 20, "{have} {to_check}");
    }
}
