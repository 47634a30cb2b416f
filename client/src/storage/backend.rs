//! [`Storage`]: where the bytes of a torrent's files are.

use std::io::IoSlice;

use super::job::DiskError;
use crate::bitfield::Bitfield;

/// The files of one torrent, by their index in its layout. Calls block, and may come from several
/// threads at once. Whoever implements this loops over short reads and writes and over EINTR, so
/// that no caller can overlook a count.
pub trait Storage: Send + Sync {
    /// Fills `buf` from `offset` on. A file that is absent or too short is
    /// [`DiskErrorKind::Missing`](super::DiskErrorKind::Missing).
    fn read(&self, file: usize, offset: u64, buf: &mut [u8]) -> Result<(), DiskError>;

    /// Says that these bytes will be read soon. What is not there is no error.
    fn ahead(&self, file: usize, offset: u64, len: u32);

    /// Writes the buffers one behind the other from `offset` on, making the file and its folders if
    /// need be: but not one that was there before, see [`Storage::confirm`]. The slices are used up.
    fn write(&self, file: usize, offset: u64, bufs: &mut [IoSlice<'_>]) -> Result<(), DiskError>;

    /// Makes the file exist with exactly its length: makes an empty one, cuts a longer one.
    fn finish(&self, file: usize) -> Result<(), DiskError>;

    /// Returns when what was written to the file survives a crash. Fails with
    /// [`DiskErrorKind::Missing`](super::DiskErrorKind::Missing) if the file was taken away meanwhile.
    fn sync(&self, file: usize) -> Result<(), DiskError>;

    /// The file as it is now; `None` if it is absent.
    fn stamp(&self, file: usize) -> Result<Option<Stamp>, DiskError>;

    /// Fails with [`DiskErrorKind::Missing`](super::DiskErrorKind::Missing) if the file was taken away, or
    /// changed by somebody else, since it was first looked at or last written to. Writing to it and syncing
    /// it fail the same way until [`Storage::forget`].
    fn confirm(&self, file: usize) -> Result<(), DiskError>;

    /// Takes the file for what it is now, or for absent: nothing is believed of it any more.
    fn forget(&self, file: usize);

    /// Says which files are wanted, by index; those beyond the end are. Writing to one that is not, and
    /// is absent, does not make it as long as only the first or last piece's length is written: the
    /// bytes lie elsewhere, and are read from there. Does not wait for the disk.
    fn want(&self, files: &[bool]);

    /// Brings what lies elsewhere into a file that is wanted; says whether there was anything.
    fn bring_back(&self, file: usize) -> Result<bool, DiskError>;

    /// What has to be reserved so that writing to wanted files cannot run out of space: their indices,
    /// and bytes that each lacks. Reserves nothing. None at all where files take space as they are
    /// written, and none of those whose pieces are all `there`, which may take less than their length.
    /// Fails with [`DiskErrorKind::NoSpace`](super::DiskErrorKind::NoSpace), and says how much is missing, where there is less.
    fn plan(&self, there: &Bitfield) -> Result<Vec<(usize, u64)>, DiskError>;

    /// Reserves space for the next bytes of a file from `from` on, as many as go in a moment, and says
    /// where that ended: at the file's length when nothing is left to do. Makes the file. Content stays
    /// as it is. Fails with [`DiskErrorKind::Unsupported`](super::DiskErrorKind::Unsupported) where space cannot be reserved.
    fn reserve(&self, file: usize, from: u64) -> Result<u64, DiskError>;
}

/// By what a change of a file is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Its bytes.
    pub len: u64,
    /// When it was last written to, in nanoseconds since 1970.
    pub mtime: i64,
}
