//! 8 lanes of AVX2. Unsafe is the use of its instructions alone: an [`Avx2`] is made only where the
//! processor has them.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::lanes::{self, Block, Columns, Vector};

/// Proof that the processor has AVX2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx2(());

impl Avx2 {
    pub(super) const LANES: usize = 8;

    pub(super) fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Self(()))
    }

    pub(super) fn sha1(self, state: &mut Columns<8>, blocks: &[&[Block]; 8]) {
        #[target_feature(enable = "avx2")]
        fn compiled(v: Avx2, state: &mut Columns<8>, blocks: &[&[Block]; 8]) {
            lanes::sha1(v, state, blocks);
        }
        // SAFETY: `self` proves that the processor has AVX2.
        unsafe { compiled(self, state, blocks) }
    }

    pub(super) fn sha256(self, state: &mut Columns<8>, blocks: &[&[Block]; 8]) {
        #[target_feature(enable = "avx2")]
        fn compiled(v: Avx2, state: &mut Columns<8>, blocks: &[&[Block]; 8]) {
            lanes::sha256(v, state, blocks);
        }
        // SAFETY: `self` proves that the processor has AVX2.
        unsafe { compiled(self, state, blocks) }
    }
}

impl Vector<8> for Avx2 {
    type Words = __m256i;

    #[inline(always)]
    fn splat(self, word: u32) -> __m256i {
        // SAFETY: `self` proves that the processor has AVX2, and so AVX.
        unsafe { _mm256_set1_epi32(word as i32) }
    }

    #[inline(always)]
    fn load(self, words: &[u32; 8]) -> __m256i {
        // SAFETY: as above; the 32 bytes read are those of `words`, and may lie anywhere.
        unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
    }

    #[inline(always)]
    fn store(self, words: __m256i) -> [u32; 8] {
        let mut to = [0; 8];
        // SAFETY: as above; the 32 bytes written are those of `to`, and may lie anywhere.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), words) }
        to
    }

    #[inline(always)]
    fn add(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: `self` proves that the processor has AVX2.
        unsafe { _mm256_add_epi32(a, b) }
    }

    #[inline(always)]
    fn xor(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: `self` proves that the processor has AVX2.
        unsafe { _mm256_xor_si256(a, b) }
    }

    #[inline(always)]
    fn rotate<const LEFT: i32, const RIGHT: i32>(self, a: __m256i) -> __m256i {
        const { assert!(LEFT + RIGHT == 32) };
        // SAFETY: `self` proves that the processor has AVX2.
        unsafe { _mm256_or_si256(_mm256_slli_epi32::<LEFT>(a), _mm256_srli_epi32::<RIGHT>(a)) }
    }

    #[inline(always)]
    fn shift_right<const BY: i32>(self, a: __m256i) -> __m256i {
        // SAFETY: `self` proves that the processor has AVX2.
        unsafe { _mm256_srli_epi32::<BY>(a) }
    }

    #[inline(always)]
    fn parity(self, a: __m256i, b: __m256i, c: __m256i) -> __m256i {
        self.xor(self.xor(a, b), c)
    }

    #[inline(always)]
    fn choose(self, mask: __m256i, yes: __m256i, no: __m256i) -> __m256i {
        // SAFETY: `self` proves that the processor has AVX2.
        self.xor(no, unsafe { _mm256_and_si256(mask, self.xor(yes, no)) })
    }

    #[inline(always)]
    fn majority(self, a: __m256i, b: __m256i, c: __m256i) -> __m256i {
        // Where two agree it is theirs, else the third's.
        self.choose(self.xor(a, b), c, b)
    }

    #[inline(always)]
    fn words(self, blocks: [&Block; 8]) -> [__m256i; 16] {
        // SAFETY: `self` proves that the processor has AVX2; the two loads of a block read its
        // first and its last 32 bytes, which may lie anywhere.
        unsafe {
            let swap = _mm256_setr_epi32(
                0x0001_0203,
                0x0405_0607,
                0x0809_0a0b,
                0x0c0d_0e0f,
                0x0001_0203,
                0x0405_0607,
                0x0809_0a0b,
                0x0c0d_0e0f,
            );
            let mut halves = [[swap; 8]; 2];
            for (at, block) in blocks.iter().enumerate() {
                halves[0][at] = _mm256_loadu_si256(block.as_ptr().cast());
                halves[1][at] = _mm256_loadu_si256(block[32..].as_ptr().cast());
            }
            let [first, last] = [transpose(halves[0]), transpose(halves[1])];
            let mut words = [swap; 16];
            for at in 0..8 {
                words[at] = _mm256_shuffle_epi8(first[at], swap);
                words[8 + at] = _mm256_shuffle_epi8(last[at], swap);
            }
            words
        }
    }
}

/// Row and column swapped, of 8 rows of 8 words: by pairs of words, of double words, and of halves.
#[inline(always)]
unsafe fn transpose(r: [__m256i; 8]) -> [__m256i; 8] {
    // SAFETY: the caller has AVX2.
    unsafe {
        let mut pairs = r;
        for at in (0..8).step_by(2) {
            pairs[at] = _mm256_unpacklo_epi32(r[at], r[at + 1]);
            pairs[at + 1] = _mm256_unpackhi_epi32(r[at], r[at + 1]);
        }
        // quads[4g + c]: in half h the words 4h + c of the rows 4g to 4g + 3.
        let mut quads = pairs;
        for at in (0..8).step_by(4) {
            quads[at] = _mm256_unpacklo_epi64(pairs[at], pairs[at + 2]);
            quads[at + 1] = _mm256_unpackhi_epi64(pairs[at], pairs[at + 2]);
            quads[at + 2] = _mm256_unpacklo_epi64(pairs[at + 1], pairs[at + 3]);
            quads[at + 3] = _mm256_unpackhi_epi64(pairs[at + 1], pairs[at + 3]);
        }
        let mut columns = quads;
        for c in 0..4 {
            columns[c] = _mm256_permute2x128_si256::<0x20>(quads[c], quads[4 + c]);
            columns[4 + c] = _mm256_permute2x128_si256::<0x31>(quads[c], quads[4 + c]);
        }
        columns
    }
}
