use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};

use super::*;

const NOW: Time = Time::from_secs(1);
const RULE: Duplicates = Duplicates { holders: 2, holders_late: 4, patience: Duration::from_secs(2) };

fn shape(pieces: u32, blocks: u32) -> TorrentShape {
    let piece_len = blocks * BLOCK_LEN;
    TorrentShape { pieces, piece_len, last_piece_len: piece_len - 5, metadata_size: 100 }
}

fn slot(index: u32) -> Slot {
    Slot { index, generation: 0 }
}

fn addr(index: u32) -> SocketAddr {
    SocketAddr::from(([9, 9, 9, index as u8], 1))
}

fn request(blocks: &mut Blocks, slot: Slot, piece: u32, count: usize) -> Vec<BlockRef> {
    let mut out = Vec::new();
    blocks.request(NOW, slot, PieceIndex(piece), count, &mut out);
    out
}

/// Who gave the blocks of a piece that is judged, none of which is on its way.
fn givers(blocks: &mut Blocks, piece: u32) -> Option<Vec<SocketAddr>> {
    let Finished { givers, called_off } = blocks.finish(PieceIndex(piece))?;
    assert!(called_off.is_empty());
    Some(givers)
}

fn again(blocks: &mut Blocks, now: Time, slot: Slot) -> Vec<BlockRef> {
    let mut out = Vec::new();
    while blocks.request_again(now, slot, |_| true, RULE, 100, &mut out).is_some() {}
    out
}

#[test]
fn each_block_is_asked_for_once_and_the_last_one_is_short() {
    let mut blocks = Blocks::new(shape(1, 3));
    blocks.begin(PieceIndex(0), slot(0));
    let first = request(&mut blocks, slot(0), 0, 2);
    let second = request(&mut blocks, slot(1), 0, 9);
    assert_eq!((first.len(), second.len()), (2, 1));
    assert_eq!(second[0].len, BLOCK_LEN - 5);
    assert!(blocks.open.is_empty() && request(&mut blocks, slot(2), 0, 9).is_empty());
    assert_eq!(blocks.requests.outstanding(), u64::from(3 * BLOCK_LEN - 5));
}

#[test]
fn a_block_counts_only_from_the_peer_that_was_asked_and_once() {
    let mut blocks = Blocks::new(shape(1, 2));
    blocks.begin(PieceIndex(0), slot(0));
    let asked = request(&mut blocks, slot(0), 0, 2);
    assert_eq!(blocks.receive(slot(1), addr(1), asked[0]), None);
    assert!(blocks.receive(slot(0), addr(0), asked[0]).is_some());
    assert_eq!(blocks.receive(slot(0), addr(0), asked[0]), None);
    assert!(!blocks.is_whole(PieceIndex(0)));
    blocks.receive(slot(0), addr(0), asked[1]).unwrap();
    assert!(blocks.is_whole(PieceIndex(0)));
    assert_eq!(givers(&mut blocks, 0), Some(vec![addr(0); 2]));
    assert_eq!((blocks.committed(), blocks.requests.outstanding()), (0, 0));
}

#[test]
fn what_a_peer_gives_back_is_open_again() {
    let mut blocks = Blocks::new(shape(1, 4));
    blocks.begin(PieceIndex(0), slot(0));
    let asked = request(&mut blocks, slot(0), 0, 4);
    blocks.give_back(slot(0), asked[2]);
    assert_eq!(request(&mut blocks, slot(1), 0, 9), [asked[2]]);
    blocks.give_back_all(slot(0));
    assert_eq!(request(&mut blocks, slot(1), 0, 9).len(), 3);
    assert_eq!(blocks.requests.of(slot(0)), 0);
}

#[test]
fn overdue_blocks_go_to_others_but_are_welcome_from_the_late_peer() {
    let mut blocks = Blocks::new(shape(1, 2));
    blocks.begin(PieceIndex(0), slot(0));
    let asked = request(&mut blocks, slot(0), 0, 2);
    blocks.overdue(slot(0));
    assert!(request(&mut blocks, slot(0), 0, 2).is_empty(), "not asked for twice of one peer");
    assert_eq!(request(&mut blocks, slot(1), 0, 1), [asked[0]]);
    let arrival = blocks.receive(slot(0), addr(0), asked[0]).unwrap();
    assert_eq!(arrival.cancel, [slot(1)]);
    assert!(blocks.receive(slot(0), addr(0), asked[1]).unwrap().cancel.is_empty());
    assert!(blocks.is_whole(PieceIndex(0)) && blocks.open.is_empty());
    assert_eq!(blocks.requests.outstanding(), 0);
}

#[test]
fn what_a_liar_gave_is_open_again_but_in_pieces_that_are_all_there() {
    let mut blocks = Blocks::new(shape(3, 4));
    for piece in 0..3 {
        blocks.begin(PieceIndex(piece), slot(0));
    }
    let give = |blocks: &mut Blocks, n, piece, count| {
        let asked = request(blocks, slot(n), piece, count);
        asked.iter().for_each(|&block| drop(blocks.receive(slot(n), addr(n), block).unwrap()));
        asked
    };
    let lies = give(&mut blocks, 1, 0, 2);
    let truth = give(&mut blocks, 2, 0, 1);
    give(&mut blocks, 1, 1, 4);
    give(&mut blocks, 2, 2, 3);
    assert_eq!(blocks.disbelieve(|giver| giver == addr(1)), lies);
    assert!(blocks.disbelieve(|giver| giver == addr(1)).is_empty());
    assert!(blocks.is_whole(PieceIndex(1)));
    let mut rest = request(&mut blocks, slot(3), 0, 9);
    assert_eq!(rest[..2], lies);
    rest.iter().for_each(|&block| drop(blocks.receive(slot(3), addr(3), block).unwrap()));
    rest.extend(truth);
    assert_eq!(rest.len(), 4);
    assert_eq!(givers(&mut blocks, 0), Some(vec![addr(3), addr(3), addr(2), addr(3)]));
    assert_eq!(givers(&mut blocks, 1), Some(vec![addr(1); 4]));
}

#[test]
fn to_disbelieve_costs_a_step_a_giver() {
    for givers in [1_000, 4_000] {
        let mut blocks = Blocks::new(shape(1, givers + 1));
        blocks.begin(PieceIndex(0), slot(0));
        let from = |giver: u32| SocketAddr::from(([9, 9, 9, 9], giver as u16));
        for giver in 0..givers {
            let asked = request(&mut blocks, slot(giver), 0, 1);
            blocks.receive(slot(giver), from(giver), asked[0]).unwrap();
        }
        let liar = from(givers / 2);
        let steps = steps::of(|| assert_eq!(blocks.disbelieve(|giver| giver == liar).len(), 1));
        assert!(steps <= 2 * givers as usize, "{steps} steps for {givers} givers");
    }
}

#[test]
fn end_game_asks_two_then_four_and_cancels_the_others() {
    let mut blocks = Blocks::new(shape(1, 1));
    blocks.begin(PieceIndex(0), slot(0));
    let asked = request(&mut blocks, slot(0), 0, 1);
    assert_eq!(again(&mut blocks, NOW, slot(1)), asked);
    assert!(again(&mut blocks, NOW, slot(1)).is_empty());
    assert!(again(&mut blocks, NOW, slot(2)).is_empty());
    let later = NOW + Duration::from_secs(2);
    assert_eq!(again(&mut blocks, later, slot(2)).len(), 1);
    assert_eq!(again(&mut blocks, later, slot(3)).len(), 1);
    assert!(again(&mut blocks, later, slot(4)).is_empty());
    let arrival = blocks.receive(slot(2), addr(2), asked[0]).unwrap();
    assert_eq!(arrival.cancel, [slot(0), slot(1), slot(3)]);
    assert_eq!(blocks.requests.outstanding(), 0);
}

#[test]
fn silent_peers_cannot_keep_a_block_to_themselves_for_long() {
    let mut blocks = Blocks::new(shape(1, 1));
    blocks.begin(PieceIndex(0), slot(0));
    request(&mut blocks, slot(0), 0, 1);
    // Whoever may ask does so, and nobody answers.
    let holders = [0, 2, 4, 6, 8].map(|seconds| {
        let later = NOW + Duration::from_secs(seconds);
        (1..99).for_each(|n| _ = again(&mut blocks, later, slot(n)));
        (0..99).filter(|&n| blocks.requests.of(slot(n)) > 0).count()
    });
    assert_eq!(holders, [2, 4, 8, 16, 32]);
}

#[test]
fn a_reserved_piece_is_closed_to_others_until_its_owner_goes() {
    let mut blocks = Blocks::new(shape(1, 2));
    blocks.begin(PieceIndex(0), slot(0));
    blocks.reserve(NOW, PieceIndex(0));
    request(&mut blocks, slot(0), 0, 1);
    let open = |blocks: &Blocks, relation| blocks.open_for(NOW, slot(1), &Has::All, relation).count();
    assert_eq!((open(&blocks, Relation::Foreign), open(&blocks, Relation::Orphan)), (0, 0));
    blocks.give_back_all(slot(0));
    assert_eq!(open(&blocks, Relation::Orphan), 1);
}

#[test]
fn a_reserved_piece_is_open_to_others_after_a_while() {
    let mut blocks = Blocks::new(shape(1, 2));
    blocks.begin(PieceIndex(0), slot(0));
    blocks.reserve(NOW, PieceIndex(0));
    request(&mut blocks, slot(0), 0, 1);
    let open = |at| blocks.open_for(at, slot(1), &Has::All, Relation::Foreign).count();
    assert_eq!((open(NOW), open(NOW + ALONE)), (0, 1));
}

#[test]
fn an_owner_that_was_asked_for_nothing_keeps_no_piece_from_others() {
    let mut blocks = Blocks::new(shape(1, 2));
    blocks.begin(PieceIndex(0), slot(0));
    blocks.reserve(NOW, PieceIndex(0));
    let asked = request(&mut blocks, slot(0), 0, 1);
    let open = |blocks: &Blocks, n| {
        [Relation::Own, Relation::Orphan, Relation::Foreign]
            .map(|relation| blocks.open_for(NOW, slot(n), &Has::All, relation).count())
    };
    assert_eq!((open(&blocks, 0), open(&blocks, 1)), ([1, 0, 0], [0; 3]));
    blocks.give_back(slot(0), asked[0]);
    assert_eq!((open(&blocks, 0), open(&blocks, 1)), ([1, 0, 0], [0, 1, 0]));
}

#[test]
fn what_is_on_its_way_of_a_piece_that_was_found_is_called_off() {
    let mut blocks = Blocks::new(shape(2, 3));
    (0..2).for_each(|piece| blocks.begin(PieceIndex(piece), slot(0)));
    let asked = request(&mut blocks, slot(0), 0, 2);
    let last = request(&mut blocks, slot(1), 0, 1);
    let other = request(&mut blocks, slot(1), 1, 1);
    blocks.receive(slot(0), addr(0), asked[0]).unwrap();
    blocks.overdue(slot(0));
    let Finished { called_off, .. } = blocks.finish(PieceIndex(0)).unwrap();
    assert_eq!(called_off, [(slot(0), asked[1]), (slot(1), last[0])]);
    assert_eq!(blocks.requests.outstanding(), u64::from(BLOCK_LEN));
    // It is lost again, and begun anew: what was asked for before concerns it no more.
    blocks.begin(PieceIndex(0), slot(2));
    assert_eq!(request(&mut blocks, slot(2), 0, 9).len(), 3);
    assert_eq!(blocks.receive(slot(1), addr(1), last[0]), None);
    blocks.give_back_all(slot(0));
    assert!(blocks.receive(slot(2), addr(2), last[0]).is_some());
    assert!(blocks.receive(slot(1), addr(1), other[0]).is_some());
}

#[test]
fn what_is_overdue_of_a_piece_that_is_given_up_is_called_off() {
    let mut blocks = Blocks::new(shape(2, 3));
    blocks.begin(PieceIndex(0), slot(0));
    let asked = request(&mut blocks, slot(0), 0, 2);
    blocks.receive(slot(0), addr(0), asked[0]).unwrap();
    blocks.overdue(slot(0));
    let given_up = blocks.give_up(PieceIndex(0));
    assert_eq!(given_up, (u64::from(BLOCK_LEN), vec![(slot(0), asked[1])]));
    // Begun anew with another one: the late answer is of no use, nor in its way.
    blocks.begin(PieceIndex(0), slot(1));
    assert_eq!(request(&mut blocks, slot(1), 0, 9).len(), 3);
    assert_eq!(blocks.receive(slot(0), addr(0), asked[1]), None);
    blocks.give_back_all(slot(0));
    assert!(blocks.receive(slot(1), addr(1), asked[1]).is_some());
    blocks.give_back_all(slot(1));
    assert_eq!(blocks.requests.outstanding(), 0);
}

#[test]
fn a_slot_that_was_given_out_again_holds_nothing() {
    let mut blocks = Blocks::new(shape(1, 2));
    blocks.begin(PieceIndex(0), slot(0));
    let asked = request(&mut blocks, slot(0), 0, 1);
    blocks.give_back_all(slot(0));
    let newer = Slot { index: 0, generation: 1 };
    assert_eq!(request(&mut blocks, newer, 0, 1), asked);
    assert_eq!(blocks.receive(slot(0), addr(0), asked[0]), None);
    assert!(blocks.receive(newer, addr(1), asked[0]).is_some());
}

proptest! {
    /// Whatever peers do, in the end one honest peer can finish: no block is lost, none that
    /// is there is asked for, and the sums are right.
    #[test]
    fn no_block_is_ever_lost(history in prop::collection::vec((0u8..8, 0u32..4, 0u32..3, 0usize..6), 0..300)) {
        let mut blocks = Blocks::new(shape(3, 4));
        for piece in 0..3 {
            blocks.begin(PieceIndex(piece), slot(piece));
        }
        let mut held: Vec<Vec<BlockRef>> = vec![Vec::new(); 5];
        let mut got = BTreeMap::new();
        for (kind, who, piece, n) in history {
            let peer = slot(who);
            let mine = &mut held[who as usize];
            match kind {
                0 | 1 => {
                    let asked = request(&mut blocks, peer, piece, n);
                    prop_assert!(asked.iter().all(|block| !got.contains_key(block)));
                    mine.extend(asked);
                }
                2 => {
                    let asked = again(&mut blocks, NOW, peer);
                    prop_assert!(asked.iter().all(|block| !got.contains_key(block) && !mine.contains(block)));
                    mine.extend(asked);
                }
                3 if !mine.is_empty() => {
                    let block = mine.remove(n % mine.len());
                    let arrival = blocks.receive(peer, addr(who), block);
                    prop_assert_eq!(arrival.is_some(), got.insert(block, who).is_none());
                    for other in arrival.into_iter().flat_map(|arrival| arrival.cancel) {
                        held[other.index as usize].retain(|&held| held != block);
                    }
                }
                4 if !mine.is_empty() => {
                    let block = mine.remove(n % mine.len());
                    blocks.give_back(peer, block);
                }
                5 => blocks.overdue(peer),
                7 if n == 0 => {
                    let there = |piece| got.keys().filter(|block| block.piece == piece).count();
                    let lies = |block: &BlockRef, giver| giver == who && there(block.piece) < 4;
                    let lies: Vec<_> =
                        got.iter().filter(|(block, giver)| lies(block, **giver)).map(|(&block, _)| block).collect();
                    prop_assert_eq!(&blocks.disbelieve(|giver| giver == addr(who)), &lies);
                    got.retain(|block, _| !lies.contains(block));
                }
                6 if n == 0 => {
                    blocks.give_back_all(peer);
                    mine.clear();
                }
                _ => {}
            }
            for (who, held) in held.iter().enumerate() {
                prop_assert_eq!(blocks.requests.of(slot(who as u32)), held.len());
            }
        }
        for who in 0..4 {
            blocks.give_back_all(slot(who));
        }
        prop_assert_eq!(blocks.requests.outstanding(), 0);
        for piece in 0..3 {
            for block in request(&mut blocks, slot(4), piece, 9) {
                prop_assert!(got.insert(block, 4).is_none());
                prop_assert!(blocks.receive(slot(4), addr(4), block).is_some());
            }
            prop_assert!(blocks.is_whole(PieceIndex(piece)));
            prop_assert_eq!(givers(&mut blocks, piece).map(|givers| givers.len()), Some(4));
        }
        prop_assert_eq!((got.len(), blocks.committed()), (12, 0));
    }
}
