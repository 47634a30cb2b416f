//! The physical floor of a transfer, and bare counterparts for measuring clients: programs that do
//! nothing but what cannot be avoided, so that they neither limit a client nor steal its core.
//!
//!     floor seed  IP:PORT INFOHASH PIECE_LEN FILE     serves FILE to any BitTorrent client
//!     floor leech IP:PORT INFOHASH PIECE_LEN LEN      downloads and throws away, prints MB/s
//!     floor send  IP:PORT FILE                        sends FILE once over plain TCP
//!     floor full1 IP:PORT LEN OUT PIECE_LEN           one thread: receive, SHA-1, pwrite
//!     floor full2 IP:PORT LEN OUT PIECE_LEN           a receiver and one thread of SHA-1 and pwrite
//!     floor full3 IP:PORT LEN OUT PIECE_LEN           a receiver and two threads of SHA-1 and pwrite
//!     floor check FILE PIECE_LEN THREADS              threads that read and SHA-1 a piece each
#![allow(clippy::unwrap_used)]

use std::fs::{File, OpenOptions};
use std::io::{BufReader, IoSlice, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Instant;

use btfetch::buffer::Buffer;
use sha1::{Digest as _, Sha1};

const BLOCK: usize = 16 * 1024;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["seed", at, infohash, piece_len, file] => seed(at, &hash(infohash), number(piece_len), file),
        ["leech", at, infohash, piece_len, len] => {
            leech(at, &hash(infohash), number(piece_len) as u64, number(len) as u64);
        }
        ["send", at, file] => send(at, file),
        ["full1", at, len, out, piece_len] => full(at, number(len), out, number(piece_len), 0),
        ["full2", at, len, out, piece_len] => full(at, number(len), out, number(piece_len), 1),
        ["full3", at, len, out, piece_len] => full(at, number(len), out, number(piece_len), 2),
        ["check", file, piece_len, threads] => check(file, number(piece_len), number(threads)),
        _ => panic!("floor seed|leech|send|full1|full2|full3|check ..."),
    }
}

fn number(text: &str) -> usize {
    text.parse().expect("a number")
}

fn hash(text: &str) -> [u8; 20] {
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).expect("hexadecimal");
    bytes.try_into().expect("20 bytes")
}

// ---- a bare seeder -------------------------------------------------------------------------------

fn seed(at: &str, infohash: &[u8; 20], piece_len: usize, file: &str) {
    let data: &'static [u8] = std::fs::read(file).expect("readable").leak();
    let listener = TcpListener::bind(at).expect("bindable");
    println!("listening {}", listener.local_addr().unwrap());
    for stream in listener.incoming() {
        let (stream, infohash) = (stream.unwrap(), *infohash);
        thread::spawn(move || {
            let _ = serve(stream, &infohash, piece_len, data);
        });
    }
}

fn greeting(infohash: &[u8; 20]) -> Vec<u8> {
    let mut bytes = b"\x13BitTorrent protocol\0\0\0\0\0\0\0\0".to_vec();
    bytes.extend_from_slice(infohash);
    bytes.extend_from_slice(b"-FL0000-bare-counter");
    bytes
}

/// Waits for the other's handshake first (aria2 1.36 bans whoever speaks before it has listened),
/// then answers every request of a batch with one vectored write.
fn serve(stream: TcpStream, infohash: &[u8; 20], piece_len: usize, data: &[u8]) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(1 << 16, stream.try_clone()?);
    let mut writer = stream;
    let mut hello = [0; 68];
    reader.read_exact(&mut hello)?;
    if !hello.starts_with(b"\x13BitTorrent protocol") {
        return Ok(()); // an encrypted handshake: aria2 tries again without when we close
    }
    let mut out = greeting(infohash);
    let pieces = data.len().div_ceil(piece_len);
    let mut field = vec![0u8; pieces.div_ceil(8)];
    (0..pieces).for_each(|piece| field[piece / 8] |= 0x80 >> (piece % 8));
    out.extend_from_slice(&(field.len() as u32 + 1).to_be_bytes());
    out.push(5);
    out.extend_from_slice(&field);
    out.extend_from_slice(&[0, 0, 0, 1, 1]);
    writer.write_all(&out)?;
    let mut asked: Vec<(u32, u32, u32)> = Vec::new();
    loop {
        let mut length = [0; 4];
        reader.read_exact(&mut length)?;
        let mut message = vec![0; u32::from_be_bytes(length) as usize];
        reader.read_exact(&mut message)?;
        if message.first() == Some(&6) {
            let word = |at: usize| u32::from_be_bytes(message[at..at + 4].try_into().unwrap());
            asked.push((word(1), word(5), word(9)));
        }
        if !asked.is_empty() && (reader.buffer().len() < 17 || asked.len() == 32) {
            answer(&mut writer, &asked, piece_len, data)?;
            asked.clear();
        }
    }
}

fn answer(
    writer: &mut TcpStream,
    asked: &[(u32, u32, u32)],
    piece_len: usize,
    data: &[u8],
) -> std::io::Result<()> {
    let heads: Vec<[u8; 13]> = asked
        .iter()
        .map(|&(piece, begin, len)| {
            let mut head = [0; 13];
            head[..4].copy_from_slice(&(len + 9).to_be_bytes());
            head[4] = 7;
            head[5..9].copy_from_slice(&piece.to_be_bytes());
            head[9..].copy_from_slice(&begin.to_be_bytes());
            head
        })
        .collect();
    let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(2 * asked.len());
    for (head, &(piece, begin, len)) in heads.iter().zip(asked) {
        let start = piece as usize * piece_len + begin as usize;
        slices.push(IoSlice::new(head));
        slices.push(IoSlice::new(&data[start..start + len as usize]));
    }
    let mut rest = slices.as_mut_slice();
    while !rest.is_empty() {
        let written = writer.write_vectored(rest)?;
        IoSlice::advance_slices(&mut rest, written);
    }
    Ok(())
}

// ---- a bare leecher ------------------------------------------------------------------------------

/// Asks for every block in order with 256 outstanding and throws the payload away. Prints the rate of
/// the second half, when the other side has warmed up.
fn leech(at: &str, infohash: &[u8; 20], piece_len: u64, len: u64) {
    let stream = TcpStream::connect(at).expect("somebody listens");
    stream.set_nodelay(true).unwrap();
    let mut reader = BufReader::with_capacity(1 << 18, stream.try_clone().unwrap());
    let mut writer = stream;
    writer.write_all(&greeting(infohash)).unwrap();
    writer.write_all(&[0, 0, 0, 1, 2]).unwrap();
    reader.read_exact(&mut [0; 68]).expect("a handshake");
    let (mut asked, mut got, mut choked) = (0u64, 0u64, true);
    let mut half = None;
    let mut payload = vec![0; 1 << 18];
    while got < len {
        if !choked && asked - got < 192 * BLOCK as u64 {
            let mut batch = Vec::new();
            while asked < len && asked - got < 256 * BLOCK as u64 {
                let (piece, begin) = (asked / piece_len, asked % piece_len);
                let size = (BLOCK as u64).min(len - asked).min(piece_len - begin);
                batch.extend_from_slice(&[0, 0, 0, 13, 6]);
                for word in [piece as u32, begin as u32, size as u32] {
                    batch.extend_from_slice(&word.to_be_bytes());
                }
                asked += size;
            }
            writer.write_all(&batch).unwrap();
        }
        let mut head = [0; 4];
        reader.read_exact(&mut head).expect("a message");
        let length = u32::from_be_bytes(head) as usize;
        assert!(length <= payload.len(), "a message of {length} bytes");
        reader.read_exact(&mut payload[..length]).expect("a whole message");
        match payload.first() {
            Some(1) if length == 1 => choked = false,
            Some(7) if length > 9 => got += length as u64 - 9,
            _ => {}
        }
        if half.is_none() && got >= len / 2 {
            half = Some((Instant::now(), got));
        }
    }
    let (since, from) = half.expect("half of something");
    println!("{:.0} MB/s", (got - from) as f64 / since.elapsed().as_secs_f64() / 1e6);
}

// ---- the floor of a download ---------------------------------------------------------------------

fn send(at: &str, file: &str) {
    let data = std::fs::read(file).expect("readable");
    let listener = TcpListener::bind(at).expect("bindable");
    println!("listening {}", listener.local_addr().unwrap());
    let (mut stream, _) = listener.accept().unwrap();
    for chunk in data.chunks(1 << 18) {
        stream.write_all(chunk).unwrap();
    }
}

/// Receives `len` bytes, hashes every piece and writes it, on one thread (`workers` = 0) or with the
/// hashing and writing on others.
fn full(at: &str, len: usize, out: &str, piece_len: usize, workers: usize) {
    let mut stream = TcpStream::connect(at).expect("somebody sends");
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(out).unwrap();
    let mut lanes: Vec<SyncSender<(u64, Buffer, usize)>> = Vec::new();
    let mut threads = Vec::new();
    let (recycle, recycled) = sync_channel::<Buffer>(16);
    for _ in 0..workers {
        let (sender, receiver) = sync_channel(2);
        let (file, recycle) = (file.try_clone().unwrap(), recycle.clone());
        lanes.push(sender);
        threads.push(thread::spawn(move || hash_and_write(&file, &receiver, &recycle)));
    }
    let mut at = 0;
    while at < len {
        let mut piece = recycled.try_recv().unwrap_or_else(|_| Buffer::zeroed(piece_len));
        let part = piece_len.min(len - at);
        for block in piece[..part].chunks_mut(BLOCK) {
            stream.read_exact(block).expect("the whole file");
        }
        if lanes.is_empty() {
            std::hint::black_box(Sha1::digest(&piece[..part]));
            file.write_all_at(&piece[..part], at as u64).unwrap();
            let _ = recycle.try_send(piece);
        } else {
            lanes[at / piece_len % lanes.len()].send((at as u64, piece, part)).unwrap();
        }
        at += piece_len;
    }
    drop(lanes);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

fn hash_and_write(file: &File, pieces: &Receiver<(u64, Buffer, usize)>, recycle: &SyncSender<Buffer>) {
    for (at, piece, len) in pieces {
        std::hint::black_box(Sha1::digest(&piece[..len]));
        file.write_all_at(&piece[..len], at).unwrap();
        let _ = recycle.try_send(piece);
    }
}

// ---- the floor of a recheck ----------------------------------------------------------------------

/// Reads the pieces of a file and hashes them, each thread the next one that nobody has.
fn check(file: &str, piece_len: usize, threads: usize) {
    let file = File::open(file).expect("readable");
    let len = file.metadata().unwrap().len() as usize;
    let next = AtomicUsize::new(0);
    let work = || {
        let mut piece = Buffer::zeroed(piece_len);
        loop {
            let at = next.fetch_add(1, Relaxed) * piece_len;
            if at >= len {
                return;
            }
            let part = &mut piece[..piece_len.min(len - at)];
            file.read_exact_at(part, at as u64).unwrap();
            std::hint::black_box(Sha1::digest(part));
        }
    };
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
}
