//! Torrents of several files: few descriptors for them, and one that is taken away on the way.

use std::fs;
use std::path::Path;
use std::time::Duration;

use harness::faults::{fail_reads_from, limit_descriptors};
use harness::process::Running;

use crate::world::{NAME, World, code, events, pieces_of, wait_event};

/// Fills a folder of the seeder with so many files, and makes a torrent of it in the place of the world's.
fn of_files(world: &World, files: usize, len: usize) {
    let folder = world.seeder().join("many");
    fs::create_dir(&folder).unwrap();
    for file in 0..files {
        let bytes: Vec<u8> = (0..len).map(|at| (at / 3 + at / 1000 * 7 + file * 31) as u8).collect();
        fs::write(folder.join(format!("{file:03}")), bytes).unwrap();
    }
    fs::remove_file(world.torrent()).unwrap();
    let mut create = world.command();
    create.args(["create", "--piece-length", "16384"]).arg(&folder).arg("-o").arg(world.torrent());
    let made = world.run(&mut create);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

fn is_same(one: &Path, other: &Path) -> bool {
    let mut files = fs::read_dir(one).unwrap().map(|entry| entry.unwrap().path());
    files.all(|path| fs::read(&path).ok() == fs::read(other.join(path.file_name().unwrap())).ok())
}

#[test]
fn forty_files_are_seeded_checked_and_fetched_with_few_descriptors() {
    let world = World::new(60, 1000);
    of_files(&world, 40, 50_000);
    let mut seeder = world.transfer(&["seed"]);
    seeder.arg(world.torrent()).arg("-o").arg(world.seeder());
    limit_descriptors(&mut seeder, 48);
    let mut seeder = Running::start("seeder", &mut seeder);
    let addr = wait_event(&mut seeder, "listening", |event| event["addr"].as_str()?.parse().ok());
    wait_event(&mut seeder, "done", |_| Some(()));
    let mut fetch = world.download(addr);
    limit_descriptors(&mut fetch, 48);
    let fetched = world.run(&mut fetch);
    assert_eq!(code(fetched.status), 0, "{}", String::from_utf8_lossy(&fetched.stderr));
    let [from, to] = [world.seeder(), world.leecher()].map(|folder| folder.join("many"));
    assert_eq!(fs::read_dir(&to).unwrap().count(), 40);
    assert!(is_same(&from, &to));
}

/// S46.
#[test]
fn a_file_of_several_that_is_renamed_on_the_way_is_exit_5_and_fetched_again() {
    let world = World::new(61, 1000);
    of_files(&world, 4, 1 << 20);
    let mut seeder = world.transfer(&["seed", "--up", "2M"]);
    seeder.arg(world.torrent()).arg("-o").arg(world.seeder());
    let mut seeder = Running::start("seeder", &mut seeder);
    let addr = wait_event(&mut seeder, "listening", |event| event["addr"].as_str()?.parse().ok());
    wait_event(&mut seeder, "done", |_| Some(()));
    let mut leecher = Running::start("leecher", world.download(addr).arg("--sequential"));
    let done = wait_event(&mut leecher, "file", |event| Some(event["path"].as_str()?.to_owned()));
    let path = world.leecher().join(&done);
    fs::rename(&path, path.with_extension("moved")).unwrap();
    let status = leecher.wait(Duration::from_secs(60));
    let stderr = leecher.stderr();
    assert_eq!(code(status), 5, "{stderr}");
    assert!(stderr.contains(&done), "it is named: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "one line: {stderr}");
    assert!(!path.exists(), "it is not made anew, full of zeros");
    let again = world.run(&mut world.download(addr));
    assert_eq!(code(again.status), 0, "{}", String::from_utf8_lossy(&again.stderr));
    assert!(is_same(&world.seeder().join("many"), &world.leecher().join("many")));
}

/// The next run has not yet found a peer when it happens.
#[test]
fn half_a_file_that_is_deleted_before_the_next_run_writes_to_it_is_not_taken_for_whole() {
    let world = World::new(62, 2 << 20);
    let (_seeder, addr) = world.start_seeder(&[]);
    let mut half = world.download(addr);
    harness::faults::fail_writes_from(half.arg("--sequential"), 1 << 20);
    assert_eq!(code(world.run(&mut half).status), 5);
    let path = world.leecher().join(NAME);
    // A peer that does not listen yet: it is dialled again.
    let late = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let std::net::SocketAddr::V4(at) = late.local_addr().unwrap() else { panic!("it is bound to one") };
    let mut leecher = Running::start("leecher", &mut world.download(at));
    // It is at work when it connects.
    let (mut stream, _) = late.accept().unwrap();
    fs::remove_file(&path).unwrap();
    // From here on it is a pipe to the seeder.
    let to = std::net::TcpStream::connect(addr).unwrap();
    let (mut from_leecher, mut to_seeder) = (stream.try_clone().unwrap(), to.try_clone().unwrap());
    std::thread::spawn(move || std::io::copy(&mut from_leecher, &mut to_seeder));
    let mut from_seeder = to;
    std::thread::spawn(move || std::io::copy(&mut from_seeder, &mut stream));
    let status = leecher.wait(Duration::from_secs(60));
    assert_eq!(code(status), 5, "{}", leecher.stderr());
    assert!(leecher.stderr().contains("taken away"), "{}", leecher.stderr());
    assert!(!path.exists());
    let finished = world.run(&mut world.download(addr));
    assert_eq!(code(finished.status), 0, "{}", String::from_utf8_lossy(&finished.stderr));
    assert!(world.is_whole() && pieces_of(&finished) == 128);
}

/// S46: the bad place is met before anything is fetched.
#[test]
fn a_disk_that_cannot_be_read_is_exit_5_and_costs_nothing_that_is_there() {
    let world = World::new(63, 2 << 20);
    let (_seeder, addr) = world.start_seeder(&[]);
    fs::copy(world.seeder().join(NAME), world.leecher().join(NAME)).unwrap();
    let mut command = world.download(addr);
    fail_reads_from(&mut command, 1 << 20);
    let refused = world.run(&mut command);
    let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(code(refused.status), 5, "{stderr}");
    assert!(stderr.contains("os error 5") && stderr.contains(NAME), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "one line: {stderr}");
    let finished = world.run(&mut world.download(addr));
    assert_eq!(code(finished.status), 0, "{}", String::from_utf8_lossy(&finished.stderr));
    let fetched = |event: &serde_json::Value| event["event"] == "piece";
    assert!(world.is_whole() && !events(&finished).iter().any(fetched));
}
