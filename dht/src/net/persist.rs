//! What a node keeps between runs: for each socket its id, its external address and the nodes it knew,
//! and in a file beside it what others stored (see [`super::stored`]).
//!
//! Each is written beside the old one, synced and renamed over it, so that a kill at any moment leaves
//! one of the two whole. Reading takes nothing for granted: a file that is not
//! ours is a warning and an empty start.

use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use krpc::Id;
use krpc::bencode::{self, Limits};
use krpc::compact::{self, Contact, V4, V6};
use serde::{Deserialize, Serialize};

use super::Error;
use super::moment::Moment;
use super::stored::{self, Ending, StoreWriter};
use crate::store::{Archive, Damaged};

const FILE: &str = "node.bencode";
const STORE_FILE: &str = "store.bencode";
/// Added to the name of a file that is being written.
const TEMPORARY: &str = ".new";
const LOCK: &str = "lock";
/// The form of the document. Version 1, which has no external addresses, is read too.
const VERSION: u32 = 2;
const OLDEST_VERSION: u32 = 1;
/// Longest file that is read: 16 homes of 1,500 nodes of 38 bytes, which is the most that is written.
const LIMITS: Limits = Limits { depth: 4, tokens: 1000, len: 1 << 20 };
/// Homes that are kept.
const MAX_HOMES: usize = 16;
/// Nodes that are kept per home; a table of usual width holds fewer.
const MAX_NODES: usize = 1500;

/// Everything that is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// One entry per socket, in the order of the sockets, and after them what is known of sockets of
    /// earlier runs, at most 16 in all.
    pub homes: Vec<SavedHome>,
}

/// What is kept of one socket's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedHome {
    /// Its node id.
    pub id: Id,
    /// Whether it is an IPv6 socket.
    pub ipv6: bool,
    /// What it was bound to; `None` in a file of a version that did not say.
    pub local: Option<SocketAddr>,
    /// Its address as others saw it (BEP 42): the id belongs to it.
    pub external: Option<IpAddr>,
    /// Nodes of its table, all of its family.
    pub nodes: Vec<(Id, SocketAddr)>,
}

/// Why a saved home is that of a socket; see [`Saved::deal`].
#[derive(Clone, Copy)]
enum Rule {
    Address,
    Ip,
    Order,
}

#[derive(Serialize, Deserialize)]
struct Document {
    homes: Vec<HomeDocument>,
    version: u32,
}

#[derive(Serialize, Deserialize)]
struct HomeDocument {
    /// 4 or 16 bytes; empty when it is not known.
    #[serde(default, with = "serde_bytes", skip_serializing_if = "Vec::is_empty")]
    external: Vec<u8>,
    #[serde(with = "serde_bytes")]
    id: Vec<u8>,
    ipv6: u8,
    /// A compact peer (BEP 5), which files of versions before 0.2 do not have and their readers pass over;
    /// empty when it is not known.
    #[serde(default, with = "serde_bytes", skip_serializing_if = "Vec::is_empty")]
    local: Vec<u8>,
    /// Compact node records (BEP 5, BEP 32).
    #[serde(with = "serde_bytes")]
    nodes: Vec<u8>,
}

/// A state folder that this process holds.
#[derive(Debug)]
pub(super) struct StateFolder {
    path: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
}

/// What a state folder is like.
#[derive(Debug)]
pub enum StateCondition {
    /// Nothing has been saved in it yet.
    Missing,
    /// It can be used.
    Readable {
        /// What it holds.
        saved: Saved,
        /// Whether a running process holds it.
        in_use: bool,
        /// How long ago it was written by the wall clock, nothing if that went back; `None` where the system
        /// does not say.
        age: Option<Duration>,
    },
    /// It is there but says nothing.
    Damaged,
    /// The system does not let us read it.
    Unreadable(io::Error),
}

impl Saved {
    /// Looks at what the folder `path` holds and changes nothing.
    pub fn inspect(path: &Path) -> StateCondition {
        let file = path.join(FILE);
        match read_bounded(&file, LIMITS) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => StateCondition::Missing,
            Err(error) => StateCondition::Unreadable(error),
            Ok(bytes) => Self::decode(&bytes).map_or(StateCondition::Damaged, |saved| {
                // A lock that we get is given back at once.
                let lock = File::open(path.join(LOCK));
                let in_use =
                    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)));
                let written = fs::metadata(&file).and_then(|file| file.modified()).ok();
                let age = written.map(|at| SystemTime::now().duration_since(at).unwrap_or_default());
                StateCondition::Readable { saved, in_use, age }
            }),
        }
    }

    /// Reads what the folder `path` holds, held by whomever. What cannot be used counts as nothing:
    /// a missing file silently, everything else with one warning.
    pub fn read(path: &Path) -> Self {
        let file = path.join(FILE);
        match read_bounded(&file, LIMITS) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::default(),
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "saved nodes cannot be read: starting empty");
                Self::default()
            }
            Ok(bytes) => Self::decode(&bytes).unwrap_or_else(|| {
                tracing::warn!(file = %file.display(), "saved nodes are damaged: starting empty");
                Self::default()
            }),
        }
    }

    /// What is written for sockets with these homes: theirs, and as many of the `absent` as there is room for.
    pub(super) fn of(mut homes: Vec<SavedHome>, absent: &[SavedHome]) -> Self {
        homes.truncate(MAX_HOMES);
        homes.extend(absent.iter().take(MAX_HOMES - homes.len()).cloned());
        Self { homes }
    }

    /// Deals the saved homes out to sockets bound to `locals`: which one each gets, and which are left over.
    ///
    /// Each socket gets the home of its address, or else of its IP at another port. What is left of files
    /// that tell no addresses goes by the order of the sockets. Where one socket of a family is left, it gets
    /// the first home of the family that is left, since a machine whose address was changed is the same node:
    /// one that was told its address, or else knows nodes, before one that never met any, as that of a tunnel
    /// without a route, which may have begun with the nodes of others.
    pub(super) fn deal(&self, locals: &[SocketAddr]) -> (Vec<Option<&SavedHome>>, Vec<&SavedHome>) {
        let mut dealt: Vec<Option<&SavedHome>> = vec![None; locals.len()];
        let mut left: Vec<&SavedHome> = self.homes.iter().collect();
        let fits = |rule, home: &SavedHome, local: &SocketAddr| match rule {
            Rule::Address => home.local == Some(*local),
            Rule::Ip => home.local.is_some_and(|was| was.ip() == local.ip()),
            Rule::Order => home.local.is_none() && home.ipv6 == local.is_ipv6(),
        };
        for rule in [Rule::Address, Rule::Ip, Rule::Order] {
            for (local, dealt) in locals.iter().zip(&mut dealt).filter(|(_, dealt)| dealt.is_none()) {
                *dealt = left.iter().position(|home| fits(rule, home, local)).map(|at| left.remove(at));
            }
        }
        for ipv6 in [false, true] {
            let mut without = locals
                .iter()
                .zip(&mut dealt)
                .filter(|(local, dealt)| local.is_ipv6() == ipv6 && dealt.is_none());
            if let (Some((_, dealt)), None) = (without.next(), without.next()) {
                let of_family = left.iter().enumerate().filter(|(_, home)| home.ipv6 == ipv6);
                let met = |home: &SavedHome| (home.external.is_some(), !home.nodes.is_empty());
                // The first of equals.
                let best = of_family.rev().max_by_key(|(_, home)| met(home)).map(|(at, _)| at);
                *dealt = best.map(|at| left.remove(at));
            }
        }
        (dealt, left)
    }

    /// The nodes that a socket bound to `local` starts with: those of the home that it got, or else those that
    /// one of the `absent` knew, or that another socket of the family starts with, which are a way in as well.
    pub(super) fn starts(
        &self,
        home: Option<&SavedHome>,
        absent: &[&SavedHome],
        local: &SocketAddr,
    ) -> Vec<(Id, SocketAddr)> {
        let others = absent.iter().copied().chain(&self.homes);
        let of_family = others.filter(|home| home.ipv6 == local.is_ipv6());
        let mut known = home.into_iter().chain(of_family).map(|home| &home.nodes);
        known.find(|nodes| !nodes.is_empty()).cloned().unwrap_or_default()
    }

    /// Says it where not all of so many sockets keep their ids.
    pub(super) fn warn_of_too_many(sockets: usize) {
        if sockets > MAX_HOMES {
            tracing::warn!(
                sockets,
                "only the first {MAX_HOMES} addresses keep their ids and nodes between runs"
            );
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let document: Document = bencode::from_bytes(bytes, LIMITS).ok()?;
        if !(OLDEST_VERSION..=VERSION).contains(&document.version) || document.homes.len() > MAX_HOMES {
            return None;
        }
        document.homes.into_iter().map(SavedHome::decode).collect::<Option<_>>().map(|homes| Self { homes })
    }

    fn encode(&self) -> Vec<u8> {
        let homes = self.homes.iter().take(MAX_HOMES).map(SavedHome::encode).collect();
        bencode::to_bytes(&Document { homes, version: VERSION })
            .expect("small integers and strings always encode")
    }
}

impl SavedHome {
    fn decode(home: HomeDocument) -> Option<Self> {
        let nodes = match home.ipv6 {
            0 => read_nodes::<V4>(&home.nodes),
            1 => read_nodes::<V6>(&home.nodes),
            _ => None,
        };
        let external = match home.external.as_slice() {
            [] => None,
            bytes => Some(read_ip(bytes)?),
        };
        let (ipv6, local) = (home.ipv6 == 1, compact::peer(&home.local));
        // One that makes no sense is no address, and the rest of the file is as good as ever.
        let local = local.filter(|local| local.is_ipv6() == ipv6);
        Some(Self { id: Id::from_slice(&home.id)?, ipv6, local, external, nodes: nodes? })
    }

    fn encode(&self) -> HomeDocument {
        let mut nodes = Vec::new();
        for &(id, addr) in self.nodes.iter().take(MAX_NODES) {
            if self.ipv6 { put::<V6>(&mut nodes, id, addr) } else { put::<V4>(&mut nodes, id, addr) }
        }
        let external = match self.external {
            None => Vec::new(),
            Some(IpAddr::V4(ip)) => ip.octets().to_vec(),
            Some(IpAddr::V6(ip)) => ip.octets().to_vec(),
        };
        let mut local = Vec::new();
        if let Some(addr) = self.local {
            compact::put_peer(&mut local, addr);
        }
        HomeDocument { external, id: self.id.as_bytes().to_vec(), ipv6: self.ipv6.into(), local, nodes }
    }
}

impl StateFolder {
    /// Takes the folder `path` for this process, making it if need be.
    ///
    /// # Errors
    /// [`Error::StateInUse`] when another process has it, [`Error::State`] when the disk refuses.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::State { path: path.into(), source };
        fs::create_dir_all(path).map_err(failed)?;
        let lock =
            File::options().create(true).truncate(false).write(true).open(path.join(LOCK)).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {
                // A process that was killed, or ended before a slow disk had all of it.
                for file in [FILE, STORE_FILE] {
                    let _ = fs::remove_file(path.join(format!("{file}{TEMPORARY}")));
                }
                Ok(Self { path: path.into(), _lock: lock })
            }
            Err(TryLockError::WouldBlock) => Err(Error::StateInUse { path: path.into() }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// Reads what is there; see [`Saved::read`].
    pub(super) fn read(&self) -> Saved {
        Saved::read(&self.path)
    }

    /// Replaces what is there. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// [`Error::State`]; the old file is whole then.
    pub(super) fn write(&self, saved: &Saved) -> Result<(), Error> {
        self.replace(FILE, |file| file.write_all(&saved.encode()).map(|()| Wanted::Yes))
    }

    /// Whether there is a store from an earlier run, whatever it is worth.
    pub(super) fn has_store(&self) -> bool {
        self.path.join(STORE_FILE).exists()
    }

    /// Reads what others stored in an earlier run, at most `max_len` bytes of it, and gives it piece by
    /// piece to `take`, with the time that its ages count from. What cannot be used counts as nothing:
    /// a missing file silently, everything else with one warning.
    pub(super) fn read_store(
        &self,
        max_len: u64,
        mut take: impl FnMut(&Moment, &Archive) -> Result<(), Damaged>,
    ) {
        let path = self.path.join(STORE_FILE);
        let file = path.display();
        let mut taken = 0;
        let read = File::open(&path).and_then(|input| {
            stored::read(input, max_len, |at, piece| take(at, piece).inspect(|()| taken += 1))
        });
        match read {
            Ok(Ending::Whole) => {}
            Ok(Ending::Damaged) if taken == 0 => {
                tracing::warn!(%file, "saved peers are damaged: starting without");
            }
            Ok(Ending::Damaged) => {
                tracing::warn!(%file, "saved peers are damaged: what comes behind the damage is lost");
            }
            Ok(Ending::TooLong) => {
                tracing::warn!(%file, max_len, "more is saved than can be stored: the rest of it is lost");
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if taken == 0 => {
                tracing::warn!(%file, %error, "saved peers cannot be read: starting without");
            }
            Err(error) => {
                tracing::warn!(%file, %error, "saved peers cannot be read further: the rest of them is lost");
            }
        }
    }

    /// Replaces the store by the pieces that `next` gives, one as it was `at` that time; see
    /// [`StateFolder::write`]. When they end before the last one, the old file stays.
    ///
    /// # Errors
    /// [`Error::State`]; the old file is whole then.
    pub(super) fn write_store(&self, at: &Moment, next: impl FnMut() -> Option<Piece>) -> Result<(), Error> {
        self.replace(STORE_FILE, |file| write_pieces(file, at, next))
    }

    /// Writes beside the file `name`, and puts it in its place if `write` says so.
    ///
    /// The temporary file has one name, since the lock makes us its only writer: kills leave no
    /// litter.
    fn replace(&self, name: &str, write: impl FnOnce(&mut File) -> io::Result<Wanted>) -> Result<(), Error> {
        let temporary = self.path.join(format!("{name}{TEMPORARY}"));
        let replaced = || {
            let mut file = File::create(&temporary)?;
            if write(&mut file)? == Wanted::No {
                return fs::remove_file(&temporary);
            }
            file.sync_all()?;
            fs::rename(&temporary, self.path.join(name))?;
            // Without this, a power cut may undo the rename.
            if cfg!(unix) { File::open(&self.path)?.sync_all() } else { Ok(()) }
        };
        replaced().map_err(|source| {
            // Half a file helps nobody, least of all on a disk that is full.
            let _ = fs::remove_file(&temporary);
            Error::State { path: self.path.clone(), source }
        })
    }
}

/// A part of a store.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) archive: Archive,
    pub(super) is_last: bool,
}

/// Whether what was written is to take its place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Yes,
    No,
}

fn write_pieces(file: &mut File, at: &Moment, mut next: impl FnMut() -> Option<Piece>) -> io::Result<Wanted> {
    let mut writer = StoreWriter::begin(BufWriter::new(file), at)?;
    while let Some(Piece { archive, is_last }) = next() {
        writer.piece(&archive)?;
        if is_last {
            writer.end()?.flush()?;
            return Ok(Wanted::Yes);
        }
    }
    Ok(Wanted::No)
}

fn read_bounded(path: &Path, limits: Limits) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limits.len as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn read_ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

fn read_nodes<A: compact::Address>(bytes: &[u8]) -> Option<Vec<(Id, SocketAddr)>> {
    let whole = compact::is_whole_nodes::<A>(bytes);
    whole.then(|| {
        compact::nodes::<A>(bytes).take(MAX_NODES).map(|node| (node.id, node.addr.to_socket())).collect()
    })
}

fn put<A: compact::Address>(out: &mut Vec<u8>, id: Id, addr: SocketAddr) {
    if let Some(addr) = A::from_socket(addr) {
        compact::put_node(out, &Contact { id, addr });
    }
}

#[cfg(test)]
mod moved;

#[cfg(test)]
mod tests;
