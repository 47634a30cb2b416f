//! [`Reserving`]: the space of wanted files, reserved step by step, so that a disk thread can do other
//! things in between.

use crate::bitfield::Bitfield;
use crate::metainfo::Info;
use crate::storage::{DiskError, DiskErrorKind, Reserved, Storage};

/// Bytes between two reports.
const REPORT_EVERY: u64 = 256 << 20;

/// What is to be reserved and how far that is.
#[derive(Debug, Default)]
pub(super) struct Reserving {
    /// Files and what they lack, the next one last; `None` before that is known.
    left: Option<Vec<(usize, u64)>>,
    /// How far the next one is.
    from: u64,
    done: u64,
    total: u64,
    reported: u64,
}

/// What a step came to.
#[derive(Debug)]
pub(super) enum Step {
    /// It is known what to do.
    Planned,
    /// Something of a file was reserved; what to say of that, if anything.
    Done(Option<Reserved>),
    /// It cannot be done.
    Unsupported(DiskError),
    /// Nothing is left.
    Ended,
}

impl Reserving {
    /// The file that the next step may change.
    pub(super) fn file(&self) -> Option<usize> {
        self.left.as_ref()?.last().map(|&(file, _)| file)
    }

    /// Does the next step; after an error, the same one again. When space has run out it begins anew: then
    /// what is missing is said. `written`: the pieces that are there.
    pub(super) fn step(
        &mut self,
        storage: &dyn Storage,
        info: &Info,
        written: impl FnOnce() -> Bitfield,
    ) -> Result<Step, DiskError> {
        let Some(left) = &mut self.left else {
            let mut plan = storage.plan(&written())?;
            self.total = plan.iter().map(|(_, bytes)| bytes).sum();
            plan.reverse();
            self.left = Some(plan);
            return Ok(Step::Planned);
        };
        let Some(&(file, bytes)) = left.last() else { return Ok(Step::Ended) };
        self.from = match storage.reserve(file, self.from) {
            Ok(to) => to,
            Err(error) if error.kind == DiskErrorKind::Unsupported => return Ok(Step::Unsupported(error)),
            Err(error) => {
                if error.kind == DiskErrorKind::NoSpace {
                    *self = Self::default();
                }
                return Err(error);
            }
        };
        let mut now = self.done + self.from.min(bytes);
        if self.from >= info.file(file).map_or(0, |file| file.len()) {
            left.pop();
            self.from = 0;
            self.done += bytes;
            now = self.done;
        }
        let report = left.is_empty() || now - self.reported >= REPORT_EVERY;
        let told = report.then_some(Reserved::Part { done: now, total: self.total });
        if report {
            self.reported = now;
        }
        Ok(Step::Done(told))
    }
}
