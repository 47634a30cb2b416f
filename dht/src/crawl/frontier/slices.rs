//! [`Slices`]: the nodes of a frontier by where they are in the key space. A slice lists those who may be
//! asked, and those who live and may not be; which ones get a place is the frontier's business.

use std::net::SocketAddr;

use krpc::{Distance, Id};

use super::entry::Entry;
use crate::crawl::region::Region;

/// [`SLICES`] slices of the region for IPv4, as many for IPv6, and then those outside by the number of bits
/// that they share with it.
#[derive(Debug)]
pub(super) struct Slices {
    region: Region,
    all: Vec<Slice>,
    /// Most fresh nodes of a slice of the region.
    cap: usize,
    /// Fresh nodes in all.
    fresh: usize,
    /// Where the last node was taken from.
    cursor: usize,
}

#[derive(Debug, Default)]
pub(super) struct Slice {
    /// An even choice of the fresh nodes that were offered since there was room last.
    pub(super) nodes: Vec<Listed>,
    pub(super) offered: usize,
    /// Those who answered and rest, or refused.
    pub(super) alive: Vec<Listed>,
}

/// An entry in a list of a slice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listed {
    pub(super) index: u32,
    /// Bits of its id, the first in which those of a slice may differ: enough to pass over nearly everybody who
    /// is not among the nearest without a look at the entry, which lies anywhere in memory.
    head: u32,
}

/// Which list of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Fresh,
    Alive,
}

impl Slices {
    /// `cap` is of the fresh nodes in each slice of the region.
    pub(super) fn new(region: Region, cap: usize) -> Self {
        let all = (0..2 * SLICES + region.bits() as usize).map(|_| Slice::default()).collect();
        Self { region, all, cap, fresh: 0, cursor: 0 }
    }

    /// The slice that a node belongs to.
    pub(super) fn number(&self, id: &Id, addr: SocketAddr) -> usize {
        if !self.region.contains(id) {
            return 2 * SLICES + self.region.shared(id) as usize;
        }
        usize::from(addr.is_ipv6()) * SLICES + self.region.slice(id, SLICE_BITS)
    }

    /// Most fresh nodes in a slice.
    pub(super) fn cap(&self, number: usize) -> usize {
        if number < 2 * SLICES { self.cap } else { OUTSIDE_CAP }
    }

    pub(super) fn of(&mut self, number: usize) -> &mut Slice {
        &mut self.all[number]
    }

    /// Puts an entry at the end of a list of its slice.
    pub(super) fn push(&mut self, index: u32, which: Which, entries: &mut [Entry]) {
        let entry = &mut entries[index as usize];
        let number = self.number(&entry.id, entry.addr);
        let head = head(&entry.id, self.agreed(number));
        let slice = &mut self.all[number];
        let list = slice.list(which);
        entry.place = list.len() as u32;
        list.push(Listed { index, head });
        if which == Which::Fresh {
            slice.offered = slice.offered.max(slice.nodes.len());
            self.fresh += 1;
        }
    }

    /// Takes an entry out of that list of its slice; the last one there takes its place.
    pub(super) fn cut(&mut self, index: u32, which: Which, entries: &mut [Entry]) {
        let Entry { id, addr, place, .. } = entries[index as usize];
        let number = self.number(&id, addr);
        let slice = &mut self.all[number];
        let list = slice.list(which);
        list.swap_remove(place as usize);
        if let Some(moved) = list.get(place as usize) {
            entries[moved.index as usize].place = place;
        }
        if which == Which::Fresh {
            slice.offered = slice.nodes.len();
            self.fresh -= 1;
        }
    }

    /// The fresh nodes of the slice whose turn it is: one after the other, each far from the last; those outside
    /// of the region, nearest first, when there is nobody inside.
    pub(super) fn next(&mut self) -> Option<&[Listed]> {
        let inside = (1..=2 * SLICES).map(|step| (self.cursor + step * STRIDE) % (2 * SLICES));
        let outside = (2 * SLICES..self.all.len()).rev();
        let number = inside.chain(outside).find(|&number| !self.all[number].nodes.is_empty())?;
        if number < 2 * SLICES {
            self.cursor = number;
        }
        Some(&self.all[number].nodes)
    }

    pub(super) fn fresh(&self) -> usize {
        self.fresh
    }

    /// See [`super::Frontier::near`].
    pub(super) fn near(
        &self,
        target: &Id,
        ipv6: bool,
        count: usize,
        entries: &[Entry],
    ) -> Vec<(Id, SocketAddr)> {
        let nodes = self.from(target, ipv6).flat_map(|number| &self.all[number].nodes);
        let entries = nodes.map(|listed| &entries[listed.index as usize]);
        entries
            .filter(|entry| entry.addr.is_ipv6() == ipv6)
            .take(count)
            .map(|entry| (entry.id, entry.addr))
            .collect()
    }

    /// Indices of the entries that [`super::Frontier::nearest`] tells of.
    pub(super) fn nearest(&self, target: &Id, ipv6: bool, count: usize, entries: &[Entry]) -> Vec<u32> {
        let mut found = Vec::with_capacity(count);
        // Every slice is nearer than all that come after it.
        for number in self.from(target, ipv6) {
            if found.len() >= count {
                break;
            }
            let wanted = head(target, self.agreed(number));
            self.all[number].nearest((target, wanted), ipv6, count - found.len(), entries, &mut found);
        }
        found
    }

    /// The slices that have nodes of a family, from the nearest to `target` on.
    fn from(&self, target: &Id, ipv6: bool) -> impl Iterator<Item = usize> + use<> {
        let (first, own) = (if ipv6 { SLICES } else { 0 }, self.region.slice(target, SLICE_BITS));
        let outside = (2 * SLICES..self.all.len()).rev();
        (0..SLICES).map(move |step| first + (own ^ step)).chain(outside)
    }

    /// Bits that all ids of a slice share, at least.
    fn agreed(&self, number: usize) -> u32 {
        match number.checked_sub(2 * SLICES) {
            None => self.region.bits() + SLICE_BITS,
            Some(shared) => shared as u32,
        }
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Slice> {
        self.all.iter()
    }
}

impl Slice {
    fn list(&mut self, which: Which) -> &mut Vec<Listed> {
        match which {
            Which::Fresh => &mut self.nodes,
            Which::Alive => &mut self.alive,
        }
    }

    /// Appends the `count` nodes of a family that are nearest to a target, nearest first.
    fn nearest(
        &self,
        (target, wanted): (&Id, u32),
        ipv6: bool,
        count: usize,
        entries: &[Entry],
        found: &mut Vec<u32>,
    ) {
        // Few are wanted, so that each finds its place among those before it. The middle is the head's part of
        // the distance.
        let mut nearest: Vec<(Distance, u32, u32)> = Vec::with_capacity(count);
        for &Listed { index, head } in self.nodes.iter().chain(&self.alive) {
            let far = head ^ wanted;
            if nearest.len() == count && nearest.last().is_none_or(|last| far > last.1) {
                continue;
            }
            let entry = &entries[index as usize];
            let own = (entry.id.distance(target), far, index);
            let at = nearest.partition_point(|other| *other < own);
            if entry.addr.is_ipv6() == ipv6 && at < count {
                nearest.truncate(count - 1);
                nearest.insert(at, own);
            }
        }
        found.extend(nearest.into_iter().map(|(_, _, index)| index));
    }
}

/// 32 bits of an id behind the first `agreed` ones; zeros where it has ended.
fn head(id: &Id, agreed: u32) -> u32 {
    let (first, shift) = ((agreed / 8) as usize, agreed % 8);
    let byte = |n: usize| u64::from(id.as_bytes().get(first + n).copied().unwrap_or(0));
    let word = (0..5).fold(0, |word, n| word << 8 | byte(n));
    (word >> (8 - shift)) as u32
}

/// A slice is a 1024th of the region, of one family.
const SLICE_BITS: u32 = 10;
pub(super) const SLICES: usize = 1 << SLICE_BITS;
/// From one slice to the next that is asked in: about 0.38 of the way round, and no divisor of it, so that
/// all have their turn and neighbours in time are none in the key space.
const STRIDE: usize = 783;
/// Fresh nodes outside of the region that share a given number of bits with it.
const OUTSIDE_CAP: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_the_bits_behind_those_that_a_slice_agrees_in() {
        let id = Id::from_hex("0123456789abcdef0123456789abcdef01234567").unwrap();
        assert_eq!(head(&id, 0), 0x0123_4567);
        assert_eq!(head(&id, 12), 0x3456_789a);
        assert_eq!(head(&id, 10), (0x0123_4567_89ab_u64 >> 6) as u32);
        assert_eq!((head(&id, 144), head(&id, 160), head(&id, 170)), (0x4567_0000, 0, 0));
    }
}
