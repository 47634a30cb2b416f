//! Hashing and writing: the disk threads of a download beside one bare thread that hashes each
//! piece and writes it, over the same files; then reading for peers and checking. Run with TMPDIR on
//! a memory file system to see the code and not the disk.
//!
//! `cargo bench -p harness --bench disk`
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use btfetch::bitfield::Bitfield;
use btfetch::metainfo::{Info, create};
use btfetch::piece::{BLOCK_LEN, BlockPool, BlockRef, PieceIndex, Slot};
use btfetch::storage::{Done, Job, OpenOptions, Pool, PoolConfig, SaveId, Totals, open};
use sha1::{Digest, Sha1};

const TOTAL: usize = 512 << 20;
const PIECE_LEN: u32 = 1 << 20;
/// What the swarm lets be on its way to the disk.
const CREDIT: usize = 24 << 20;

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let piece: Vec<u8> = (0..PIECE_LEN).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let source = dir.path().join("payload");
    let file = File::create(&source).unwrap();
    (0..TOTAL).step_by(piece.len()).for_each(|at| file.write_all_at(&piece, at as u64).unwrap());
    let options = create::Options { piece_length: Some(PIECE_LEN), ..create::Options::default() };
    let started = Instant::now();
    let info = Arc::new(create::create(&source, &options, &|_| ()).unwrap().metainfo.info);
    report("create, all cores", started.elapsed());
    fs::remove_file(&source).unwrap();
    for _ in 0..3 {
        let started = Instant::now();
        bare(&dir.path().join("bare"), &info, &piece);
        report("one bare thread, SHA-1 and pwrite", started.elapsed());
        for threads in [1, 2] {
            let target = dir.path().join("pool");
            let (pool, answers) = begin(&info, &target, threads);
            let started = Instant::now();
            download(&pool, &answers, &info, &piece);
            report(&format!("pool with {threads} threads, blocks of 16 KiB"), started.elapsed());
            let started = Instant::now();
            seed(&pool, &answers, &info);
            report(&format!("pool with {threads} threads, reads of 16 KiB"), started.elapsed());
            let started = Instant::now();
            pool.submit(Job::Check(Bitfield::full(info.pieces()))).unwrap();
            wait(&answers, |done| matches!(done, Done::CheckEnded));
            report(&format!("pool with {threads} threads, check"), started.elapsed());
            pool.submit(Job::Save(SaveId(1), Totals::default())).unwrap();
            wait(&answers, |done| matches!(done, Done::Saved { .. }));
            drop(pool);
            fs::remove_dir_all(&target).unwrap();
        }
    }
}

fn report(what: &str, took: Duration) {
    println!("{what:45} {:8.0} MB/s", TOTAL as f64 / 1e6 / took.as_secs_f64());
}

/// Copies each block as a connection would receive it, so that both sides pay for it.
fn bare(path: &Path, info: &Info, piece: &[u8]) {
    let file = File::create(path).unwrap();
    file.set_len(TOTAL as u64).unwrap();
    let mut buffer = vec![0; piece.len()];
    for index in 0..info.pieces() {
        buffer.copy_from_slice(piece);
        let digest: [u8; 20] = Sha1::digest(&buffer).into();
        assert_eq!(info.piece_hash(PieceIndex(index)), Some(&digest));
        file.write_all_at(&buffer, u64::from(index) * piece.len() as u64).unwrap();
    }
    fs::remove_file(path).unwrap();
}

fn begin(info: &Arc<Info>, dir: &Path, threads: usize) -> (Pool, Receiver<Vec<Done>>) {
    let (sender, answers) = channel();
    let config = PoolConfig {
        threads: threads.try_into().unwrap(),
        blocks: BlockPool::new(CREDIT / BLOCK_LEN as usize),
        ..PoolConfig::default()
    };
    let opened = open(info, dir, &OpenOptions::default()).unwrap();
    (opened.start(config, move |done| sender.send(done).unwrap_or(())).unwrap(), answers)
}

/// Gives blocks of four pieces in turn, as a swarm with some peers does.
fn download(pool: &Pool, answers: &Receiver<Vec<Done>>, info: &Info, piece: &[u8]) {
    let blocks = BlockPool::new(CREDIT / BLOCK_LEN as usize);
    let (mut credit, mut good) = (CREDIT, 0);
    let mut take = |credit: &mut usize, batch: Vec<Done>| {
        for done in batch {
            match done {
                Done::Freed(bytes) => *credit += bytes as usize,
                Done::Piece(..) => good += 1,
                other => panic!("{other:?}"),
            }
        }
        good
    };
    for group in (0..info.pieces()).step_by(4) {
        for begin in (0..PIECE_LEN).step_by(BLOCK_LEN as usize) {
            for piece_index in group..group + 4 {
                while credit < BLOCK_LEN as usize {
                    take(&mut credit, answers.recv().unwrap());
                }
                let mut block = blocks.take(BLOCK_LEN as usize);
                block.as_mut_slice().copy_from_slice(&piece[begin as usize..(begin + BLOCK_LEN) as usize]);
                credit -= BLOCK_LEN as usize;
                let at = BlockRef { piece: PieceIndex(piece_index), begin, len: BLOCK_LEN };
                pool.submit(Job::Write(at, block)).unwrap();
            }
        }
    }
    while take(&mut credit, answers.recv().unwrap()) < info.pieces() {}
}

/// Reads everything, with 64 requests on their way.
fn seed(pool: &Pool, answers: &Receiver<Vec<Done>>, info: &Info) {
    let slot = Slot { index: 0, generation: 0 };
    let mut waiting = 0;
    for piece in (0..info.pieces()).map(PieceIndex) {
        for begin in (0..PIECE_LEN).step_by(BLOCK_LEN as usize) {
            while waiting >= 64 {
                waiting -= reads(&answers.recv().unwrap());
            }
            pool.submit(Job::Read(slot, BlockRef { piece, begin, len: BLOCK_LEN })).unwrap();
            waiting += 1;
        }
    }
    while waiting > 0 {
        waiting -= reads(&answers.recv().unwrap());
    }
}

fn reads(batch: &[Done]) -> usize {
    batch.iter().filter(|done| matches!(done, Done::Read(..))).count()
}

fn wait(answers: &Receiver<Vec<Done>>, mut last: impl FnMut(&Done) -> bool) {
    while !answers.recv().unwrap().iter().any(&mut last) {}
}
