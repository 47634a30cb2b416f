//! 16 lanes of AVX-512. Unsafe is the use of its instructions alone: an [`Avx512`] is made only
//! where the processor has them.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::lanes::{self, Block, Columns, Vector};

/// Proof that the processor has AVX-512 F and BW.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx512(());

impl Avx512 {
    pub(super) const LANES: usize = 16;

    pub(super) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
        has.then_some(Self(()))
    }

    pub(super) fn sha1(self, state: &mut Columns<16>, blocks: &[&[Block]; 16]) {
        #[target_feature(enable = "avx512f,avx512bw")]
        fn compiled(v: Avx512, state: &mut Columns<16>, blocks: &[&[Block]; 16]) {
            lanes::sha1(v, state, blocks);
        }
        // SAFETY: `self` proves that the processor has both features.
        unsafe { compiled(self, state, blocks) }
    }

    pub(super) fn sha256(self, state: &mut Columns<16>, blocks: &[&[Block]; 16]) {
        #[target_feature(enable = "avx512f,avx512bw")]
        fn compiled(v: Avx512, state: &mut Columns<16>, blocks: &[&[Block]; 16]) {
            lanes::sha256(v, state, blocks);
        }
        // SAFETY: `self` proves that the processor has both features.
        unsafe { compiled(self, state, blocks) }
    }
}

impl Vector<16> for Avx512 {
    type Words = __m512i;

    #[inline(always)]
    fn splat(self, word: u32) -> __m512i {
        // SAFETY: `self` proves that the processor has AVX-512 F.
        unsafe { _mm512_set1_epi32(word as i32) }
    }

    #[inline(always)]
    fn load(self, words: &[u32; 16]) -> __m512i {
        // SAFETY: as above; the 64 bytes read are those of `words`, and may lie anywhere.
        unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
    }

    #[inline(always)]
    fn store(self, words: __m512i) -> [u32; 16] {
        let mut to = [0; 16];
        // SAFETY: as above; the 64 bytes written are those of `to`, and may lie anywhere.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), words) }
        to
    }

    #[inline(always)]
    fn add(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: `self` proves that the processor has AVX-512 F.
        unsafe { _mm512_add_epi32(a, b) }
    }

    #[inline(always)]
    fn xor(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: `self` proves that the processor has AVX-512 F.
        unsafe { _mm512_xor_si512(a, b) }
    }

    #[inline(always)]
    fn rotate<const LEFT: i32, const RIGHT: i32>(self, a: __m512i) -> __m512i {
        const { assert!(LEFT + RIGHT == 32) };
        // SAFETY: `self` proves that the processor has AVX-512 F.
        unsafe { _mm512_rol_epi32::<LEFT>(a) }
    }

    #[inline(always)]
    fn shift_right<const BY: i32>(self, a: __m512i) -> __m512i {
        // SAFETY: `self` proves that the processor has AVX-512 F.
        unsafe { _mm512_srlv_epi32(a, _mm512_set1_epi32(BY)) }
    }

    // The constant of a ternary operation is its column of the truth table: bit 4a + 2b + c.

    #[inline(always)]
    fn parity(self, a: __m512i, b: __m512i, c: __m512i) -> __m512i {
        // SAFETY: `self` proves that the processor has AVX-512 F.
        unsafe { _mm512_ternarylogic_epi32::<0b1001_0110>(a, b, c) }
    }

    #[inline(always)]
    fn choose(self, mask: __m512i, yes: __m512i, no: __m512i) -> __m512i {
        // SAFETY: `self` proves that the processor has AVX-512 F.
        unsafe { _mm512_ternarylogic_epi32::<0b1100_1010>(mask, yes, no) }
    }

    #[inline(always)]
    fn majority(self, a: __m512i, b: __m512i, c: __m512i) -> __m512i {
        // SAFETY: `self` proves that the processor has AVX-512 F.
        unsafe { _mm512_ternarylogic_epi32::<0b1110_1000>(a, b, c) }
    }

    #[inline(always)]
    fn words(self, blocks: [&Block; 16]) -> [__m512i; 16] {
        // SAFETY: `self` proves that the processor has AVX-512 F and BW; each load reads the 64
        // bytes of its block, which may lie anywhere.
        unsafe {
            let swap = _mm512_set4_epi32(0x0c0d_0e0f, 0x0809_0a0b, 0x0405_0607, 0x0001_0203);
            let mut rows = [swap; 16];
            for (row, block) in rows.iter_mut().zip(blocks) {
                *row = _mm512_loadu_si512(block.as_ptr().cast());
            }
            let mut words = transpose(rows);
            for words in &mut words {
                *words = _mm512_shuffle_epi8(*words, swap);
            }
            words
        }
    }
}

/// Row and column swapped, of 16 rows of 16 words: by pairs of words, of double words, and twice of
/// quarters.
#[inline(always)]
unsafe fn transpose(r: [__m512i; 16]) -> [__m512i; 16] {
    // SAFETY: the caller has AVX-512 F.
    unsafe {
        let mut pairs = r;
        for at in (0..16).step_by(2) {
            pairs[at] = _mm512_unpacklo_epi32(r[at], r[at + 1]);
            pairs[at + 1] = _mm512_unpackhi_epi32(r[at], r[at + 1]);
        }
        // quads[4g + c]: in quarter q the words 4q + c of the rows 4g to 4g + 3.
        let mut quads = pairs;
        for at in (0..16).step_by(4) {
            quads[at] = _mm512_unpacklo_epi64(pairs[at], pairs[at + 2]);
            quads[at + 1] = _mm512_unpackhi_epi64(pairs[at], pairs[at + 2]);
            quads[at + 2] = _mm512_unpacklo_epi64(pairs[at + 1], pairs[at + 3]);
            quads[at + 3] = _mm512_unpackhi_epi64(pairs[at + 1], pairs[at + 3]);
        }
        let mut columns = quads;
        for c in 0..4 {
            // Of the rows 0 to 7 and of 8 to 15: the quarters 0 and 2, then 1 and 3.
            let even_low = _mm512_shuffle_i32x4::<0b10_00_10_00>(quads[c], quads[4 + c]);
            let odd_low = _mm512_shuffle_i32x4::<0b11_01_11_01>(quads[c], quads[4 + c]);
            let even_high = _mm512_shuffle_i32x4::<0b10_00_10_00>(quads[8 + c], quads[12 + c]);
            let odd_high = _mm512_shuffle_i32x4::<0b11_01_11_01>(quads[8 + c], quads[12 + c]);
            columns[c] = _mm512_shuffle_i32x4::<0b10_00_10_00>(even_low, even_high);
            columns[8 + c] = _mm512_shuffle_i32x4::<0b11_01_11_01>(even_low, even_high);
            columns[4 + c] = _mm512_shuffle_i32x4::<0b10_00_10_00>(odd_low, odd_high);
            columns[12 + c] = _mm512_shuffle_i32x4::<0b11_01_11_01>(odd_low, odd_high);
        }
        columns
    }
}
