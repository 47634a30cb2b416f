//! Hosts that answer under another id than they had, or than was asked for.

use std::sync::atomic::{AtomicU8, Ordering};

use krpc::compact::{Address as _, Contact, V4, put_node};

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn node_that_comes_back_with_another_id_is_evicted() {
    let mut world = World::new(10, Config::default());
    let node = world.add_node(&[]);
    let liar = world.add_actor(Box::new({
        let mut answers = 0u8;
        move |_, from, message| {
            answers += 1;
            vec![(from, reply(message.tid, Response::new(Id::new([answers; 20]))))]
        }
    }));
    let addr = world.addr(liar);
    world.command(node, Command::AddNode(addr));
    world.run(Duration::from_millis(300));
    // Its own bootstrap asked it again and got another id.
    world.run(MINUTE);
    let counters = world.node(node).counters();
    assert!(counters.nodes_inserted >= 1);
    assert!(counters.nodes_removed >= 1 && counters.ids_mismatched >= 1);
    assert!(world.node(node).stats(world.now)[0].nodes <= 1);
}

/// Whoever is asked as nobody in particular may be another node than it was: one answer is one answer.
#[test]
fn an_answer_under_another_id_than_the_table_has_is_counted_once() {
    let mut world = World::new(11, Config::default());
    let node = world.add_node(&[]);
    let id = Arc::new(AtomicU8::new(1));
    let now = Arc::clone(&id);
    let answer = move |from, tid: &[u8]| {
        vec![(from, reply(tid, Response::new(Id::new([now.load(Ordering::Relaxed); 20]))))]
    };
    let changing = world.add_actor(Box::new(move |_, from, message| answer(from, message.tid)));
    let to = world.addr(changing);
    world.command(node, Command::AddNode(to));
    world.run(MINUTE);
    let before = world.node(node).counters();
    assert_eq!((world.node(node).stats(world.now)[0].nodes, before.ids_mismatched), (1, 0));

    id.store(2, Ordering::Relaxed);
    world.command(node, Command::Ask { to, question: crate::Question::Ping });
    world.run(Duration::from_millis(300));
    let passed = world.node(node).counters().since(&before);
    assert_eq!((passed.ids_mismatched, passed.dropped_unsolicited), (1, 1), "{passed:?}");
    // The question, a ping of the node that is there now, and what follows from its coming.
    assert_eq!(passed.replies_in + passed.ids_mismatched, passed.queries_out, "{passed:?}");
    assert_eq!((passed.nodes_removed, passed.nodes_inserted), (1, 1));
}

/// Whoever was asked under the id that it answers under is the node that was asked, whatever the table had there.
#[test]
fn an_answer_under_the_id_that_was_asked_is_a_reply_whatever_the_table_has() {
    let mut world = World::new(13, Config::default());
    let node = world.add_node(&[]);
    let id = Arc::new(AtomicU8::new(1));
    let now = Arc::clone(&id);
    let changing = world.add_actor(Box::new(move |_, from, message| {
        vec![(from, reply(message.tid, Response::new(Id::new([now.load(Ordering::Relaxed); 20]))))]
    }));
    let to = world.addr(changing);
    world.command(node, Command::AddNode(to));
    // So many that a lookup far from its place begins elsewhere, and all of them know who lives there now.
    let mut named = Vec::new();
    put_node(&mut named, &Contact { id: Id::new([0xf0; 20]), addr: V4::from_socket(to).unwrap() });
    for n in 0..12 {
        let (named, now) = (named.clone(), Arc::clone(&id));
        let one = world.add_actor(Box::new(move |_, from, message| {
            let nodes = Some(&named[..]).filter(|_| now.load(Ordering::Relaxed) == 0xf0);
            vec![(from, reply(message.tid, Response { nodes, ..Response::new(Id::new([0xe0 + n; 20])) }))]
        }));
        let addr = world.addr(one);
        world.command(node, Command::AddNode(addr));
    }
    world.run(MINUTE);
    id.store(0xf0, Ordering::Relaxed);
    let before = world.node(node).counters();
    let found = world.find_node(node, Id::new([0xf0; 20]));
    assert!(found.closest.contains(&(Id::new([0xf0; 20]), to)), "{found:?}");
    let passed = world.node(node).counters().since(&before);
    assert_eq!((passed.ids_mismatched, passed.dropped_unsolicited), (0, 0), "{passed:?}");
    assert_eq!(passed.nodes_removed, 1, "who lived there");
}
