//! Pools over memory: pieces written and read, batches, queues.

mod checks;
mod chunks;
mod doubts;
mod faults;
mod gone;
mod joins;
mod space;

use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use krpc::bencode::Writer;
use sha1::{Digest, Sha1};

use super::*;
use crate::piece::{BLOCK_LEN, Block, PieceIndex, Slot};
use crate::storage::{DiskErrorKind, Fault, FaultyStorage, MemStorage, Opened, SaveId, Totals, Verdict};

const PIECE_LEN: u32 = 3 * BLOCK_LEN;
const LENGTHS: [u64; 4] = [100_000, 0, 7, 150_000];
const PEER: Slot = Slot { index: 3, generation: 1 };

fn payload() -> Vec<u8> {
    let total: u64 = LENGTHS.iter().sum();
    (0..total).map(|at| (at * at / 97) as u8).collect()
}

fn info() -> Arc<Info> {
    let hashes: Vec<u8> = payload().chunks(PIECE_LEN as usize).flat_map(Sha1::digest).collect();
    let mut raw = Vec::new();
    let mut writer = Writer::new(&mut raw);
    writer.dict().key(b"files").list();
    for (file, len) in LENGTHS.iter().enumerate() {
        writer.dict().key(b"length").int(*len as i64).key(b"path").list();
        writer.bytes(format!("f{file}").as_bytes()).end().end();
    }
    writer.end().key(b"name").bytes(b"n").key(b"piece length").int(i64::from(PIECE_LEN));
    writer.key(b"pieces").bytes(&hashes).end();
    Arc::new(Info::parse(&raw).unwrap())
}

struct Fixture {
    pool: Pool,
    storage: Arc<FaultyStorage<MemStorage>>,
    answers: Receiver<Vec<Done>>,
    info: Arc<Info>,
}

impl Fixture {
    fn new(config: PoolConfig) -> Self {
        Self::with(config, false)
    }

    fn with(config: PoolConfig, full: bool) -> Self {
        let info = info();
        let storage = Arc::new(FaultyStorage::new(MemStorage::new(LENGTHS)));
        let mut have = Bitfield::new(info.pieces());
        if full {
            have = Bitfield::full(info.pieces());
            let mut rest = &payload()[..];
            for (file, &len) in LENGTHS.iter().enumerate() {
                let (bytes, behind) = rest.split_at(len as usize);
                storage.write(file, 0, &mut [std::io::IoSlice::new(bytes)]).unwrap();
                rest = behind;
            }
        }
        let opened = Opened::over(Arc::clone(&info), Arc::clone(&storage) as _, have).unwrap();
        let (sender, answers) = channel();
        let pool = opened.start(config, move |done| sender.send(done).unwrap_or(())).unwrap();
        Self { pool, storage, answers, info }
    }

    fn blocks(&self, piece: u32) -> Vec<(BlockRef, Vec<u8>)> {
        let start = piece as usize * PIECE_LEN as usize;
        let len = self.info.layout().piece_len(PieceIndex(piece)) as usize;
        let bytes = payload()[start..start + len].to_vec();
        let blocks = bytes.chunks(BLOCK_LEN as usize).enumerate().map(|(index, block)| {
            let begin = index as u32 * BLOCK_LEN;
            (BlockRef { piece: PieceIndex(piece), begin, len: block.len() as u32 }, block.to_vec())
        });
        blocks.collect()
    }

    fn write(&self, (at, bytes): (BlockRef, Vec<u8>)) {
        self.pool.submit(Job::Write(at, Block::from(bytes))).unwrap();
    }

    fn write_piece(&self, piece: u32) {
        self.blocks(piece).into_iter().for_each(|block| self.write(block));
    }

    /// Answers until one satisfies `last`; that one included.
    fn until(&self, mut last: impl FnMut(&Done) -> bool) -> Vec<Done> {
        let mut all = Vec::new();
        loop {
            let batch = self.answers.recv_timeout(Duration::from_secs(20)).expect("an answer in time");
            let ends = batch.iter().any(&mut last);
            all.extend(batch);
            if ends {
                return all;
            }
        }
    }

    fn save(&self) -> Vec<Done> {
        self.pool.submit(Job::Save(SaveId(1), Totals::default())).unwrap();
        self.until(|done| matches!(done, Done::Saved { .. } | Done::Unsaved(_)))
    }

    fn all_good(&self) {
        let mut good = 0;
        let mut freed = 0;
        let total = self.info.total();
        self.until(|done| {
            match done {
                Done::Piece(_, Verdict::Good) => good += 1,
                Done::Freed(bytes) => freed += u64::from(*bytes),
                other => panic!("{other:?}"),
            }
            good == self.info.pieces() && freed == total
        });
        assert!(self.pool.written().is_full());
    }

    fn on_disk(&self) -> Vec<u8> {
        let files = 0..LENGTHS.len();
        files.flat_map(|file| self.storage.inner().bytes(file).unwrap_or_default()).collect()
    }
}

fn threads(count: usize) -> PoolConfig {
    PoolConfig { threads: NonZeroUsize::new(count).unwrap(), ..PoolConfig::default() }
}

#[test]
fn a_batch_is_taken_in_order_up_to_the_first_job_without_room() {
    let config = PoolConfig { threads: NonZeroUsize::MIN, queue: 2, ..PoolConfig::default() };
    let fixture = Fixture::new(config);
    let write = |(at, bytes): (BlockRef, Vec<u8>)| Job::Write(at, Block::from(bytes));
    let mut jobs: VecDeque<Job> = fixture.blocks(0).into_iter().map(write).collect();
    jobs.push_back(Job::Save(SaveId(1), Totals::default()));
    // Nothing is worked on while the threads hold, so what waits is known.
    fixture.pool.shared.hold(panicked(), false);
    fixture.pool.submit_all(&mut jobs);
    assert!(
        matches!(&jobs.make_contiguous(), [Job::Write(at, _), Job::Save(..)] if at.begin == 2 * BLOCK_LEN)
    );
    fixture.pool.resume();
    while !jobs.is_empty() {
        fixture.pool.submit_all(&mut jobs);
        std::thread::yield_now();
    }
    let done = fixture.until(|done| matches!(done, Done::Saved { .. }));
    let good = |done: &Done| matches!(done, Done::Piece(PieceIndex(0), Verdict::Good));
    assert!(done.iter().any(good), "{done:?}");
}

#[test]
fn pieces_in_any_order_reach_their_files_and_give_their_budget_back() {
    for (count, write_cache) in [(1, 16 << 20), (2, 16 << 20), (3, 0), (2, 40_000)] {
        let fixture = Fixture::new(PoolConfig { write_cache, ..threads(count) });
        let blocks: Vec<_> = (0..fixture.info.pieces()).flat_map(|piece| fixture.blocks(piece)).collect();
        // Mixed well: 11 is prime and no divisor of the count.
        assert!(!blocks.len().is_multiple_of(11));
        (0..blocks.len()).for_each(|at| fixture.write(blocks[at * 11 % blocks.len()].clone()));
        fixture.all_good();
        assert_eq!(fixture.on_disk(), payload());
        assert_eq!(fixture.storage.inner().bytes(1), None);
        assert!(matches!(fixture.save()[..], [Done::Saved { .. }]));
        assert_eq!(fixture.storage.inner().bytes(1), Some(vec![]), "empty files come with completion");
    }
}

#[test]
fn a_wrong_piece_is_not_written_and_its_block_hashes_are_told() {
    let fixture = Fixture::new(threads(2));
    let mut blocks = fixture.blocks(1);
    blocks[2].1[5] ^= 1;
    let expected: Vec<[u8; 20]> = blocks.iter().map(|(_, bytes)| Sha1::digest(bytes).into()).collect();
    blocks.into_iter().for_each(|block| fixture.write(block));
    let answers = fixture.until(|done| matches!(done, Done::Freed(bytes) if *bytes == PIECE_LEN));
    let verdict = answers.iter().find_map(|done| match done {
        Done::Piece(PieceIndex(1), verdict) => Some(verdict.clone()),
        _ => None,
    });
    assert_eq!(verdict, Some(Verdict::Bad { blocks: expected }));
    assert!(fixture.on_disk().is_empty() && fixture.pool.written().is_empty());
    (0..fixture.info.pieces()).for_each(|piece| fixture.write_piece(piece));
    fixture.all_good();
    assert_eq!(fixture.on_disk(), payload());
}

#[test]
fn discarded_and_late_blocks_give_their_budget_back() {
    let fixture = Fixture::new(threads(2));
    let blocks = fixture.blocks(0);
    fixture.write(blocks[0].clone());
    fixture.write(blocks[0].clone());
    fixture.pool.submit(Job::Discard(PieceIndex(0))).unwrap();
    let mut freed = 0;
    fixture.until(|done| {
        freed += if let Done::Freed(bytes) = done { *bytes } else { 0 };
        freed == 2 * BLOCK_LEN
    });
    fixture.write_piece(0);
    fixture.until(|done| matches!(done, Done::Piece(PieceIndex(0), Verdict::Good)));
    fixture.write(blocks[1].clone());
    fixture.until(|done| matches!(done, Done::Freed(BLOCK_LEN)));
}

#[test]
fn a_forgotten_block_gives_its_budget_back_and_comes_anew() {
    for write_cache in [16 << 20, 0] {
        let fixture = Fixture::new(PoolConfig { write_cache, ..threads(2) });
        for at in [0, 2] {
            let (block, bytes) = fixture.blocks(1)[at].clone();
            fixture.write((block, vec![0; bytes.len()]));
            fixture.pool.submit(Job::Forget(block)).unwrap();
        }
        fixture.write_piece(1);
        let answers = fixture.until(|done| matches!(done, Done::Piece(..)));
        let good = |done: &Done| matches!(done, Done::Piece(PieceIndex(1), Verdict::Good));
        assert!(answers.iter().any(good), "{answers:?}");
        // A piece that is done is left alone.
        fixture.pool.submit(Job::Forget(fixture.blocks(1)[0].0)).unwrap();
        let rest = fixture.save();
        assert!(matches!(rest.last(), Some(Done::Saved { .. })));
        assert!(fixture.pool.written().contains(1));
        let freed = |done: &Done| if let Done::Freed(bytes) = done { *bytes } else { 0 };
        assert_eq!(answers.iter().chain(&rest).map(freed).sum::<u32>(), 2 * BLOCK_LEN + PIECE_LEN);
    }
}

#[test]
fn blocks_are_read_for_peers_across_files() {
    let fixture = Fixture::with(threads(2), true);
    let wanted: Vec<_> = (0..fixture.info.pieces()).flat_map(|piece| fixture.blocks(piece)).collect();
    let across = BlockRef { piece: PieceIndex(2), begin: 1000, len: PIECE_LEN - 2000 };
    for at in wanted.iter().map(|(at, _)| *at).chain([across]) {
        fixture.pool.submit(Job::Read(PEER, at)).unwrap();
    }
    let mut left = wanted.len() + 1;
    let answers = fixture.until(|done| {
        left -= usize::from(matches!(done, Done::Read(..)));
        left == 0
    });
    for done in answers {
        let Done::Read(PEER, at, block) = done else { panic!("{done:?}") };
        let start = at.piece.0 as usize * PIECE_LEN as usize + at.begin as usize;
        assert_eq!(&*block, &payload()[start..start + at.len as usize]);
    }
}

#[test]
fn a_save_that_nobody_waits_for_does_not_take_the_answer_of_the_one_before_it() {
    let (info, storage) = (info(), Arc::new(MemStorage::new(LENGTHS)));
    let none = || Bitfield::new(info.pieces());
    let shared = Shared::new(threads(1), Arc::clone(&info), storage, ((none(), none()), true), |_| ());
    let totals = |downloaded| Totals { downloaded, ..Totals::default() };
    for (id, downloaded) in [(1, 10), (7, 20), (0, 30)] {
        shared.arrive(&tasks::Barrier { left: 1.into(), id: SaveId(id), totals: totals(downloaded) });
    }
    assert_eq!(shared.lock_saves().take(), Some((SaveId(7), totals(30))));
    assert_eq!(shared.lock_saves().take(), None);
}

#[test]
fn nothing_is_read_for_peers_that_is_not_verified_or_not_there() {
    let fixture = Fixture::new(threads(1));
    fixture.write_piece(0);
    fixture.until(|done| matches!(done, Done::Piece(..)));
    for (piece, begin, len) in [(1, 0, 10), (0, PIECE_LEN - 5, 6), (0, u32::MAX, 2), (99, 0, 1), (0, 0, 9)] {
        let at = BlockRef { piece: PieceIndex(piece), begin, len };
        fixture.pool.submit(Job::Read(PEER, at)).unwrap();
    }
    let answers = fixture.until(|done| matches!(done, Done::Read(..)));
    let reads: Vec<_> = answers.iter().filter(|done| matches!(done, Done::Read(..))).collect();
    assert!(matches!(reads[..], [Done::Read(_, BlockRef { len: 9, .. }, _)]));
}

#[test]
fn an_empty_file_is_made_without_the_others() {
    let fixture = Fixture::new(PoolConfig::default());
    fixture.pool.submit(Job::MakeEmpty(vec![1])).unwrap();
    fixture.pool.submit(Job::Save(SaveId(1), Totals::default())).unwrap();
    fixture.until(|done| matches!(done, Done::Saved { .. }));
    assert_eq!(fixture.storage.stamp(1).unwrap().map(|stamp| stamp.len), Some(0));
    assert_eq!(fixture.storage.stamp(0).unwrap(), None);
}

#[test]
fn a_thread_with_too_much_to_do_refuses_more() {
    let fixture = Fixture::new(PoolConfig { queue: 2, ..threads(1) });
    fixture.storage.set(Some(Fault::WriteError), 0);
    fixture.write_piece(5);
    fixture.until(|done| matches!(done, Done::Failed(_)));
    let blocks = fixture.blocks(0);
    let submit = |at: usize| {
        let (at, bytes) = blocks[at].clone();
        fixture.pool.submit(Job::Write(at, Block::from(bytes)))
    };
    assert!(submit(0).is_ok() && submit(1).is_ok());
    assert!(matches!(submit(2), Err(Job::Write(at, _)) if at == blocks[2].0));
    assert!(fixture.pool.submit(Job::Discard(PieceIndex(0))).is_ok());
}

#[test]
fn a_larger_cache_than_a_swarm_can_fill_stalls_nothing() {
    let budget = crate::swarm::Limits::default().write_budget as usize;
    assert!(WRITE_CACHE < budget);
    // One piece that is larger than all of it, and never whole.
    let len = 4 * budget as u32;
    let mut raw = Vec::new();
    let mut writer = Writer::new(&mut raw);
    writer.dict().key(b"length").int(i64::from(len)).key(b"name").bytes(b"n");
    writer.key(b"piece length").int(i64::from(len)).key(b"pieces").bytes(&[7; 20]).end();
    let info = Arc::new(Info::parse(&raw).unwrap());
    let storage = Arc::new(MemStorage::new([u64::from(len)]));
    let opened = Opened::over(info, storage as _, Bitfield::new(1)).unwrap();
    let (sender, answers) = channel();
    let config = PoolConfig { write_cache: 64 << 20, queue: usize::MAX, ..threads(2) };
    let pool = opened.start(config, move |done| sender.send(done).unwrap_or(())).unwrap();
    // All but the first block, so that nothing is hashed.
    for begin in (BLOCK_LEN..budget as u32).step_by(BLOCK_LEN as usize) {
        let at = BlockRef { piece: PieceIndex(0), begin, len: BLOCK_LEN };
        pool.submit(Job::Write(at, Block::from(vec![0; BLOCK_LEN as usize]))).unwrap();
    }
    let mut kept = budget - BLOCK_LEN as usize;
    while kept > WRITE_CACHE / 2 {
        for done in answers.recv_timeout(Duration::from_secs(20)).expect("room in time") {
            let Done::Freed(bytes) = done else { panic!("{done:?}") };
            kept -= bytes as usize;
        }
    }
}
