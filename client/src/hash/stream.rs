//! [`Stream`]: one message on its way, of which many are hashed at once.

use std::marker::PhantomData;

use super::algorithm::{Algorithm, State};
use super::lanes::Block;
use super::schedule::{Job, Lanes};

/// A message of which some bytes have been hashed.
#[derive(Clone, Debug)]
pub struct Stream<A> {
    state: State,
    /// Bytes behind the last whole block.
    tail: Block,
    /// Bytes so far.
    len: u64,
    algorithm: PhantomData<A>,
}

impl<A: Algorithm> Stream<A> {
    /// The empty message.
    pub fn new() -> Self {
        Self { state: A::INITIAL, tail: [0; 64], len: 0, algorithm: PhantomData }
    }

    /// Appends bytes to this message alone.
    pub fn update(&mut self, bytes: &[u8]) {
        Lanes::ONE.update(&mut [(self, bytes)]);
    }

    /// The digest of what came so far.
    pub fn digest(&self) -> A::Digest {
        let mut end = self.end();
        A::one(&mut end.state, &end.blocks[..end.count]);
        A::digest(&end.state)
    }

    /// FIPS 180-4, 5.1.1: a one, zeros, and the length in bits.
    fn end(&self) -> End {
        let used = self.used();
        let count = if used < 64 - 8 { 1 } else { 2 };
        let mut blocks = [[0; 64]; 2];
        blocks[0][..used].copy_from_slice(&self.tail[..used]);
        blocks[0][used] = 0x80;
        blocks[count - 1][64 - 8..].copy_from_slice(&self.len.wrapping_mul(8).to_be_bytes());
        End { state: self.state, blocks, count }
    }

    /// Puts bytes behind the last whole block, up to a whole one; returns what is left.
    fn fill<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let used = self.used();
        let (now, rest) = bytes.split_at(bytes.len().min(self.tail.len() - used));
        self.tail[used..used + now.len()].copy_from_slice(now);
        self.len += now.len() as u64;
        rest
    }

    /// Bytes in `tail`, unless it has just been filled.
    fn used(&self) -> usize {
        (self.len % 64) as usize
    }
}

impl<A: Algorithm> Default for Stream<A> {
    fn default() -> Self {
        Self::new()
    }
}

impl Lanes {
    /// Appends bytes to each message, side by side.
    pub fn update<A: Algorithm>(self, messages: &mut [(&mut Stream<A>, &[u8])]) {
        let mut begun = Vec::new();
        for (stream, bytes) in messages.iter_mut().filter(|(stream, _)| stream.used() > 0) {
            *bytes = stream.fill(bytes);
            if stream.used() == 0 {
                begun.push(Job { state: &mut stream.state, blocks: std::slice::from_ref(&stream.tail) });
            }
        }
        self.run::<A>(&mut begun);
        let mut jobs = Vec::with_capacity(messages.len());
        for (stream, bytes) in messages {
            let (blocks, rest) = bytes.as_chunks();
            stream.len += size_of_val(blocks) as u64;
            stream.fill(rest);
            jobs.push(Job { state: &mut stream.state, blocks });
        }
        self.run::<A>(&mut jobs);
    }

    /// The digests of what came so far, side by side.
    pub fn digests<'a, A: Algorithm + 'a>(
        self,
        messages: impl IntoIterator<Item = &'a Stream<A>>,
    ) -> Vec<A::Digest> {
        let mut ends: Vec<_> = messages.into_iter().map(Stream::end).collect();
        let jobs = ends.iter_mut().map(|end| Job { state: &mut end.state, blocks: &end.blocks[..end.count] });
        self.run::<A>(&mut jobs.collect::<Vec<_>>());
        ends.iter().map(|end| A::digest(&end.state)).collect()
    }

    /// The digests of whole messages, each of which lies in several slices.
    pub fn hash<A: Algorithm>(self, messages: &[&[&[u8]]]) -> Vec<A::Digest> {
        let mut streams: Vec<_> = messages.iter().map(|_| Stream::<A>::new()).collect();
        let most = messages.iter().map(|slices| slices.len()).max().unwrap_or(0);
        for at in 0..most {
            let parts = streams.iter_mut().zip(messages);
            let parts = parts.filter_map(|(stream, slices)| Some((stream, *slices.get(at)?)));
            self.update(&mut parts.collect::<Vec<_>>());
        }
        self.digests(&streams)
    }
}

/// The last blocks of a message.
struct End {
    state: State,
    blocks: [Block; 2],
    count: usize,
}
