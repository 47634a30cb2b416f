//! What tells SHA-1 and SHA-256 apart: [`Algorithm`].

#[cfg(target_arch = "x86_64")]
use super::avx2::Avx2;
#[cfg(target_arch = "x86_64")]
use super::avx512::Avx512;
use super::lanes::Block;
#[cfg(target_arch = "x86_64")]
use super::lanes::Columns;

/// The state of a message between blocks. SHA-1 has five words; the rest stays zero.
pub(super) type State = [u32; 8];

/// A hash function that can be computed in lanes: [`Sha1`] or [`Sha256`].
pub trait Algorithm: Compress {
    /// Its digests.
    type Digest: AsRef<[u8]> + Copy + Eq + std::fmt::Debug;

    /// The digest of a message whose last block has been compressed.
    #[doc(hidden)]
    fn digest(state: &[u32; 8]) -> Self::Digest;
}

/// SHA-1: pieces of v1 torrents (BEP 3).
#[derive(Clone, Copy, Debug)]
pub enum Sha1 {}

/// SHA-256: blocks and trees of v2 torrents (BEP 52).
#[derive(Clone, Copy, Debug)]
pub enum Sha256 {}

/// The part of [`Algorithm`] that is nobody's business outside.
pub(super) mod sealed {
    use super::*;

    pub trait Compress {
        /// FIPS 180-4, 5.3.
        const INITIAL: State;

        /// Messages from which on 8 lanes are faster than the SHA instructions, one message after the
        /// other, on a processor that has both, and 16 lanes for more.
        const WORTH: usize;

        /// Blocks of one message, by the crate.
        fn one(state: &mut State, blocks: &[Block]);
        #[cfg(target_arch = "x86_64")]
        fn eight(v: Avx2, state: &mut Columns<8>, blocks: &[&[Block]; 8]);
        #[cfg(target_arch = "x86_64")]
        fn sixteen(v: Avx512, state: &mut Columns<16>, blocks: &[&[Block]; 16]);
    }
}

use sealed::Compress;

impl Algorithm for Sha1 {
    type Digest = [u8; 20];

    fn digest(state: &State) -> [u8; 20] {
        big_endian(state)
    }
}

impl Algorithm for Sha256 {
    type Digest = [u8; 32];

    fn digest(state: &State) -> [u8; 32] {
        big_endian(state)
    }
}

impl Compress for Sha1 {
    const INITIAL: State = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0, 0, 0, 0];
    const WORTH: usize = 4;

    fn one(state: &mut State, blocks: &[Block]) {
        let state = state.first_chunk_mut().expect("five of eight words");
        sha1::block_api::compress(state, blocks);
    }

    #[cfg(target_arch = "x86_64")]
    fn eight(v: Avx2, state: &mut Columns<8>, blocks: &[&[Block]; 8]) {
        v.sha1(state, blocks);
    }

    #[cfg(target_arch = "x86_64")]
    fn sixteen(v: Avx512, state: &mut Columns<16>, blocks: &[&[Block]; 16]) {
        v.sha1(state, blocks);
    }
}

impl Compress for Sha256 {
    const INITIAL: State = [
        0x6a09_e667,
        0xbb67_ae85,
        0x3c6e_f372,
        0xa54f_f53a,
        0x510e_527f,
        0x9b05_688c,
        0x1f83_d9ab,
        0x5be0_cd19,
    ];
    // 8 lanes are never faster: 0.98 times the SHA instructions.
    const WORTH: usize = 9;

    fn one(state: &mut State, blocks: &[Block]) {
        sha2::block_api::compress256(state, blocks);
    }

    #[cfg(target_arch = "x86_64")]
    fn eight(v: Avx2, state: &mut Columns<8>, blocks: &[&[Block]; 8]) {
        v.sha256(state, blocks);
    }

    #[cfg(target_arch = "x86_64")]
    fn sixteen(v: Avx512, state: &mut Columns<16>, blocks: &[&[Block]; 16]) {
        v.sha256(state, blocks);
    }
}

fn big_endian<const LEN: usize>(state: &State) -> [u8; LEN] {
    let mut digest = [0; LEN];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    digest
}
