//! [`Db`]: the database of a crawl: infohashes, the nodes that may be asked again and when, and the last
//! estimate of the DHT's size.
//!
//! redb, because looking up and ordering by key is all that is needed: it is Rust alone and one crate, where
//! SQLite is a minute of compiling C. A transaction is on the disk when [`Db::write`] returns: what was told
//! after that is stored, whatever happens to the process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use btdht::crawl::size::SizeEstimate;
use btdht::{KeyedHash, Rng, Seeds};
use krpc::Id;
use redb::{
    Database, ReadTransaction, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _,
    TableDefinition, TableError, WriteTransaction,
};

use super::batch::Batch;
use super::open::{META, Missing, damaged, open};
use super::record::{INFOHASH_LEN, Infohash, NODE_LEN, Node, is_ahead};
use crate::failure::Failure;

const INFOHASHES: TableDefinition<'_, &[u8; Id::LEN], &[u8; INFOHASH_LEN]> =
    TableDefinition::new("infohashes");
/// By the key of a source of datagrams.
const NODES: TableDefinition<'_, &[u8; 24], &[u8; NODE_LEN]> = TableDefinition::new("nodes");
/// What the hash of tellers is keyed with, so that their bits mean the same in every run.
const SALT_KEY: &str = "salt";
const SIZE_KEYS: [&str; 2] = ["size_ipv4", "size_ipv6"];
/// After so many seconds the size of a swarm is asked for again, and that of the DHT may be replaced by one that says
/// less.
const SIZE_KEPT: u64 = 24 * 3600;

/// The database of a crawl.
pub(super) struct Db {
    path: PathBuf,
    database: Database,
    /// Infohashes at most.
    cap: u64,
}

/// What came of writing a batch.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// Infohashes that were not there before, and who told them first.
    pub(super) new: Vec<(Id, SocketAddr)>,
    /// Infohashes whose size has not been asked for, or not for long, and who told them.
    pub(super) unsized_: Vec<(Id, SocketAddr)>,
    /// Infohashes in all.
    pub(super) total: u64,
    /// How often an infohash was told that is not there and had no room.
    pub(super) refused: u64,
}

/// An estimate of the DHT's size and when it was made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct KeptSize {
    pub(super) estimate: SizeEstimate,
    pub(super) at: u64,
}

impl Db {
    /// Opens the database at `path`; see [`open`].
    pub(super) fn open(path: &Path, missing: Missing) -> Result<Self, Failure> {
        Ok(Self { path: path.to_owned(), database: open(path, missing)?, cap: u64::MAX })
    }

    /// Takes no infohash that is not there once it has `cap` of them: anybody can make up as many as he likes.
    pub(super) fn capped(self, cap: u64) -> Self {
        Self { cap, ..self }
    }

    /// Writes a batch in one transaction. When it returns, everything is on the disk; when the process ends
    /// before, nothing is.
    pub(super) fn write(&self, now: u64, batch: &Batch) -> Result<Written, Failure> {
        self.try_write(now, batch).map_err(|error| damaged(&self.path, &error))
    }

    /// All nodes that are kept.
    pub(super) fn nodes(&self) -> Result<Vec<Node>, Failure> {
        let read = || {
            let reading = self.database.begin_read()?;
            let Some(nodes) = existing(reading.open_table(NODES))? else { return Ok(Vec::new()) };
            let mut found = Vec::new();
            for entry in nodes.iter()? {
                found.extend(Node::decode(entry?.1.value()));
            }
            Ok(found)
        };
        read().map_err(|error| damaged(&self.path, &error))
    }

    /// Infohashes in all.
    pub(super) fn total(&self) -> Result<u64, Failure> {
        let read = || {
            let reading = self.database.begin_read()?;
            Ok(match existing(reading.open_table(INFOHASHES))? {
                Some(infohashes) => infohashes.len()?,
                None => 0,
            })
        };
        read().map_err(|error| damaged(&self.path, &error))
    }

    /// Shows each infohash to `show`, in their order.
    pub(super) fn for_each(
        &self,
        mut show: impl FnMut(Id, &Infohash) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let damaged = |error: redb::Error| damaged(&self.path, &error);
        let reading = self.database.begin_read().map_err(|error| damaged(error.into()))?;
        let Some(infohashes) = existing(reading.open_table(INFOHASHES)).map_err(damaged)? else {
            return Ok(());
        };
        for entry in infohashes.iter().map_err(|error| damaged(error.into()))? {
            let (key, value) = entry.map_err(|error| damaged(error.into()))?;
            show(Id::new(*key.value()), &Infohash::decode(value.value()))?;
        }
        Ok(())
    }

    /// The last estimates of the size of the IPv4 and of the IPv6 DHT.
    pub(super) fn sizes(&self) -> Result<[Option<KeptSize>; 2], Failure> {
        let read = || {
            let reading: ReadTransaction = self.database.begin_read()?;
            let meta = reading.open_table(META)?;
            let mut sizes = [None, None];
            for (size, key) in sizes.iter_mut().zip(SIZE_KEYS) {
                *size = meta.get(key)?.and_then(|bytes| KeptSize::decode(bytes.value()));
            }
            Ok(sizes)
        };
        read().map_err(|error: redb::Error| damaged(&self.path, &error))
    }

    fn try_write(&self, now: u64, batch: &Batch) -> Result<Written, redb::Error> {
        let mut written = Written::default();
        let writing = self.database.begin_write()?;
        {
            let hash = teller_hash(&writing)?;
            let mut infohashes = writing.open_table(INFOHASHES)?;
            let mut total = infohashes.len()?;
            for (id, node, source) in &batch.told {
                let before = infohashes.get(id.as_bytes())?.map(|value| Infohash::decode(value.value()));
                if before.is_none() && total >= self.cap {
                    written.refused += 1;
                    continue;
                }
                total += u64::from(before.is_none());
                let mut infohash = before.unwrap_or_default();
                infohash.told(now, hash.hash(&source.to_bytes()));
                infohashes.insert(id.as_bytes(), &infohash.encode())?;
                if before.is_none() {
                    written.new.push((*id, *node));
                }
                if infohash.is_unsized(now, SIZE_KEPT) {
                    written.unsized_.push((*id, *node));
                }
            }
            for (id, swarm) in &batch.sized {
                let before = infohashes.get(id.as_bytes())?.map(|value| Infohash::decode(value.value()));
                let Some(mut infohash) = before else { continue };
                infohash.sized(now, *swarm);
                infohashes.insert(id.as_bytes(), &infohash.encode())?;
            }
            written.total = total;
            let mut nodes = writing.open_table(NODES)?;
            for (source, node) in &batch.nodes {
                match node {
                    Some(node) => drop(nodes.insert(&source.to_bytes(), &node.encode())?),
                    None => drop(nodes.remove(&source.to_bytes())?),
                }
            }
            let mut meta = writing.open_table(META)?;
            for (estimate, key) in batch.sizes.iter().zip(SIZE_KEYS) {
                let kept = meta.get(key)?.and_then(|bytes| KeptSize::decode(bytes.value()));
                if let &Some(estimate) = estimate
                    && kept.is_none_or(|kept| kept.yields(now, &estimate))
                {
                    meta.insert(key, &KeptSize { estimate, at: now }.encode()[..])?;
                }
            }
        }
        writing.commit()?;
        Ok(written)
    }
}

impl KeptSize {
    /// Whether a new estimate is worth more: a crawl that has just begun knows less than the last one did, and one of
    /// a part of the key space less than one of the whole, unless its error is no larger.
    fn yields(&self, now: u64, new: &SizeEstimate) -> bool {
        let kept = &self.estimate;
        new.points >= kept.points && new.bits <= kept.bits
            || new.relative_error() <= kept.relative_error()
            || is_ahead(self.at, now)
            || now.saturating_sub(self.at) > SIZE_KEPT
    }

    fn encode(&self) -> [u8; 40] {
        let SizeEstimate { nodes, error, points, bits } = self.estimate;
        let words = [nodes.to_bits(), error.to_bits(), points as u64, self.at, bits.into()];
        let mut bytes = [0; 40];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }

    /// `None` for what nobody wrote. Earlier versions wrote no bits.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut words = [0; 5];
        for (word, place) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_be_bytes(place.try_into().ok()?);
        }
        let [nodes, error, points, at, bits] = words;
        let estimate = SizeEstimate {
            nodes: f64::from_bits(nodes),
            error: f64::from_bits(error),
            points: usize::try_from(points).ok()?,
            bits: u32::try_from(bits).ok()?,
        };
        matches!(bytes.len(), 32 | 40).then_some(Self { estimate, at })
    }
}

/// A table that nothing was written to yet is no error.
fn existing<T>(table: Result<T, TableError>) -> Result<Option<T>, redb::Error> {
    match table {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The hash that gives a teller its bit, drawn once for each database.
fn teller_hash(writing: &WriteTransaction) -> Result<KeyedHash, redb::Error> {
    let mut meta = writing.open_table(META)?;
    let kept = meta.get(SALT_KEY)?.and_then(|salt| salt.value().try_into().ok());
    let salt: [u8; 32] = match kept {
        Some(salt) => salt,
        None => {
            let mut salt = [0; 32];
            // Without randomness strangers could aim for one bit: a count would be too low, no more.
            let _ = getrandom::fill(&mut salt);
            meta.insert(SALT_KEY, &salt[..])?;
            salt
        }
    };
    Ok(KeyedHash::new(&mut Rng::new(Seeds(salt))))
}

#[cfg(test)]
mod tests {
    use btdht::SwarmEstimate;
    use btdht::addr::source_key;

    use super::*;
    use crate::crawl::record::Standing;

    fn addr(n: u8) -> SocketAddr {
        ([81, 2, 3, n], 6881).into()
    }

    fn told(infohashes: &[(u8, u8)]) -> Batch {
        let told = |&(infohash, node): &(u8, u8)| {
            (Id::new([infohash; 20]), addr(node), source_key(addr(node), false))
        };
        Batch { told: infohashes.iter().map(told).collect(), ..Batch::default() }
    }

    fn all(db: &Db) -> Vec<(Id, Infohash)> {
        let mut all = Vec::new();
        db.for_each(|id, infohash| {
            all.push((id, *infohash));
            Ok(())
        })
        .unwrap();
        all
    }

    #[test]
    fn what_is_written_is_there_in_the_next_run() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("below/crawl.redb");
        let db = Db::open(&path, Missing::Create).unwrap();
        assert_eq!((db.total().unwrap(), db.nodes().unwrap()), (0, vec![]));
        let written = db.write(1000, &told(&[(7, 1), (3, 1), (7, 2)])).unwrap();
        let id = |n: u8| Id::new([n; 20]);
        assert_eq!((written.new, written.total), (vec![(id(7), addr(1)), (id(3), addr(1))], 2));
        assert_eq!(written.unsized_.len(), 3);
        let written = db.write(2000, &told(&[(7, 1), (9, 3)])).unwrap();
        assert_eq!((written.new, written.total), (vec![(id(9), addr(3))], 3));
        drop(db);

        let db = Db::open(&path, Missing::Refuse).unwrap();
        let kept = all(&db);
        assert_eq!(kept.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [id(3), id(7), id(9)]);
        let (_, seven) = kept[1];
        assert_eq!((seven.first_seen, seven.last_seen, seven.times_seen), (1000, 2000, 3));
        assert!(seven.nodes() <= 2, "the same teller counts once in every run");
    }

    #[test]
    fn sizes_are_asked_for_once_a_day_and_not_forgotten_for_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&folder.path().join("crawl.redb"), Missing::Create).unwrap();
        db.write(1000, &told(&[(7, 1)])).unwrap();
        let size = |seeds, nodes| SwarmEstimate { seeds, downloaders: 2, nodes, ignored: 0 };
        let sized = |n: u8, size| Batch { sized: vec![(Id::new([n; 20]), size)], ..Batch::default() };
        db.write(1100, &sized(7, size(5, 3))).unwrap();
        // Of an infohash that nobody told nothing is kept.
        db.write(1100, &sized(8, size(5, 3))).unwrap();
        assert!(db.write(1200, &told(&[(7, 1)])).unwrap().unsized_.is_empty());
        let later = 1100 + SIZE_KEPT + 1;
        assert_eq!(db.write(later, &told(&[(7, 1)])).unwrap().unsized_.len(), 1);
        db.write(later, &sized(7, size(0, 0))).unwrap();
        let [(_, seven)] = all(&db)[..] else { panic!() };
        assert_eq!(seven.size(), Some((size(5, 3), 1100)), "since nobody knew it later");
        assert!(db.write(later, &told(&[(7, 1)])).unwrap().unsized_.is_empty(), "but was asked");
        // The clock is put right.
        assert_eq!(db.write(1100, &told(&[(7, 1)])).unwrap().unsized_.len(), 1);
    }

    #[test]
    fn a_full_database_takes_nothing_new_and_goes_on_with_what_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("crawl.redb");
        let db = Db::open(&path, Missing::Create).unwrap().capped(2);
        let written = db.write(1000, &told(&[(7, 1), (3, 1), (7, 2), (9, 1), (3, 2), (8, 2)])).unwrap();
        assert_eq!((written.new.len(), written.total, written.refused), (2, 2, 2));
        assert!(written.unsized_.iter().all(|(id, _)| [7, 3].contains(&id.as_bytes()[0])));
        let written = db.write(2000, &told(&[(7, 1), (9, 3)])).unwrap();
        assert_eq!((written.new.len(), written.total, written.refused), (0, 2, 1));
        let kept = all(&db);
        let seen: Vec<_> = kept.iter().map(|(id, one)| (id.as_bytes()[0], one.last_seen)).collect();
        assert_eq!(seen, [(3, 1000), (7, 2000)]);
        drop(db);
        // A later run may have more room, and what is there is none too many for one that has less.
        let db = Db::open(&path, Missing::Refuse).unwrap().capped(1);
        assert_eq!(db.write(3000, &told(&[(3, 1), (9, 1)])).unwrap().refused, 1);
        let db = db.capped(3);
        assert_eq!(db.write(3000, &told(&[(9, 1), (8, 1)])).unwrap().total, 3);
    }

    #[test]
    fn nodes_are_kept_and_forgotten_and_estimates_too() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&folder.path().join("crawl.redb"), Missing::Create).unwrap();
        let node =
            |n: u8| Node { id: Id::new([n; 20]), addr: addr(n), standing: Standing::Resting, until: 77 };
        let source = |n: u8| source_key(addr(n), false);
        let mut batch = Batch::default();
        batch.nodes.extend([(source(1), Some(node(1))), (source(2), Some(node(2)))]);
        let size = SizeEstimate { nodes: 1e6, error: 2e4, points: 256, bits: 0 };
        batch.sizes = [Some(size), None];
        db.write(5, &batch).unwrap();
        let mut batch = Batch::default();
        batch.nodes.insert(source(1), None);
        db.write(6, &batch).unwrap();
        assert_eq!(db.nodes().unwrap(), [node(2)]);
        assert_eq!(db.sizes().unwrap(), [Some(KeptSize { estimate: size, at: 5 }), None]);
    }

    #[test]
    fn an_estimate_gives_way_to_one_of_as_many_points_or_of_another_day() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&folder.path().join("crawl.redb"), Missing::Create).unwrap();
        let write = |now, nodes, points| {
            let size = SizeEstimate { nodes, error: 10.0, points, bits: 0 };
            db.write(now, &Batch { sizes: [Some(size), None], ..Batch::default() }).unwrap();
            db.sizes().unwrap()[0].unwrap().estimate.nodes
        };
        assert_eq!(write(1000, 116.0, 60), 116.0);
        assert_eq!(write(1100, 41.0, 2), 116.0);
        assert_eq!(write(1200, 118.0, 60), 118.0);
        assert_eq!(write(1200 + SIZE_KEPT, 90.0, 59), 118.0);
        assert_eq!(write(1201 + SIZE_KEPT, 90.0, 59), 90.0);
        // That day has not come yet: the clock was wrong.
        assert_eq!(write(1200, 77.0, 58), 77.0);
    }

    #[test]
    fn an_estimate_of_a_part_gives_way_to_one_of_the_whole_and_not_the_other_way_round() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&folder.path().join("crawl.redb"), Missing::Create).unwrap();
        let write = |nodes, error, points, bits| {
            let size = SizeEstimate { nodes, error, points, bits };
            db.write(1000, &Batch { sizes: [Some(size), None], ..Batch::default() }).unwrap();
            db.sizes().unwrap()[0].unwrap().estimate.nodes
        };
        assert_eq!(write(900.0, 300.0, 64, 4), 900.0);
        assert_eq!(write(800.0, 100.0, 64, 4), 800.0, "the newer of two of a kind");
        assert_eq!(write(600.0, 18.0, 64, 0), 600.0);
        assert_eq!(write(750.0, 150.0, 256, 4), 600.0, "however many points it looks at");
        assert_eq!(write(620.0, 30.0, 64, 0), 620.0, "what is newer is newer");
        assert_eq!(write(610.0, 12.0, 32, 4), 610.0, "where a part has many nodes it says as much");
        assert_eq!(write(500.0, 100.0, 8, 0), 610.0, "a crawl that has just begun knows less");
    }

    #[test]
    fn estimates_of_earlier_versions_are_read() {
        let estimate = SizeEstimate { nodes: 1e6, error: 2e4, points: 256, bits: 0 };
        let kept = KeptSize { estimate, at: 5 };
        let bytes = kept.encode();
        assert_eq!([KeptSize::decode(&bytes), KeptSize::decode(&bytes[..32])], [Some(kept); 2]);
        assert_eq!([KeptSize::decode(&bytes[..24]), KeptSize::decode(&[0; 48])], [None; 2]);
    }

    #[test]
    fn databases_of_others_and_of_later_versions_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let code = |path: &Path| match Db::open(path, Missing::Create) {
            Ok(_) => panic!("opened"),
            Err(failure) => format!("{failure:?}"),
        };
        let foreign = folder.path().join("foreign.redb");
        let others: TableDefinition<'_, u64, u64> = TableDefinition::new("others");
        let database = Database::create(&foreign).unwrap();
        let writing = database.begin_write().unwrap();
        writing.open_table(others).unwrap().insert(1, 2).unwrap();
        writing.commit().unwrap();
        drop(database);
        assert!(code(&foreign).contains("code: 2") && code(&foreign).contains("not the database of a crawl"));
        let database = Database::open(&foreign).unwrap();
        let reading = database.begin_read().unwrap();
        assert_eq!(reading.list_tables().unwrap().count(), 1, "nothing was added");

        let later = folder.path().join("later.redb");
        let database = Database::create(&later).unwrap();
        let writing = database.begin_write().unwrap();
        writing.open_table(META).unwrap().insert("schema", &99u32.to_be_bytes()[..]).unwrap();
        writing.commit().unwrap();
        let busy = code(&later);
        assert!(busy.contains("code: 6"), "{busy}");
        drop(database);
        assert!(code(&later).contains("code: 2") && code(&later).contains("form 99"));
    }

    #[test]
    fn the_first_form_is_read_as_it_is_and_written_as_the_second() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("crawl.redb");
        Db::open(&path, Missing::Create).unwrap().write(1000, &told(&[(7, 1)])).unwrap();
        let form = |set: Option<u32>| {
            let database = Database::open(&path).unwrap();
            if let Some(form) = set {
                let writing = database.begin_write().unwrap();
                writing.open_table(META).unwrap().insert("schema", &form.to_be_bytes()[..]).unwrap();
                writing.commit().unwrap();
            }
            let meta = database.begin_read().unwrap().open_table(META).unwrap();
            meta.get("schema").unwrap().unwrap().value().to_vec()
        };
        assert_eq!(form(Some(1)), [0, 0, 0, 1]);
        for (missing, expected) in [(Missing::Refuse, 1), (Missing::Create, 2)] {
            assert_eq!(all(&Db::open(&path, missing).unwrap()).len(), 1);
            assert_eq!(form(None), [0, 0, 0, expected]);
        }
    }
}
