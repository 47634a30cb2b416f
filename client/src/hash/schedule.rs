//! [`Lanes`]: which vectors the processor has, and how messages are put into them.

use arrayvec::ArrayVec;

use super::algorithm::sealed::Compress as _;
use super::algorithm::{Algorithm, Sha1, State};
#[cfg(target_arch = "x86_64")]
use super::avx2::Avx2;
#[cfg(target_arch = "x86_64")]
use super::avx512::Avx512;
use super::lanes::{Block, Columns};

/// The most lanes that any processor has.
const MAX: usize = 16;
/// How many messages are hashed side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lanes(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    One,
    #[cfg(target_arch = "x86_64")]
    Eight(Avx2),
    /// A few messages are hashed in 8 lanes there too.
    #[cfg(target_arch = "x86_64")]
    Sixteen(Avx2, Avx512),
}

/// Whole blocks of a message, to be compressed into its state.
#[derive(Debug)]
pub(super) struct Job<'a> {
    pub(super) state: &'a mut State,
    pub(super) blocks: &'a [Block],
}

impl Lanes {
    /// One message after the other, on every processor.
    pub const ONE: Self = Self(Kind::One);

    /// What to use on this processor: the most that it has. In debug builds one after the other:
    /// lanes that are not optimised take a hundred times as long as the crates, which always are.
    pub fn best() -> Self {
        match cfg!(debug_assertions) {
            true => Self::ONE,
            false => Self::available().pop().unwrap_or(Self::ONE),
        }
    }

    /// All that this processor has, fewest first.
    pub fn available() -> ArrayVec<Self, 3> {
        let mut all = ArrayVec::from_iter([Self::ONE]);
        #[cfg(target_arch = "x86_64")]
        if let Some(avx2) = Avx2::detect() {
            all.push(Self(Kind::Eight(avx2)));
            all.extend(Avx512::detect().map(|avx512| Self(Kind::Sixteen(avx2, avx512))));
        }
        all
    }

    /// Messages side by side.
    pub fn count(self) -> usize {
        match self.0 {
            Kind::One => 1,
            #[cfg(target_arch = "x86_64")]
            Kind::Eight(_) => Avx2::LANES,
            #[cfg(target_arch = "x86_64")]
            Kind::Sixteen(..) => Avx512::LANES,
        }
    }

    /// How many of `messages` equal ones a thread should take at a time, so that `threads` of them
    /// end together with lanes as full as can be.
    pub fn share(self, messages: usize, threads: usize) -> usize {
        let each = messages.div_ceil(threads.max(1)).max(1);
        each.div_ceil(each.div_ceil(self.count()))
    }

    /// Compresses all jobs. A lane whose job has ended is given the next one.
    pub(super) fn run<A: Algorithm>(self, jobs: &mut [Job<'_>]) {
        let mut waiting = jobs.iter_mut().filter(|job| !job.blocks.is_empty());
        let mut active: ArrayVec<_, MAX> = ArrayVec::new();
        loop {
            active.extend(waiting.by_ref().take(self.count() - active.len()));
            if !self.step::<A>(&mut active) {
                break;
            }
            active.retain(|job| !job.blocks.is_empty());
        }
        active.into_iter().chain(waiting).for_each(|job| A::one(job.state, job.blocks));
    }

    /// Compresses as many blocks of each job as the shortest has; says no if there are too few jobs.
    fn step<A: Algorithm>(self, active: &mut [&mut Job<'_>]) -> bool {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Sixteen(_, v) if active.len() > Avx2::LANES => {
                side_by_side(active, |state, blocks| A::sixteen(v, state, blocks));
            }
            #[cfg(target_arch = "x86_64")]
            Kind::Sixteen(v, _) if active.len() >= A::WORTH => {
                side_by_side(active, |state, blocks| A::eight(v, state, blocks));
            }
            #[cfg(target_arch = "x86_64")]
            Kind::Eight(v) if active.len() >= Sha1::WORTH => {
                side_by_side(active, |state, blocks| A::eight(v, state, blocks));
            }
            _ => return false,
        }
        true
    }
}

/// Lanes that are left over compress the first job's blocks again, for nothing.
fn side_by_side<const LANES: usize>(
    jobs: &mut [&mut Job<'_>],
    compress: impl FnOnce(&mut Columns<LANES>, &[&[Block]; LANES]),
) {
    let count = jobs.iter().map(|job| job.blocks.len()).min().unwrap_or(0);
    let mut state = [[0; LANES]; 8];
    let mut blocks: [&[Block]; LANES] = [jobs.first().map_or(&[], |job| &job.blocks[..count]); LANES];
    for (lane, job) in jobs.iter_mut().enumerate() {
        let rest;
        (blocks[lane], rest) = job.blocks.split_at(count);
        job.blocks = rest;
        state.iter_mut().zip(&*job.state).for_each(|(column, word)| column[lane] = *word);
    }
    compress(&mut state, &blocks);
    for (lane, job) in jobs.iter_mut().enumerate() {
        job.state.iter_mut().zip(&state).for_each(|(word, column)| *word = column[lane]);
    }
}
