//! Neighbours that are written together.

use super::*;

/// One thread that finds all blocks of these pieces at once.
fn batch(fixture: &Fixture, blocks: Vec<(BlockRef, Vec<u8>)>) {
    fixture.pool.shared.hold(panicked(), false);
    fixture.until(|done| matches!(done, Done::Failed(_)));
    let mut jobs = blocks.into_iter().map(|(at, bytes)| Job::Write(at, Block::from(bytes))).collect();
    fixture.pool.submit_all(&mut jobs);
    assert!(jobs.is_empty());
    fixture.pool.resume();
}

fn all_blocks(fixture: &Fixture) -> Vec<(BlockRef, Vec<u8>)> {
    (0..fixture.info.pieces()).flat_map(|piece| fixture.blocks(piece)).collect()
}

/// Writes of each file; memory counts them instead of nanoseconds.
fn writes(fixture: &Fixture) -> Vec<i64> {
    let stamp = |file| fixture.storage.stamp(file).unwrap();
    (0..LENGTHS.len()).map(|file| stamp(file).map_or(0, |stamp| stamp.mtime)).collect()
}

#[test]
fn neighbours_that_are_ready_at_once_become_one_write_of_each_file() {
    // In order, and with the last piece first.
    for backwards in [false, true] {
        let fixture = Fixture::new(threads(1));
        let mut blocks = all_blocks(&fixture);
        if backwards {
            blocks.reverse();
        }
        batch(&fixture, blocks);
        fixture.all_good();
        assert_eq!(fixture.on_disk(), payload());
        assert_eq!(writes(&fixture), [1, 0, 1, 1]);
    }
}

#[test]
fn what_is_held_for_a_neighbour_is_bounded() {
    // Two pieces at most: 0 and 1, 2 and 3, 4 and 5 together, where 2 lies in three files.
    let fixture = Fixture::new(PoolConfig { join: 2 * PIECE_LEN, ..threads(1) });
    batch(&fixture, all_blocks(&fixture));
    fixture.all_good();
    assert_eq!(fixture.on_disk(), payload());
    assert_eq!(writes(&fixture), [2, 0, 1, 2]);
}

#[test]
fn a_wrong_piece_parts_its_neighbours() {
    let fixture = Fixture::new(threads(1));
    let mut blocks = all_blocks(&fixture);
    blocks.iter_mut().filter(|(at, _)| at.piece.0 == 3).for_each(|(_, bytes)| bytes[7] ^= 1);
    batch(&fixture, blocks);
    let (mut good, mut bad) = (0, 0);
    fixture.until(|done| {
        good += u32::from(matches!(done, Done::Piece(_, Verdict::Good)));
        bad += u32::from(matches!(done, Done::Piece(PieceIndex(3), Verdict::Bad { .. })));
        good + bad == fixture.info.pieces()
    });
    assert_eq!((bad, writes(&fixture)), (1, vec![1, 0, 1, 2]));
    let mut expected = payload();
    let piece = PIECE_LEN as usize;
    expected[3 * piece..4 * piece].fill(0);
    assert_eq!(fixture.on_disk(), expected);
    fixture.write_piece(3);
    fixture.until(|done| matches!(done, Done::Piece(PieceIndex(3), Verdict::Good)));
    assert_eq!(fixture.on_disk(), payload());
}

#[test]
fn neighbours_of_which_half_is_written_are_not_claimed() {
    let fixture = Fixture::new(threads(1));
    // The first file is written, the next one is not.
    fixture.storage.set(Some(Fault::WriteError), 1);
    batch(&fixture, all_blocks(&fixture));
    let answers = fixture.until(|done| matches!(done, Done::Failed(_)));
    assert!(!answers.iter().any(|done| matches!(done, Done::Piece(..))), "{answers:?}");
    assert!(fixture.pool.written().is_empty());
    assert_eq!(writes(&fixture), [1, 0, 0, 0]);
    // A save goes past them and claims nothing.
    assert!(matches!(fixture.save()[..], [Done::Saved { .. }]));
    assert!(fixture.pool.written().is_empty());
    fixture.storage.set(None, 0);
    fixture.pool.resume();
    fixture.all_good();
    assert_eq!(fixture.on_disk(), payload());
}

#[test]
fn what_comes_behind_the_last_block_finds_its_piece_written() {
    let fixture = Fixture::new(threads(1));
    fixture.pool.shared.hold(panicked(), false);
    fixture.until(|done| matches!(done, Done::Failed(_)));
    let write = |(at, bytes): (BlockRef, Vec<u8>)| Job::Write(at, Block::from(bytes));
    let mut jobs: VecDeque<Job> = fixture.blocks(0).into_iter().map(write).collect();
    jobs.push_back(Job::Discard(PieceIndex(0)));
    jobs.push_back(Job::Read(PEER, BlockRef { piece: PieceIndex(0), begin: 0, len: 9 }));
    jobs.extend(fixture.blocks(1).into_iter().take(1).map(write));
    fixture.pool.submit_all(&mut jobs);
    fixture.pool.resume();
    let answers = fixture.until(|done| matches!(done, Done::Read(..)));
    let good = |done: &Done| matches!(done, Done::Piece(PieceIndex(0), Verdict::Good));
    assert!(answers.iter().any(good), "{answers:?}");
    assert!(fixture.pool.written().contains(0));
}
