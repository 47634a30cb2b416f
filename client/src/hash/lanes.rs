//! The compression functions of SHA-1 and SHA-256 (FIPS 180-4) over as many messages as a vector has
//! lanes, written once for every width. What a vector can do is told by [`Vector`].
//!
//! Everything is inlined into the one function of each width that is compiled for its instructions;
//! a call in between would pass every vector through memory.

/// A message block.
pub(super) type Block = [u8; 64];

/// The states of all lanes, word by word. SHA-1 has five words; the rest is left alone.
pub(super) type Columns<const LANES: usize> = [[u32; LANES]; 8];

/// Vectors of `LANES` words of 32 bits. The value itself is the proof that the processor has them.
pub(super) trait Vector<const LANES: usize>: Copy {
    /// One word of each lane.
    type Words: Copy;

    fn splat(self, word: u32) -> Self::Words;
    fn load(self, words: &[u32; LANES]) -> Self::Words;
    fn store(self, words: Self::Words) -> [u32; LANES];
    fn add(self, a: Self::Words, b: Self::Words) -> Self::Words;
    fn xor(self, a: Self::Words, b: Self::Words) -> Self::Words;
    /// `LEFT + RIGHT` is 32.
    fn rotate<const LEFT: i32, const RIGHT: i32>(self, a: Self::Words) -> Self::Words;
    fn shift_right<const BY: i32>(self, a: Self::Words) -> Self::Words;
    /// FIPS 180-4, "Parity".
    fn parity(self, a: Self::Words, b: Self::Words, c: Self::Words) -> Self::Words;
    /// FIPS 180-4, "Ch": of each bit, `yes` where `mask` is set, else `no`.
    fn choose(self, mask: Self::Words, yes: Self::Words, no: Self::Words) -> Self::Words;
    /// FIPS 180-4, "Maj".
    fn majority(self, a: Self::Words, b: Self::Words, c: Self::Words) -> Self::Words;
    /// The 16 big-endian words of a block of each lane.
    fn words(self, blocks: [&Block; LANES]) -> [Self::Words; 16];
}

macro_rules! rounds {
    ($round:ident, $vector:expr, $state:expr, $words:expr, $($number:literal)*) => {
        $($round::<$number, LANES, V>($vector, $state, $words);)*
    };
}

/// Compresses the blocks of all lanes into their states. Only as many blocks are taken as
/// every lane has.
#[inline(always)]
pub(super) fn sha1<const LANES: usize, V: Vector<LANES>>(
    v: V,
    state: &mut Columns<LANES>,
    blocks: &[&[Block]; LANES],
) {
    let [a, b, c, d, e, ..] = state;
    let mut sum = [v.load(a), v.load(b), v.load(c), v.load(d), v.load(e)];
    for at in 0..shortest(blocks) {
        let mut w = v.words(blocks_at(blocks, at));
        let mut s = sum;
        rounds!(sha1_round, v, &mut s, &mut w,
             0  1  2  3  4  5  6  7  8  9 10 11 12 13 14 15 16 17 18 19
            20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39
            40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59
            60 61 62 63 64 65 66 67 68 69 70 71 72 73 74 75 76 77 78 79);
        for (sum, s) in sum.iter_mut().zip(s) {
            *sum = v.add(*sum, s);
        }
    }
    for (words, sum) in state.iter_mut().zip(sum) {
        *words = v.store(sum);
    }
}

#[inline(always)]
fn sha1_round<const T: usize, const LANES: usize, V: Vector<LANES>>(
    v: V,
    state: &mut [V::Words; 5],
    w: &mut [V::Words; 16],
) {
    let [a, b, c, d, e] = *state;
    if T >= 16 {
        let mixed = v.parity(w[(T - 3) % 16], w[(T - 8) % 16], w[(T - 14) % 16]);
        w[T % 16] = v.rotate::<1, 31>(v.xor(mixed, w[T % 16]));
    }
    let (f, k) = match T / 20 {
        0 => (v.choose(b, c, d), 0x5a82_7999),
        1 => (v.parity(b, c, d), 0x6ed9_eba1),
        2 => (v.majority(b, c, d), 0x8f1b_bcdc),
        _ => (v.parity(b, c, d), 0xca62_c1d6),
    };
    // What is known first is added first: only two additions wait for `a` and `b`.
    let early = v.add(v.add(w[T % 16], v.splat(k)), e);
    let next = v.add(v.add(early, f), v.rotate::<5, 27>(a));
    *state = [next, a, v.rotate::<30, 2>(b), c, d];
}

/// Like [`sha1()`].
#[inline(always)]
pub(super) fn sha256<const LANES: usize, V: Vector<LANES>>(
    v: V,
    state: &mut Columns<LANES>,
    blocks: &[&[Block]; LANES],
) {
    let [a, b, c, d, e, f, g, h] = state;
    let mut sum = [v.load(a), v.load(b), v.load(c), v.load(d), v.load(e), v.load(f), v.load(g), v.load(h)];
    for at in 0..shortest(blocks) {
        let mut w = v.words(blocks_at(blocks, at));
        let mut s = sum;
        rounds!(sha256_round, v, &mut s, &mut w,
             0  1  2  3  4  5  6  7  8  9 10 11 12 13 14 15
            16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31
            32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47
            48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63);
        for (sum, s) in sum.iter_mut().zip(s) {
            *sum = v.add(*sum, s);
        }
    }
    for (words, sum) in state.iter_mut().zip(sum) {
        *words = v.store(sum);
    }
}

#[inline(always)]
fn sha256_round<const T: usize, const LANES: usize, V: Vector<LANES>>(
    v: V,
    state: &mut [V::Words; 8],
    w: &mut [V::Words; 16],
) {
    let [a, b, c, d, e, f, g, h] = *state;
    if T >= 16 {
        let (old, new) = (w[(T - 15) % 16], w[(T - 2) % 16]);
        let small0 = v.parity(v.rotate::<25, 7>(old), v.rotate::<14, 18>(old), v.shift_right::<3>(old));
        let small1 = v.parity(v.rotate::<15, 17>(new), v.rotate::<13, 19>(new), v.shift_right::<10>(new));
        w[T % 16] = v.add(v.add(w[T % 16], small0), v.add(w[(T - 7) % 16], small1));
    }
    let large0 = v.parity(v.rotate::<30, 2>(a), v.rotate::<19, 13>(a), v.rotate::<10, 22>(a));
    let large1 = v.parity(v.rotate::<26, 6>(e), v.rotate::<21, 11>(e), v.rotate::<7, 25>(e));
    let early = v.add(v.add(w[T % 16], v.splat(SHA256_K[T])), h);
    let first = v.add(v.add(early, v.choose(e, f, g)), large1);
    let second = v.add(large0, v.majority(a, b, c));
    *state = [v.add(first, second), a, b, c, v.add(d, first), e, f, g];
}

/// The blocks of all lanes at one place. No `map`: it would not be inlined.
#[inline(always)]
fn blocks_at<'a, const LANES: usize>(blocks: &[&'a [Block]; LANES], at: usize) -> [&'a Block; LANES] {
    let mut these = [&[0; 64]; LANES];
    for (this, blocks) in these.iter_mut().zip(blocks) {
        *this = &blocks[at];
    }
    these
}

#[inline(always)]
fn shortest<const LANES: usize>(blocks: &[&[Block]; LANES]) -> usize {
    blocks.iter().map(|blocks| blocks.len()).min().unwrap_or(0)
}

/// FIPS 180-4, 4.2.2.
const SHA256_K: [u32; 64] = [
    0x428a_2f98,
    0x7137_4491,
    0xb5c0_fbcf,
    0xe9b5_dba5,
    0x3956_c25b,
    0x59f1_11f1,
    0x923f_82a4,
    0xab1c_5ed5,
    0xd807_aa98,
    0x1283_5b01,
    0x2431_85be,
    0x550c_7dc3,
    0x72be_5d74,
    0x80de_b1fe,
    0x9bdc_06a7,
    0xc19b_f174,
    0xe49b_69c1,
    0xefbe_4786,
    0x0fc1_9dc6,
    0x240c_a1cc,
    0x2de9_2c6f,
    0x4a74_84aa,
    0x5cb0_a9dc,
    0x76f9_88da,
    0x983e_5152,
    0xa831_c66d,
    0xb003_27c8,
    0xbf59_7fc7,
    0xc6e0_0bf3,
    0xd5a7_9147,
    0x06ca_6351,
    0x1429_2967,
    0x27b7_0a85,
    0x2e1b_2138,
    0x4d2c_6dfc,
    0x5338_0d13,
    0x650a_7354,
    0x766a_0abb,
    0x81c2_c92e,
    0x9272_2c85,
    0xa2bf_e8a1,
    0xa81a_664b,
    0xc24b_8b70,
    0xc76c_51a3,
    0xd192_e819,
    0xd699_0624,
    0xf40e_3585,
    0x106a_a070,
    0x19a4_c116,
    0x1e37_6c08,
    0x2748_774c,
    0x34b0_bcb5,
    0x391c_0cb3,
    0x4ed8_aa4a,
    0x5b9c_ca4f,
    0x682e_6ff3,
    0x748f_82ee,
    0x78a5_636f,
    0x84c8_7814,
    0x8cc7_0208,
    0x90be_fffa,
    0xa450_6ceb,
    0xbef9_a3f7,
    0xc671_78f2,
];
