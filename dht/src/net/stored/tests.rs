use std::cell::Cell;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::store::{Archiving, Kept, Store, Striped};
use crate::{Rng, Time};

const ANY: u64 = 1 << 30;

fn moment() -> Moment {
    Moment {
        wall: Duration::from_millis(u64::from(u32::MAX) * 1000),
        boot: vec![b'x'; 64],
        uptime: Duration::from_secs(1 << 32),
    }
}

fn sample(n: u8, len: usize) -> Archive {
    let content = vec![n; len];
    match n % 3 {
        0 => Archive { items: content, ..Archive::default() },
        1 => Archive { peers4: content, ..Archive::default() },
        _ => Archive { peers6: content, ..Archive::default() },
    }
}

fn written(pieces: &[Archive]) -> Vec<u8> {
    let mut writer = StoreWriter::begin(Vec::new(), &moment()).unwrap();
    pieces.iter().for_each(|piece| writer.piece(piece).unwrap());
    writer.end().unwrap()
}

/// What is read, and how it ended.
fn read_all(input: impl Read, max_len: u64) -> (Vec<Archive>, Ending) {
    let mut pieces = Vec::new();
    let ending = read(input, max_len, |at, piece| {
        assert_eq!(*at, moment());
        pieces.push(piece.clone());
        Ok(())
    });
    (pieces, ending.unwrap())
}

#[test]
fn the_most_that_is_written_can_be_read() {
    let pieces: Vec<_> = (0..6).map(|n| sample(n, Archive::MAX_PIECE)).collect();
    assert_eq!(read_all(&*written(&pieces), ANY), (pieces, Ending::Whole));
    assert_eq!(read_all(&*written(&[]), ANY), (Vec::new(), Ending::Whole));
    // One piece of all kinds comes back as three.
    let mixed = Archive { items: vec![0; 9], peers4: vec![1; 9], peers6: vec![2; 9], ..Archive::default() };
    let parts: Vec<_> = (0..3).map(|n| sample(n, 9)).collect();
    assert_eq!(read_all(&*written(&[mixed]), ANY), (parts, Ending::Whole));
}

#[test]
fn the_file_of_a_larger_store_than_that_of_today_is_read_to_its_end() {
    let config = Config { store_memory: 1 << 16, max_items: 1, ..Config::default() };
    let pieces: Vec<_> = (0..6).map(|n| sample(n, Archive::MAX_PIECE)).collect();
    assert_eq!(read_all(&*written(&pieces), max_len(&config)), (pieces, Ending::Whole));
    let large = Config { store_memory: 1 << 32, ..Config::default() };
    assert!(max_len(&large) > Archive::max_len(&large) as u64, "its own is read as well");
}

#[test]
fn the_whole_is_a_bencoded_list() {
    let bytes = written(&[sample(1, 500), sample(2, 3000)]);
    bencode::scan(&bytes, Limits { depth: 2, tokens: 100, len: 1 << 20 }).unwrap();
}

#[test]
fn a_torn_file_loses_what_was_torn_off() {
    let pieces: Vec<_> = (0..5).map(|n| sample(n, 40 + usize::from(n))).collect();
    let whole = written(&pieces);
    let mut seen = 0;
    for len in 0..whole.len() {
        let (read, ending) = read_all(&whole[..len], ANY);
        assert_eq!((ending, &read[..]), (Ending::Damaged, &pieces[..read.len()]), "{len}");
        assert!(read.len() >= seen, "{len}");
        seen = read.len();
    }
    assert_eq!(seen, 5, "only the end is missing");
}

#[test]
fn a_damaged_byte_loses_its_record_and_what_follows() {
    let pieces: Vec<_> = (0..4).map(|n| sample(n, 40)).collect();
    let whole = written(&pieces);
    let ends: Vec<usize> = (0..=4).map(|n| written(&pieces[..n]).len() - 1).collect();
    for at in 0..whole.len() {
        for bit in [1, 0x80] {
            let mut bytes = whole.clone();
            bytes[at] ^= bit;
            let (read, ending) = read_all(&*bytes, ANY);
            let before = ends.iter().filter(|&&end| end <= at).count().saturating_sub(1);
            assert_eq!((ending, &read[..]), (Ending::Damaged, &pieces[..before]), "byte {at}");
        }
    }
    let trailing = [&whole[..], b"e"].concat();
    assert_eq!(read_all(&*trailing, ANY), (pieces, Ending::Damaged));
}

#[test]
fn a_piece_that_nobody_takes_ends_it() {
    let whole = written(&[sample(1, 40), sample(2, 40), sample(1, 40)]);
    let mut seen = 0;
    let ending = read(&*whole, ANY, |_, piece| {
        seen += 1;
        if piece.peers6.is_empty() { Ok(()) } else { Err(Damaged) }
    });
    assert_eq!((ending.unwrap(), seen), (Ending::Damaged, 2));
}

#[test]
fn garbage_other_versions_and_nesting_are_nothing() {
    let head = |version: u32| {
        let head = Head { boot: moment().boot, saved: 1, uptime: 1, version };
        let mut writer = StoreWriter { out: b"l".to_vec() };
        writer.record(HEAD, &bencode::to_bytes(&head).unwrap()).unwrap();
        writer.piece(&sample(1, 30)).unwrap();
        writer.end().unwrap()
    };
    let without_head = [b"l", &written(&[sample(1, 30)])[written(&[]).len() - 1..]].concat();
    let two_heads = {
        let head = written(&[]);
        [&head[..head.len() - 1], &head[1..]].concat()
    };
    for bytes in [
        &b""[..],
        b"l",
        b"le",
        b"de",
        b"d5:items",
        b"l5:h",
        b"l4:hhhhe",
        b"l-1:x",
        b"l+9:xxxxxxxxxe",
        b"l 9:xxxxxxxxxe",
        b"l99999999:xe",
        b"l999999999999999999999999:xe",
        &[b'l'; 5000],
        &[b'd'; 5000],
        &[b'x'; 5000],
        &head(1),
        &head(3),
        &without_head,
        &two_heads,
    ] {
        assert_eq!(read_all(bytes, ANY), (Vec::new(), Ending::Damaged), "{}", bytes.escape_ascii());
    }
    let mut writer = StoreWriter { out: written(&[]) };
    writer.out.pop();
    writer.record(b'?', b"what is to come").unwrap();
    assert_eq!(read_all(&*writer.end().unwrap(), ANY), (Vec::new(), Ending::Damaged));
}

#[test]
fn version_1_is_read() {
    let document = |version| v1::Document {
        boot: moment().boot,
        items: vec![1; v1::MAX_ARCHIVE / 4],
        peers4: vec![4; v1::MAX_ARCHIVE / 2],
        peers6: vec![6; v1::MAX_ARCHIVE / 4],
        saved: u64::from(u32::MAX) * 1000,
        uptime: 1000 << 32,
        version,
    };
    let whole = bencode::to_bytes(&document(1)).unwrap();
    let v1::Document { items, peers4, peers6, .. } = document(1);
    let archive = Archive { items, peers4, peers6, ..Archive::default() };
    assert_eq!(read_all(&*whole, ANY), (vec![archive], Ending::Whole));
    for damaged in
        [&bencode::to_bytes(&document(2)).unwrap(), &whole[..whole.len() - 1], &[&whole[..], b"e"].concat()]
    {
        assert_eq!(read_all(damaged, ANY), (Vec::new(), Ending::Damaged));
    }
    let longer = v1::Document { items: vec![1; v1::MAX_ARCHIVE], ..document(1) };
    assert_eq!(read_all(&*bencode::to_bytes(&longer).unwrap(), ANY), (Vec::new(), Ending::Damaged));
}

/// Gives bytes for ever, and counts them.
struct Endless<'a> {
    bytes: std::iter::Cycle<std::vec::IntoIter<u8>>,
    given: &'a Cell<u64>,
}

impl Read for Endless<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        buffer.iter_mut().zip(&mut self.bytes).for_each(|(to, byte)| *to = byte);
        self.given.set(self.given.get() + buffer.len() as u64);
        Ok(buffer.len())
    }
}

#[test]
fn a_file_without_end_is_read_up_to_its_limit() {
    let given = Cell::new(0);
    let endless = |bytes: &[u8]| Endless { bytes: Vec::from(bytes).into_iter().cycle(), given: &given };
    let head = written(&[]);
    let head = &head[..head.len() - 1];
    let record = &written(&[sample(1, 1000)])[head.len()..];
    let record = &record[..record.len() - 1];
    let (pieces, ending) = read_all(head.chain(endless(record)), 100_000);
    assert_eq!((pieces.len(), ending), ((100_000 - head.len()) / record.len(), Ending::TooLong));
    assert!(given.take() < 200_000);
    // What is one long record or none at all ends much earlier.
    for bytes in [b"l", b"d", b"9", b"0", b"x", b"e", &[0u8]] {
        let (pieces, ending) = read_all(head.chain(endless(bytes)), ANY);
        assert_eq!((pieces.len(), ending), (0, Ending::Damaged));
        let (pieces, ending) = read_all(endless(bytes), ANY);
        assert_eq!((pieces.len(), ending), (0, Ending::Damaged));
    }
    assert!(given.take() < 40 << 20, "{} bytes, version 1 most of them", given.get());
}

#[test]
fn a_claimed_length_allocates_nothing() {
    let head = written(&[]);
    let claim = format!("{}:4cccc", Archive::MAX_PIECE + PREFIX);
    let torn = [&head[..head.len() - 1], claim.as_bytes(), b"few"].concat();
    let mut content = Vec::new();
    let mut input = BufReader::new(&torn[head.len() - 1..]);
    assert_eq!(read_record(&mut input, &mut content).unwrap(), None);
    assert!(content.capacity() < 1000, "{} bytes", content.capacity());
}

#[test]
fn an_error_of_the_disk_is_told_after_what_came_before_it() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::Other.into())
        }
    }
    let whole = written(&[sample(1, 40), sample(2, 40)]);
    let mut seen = 0;
    let ending = read(whole[..whole.len() - 20].chain(Broken), ANY, |_, _| {
        seen += 1;
        Ok(())
    });
    assert_eq!((ending.unwrap_err().kind(), seen), (io::ErrorKind::Other, 1));
}

proptest! {
    #[test]
    fn bytes_of_any_kind_neither_panic_nor_end_whole(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for start in [&b""[..], b"l", b"d", &written(&[])] {
            let bytes = [start, &bytes].concat();
            if bytes != written(&[]) {
                prop_assert_ne!(read_all(&*bytes, ANY).1, Ending::Whole);
            }
        }
    }
}

/// A default store filled to its limit, and one whose peers lie in stripes: bytes of the file,
/// milliseconds and memory.
#[test]
#[ignore = "measures; run it alone and optimized: millions of peers"]
fn a_default_store_filled_to_its_limit() {
    let config = Arc::new(Config { infohashes_per_ip: 0, ..Config::default() });
    let now = Time::from_secs(100_000);
    let (mut rng, folder) = (Rng::from_seed(1), tempfile::tempdir().unwrap());
    let path = folder.path().join("store");
    for (peers_each, is_striped, ipv6) in [
        (1, false, false),
        (10, false, false),
        (10, true, false),
        (1000, false, false),
        (2000, false, false),
        (2000, true, false),
        (2000, false, true),
    ] {
        let empty =
            |rng: &mut Rng| (Store::new(&config, rng), is_striped.then(|| Striped::new(&config, rng)));
        let (mut store, striped) = empty(&mut rng);
        let mut infohash = rng.id();
        for n in 0..9_000_000u32 {
            if n % peers_each == 0 {
                infohash = rng.id();
            }
            let [a, b, c, d] = n.to_be_bytes();
            let peer = if ipv6 {
                let [high, low] = [(n >> 16) as u16, n as u16];
                ([0x2001, 0xdb8, high, low, 0, 0, 0, 1], 7).into()
            } else {
                ([81 + a, b, c, d], 7).into()
            };
            let at = now - Duration::from_secs(2400) + Duration::from_micros(250) * n;
            match &striped {
                Some(striped) => striped.stripe(&infohash).announce(at, &infohash, peer, false),
                None => store.announce(at, &infohash, peer, false),
            };
        }
        let kept = Kept::new(&store, striped.as_ref());
        let before = kept.counts().peers;
        let (started, base) = (std::time::Instant::now(), memory("VmRSS"));
        let mut writer = StoreWriter::begin(std::fs::File::create(&path).unwrap(), &moment()).unwrap();
        let (mut archiving, mut is_done, mut longest) = (Archiving::default(), false, Duration::ZERO);
        reset_peak();
        while !is_done {
            let began = std::time::Instant::now();
            is_done = kept.archive_some(now, &mut archiving);
            longest = longest.max(began.elapsed());
            writer.piece(&archiving.take_piece()).unwrap();
        }
        writer.end().unwrap().sync_all().unwrap();
        let (saved, beside) = (started.elapsed(), memory("VmHWM") - base);
        let len = std::fs::metadata(&path).unwrap().len();
        assert!(len <= max_len(&config));
        drop((store, striped));

        let (started, (mut store, striped)) = (std::time::Instant::now(), empty(&mut rng));
        let ending = read(std::fs::File::open(&path).unwrap(), max_len(&config), |_, piece| match &striped {
            Some(striped) => striped.restore(&mut store, now, (piece, Duration::ZERO), false).map(drop),
            None => store.restore(now, piece, Duration::ZERO, false).map(drop),
        });
        assert_eq!(ending.unwrap(), Ending::Whole);
        let after = Kept::new(&store, striped.as_ref()).counts().peers;
        println!(
            "{peers_each} peers each, striped {is_striped}, IPv6 {ipv6}: {before} peers, {len} bytes, saved in {saved:?} \
             (a piece {longest:?} at most, {beside} KiB beside the store), {after} back in {:?}",
            started.elapsed()
        );
        assert!(after * 100 >= before * 99);
    }
}

/// KiB of this process.
fn memory(field: &str) -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn reset_peak() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}
