//! Saved state: written, read, damaged and dealt out.

use super::*;
use crate::Rng;

fn sample(seed: u64, nodes: usize) -> Saved {
    let mut rng = Rng::from_seed(seed);
    let home = |ipv6, rng: &mut Rng| SavedHome {
        id: rng.id(),
        ipv6,
        local: Some(if ipv6 { "[::]:6881" } else { "0.0.0.0:6881" }.parse().unwrap()),
        external: Some(if ipv6 { "2001:db8::1".parse().unwrap() } else { "192.0.2.1".parse().unwrap() }),
        nodes: (0..nodes)
            .map(|n| {
                let addr =
                    if ipv6 { format!("[2001:db8::{n:x}]:{}", n + 1) } else { format!("192.0.2.{n}:7") };
                (rng.id(), addr.parse().unwrap())
            })
            .collect(),
    };
    Saved { homes: vec![home(false, &mut rng), home(true, &mut rng)] }
}

#[test]
fn what_is_written_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateFolder::open(&folder.path().join("deep/er")).unwrap();
    assert_eq!(state.read(), Saved::default());
    for seed in 0..3 {
        state.write(&sample(seed, 100)).unwrap();
        assert_eq!(state.read(), sample(seed, 100));
    }
}

fn addrs(list: &[&str]) -> Vec<SocketAddr> {
    list.iter().map(|addr| addr.parse().unwrap()).collect()
}

/// Homes at these addresses, with ids that are bytes of their place in the list.
fn homes_at(list: &[&str]) -> Saved {
    let home = |(nth, addr): (usize, SocketAddr)| SavedHome {
        id: Id::new([nth as u8; 20]),
        ipv6: addr.is_ipv6(),
        local: Some(addr),
        external: None,
        nodes: Vec::new(),
    };
    Saved { homes: addrs(list).into_iter().enumerate().map(home).collect() }
}

/// The first bytes of the ids that sockets get, and of those that are left.
fn deal(saved: &Saved, locals: &[&str]) -> (Vec<Option<u8>>, Vec<u8>) {
    let (dealt, left) = saved.deal(&addrs(locals));
    let name = |home: &SavedHome| home.id.as_bytes()[0];
    (dealt.into_iter().map(|home| home.map(name)).collect(), left.into_iter().map(name).collect())
}

#[test]
fn homes_go_to_their_addresses_in_whatever_order() {
    let saved = homes_at(&["192.0.2.1:1", "192.0.2.2:1", "[2001:db8::1]:1", "192.0.2.3:1"]);
    let swapped = ["192.0.2.3:1", "[2001:db8::1]:1", "192.0.2.1:1", "192.0.2.2:1"];
    assert_eq!(deal(&saved, &swapped), (vec![Some(3), Some(2), Some(0), Some(1)], vec![]));
    assert_eq!(deal(&saved, &["192.0.2.2:9"]), (vec![Some(1)], vec![0, 2, 3]), "another port");
    assert_eq!(deal(&saved, &["192.0.2.9:1", "192.0.2.2:1"]), (vec![Some(0), Some(1)], vec![2, 3]));
    let ports = homes_at(&["192.0.2.1:1", "192.0.2.1:2"]);
    assert_eq!(deal(&ports, &["192.0.2.1:2", "192.0.2.1:3"]), (vec![Some(1), Some(0)], vec![]));
}

#[test]
fn the_only_home_of_a_family_moves_with_its_only_socket() {
    let saved = homes_at(&["192.0.2.1:1", "[2001:db8::1]:1"]);
    assert_eq!(deal(&saved, &["198.51.100.7:5"]), (vec![Some(0)], vec![1]));
    assert_eq!(deal(&saved, &["198.51.100.7:5", "[::]:5"]), (vec![Some(0), Some(1)], vec![]));
    assert_eq!(deal(&saved, &["198.51.100.7:5", "198.51.100.8:5"]), (vec![None, None], vec![0, 1]));
}

#[test]
fn homes_of_a_file_without_addresses_go_by_their_order() {
    let mut saved = homes_at(&["192.0.2.1:1", "[2001:db8::1]:1", "192.0.2.2:1"]);
    saved.homes.iter_mut().for_each(|home| home.local = None);
    let locals = ["192.0.2.7:1", "192.0.2.8:1", "192.0.2.9:1", "[::]:1"];
    assert_eq!(deal(&saved, &locals), (vec![Some(0), Some(2), None, Some(1)], vec![]));
}

#[test]
fn what_is_absent_is_kept_as_far_as_there_is_room() {
    let many: Vec<_> = (1..=MAX_HOMES).map(|n| format!("192.0.2.{n}:1")).collect();
    let many = homes_at(&many.iter().map(String::as_str).collect::<Vec<_>>()).homes;
    let saved = Saved::of(many[..3].to_vec(), &many[3..5]);
    assert_eq!(saved.homes, many[..5]);
    let saved = Saved::of(many[..3].to_vec(), &many);
    assert_eq!((saved.homes.len(), &saved.homes[3..]), (MAX_HOMES, &many[..MAX_HOMES - 3]));
    assert_eq!(Saved::of([&many[..], &many].concat(), &many).homes, many);
}

#[test]
fn an_address_that_makes_no_sense_costs_no_more_than_itself() {
    let nonsense: [&[u8]; 3] = [b"5:local3:abc", b"5:local18:aaaaaaaaaaaaaaaabb", b""];
    for local in nonsense {
        let head = [&b"d5:homesld2:id20:"[..], &[7; 20], b"4:ipv6i0e"].concat();
        let read = Saved::decode(&[&head[..], local, b"5:nodes0:ee7:versioni2ee"].concat()).unwrap();
        assert_eq!((read.homes[0].id, read.homes[0].local), (Id::new([7; 20]), None));
    }
}

#[test]
fn the_most_that_is_written_can_be_read() {
    let mut home = sample(1, 1).homes.remove(1);
    home.nodes = vec![home.nodes[0]; MAX_NODES + 1];
    let read = Saved::decode(&Saved { homes: vec![home; MAX_HOMES + 1] }.encode())
        .expect("within the limits of reading");
    assert_eq!(read.homes.len(), MAX_HOMES);
    assert!(read.homes.iter().all(|home| home.nodes.len() == MAX_NODES));
}

#[test]
fn garbage_truncation_and_nesting_are_an_empty_start() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateFolder::open(folder.path()).unwrap();
    let whole = sample(1, 5).encode();
    let mut inputs = vec![
        Vec::new(),
        vec![b'l'; 100_000],
        vec![b'x'; 10_000_000],
        b"d5:homesle7:versioni3ee".to_vec(),
        b"d5:homesld2:id3:abc4:ipv6i0e5:nodes0:ee7:versioni1ee".to_vec(),
        [&whole[..], b"trailing"].concat(),
    ];
    inputs.extend((1..whole.len()).step_by(7).map(|len| whole[..len].to_vec()));
    for input in inputs {
        fs::write(folder.path().join(FILE), &input).unwrap();
        assert_eq!(state.read(), Saved::default(), "{:?}", &input[..input.len().min(40)]);
    }
}

#[test]
fn version_1_is_read() {
    let v1 = [&b"d5:homesld2:id20:"[..], &[7; 20], b"4:ipv6i0e5:nodes0:ee7:versioni1ee"].concat();
    let (id, nodes) = (Id::new([7; 20]), Vec::new());
    let home = SavedHome { id, ipv6: false, local: None, external: None, nodes };
    assert_eq!(Saved::decode(&v1), Some(Saved { homes: vec![home] }));
    let bad = [&b"d5:homesld8:external3:abc2:id20:"[..], &[7; 20], b"4:ipv6i0e5:nodes0:ee7:versioni2ee"];
    assert_eq!(Saved::decode(&bad.concat()), None);
}

#[test]
fn table_and_store_are_written_and_damaged_apart() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateFolder::open(folder.path()).unwrap();
    assert!(pieces(&state).is_empty() && !state.has_store());
    let archive = Archive { items: vec![1; 300], ..Default::default() };
    write_store(&state, &[archive.clone(), Archive::default(), archive.clone()], Wanted::Yes);
    state.write(&sample(1, 3)).unwrap();
    let stored = vec![archive.clone(), archive];
    assert_eq!((state.read(), pieces(&state)), (sample(1, 3), stored.clone()));
    fs::write(folder.path().join(FILE), b"garbage").unwrap();
    assert_eq!((state.read(), pieces(&state)), (Saved::default(), stored));
    for garbage in [vec![b'x'; 20 << 20], vec![b'l'; 100_000], b"de".to_vec(), Vec::new()] {
        fs::write(folder.path().join(STORE_FILE), garbage).unwrap();
        assert!(pieces(&state).is_empty() && state.has_store());
    }
}

#[test]
fn a_store_that_is_not_written_to_its_end_leaves_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateFolder::open(folder.path()).unwrap();
    let [old, new] = [1, 2].map(|n| Archive { peers4: vec![n; 30], ..Default::default() });
    write_store(&state, std::slice::from_ref(&old), Wanted::Yes);
    write_store(&state, &[new.clone(), new.clone()], Wanted::No);
    assert_eq!(pieces(&state), [old]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "the store and the lock");
    write_store(&state, &[new.clone(), new.clone()], Wanted::Yes);
    assert_eq!(pieces(&state), [new.clone(), new]);
}

fn write_store(state: &StateFolder, archives: &[Archive], to_the_end: Wanted) {
    let mut archives = archives.iter().cloned().peekable();
    let next = || {
        let archive = archives.next()?;
        Some(Piece { archive, is_last: archives.peek().is_none() && to_the_end == Wanted::Yes })
    };
    state.write_store(&Moment::default(), next).unwrap();
}

fn pieces(state: &StateFolder) -> Vec<Archive> {
    let mut pieces = Vec::new();
    state.read_store(1 << 20, |at, piece| {
        assert_eq!(*at, Moment::default());
        pieces.push(piece.clone());
        Ok(())
    });
    pieces
}

#[test]
fn a_kill_while_writing_leaves_the_old_document_whole() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateFolder::open(folder.path()).unwrap();
    state.write(&sample(1, 50)).unwrap();
    let next = sample(2, 50).encode();
    for written in [0, 1, next.len() / 2, next.len()] {
        fs::write(folder.path().join("node.bencode.new"), &next[..written]).unwrap();
        assert_eq!(state.read(), sample(1, 50));
    }
    state.write(&sample(2, 50)).unwrap();
    assert_eq!(state.read(), sample(2, 50));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "the document and the lock");
}

#[test]
fn what_a_kill_left_half_written_goes_when_the_folder_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let leave = || {
        for file in [FILE, STORE_FILE] {
            fs::write(folder.path().join(format!("{file}{TEMPORARY}")), b"half").unwrap();
        }
    };
    leave();
    let state = StateFolder::open(folder.path()).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "the lock alone");
    // What another process is writing stays.
    leave();
    StateFolder::open(folder.path()).unwrap_err();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    drop(state);
}

#[test]
fn a_folder_can_be_looked_at_without_being_taken() {
    let folder = tempfile::tempdir().unwrap();
    let look = || Saved::inspect(folder.path());
    assert!(matches!(look(), StateCondition::Missing));
    let state = StateFolder::open(folder.path()).unwrap();
    state.write(&sample(1, 5)).unwrap();
    assert!(matches!(look(), StateCondition::Readable { saved, in_use: true, .. } if saved == sample(1, 5)));
    drop(state);
    assert!(matches!(look(), StateCondition::Readable { in_use: false, .. }));
    StateFolder::open(folder.path()).unwrap();
    fs::write(folder.path().join(FILE), b"de").unwrap();
    assert!(matches!(look(), StateCondition::Damaged));
    fs::remove_file(folder.path().join(FILE)).unwrap();
    fs::create_dir(folder.path().join(FILE)).unwrap();
    assert!(matches!(look(), StateCondition::Unreadable(_)));
}

#[test]
fn a_folder_has_one_owner() {
    let folder = tempfile::tempdir().unwrap();
    let first = StateFolder::open(folder.path()).unwrap();
    assert!(matches!(StateFolder::open(folder.path()), Err(Error::StateInUse { .. })));
    drop(first);
    StateFolder::open(folder.path()).unwrap();
}

#[test]
fn a_folder_that_cannot_be_made_says_which() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), b"").unwrap();
    let error = StateFolder::open(&folder.path().join("file/state")).unwrap_err();
    assert!(error.to_string().contains("file/state"), "{error}");
}

#[test]
fn a_saved_table_tells_its_age_by_the_wall_clock_and_never_a_negative_one() {
    let folder = tempfile::tempdir().unwrap();
    StateFolder::open(folder.path()).unwrap().write(&sample(1, 5)).unwrap();
    let day = Duration::from_secs(86_400);
    let age_if_written = |at: SystemTime| {
        File::options().write(true).open(folder.path().join(FILE)).unwrap().set_modified(at).unwrap();
        match Saved::inspect(folder.path()) {
            StateCondition::Readable { age, .. } => age.unwrap(),
            other => panic!("{other:?}"),
        }
    };
    assert!((3 * day..4 * day).contains(&age_if_written(SystemTime::now() - 3 * day)));
    assert_eq!(age_if_written(SystemTime::now() + 3 * day), Duration::ZERO);
}
