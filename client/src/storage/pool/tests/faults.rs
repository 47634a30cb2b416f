//! Disks that refuse, and threads that panic.

use super::*;

#[test]
fn a_full_disk_stops_everything_and_nothing_is_lost_when_it_resumes() {
    for write_cache in [0, 16 << 20] {
        let fixture = Fixture::new(PoolConfig { write_cache, ..threads(2) });
        fixture.storage.set(Some(Fault::NoSpace), 2);
        (0..fixture.info.pieces()).for_each(|piece| fixture.write_piece(piece));
        let mut answers = fixture.until(|done| matches!(done, Done::Failed(_)));
        // Saving goes on meanwhile, and a second resume without space fails again.
        answers.extend(fixture.save());
        fixture.pool.resume();
        answers.extend(fixture.until(|done| matches!(done, Done::Failed(_))));
        fixture.storage.set(None, 0);
        fixture.pool.resume();
        let count = |answers: &[Done]| {
            let mut sum = (0, 0_u64);
            for done in answers {
                match done {
                    Done::Piece(_, Verdict::Good) => sum.0 += 1,
                    Done::Freed(bytes) => sum.1 += u64::from(*bytes),
                    Done::Failed(error) => assert_eq!(error.kind, DiskErrorKind::NoSpace),
                    Done::Saved { .. } => {}
                    other => panic!("{other:?}"),
                }
            }
            sum
        };
        while count(&answers) != (fixture.info.pieces(), fixture.info.total()) {
            let more = fixture.until(|_| true);
            // A failure of the full disk's time may be told late, and it holds everything again.
            if more.iter().any(|done| matches!(done, Done::Failed(_))) {
                fixture.pool.resume();
            }
            answers.extend(more);
        }
        assert_eq!(fixture.on_disk(), payload());
    }
}

#[test]
fn a_full_or_broken_disk_is_tried_once_a_thread_and_not_again_before_it_may_go_on() {
    for fault in [Fault::NoSpace, Fault::WriteError] {
        let fixture = Fixture::new(PoolConfig { write_cache: 0, ..threads(2) });
        fixture.storage.set(Some(fault), 2);
        (0..fixture.info.pieces()).for_each(|piece| fixture.write_piece(piece));
        for resumes in 0..50 {
            fixture.until(|done| matches!(done, Done::Failed(_)));
            // Time for whoever would not hold.
            (0..20).for_each(|_| drop(fixture.save()));
            let (refused, most) = (fixture.storage.refused(), 2 * (resumes + 1));
            assert!((1..=most).contains(&refused), "{fault:?}: {refused} writes after {resumes} resumes");
            fixture.pool.resume();
        }
    }
}

#[test]
fn empty_files_are_made_and_longer_ones_cut_before_the_disk_is_waited_for() {
    let fixture = Fixture::new(PoolConfig::default());
    (0..fixture.info.pieces()).for_each(|piece| fixture.write_piece(piece));
    fixture.storage.set(Some(Fault::SyncError), 0);
    fixture.pool.submit(Job::Save(SaveId(1), Totals::default())).unwrap();
    fixture.until(|done| matches!(done, Done::Failed(_)));
    assert_eq!(fixture.storage.stamp(1).unwrap().map(|stamp| stamp.len), Some(0));
}

#[test]
fn a_failed_read_or_sync_is_reported_and_ends_with_its_cause() {
    let fixture = Fixture::with(threads(2), true);
    fixture.storage.set(Some(Fault::ReadError), 0);
    let at = BlockRef { piece: PieceIndex(0), begin: 0, len: 5 };
    fixture.pool.submit(Job::Read(PEER, at)).unwrap();
    fixture.until(|done| matches!(done, Done::Failed(error) if error.kind == DiskErrorKind::Io));
    fixture.storage.set(None, 0);
    fixture.pool.resume();
    fixture.pool.submit(Job::Read(PEER, at)).unwrap();
    fixture.until(|done| matches!(done, Done::Read(..)));
    fixture.pool.submit(Job::Check(Bitfield::full(fixture.info.pieces()))).unwrap();
    fixture.until(|done| matches!(done, Done::CheckEnded));
    fixture.storage.set(Some(Fault::SyncError), 0);
    assert!(matches!(fixture.save()[..], [Done::Failed(_), Done::Unsaved(SaveId(1))]));
    fixture.storage.set(None, 0);
    fixture.pool.resume();
    assert!(matches!(fixture.save()[..], [Done::Saved { doubted: 0, .. }]));
}

#[test]
fn a_download_that_fits_the_cache_reads_nothing() {
    for count in [1, 2] {
        let fixture = Fixture::new(threads(count));
        fixture.storage.set(Some(Fault::ReadError), 0);
        (0..fixture.info.pieces()).for_each(|piece| fixture.write_piece(piece));
        fixture.all_good();
        assert!(matches!(fixture.save()[..], [Done::Saved { doubted: 0, .. }]));
        assert_eq!(fixture.on_disk(), payload());
    }
}

#[test]
fn a_panic_becomes_a_failure_that_stays() {
    let fixture = Fixture::new(threads(2));
    fixture.storage.set(Some(Fault::Panic), 0);
    fixture.write_piece(0);
    fixture.until(|done| matches!(done, Done::Failed(error) if error.detail.contains("panicked")));
    fixture.storage.set(None, 0);
    fixture.pool.resume();
    fixture.until(|done| matches!(done, Done::Failed(_)));
    assert!(matches!(fixture.save()[..], [Done::Saved { .. }]));
}
