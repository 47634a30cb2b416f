//! What a [`FileStorage`] keeps in a [`PartFile`]: the edges of files that are skipped, and how they come
//! into the file when it is wanted.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::{MutexGuard, PoisonError};

use rustix::io::Errno;

use super::below::{self, Absent};
use super::{FileStorage, Want, mode_of, write_all_at};
use crate::storage::Stamp;
use crate::storage::part::{PartFile, Place};

impl FileStorage {
    pub(super) fn part(&self) -> MutexGuard<'_, PartFile> {
        self.part.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn skips(&self, file: usize) -> bool {
        self.skipped.lock().unwrap_or_else(PoisonError::into_inner).get(file) == Some(&true)
    }

    fn place(&self, part: &PartFile, index: usize) -> Option<Place> {
        let file = self.info.file(index).filter(|file| file.is_stored())?;
        part.place(index, file.len())
    }

    /// The place of a file of which something lies in the part file.
    fn held(&self, part: &PartFile, index: usize) -> Option<Place> {
        self.place(part, index).filter(|&place| part.holds(place))
    }

    /// Reads from the part file what belongs to a file that does not exist.
    pub(super) fn read_part(&self, index: usize, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let absent = || io::Error::from(io::ErrorKind::NotFound);
        let part = self.part();
        let place = self.held(&part, index).ok_or_else(absent)?;
        // It may have been made while we waited.
        match self.file(index, Want::Read) {
            Ok(open) => open.file.read_exact_at(buf, offset),
            Err(_) => part.read(place, offset, buf),
        }
    }

    /// Writes to the part file if the bytes belong there; else sees to it that the file can be made.
    pub(super) fn write_part(&self, index: usize, offset: u64, bufs: &mut [IoSlice<'_>]) -> io::Result<bool> {
        let is_open = || self.lock().get(&index).is_some_and(|open| open.writable);
        if is_open() {
            return Ok(false);
        }
        // The lock is held until an absent file is made, lest it be skipped meanwhile and another thread
        // write to the part file what is then looked for in the file.
        let mut part = self.part();
        if self.stat(index)?.is_some() {
            return Ok(false);
        }
        // Also one that is skipped: what is believed of it was in the file, and is not in the part file.
        self.check_known(index, None)?;
        let len = bufs.iter().map(|buf| buf.len() as u64).sum();
        let Some(place) = self.place(&part, index) else { return Ok(false) };
        if !self.skips(index) || !PartFile::takes(place, offset, len) {
            self.move_out(&mut part, index, place)?;
            self.file(index, Want::Write)?;
            return Ok(false);
        }
        let (file, at) = part.for_writing(self.root.as_fd(), place, (offset, len))?;
        write_all_at(file, at, bufs)?;
        Ok(true)
    }

    /// Makes a file that is wanted, of what lies in the part file if there is anything.
    pub(super) fn make(&self, index: usize) -> io::Result<()> {
        let mut part = self.part();
        if self.stat(index)?.is_none() {
            self.check_known(index, None)?;
            if let Some(place) = self.place(&part, index) {
                self.move_out(&mut part, index, place)?;
            }
        }
        self.file(index, Want::Write).map(drop)
    }

    /// Makes an absent file of what lies in the part file; says whether there was anything.
    fn move_out(&self, part: &mut PartFile, index: usize, place: Place) -> io::Result<bool> {
        if !part.holds(place) {
            return Ok(false);
        }
        let info = self.info.file(index).ok_or(Errno::NOENT)?;
        let path = info.path();
        let folder = below::folder(&self.root, &path, Absent::Make)?;
        let at = folder.as_fd();
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let put = |by| part.put(by, place, (at, name), mode_of(info));
        match put(self.root.as_fd()) {
            // The folder is on a file system of its own: the copy is made in it.
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => put(at)?,
            done => done?,
        }
        rustix::fs::fsync(at)?;
        part.drop_place(self.root.as_fd(), place)?;
        Ok(true)
    }

    /// Syncs the part file for a file that is `absent`. That an unwanted one is, is no error.
    pub(super) fn sync_part(&self, index: usize, absent: io::Error) -> io::Result<()> {
        let mut part = self.part();
        match self.held(&part, index).is_some() {
            true => part.sync(),
            false if self.skips(index) => Ok(()),
            false => Err(absent),
        }
    }

    /// The stamp of a file that is absent, if its bytes lie in the part file. That one changes for other
    /// files' sake: it is known by its mark, told from times of change by the sign.
    pub(super) fn stamp_part(&self, index: usize) -> io::Result<Option<Stamp>> {
        let part = self.part();
        if self.held(&part, index).is_none() {
            return Ok(None);
        }
        let len = self.info.file(index).map_or(0, |file| file.len());
        let mark = part.mark()?;
        Ok(mark.map(|mark| Stamp { len, mtime: -((mark >> 1) as i64) }))
    }

    /// Brings what lies in the part file into a file that is wanted.
    pub(super) fn bring_part(&self, index: usize) -> io::Result<bool> {
        let mut part = self.part();
        match self.held(&part, index).filter(|_| !self.skips(index)) {
            Some(place) => {
                if self.stat(index)?.is_none() {
                    self.check_known(index, None)?;
                }
                self.move_out(&mut part, index, place)
            }
            None => Ok(false),
        }
    }
}
