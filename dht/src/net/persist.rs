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
    Alone,
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
    },
    /// It is there but says nothing.
    Damaged,
    /// The system does not let us read it.
    Unreadable(io::Error),
}

impl Saved {
    /// Looks at what the folder `path` holds and changes nothing.
    pub fn inspect(path: &Path) -> StateCondition {
        match read_bounded(&path.join(FILE), LIMITS) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => StateCondition::Missing,
            Err(error) => StateCondition::Unreadable(error),
            Ok(bytes) => Self::decode(&bytes).map_or(StateCondition::Damaged, |saved| {
                // A lock that we get is given back at once.
                let lock = File::open(path.join(LOCK));
                let in_use =
                    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)));
                StateCondition::Readable { saved, in_use }
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
    /// that tell no addresses goes by the order of the sockets; and the only home of a family moves with its
    /// only socket, since a machine whose address was changed is the same node.
    pub(super) fn deal(&self, locals: &[SocketAddr]) -> (Vec<Option<&SavedHome>>, Vec<&SavedHome>) {
        let mut dealt: Vec<Option<&SavedHome>> = vec![None; locals.len()];
        let mut left: Vec<&SavedHome> = self.homes.iter().collect();
        let sockets_of = |ipv6| locals.iter().filter(|local| local.is_ipv6() == ipv6).count();
        let homes_of = |ipv6| self.homes.iter().filter(|home| home.ipv6 == ipv6).count();
        let is_alone = |ipv6| homes_of(ipv6) == 1 && sockets_of(ipv6) == 1;
        let fits = |rule, home: &SavedHome, local: &SocketAddr| match rule {
            Rule::Address => home.local == Some(*local),
            Rule::Ip => home.local.is_some_and(|was| was.ip() == local.ip()),
            Rule::Order => home.local.is_none() && home.ipv6 == local.is_ipv6(),
            Rule::Alone => home.ipv6 == local.is_ipv6() && is_alone(home.ipv6),
        };
        for rule in [Rule::Address, Rule::Ip, Rule::Order, Rule::Alone] {
            for (local, dealt) in locals.iter().zip(&mut dealt).filter(|(_, dealt)| dealt.is_none()) {
                *dealt = left.iter().position(|home| fits(rule, home, local)).map(|at| left.remove(at));
            }
        }
        (dealt, left)
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
            Ok(()) => Ok(Self { path: path.into(), _lock: lock }),
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
mod tests {
    use super::*;
    use crate::Rng;

    fn sample(seed: u64, nodes: usize) -> Saved {
        let mut rng = Rng::from_seed(seed);
        let home = |ipv6, rng: &mut Rng| SavedHome {
            id: rng.id(),
            ipv6,
            local: Some(if ipv6 { "[::]:6881" } else { "0.0.0.0:6881" }.parse().unwrap()),
            external: Some(if ipv6 { "2001:db8::1".parse().unwrap() } else { "192.0.2.1".parse().unwrap() }),
            nodes: (0..nodes)
                .map(|n| {
                    let addr =
                        if ipv6 { format!("[2001:db8::{n:x}]:{}", n + 1) } else { format!("192.0.2.{n}:7") };
                    (rng.id(), addr.parse().unwrap())
                })
                .collect(),
        };
        Saved { homes: vec![home(false, &mut rng), home(true, &mut rng)] }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::open(&folder.path().join("deep/er")).unwrap();
        assert_eq!(state.read(), Saved::default());
        for seed in 0..3 {
            state.write(&sample(seed, 100)).unwrap();
            assert_eq!(state.read(), sample(seed, 100));
        }
    }

    fn addrs(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|addr| addr.parse().unwrap()).collect()
    }

    /// Homes at these addresses, with ids that are bytes of their place in the list.
    fn homes_at(list: &[&str]) -> Saved {
        let home = |(nth, addr): (usize, SocketAddr)| SavedHome {
            id: Id::new([nth as u8; 20]),
            ipv6: addr.is_ipv6(),
            local: Some(addr),
            external: None,
            nodes: Vec::new(),
        };
        Saved { homes: addrs(list).into_iter().enumerate().map(home).collect() }
    }

    /// The first bytes of the ids that sockets get, and of those that are left.
    fn deal(saved: &Saved, locals: &[&str]) -> (Vec<Option<u8>>, Vec<u8>) {
        let (dealt, left) = saved.deal(&addrs(locals));
        let name = |home: &SavedHome| home.id.as_bytes()[0];
        (dealt.into_iter().map(|home| home.map(name)).collect(), left.into_iter().map(name).collect())
    }

    #[test]
    fn homes_go_to_their_addresses_in_whatever_order() {
        let saved = homes_at(&["192.0.2.1:1", "192.0.2.2:1", "[2001:db8::1]:1", "192.0.2.3:1"]);
        let swapped = ["192.0.2.3:1", "[2001:db8::1]:1", "192.0.2.1:1", "192.0.2.2:1"];
        assert_eq!(deal(&saved, &swapped), (vec![Some(3), Some(2), Some(0), Some(1)], vec![]));
        assert_eq!(deal(&saved, &["192.0.2.2:9"]), (vec![Some(1)], vec![0, 2, 3]), "another port");
        assert_eq!(deal(&saved, &["192.0.2.9:1", "192.0.2.2:1"]), (vec![None, Some(1)], vec![0, 2, 3]));
        let ports = homes_at(&["192.0.2.1:1", "192.0.2.1:2"]);
        assert_eq!(deal(&ports, &["192.0.2.1:2", "192.0.2.1:3"]), (vec![Some(1), Some(0)], vec![]));
    }

    #[test]
    fn the_only_home_of_a_family_moves_with_its_only_socket() {
        let saved = homes_at(&["192.0.2.1:1", "[2001:db8::1]:1"]);
        assert_eq!(deal(&saved, &["198.51.100.7:5"]), (vec![Some(0)], vec![1]));
        assert_eq!(deal(&saved, &["198.51.100.7:5", "[::]:5"]), (vec![Some(0), Some(1)], vec![]));
        assert_eq!(deal(&saved, &["198.51.100.7:5", "198.51.100.8:5"]), (vec![None, None], vec![0, 1]));
    }

    #[test]
    fn homes_of_a_file_without_addresses_go_by_their_order() {
        let mut saved = homes_at(&["192.0.2.1:1", "[2001:db8::1]:1", "192.0.2.2:1"]);
        saved.homes.iter_mut().for_each(|home| home.local = None);
        let locals = ["192.0.2.7:1", "192.0.2.8:1", "192.0.2.9:1", "[::]:1"];
        assert_eq!(deal(&saved, &locals), (vec![Some(0), Some(2), None, Some(1)], vec![]));
    }

    #[test]
    fn what_is_absent_is_kept_as_far_as_there_is_room() {
        let many: Vec<_> = (1..=MAX_HOMES).map(|n| format!("192.0.2.{n}:1")).collect();
        let many = homes_at(&many.iter().map(String::as_str).collect::<Vec<_>>()).homes;
        let saved = Saved::of(many[..3].to_vec(), &many[3..5]);
        assert_eq!(saved.homes, many[..5]);
        let saved = Saved::of(many[..3].to_vec(), &many);
        assert_eq!((saved.homes.len(), &saved.homes[3..]), (MAX_HOMES, &many[..MAX_HOMES - 3]));
        assert_eq!(Saved::of([&many[..], &many].concat(), &many).homes, many);
    }

    #[test]
    fn an_address_that_makes_no_sense_costs_no_more_than_itself() {
        let nonsense: [&[u8]; 3] = [b"5:local3:abc", b"5:local18:aaaaaaaaaaaaaaaabb", b""];
        for local in nonsense {
            let head = [&b"d5:homesld2:id20:"[..], &[7; 20], b"4:ipv6i0e"].concat();
            let read = Saved::decode(&[&head[..], local, b"5:nodes0:ee7:versioni2ee"].concat()).unwrap();
            assert_eq!((read.homes[0].id, read.homes[0].local), (Id::new([7; 20]), None));
        }
    }

    #[test]
    fn the_most_that_is_written_can_be_read() {
        let mut home = sample(1, 1).homes.remove(1);
        home.nodes = vec![home.nodes[0]; MAX_NODES + 1];
        let read = Saved::decode(&Saved { homes: vec![home; MAX_HOMES + 1] }.encode())
            .expect("within the limits of reading");
        assert_eq!(read.homes.len(), MAX_HOMES);
        assert!(read.homes.iter().all(|home| home.nodes.len() == MAX_NODES));
    }

    #[test]
    fn garbage_truncation_and_nesting_are_an_empty_start() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::open(folder.path()).unwrap();
        let whole = sample(1, 5).encode();
        let mut inputs = vec![
            Vec::new(),
            vec![b'l'; 100_000],
            vec![b'x'; 10_000_000],
            b"d5:homesle7:versioni3ee".to_vec(),
            b"d5:homesld2:id3:abc4:ipv6i0e5:nodes0:ee7:versioni1ee".to_vec(),
            [&whole[..], b"trailing"].concat(),
        ];
        inputs.extend((1..whole.len()).step_by(7).map(|len| whole[..len].to_vec()));
        for input in inputs {
            fs::write(folder.path().join(FILE), &input).unwrap();
            assert_eq!(state.read(), Saved::default(), "{:?}", &input[..input.len().min(40)]);
        }
    }

    #[test]
    fn version_1_is_read() {
        let v1 = [&b"d5:homesld2:id20:"[..], &[7; 20], b"4:ipv6i0e5:nodes0:ee7:versioni1ee"].concat();
        let (id, nodes) = (Id::new([7; 20]), Vec::new());
        let home = SavedHome { id, ipv6: false, local: None, external: None, nodes };
        assert_eq!(Saved::decode(&v1), Some(Saved { homes: vec![home] }));
        let bad = [&b"d5:homesld8:external3:abc2:id20:"[..], &[7; 20], b"4:ipv6i0e5:nodes0:ee7:versioni2ee"];
        assert_eq!(Saved::decode(&bad.concat()), None);
    }

    #[test]
    fn table_and_store_are_written_and_damaged_apart() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::open(folder.path()).unwrap();
        assert!(pieces(&state).is_empty() && !state.has_store());
        let archive = Archive { items: vec![1; 300], ..Default::default() };
        write_store(&state, &[archive.clone(), Archive::default(), archive.clone()], Wanted::Yes);
        state.write(&sample(1, 3)).unwrap();
        let stored = vec![archive.clone(), archive];
        assert_eq!((state.read(), pieces(&state)), (sample(1, 3), stored.clone()));
        fs::write(folder.path().join(FILE), b"garbage").unwrap();
        assert_eq!((state.read(), pieces(&state)), (Saved::default(), stored));
        for garbage in [vec![b'x'; 20 << 20], vec![b'l'; 100_000], b"de".to_vec(), Vec::new()] {
            fs::write(folder.path().join(STORE_FILE), garbage).unwrap();
            assert!(pieces(&state).is_empty() && state.has_store());
        }
    }

    #[test]
    fn a_store_that_is_not_written_to_its_end_leaves_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::open(folder.path()).unwrap();
        let [old, new] = [1, 2].map(|n| Archive { peers4: vec![n; 30], ..Default::default() });
        write_store(&state, std::slice::from_ref(&old), Wanted::Yes);
        write_store(&state, &[new.clone(), new.clone()], Wanted::No);
        assert_eq!(pieces(&state), [old]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "the store and the lock");
        write_store(&state, &[new.clone(), new.clone()], Wanted::Yes);
        assert_eq!(pieces(&state), [new.clone(), new]);
    }

    fn write_store(state: &StateFolder, archives: &[Archive], to_the_end: Wanted) {
        let mut archives = archives.iter().cloned().peekable();
        let next = || {
            let archive = archives.next()?;
            Some(Piece { archive, is_last: archives.peek().is_none() && to_the_end == Wanted::Yes })
        };
        state.write_store(&Moment::default(), next).unwrap();
    }

    fn pieces(state: &StateFolder) -> Vec<Archive> {
        let mut pieces = Vec::new();
        state.read_store(1 << 20, |at, piece| {
            assert_eq!(*at, Moment::default());
            pieces.push(piece.clone());
            Ok(())
        });
        pieces
    }

    #[test]
    fn a_kill_while_writing_leaves_the_old_document_whole() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::open(folder.path()).unwrap();
        state.write(&sample(1, 50)).unwrap();
        let next = sample(2, 50).encode();
        for written in [0, 1, next.len() / 2, next.len()] {
            fs::write(folder.path().join("node.bencode.new"), &next[..written]).unwrap();
            assert_eq!(state.read(), sample(1, 50));
        }
        state.write(&sample(2, 50)).unwrap();
        assert_eq!(state.read(), sample(2, 50));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "the document and the lock");
    }

    #[test]
    fn a_folder_can_be_looked_at_without_being_taken() {
        let folder = tempfile::tempdir().unwrap();
        let look = || Saved::inspect(folder.path());
        assert!(matches!(look(), StateCondition::Missing));
        let state = StateFolder::open(folder.path()).unwrap();
        state.write(&sample(1, 5)).unwrap();
        assert!(matches!(look(), StateCondition::Readable { saved, in_use: true } if saved == sample(1, 5)));
        drop(state);
        assert!(matches!(look(), StateCondition::Readable { in_use: false, .. }));
        StateFolder::open(folder.path()).unwrap();
        fs::write(folder.path().join(FILE), b"de").unwrap();
        assert!(matches!(look(), StateCondition::Damaged));
        fs::remove_file(folder.path().join(FILE)).unwrap();
        fs::create_dir(folder.path().join(FILE)).unwrap();
        assert!(matches!(look(), StateCondition::Unreadable(_)));
    }

    #[test]
    fn a_folder_has_one_owner() {
        let folder = tempfile::tempdir().unwrap();
        let first = StateFolder::open(folder.path()).unwrap();
        assert!(matches!(StateFolder::open(folder.path()), Err(Error::StateInUse { .. })));
        drop(first);
        StateFolder::open(folder.path()).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_made_says_which() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), b"").unwrap();
        let error = StateFolder::open(&folder.path().join("file/state")).unwrap_err();
        assert!(error.to_string().contains("file/state"), "{error}");
    }
}
