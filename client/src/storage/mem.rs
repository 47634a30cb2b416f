//! [`MemStorage`]: files in memory, for tests and simulations; [`FaultyStorage`]: any storage with
//! faults on order.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{DiskError, Stamp, Storage};
use crate::bitfield::Bitfield;

/// Files in memory. They count as absent until something is written to them; then they have all their
/// memory: there is nothing to preallocate.
#[derive(Debug)]
pub struct MemStorage {
    files: Mutex<Vec<MemFile>>,
}

#[derive(Clone, Debug)]
struct MemFile {
    len: u64,
    bytes: Option<Vec<u8>>,
    writes: i64,
}

impl MemStorage {
    /// Files of these lengths.
    pub fn new(lengths: impl IntoIterator<Item = u64>) -> Self {
        let file = |len| MemFile { len, bytes: None, writes: 0 };
        Self { files: Mutex::new(lengths.into_iter().map(file).collect()) }
    }

    /// The bytes of a file; `None` if it is absent.
    pub fn bytes(&self, file: usize) -> Option<Vec<u8>> {
        self.lock().get(file)?.bytes.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<MemFile>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage for MemStorage {
    fn read(&self, file: usize, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        let files = self.lock();
        let bytes = files.get(file).and_then(|file| file.bytes.as_deref()).unwrap_or_default();
        let end = offset.saturating_add(buf.len() as u64);
        let from = bytes.get(offset as usize..end as usize).ok_or_else(|| missing("reading"))?;
        buf.copy_from_slice(from);
        Ok(())
    }

    fn ahead(&self, _: usize, _: u64, _: u32) {}

    fn write(&self, file: usize, offset: u64, bufs: &mut [IoSlice<'_>]) -> Result<(), DiskError> {
        let mut files = self.lock();
        let file = files.get_mut(file).ok_or_else(|| missing("writing"))?;
        let bytes = file.bytes.get_or_insert_with(|| vec![0; file.len as usize]);
        file.writes += 1;
        let mut at = offset as usize;
        for buf in bufs {
            let to = bytes.get_mut(at..at + buf.len()).ok_or_else(|| missing("writing"))?;
            to.copy_from_slice(buf);
            at += buf.len();
        }
        Ok(())
    }

    fn finish(&self, file: usize) -> Result<(), DiskError> {
        let mut files = self.lock();
        let file = files.get_mut(file).ok_or_else(|| missing("finishing"))?;
        file.bytes.get_or_insert_default().resize(file.len as usize, 0);
        Ok(())
    }

    fn sync(&self, _: usize) -> Result<(), DiskError> {
        Ok(())
    }

    fn stamp(&self, file: usize) -> Result<Option<Stamp>, DiskError> {
        let files = self.lock();
        let file = files.get(file);
        let stamp =
            |file: &MemFile| Some(Stamp { len: file.bytes.as_ref()?.len() as u64, mtime: file.writes });
        Ok(file.and_then(stamp))
    }

    /// Nobody else has them.
    fn confirm(&self, _: usize) -> Result<(), DiskError> {
        Ok(())
    }

    fn forget(&self, _: usize) {}

    /// All files are kept alike: no folder shows them.
    fn want(&self, _: &[bool]) {}

    fn bring_back(&self, _: usize) -> Result<bool, DiskError> {
        Ok(false)
    }

    fn plan(&self, _: &Bitfield) -> Result<Vec<(usize, u64)>, DiskError> {
        Ok(Vec::new())
    }

    fn reserve(&self, file: usize, _: u64) -> Result<u64, DiskError> {
        Ok(self.lock().get(file).map_or(0, |file| file.len))
    }
}

fn missing(doing: &'static str) -> DiskError {
    DiskError::new(doing, Path::new("memory"), &io::ErrorKind::NotFound.into())
}

/// A storage whose calls fail on order.
#[derive(Debug)]
pub struct FaultyStorage<S> {
    inner: S,
    plan: Mutex<Plan>,
    refused: AtomicU32,
}

#[derive(Debug, Default)]
struct Plan {
    fault: Option<Fault>,
    /// Writes that still succeed before the fault.
    after: u32,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Writes and reserving fail: no space is left. Half of the first write is written.
    NoSpace,
    /// Writes fail with an I/O error.
    WriteError,
    /// Reads fail with an I/O error.
    ReadError,
    /// Syncs fail with an I/O error.
    SyncError,
    /// Space cannot be reserved.
    Unreservable,
    /// Writes panic, as a bug would.
    Panic,
}

impl<S: Storage> FaultyStorage<S> {
    /// A storage without faults yet.
    pub fn new(inner: S) -> Self {
        Self { inner, plan: Mutex::default(), refused: AtomicU32::new(0) }
    }

    /// Writes that have failed.
    pub fn refused(&self) -> u32 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Lets calls fail from now on; writes only after `after` further ones. `None` repairs.
    pub fn set(&self, fault: Option<Fault>, after: u32) {
        *self.lock() = Plan { fault, after };
    }

    /// The storage below.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    fn lock(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fails(&self, fault: Fault, doing: &'static str) -> Result<(), DiskError> {
        if self.lock().fault != Some(fault) {
            return Ok(());
        }
        Err(DiskError::new(doing, Path::new("memory"), &io::Error::other("injected")))
    }

    fn write_fault(&self) -> Option<Fault> {
        let mut plan = self.lock();
        let fault =
            plan.fault.filter(|fault| matches!(fault, Fault::NoSpace | Fault::WriteError | Fault::Panic))?;
        match plan.after.checked_sub(1) {
            Some(after) => {
                plan.after = after;
                None
            }
            None => Some(fault),
        }
    }
}

impl<S: Storage> Storage for FaultyStorage<S> {
    fn read(&self, file: usize, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        self.fails(Fault::ReadError, "reading")?;
        self.inner.read(file, offset, buf)
    }

    fn ahead(&self, file: usize, offset: u64, len: u32) {
        self.inner.ahead(file, offset, len);
    }

    fn write(&self, file: usize, offset: u64, bufs: &mut [IoSlice<'_>]) -> Result<(), DiskError> {
        let kind = match self.write_fault() {
            None => return self.inner.write(file, offset, bufs),
            Some(Fault::Panic) => panic!("injected"),
            Some(Fault::NoSpace) => {
                let half = bufs.len() / 2;
                self.inner.write(file, offset, bufs.get_mut(..half).unwrap_or_default())?;
                io::ErrorKind::StorageFull
            }
            Some(_) => io::ErrorKind::Other,
        };
        self.refused.fetch_add(1, Ordering::Relaxed);
        Err(DiskError::new("writing", Path::new("memory"), &kind.into()))
    }

    fn finish(&self, file: usize) -> Result<(), DiskError> {
        self.inner.finish(file)
    }

    fn sync(&self, file: usize) -> Result<(), DiskError> {
        self.fails(Fault::SyncError, "syncing")?;
        self.inner.sync(file)
    }

    fn stamp(&self, file: usize) -> Result<Option<Stamp>, DiskError> {
        self.inner.stamp(file)
    }

    fn confirm(&self, file: usize) -> Result<(), DiskError> {
        self.inner.confirm(file)
    }

    fn forget(&self, file: usize) {
        self.inner.forget(file);
    }

    fn want(&self, files: &[bool]) {
        self.inner.want(files);
    }

    fn bring_back(&self, file: usize) -> Result<bool, DiskError> {
        self.fails(Fault::SyncError, "moving")?;
        self.inner.bring_back(file)
    }

    fn plan(&self, there: &Bitfield) -> Result<Vec<(usize, u64)>, DiskError> {
        self.inner.plan(there)
    }

    fn reserve(&self, file: usize, from: u64) -> Result<u64, DiskError> {
        let kind = match self.lock().fault {
            Some(Fault::NoSpace) => io::ErrorKind::StorageFull,
            Some(Fault::Unreservable) => io::ErrorKind::Unsupported,
            _ => return self.inner.reserve(file, from),
        };
        Err(DiskError::new("reserving space for", Path::new("memory"), &kind.into()))
    }
}
