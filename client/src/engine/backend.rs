//! Where the bytes of a torrent are kept when not in files below its folder: a [`Backend`].
//!
//! A torrent in memory, from a seed on the same machine:
//!
//! ```
//! use std::sync::Arc;
//!
//! use btdht::net::Bind;
//! use btfetch::engine::{AddOptions, Listeners, Memory, Options, Session, Source};
//! use btfetch::metainfo::{Info, Metainfo};
//! use sha1::{Digest, Sha1};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let data = vec![7; 20_000];
//! let mut raw = b"d6:lengthi20000e4:name1:x12:piece lengthi32768e6:pieces20:".to_vec();
//! raw.extend(Sha1::digest(&data));
//! raw.push(b'e');
//! let torrent = || Source::Metainfo(Box::new(Metainfo::new(Info::parse(&raw).expect("it is valid"))));
//! let session = || -> Result<Session, Box<dyn std::error::Error>> {
//!     let bind = Bind { addr: "127.0.0.1:0".parse()?, required: true };
//!     let listeners = Listeners::bind(&[bind])?;
//!     Ok(Session::new(Options { allow_local: true, ..Options::new(listeners) })?)
//! };
//!
//! let folder = tempfile::tempdir()?;
//! std::fs::write(folder.path().join("x"), &data)?;
//! let from = session()?;
//! let (seed, _) =
//!     from.add(torrent(), AddOptions { output: folder.path().to_owned(), ..AddOptions::default() })?;
//! seed.wait_complete().await.expect("the data is there");
//!
//! let memory = Arc::new(Memory::new(1 << 20));
//! let options = AddOptions {
//!     storage: Some(memory.clone()),
//!     peers: from.local_addrs().to_vec(),
//!     ..AddOptions::default()
//! };
//! let (torrent, _) = session()?.add(torrent(), options)?;
//! torrent.wait_complete().await.expect("the seed has it");
//! assert_eq!(memory.bytes(0), Some(data));
//! # Ok(())
//! # }
//! ```

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::bitfield::Bitfield;
use crate::metainfo::Info;
use crate::storage::{DiskError, MemStorage, Opened, Storage};

/// Makes the [`Storage`] of a torrent. What it holds already is checked, nothing is locked, and no
/// resume file is written.
pub trait Backend: fmt::Debug + Send + Sync {
    /// Opens it; called off the runtime, and again after each stop.
    ///
    /// # Errors
    /// What is to be told as [`Failed::Disk`](super::Failed::Disk).
    fn open(&self, info: &Info) -> Result<Arc<dyn Storage>, DiskError>;
}

/// Keeps one torrent in memory for as long as this lives. Each file has its memory from its first byte on,
/// whatever [`AddOptions::preallocation`](super::AddOptions::preallocation) says.
#[derive(Debug)]
pub struct Memory {
    most: u64,
    files: Mutex<Option<Arc<MemStorage>>>,
}

impl Memory {
    /// For a torrent of at most `most` bytes; a longer one fails as on a full disk.
    pub fn new(most: u64) -> Self {
        Self { most, files: Mutex::default() }
    }

    /// A copy of the file of this index as it is; `None` while nothing of it was written.
    pub fn bytes(&self, file: usize) -> Option<Vec<u8>> {
        self.lock().as_ref()?.bytes(file)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<MemStorage>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for Memory {
    fn open(&self, info: &Info) -> Result<Arc<dyn Storage>, DiskError> {
        if info.total() > self.most {
            let error = io::ErrorKind::StorageFull.into();
            return Err(DiskError::new("keeping the torrent in", Path::new("memory"), &error));
        }
        let mut files = self.lock();
        let fresh = || Arc::new(MemStorage::new(info.files().map(|file| file.len())));
        Ok(Arc::clone(files.get_or_insert_with(fresh)) as _)
    }
}

/// Opens a torrent over a backend; if anything is there all of it is to be checked.
pub(super) fn open(backend: &dyn Backend, info: &Arc<Info>) -> Result<Opened, DiskError> {
    let storage = backend.open(info)?;
    let mut begun = false;
    for file in info.files().filter(|file| file.is_stored()) {
        begun |= storage.stamp(file.index)?.is_some();
    }
    let mut opened = Opened::over(Arc::clone(info), storage, Bitfield::new(info.pieces()))?;
    if begun {
        opened.to_check = Bitfield::full(info.pieces());
    }
    Ok(opened)
}
