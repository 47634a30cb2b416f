//! Disks that refuse: S45, S46.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::thread;

use harness::netns::enter_mounts;

use crate::world::{World, code};

/// Runs `test` in a mount namespace of its own, or says why it cannot.
fn in_mounts(test: impl FnOnce() + Send + 'static) {
    let run = thread::spawn(move || match enter_mounts() {
        Ok(()) => test(),
        Err(why) => eprintln!("SKIPPED: {why}"),
    });
    run.join().unwrap();
}

fn mount(words: &[&str]) {
    assert!(Command::new("mount").args(words).status().unwrap().success(), "mount {words:?}");
}

/// S45.
#[test]
fn a_full_disk_is_exit_5_and_the_download_goes_on_when_there_is_space() {
    in_mounts(|| {
        let world = World::new(40, 8 << 20);
        let (_seeder, addr) = world.start_seeder(&[]);
        let leecher = world.leecher();
        let folder = leecher.to_str().unwrap();
        mount(&["-t", "tmpfs", "-o", "size=4m", "tmpfs", folder]);
        let full = world.run(&mut world.download(addr));
        let stderr = String::from_utf8_lossy(&full.stderr).into_owned();
        assert_eq!(code(full.status), 5, "{stderr}");
        assert!(stderr.contains("no space") && stderr.contains(folder), "{stderr}");
        mount(&["-o", "remount,size=32m", folder]);
        let finished = world.run(&mut world.download(addr));
        assert_eq!(code(finished.status), 0, "{}", String::from_utf8_lossy(&finished.stderr));
        assert!(world.is_whole());
    });
}

/// S46.
#[test]
fn a_read_only_folder_is_exit_5() {
    in_mounts(|| {
        let world = World::new(41, 100_000);
        let (_seeder, addr) = world.start_seeder(&[]);
        let leecher = world.leecher();
        let folder = leecher.to_str().unwrap();
        mount(&["--bind", folder, folder]);
        mount(&["-o", "remount,bind,ro", folder]);
        let refused = world.run(&mut world.download(addr));
        let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(code(refused.status), 5, "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "one line: {stderr}");
    });
}

#[test]
fn a_folder_that_is_a_file_is_exit_5() {
    let world = World::new(42, 1000);
    let path = world.path("in-the-way");
    fs::write(&path, b"x").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let mut command = world.transfer(&[]);
    let refused = world.run(command.arg(world.torrent()).arg("-o").arg(&path));
    assert_eq!(code(refused.status), 5, "{}", String::from_utf8_lossy(&refused.stderr));
}
