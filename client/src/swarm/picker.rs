//! [`Picker`]: which piece to begin next. Rarest first by availability buckets, in one order for each
//! priority.
//!
//! The pieces of one priority that nobody has begun lie in one array, sorted by how many peers have
//! them; `bounds` says where each availability ends. A piece that becomes one more or less common swaps
//! places with the piece at the edge of its bucket, so that every update costs a step, however many
//! pieces there are. Peers that have everything are not counted at all: they change no order.
//!
//! Priorities are weights: each choice draws an order by lot, one of priority 6 twice as often as one
//! of priority 3, so that a little of everything comes along.

use btdht::Rng;

use super::has::Has;
use crate::bitfield::Bitfield;

/// Rarest-first orders over the pieces that are wanted, missing and not begun.
#[derive(Debug)]
pub(super) struct Picker {
    /// The highest priority first; at most [`MAX_ORDERS`].
    orders: Vec<Order>,
    /// The order that a piece belongs to; empty while there is one only.
    order_of: Vec<u8>,
    /// Where a piece lies in its order, or [`ABSENT`].
    place: Vec<u32>,
    /// Peers that have a piece, those with everything not counted.
    availability: Vec<u16>,
    #[cfg(test)]
    steps: std::cell::Cell<usize>,
}

/// The pieces of one priority.
#[derive(Debug)]
struct Order {
    weight: u16,
    pieces: Vec<u32>,
    /// `pieces[bounds[a - 1]..bounds[a]]` are those of availability `a`.
    bounds: Vec<u32>,
    /// The same pieces, as a set.
    fresh: Bitfield,
}

/// How the next piece is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strategy {
    /// The piece that the fewest peers have.
    RarestFirst,
    /// Any.
    Random,
    /// The one with the lowest index; those of the highest priority before all others.
    Sequential,
}

const ABSENT: u32 = u32::MAX;
/// Different priorities that are told apart; lower ones count as the lowest of these.
const MAX_ORDERS: usize = 16;

impl Picker {
    /// A picker over `pieces` pieces, none of which may be begun yet: see [`Picker::reset`].
    pub(super) fn new(pieces: u32) -> Self {
        Self {
            orders: Vec::new(),
            order_of: Vec::new(),
            place: vec![ABSENT; pieces as usize],
            availability: vec![0; pieces as usize],
            #[cfg(test)]
            steps: std::cell::Cell::new(0),
        }
    }

    /// Starts over with the pieces in `fresh`; each has the weight `weights` says, 1 where it says
    /// nothing. Availability is kept. The order within one availability is random, so that downloaders
    /// of one torrent begin with different pieces. Costs a few steps per piece.
    pub(super) fn reset(&mut self, fresh: &Bitfield, weights: &[u16], rng: &mut Rng) {
        let weight = |piece: u32| weights.get(piece as usize).copied().unwrap_or(1).max(1);
        let mut distinct: Vec<u16> = (0..self.place.len() as u32).map(weight).collect();
        distinct.sort_unstable_by(|a, b| b.cmp(a));
        distinct.dedup();
        distinct.truncate(MAX_ORDERS);
        let pieces = self.place.len() as u32;
        let order = |&weight: &u16| Order {
            weight,
            pieces: Vec::new(),
            bounds: Vec::new(),
            fresh: Bitfield::new(pieces),
        };
        self.orders = distinct.iter().map(order).collect();
        let order_of = |piece| distinct.iter().position(|&own| own <= weight(piece));
        let last = distinct.len().saturating_sub(1);
        self.order_of = match last {
            0 => Vec::new(),
            _ => (0..pieces).map(|piece| order_of(piece).unwrap_or(last) as u8).collect(),
        };
        self.place.fill(ABSENT);
        let mut shuffled: Vec<u32> = fresh.iter().collect();
        for at in (1..shuffled.len()).rev() {
            shuffled.swap(at, rng.below(at + 1));
        }
        shuffled.sort_by_key(|&piece| self.availability[piece as usize]);
        for piece in shuffled {
            let order = self.order_of(piece);
            let order = &mut self.orders[order];
            order.grow(self.availability[piece as usize] as usize);
            self.place[piece as usize] = order.pieces.len() as u32;
            order.pieces.push(piece);
            order.fresh.insert(piece);
            *order.bounds.last_mut().expect("it has just grown") += 1;
        }
        self.orders.iter_mut().for_each(|order| order.grow(0));
    }

    /// One more peer has `piece`.
    pub(super) fn add(&mut self, piece: u32) {
        let Some(availability) = self.availability.get_mut(piece as usize) else { return };
        let before = *availability as usize;
        *availability += 1;
        if self.place[piece as usize] != ABSENT {
            let order = self.order_of(piece);
            self.orders[order].grow(before + 1);
            self.raise(order, piece, before);
        }
    }

    /// One peer less has `piece`.
    pub(super) fn remove(&mut self, piece: u32) {
        let Some(availability) = self.availability.get_mut(piece as usize) else { return };
        let before = *availability as usize;
        *availability = availability.saturating_sub(1);
        if before > 0 && self.place[piece as usize] != ABSENT {
            self.lower(self.order_of(piece), piece, before);
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
        let at = self.order_of(piece);
        let availability = self.availability[piece as usize] as usize;
        let order = &mut self.orders[at];
        if !order.fresh.insert(piece) {
            return;
        }
        order.grow(availability);
        let top = order.bounds.len() - 1;
        self.place[piece as usize] = order.pieces.len() as u32;
        order.pieces.push(piece);
        order.bounds[top] += 1;
        for bucket in (availability + 1..=top).rev() {
            self.lower(at, piece, bucket);
        }
    }

    /// `piece` has been begun, or is no longer wanted.
    pub(super) fn take(&mut self, piece: u32) {
        let at = self.order_of(piece);
        if !self.orders.get_mut(at).is_some_and(|order| order.fresh.remove(piece)) {
            return;
        }
        let top = self.orders[at].bounds.len() - 1;
        for bucket in self.availability[piece as usize] as usize..top {
            self.raise(at, piece, bucket);
        }
        self.swap(at, piece, self.orders[at].bounds[top] - 1);
        let order = &mut self.orders[at];
        order.pieces.pop();
        order.bounds[top] -= 1;
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
        let mut left: u64 = self.orders.iter().map(Order::stake).sum();
        // The first one is drawn by lot, the others follow in their order: the peer may have nothing
        // of one.
        let mut first = match (strategy, self.orders.len()) {
            (Strategy::Sequential, _) | (_, 0 | 1) => 0,
            _ => {
                let mut lot = rng.next_u64().checked_rem(left)?;
                self.orders
                    .iter()
                    .take_while(|order| {
                        let passed = lot >= order.stake();
                        lot = lot.saturating_sub(order.stake());
                        passed
                    })
                    .count()
            }
        };
        for _ in 0..self.orders.len() {
            let order = &self.orders[first];
            if order.stake() > 0
                && let Some(piece) = self.choose_of(order, has, strategy, max_steps, rng)
            {
                return Some(piece);
            }
            left -= order.stake();
            if left == 0 {
                return None;
            }
            first = (first + 1) % self.orders.len();
        }
        None
    }

    /// Peers that have `piece`, those that came with everything not counted.
    pub(super) fn availability(&self, piece: u32) -> u16 {
        self.availability.get(piece as usize).copied().unwrap_or(0)
    }

    /// Whether a piece may be begun.
    pub(super) fn is_fresh(&self, piece: u32) -> bool {
        self.orders.get(self.order_of(piece)).is_some_and(|order| order.fresh.contains(piece))
    }

    /// Whether no piece may be begun.
    pub(super) fn is_empty(&self) -> bool {
        self.orders.iter().all(|order| order.pieces.is_empty())
    }

    fn choose_of(
        &self,
        order: &Order,
        has: &Has,
        strategy: Strategy,
        max_steps: usize,
        rng: &mut Rng,
    ) -> Option<u32> {
        let start = match strategy {
            Strategy::Sequential => return order.any(has, 0),
            Strategy::Random => rng.below(order.pieces.len()),
            Strategy::RarestFirst => 0,
        };
        let (before, from) = order.pieces.split_at(start);
        let rarest = from.iter().chain(before).take(max_steps).find(|&&piece| {
            self.step();
            has.contains(piece)
        });
        rarest.copied().or_else(|| {
            let from = rng.below(order.fresh.len() as usize) as u32;
            order.any(has, from).or_else(|| order.any(has, 0))
        })
    }

    fn order_of(&self, piece: u32) -> usize {
        self.order_of.get(piece as usize).copied().map_or(0, usize::from)
    }

    /// Moves `piece` from the end of bucket `bucket` into the next one.
    fn raise(&mut self, order: usize, piece: u32, bucket: usize) {
        self.swap(order, piece, self.orders[order].bounds[bucket] - 1);
        self.orders[order].bounds[bucket] -= 1;
    }

    /// Moves `piece` from the start of bucket `bucket` into the one before.
    fn lower(&mut self, order: usize, piece: u32, bucket: usize) {
        self.swap(order, piece, self.orders[order].bounds[bucket - 1]);
        self.orders[order].bounds[bucket - 1] += 1;
    }

    fn swap(&mut self, order: usize, piece: u32, at: u32) {
        self.step();
        let from = self.place[piece as usize];
        let pieces = &mut self.orders[order].pieces;
        let other = pieces[at as usize];
        pieces.swap(from as usize, at as usize);
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

impl Order {
    /// Makes sure that there is a bucket for `availability`.
    fn grow(&mut self, availability: usize) {
        while self.bounds.len() <= availability {
            self.bounds.push(self.pieces.len() as u32);
        }
    }

    /// Its part of the lots.
    fn stake(&self) -> u64 {
        if self.pieces.is_empty() { 0 } else { u64::from(self.weight) }
    }

    fn any(&self, has: &Has, from: u32) -> Option<u32> {
        match has {
            Has::Nothing => None,
            Has::All => self.fresh.first_common(&self.fresh, from),
            Has::Some(pieces) => self.fresh.first_common(pieces, from),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert_eq, proptest};

    use super::*;

    fn picker(pieces: u32) -> (Picker, Rng) {
        let mut rng = Rng::from_seed(1);
        let mut picker = Picker::new(pieces);
        picker.reset(&Bitfield::full(pieces), &[], &mut rng);
        (picker, rng)
    }

    fn some(pieces: u32, members: &[u32]) -> Has {
        let mut field = Bitfield::new(pieces);
        for &member in members {
            field.insert(member);
        }
        Has::Some(field)
    }

    fn assert_sorted(picker: &Picker) {
        for (at, order) in picker.orders.iter().enumerate() {
            let mut start = 0;
            for (availability, &end) in order.bounds.iter().enumerate() {
                for place in start..end {
                    let piece = order.pieces[place as usize];
                    assert_eq!(picker.availability[piece as usize] as usize, availability);
                    assert_eq!((picker.place[piece as usize], picker.order_of(piece)), (place, at));
                    assert!(order.fresh.contains(piece));
                }
                start = end;
            }
            assert_eq!(start as usize, order.pieces.len());
            assert_eq!(order.fresh.count() as usize, order.pieces.len());
        }
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
            let mut picker = Picker::new(1000);
            picker.reset(&Bitfield::full(1000), &[], &mut rng);
            picker.choose(&Has::All, Strategy::RarestFirst, 9, &mut rng)
        };
        assert_ne!(first(1), first(2));
        assert_eq!(first(1), first(1));
    }

    #[test]
    fn a_weight_is_a_share_of_the_choices() {
        let (mut picker, mut rng) = picker(3000);
        let weights: Vec<u16> = (0..3000).map(|piece| [1, 3, 6][piece / 1000]).collect();
        picker.reset(&Bitfield::full(3000), &weights, &mut rng);
        let mut chosen = [0; 3];
        for _ in 0..1000 {
            let piece = picker.choose(&Has::All, Strategy::RarestFirst, 9, &mut rng).unwrap();
            picker.take(piece);
            chosen[piece as usize / 1000] += 1;
        }
        assert!((70..=130).contains(&chosen[0]) && (560..=640).contains(&chosen[2]), "{chosen:?}");
        // Whoever has nothing of the others gives what it has.
        let peer = some(3000, &[17, 999]);
        while let Some(piece) = picker.choose(&peer, Strategy::RarestFirst, 9, &mut rng) {
            assert!([17, 999].contains(&piece));
            picker.take(piece);
        }
        let first = |strategy, rng: &mut Rng| picker.choose(&Has::All, strategy, 9, rng).unwrap();
        assert!((2000..3000).contains(&first(Strategy::Sequential, &mut rng)));
    }

    #[test]
    fn priorities_change_while_pieces_are_rare_begun_and_back() {
        let (mut picker, mut rng) = picker(100);
        (0..100).for_each(|piece| (0..piece % 7).for_each(|_| picker.add(piece)));
        picker.take(5);
        let mut fresh = Bitfield::full(100);
        fresh.remove(5);
        // More priorities than are told apart.
        let weights: Vec<u16> = (0..100).collect();
        picker.reset(&fresh, &weights, &mut rng);
        assert_eq!(picker.orders.len(), MAX_ORDERS);
        assert_sorted(&picker);
        picker.put(5);
        picker.remove(6);
        picker.add(99);
        assert_sorted(&picker);
        let fresh = Bitfield::full(100);
        picker.reset(&fresh, &[], &mut rng);
        assert_sorted(&picker);
        assert_eq!(picker.orders.len(), 1);
        let rarest = picker.choose(&Has::All, Strategy::RarestFirst, 9, &mut rng).unwrap();
        assert_eq!(rarest % 7, 0);
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
            let (mut picker, mut rng) = picker(40);
            picker.reset(&Bitfield::full(40), &[1, 2, 3, 1, 9], &mut rng);
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
