//! [`Saver`]: the thread that syncs and saves.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};

use super::progress::Snapshot;
use super::shared::{Shared, panicked};
use crate::storage::{DiskError, DiskErrorKind, Done, Resume, ResumeFile, SaveId, Stamp, Totals};

/// Syncs files and writes the resume file.
pub(super) struct Saver {
    shared: Arc<Shared>,
    /// The files when they were last looked at.
    stamps: Vec<Option<Stamp>>,
    resume: Option<ResumeFile>,
    /// Empty files are made, longer ones cut.
    finished: bool,
    /// A save panicked, and what it had taken to be synced is forgotten: no later one can tell what is safe.
    panicked: bool,
}

impl Saver {
    pub(super) fn new(shared: Arc<Shared>, stamps: Vec<Option<Stamp>>, resume: Option<ResumeFile>) -> Self {
        Self { shared, stamps, resume, finished: false, panicked: false }
    }

    pub(super) fn run(mut self) {
        while let Some((id, totals)) = self.next() {
            if self.panicked {
                (self.shared.on_done)(vec![Done::Failed(panicked()), Done::Unsaved(id)]);
                continue;
            }
            let saved = catch_unwind(AssertUnwindSafe(|| self.save(totals)));
            let done = match saved {
                Ok(Ok(doubted)) => Done::Saved { id, doubted },
                Ok(Err(_)) | Err(_) => Done::Unsaved(id),
            };
            match saved {
                Ok(Ok(_)) => {}
                Ok(Err(error)) if self.shared.is_held() => (self.shared.on_done)(vec![Done::Failed(error)]),
                Ok(Err(error)) => self.shared.hold(error, false),
                Err(_) => {
                    self.panicked = true;
                    self.shared.hold(panicked(), true);
                }
            }
            (self.shared.on_done)(vec![done]);
        }
    }

    /// The latest save that is due; with it the earlier ones are done.
    fn next(&self) -> Option<(SaveId, Totals)> {
        let mut saves = self.shared.lock_saves();
        loop {
            if self.shared.is_stopping() {
                return None;
            }
            if let Some(due) = saves.take() {
                return Some(due);
            }
            saves = self.shared.save_wake.wait(saves).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Returns how many written pieces are in doubt and not claimed.
    fn save(&mut self, totals: Totals) -> Result<u32, DiskError> {
        // What is written after this moment is claimed by the next save.
        let Snapshot { mut have, mut dirty, touched, unsynced, doubted } =
            self.shared.lock_progress().snapshot();
        // Nothing of theirs has to be synced: one that is lost in a crash is checked.
        for &file in &touched {
            if let Err(error) = self.look(file) {
                self.shared.put_back(&dirty, &unsynced);
                self.shared.lock_progress().touched.extend(touched);
                return Err(error);
            }
        }
        // Before the syncs, which may take longer than the process is given at the end of a download.
        if have.is_full() && self.shared.config.finish && !self.finished {
            if let Err(error) = self.finish(&mut dirty) {
                self.shared.put_back(&dirty, &unsynced);
                return Err(error);
            }
            self.finished = true;
        }
        if let Err((error, rest)) = self.sync(&dirty) {
            self.shared.put_back(rest, &unsynced);
            if let Some(&failed) = rest.first() {
                let gone = error.kind == DiskErrorKind::Missing;
                self.shared.doubt(self.shared.info.layout().piece_range(failed), gone);
            }
            return Err(error);
        }
        let in_doubt = doubted.common(&have);
        let Some(file) = &self.resume else { return Ok(in_doubt) };
        // A file that was taken away meanwhile takes its claims with it.
        let gone = self.shared.info.files().filter(|file| file.is_stored());
        let gone = gone.filter(|file| self.stamps.get(file.index).is_none_or(Option::is_none));
        let lost = gone.flat_map(|file| self.shared.info.layout().piece_range(file.index));
        for piece in lost.chain(doubted.iter()) {
            have.remove(piece);
        }
        file.save(&Resume { have, stamps: self.stamps.clone(), totals }).map(|()| in_doubt)
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
