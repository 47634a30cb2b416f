//! What reading the largest torrents costs beside their own bytes (S33).

use btfetch::metainfo::{Info, Metainfo};
use harness::heap::peak_of;

/// S33, in all.
const MOST: usize = 256 << 20;

fn string(bytes: &[u8]) -> Vec<u8> {
    [format!("{}:", bytes.len()).as_bytes(), bytes].concat()
}

/// An info dictionary with these files, and an unknown key in front of the other ones.
fn info(unknown: &[u8], files: &[u8], pieces: usize) -> Vec<u8> {
    let hashes = string(&vec![b'h'; pieces * 20]);
    [b"d1:a", unknown, b"5:filesl", files, b"e4:name1:n12:piece lengthi1024e6:pieces", &hashes, b"e"].concat()
}

fn files(count: usize) -> Vec<u8> {
    let file = |at| {
        let name = string(format!("{at:06}").as_bytes());
        [b"d6:lengthi1e4:pathl3:dir", &name[..], b"ee"].concat()
    };
    (0..count).flat_map(file).collect()
}

#[test]
fn the_largest_torrents_stay_within_256_mib() {
    let one = files(1);
    let many = files(200_000);
    let tokens = [&b"l"[..], &b"0:".repeat(2_900_000), b"e"].concat();
    let long = string(&vec![b'x'; 20 << 20]);
    let nested = [vec![b'l'; 10 << 20], vec![b'e'; 10 << 20]].concat();
    for (what, document, fits) in [
        ("200,000 files", info(b"0:", &many, 200_000_usize.div_ceil(1024)), true),
        ("2,900,000 tokens", info(&tokens, &one, 1), true),
        ("a string of 20 MB", info(&long, &one, 1), true),
        ("10,000,000 lists", info(&nested, &one, 1), false),
        ("2^21 pieces", info(b"0:", b"d6:lengthi2147483648e4:pathl1:xee", 1 << 21), true),
    ] {
        let (read, peak) = peak_of(|| Info::parse(&document));
        assert_eq!(read.is_ok(), fits, "{what}: {:?}", read.err());
        let all = peak as usize + document.len();
        println!("{what}: {} MiB, {} of them the document", all >> 20, document.len() >> 20);
        assert!(all <= MOST, "{what}: {all}");
        let torrent = [b"d4:info", &document[..], b"e"].concat();
        let (read, peak) = peak_of(|| Metainfo::parse(&torrent));
        assert_eq!(read.is_ok(), fits, "{what}");
        assert!(peak as usize + torrent.len() <= MOST, "{what} in a file: {peak}");
    }
}
