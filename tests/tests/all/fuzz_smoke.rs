//! Replays each fuzz target over its seeds, the inputs of fixed bugs and a fixed sequence of
//! mutations.

use std::fs;
use std::path::Path;

use harness::fuzz::{TARGETS, Target};

#[test]
fn seeds_and_regressions_pass() {
    for target in TARGETS {
        inputs(target).iter().for_each(|input| (target.run)(input));
    }
}

#[test]
fn mutations_pass() {
    for target in TARGETS {
        let inputs = inputs(target);
        let mut random = SplitMix(0xb7d4_7a11);
        for round in 0..ROUNDS {
            let mutated = mutate(&inputs, &mut random);
            let outcome = std::panic::catch_unwind(|| (target.run)(&mutated));
            assert!(outcome.is_ok(), "{} round {round}: {}", target.name, mutated.escape_ascii());
        }
    }
}

/// Per target; all of them take some two minutes in a debug build, most of it the whole node and its shards.
const ROUNDS: u32 = 50_000;

fn inputs(target: &Target) -> Vec<Vec<u8>> {
    let mut inputs = (target.seeds)();
    assert!(!inputs.is_empty(), "{} has no seeds", target.name);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/regressions").join(target.name);
    if let Ok(files) = fs::read_dir(folder) {
        let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        paths.sort();
        inputs.extend(paths.iter().map(|path| fs::read(path).unwrap()));
    }
    inputs
}

/// One to four edits of one input: the edits that libFuzzer makes, without its feedback.
fn mutate(inputs: &[Vec<u8>], random: &mut SplitMix) -> Vec<u8> {
    let mut bytes = inputs[random.below(inputs.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let end = at + random.below(bytes.len() - at + 1).min(random.below(64));
        match random.below(7) {
            0 if at < bytes.len() => bytes[at] = random.next() as u8,
            1 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            2 => bytes.insert(at, b"0123456789:ilde-&=%"[random.below(19)]),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            5 => {
                let other = &inputs[random.below(inputs.len())];
                let from = random.below(other.len() + 1);
                bytes.splice(at..end, other[from..].iter().take(64).copied());
            }
            _ => {
                let number = [0, 1, 9, 255, 65_536, i64::MAX as u64, u64::MAX][random.below(7)];
                bytes.splice(at..end, number.to_string().into_bytes());
            }
        }
    }
    bytes
}

/// Sebastiano Vigna's SplitMix64: the same sequence on every machine and in every version.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 if `bound` is 0.
    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}
