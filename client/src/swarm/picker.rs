//! [`Picker`]: which piece to begin next. Rarest first by availability buckets.
//!
//! The pieces that nobody has begun lie in one array, sorted by how many peers have them; `bounds`
//! says where each availability ends. A piece that becomes one more or less common swaps places with
//! the piece at the edge of its bucket, so that every update costs a step, however many pieces there
//! are. Peers that have everything are not counted at all: they change no order.

use btdht::Rng;

use super::has::Has;
use crate::bitfield::Bitfield;

/// Rarest-first order over the pieces that are wanted, missing and not begun.
#[derive(Debug)]
pub(super) struct Picker {
    order: Vec<u32>,
    /// Where a piece lies in `order`, or [`ABSENT`].
    place: Vec<u32>,
    /// Peers that have a piece, those with everything not counted.
    availability: Vec<u16>,
    /// `order[bounds[a - 1]..bounds[a]]` are the pieces of availability `a`.
    bounds: Vec<u32>,
    /// The pieces in `order`, as a set.
    fresh: Bitfield,
    #[cfg(test)]
    steps: std::cell::Cell<usize>,
}

/// How the next piece is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strategy {
    /// The piece that the fewest peers have.
    RarestFirst,
    /// Any.
    Random,
    /// The one with the lowest index.
    Sequential,
}

const ABSENT: u32 = u32::MAX;

impl Picker {
    /// A picker over `pieces` pieces, of which those in `fresh` may be begun. Their order within one
    /// availability is random, so that downloaders of one torrent begin with different pieces.
    pub(super) fn new(pieces: u32, fresh: &Bitfield, rng: &mut Rng) -> Self {
        let mut order: Vec<u32> = fresh.iter().collect();
        for at in (1..order.len()).rev() {
            order.swap(at, rng.below(at + 1));
        }
        let mut place = vec![ABSENT; pieces as usize];
        for (at, &piece) in order.iter().enumerate() {
            place[piece as usize] = at as u32;
        }
        Self {
            bounds: vec![order.len() as u32],
            order,
            place,
            availability: vec![0; pieces as usize],
            fresh: fresh.clone(),
            #[cfg(test)]
            steps: std::cell::Cell::new(0),
        }
    }

    /// One more peer has `piece`.
    pub(super) fn add(&mut self, piece: u32) {
        let Some(availability) = self.availability.get_mut(piece as usize) else { return };
        let before = *availability as usize;
        *availability += 1;
        if self.bounds.len() <= before + 1 {
            self.bounds.push(self.order.len() as u32);
        }
        if self.place[piece as usize] != ABSENT {
            self.raise(piece, before);
        }
    }

    /// One peer less has `piece`.
    pub(super) fn remove(&mut self, piece: u32) {
        let Some(availability) = self.availability.get_mut(piece as usize) else { return };
        let before = *availability as usize;
        *availability = availability.saturating_sub(1);
        if before > 0 && self.place[piece as usize] != ABSENT {
            self.lower(piece, before);
        }
    }

    /// A peer came with these pieces.
    pub(super) fn add_peer(&mut self, has: &Has) {
        if let Has::Some(pieces) = has {
            pieces.iter().for_each(|piece| self.add(piece));
        }
    }

    /// A peer with these pieces has gone.
    pub(super) fn remove_peer(&mut self, has: &Has) {
        if let Has::Some(pieces) = has {
            pieces.iter().for_each(|piece| self.remove(piece));
        }
    }

    /// `piece` may be begun (again).
    pub(super) fn put(&mut self, piece: u32) {
        if !self.fresh.insert(piece) {
            return;
        }
        let availability = self.availability[piece as usize] as usize;
        let top = self.bounds.len() - 1;
        self.place[piece as usize] = self.order.len() as u32;
        self.order.push(piece);
        self.bounds[top] += 1;
        for bucket in (availability + 1..=top).rev() {
            self.lower(piece, bucket);
        }
    }

    /// `piece` has been begun, or is no longer wanted.
    pub(super) fn take(&mut self, piece: u32) {
        if !self.fresh.remove(piece) {
            return;
        }
        for bucket in self.availability[piece as usize] as usize..self.bounds.len() - 1 {
            self.raise(piece, bucket);
        }
        let top = self.bounds.len() - 1;
        self.swap(piece, self.bounds[top] - 1);
        self.order.pop();
        self.bounds[top] -= 1;
        self.place[piece as usize] = ABSENT;
    }

    /// The piece to begin with a peer that has `has`. Looks at most at `max_steps` pieces in order of
    /// rarity, then takes any that the peer has, which costs a step per 64 pieces.
    pub(super) fn choose(
        &self,
        has: &Has,
        strategy: Strategy,
        max_steps: usize,
        rng: &mut Rng,
    ) -> Option<u32> {
        if self.order.is_empty() {
            return None;
        }
        let start = match strategy {
            Strategy::Sequential => return self.any(has, 0),
            Strategy::Random => rng.below(self.order.len()),
            Strategy::RarestFirst => 0,
        };
        let (before, from) = self.order.split_at(start);
        let rarest = from.iter().chain(before).take(max_steps).find(|&&piece| {
            self.step();
            has.contains(piece)
        });
        rarest.copied().or_else(|| {
            let from = rng.below(self.fresh.len() as usize) as u32;
            self.any(has, from).or_else(|| self.any(has, 0))
        })
    }

    /// The pieces that may be begun.
    pub(super) fn fresh(&self) -> &Bitfield {
        &self.fresh
    }

    fn any(&self, has: &Has, from: u32) -> Option<u32> {
        match has {
            Has::Nothing => None,
            Has::All => self.fresh.first_common(&self.fresh, from),
            Has::Some(pieces) => self.fresh.first_common(pieces, from),
        }
    }

    /// Moves `piece` from the end of bucket `bucket` into the next one.
    fn raise(&mut self, piece: u32, bucket: usize) {
        self.swap(piece, self.bounds[bucket] - 1);
        self.bounds[bucket] -= 1;
    }

    /// Moves `piece` from the start of bucket `bucket` into the one before.
    fn lower(&mut self, piece: u32, bucket: usize) {
        self.swap(piece, self.bounds[bucket - 1]);
        self.bounds[bucket - 1] += 1;
    }

    fn swap(&mut self, piece: u32, at: u32) {
        self.step();
        let from = self.place[piece as usize];
        let other = self.order[at as usize];
        self.order.swap(from as usize, at as usize);
        self.place[other as usize] = from;
        self.place[piece as usize] = at;
    }

    #[cfg(test)]
    fn step(&self) {
        self.steps.set(self.steps.get() + 1);
    }

    #[cfg(not(test))]
    #[inline]
    fn step(&self) {}
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert_eq, proptest};

    use super::*;

    fn picker(pieces: u32) -> (Picker, Rng) {
        let mut rng = Rng::from_seed(1);
        (Picker::new(pieces, &Bitfield::full(pieces), &mut rng), rng)
    }

    fn some(pieces: u32, members: &[u32]) -> Has {
        let mut field = Bitfield::new(pieces);
        for &member in members {
            field.insert(member);
        }
        Has::Some(field)
    }

    fn assert_sorted(picker: &Picker) {
        let mut start = 0;
        for (availability, &end) in picker.bounds.iter().enumerate() {
            for at in start..end {
                let piece = picker.order[at as usize];
                assert_eq!(picker.availability[piece as usize] as usize, availability);
                assert_eq!(picker.place[piece as usize], at);
                assert!(picker.fresh.contains(piece));
            }
            start = end;
        }
        assert_eq!(start as usize, picker.order.len());
        assert_eq!(picker.fresh.count() as usize, picker.order.len());
    }

    #[test]
    fn the_rarest_piece_that_the_peer_has_comes_first() {
        let (mut picker, mut rng) = picker(4);
        picker.add_peer(&some(4, &[0, 1, 2]));
        picker.add_peer(&some(4, &[0, 1]));
        picker.add_peer(&some(4, &[0]));
        let peer = some(4, &[0, 1, 2]);
        let mut chosen = Vec::new();
        while let Some(piece) = picker.choose(&peer, Strategy::RarestFirst, 100, &mut rng) {
            picker.take(piece);
            chosen.push(piece);
        }
        assert_eq!(chosen, [2, 1, 0]);
        assert_eq!(picker.choose(&Has::All, Strategy::RarestFirst, 100, &mut rng), Some(3));
        assert_eq!(picker.choose(&Has::Nothing, Strategy::RarestFirst, 100, &mut rng), None);
    }

    #[test]
    fn sequential_takes_the_lowest_index() {
        let (mut picker, mut rng) = picker(200);
        picker.take(0);
        assert_eq!(picker.choose(&Has::All, Strategy::Sequential, 9, &mut rng), Some(1));
        let peer = some(200, &[150, 199]);
        assert_eq!(picker.choose(&peer, Strategy::Sequential, 9, &mut rng), Some(150));
    }

    #[test]
    fn different_seeds_begin_with_different_pieces() {
        let first = |seed| {
            let mut rng = Rng::from_seed(seed);
            let picker = Picker::new(1000, &Bitfield::full(1000), &mut rng);
            picker.choose(&Has::All, Strategy::RarestFirst, 9, &mut rng)
        };
        assert_ne!(first(1), first(2));
        assert_eq!(first(1), first(1));
    }

    #[test]
    fn steps_do_not_grow_with_the_number_of_pieces() {
        const PIECES: u32 = 2_000_000;
        let (mut picker, mut rng) = picker(PIECES);
        for round in 0..50 {
            for piece in (0..PIECES).step_by(20_000) {
                picker.add(piece + round);
            }
        }
        let rare = some(PIECES, &[77, 1_999_999]);
        picker.steps.set(0);
        for piece in [0, 1_000_000, 1_999_999] {
            picker.add(piece);
            picker.remove(piece);
            picker.take(piece);
            picker.put(piece);
        }
        assert!(picker.steps.get() <= 3 * 8, "{}", picker.steps.get());
        picker.steps.set(0);
        assert!(picker.choose(&rare, Strategy::RarestFirst, 512, &mut rng).is_some());
        assert!(picker.choose(&Has::All, Strategy::RarestFirst, 512, &mut rng).is_some());
        assert!(picker.steps.get() <= 513, "{}", picker.steps.get());
    }

    proptest! {
        #[test]
        fn the_order_survives_any_history(history in prop::collection::vec((0u8..4, 0u32..40), 0..400)) {
            let (mut picker, _) = picker(40);
            let mut model = vec![0u16; 40];
            for (kind, piece) in history {
                match kind {
                    0 => { picker.add(piece); model[piece as usize] += 1; }
                    1 if model[piece as usize] > 0 => { picker.remove(piece); model[piece as usize] -= 1; }
                    2 => picker.take(piece),
                    3 => picker.put(piece),
                    _ => {}
                }
                assert_sorted(&picker);
            }
            prop_assert_eq!(picker.availability, model);
        }
    }
}
