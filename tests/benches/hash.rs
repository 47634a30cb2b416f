//! Hashing in lanes beside the SHA instructions, in one run, turn about: independent pieces in
//! memory on one core, then a file in the page cache: `btfetch check` and the check of a torrent's disk
//! threads, these with one stream each and with all lanes, beside two bare threads that read and hash it. Each figure is the median of the repetitions; ratios are of the same repetition.
//!
//! `cargo bench -p harness --bench hash [-- [REPETITIONS] [MIB]]`
#![allow(clippy::unwrap_used, unsafe_code)]

use std::fs::{self, File};
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Instant;

use btfetch::buffer::Buffer;
use btfetch::hash::{Algorithm, Lanes, Sha1, Sha256};
use btfetch::metainfo::{Info, Metainfo, create};
use btfetch::storage::{Access, Done, Job, OpenOptions, PoolConfig, open};
use sha1::Digest as _;

/// Bytes of one message; as many as the widest vector has lanes.
const MESSAGE: usize = 256 << 10;
const MESSAGES: usize = 16;
/// Bytes of a leaf of BEP 52.
const LEAF: usize = 16 << 10;

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse().ok());
    let repetitions: usize = numbers.next().unwrap_or(9);
    let bytes = noise(MESSAGE * MESSAGES);
    println!("SHA-1 of {MESSAGES} messages of {} KiB, one core", MESSAGE >> 10);
    memory::<Sha1>(repetitions, &bytes, MESSAGE, |message| {
        black_box(sha1::Sha1::digest(message));
    });
    println!("SHA-256 of {} leaves of {} KiB, one core", bytes.len() / LEAF, LEAF >> 10);
    memory::<Sha256>(repetitions, &bytes, LEAF, |message| {
        black_box(sha2::Sha256::digest(message));
    });
    let mib: usize = numbers.next().unwrap_or(1024);
    println!("{mib} MiB in the page cache, two threads");
    recheck(repetitions, mib << 20);
}

fn noise(len: usize) -> Vec<u8> {
    (0..len as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn memory<A: Algorithm>(repetitions: usize, bytes: &[u8], len: usize, one: impl Fn(&[u8])) {
    let slices: Vec<[&[u8]; 1]> = bytes.chunks(len).map(|message| [message]).collect();
    let slices: Vec<&[&[u8]]> = slices.iter().map(|slices| &slices[..]).collect();
    let all = Lanes::available();
    let mut rates = vec![Vec::new(); 1 + all.len()];
    for _ in 0..repetitions {
        rates[0].push(rate(bytes.len(), || bytes.chunks(len).for_each(&one)));
        for (lanes, rates) in all.iter().zip(&mut rates[1..]) {
            rates.push(rate(bytes.len(), || drop(black_box(lanes.hash::<A>(&slices)))));
        }
    }
    report("crate", &rates[0], &rates[0]);
    for (lanes, each) in all.iter().zip(&rates[1..]) {
        report(&format!("{} lanes", lanes.count()), each, &rates[0]);
    }
}

/// MB/s of something that takes `bytes`, done for a while.
fn rate(bytes: usize, work: impl Fn()) -> f64 {
    let (started, mut rounds) = (Instant::now(), 0);
    while rounds < 3 || started.elapsed().as_millis() < 50 {
        work();
        rounds += 1;
    }
    (bytes * rounds) as f64 / 1e6 / started.elapsed().as_secs_f64()
}

fn report(what: &str, rates: &[f64], base: &[f64]) {
    let ratios: Vec<f64> = rates.iter().zip(base).map(|(rate, base)| rate / base).collect();
    println!("  {what:28} {:7.0} MB/s   {:5.2} times the crate", median(rates), median(&ratios));
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// `btfetch check`, the disk threads and the floor, turn about. Beside the time on the clock stands that of the
/// processor, which a busy machine bends less.
fn recheck(repetitions: usize, len: usize) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("payload");
    let chunk = noise(1 << 20);
    let file = File::create(&path).unwrap();
    for (at, begin) in (0..len).step_by(chunk.len()).enumerate() {
        file.write_all_at(&chunk[..chunk.len().min(len - begin)], begin as u64).unwrap();
        file.write_all_at(&at.to_le_bytes(), begin as u64).unwrap();
    }
    for piece_len in [256 << 10, 1 << 20, 4 << 20] {
        let torrent = make(&path, piece_len);
        let info = Arc::new(Metainfo::parse(&fs::read(&torrent).unwrap()).unwrap().info);
        let (mut wall, mut cpu, mut single, mut all) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut floors = Vec::new();
        for _ in 0..repetitions {
            let before = floor(&path, len);
            let ours = check(dir.path(), &torrent);
            floors.push(before.0);
            wall.push(before.0 / ours.0);
            cpu.push(before.1 / ours.1);
            single.push(floor(&path, len).0 / check_by_threads(dir.path(), &info, Lanes::ONE));
            all.push(floor(&path, len).0 / check_by_threads(dir.path(), &info, Lanes::best()));
        }
        let floor = len as f64 / 1e6 / median(&floors);
        println!("  pieces of {} KiB: floor {floor:.0} MB/s; times as fast:", piece_len >> 10);
        println!(
            "    btfetch check                {:5.2}, {:5.2} by processor time",
            median(&wall),
            median(&cpu)
        );
        println!("    disk threads, one stream     {:5.2} (goal 0.9)", median(&single));
        println!("    disk threads, {:2} lanes       {:5.2}", Lanes::best().count(), median(&all));
    }
}

fn make(path: &Path, piece_len: u32) -> PathBuf {
    let options = create::Options { piece_length: Some(piece_len), ..create::Options::default() };
    let mut torrent = Vec::new();
    create::create(path, &options, &|_| ()).unwrap().metainfo.write(&mut torrent);
    let to = path.with_extension("torrent");
    fs::write(&to, torrent).unwrap();
    to
}

/// Two threads with one stream of SHA-1 each; seconds by the clock and of the processor.
fn floor(path: &Path, len: usize) -> (f64, f64) {
    let (started, used) = (Instant::now(), processor_time(libc::RUSAGE_SELF));
    std::thread::scope(|scope| {
        for half in 0..2 {
            scope.spawn(move || {
                let file = File::open(path).unwrap();
                let (mut hash, mut buffer) = (sha1::Sha1::new(), Buffer::zeroed(256 << 10));
                let (mut at, end) = (half * len / 2, (half + 1) * len / 2);
                while at < end {
                    let part = buffer.len().min(end - at);
                    file.read_exact_at(&mut buffer[..part], at as u64).unwrap();
                    hash.update(&buffer[..part]);
                    at += part;
                }
                black_box(hash.finalize());
            });
        }
    });
    (started.elapsed().as_secs_f64(), processor_time(libc::RUSAGE_SELF) - used)
}

fn check(dir: &Path, torrent: &Path) -> (f64, f64) {
    let (started, used) = (Instant::now(), processor_time(libc::RUSAGE_CHILDREN));
    let mut command = Command::new(harness::process::binary("btfetch"));
    command.arg("check").arg(torrent).arg("-o").arg(dir).stdout(Stdio::null());
    assert!(command.status().unwrap().success());
    (started.elapsed().as_secs_f64(), processor_time(libc::RUSAGE_CHILDREN) - used)
}

/// The check of a torrent that is opened, by as many disk threads as the floor has; seconds by the clock.
fn check_by_threads(dir: &Path, info: &Arc<Info>, lanes: Lanes) -> f64 {
    let opened = open(info, dir, &OpenOptions { access: Access::Seed, ..OpenOptions::default() }).unwrap();
    let (to_check, (sender, answers)) = (opened.to_check.clone(), channel());
    assert!(to_check.is_full(), "nothing is believed");
    let config = PoolConfig { lanes, ..PoolConfig::default() };
    let pool = opened.start(config, move |done| sender.send(done).unwrap()).unwrap();
    let started = Instant::now();
    pool.submit(Job::Check(to_check)).unwrap();
    while !answers.recv().unwrap().iter().any(|done| matches!(done, Done::CheckEnded)) {}
    let took = started.elapsed().as_secs_f64();
    assert!(pool.written().is_full());
    took
}

/// Seconds of user and system time so far.
fn processor_time(whose: libc::c_int) -> f64 {
    // SAFETY: all zeros is a valid `rusage`, and the kernel fills one of that size.
    let usage = unsafe {
        let mut usage = std::mem::zeroed();
        assert_eq!(libc::getrusage(whose, &mut usage), 0);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}
