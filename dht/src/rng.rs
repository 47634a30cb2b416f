//! Randomness for the cores: a small seedable generator and a keyed hash for tables whose keys
//! strangers choose. Seeds come from outside ([`Seeds`]); the cores never ask the system for them.

use std::hash::{BuildHasher, Hasher};

use krpc::Id;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

/// Everything random about one node, as one seed.
#[derive(Clone, Copy, Debug)]
pub struct Seeds(pub [u8; 32]);

impl Seeds {
    /// Seeds for tests and simulation from one number.
    pub fn from_u64(seed: u64) -> Self {
        let mut bytes = [0; 32];
        Rng::from_seed(seed).fill(&mut bytes);
        Self(bytes)
    }

    /// An independent seed for the part called `name`.
    pub fn derive(&self, name: &str) -> Self {
        use sha1::{Digest as _, Sha1};
        let first = Sha1::new().chain_update(self.0).chain_update(b"a").chain_update(name).finalize();
        let second = Sha1::new().chain_update(self.0).chain_update(b"b").chain_update(name).finalize();
        let mut bytes = [0; 32];
        bytes[..20].copy_from_slice(&first);
        bytes[20..].copy_from_slice(&second[..12]);
        Self(bytes)
    }
}

/// A fast generator for jitter, sampling and transaction ids. Its stream for a seed is fixed by the
/// algorithm (xoshiro256++), not by the version of a library, so that runs can be replayed.
#[derive(Clone, Debug)]
pub struct Rng(Xoshiro256PlusPlus);

impl Rng {
    /// A generator from the given seeds.
    pub fn new(seeds: Seeds) -> Self {
        Self(Xoshiro256PlusPlus::from_seed(seeds.0))
    }

    /// A generator for tests from one number.
    pub fn from_seed(seed: u64) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    /// A uniform `u64`.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A uniform `u32`.
    pub fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// A uniform number below `bound`; 0 when `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { self.0.random_range(0..bound) }
    }

    /// Whether an event of probability `numerator / denominator` happens.
    pub fn chance(&mut self, numerator: u32, denominator: u32) -> bool {
        self.below(denominator as usize) < numerator as usize
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    /// A uniform id.
    pub fn id(&mut self) -> Id {
        let mut bytes = [0; Id::LEN];
        self.fill(&mut bytes);
        Id::new(bytes)
    }
}

/// A keyed hash for maps whose keys strangers choose: without the key nobody can aim for one
/// bucket. Deterministic for a key, so that simulated runs repeat.
#[derive(Clone, Copy, Debug)]
pub struct KeyedHash {
    k0: u64,
    k1: u64,
}

impl KeyedHash {
    /// A hash keyed from `rng`.
    pub fn new(rng: &mut Rng) -> Self {
        Self { k0: rng.next_u64(), k1: rng.next_u64() }
    }

    /// Hashes `bytes` in one call.
    pub fn hash(&self, bytes: &[u8]) -> u64 {
        let mut hasher = self.build_hasher();
        hasher.write(bytes);
        hasher.finish()
    }
}

impl BuildHasher for KeyedHash {
    type Hasher = KeyedHasher;

    fn build_hasher(&self) -> KeyedHasher {
        KeyedHasher { state: self.k0, key: self.k1 | 1 }
    }
}

/// The running state of a [`KeyedHash`]: folded 64×64→128-bit multiplication per eight bytes, with
/// the secret key as multiplier.
#[derive(Clone, Copy, Debug)]
pub struct KeyedHasher {
    state: u64,
    key: u64,
}

impl KeyedHasher {
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(self.key ^ self.state.rotate_left(32) | 1);
        self.state = (product as u64) ^ ((product >> 64) as u64) ^ self.key.rotate_left(17);
    }
}

impl Hasher for KeyedHasher {
    fn write(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            self.mix(u64::from_le_bytes(word.try_into().expect("chunks of 8")));
        }
        let mut rest = [0; 8];
        let tail = words.remainder();
        rest[..tail.len()].copy_from_slice(tail);
        self.mix(u64::from_le_bytes(rest) ^ ((bytes.len() as u64) << 56));
    }

    fn finish(&self) -> u64 {
        let mut last = *self;
        last.mix(0x9e37_79b9_7f4a_7c15);
        last.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_stream() {
        let (mut a, mut b) = (Rng::from_seed(7), Rng::from_seed(7));
        assert_eq!(
            (0..9).map(|_| a.next_u64()).collect::<Vec<_>>(),
            (0..9).map(|_| b.next_u64()).collect::<Vec<_>>()
        );
        assert_ne!(Seeds::from_u64(1).derive("a").0, Seeds::from_u64(1).derive("b").0);
    }

    #[test]
    fn keyed_hashes_differ_by_key_and_by_length() {
        let mut rng = Rng::from_seed(1);
        let (a, b) = (KeyedHash::new(&mut rng), KeyedHash::new(&mut rng));
        assert_ne!(a.hash(b"x"), b.hash(b"x"));
        assert_ne!(a.hash(b"x"), a.hash(b"x\0"));
        assert_eq!(a.hash(b"x"), a.hash(b"x"));
    }

    #[test]
    fn keyed_hash_spreads_neighbouring_keys_over_buckets() {
        let hash = KeyedHash::new(&mut Rng::from_seed(3));
        let mut buckets = [0u32; 256];
        for n in 0..25_600u32 {
            buckets[(hash.hash(&n.to_be_bytes()) & 255) as usize] += 1;
        }
        assert!(buckets.iter().all(|&count| (40..=180).contains(&count)), "{buckets:?}");
    }
}
