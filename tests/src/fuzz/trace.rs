//! Traces: JSON Lines that anybody may have written, and a node that is given what they say.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use btdht::replay::{Origin, Record, Recorded, Replay, Tap};
use btdht::trace::{Reader, write};
use btdht::{Announce, Command, Config, Home, Outbox, Seeds, Time};
use krpc::{Id, Message};

/// Steps that are replayed of one input: most runs end with the first line that was broken.
const STEPS: usize = 20;

/// What is read is written and read back the same, and a node can be given it.
pub fn trace(data: &[u8]) {
    let mut reader = Reader::new(data);
    let mut records = Vec::new();
    while let Ok(Some(record)) = reader.next_record() {
        let line = write(&record);
        records.push((record, line));
    }
    let text: String = records.iter().map(|(_, line)| format!("{line}\n")).collect();
    let mut again = Reader::new(text.as_bytes());
    for (record, line) in &records {
        match again.next_record() {
            Ok(Some(read)) => assert_eq!(write(&read), *line),
            other => panic!("{other:?} instead of {record:?}"),
        }
    }
    let mut node = None;
    for (record, _) in records.into_iter().take(STEPS) {
        match (record, &mut node) {
            (Record::Origin(origin), node) => *node = Some(Replay::new(*origin)),
            (Record::Step(step), Some(node)) => drop(node.step(&step)),
            (Record::Step(_) | Record::End { .. }, _) => {}
        }
    }
}

/// A whole trace of a node that asks a router, which answers once, and its lines one by one.
pub(super) fn traces() -> Vec<Vec<u8>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&lines);
    let tap: Tap = Box::new(move |record| sink.lock().unwrap().push(write(&record)));
    run(tap);
    let lines = lines.lock().unwrap();
    let whole = lines.join("\n").into_bytes();
    let origin = &lines[0];
    lines.iter().skip(1).map(|line| format!("{origin}\n{line}\n").into_bytes()).chain([whole]).collect()
}

fn run(tap: Tap) {
    let router: SocketAddr = ([81, 2, 3, 4], 6881).into();
    let saved = vec![(Id::new([3; 20]), ([81, 2, 3, 5], 6881).into())];
    let home = Home { id: Id::new([1; 20]), local: ([0, 0, 0, 0], 6881).into(), external: None, saved };
    // A small table of sources, so that a round costs little.
    let config = Config { source_table_entries: 16, ..Config::default() };
    let mut at = Time::from_secs(3600);
    let origin = Origin { seeds: Seeds::from_u64(3), config, homes: vec![home], at };
    let mut node = Recorded::new(origin, Some(tap));
    let mut out = Outbox::new();
    let announce = Some(Announce { port: 7, implied: false, seed: false });
    node.handle_command(at, Command::Routers(vec![router]), &mut out);
    node.handle_command(
        at,
        Command::GetPeers { infohash: Id::new([9; 20]), announce, trace: true },
        &mut out,
    );
    let mut answers = Vec::new();
    for transmit in &out.transmits {
        if let Ok(query) = Message::decode(out.datagram(transmit)) {
            let tid = [format!("{}:", query.tid.len()).as_bytes(), query.tid].concat();
            answers.push([&b"d1:rd2:id20:aaaaaaaaaaaaaaaaaaaae1:t"[..], &tid, b"1:y1:re"].concat());
        }
    }
    for answer in answers {
        at += Duration::from_millis(80);
        node.handle_datagram(at, 0, router, &answer, &mut out);
    }
    for _ in 0..5 {
        at = at.max(node.timeout());
        node.handle_timeout(at, &mut out);
    }
}
