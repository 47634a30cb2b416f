//! The decoder's half of S1 to S3: each malformed datagram gets the outcome that BEP 5 asks for.

use std::collections::BTreeMap;

use harness::corpus::{Outcome, cases};
use krpc::bencode::Limits;
use krpc::{DecodeErrorKind, Message};

#[test]
fn every_datagram_has_the_outcome_that_bep_5_asks_for() {
    let cases = cases();
    let mut counts = BTreeMap::new();
    for case in &cases {
        let outcome = match Message::decode(&case.bytes) {
            Ok(_) => Outcome::Message,
            Err(failure) if failure.answerable().is_some() => Outcome::ProtocolError,
            Err(_) => Outcome::Silence,
        };
        let expected = match case.outcome {
            Outcome::Refused(_) => Outcome::Message,
            outcome => outcome,
        };
        assert_eq!(outcome, expected, "{}: {}", case.name, case.bytes.escape_ascii());
        *counts.entry(format!("{outcome:?}")).or_insert(0) += 1;
    }
    assert!(cases.len() > 4000, "{counts:?}");
    assert!(counts["Message"] > 80 && counts["ProtocolError"] > 35, "{counts:?}");
}

/// S2 and S3: bombs up to the longest datagram, on a stack of 64 KiB where a worker has 2 MiB. What time they
/// take is told by the byte at which they are refused: reading never goes back, and what is longer than a
/// datagram that we take is not read at all.
#[test]
fn bombs_cost_neither_stack_nor_time() {
    let bombs = || {
        let bombs = [vec![b'l'; 65_507], b"d1:a".repeat(16_376), b"d1:a".repeat(512), vec![b'l'; 2048]];
        for bomb in &bombs {
            let failure = Message::decode(bomb).unwrap_err();
            assert_eq!(failure.answerable(), None);
            let most = 4 * Limits::KRPC.depth;
            let is_too_long = failure.error.kind == DecodeErrorKind::TooLong;
            assert_eq!(is_too_long, bomb.len() > Limits::KRPC.len, "{:?}", failure.error);
            assert!(is_too_long || failure.error.at <= most, "{:?}", failure.error);
        }
    };
    std::thread::Builder::new().stack_size(64 << 10).spawn(bombs).unwrap().join().unwrap();
}
