//! [`Pieces`]: pieces hashed side by side, of which only a slice each is in memory at a time.

use super::{Lanes, Sha1, Stream};
use crate::buffer::Buffer;

/// Least bytes of each piece that are read and hashed at a time: 16 of them stay in the second-level cache
/// of a core between both.
const SLICE: u32 = 32 << 10;
/// Bytes that are read at a time if the pieces are few: each gets a larger slice, which takes fewer calls.
const SLICES: usize = 256 << 10;
/// Bytes of each piece that are announced at a time, one such part ahead. Read in slices alone, the
/// pieces would make a disk seek for each.
const AHEAD: u32 = 1 << 20;

/// Where pieces that `K` names are read.
pub trait Source<K> {
    /// Why a piece cannot be read.
    type Error;

    /// These bytes of a piece will be read soon, if they are there.
    fn ahead(&self, piece: K, begin: u32, len: u32);

    /// Fills `to` from an offset in a piece; says no if the piece is not there.
    fn read(&self, piece: K, begin: u32, to: &mut [u8]) -> Result<bool, Self::Error>;
}

/// Some pieces on their way.
#[derive(Debug)]
pub struct Pieces<K> {
    lanes: Lanes,
    members: Vec<Member<K>>,
    /// Bytes of each that are hashed.
    begin: u32,
}

#[derive(Debug)]
struct Member<K> {
    key: K,
    len: u32,
    /// `None` once it was found missing.
    stream: Option<Stream<Sha1>>,
}

impl<K: Copy> Pieces<K> {
    /// Pieces of these lengths: as many as [`Lanes::share`] says.
    pub fn new(lanes: Lanes, pieces: impl IntoIterator<Item = (K, u32)>) -> Self {
        let member = |(key, len)| Member { key, len, stream: Some(Stream::new()) };
        Self { lanes, members: pieces.into_iter().map(member).collect(), begin: 0 }
    }

    /// Reads a slice of each piece and hashes it; says whether there is more to do. After an error
    /// the step can be tried again. `buffer` grows to 32 KiB a piece, or 256 KiB if they are fewer than eight, and may
    /// be used for other pieces later.
    pub fn step<S: Source<K>>(&mut self, source: &S, buffer: &mut Buffer) -> Result<bool, S::Error> {
        self.announce(source);
        let slice_len = self.slice_len();
        buffer.grow(self.members.len() * slice_len as usize);
        let mut parts = Vec::with_capacity(self.members.len());
        for (member, slice) in self.members.iter_mut().zip(buffer.chunks_exact_mut(slice_len as usize)) {
            let len = member.len.saturating_sub(self.begin).min(slice_len);
            let slice = &mut slice[..len as usize];
            if member.stream.is_some() && len > 0 && !source.read(member.key, self.begin, slice)? {
                member.stream = None;
            }
            parts.extend(member.stream.as_mut().map(|stream| (stream, &*slice)));
        }
        self.lanes.update(&mut parts);
        self.begin = self.begin.saturating_add(slice_len);
        Ok(self.members.iter().any(|member| member.stream.is_some() && member.len > self.begin))
    }

    /// The digest of each piece when no more is to be done, in their order; `None` if it is not
    /// there.
    pub fn digests(&self) -> impl Iterator<Item = (K, Option<[u8; 20]>)> {
        let there = self.members.iter().filter_map(|member| member.stream.as_ref());
        let mut digests = self.lanes.digests(there).into_iter();
        let digest = move |member: &Member<K>| match member.stream {
            Some(_) => (member.key, digests.next()),
            None => (member.key, None),
        };
        self.members.iter().map(digest)
    }

    /// Always the same for these pieces, and a part of what is announced at a time.
    fn slice_len(&self) -> u32 {
        (SLICES / self.members.len().next_power_of_two()).max(SLICE as usize) as u32
    }

    fn announce(&self, source: &impl Source<K>) {
        if !self.begin.is_multiple_of(AHEAD) {
            return;
        }
        let begin = if self.begin == 0 { 0 } else { self.begin.saturating_add(AHEAD) };
        let end = self.begin.saturating_add(2 * AHEAD);
        for member in self.members.iter().filter(|member| member.stream.is_some()) {
            let end = end.min(member.len);
            if begin < end {
                source.ahead(member.key, begin, end - begin);
            }
        }
    }
}
