//! [`Job`]: a torrent with a folder of its own that holds all there is of it, so that it goes on after a
//! restart without anybody who remembers it.
//!
//! | in the folder | what |
//! |---|---|
//! | `job` | the source, what the job is to do and the user's choices: bencoded, with a version and a checksum |
//! | `data` | the files, and beside them the resume file |
//! | `.<infohash>.btfetch.lock` | while a process has the job |
//!
//! A folder that has its name is whole, and the file `job` is replaced as a whole whenever something
//! changes. One that is damaged is refused: the data is left alone, and [`Job::create`] in another folder
//! with the data moved there checks it.
//!
//! ```
//! use btfetch::engine::{Job, JobError, Source, State};
//! use krpc::magnet::Magnet;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let dir = folder.path().join("job");
//! let magnet = Magnet::parse("magnet:?xt=urn:btih:6162636465666768696a30313233343536373839")?;
//! let job = Job::create(&dir, Source::Magnet(Box::new(magnet.clone())))?;
//! assert_eq!(job.state(), State::Stopped);
//! assert!(matches!(Job::load(&dir), Err(JobError::InUse(_))));
//! drop(job);
//!
//! let again = Job::load(&dir)?;
//! assert_eq!(Some(again.infohash()), magnet.infohash_v1);
//! # Ok(())
//! # }
//! ```

mod document;
mod draft;
mod error;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use krpc::Id;

use super::options::{AddOptions, Known, Rates, Source, State};
use super::session::{AddError, Session};
use super::torrent::{Events, Torrent};
use super::view::{FileView, Progress};
use crate::storage::{DiskError, Lock, Preallocation, ResumeFile, read_file, replace_file};
use crate::swarm::Status;
use document::{MAX_PEERS, decode, encode};
use draft::{Draft, FILE};
pub use error::JobError;

/// A torrent in a folder of its own. While it lives no other process can have the job.
///
/// ```
/// use btfetch::engine::{Job, Preallocation, Session, Source, State};
/// # use btdht::net::Bind;
/// # use btfetch::engine::{Listeners, Options};
/// # use btfetch::metainfo::{Info, Metainfo};
/// # use sha1::{Digest, Sha1};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let data = vec![7; 20_000];
/// # let mut raw = b"d6:lengthi20000e4:name1:x12:piece lengthi32768e6:pieces20:".to_vec();
/// # raw.extend(Sha1::digest(&data));
/// # raw.push(b'e');
/// # let torrent = || Source::Metainfo(Box::new(Metainfo::new(Info::parse(&raw).expect("it is valid"))));
/// # let bind = Bind { addr: "127.0.0.1:0".parse()?, required: true };
/// # let session = Session::new(Options::new(Listeners::bind(&[bind])?))?;
/// # let folder = tempfile::tempdir()?;
///
/// let dir = folder.path().join("job");
/// let mut job = Job::create(&dir, torrent())?;
/// job.set_preallocation(Some(Preallocation::Full)).await?;
/// // What is wanted of it holds from now on, and after a restart.
/// job.start().await?;
/// # std::fs::create_dir_all(job.data())?;
/// # std::fs::write(job.data().join("x"), &data)?;
/// let _events = job.open(&session).await?;
/// job.torrent().expect("it is open").wait_complete().await.expect("it is all there");
/// assert!(job.is_finished());
/// assert_eq!(job.progress().await.expect("it is open").finished, 1);
/// assert_eq!(job.files().await[0].done, 20_000);
/// job.pause().await?;
/// job.close().await;
/// drop(job);
///
/// let mut job = Job::load(&dir)?;
/// assert_eq!((job.state(), job.preallocation()), (State::Paused, Some(Preallocation::Full)));
/// job.stop().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Job {
    dir: PathBuf,
    source: Source,
    infohash: Id,
    choices: Choices,
    torrent: Option<Torrent>,
    /// Saves that were begun.
    saves: u64,
    place: Arc<Mutex<Place>>,
}

/// The folder of a job, as whoever saves has it: also a save that nobody waits for any more keeps the lock.
#[derive(Debug)]
pub(super) struct Place {
    /// The latest save that was written.
    written: u64,
    _lock: Lock,
}

/// What the user wants of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Choices {
    state: State,
    max_peers: Option<usize>,
    /// One a file, 1 beyond the last; empty when nothing was chosen.
    priorities: Vec<u16>,
    /// `None` for what the session says.
    preallocation: Option<Preallocation>,
    rates: Rates,
}

/// How a job stands.
#[derive(Clone, Debug, PartialEq)]
pub struct JobStatus {
    /// Its folder.
    pub dir: PathBuf,
    /// What it is to do.
    pub state: State,
    /// Counters, rates and connections; all 0 before [`Job::open`].
    pub status: Status,
    /// How much is there; `None` before storage was open.
    pub progress: Option<Progress>,
    /// Its files; empty while they are not known.
    pub files: Vec<FileView>,
}

impl Job {
    /// Makes a job in `dir`, which must not be there yet; its parent must. It begins stopped. Blocks.
    ///
    /// # Errors
    /// See [`JobError`].
    pub fn create(dir: &Path, source: Source) -> Result<Self, JobError> {
        let infohash = source.infohash().ok_or(AddError::OnlyV2)?;
        let choices = Choices { state: State::Stopped, ..Choices::default() };
        let draft = Draft::begin(dir, infohash)?;
        if let Err(error) = draft.write(&encode(&source, &choices)) {
            draft.discard();
            return Err(error);
        }
        let lock = draft.publish(dir)?;
        Ok(Self::new(dir, source, (infohash, choices), lock))
    }

    /// Loads the job in `dir`, with the state and choices that it had. Blocks.
    ///
    /// # Errors
    /// See [`JobError`].
    pub fn load(dir: &Path) -> Result<Self, JobError> {
        let (source, _) = read(dir)?;
        let infohash = source.infohash().ok_or(AddError::OnlyV2)?;
        let lock = lock(dir, infohash)?;
        // Whoever had the lock before may have changed it since.
        let (source, choices) = read(dir)?;
        Ok(Self::new(dir, source, (infohash, choices), lock))
    }

    fn new(dir: &Path, source: Source, (infohash, choices): (Id, Choices), lock: Lock) -> Self {
        let place = Arc::new(Mutex::new(Place { written: 0, _lock: lock }));
        Self { dir: dir.to_owned(), source, infohash, choices, torrent: None, saves: 0, place }
    }

    /// Adds it to a session, in its state. It stays there until [`Job::close`]; one that has failed for good
    /// can be opened again.
    ///
    /// # Errors
    /// See [`JobError`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn open(&mut self, session: &Session) -> Result<Events, JobError> {
        let options = AddOptions {
            output: self.data(),
            max_peers: self.choices.max_peers,
            preallocation: self.choices.preallocation,
            rates: self.choices.rates,
            initial_state: self.choices.state,
            ..AddOptions::default()
        };
        let known = self.known().await;
        let (torrent, events) = session.add_known(self.source.clone(), known, options)?;
        self.torrent = Some(torrent);
        Ok(events)
    }

    /// Takes it out of its session, saved; it can be opened again.
    pub async fn close(&mut self) {
        if let Some(torrent) = self.torrent.take() {
            torrent.close().await;
        }
    }

    /// Starts it, now and after a restart; see [`Torrent::start`]. It is saved and synced first, off the
    /// runtime; whoever does not wait for the end may find it saved nevertheless.
    ///
    /// # Errors
    /// [`JobError::Disk`], or [`JobError::Ended`] if it is open and has failed for good; then nothing has
    /// changed. The same holds for what follows.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn start(&mut self) -> Result<(), JobError> {
        self.set_state(State::Started).await
    }

    /// Pauses it, now and after a restart; see [`Torrent::pause`].
    ///
    /// # Errors
    /// As for [`Job::start`].
    pub async fn pause(&mut self) -> Result<(), JobError> {
        self.set_state(State::Paused).await
    }

    /// Ends a pause; without effect on a stopped one.
    ///
    /// # Errors
    /// As for [`Job::start`].
    pub async fn resume(&mut self) -> Result<(), JobError> {
        match self.choices.state {
            State::Paused => self.set_state(State::Started).await,
            State::Started | State::Stopped => Ok(()),
        }
    }

    /// Stops it, now and after a restart; see [`Torrent::stop`].
    ///
    /// # Errors
    /// As for [`Job::start`].
    pub async fn stop(&mut self) -> Result<(), JobError> {
        self.set_state(State::Stopped).await
    }

    /// Changes how many connections it may have.
    ///
    /// # Errors
    /// As for [`Job::start`].
    pub async fn set_max_peers(&mut self, most: usize) -> Result<(), JobError> {
        self.change(|choices| choices.max_peers = Some(most.min(MAX_PEERS as usize))).await?;
        if let Some(torrent) = &self.torrent {
            torrent.set_max_peers(most).await;
        }
        Ok(())
    }

    /// Changes its rate limits, beside those of the session; see [`Torrent::set_rates`]. Deadlines, which are of
    /// a moment, are not kept: [`Torrent::set_deadline`].
    ///
    /// # Errors
    /// [`JobError::Disk`]; then nothing has changed.
    pub async fn set_rates(&mut self, rates: Rates) -> Result<(), JobError> {
        self.change(|choices| choices.rates = rates).await?;
        if let Some(torrent) = &self.torrent {
            torrent.set_rates(rates).await;
        }
        Ok(())
    }

    /// Changes the priorities of files; see [`Torrent::prioritize`].
    ///
    /// # Errors
    /// As for [`Job::start`].
    pub async fn prioritize(&mut self, priorities: Vec<u16>) -> Result<(), JobError> {
        // None at all would be no choice: then what a magnet says (`so`) holds.
        let chosen = if priorities.is_empty() { vec![1] } else { priorities.clone() };
        self.change(|choices| choices.priorities = chosen).await?;
        if let Some(torrent) = &self.torrent {
            torrent.prioritize(priorities).await;
        }
        Ok(())
    }

    /// Changes how its files take their space, from the next [`Job::open`] on; `None` for what the session
    /// says.
    ///
    /// # Errors
    /// As for [`Job::start`].
    pub async fn set_preallocation(&mut self, preallocation: Option<Preallocation>) -> Result<(), JobError> {
        self.change(|choices| choices.preallocation = preallocation).await
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where its files are.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// What names it.
    pub fn infohash(&self) -> Id {
        self.infohash
    }

    /// What it is to do.
    pub fn state(&self) -> State {
        self.choices.state
    }

    /// Its rate limits, beside those of the session.
    pub fn rates(&self) -> Rates {
        self.choices.rates
    }

    /// How its files take their space; `None` for what the session says.
    pub fn preallocation(&self) -> Option<Preallocation> {
        self.choices.preallocation
    }

    /// Its torrent, after [`Job::open`].
    pub fn torrent(&self) -> Option<&Torrent> {
        self.torrent.as_ref()
    }

    /// Whether everything that is wanted is there; not known before [`Job::open`], and not so then.
    pub fn is_finished(&self) -> bool {
        self.torrent.as_ref().is_some_and(Torrent::is_complete)
    }

    /// How much is there; `None` before storage was open.
    pub async fn progress(&self) -> Option<Progress> {
        self.torrent.as_ref()?.progress().await
    }

    /// Its files; empty while they are not known.
    pub async fn files(&self) -> Vec<FileView> {
        match &self.torrent {
            Some(torrent) => torrent.files().await,
            None => Vec::new(),
        }
    }

    /// How it stands.
    pub async fn status(&self) -> JobStatus {
        JobStatus {
            dir: self.dir.clone(),
            state: self.state(),
            status: self.torrent.as_ref().map(Torrent::status).unwrap_or_default(),
            progress: self.progress().await,
            files: self.files().await,
        }
    }

    #[cfg(test)]
    pub(super) fn place(&self) -> Arc<Mutex<Place>> {
        Arc::clone(&self.place)
    }

    #[cfg(test)]
    pub(super) fn choices(&self) -> (Option<usize>, &[u16]) {
        (self.choices.max_peers, &self.choices.priorities)
    }

    async fn set_state(&mut self, state: State) -> Result<(), JobError> {
        if state != State::Stopped && self.torrent.as_ref().is_some_and(Torrent::has_ended) {
            return Err(JobError::Ended(self.dir.clone()));
        }
        self.change(|choices| choices.state = state).await?;
        match (&self.torrent, state) {
            (Some(torrent), State::Started) => torrent.start().await,
            (Some(torrent), State::Paused) => torrent.pause().await,
            (Some(torrent), State::Stopped) => torrent.stop().await,
            (None, _) => {}
        }
        Ok(())
    }

    /// Changes something if it can be saved.
    async fn change(&mut self, change: impl FnOnce(&mut Choices)) -> Result<(), JobError> {
        let before = self.choices.clone();
        change(&mut self.choices);
        self.save().await.inspect_err(|_| self.choices = before)
    }

    /// Replaces the file, off the runtime. One whose caller has gone may still be written then, but never
    /// over a later one.
    async fn save(&mut self) -> Result<(), JobError> {
        self.saves += 1;
        let (save, place, path) = (self.saves, Arc::clone(&self.place), file(&self.dir));
        let bytes = encode(&self.source, &self.choices);
        let write = {
            let path = path.clone();
            move || {
                let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
                if save > place.written {
                    replace_file(&path, &bytes)?;
                    place.written = save;
                }
                Ok(())
            }
        };
        // Only a panic, which is a bug of ours, or the end of the runtime keeps it from an answer.
        let written =
            tokio::task::spawn_blocking(write).await.unwrap_or_else(|end| Err(io::Error::other(end)));
        Ok(written.map_err(|error| DiskError::new("saving", &path, &error))?)
    }

    /// What earlier runs have learned and the user has chosen.
    async fn known(&self) -> Known {
        let info = match &self.source {
            Source::Magnet(_) => {
                let (data, infohash) = (self.data(), self.infohash);
                // Off the runtime: it may have tens of megabytes. A panic, which is a bug of ours, costs a fetch.
                let load = move || ResumeFile::load_info(&data, infohash);
                tokio::task::spawn_blocking(load).await.unwrap_or_default()
            }
            Source::Metainfo(_) => None,
        };
        let priorities = (!self.choices.priorities.is_empty()).then(|| self.choices.priorities.clone());
        Known { info, priorities }
    }
}

fn file(dir: &Path) -> PathBuf {
    dir.join(FILE)
}

fn lock(dir: &Path, infohash: Id) -> Result<Lock, JobError> {
    let lock = Lock::take(dir, infohash).map_err(|error| DiskError::new("locking in", dir, &error))?;
    lock.ok_or_else(|| JobError::InUse(dir.to_owned()))
}

fn read(dir: &Path) -> Result<(Source, Choices), JobError> {
    let path = file(dir);
    let bytes = read_file(&path).map_err(|error| DiskError::new("reading", &path, &error))?;
    let bytes = bytes.ok_or_else(|| JobError::NoJob(dir.to_owned()))?;
    decode(&bytes).map_err(|why| JobError::Damaged { path, why })
}
