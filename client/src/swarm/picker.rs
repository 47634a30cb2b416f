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

#[cfg(test)]
mod tests;

use btdht::Rng;

use super::has::Has;
use super::rivals::Rivals;
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
    /// The piece that was begun last.
    begun: u32,
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
    /// The piece behind the one that was begun last, within a stretch of so many pieces; where a
    /// stretch ends, the first of another one. What comes together can be written together, but
    /// downloaders then have less for each other.
    Beside(u32),
    /// Any.
    Random,
    /// The one with the lowest index; those of the highest priority before all others.
    Sequential,
}

const ABSENT: u32 = u32::MAX;
/// Pieces that are compared for one that others leave to us.
const COMPARED: usize = 32;
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
            begun: ABSENT,
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
        self.begun = piece;
    }

    /// The piece to begin with a peer that has `has`: of those that only seeds have one that other
    /// downloaders leave to us. Looks at most at `max_steps` pieces in order of rarity, then takes any
    /// that the peer has, which costs a step per 64 pieces.
    pub(super) fn choose(
        &self,
        has: &Has,
        strategy: Strategy,
        max_steps: usize,
        rivals: &Rivals,
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
                && let Some(piece) = self.choose_of(order, has, strategy, max_steps, rivals, rng)
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

    /// The one of these pieces, all of which may be begun, that comes first in the order of the highest
    /// priority that any of them has.
    pub(super) fn first_of(&self, pieces: &[u32], strategy: Strategy) -> Option<u32> {
        let place = |&piece: &u32| match strategy {
            Strategy::Sequential => (self.order_of(piece), piece),
            _ => (self.order_of(piece), self.place[piece as usize]),
        };
        pieces.iter().copied().min_by_key(place)
    }

    /// The first of the pieces that a peer suggests which no downloader has, so that none is rarer. Where
    /// priorities differ those decide, and not a stranger.
    pub(super) fn suggested(&self, pieces: &[u32], has: &Has) -> Option<u32> {
        let fits =
            |piece: &u32| self.is_fresh(*piece) && self.availability(*piece) == 0 && has.contains(*piece);
        if self.orders.len() == 1 { pieces.iter().copied().find(fits) } else { None }
    }

    /// Peers that have `piece`, those that came with everything not counted.
    pub(super) fn availability(&self, piece: u32) -> u16 {
        self.availability.get(piece as usize).copied().unwrap_or(0)
    }

    /// Whether a piece may be begun.
    pub(super) fn is_fresh(&self, piece: u32) -> bool {
        self.orders.get(self.order_of(piece)).is_some_and(|order| order.fresh.contains(piece))
    }

    /// Whether a piece that may be begun is one that no downloader has.
    pub(super) fn has_unseen(&self) -> bool {
        self.orders.iter().any(|order| order.bounds.first().is_some_and(|&end| end > 0))
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
        rivals: &Rivals,
        rng: &mut Rng,
    ) -> Option<u32> {
        let start = match strategy {
            Strategy::Sequential => return order.any(has, 0),
            Strategy::Random => rng.below(order.pieces.len()),
            Strategy::Beside(stretch) => {
                return self.beside(order, has, stretch.max(1), max_steps, rivals, rng);
            }
            // Whoever has some is counted for each of them: nothing that nobody has need be looked at.
            Strategy::RarestFirst if matches!(has, Has::Some(_)) => order.bounds[0] as usize,
            Strategy::RarestFirst => 0,
        };
        let (before, from) = order.pieces.split_at(start);
        let seen = from.iter().chain(before).copied().take(max_steps).inspect(|_| self.step());
        let mut near = seen.filter(|&piece| has.contains(piece));
        let Some(first) = near.next() else {
            let from = rng.below(order.fresh.len() as usize) as u32;
            return order.any(has, from).or_else(|| order.any(has, 0));
        };
        // Only seeds have to be spared. Where all leave what they can have of each other to the same ones,
        // large crowds end later.
        let with_seeds_only = |&piece: &u32| self.availability(piece) == 0;
        if !with_seeds_only(&first) {
            return Some(first);
        }
        let (mut best, mut before) = (first, rivals.before_us(first, usize::MAX));
        let mut others = near.take_while(with_seeds_only).take(COMPARED);
        while before > 0
            && let Some(piece) = others.next()
        {
            let fewer = rivals.before_us(piece, before);
            if fewer < before {
                (best, before) = (piece, fewer);
            }
        }
        Some(best)
    }

    fn beside(
        &self,
        order: &Order,
        has: &Has,
        stretch: u32,
        max_steps: usize,
        rivals: &Rivals,
        rng: &mut Rng,
    ) -> Option<u32> {
        let next = self.begun.saturating_add(1);
        let end = next.checked_next_multiple_of(stretch).unwrap_or(next).min(self.place.len() as u32);
        if let Some(next) = (next..end).find(|&next| order.fresh.contains(next) && has.contains(next)) {
            return Some(next);
        }
        let rarest = self.choose_of(order, has, Strategy::RarestFirst, max_steps, rivals, rng)?;
        order.any(has, rarest - rarest % stretch)
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
        crate::steps::count(1);
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
