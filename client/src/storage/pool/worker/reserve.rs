//! Space of wanted files is reserved in steps between other tasks.

use super::Worker;
use crate::storage::pool::reserving::{Reserving, Step};
use crate::storage::{DiskError, Done, Reserved};

impl Worker {
    /// Other files are wanted: begins anew. The end of each begin is told, also of one that gives way.
    pub(super) fn begin_reserving(&mut self) {
        if self.shared.config.reserve && self.reserving.replace(Reserving::default()).is_some() {
            self.answers.push(Done::Reserved(Reserved::Ended));
        }
    }

    /// Does one step of what is to be reserved. After an error that will be done again.
    pub(super) fn reserve(&mut self) -> Result<(), DiskError> {
        let Some(reserving) = &mut self.reserving else { return Ok(()) };
        let step = match self.unreservable {
            true => Step::Ended,
            false => {
                let file = reserving.file();
                let (storage, info) = (&*self.shared.storage, &self.shared.info);
                let step = reserving.step(storage, info, || self.shared.lock_progress().perhaps_written());
                // Also a step that failed may have made the file.
                if let Some(file) = file {
                    self.shared.mark_touched(file);
                }
                match (step, file) {
                    (Err(error), Some(file)) => return Err(self.shared.gone_if_missing(file, error)),
                    (step, _) => step?,
                }
            }
        };
        match step {
            Step::Planned => {}
            Step::Done(told) => self.answers.extend(told.map(Done::Reserved)),
            Step::Unsupported(error) => {
                self.unreservable = true;
                self.answers.push(Done::Reserved(Reserved::Unsupported(error)));
            }
            Step::Ended => {
                self.reserving = None;
                self.answers.push(Done::Reserved(Reserved::Ended));
            }
        }
        Ok(())
    }
}
