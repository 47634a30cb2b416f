//! Every width that this machine has against the crates, which all machines have.

use std::cell::{Cell, RefCell};

use proptest::prelude::*;
use sha1::Digest as _;

use super::{Algorithm, Lanes, Pieces, Sha1, Sha256, Source, Stream};
use crate::buffer::Buffer;

/// What the crates say.
trait Reference: Algorithm {
    fn reference(message: &[u8]) -> Self::Digest;
}

impl Reference for Sha1 {
    fn reference(message: &[u8]) -> [u8; 20] {
        sha1::Sha1::digest(message).into()
    }
}

impl Reference for Sha256 {
    fn reference(message: &[u8]) -> [u8; 32] {
        sha2::Sha256::digest(message).into()
    }
}

/// `len` bytes that differ from those of another seed.
fn message(len: usize, seed: u32) -> Vec<u8> {
    let word = |at: u32| (at.wrapping_add(seed << 20)).wrapping_mul(2_654_435_761) ^ seed;
    (0..len).map(|at| (word(at as u32) >> 13) as u8).collect()
}

fn agree<A: Reference>(messages: &[Vec<u8>]) {
    let expected: Vec<_> = messages.iter().map(|message| A::reference(message)).collect();
    let slices: Vec<[&[u8]; 1]> = messages.iter().map(|message| [&message[..]]).collect();
    let slices: Vec<&[&[u8]]> = slices.iter().map(|slices| &slices[..]).collect();
    for lanes in Lanes::available() {
        assert_eq!(lanes.hash::<A>(&slices), expected, "{lanes:?}");
    }
}

#[test]
fn every_processor_hashes_one_by_one_and_this_one_as_its_features_say() {
    let counts: Vec<_> = Lanes::available().into_iter().map(Lanes::count).collect();
    let mut expected = vec![1];
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 = std::arch::is_x86_feature_detected!("avx2");
        let avx512 =
            std::arch::is_x86_feature_detected!("avx512f") && std::arch::is_x86_feature_detected!("avx512bw");
        expected.extend(avx2.then_some(8));
        expected.extend((avx2 && avx512).then_some(16));
    }
    assert_eq!(counts, expected);
    let best = if cfg!(debug_assertions) { 1 } else { expected[expected.len() - 1] };
    assert_eq!(Lanes::best().count(), best);
}

#[test]
fn vectors_of_the_standard_come_out_of_every_lane() {
    let million = vec![b'a'; 1_000_000];
    let long = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    let vectors: [(&[u8], &str, &str); 4] = [
        (
            b"",
            "da39a3ee5e6b4b0d3255bfef95601890afd80709",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ),
        (
            b"abc",
            "a9993e364706816aba3e25717850c26c9cd0d89d",
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        ),
        (
            long,
            "84983e441c3bd26ebaae4aa1f95129e5e54670f1",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
        ),
        (
            &million,
            "34aa973cd4c4daa4f61eeb2bdbad27316534016f",
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
        ),
    ];
    let hex = |digest: &dyn AsRef<[u8]>| data_encoding::HEXLOWER.encode(digest.as_ref());
    for lanes in Lanes::available() {
        for (message, sha1, sha256) in vectors {
            let slices = [message];
            // As many as make this width work; the million alone takes a while.
            let all = vec![&slices[..]; lanes.count().min(9)];
            lanes.hash::<Sha1>(&all).iter().for_each(|digest| assert_eq!(hex(digest), sha1));
            lanes.hash::<Sha256>(&all).iter().for_each(|digest| assert_eq!(hex(digest), sha256));
        }
    }
}

#[test]
fn every_count_of_messages_is_hashed() {
    for count in (0..=18).chain([31, 32, 33, 37]) {
        let messages: Vec<_> = (0..count).map(|seed| message(100, seed)).collect();
        agree::<Sha1>(&messages);
        agree::<Sha256>(&messages);
    }
}

#[test]
fn lengths_about_the_ends_of_blocks_are_padded_right() {
    for len in [0, 1, 54, 55, 56, 57, 63, 64, 65, 118, 119, 120, 127, 128, 129, 300] {
        let messages: Vec<_> = (0..16).map(|seed| message(len, seed)).collect();
        agree::<Sha1>(&messages);
        agree::<Sha256>(&messages);
    }
}

#[test]
fn messages_of_very_different_lengths_share_the_lanes() {
    let lengths = [0, 30_000, 1, 64, 16 << 10, 17, 10_000, 70_000, 63, 128, 2, 5000, 6400, 3, 40_000];
    let messages: Vec<_> =
        (0..3).flat_map(|round| lengths.map(|len| message(len, round * 100 + len as u32 % 97))).collect();
    agree::<Sha1>(&messages);
    agree::<Sha256>(&messages);
}

#[test]
fn a_share_keeps_the_lanes_full_and_the_threads_busy() {
    for lanes in Lanes::available() {
        let count = lanes.count();
        assert_eq!(lanes.share(1024, 2), count);
        assert_eq!(lanes.share(1, 8), 1);
        assert_eq!(lanes.share(0, 2), 1);
        assert_eq!(lanes.share(2 * count, 2), count);
        // Twice ten, not sixteen and four.
        if count == 16 {
            assert_eq!(lanes.share(40, 2), 10);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_messages_in_any_slices_have_the_digests_of_the_crates(
        messages in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..6), 0..40),
    ) {
        let slices: Vec<Vec<&[u8]>> =
            messages.iter().map(|slices| slices.iter().map(|slice| &slice[..]).collect()).collect();
        let slices: Vec<&[&[u8]]> = slices.iter().map(|slices| &slices[..]).collect();
        let whole: Vec<Vec<u8>> = messages.iter().map(|slices| slices.concat()).collect();
        for lanes in Lanes::available() {
            let sha1: Vec<_> = whole.iter().map(|message| Sha1::reference(message)).collect();
            prop_assert_eq!(lanes.hash::<Sha1>(&slices), sha1);
            let sha256: Vec<_> = whole.iter().map(|message| Sha256::reference(message)).collect();
            prop_assert_eq!(lanes.hash::<Sha256>(&slices), sha256);
        }
    }

    #[test]
    fn a_stream_alone_gives_the_digest_of_what_came_so_far(
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..8),
    ) {
        let mut stream = Stream::<Sha1>::new();
        let mut whole = Vec::new();
        for part in parts {
            stream.update(&part);
            whole.extend(part);
            prop_assert_eq!(stream.digest(), Sha1::reference(&whole));
        }
    }
}

/// Pieces in memory.
struct Memory {
    pieces: Vec<Vec<u8>>,
    reads: Cell<u32>,
    /// Of each piece, how far it was announced.
    ahead: RefCell<Vec<u32>>,
}

impl Source<usize> for Memory {
    type Error = ();

    fn ahead(&self, piece: usize, begin: u32, len: u32) {
        let ahead = &mut self.ahead.borrow_mut()[piece];
        assert!(begin <= *ahead, "without a gap");
        *ahead = begin + len;
    }

    fn read(&self, piece: usize, begin: u32, to: &mut [u8]) -> Result<bool, ()> {
        assert!(begin + to.len() as u32 <= self.ahead.borrow()[piece], "announced before");
        self.reads.set(self.reads.get() + 1);
        // Every seventh read fails and is tried again.
        if self.reads.get().is_multiple_of(7) {
            return Err(());
        }
        let Some(bytes) = self.pieces[piece].get(begin as usize..begin as usize + to.len()) else {
            return Ok(false);
        };
        to.copy_from_slice(bytes);
        Ok(true)
    }
}

#[test]
fn pieces_are_read_in_slices_and_missing_ones_are_told() {
    // The last number is that of the bytes that are there.
    let lengths = [(100_000, 100_000), (70_000, 0), (32 << 10, 32 << 10), (5, 5), (70_000, 65_536), (1, 1)];
    let pieces: Vec<_> =
        lengths.iter().enumerate().map(|(seed, &(_, there))| message(there, seed as u32)).collect();
    for lanes in Lanes::available() {
        let ahead = RefCell::new(vec![0; lengths.len()]);
        let source = Memory { pieces: pieces.clone(), reads: Cell::new(0), ahead };
        let mut group = Pieces::new(lanes, lengths.iter().map(|&(len, _)| len as u32).enumerate());
        let mut buffer = Buffer::default();
        while group.step(&source, &mut buffer) != Ok(false) {}
        assert!(buffer.len() <= lengths.len() * (32 << 10), "one slice each");
        let digests: Vec<_> = group.digests().collect();
        let expected =
            lengths.iter().zip(&pieces).enumerate().map(|(piece, (&(len, there), bytes))| {
                (piece, (len == there).then(|| Sha1::reference(bytes)))
            });
        assert_eq!(digests, expected.collect::<Vec<_>>());
    }
}

#[test]
fn a_long_piece_is_announced_part_by_part() {
    let pieces = vec![message(5 << 20, 1)];
    let source = Memory { pieces, reads: Cell::new(0), ahead: RefCell::new(vec![0]) };
    let mut group = Pieces::new(Lanes::ONE, [(0, 5 << 20)]);
    let mut buffer = Buffer::zeroed(1 << 20);
    buffer.fill(0xaa);
    assert_eq!(group.step(&source, &mut buffer), Ok(true));
    assert_eq!(source.ahead.borrow()[..], [2 << 20], "not all at once");
    while group.step(&source, &mut buffer) != Ok(false) {}
    assert_eq!(group.digests().collect::<Vec<_>>(), [(0, Some(Sha1::reference(&source.pieces[0])))]);
}
