//! [`SuperSeed`]: a seed that gives each piece away once, as far as it can (BEP 16).
//!
//! It says that it has nothing, and then offers each peer a few pieces at a time, those first that
//! nobody else has. Another piece is offered only when one that was got is seen with a third peer: who
//! passes nothing on gets little. Where nobody could pass anything on to, or nothing is seen for long,
//! it goes on all the same.

use std::collections::BTreeMap;
use std::time::Duration;

use arrayvec::ArrayVec;
use btdht::Time;

use super::has::Has;
use crate::piece::Slot;

/// What is offered to whom.
#[derive(Debug)]
pub(super) struct SuperSeed {
    peers: BTreeMap<Slot, ArrayVec<Offer, OFFERS>>,
    /// How often each piece was offered.
    times: Vec<u16>,
    /// Where the search for the next piece begins.
    cursor: u32,
}

#[derive(Clone, Copy, Debug)]
struct Offer {
    piece: u32,
    /// When the peer said that it has it.
    got: Option<Time>,
}

/// What others are like, for whoever decides whether an offer is done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Company {
    /// There is one peer only.
    Alone,
    /// There are others that could get pieces from a peer.
    Others,
}

/// Pieces offered to one peer at a time: while one is passed on the other is fetched.
const OFFERS: usize = 2;
/// Pieces that are compared for one offer.
const MAX_COMPARED: u32 = 4096;
/// A piece that was got and is not seen elsewhere for this long no longer holds the next one up.
const PATIENCE: Duration = Duration::from_secs(30);

impl SuperSeed {
    /// Nothing of `pieces` pieces is offered yet.
    pub(super) fn new(pieces: u32) -> Self {
        Self { peers: BTreeMap::new(), times: vec![0; pieces as usize], cursor: 0 }
    }

    /// Settles which offers to a peer are done with, and returns what is offered now, to be told.
    /// `availability` says how many peers have a piece.
    pub(super) fn offer(
        &mut self,
        now: Time,
        slot: Slot,
        has: &Has,
        company: Company,
        availability: impl Fn(u32) -> u16,
    ) -> ArrayVec<u32, OFFERS> {
        let offers = self.peers.entry(slot).or_default();
        for offer in offers.iter_mut().filter(|offer| offer.got.is_none() && has.contains(offer.piece)) {
            offer.got = Some(now);
        }
        let passed_on = |offer: &Offer| company == Company::Alone || availability(offer.piece) > 1;
        offers.retain(|offer| offer.got.is_none_or(|got| !passed_on(offer) && now.since(got) < PATIENCE));

        let mut told = ArrayVec::new();
        while !offers.is_full() {
            let pieces = self.times.len() as u32;
            let compared = (0..pieces.min(MAX_COMPARED)).map(|step| (self.cursor + step) % pieces);
            let fit = |&piece: &u32| !has.contains(piece) && offers.iter().all(|offer| offer.piece != piece);
            let rarest =
                compared.filter(fit).min_by_key(|&piece| (availability(piece), self.times[piece as usize]));
            let Some(piece) = rarest else {
                self.cursor = (self.cursor + MAX_COMPARED) % pieces.max(1);
                break;
            };
            self.cursor = (piece + 1) % pieces;
            self.times[piece as usize] = self.times[piece as usize].saturating_add(1);
            offers.push(Offer { piece, got: None });
            told.push(piece);
        }
        told
    }

    /// Whether a peer may ask for blocks of `piece`.
    pub(super) fn is_offered(&self, slot: Slot, piece: u32) -> bool {
        self.peers.get(&slot).is_some_and(|offers| offers.iter().any(|offer| offer.piece == piece))
    }

    /// A peer has gone.
    pub(super) fn gone(&mut self, slot: Slot) {
        self.peers.remove(&slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Slot = Slot { index: 1, generation: 0 };
    const TWO: Slot = Slot { index: 2, generation: 0 };

    fn at(seconds: u64) -> Time {
        Time::from_secs(seconds)
    }

    #[test]
    fn peers_are_offered_different_pieces_and_what_others_have_last() {
        let mut seed = SuperSeed::new(5);
        let availability = |piece: u32| u16::from(piece < 2);
        let one = seed.offer(at(1), ONE, &Has::Nothing, Company::Others, availability);
        let two = seed.offer(at(1), TWO, &Has::Nothing, Company::Others, availability);
        assert_eq!((&one[..], &two[..]), (&[2, 3][..], &[4, 2][..]));
        assert!(seed.is_offered(ONE, 2) && !seed.is_offered(ONE, 4) && !seed.is_offered(TWO, 3));
        seed.gone(ONE);
        assert!(!seed.is_offered(ONE, 2));
    }

    #[test]
    fn a_piece_has_to_be_seen_elsewhere_before_the_next_is_offered() {
        let mut seed = SuperSeed::new(9);
        let mut has = Has::Nothing;
        seed.offer(at(1), ONE, &has, Company::Others, |_| 0);
        has.insert(0, 9);
        let own = |piece: u32| u16::from(piece == 0);
        assert!(seed.offer(at(2), ONE, &has, Company::Others, own).is_empty(), "nobody else has it");
        assert!(seed.offer(at(31), ONE, &has, Company::Others, own).is_empty());
        let told = seed.offer(at(32), ONE, &has, Company::Others, own);
        assert_eq!(&told[..], [2], "patience has an end");
        has.insert(1, 9);
        let seen = |piece: u32| if piece == 1 { 2 } else { 0 };
        assert_eq!(&seed.offer(at(33), ONE, &has, Company::Others, seen)[..], [3]);
        has.insert(2, 9);
        assert_eq!(&seed.offer(at(34), ONE, &has, Company::Alone, |_| 0)[..], [4]);
    }

    #[test]
    fn the_last_pieces_are_found_wherever_the_search_begins() {
        let pieces = 3 * MAX_COMPARED;
        let mut seed = SuperSeed::new(pieces);
        let mut all_but_one = crate::bitfield::Bitfield::full(pieces);
        all_but_one.remove(MAX_COMPARED + 7);
        let has = Has::Some(all_but_one);
        let told: Vec<_> =
            (0..4).flat_map(|second| seed.offer(at(second), ONE, &has, Company::Others, |_| 0)).collect();
        assert_eq!(told, [MAX_COMPARED + 7]);
        assert!(SuperSeed::new(0).offer(at(1), ONE, &Has::Nothing, Company::Alone, |_| 0).is_empty());
    }
}
