//! What a [`FileStorage`](super::FileStorage) knows of its files while nobody has them open: one that was
//! taken away, cut or changed by somebody else must not be made or written to as if nothing had been, for
//! pieces of it are believed that are not there any more.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::storage::Stamp;

/// Times that differ by less, in nanoseconds, are the same: FAT keeps two seconds once it forgets what it
/// had in memory.
const COARSE: u64 = 2_000_000_000;

/// Files by their index.
#[derive(Debug)]
pub(super) struct Known {
    files: Mutex<Vec<Seen>>,
    /// A file whose time has changed was changed by somebody.
    keeps_times: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// As it was seen first, or closed by the last who wrote to it; `None` where it may be anything.
    stamp: Option<Stamp>,
    /// Handles that may change it.
    writers: u32,
    /// How often it was forgotten: what older handles say then is of another file.
    age: u32,
}

/// That a handle may change a file.
#[derive(Debug)]
pub(super) struct Writer {
    index: usize,
    age: u32,
}

impl Known {
    pub(super) fn new(files: usize, keeps_times: bool) -> Self {
        Self { files: Mutex::new(vec![Seen::default(); files]), keeps_times }
    }

    /// A file was looked at: so it is to be, if nothing was known of it.
    pub(super) fn saw(&self, index: usize, stamp: Stamp) {
        if let Some(seen) = self.lock().get_mut(index) {
            seen.stamp.get_or_insert(stamp);
        }
    }

    /// Fails if a file is not as it is known.
    pub(super) fn check(&self, index: usize, now: Option<Stamp>) -> io::Result<()> {
        self.lock().get(index).map_or(Ok(()), |seen| seen.check(now, self.keeps_times))
    }

    /// Lets a handle change a file unless that is not as it is known. `look` says how it is: no other
    /// handle changes it meanwhile without being counted.
    pub(super) fn admit(&self, index: usize, look: impl FnOnce() -> io::Result<Stamp>) -> io::Result<Writer> {
        let mut files = self.lock();
        let now = look()?;
        let Some(seen) = files.get_mut(index) else { return Ok(Writer { index, age: 0 }) };
        seen.check(Some(now), self.keeps_times)?;
        seen.stamp.get_or_insert(now);
        seen.writers += 1;
        Ok(Writer { index, age: seen.age })
    }

    /// A handle is closed that could change a file, which `look` says to be so now.
    pub(super) fn leave(&self, writer: &Writer, look: impl FnOnce() -> Option<Stamp>) {
        let mut files = self.lock();
        let Some(seen) = files.get_mut(writer.index).filter(|seen| seen.age == writer.age) else { return };
        seen.writers = seen.writers.saturating_sub(1);
        if seen.writers == 0 {
            seen.stamp = look();
        }
    }

    /// Whether a file was not forgotten since a handle was opened.
    pub(super) fn is_current(&self, writer: &Writer) -> bool {
        self.lock().get(writer.index).is_none_or(|seen| seen.age == writer.age)
    }

    /// We have made a file this long.
    pub(super) fn cut(&self, index: usize, len: u64) {
        if let Some(stamp) = self.lock().get_mut(index).and_then(|seen| seen.stamp.as_mut()) {
            stamp.len = len;
        }
    }

    /// A file may be anything from now on.
    pub(super) fn forget(&self, index: usize) {
        if let Some(seen) = self.lock().get_mut(index) {
            *seen = Seen { age: seen.age.wrapping_add(1), ..Seen::default() };
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn check(&self, now: Option<Stamp>, keeps_times: bool) -> io::Result<()> {
        let Some(then) = self.stamp else { return Ok(()) };
        let Some(now) = now else { return Err(taken_away()) };
        // While it is written to, its time is ours.
        let same_time = self.writers > 0 || !keeps_times || now.mtime.abs_diff(then.mtime) < COARSE;
        match now.len >= then.len && same_time {
            true => Ok(()),
            false => Err(missing("the file was changed by somebody else")),
        }
    }
}

pub(super) fn taken_away() -> io::Error {
    missing("the file was taken away")
}

fn missing(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUND: Stamp = Stamp { len: 10, mtime: 1_000_000_000_000 };

    fn later(seconds: i64) -> Stamp {
        Stamp { mtime: FOUND.mtime + seconds * 1_000_000_000, ..FOUND }
    }

    #[test]
    fn what_is_known_is_the_first_look_or_what_the_last_who_wrote_left() {
        let known = Known::new(1, true);
        assert!(known.check(0, None).is_ok() && known.check(0, Some(FOUND)).is_ok(), "nothing is known");
        known.saw(0, FOUND);
        known.saw(0, later(100));
        assert!(known.check(0, Some(later(1))).is_ok(), "times are coarse");
        assert!(known.check(0, Some(later(3))).is_err() && known.check(0, None).is_err());
        assert!(known.check(0, Some(Stamp { len: 9, ..FOUND })).is_err());
        let one = known.admit(0, || Ok(FOUND)).unwrap();
        let two = known.admit(0, || Ok(later(50))).unwrap();
        assert!(known.check(0, Some(later(60))).is_ok() && known.check(0, None).is_err());
        known.leave(&one, || unreachable!("the other one still writes"));
        known.leave(&two, || Some(later(70)));
        assert!(known.check(0, Some(later(70))).is_ok() && known.check(0, Some(FOUND)).is_err());
    }

    #[test]
    fn handles_of_a_file_that_was_forgotten_say_nothing_of_the_next_one() {
        let known = Known::new(1, true);
        let old = known.admit(0, || Ok(FOUND)).unwrap();
        known.forget(0);
        let new = known.admit(0, || Ok(later(50))).unwrap();
        assert!(!known.is_current(&old) && known.is_current(&new));
        known.leave(&old, || unreachable!("it is of another file"));
        known.cut(0, 5);
        assert!(known.check(0, Some(Stamp { len: 5, ..later(90) })).is_ok());
        known.leave(&new, || Some(later(90)));
        assert!(known.check(0, Some(later(90))).is_ok());
    }

    #[test]
    fn where_times_do_not_stay_the_length_alone_tells() {
        let known = Known::new(1, false);
        known.saw(0, FOUND);
        assert!(known.check(0, Some(later(100))).is_ok());
        assert!(known.check(0, Some(Stamp { len: 9, ..FOUND })).is_err() && known.check(0, None).is_err());
    }
}
