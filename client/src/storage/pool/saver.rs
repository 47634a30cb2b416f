//! [`Saver`]: the thread that syncs and saves.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};

use super::progress::Snapshot;
use super::shared::{Shared, panicked};
use crate::bitfield::Bitfield;
use crate::metainfo::File;
use crate::storage::resume::Saved;
use crate::storage::{DiskError, DiskErrorKind, Done, Resume, ResumeFile, SaveId, Stamp, Totals};

/// Syncs files and writes the resume file.
pub(super) struct Saver {
    shared: Arc<Shared>,
    /// The files when they were last looked at.
    stamps: Vec<Option<Stamp>>,
    resume: Option<ResumeFile>,
    /// What it says.
    saved: Option<Saved>,
    /// It was told that it could not be written.
    warned: bool,
    /// Empty files are made.
    finished: bool,
    /// All that is wanted was found in its place when it had come.
    confirmed: bool,
    /// A save panicked, and what it had taken to be synced is forgotten: no later one can tell what is safe.
    panicked: bool,
}

impl Saver {
    pub(super) fn new(
        shared: Arc<Shared>,
        stamps: Vec<Option<Stamp>>,
        resume: Option<ResumeFile>,
        saved: Option<Saved>,
    ) -> Self {
        let (warned, finished, confirmed, panicked) = (false, false, false, false);
        Self { shared, stamps, resume, saved, warned, finished, confirmed, panicked }
    }

    pub(super) fn run(mut self) {
        while let Some((id, totals)) = self.next() {
            if self.panicked {
                (self.shared.on_done)(vec![Done::Failed(panicked()), Done::Unsaved(id)]);
                continue;
            }
            let saved = catch_unwind(AssertUnwindSafe(|| self.save(id, totals)));
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
    fn save(&mut self, id: SaveId, totals: Totals) -> Result<u32, DiskError> {
        // What is written after this moment is claimed by the next save.
        let Snapshot { mut have, mut dirty, touched, unsynced, mut doubted, mut unchecked } =
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
        if self.shared.config.finish
            && let Err(error) = self.finish(&have, &mut dirty)
        {
            self.shared.put_back(&dirty, &unsynced);
            return Err(error);
        }
        if let Err((error, rest)) = self.sync(&dirty) {
            self.shared.put_back(rest, &unsynced);
            // What was taken away is in doubt already, and nothing else is.
            if error.kind != DiskErrorKind::Missing {
                self.shared.doubt_unsynced();
            }
            return Err(error);
        }
        self.confirm(&have)?;
        // A file that was found gone since may have been made anew, and be what was just looked at.
        for piece in self.shared.lock_progress().doubted.iter() {
            doubted.insert(piece);
        }
        let in_doubt = doubted.common(&have);
        // A file that was taken away meanwhile takes its claims with it.
        let gone = self.shared.info.files().filter(|file| file.is_stored());
        let gone = gone.filter(|file| self.stamps.get(file.index).is_none_or(Option::is_none));
        let lost = gone.flat_map(|file| self.shared.info.layout().piece_range(file.index));
        // What is in doubt is looked at by the next run, which would take it for missing.
        for piece in doubted.iter().filter(|&piece| have.contains(piece)) {
            unchecked.insert(piece);
        }
        for piece in lost.chain(doubted.iter()) {
            have.remove(piece);
        }
        self.keep(id, &Resume { have, unchecked, stamps: self.stamps.clone(), totals }).map(|()| in_doubt)
    }

    /// Writes the resume file, unless it says all this already. One that says no less of the data may stay
    /// where there is no space for another; and whoever only shares data can do without.
    fn keep(&mut self, id: SaveId, resume: &Resume) -> Result<(), DiskError> {
        let Some(file) = &self.resume else { return Ok(()) };
        let new = Saved::of(resume);
        if self.saved == Some(new) {
            return Ok(());
        }
        match file.save(resume) {
            Ok(()) => (self.saved, self.warned) = (Some(new), false),
            Err(_) if id == SaveId::IN_PASSING => {}
            Err(error) => {
                let same = self.saved.is_some_and(|saved| saved.is_of_the_same_data(&new));
                if self.shared.writes && !same {
                    return Err(error);
                }
                if !std::mem::replace(&mut self.warned, true) {
                    let words = format!("the state of the download is not saved: {error}");
                    (self.shared.on_done)(vec![Done::Warning(words)]);
                }
            }
        }
        Ok(())
    }

    /// Syncs files and looks at them; on failure says which are left, the failed one first. One that was
    /// taken away, and of which nothing is believed any more, has nothing to be synced.
    fn sync<'a>(&mut self, files: &'a [usize]) -> Result<(), (DiskError, &'a [usize])> {
        for (at, &file) in files.iter().enumerate() {
            let synced = match self.shared.storage.sync(file) {
                Err(error) if error.kind == DiskErrorKind::Missing => match self.shared.gone(file) {
                    true => Err(error),
                    false => self.look(file),
                },
                synced => synced.and_then(|()| self.look(file)),
            };
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

    /// Once all pieces of a wanted file are there, cuts it if it is longer; with all pieces of all files,
    /// makes empty ones. They are `dirty` then.
    fn finish(&mut self, have: &Bitfield, dirty: &mut Vec<usize>) -> Result<(), DiskError> {
        let info = Arc::clone(&self.shared.info);
        let (all, synced) = (have.is_full(), dirty.len());
        for file in info.files().filter(|file| file.is_stored()) {
            let now = self.stamps.get(file.index).copied().flatten();
            let absent = all && !self.finished && now.is_none() && file.is_empty();
            let longer = now.is_some_and(|stamp| stamp.len > file.len());
            // Before anybody has said which files are wanted nothing is cut: it may be a save amid the first check.
            let wants = || self.shared.knows_wanted() && self.shared.wants(file.index);
            let cut = longer && (all || wants() && is_whole(&file, have));
            if absent || cut {
                let finished = self.shared.storage.finish(file.index);
                finished.map_err(|error| self.shared.gone_if_missing(file.index, error))?;
                // Those of the snapshot are in order, and no file comes here twice.
                if dirty.get(..synced).is_none_or(|dirty| dirty.binary_search(&file.index).is_err()) {
                    dirty.push(file.index);
                }
            }
        }
        self.finished |= all;
        Ok(())
    }

    /// When all that is wanted has come, looks once whether it is still in its place: files that were done
    /// long ago are not looked at otherwise.
    fn confirm(&mut self, have: &Bitfield) -> Result<(), DiskError> {
        let info = Arc::clone(&self.shared.info);
        let wanted = || {
            info.files().filter(|file| file.is_stored() && !file.is_empty() && self.shared.wants(file.index))
        };
        if !wanted().all(|file| is_whole(&file, have)) {
            self.confirmed = false;
            return Ok(());
        }
        if self.confirmed {
            return Ok(());
        }
        let storage = &*self.shared.storage;
        let confirm = |file: usize| match storage.confirm(file).and_then(|()| storage.stamp(file))? {
            Some(_) => Ok(()),
            // That says that there is nothing to sync.
            None => storage.sync(file),
        };
        let mut failed = None;
        for file in wanted() {
            if let Err(error) = confirm(file.index)
                && (error.kind != DiskErrorKind::Missing || self.shared.gone(file.index))
            {
                failed.get_or_insert(error);
            }
        }
        self.confirmed = failed.is_none();
        failed.map_or(Ok(()), Err)
    }
}

fn is_whole(file: &File<'_>, have: &Bitfield) -> bool {
    file.piece_range().all(|piece| have.contains(piece))
}
