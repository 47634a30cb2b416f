//! The state folder: kept across runs, locked, never believed blindly.

use std::fs;

use crate::harness::{Home, NOBODY, Running};

const STATE: &str = ".local/state/btdht/node.bencode";

fn id_of(home: &Home) -> (Running, String) {
    let args = ["serve", "--bind", "127.0.0.1", "--port", "0", "--bootstrap", NOBODY];
    let node = Running::start(&mut home.command(&args));
    let line = node.line(|line| line.starts_with("listening "));
    (node, line.rsplit(' ').next().unwrap().to_owned())
}

#[test]
fn a_node_keeps_its_id_and_one_without_state_does_not() {
    let home = Home::new();
    let ids = [(); 2].map(|()| {
        let (node, id) = id_of(&home);
        node.signal("-TERM");
        node.finish().expect_code(143);
        id
    });
    assert_eq!(ids[0], ids[1]);
    let (_running, addr) = home.serve(NOBODY, &["--no-state"]);
    assert_ne!(addr.port(), 0);
}

#[test]
fn state_in_use_is_exit_code_6_and_one_shot_verbs_do_not_care() {
    let home = Home::new();
    let (node, addr) = home.serve(NOBODY, &[]);
    let args = ["serve", "--bind", "127.0.0.1", "--port", "0", "--bootstrap", NOBODY];
    let finished = home.run(&args).expect_code(6);
    assert!(finished.error().contains(".local/state/btdht") && finished.error().contains("--state"));
    home.run(&["ping", &addr.to_string(), "--bind", "127.0.0.1", "--allow-local", "--bootstrap", NOBODY])
        .expect_code(0);
    drop(node);
    let (_again, _) = home.serve(NOBODY, &[]);
}

#[test]
fn a_state_folder_that_the_disk_refuses_is_exit_code_5() {
    let home = Home::new();
    fs::write(home.path().join("file"), b"").unwrap();
    let state = home.path().join("file/state");
    let args = ["serve", "--bind", "127.0.0.1", "--port", "0", "--bootstrap", NOBODY, "--state"];
    let finished = home.run(&[&args[..], &[state.to_str().unwrap()]].concat()).expect_code(5);
    assert!(finished.error().contains("file/state"));
}

// S20
#[test]
fn garbage_in_the_state_file_is_one_warning_and_an_empty_start() {
    let mut nested = vec![b'l'; 500_000];
    nested.extend(vec![b'e'; 500_000]);
    for garbage in [vec![b'x'; 10 << 20], nested, b"d5:homesl".to_vec(), Vec::new()] {
        let home = Home::new();
        fs::create_dir_all(home.path().join(STATE).parent().unwrap()).unwrap();
        fs::write(home.path().join(STATE), &garbage).unwrap();
        let (node, _) = home.serve(NOBODY, &[]);
        node.signal("-TERM");
        let finished = node.finish().expect_code(143);
        assert_eq!(finished.stderr.lines().filter(|line| line.contains("starting empty")).count(), 1);
        let (_healed, _) = home.serve(NOBODY, &[]);
    }
}

// S19, a bounded number of moments
#[test]
fn a_kill_while_saving_leaves_state_that_starts() {
    kill_while_saving(12, 150);
}

#[test]
#[ignore = "S19 whole: 50 starts of the program"]
fn fifty_kills_while_saving_leave_state_that_starts() {
    kill_while_saving(51, 35);
}

/// Kills a saving node at `moments - 1` moments that lie `apart` microseconds apart.
fn kill_while_saving(moments: u32, apart: u64) {
    let home = Home::new();
    let mut known = None;
    for moment in 0..moments {
        let (node, id) = id_of(&home);
        if let Some(known) = &known {
            assert_eq!(*known, id, "the state of the first run is whole");
        }
        node.signal("-TERM");
        if moment == 0 {
            node.finish().expect_code(143);
            known = Some(id);
            continue;
        }
        // Saving takes a few hundred microseconds; these moments fall before, into and after it.
        let until = std::time::Instant::now() + std::time::Duration::from_micros(u64::from(moment) * apart);
        while std::time::Instant::now() < until {
            std::hint::spin_loop();
        }
        node.kill();
    }
    let (node, _) = id_of(&home);
    node.signal("-TERM");
    assert_eq!(node.finish().expect_code(143).stderr, "");
}
