//! [`Rivals`]: who else takes pieces from the same peers, and whose turn a piece is.
//!
//! Downloaders that meet on equally rare pieces make seeds send them twice. Each piece therefore has an
//! order of the downloaders, drawn by a hash over it and their peer ids ("rendezvous hashing"), which
//! all who know each other agree on without a word. Whoever is first in it begins with the piece.

use crate::piece::Slot;

/// Us and other downloaders.
#[derive(Debug)]
pub(super) struct Rivals {
    own: u64,
    /// At most one a connection; the first [`MAX_RIVALS`] count.
    others: Vec<(Slot, u64)>,
}

/// Others that are looked at; further ones do not count. What a choice costs grows with this.
const MAX_RIVALS: usize = 64;

impl Rivals {
    /// Nobody else.
    pub(super) fn new(own: [u8; 20]) -> Self {
        Self { own: key(own), others: Vec::new() }
    }

    /// Somebody with this peer id downloads, too.
    pub(super) fn enter(&mut self, slot: Slot, peer_id: [u8; 20]) {
        self.leave(slot);
        self.others.push((slot, key(peer_id)));
    }

    /// Somebody has gone or needs nothing more.
    pub(super) fn leave(&mut self, slot: Slot) {
        self.others.retain(|&(other, _)| other != slot);
    }

    /// Whether nobody else downloads.
    pub(super) fn is_empty(&self) -> bool {
        self.others.is_empty()
    }

    /// How many come before us where `piece` is concerned, not counted further than `most`.
    pub(super) fn before_us(&self, piece: u32, most: usize) -> usize {
        let own = lot(self.own, piece);
        self.others.iter().take(MAX_RIVALS).filter(|&&(_, other)| lot(other, piece) > own).take(most).count()
    }
}

fn key(peer_id: [u8; 20]) -> u64 {
    peer_id.iter().fold(0, |key, &byte| mix(key ^ u64::from(byte)))
}

fn lot(key: u64, piece: u32) -> u64 {
    mix(key ^ u64::from(piece))
}

/// The finalizer of SplitMix64.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(index: u32) -> Slot {
        Slot { index, generation: 0 }
    }

    /// How those who know each other see it.
    fn all(count: u8) -> Vec<Rivals> {
        let view = |own: u8| {
            let mut rivals = Rivals::new([own; 20]);
            let others = (0..count).filter(|&other| other != own);
            others.for_each(|other| rivals.enter(slot(u32::from(other)), [other; 20]));
            rivals
        };
        (0..count).map(view).collect()
    }

    #[test]
    fn every_piece_is_the_turn_of_one_and_all_get_about_as_many() {
        let all = all(5);
        let mut turns = [0; 5];
        for piece in 0..5000 {
            let mut places: Vec<_> = all.iter().map(|one| one.before_us(piece, usize::MAX)).collect();
            turns[places.iter().position(|&before| before == 0).unwrap()] += 1;
            places.sort_unstable();
            assert_eq!(places, [0, 1, 2, 3, 4]);
        }
        assert!(turns.iter().all(|turns| (900..=1100).contains(turns)), "{turns:?}");
    }

    #[test]
    fn who_has_left_no_longer_counts_and_of_many_the_first_ones_do() {
        let mut one = all(2).remove(0);
        one.leave(slot(1));
        assert!((0..100).all(|piece| one.before_us(piece, usize::MAX) == 0));
        let mut one = all(200).remove(0);
        let most = |one: &Rivals| (0..1000).map(|piece| one.before_us(piece, usize::MAX)).max();
        assert_eq!(most(&one), Some(MAX_RIVALS));
        // The places of those who leave go to others.
        (1..150).for_each(|other| one.leave(slot(other)));
        assert_eq!(most(&one), Some(50));
        one.enter(slot(199), [199; 20]);
        assert_eq!(one.others.len(), 50, "nobody counts twice");
    }
}
