//! Jobs in folders of their own.

use std::time::Duration;

use futures_util::FutureExt as _;

use super::*;

pub(super) fn magnet(peer: SocketAddr) -> Source {
    let infohash = metainfo().info.hash().v1.unwrap();
    let link = format!("magnet:?xt=urn:btih:{infohash}&x.pe={peer}");
    Source::Magnet(Box::new(krpc::magnet::Magnet::parse(&link).unwrap()))
}

#[tokio::test]
async fn a_job_goes_on_after_a_restart_with_its_state_choices_and_data() {
    let (from, seed, _data) = seeder().await;
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("job");
    let mut job = Job::create(&dir, magnet(from.local_addrs()[0])).unwrap();
    assert!(matches!(Job::create(&dir, source()), Err(JobError::Exists(_))));
    assert!(matches!(Job::load(&dir), Err(JobError::InUse(_))));
    job.start().await.unwrap();
    job.set_max_peers(7).await.unwrap();
    let first = session();
    let _events = job.open(&first).await.unwrap();
    job.torrent().unwrap().wait_complete().await.unwrap();
    assert!(job.is_finished());
    job.prioritize(vec![1, 2]).await.unwrap();
    job.pause().await.unwrap();
    job.close().await;
    drop(job);
    first.shutdown().await;
    // Nobody is left who could tell what the magnet stands for.
    seed.stop().await;

    let mut job = Job::load(&dir).unwrap();
    assert_eq!((job.state(), job.choices().0, job.choices().1), (State::Paused, Some(7), &[1, 2][..]));
    let second = session();
    let mut events = job.open(&second).await.unwrap();
    until(&mut events, |event| matches!(event, Event::Complete)).await;
    job.resume().await.unwrap();
    let status = job.status().await;
    assert_eq!((status.state, status.dir.as_path()), (State::Started, dir.as_path()));
    assert_eq!(status.progress.unwrap(), Progress { finished: 20, unfinished: 0, percentage: 100.0 });
    assert_eq!((status.files.len(), status.files[1].priority), (2, 2));
    assert_eq!(std::fs::read(job.data().join("t/a")).unwrap(), payload()[..200_000]);
    job.stop().await.unwrap();
    assert_eq!(job.torrent().unwrap().state(), State::Stopped);
    drop(job);
    assert_eq!(Job::load(&dir).unwrap().state(), State::Stopped);
}

#[tokio::test]
async fn a_job_remembers_how_its_files_take_their_space() {
    let (from, _seed, _data) = seeder().await;
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("job");
    let mut job = Job::create(&dir, magnet(from.local_addrs()[0])).unwrap();
    for chosen in [Some(Preallocation::None), Some(Preallocation::Sparse), None, Some(Preallocation::Full)] {
        job.set_preallocation(chosen).await.unwrap();
        drop(job);
        job = Job::load(&dir).unwrap();
        assert_eq!(job.preallocation(), chosen);
    }
    job.start().await.unwrap();
    let mut events = job.open(&session()).await.unwrap();
    let told = until(&mut events, |event| matches!(event, Event::Preallocating { .. })).await;
    let total = LEN as u64;
    assert!(
        matches!(told, Event::Preallocating { done, total: all } if (done, all) == (total, total)),
        "{told:?}"
    );
    job.torrent().unwrap().wait_complete().await.unwrap();
}

#[tokio::test]
async fn a_job_remembers_its_limits_and_older_programs_read_one_that_has_none() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("job");
    let mut job = Job::create(&dir, source()).unwrap();
    let version = || {
        let file = std::fs::read(dir.join("job")).unwrap();
        let at = file.windows(10).rposition(|window| window == b"7:versioni").unwrap();
        file[at + 10]
    };
    let rates = Rates { down: 1, up: u64::MAX, peer_down: 0, peer_up: 300_000 };
    for (space, rates, expected) in [
        (None, Rates::default(), b'1'),
        (None, rates, b'3'),
        (Some(Preallocation::Full), rates, b'3'),
        (Some(Preallocation::Full), Rates::default(), b'2'),
    ] {
        job.set_preallocation(space).await.unwrap();
        job.set_rates(rates).await.unwrap();
        drop(job);
        job = Job::load(&dir).unwrap();
        assert_eq!((job.preallocation(), job.rates(), version()), (space, rates, expected));
    }
}

/// The file of a job as programs wrote it that knew no preallocation.
#[tokio::test]
async fn a_job_of_the_version_before_is_read_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("job");
    let link = "magnet:?xt=urn:btih:6162636465666768696a30313233343536373839";
    drop(Job::create(&dir, Source::Magnet(Box::new(krpc::magnet::Magnet::parse(link).unwrap()))).unwrap());
    let mut sum = Sha1::new();
    [1_i64, 2, 7].iter().for_each(|number| sum.update(number.to_be_bytes()));
    for bytes in [link.as_bytes(), b"", &[0, 3]] {
        sum.update((bytes.len() as u64).to_be_bytes());
        sum.update(bytes);
    }
    let write = |sum: &[u8]| {
        let head =
            format!("6:magnet{}:{link}9:max_peersi7e10:priorities2:\0\x035:statei2e7:torrent0:", link.len());
        let file = [b"d8:checksum20:", sum, head.as_bytes(), b"7:versioni1ee"].concat();
        std::fs::write(dir.join("job"), file).unwrap();
    };
    write(&[0; 20]);
    assert!(matches!(Job::load(&dir), Err(JobError::Damaged { .. })));
    write(&sum.finalize());
    let plain = std::fs::read(dir.join("job")).unwrap();
    let mut job = Job::load(&dir).unwrap();
    assert_eq!((job.choices().0, job.choices().1, job.preallocation()), (Some(7), &[3][..], None));
    job.set_preallocation(Some(Preallocation::Full)).await.unwrap();
    drop(job);
    let mut job = Job::load(&dir).unwrap();
    assert_eq!((job.choices().0, job.preallocation()), (Some(7), Some(Preallocation::Full)));
    // Without a choice, programs of that time can read it again.
    assert_ne!(std::fs::read(dir.join("job")).unwrap(), plain);
    job.set_preallocation(None).await.unwrap();
    assert_eq!(std::fs::read(dir.join("job")).unwrap(), plain);
}

#[tokio::test]
async fn a_job_is_saved_off_the_runtime_and_an_abandoned_save_never_undoes_a_later_one() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("job");
    for round in 0..20 {
        let mut job = if round == 0 { Job::create(&dir, source()) } else { Job::load(&dir) }.unwrap();
        let place = job.place();
        let held = place.lock().unwrap();
        assert!(job.start().now_or_never().is_none(), "the disk is waited for elsewhere");
        drop(held);
        // It is the lock, too.
        drop(place);
        assert_eq!(job.state(), State::Started);
        job.pause().await.unwrap();
        drop(job);
        // What was abandoned has the lock until it has ended.
        let again = loop {
            match Job::load(&dir) {
                Err(JobError::InUse(_)) => tokio::task::yield_now().await,
                again => break again.unwrap(),
            }
        };
        assert_eq!(again.state(), State::Paused, "round {round}");
    }
}

/// A magnet that wants the second file alone.
fn selective_magnet(peer: SocketAddr) -> Source {
    let Source::Magnet(mut magnet) = magnet(peer) else { panic!("it is one") };
    magnet.select_only = krpc::magnet::Magnet::parse(&format!("{magnet}&so=1")).unwrap().select_only;
    assert!(magnet.select_only.is_some());
    Source::Magnet(magnet)
}

/// Longer than any of this takes: a peer that is never dialled would be waited for for ever.
async fn complete(job: &Job) {
    let completes = job.torrent().unwrap().wait_complete();
    tokio::time::timeout(Duration::from_secs(60), completes).await.expect("it finds the peer").unwrap();
}

#[tokio::test]
async fn a_magnet_that_is_known_keeps_its_selection_and_its_peers() {
    let (from, _seed, _data) = seeder().await;
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("job");
    let mut job = Job::create(&dir, selective_magnet(from.local_addrs()[0])).unwrap();
    job.start().await.unwrap();
    let _events = job.open(&session()).await.unwrap();
    complete(&job).await;
    job.close().await;
    drop(job);
    // The peer has to be found again.
    std::fs::remove_file(dir.join("data/t/b")).unwrap();
    let mut job = Job::load(&dir).unwrap();
    let _events = job.open(&session()).await.unwrap();
    assert!(job.torrent().unwrap().info().is_some(), "it is known from the start");
    complete(&job).await;
    let files = job.files().await;
    assert_eq!((files[0].priority, files[1].priority), (0, 1));
    assert_eq!(std::fs::read(dir.join("data/t/b")).unwrap(), payload()[200_000..]);
    assert!(!dir.join("data/t/a").exists(), "it is not wanted");
    // What the user says holds instead, also that all are wanted.
    job.prioritize(vec![]).await.unwrap();
    job.close().await;
    drop(job);
    let mut job = Job::load(&dir).unwrap();
    let _events = job.open(&session()).await.unwrap();
    complete(&job).await;
    assert_eq!(std::fs::read(dir.join("data/t/a")).unwrap(), payload()[..200_000]);
}

#[tokio::test]
async fn a_job_of_which_nothing_is_wanted_is_opened_again() {
    let (from, _seed, _data) = seeder().await;
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("job");
    let mut job = Job::create(&dir, magnet(from.local_addrs()[0])).unwrap();
    job.start().await.unwrap();
    job.prioritize(vec![0, 0]).await.unwrap();
    for _ in 0..2 {
        let _events = job.open(&session()).await.unwrap();
        complete(&job).await;
        let progress = job.progress().await.unwrap();
        assert_eq!((progress.finished, progress.unfinished), (0, 0));
        job.close().await;
    }
    job.prioritize(vec![0, 2]).await.unwrap();
    let _events = job.open(&session()).await.unwrap();
    complete(&job).await;
    assert_eq!(std::fs::read(dir.join("data/t/b")).unwrap(), payload()[200_000..]);
}

#[test]
fn a_job_whose_making_was_killed_at_any_step_is_made_again() {
    let infohash = metainfo().info.hash().v1.unwrap();
    let name = |what: &str| format!(".{infohash}.btfetch.{what}");
    type Step<'a> = &'a dyn Fn(&Path);
    let steps: [Step<'_>; 4] = [
        &|draft| std::fs::create_dir(draft).unwrap(),
        &|draft| std::fs::write(draft.join(name("lock")), b"").unwrap(),
        &|draft| std::fs::write(draft.join("job.new"), b"d8:checks").unwrap(),
        &|draft| std::fs::rename(draft.join("job.new"), draft.join("job")).unwrap(),
    ];
    for killed_after in 0..steps.len() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, draft) = (folder.path().join("job"), folder.path().join(name("job")));
        steps[..=killed_after].iter().for_each(|step| step(&draft));
        assert!(matches!(Job::load(&dir), Err(JobError::NoJob(_))), "killed after step {killed_after}");
        let job = Job::create(&dir, source()).unwrap();
        assert!(matches!(Job::load(&dir), Err(JobError::InUse(_))), "its lock came along");
        drop(job);
        assert_eq!(names(&dir), ["job"], "killed after step {killed_after}");
        assert_eq!(names(folder.path()), ["job"]);
        assert!(Job::load(&dir).is_ok());
    }
}

#[test]
fn a_job_that_cannot_be_made_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("job")).unwrap();
    std::os::unix::fs::symlink("nowhere", folder.path().join("link")).unwrap();
    for taken in ["job", "link"] {
        assert!(matches!(Job::create(&folder.path().join(taken), source()), Err(JobError::Exists(_))));
    }
    assert!(matches!(Job::create(&folder.path().join("none/job"), source()), Err(JobError::Disk(_))));
    assert_eq!(names(folder.path()), ["job", "link"]);
}

fn names(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_damaged_job_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("job");
    assert!(matches!(Job::load(&dir), Err(JobError::NoJob(_))));
    drop(Job::create(&dir, source()).unwrap());
    let path = dir.join("job");
    let down = |down| Rates { down, ..Rates::default() };
    // Each is of another version.
    for (space, rates) in [(None, down(0)), (Some(Preallocation::Full), down(0)), (None, down(7))] {
        let mut job = Job::load(&dir).unwrap();
        job.set_preallocation(space).await.unwrap();
        job.set_rates(rates).await.unwrap();
        drop(job);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            std::fs::write(&path, &flipped).unwrap();
            assert!(matches!(Job::load(&dir), Err(JobError::Damaged { .. })), "byte {at}");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert!(matches!(Job::load(&dir), Err(JobError::Damaged { .. })), "cut at {at}");
        }
        std::fs::write(&path, &whole).unwrap();
        assert!(Job::load(&dir).is_ok());
    }
}

#[tokio::test]
async fn a_job_whose_torrent_has_ended_says_so_and_is_opened_again() {
    let (from, _seed, _data) = seeder().await;
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("job");
    let mut job = Job::create(&dir, magnet(from.local_addrs()[0])).unwrap();
    let first = session();
    let _events = job.open(&first).await.unwrap();
    first.shutdown().await;
    assert!(matches!(job.start().await, Err(JobError::Ended(of)) if of == dir));
    assert!(matches!(job.pause().await, Err(JobError::Ended(_))));
    assert_eq!(job.state(), State::Stopped, "nothing has changed");
    job.stop().await.unwrap();
    let second = session();
    let _events = job.open(&second).await.unwrap();
    job.start().await.unwrap();
    complete(&job).await;
}
