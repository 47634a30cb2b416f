//! A real `btdht serve` against malformed datagrams over loopback (S1, S2, and S3: `.ci/run` builds
//! the node without optimization for this, too).
#![allow(clippy::unwrap_used)]

mod floods;
mod items;

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use harness::corpus::{Outcome, cases};
use harness::process::{Running, binary};
use harness::uninterrupted::uninterrupted;
use krpc::{Body, ErrorCode, Id, Message, Query, Want};

/// A node on a loopback port, and its address.
fn serve() -> (Running, SocketAddr) {
    let mut command = Command::new(binary("btdht"));
    command.args(["serve", "--no-state", "--allow-local", "--bind", "127.0.0.1:0"]);
    command.args(["--bootstrap", "127.0.0.1:1"]);
    let mut node = Running::start("btdht serve", &mut command);
    let at = node.wait_for("the node listens", |line| {
        line.strip_prefix("listening ")?.split(' ').next()?.parse().ok()
    });
    (node, at)
}

/// A stranger with a port of his own, which counts as an address of its own on loopback.
struct Stranger(UdpSocket);

impl Stranger {
    fn new(node: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(node).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self(socket)
    }

    /// Sends `datagram` and then a query that goes the longest way inside of the node, from a serving
    /// shard to the deciding one; loopback keeps the order, so what comes before the answer to
    /// that one is the answer to the datagram. Pings by the node, who is curious, are passed over.
    fn answer_to(&self, datagram: &[u8]) -> Option<Vec<u8>> {
        let query = Query::SampleInfohashes { target: Id::new([7; 20]), want: Want::UNSPECIFIED };
        let last = Message {
            tid: b"alive?",
            version: None,
            ip: None,
            read_only: true,
            body: Body::Query { id: Id::new([7; 20]), query },
        };
        let mut encoded = Vec::new();
        last.encode(&mut encoded);
        self.0.send(datagram).unwrap();
        self.0.send(&encoded).unwrap();
        let mut answer = None;
        let mut buffer = [0; 4096];
        loop {
            let len = uninterrupted(|| self.0.recv(&mut buffer)).expect("the node is alive");
            assert!(len <= 1024, "a datagram of {len} bytes (BEP 32)");
            let message = Message::decode(&buffer[..len]).expect("the node writes well-formed messages");
            match message.body {
                Body::Query { .. } => {}
                Body::Response(_) if message.tid == b"alive?" => return answer,
                Body::Response(_) | Body::Error(_) => answer = Some(buffer[..len].to_vec()),
            }
        }
    }
}

fn memory_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// CPU time used so far, all threads.
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// Datagrams to the sockets at `port` of 127.0.0.1, as many as the node has shards, that the kernel dropped
/// because a receive buffer was full.
fn dropped(port: u16) -> u64 {
    let local = format!(" 0100007F:{port:04X} ");
    let table = std::fs::read_to_string("/proc/net/udp").unwrap();
    let sockets = table.lines().filter(|line| line.contains(&local));
    // The last column counts them.
    let drops: Vec<u64> =
        sockets.map(|line| line.split_whitespace().last().unwrap().parse().unwrap()).collect();
    assert!(!drops.is_empty(), "nobody is at {port}: {table}");
    drops.iter().sum()
}

/// What BEP 5 asks for, as far as it can be seen from outside.
fn judge(name: &str, bytes: &[u8], expected: Outcome, answer: Option<&[u8]>) -> Result<(), String> {
    let answered = answer.map(|answer| Message::decode(answer).expect("decoded before"));
    let kind = match (expected, Message::decode(bytes)) {
        // Transaction ids above 32 bytes are not echoed: an answer must not be a copying service.
        (Outcome::Message, Ok(message)) if message.tid.len() > 32 => None,
        (Outcome::Message, Ok(Message { body: Body::Query { query, .. }, tid, .. })) => Some((query, tid)),
        (Outcome::Refused(code), _) => {
            return match answered {
                Some(Message { body: Body::Error(error), .. }) if error.code == code.number() => Ok(()),
                other => Err(format!("{name}: error {} expected, got {other:?}", code.number())),
            };
        }
        (Outcome::ProtocolError, Err(failure)) => {
            let tid = failure.answerable().expect("an error can be answered");
            return match answered {
                _ if tid.len() > 32 => Ok(()),
                Some(Message { body: Body::Error(error), tid: echoed, .. })
                    if error.code == ErrorCode::Protocol.number() && echoed == tid =>
                {
                    Ok(())
                }
                other => Err(format!("{name}: error 203 expected, got {other:?}")),
            };
        }
        _ => None,
    };
    let Some((query, tid)) = kind else {
        return if answered.is_none() {
            Ok(())
        } else {
            Err(format!("{name}: silence expected: {answered:?}"))
        };
    };
    let Some(answered) = answered else { return Err(format!("{name}: no answer")) };
    if answered.tid != tid {
        return Err(format!("{name}: tid {:?}", answered.tid));
    }
    let wanted = match (query, &answered.body) {
        // Nobody here has a valid token.
        (Query::AnnouncePeer { .. } | Query::Put { .. }, Body::Error(error)) => {
            error.code == ErrorCode::Protocol.number()
        }
        (Query::AnnouncePeer { .. } | Query::Put { .. }, _) => false,
        (Query::Other { target: None, .. }, Body::Error(error)) => {
            error.code == ErrorCode::MethodUnknown.number()
        }
        (_, Body::Response(_)) => true,
        _ => false,
    };
    if wanted { Ok(()) } else { Err(format!("{name}: {answered:?}")) }
}

#[test]
fn every_datagram_of_the_corpus_gets_what_bep_5_asks_for() {
    let (node, at) = serve();
    let (mut before, mut wrong, mut sent) = (0, Vec::new(), 0);
    let (mut bytes_in, mut bytes_out) = (0, 0);
    for group in cases().chunks(20) {
        let stranger = Stranger::new(at);
        for case in group {
            let answer = stranger.answer_to(&case.bytes);
            // S4, for messages as they should be.
            if case.name.starts_with("as it is") {
                let len = answer.as_ref().map_or(0, Vec::len);
                assert!(len <= 12 * case.bytes.len(), "{}: {len} bytes", case.name);
                bytes_in += case.bytes.len();
                bytes_out += len;
            }
            wrong.extend(judge(&case.name, &case.bytes, case.outcome, answer.as_deref()).err());
            sent += 1;
        }
        // The first group warms the node up.
        if before == 0 {
            before = memory_kib(node.pid());
        }
    }
    assert!(sent >= 300, "only {sent} datagrams");
    assert!(wrong.is_empty(), "{} of {sent} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(bytes_out > 0 && bytes_out <= 4 * bytes_in, "{bytes_out} bytes for {bytes_in}");
    let grown = memory_kib(node.pid()).saturating_sub(before);
    assert!(grown <= 8 * 1024, "memory grew by {grown} KiB");
}

/// Bombs of one stranger: each is followed by a query that has to be answered, and 50 answers at once are
/// what a source gets.
const BOMBS_PER_SOURCE: usize = 25;
const BOMBS: usize = 1000;

#[test]
fn deeply_nested_datagrams_are_dropped_cheaply_and_in_silence() {
    let (node, at) = serve();
    let bombs: [Vec<u8>; 4] = [
        vec![b'l'; 65_507],
        b"d1:a".repeat(16_000),
        [&b"d1:ad2:id20:abcdefghij01234567891:x"[..], &vec![b'l'; 1_500]].concat(),
        [vec![b'd'], b"1:ad".repeat(400), vec![b'e'; 401]].concat(),
    ];
    // What is paid once is paid: memory, pages of the program.
    let stranger = Stranger::new(at);
    bombs.iter().for_each(|bomb| assert_eq!(stranger.answer_to(bomb), None));
    let before = cpu(node.pid());
    let mut handled = 0;
    for n in 0..BOMBS / BOMBS_PER_SOURCE {
        let stranger = Stranger::new(at);
        for bomb in bombs.iter().cycle().skip(n % bombs.len()).take(BOMBS_PER_SOURCE) {
            // It waits for the answer to what it sent behind the bomb: by then the node has had it.
            assert_eq!(stranger.answer_to(bomb), None, "{n}");
            handled += 1;
        }
    }
    let spent = cpu(node.pid()) - before;
    // Unless the kernel had no room for it, which it counts.
    assert_eq!((handled, dropped(at.port())), (BOMBS, 0), "bombs that the node has had, and has not");
    // S2: at most 1 ms each, the query behind it included; a debug build is given the same.
    let each = spent / BOMBS as u32;
    println!("{each:?} for each of {BOMBS} datagrams");
    assert!(each <= Duration::from_millis(1), "{spent:?} for {BOMBS} datagrams");
}
