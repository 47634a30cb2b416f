//! The decoder's half of S1: each malformed datagram gets the outcome that BEP 5 asks for.

use std::collections::BTreeMap;

use harness::corpus::{Outcome, cases};
use krpc::Message;

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
