use std::collections::BTreeSet;

use proptest::prelude::{prop, prop_assert_eq, proptest};

use super::*;
use crate::piece::Slot;

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

/// Nobody else downloads.
fn alone() -> Rivals {
    Rivals::new([0; 20])
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
    while let Some(piece) = picker.choose(&peer, Strategy::RarestFirst, 100, &alone(), &mut rng) {
        picker.take(piece);
        chosen.push(piece);
    }
    assert_eq!(chosen, [2, 1, 0]);
    assert_eq!(picker.choose(&Has::All, Strategy::RarestFirst, 100, &alone(), &mut rng), Some(3));
    assert_eq!(picker.choose(&Has::Nothing, Strategy::RarestFirst, 100, &alone(), &mut rng), None);
}

#[test]
fn sequential_takes_the_lowest_index() {
    let (mut picker, mut rng) = picker(200);
    picker.take(0);
    assert_eq!(picker.choose(&Has::All, Strategy::Sequential, 9, &alone(), &mut rng), Some(1));
    let peer = some(200, &[150, 199]);
    assert_eq!(picker.choose(&peer, Strategy::Sequential, 9, &alone(), &mut rng), Some(150));
}

#[test]
fn a_stretch_is_fetched_from_its_first_piece_to_its_last() {
    let (mut picker, mut rng) = picker(1000);
    // Without one that is taken, and one that the peer has not.
    picker.take(23);
    let peer = some(1000, &(0..1000).filter(|&piece| piece != 42).collect::<Vec<_>>());
    let mut chosen = Vec::new();
    while let Some(piece) = picker.choose(&peer, Strategy::Beside(8), 100, &alone(), &mut rng) {
        picker.take(piece);
        chosen.push(piece);
    }
    let stretches: Vec<_> = chosen.chunk_by(|a, b| a / 8 == b / 8).collect();
    assert!(stretches.iter().all(|stretch| stretch.is_sorted()));
    let mut firsts: Vec<_> = stretches.iter().map(|stretch| stretch[0] / 8).collect();
    assert!(!firsts.is_sorted());
    firsts.sort_unstable();
    assert_eq!(firsts, (0..125).collect::<Vec<_>>());
    chosen.sort_unstable();
    assert_eq!(chosen, (0..1000).filter(|&piece| piece != 23 && piece != 42).collect::<Vec<_>>());
}

#[test]
fn different_seeds_begin_with_different_pieces() {
    let first = |seed| {
        let mut rng = Rng::from_seed(seed);
        let mut picker = Picker::new(1000);
        picker.reset(&Bitfield::full(1000), &[], &mut rng);
        picker.choose(&Has::All, Strategy::RarestFirst, 9, &alone(), &mut rng)
    };
    assert_ne!(first(1), first(2));
    assert_eq!(first(1), first(1));
}

#[test]
fn who_know_of_each_other_begin_with_different_pieces() {
    let (ids, slot) = ([[1; 20], [2; 20]], Slot { index: 0, generation: 0 });
    let begun: Vec<BTreeSet<u32>> = [(0, 1), (1, 0)]
        .map(|(own, other)| {
            let mut rng = Rng::from_seed(own as u64);
            let mut picker = Picker::new(100);
            picker.reset(&Bitfield::full(100), &[], &mut rng);
            let mut rivals = Rivals::new(ids[own]);
            rivals.enter(slot, ids[other]);
            let mut begin = |strategy| {
                let piece = picker.choose(&Has::All, strategy, 512, &rivals, &mut rng)?;
                picker.take(piece);
                Some(piece)
            };
            let first = (0..4).map_while(|_| begin(Strategy::Random)).collect::<Vec<_>>();
            first.into_iter().chain((0..16).map_while(|_| begin(Strategy::RarestFirst))).collect()
        })
        .into();
    assert_eq!([begun[0].len(), begun[1].len()], [20, 20]);
    assert!(begun[0].is_disjoint(&begun[1]), "{begun:?}");
}

#[test]
fn what_is_rarer_comes_before_what_others_leave_to_us() {
    let (mut picker, mut rng) = picker(100);
    (0..100).filter(|&piece| piece != 17).for_each(|piece| picker.add(piece));
    for rival in 0..50 {
        let mut rivals = Rivals::new([99; 20]);
        rivals.enter(Slot { index: 0, generation: 0 }, [rival; 20]);
        let chosen = picker.choose(&Has::All, Strategy::RarestFirst, 512, &rivals, &mut rng);
        assert_eq!(chosen, Some(17));
    }
}

#[test]
fn a_suggestion_is_followed_where_nothing_is_rarer() {
    let (mut picker, mut rng) = picker(100);
    [4, 5].into_iter().for_each(|piece| picker.add(piece));
    picker.take(7);
    let suggested = [u32::MAX, 100, 4, 7, 9, 8];
    assert_eq!(picker.suggested(&suggested, &Has::All), Some(9), "4 is less rare, 7 is begun");
    assert_eq!(picker.suggested(&suggested, &some(100, &[4, 8])), Some(8));
    assert_eq!(picker.suggested(&suggested[..4], &Has::All), None);
    let weights: Vec<u16> = (0..100).map(|piece| 1 + piece % 2).collect();
    picker.reset(&Bitfield::full(100), &weights, &mut rng);
    assert_eq!(picker.suggested(&suggested, &Has::All), None, "priorities decide");
}

#[test]
fn pieces_that_no_downloader_has_are_known_to_be_there() {
    let (mut picker, _) = picker(3);
    [0, 1].into_iter().for_each(|piece| picker.add(piece));
    assert!(picker.has_unseen());
    picker.take(2);
    assert!(!picker.has_unseen() && !Picker::new(9).has_unseen());
    picker.remove(1);
    assert!(picker.has_unseen());
}

#[test]
fn a_weight_is_a_share_of_the_choices() {
    let (mut picker, mut rng) = picker(3000);
    let weights: Vec<u16> = (0..3000).map(|piece| [1, 3, 6][piece / 1000]).collect();
    picker.reset(&Bitfield::full(3000), &weights, &mut rng);
    let mut chosen = [0; 3];
    for _ in 0..1000 {
        let piece = picker.choose(&Has::All, Strategy::RarestFirst, 9, &alone(), &mut rng).unwrap();
        picker.take(piece);
        chosen[piece as usize / 1000] += 1;
    }
    assert!((70..=130).contains(&chosen[0]) && (560..=640).contains(&chosen[2]), "{chosen:?}");
    // Whoever has nothing of the others gives what it has.
    let peer = some(3000, &[17, 999]);
    while let Some(piece) = picker.choose(&peer, Strategy::RarestFirst, 9, &alone(), &mut rng) {
        assert!([17, 999].contains(&piece));
        picker.take(piece);
    }
    let first = |strategy, rng: &mut Rng| picker.choose(&Has::All, strategy, 9, &alone(), rng).unwrap();
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
    let rarest = picker.choose(&Has::All, Strategy::RarestFirst, 9, &alone(), &mut rng).unwrap();
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
    assert!(picker.choose(&rare, Strategy::RarestFirst, 512, &alone(), &mut rng).is_some());
    assert!(picker.choose(&Has::All, Strategy::RarestFirst, 512, &alone(), &mut rng).is_some());
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
