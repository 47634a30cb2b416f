//! The owner's side of the disk threads: files that are opened, jobs that are given, answers.

use std::num::NonZeroUsize;
use std::sync::Arc;

use tokio::task::{self, JoinHandle};

use super::Owner;
use super::life::Life;
use crate::bitfield::Bitfield;
use crate::engine::disk::{self, Answer, Disk};
use crate::engine::options::{Share, State};
use crate::engine::phase::{Failed, Phase};
use crate::metainfo::Info;
use crate::storage::{Done, Job, OpenOptions, PoolConfig, Totals};
use crate::swarm::{Command, Event, Input};

/// Open files and what the user should know of them, or why there are none.
pub(super) type Opening = Result<(Disk, Vec<String>), Failed>;

impl Owner {
    pub(super) fn open(&mut self, info: Arc<Info>) {
        // Stopped at the news of what it holds: no disk is touched any more.
        if self.options.metadata_only || self.life != Life::Running {
            return;
        }
        let (folder, usual) = (self.options.output.clone(), OpenOptions::default());
        let options = OpenOptions {
            access: self.options.share.into(),
            max_open: self.options.max_open_files.unwrap_or(usual.max_open),
            sharing: self.options.max_open_files.is_none().then(|| Arc::clone(&self.session.open_files)),
            preallocation: self.options.preallocation.unwrap_or(self.session.preallocation),
        };
        let backend = self.options.storage.clone();
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let threads = disk::threads(cores, self.session.lock().len());
        let config =
            PoolConfig { threads, blocks: Arc::clone(&self.session.blocks), ..PoolConfig::default() };
        let mailbox = Arc::clone(&self.mailbox);
        let open = move || Disk::open(&info, (&folder, backend.as_deref()), &options, config, &mailbox);
        self.opening = Some(task::spawn_blocking(open));
    }

    pub(super) fn opened_or_not(&mut self, opened: Opening) {
        self.opening = None;
        match opened {
            Ok((disk, warnings)) => self.opened(disk, warnings),
            Err(failed) => self.fail(failed),
        }
    }

    pub(super) fn opened(&mut self, mut disk: Disk, warnings: Vec<String>) {
        for warning in warnings {
            self.tell_user(Event::Warning(warning));
        }
        let there = disk.begin(self.wanted());
        self.disk = Some(disk);
        if let Some((have, totals)) = there {
            self.data_is_there(have, totals);
        }
    }

    /// Which files are wanted, by index.
    pub(super) fn wanted(&self) -> Vec<bool> {
        let files = self.info.as_ref().map_or(0, |info| info.files().len());
        (0..files).map(|file| self.swarm.priority(file) > 0).collect()
    }

    pub(super) fn data_is_there(&mut self, have: Bitfield, totals: Totals) {
        if let Some(failed) = self.lacks(&have) {
            if let Some(disk) = &mut self.disk {
                disk.is_unheard(self.carried.unwrap_or(totals));
            }
            return self.fail(failed);
        }
        // What was counted before a stop is more than what may have been saved.
        self.handle(Input::Opened(have, self.carried.unwrap_or(totals)));
    }

    /// After a check: whoever only gives what it has fetches nothing that is wrong.
    pub(super) fn all_is_there(&mut self) {
        if let Some(failed) = self.swarm.have().and_then(|have| self.lacks(have)) {
            self.fail(failed);
        }
    }

    /// Why a torrent with these pieces cannot do what it is for.
    fn lacks(&self, have: &Bitfield) -> Option<Failed> {
        let (missing, pieces) = (have.len() - have.count(), have.len());
        (self.options.share == Share::SeedOnly && missing > 0).then_some(Failed::Missing { missing, pieces })
    }

    pub(super) fn give(&mut self, job: Job) {
        match (&mut self.disk, job) {
            (Some(disk), job) => disk.submit(job),
            // There is nothing to save yet.
            (None, Job::Save(id, _)) => self.handle(Input::Disk(Done::Saved { id, doubted: 0 })),
            (None, job) => tracing::debug!(?job, "no storage for a job"),
        }
    }

    pub(super) fn disk_did(&mut self, done: Done) {
        let Some(disk) = &mut self.disk else { return };
        match disk.take(done) {
            Answer::Done(done) => {
                let lost = matches!(done, Done::Lost(_));
                self.handle(Input::Disk(done));
                if lost {
                    self.goes_on();
                }
            }
            Answer::Opened(have, totals) => self.data_is_there(have, totals),
            Answer::Reserved(done, total) => self.tell_user(Event::Preallocating { done, total }),
            Answer::Warning(words) => self.tell_user(Event::Warning(words)),
            Answer::Nothing => {}
        }
    }

    pub(super) fn retry(&mut self) {
        let may_heal = matches!(&*self.phase.borrow(), Phase::Failed(failed) if failed.may_heal());
        match &mut self.life {
            Life::Running => {}
            Life::Stopped if may_heal => return self.begin(State::Started),
            Life::Leaving { then: then @ Some(_), .. } if may_heal => return *then = Some(State::Started),
            Life::Leaving { .. } | Life::Stopped | Life::Over => return,
        }
        // Only a failure of the disk heals.
        self.phase.send_if_modified(|phase| {
            let heals = matches!(phase, Phase::Failed(Failed::Disk(_)));
            if heals {
                *phase = Phase::Running;
            }
            heals
        });
        if let Some(disk) = &self.disk {
            disk.resume();
        }
        self.handle(Input::Command(Command::Retry));
    }
}

/// Waits for files that are being opened, if there are any.
pub(super) async fn opened(opening: &mut Option<JoinHandle<Opening>>) -> Opening {
    let Some(opening) = opening else { return std::future::pending().await };
    // Only a panic, which is a bug of ours, or the end of the runtime keeps it from an answer.
    opening.await.unwrap_or_else(|error| Err(Failed::Unsupported(format!("opening files: {error}"))))
}
