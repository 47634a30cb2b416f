//! Checks, also beside writes.

use std::io::IoSlice;
use std::sync::mpsc::Sender;
use std::sync::{Condvar, Mutex};

use super::*;
use crate::hash::Lanes;
use crate::storage::DiskError;

#[test]
fn a_check_finds_what_is_there() {
    let ways = Lanes::available().into_iter().flat_map(|lanes| [(lanes, 1), (lanes, 2)]);
    for (lanes, count) in ways {
        let fixture = Fixture::with(PoolConfig { lanes, ..threads(count) }, true);
        fixture.storage.write(3, 149_999, &mut [IoSlice::new(&[0x55])]).unwrap();
        fixture.pool.submit(Job::Check(Bitfield::full(fixture.info.pieces()))).unwrap();
        let mut good = Bitfield::new(fixture.info.pieces());
        let mut checked = 0;
        fixture.until(|done| {
            if let Done::Checked(piece, is_good) = done {
                checked += 1;
                assert!(!is_good || good.insert(piece.0));
            }
            matches!(done, Done::CheckEnded)
        });
        assert_eq!((checked, good.count()), (fixture.info.pieces(), fixture.info.pieces() - 1));
        assert_eq!(fixture.pool.written(), good);
        // An empty check ends too, and absent files are no error.
        fixture.pool.submit(Job::Check(Bitfield::new(fixture.info.pieces()))).unwrap();
        fixture.until(|done| matches!(done, Done::CheckEnded));
        let empty = Fixture::new(PoolConfig { lanes, ..threads(count) });
        empty.pool.submit(Job::Check(Bitfield::full(empty.info.pieces()))).unwrap();
        let answers = empty.until(|done| matches!(done, Done::CheckEnded));
        assert!(answers.iter().all(|done| matches!(done, Done::Checked(_, false) | Done::CheckEnded)));
    }
}

/// A storage whose reads wait, by the name of the thread that reads.
#[derive(Debug)]
struct Gated {
    inner: MemStorage,
    closed: Mutex<Vec<&'static str>>,
    opened: Condvar,
    arrived: Sender<String>,
}

impl Gated {
    fn open(&self, thread: &str) {
        self.closed.lock().unwrap().retain(|closed| *closed != thread);
        self.opened.notify_all();
    }
}

impl Storage for Gated {
    fn read(&self, file: usize, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        let read = self.inner.read(file, offset, buf);
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        self.arrived.send(thread.clone()).unwrap_or(());
        let is_closed = |closed: &mut Vec<&str>| closed.iter().any(|closed| *closed == thread);
        drop(self.opened.wait_while(self.closed.lock().unwrap(), is_closed).unwrap());
        read
    }

    fn ahead(&self, _: usize, _: u64, _: u32) {}

    fn write(&self, file: usize, offset: u64, bufs: &mut [IoSlice<'_>]) -> Result<(), DiskError> {
        self.inner.write(file, offset, bufs)
    }

    fn finish(&self, file: usize) -> Result<(), DiskError> {
        self.inner.finish(file)
    }

    fn sync(&self, file: usize) -> Result<(), DiskError> {
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
        self.inner.bring_back(file)
    }

    fn plan(&self, there: &Bitfield) -> Result<Vec<(usize, u64)>, DiskError> {
        self.inner.plan(there)
    }

    fn reserve(&self, file: usize, from: u64) -> Result<u64, DiskError> {
        self.inner.reserve(file, from)
    }
}

#[test]
fn a_piece_that_is_written_while_a_check_reads_it_stays() {
    // The thread that reads writes too; or another one does, that of the piece.
    for (threads_of_pool, reader) in [(1, "disk-0"), (2, "disk-0")] {
        let (arrived, arrivals) = channel();
        let closed = Mutex::new(vec!["disk-0", "disk-1"]);
        let storage =
            Arc::new(Gated { inner: MemStorage::new(LENGTHS), closed, opened: Condvar::new(), arrived });
        // Something is there of piece 1, and it is wrong; piece 3 is right.
        let payload = payload();
        storage.write(0, 0, &mut [IoSlice::new(&[0x55; 100_000])]).unwrap();
        storage.write(3, 0, &mut [IoSlice::new(&payload[100_007..])]).unwrap();
        let info = info();
        let mut have = Bitfield::new(info.pieces());
        have.insert(3);
        let opened = Opened::over(Arc::clone(&info), Arc::clone(&storage) as _, have).unwrap();
        let (sender, answers) = channel();
        // Neighbours go to different threads.
        let config = PoolConfig { lanes: Lanes::ONE, join: 0, ..threads(threads_of_pool) };
        let pool = opened.start(config, move |done| sender.send(done).unwrap_or(())).unwrap();
        let wait = Duration::from_secs(20);
        let mut seen = Vec::new();
        let mut until = |last: &dyn Fn(&Done) -> bool| {
            while !seen.iter().any(last) {
                seen.extend(answers.recv_timeout(wait).expect("an answer in time"));
            }
        };
        if threads_of_pool == 2 {
            // So that it does not take the check.
            let at = BlockRef { piece: PieceIndex(3), begin: 0, len: 9 };
            pool.submit(Job::Read(PEER, at)).unwrap();
            assert_eq!(arrivals.recv_timeout(wait).as_deref(), Ok("disk-1"));
        }
        let mut only = Bitfield::new(info.pieces());
        only.insert(1);
        pool.submit(Job::Check(only)).unwrap();
        assert_eq!(arrivals.recv_timeout(wait).as_deref(), Ok(reader));
        for begin in (0..PIECE_LEN).step_by(BLOCK_LEN as usize) {
            let start = (PIECE_LEN + begin) as usize;
            let block = payload[start..start + BLOCK_LEN as usize].to_vec();
            let at = BlockRef { piece: PieceIndex(1), begin, len: BLOCK_LEN };
            pool.submit(Job::Write(at, Block::from(block))).unwrap();
        }
        storage.open("disk-1");
        if threads_of_pool == 2 {
            until(&|done| matches!(done, Done::Piece(PieceIndex(1), Verdict::Good)));
        }
        storage.open("disk-0");
        until(&|done| matches!(done, Done::CheckEnded));
        let good = |done: &Done| matches!(done, Done::Piece(PieceIndex(1), Verdict::Good));
        assert!(seen.iter().any(good), "{seen:?}");
        let right = |done: &Done| matches!(done, Done::Checked(PieceIndex(1), true));
        assert!(seen.iter().any(right), "{seen:?}");
        assert!(pool.written().contains(1));
    }
}

/// Reads of a check that finds all pieces but one, which was written before.
fn reads_of_a_check(write_cache: usize) -> usize {
    let (arrived, arrivals) = channel();
    let storage =
        Gated { inner: MemStorage::new(LENGTHS), closed: Mutex::default(), opened: Condvar::new(), arrived };
    let (storage, payload, info) = (Arc::new(storage), payload(), info());
    let mut rest = &payload[..];
    for (file, &len) in LENGTHS.iter().enumerate() {
        let (bytes, behind) = rest.split_at(len as usize);
        storage.write(file, 0, &mut [IoSlice::new(bytes)]).unwrap();
        rest = behind;
    }
    let have = Bitfield::new(info.pieces());
    let opened = Opened::over(Arc::clone(&info), Arc::clone(&storage) as _, have).unwrap();
    let (sender, answers) = channel();
    let config = PoolConfig { lanes: Lanes::ONE, write_cache, ..threads(1) };
    let pool = opened.start(config, move |done| sender.send(done).unwrap_or(())).unwrap();
    let until = |last: &dyn Fn(&Done) -> bool| {
        while !answers.recv_timeout(Duration::from_secs(20)).expect("an answer in time").iter().any(last) {}
    };
    for begin in (0..PIECE_LEN).step_by(BLOCK_LEN as usize) {
        let block = payload[(PIECE_LEN + begin) as usize..][..BLOCK_LEN as usize].to_vec();
        let at = BlockRef { piece: PieceIndex(1), begin, len: BLOCK_LEN };
        pool.submit(Job::Write(at, Block::from(block))).unwrap();
    }
    until(&|done| matches!(done, Done::Piece(PieceIndex(1), Verdict::Good)));
    arrivals.try_iter().for_each(drop);
    pool.submit(Job::Check(Bitfield::full(info.pieces()))).unwrap();
    until(&|done| matches!(done, Done::CheckEnded));
    assert!(pool.written().is_full());
    arrivals.try_iter().count()
}

#[test]
fn a_check_reads_no_piece_twice_because_another_was_written_early() {
    let reads = reads_of_a_check(16 << 20);
    assert!(reads > 0);
    assert_eq!(reads_of_a_check(0), reads);
}
