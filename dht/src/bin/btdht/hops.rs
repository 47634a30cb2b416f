//! The steps of a traced lookup as a table for people and as objects for programs.

use std::time::Duration;

use btdht::{Hop, HopStep, Time, Unsound};
use krpc::Id;
use serde_json::{Value, json};

/// What stands above the columns.
pub(crate) const HEADING: &str =
    "       ms  hop  log2  distance      node                   step          rtt  brought";

/// The steps of one lookup.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hops {
    target: Id,
    start: Time,
}

impl Hops {
    /// Steps towards `target` by a lookup whose first one happened at `start`.
    pub(crate) fn new(target: Id, start: Time) -> Self {
        Self { target, start }
    }

    /// `hop` as an object. `log2` is the bit length of the distance: 160 is the other half of the key
    /// space, and each bit less is half as far.
    pub(crate) fn json(&self, hop: &Hop) -> Value {
        let distance = hop.id.map(|id| id.distance(&self.target));
        let mut object = json!({
            "event": "hop",
            "at_ms": millis(hop.at.since(self.start)),
            "addr": hop.node.to_string(),
            "id": hop.id.map(|id| id.to_string()),
            "distance": distance.map(|distance| distance.to_string()),
            "log2": distance.map(|distance| distance.bit_len()),
            "depth": hop.depth,
            "step": word(&hop.step),
        });
        match hop.step {
            HopStep::Answered { rtt, nodes, peers, token } => {
                object["ms"] = millis(rtt).into();
                object["nodes"] = nodes.into();
                object["peers"] = peers.into();
                object["token"] = token.into();
            }
            HopStep::Refused { code } => object["code"] = code.into(),
            HopStep::Unsound(why) => object["why"] = reason(why).0.into(),
            HopStep::Asked | HopStep::Slow | HopStep::Silent => {}
        }
        object
    }

    /// `hop` as a line below [`HEADING`].
    pub(crate) fn line(&self, hop: &Hop) -> String {
        let distance = hop.id.map(|id| id.distance(&self.target));
        let log2 = distance.map_or_else(|| "?".into(), |distance| distance.bit_len().to_string());
        // 48 bits tell any two nodes apart.
        let distance = distance.map_or_else(|| "?".into(), |distance| distance.to_string());
        let head = distance.get(..12).unwrap_or(&distance);
        let (rtt, brought) = match hop.step {
            HopStep::Answered { rtt, nodes, peers, token } => {
                let mut brought = format!("{nodes} new nodes");
                if peers > 0 {
                    brought += &format!(", {peers} new peers");
                }
                (format!("{:.1}", millis(rtt)), brought + if token { ", token" } else { "" })
            }
            HopStep::Refused { code } => (String::new(), format!("error {code}")),
            HopStep::Unsound(why) => (String::new(), reason(why).1.into()),
            HopStep::Asked | HopStep::Slow | HopStep::Silent => Default::default(),
        };
        let (at, node) = (millis(hop.at.since(self.start)), hop.node.to_string());
        let (depth, step) = (hop.depth, word(&hop.step));
        let line = format!(
            "{at:9.1}  {depth:>3}  {log2:>4}  {head:<12}  {node:<21}  {step:<8}  {rtt:>7}  {brought}"
        );
        line.trim_end().to_owned()
    }
}

/// Milliseconds with three places.
pub(crate) fn millis(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e6).round() / 1e3
}

fn word(step: &HopStep) -> &'static str {
    match step {
        HopStep::Asked => "asked",
        HopStep::Answered { .. } => "answered",
        HopStep::Slow => "slow",
        HopStep::Silent => "silent",
        HopStep::Refused { .. } => "refused",
        HopStep::Unsound(_) => "unsound",
    }
}

/// Why an answer is none, for programs and in words.
fn reason(why: Unsound) -> (&'static str, &'static str) {
    match why {
        Unsound::SomebodyElse => ("somebody_else", "somebody else answered"),
        Unsound::Malformed => ("malformed", "nodes that are cut short"),
        Unsound::Forged => ("forged", "a forged item"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(step: HopStep) -> Hop {
        let mut id = [0; 20];
        id[2] = 0x1f;
        let (at, node) = (Time::from_millis(1250), "81.2.3.4:6881".parse().unwrap());
        Hop { at, node, id: Some(Id::new(id)), depth: 2, step }
    }

    #[test]
    fn a_line_tells_when_who_how_far_and_what_came_back() {
        let hops = Hops::new(Id::ZERO, Time::from_millis(1000));
        let rtt = Duration::from_micros(12_340);
        let step = HopStep::Answered { rtt, nodes: 5, peers: 3, token: true };
        assert_eq!(
            hops.line(&hop(step.clone())),
            "    250.0    2   141  00001f000000  81.2.3.4:6881          answered     12.3  5 new nodes, 3 new peers, token"
        );
        assert!(hops.line(&hop(HopStep::Refused { code: 202 })).ends_with("refused            error 202"));
        assert!(hops.line(&hop(HopStep::Silent)).ends_with("  silent"));
        let columns = |line: &str, words: &[&str]| words.iter().map(|w| line.find(w)).collect::<Vec<_>>();
        assert_eq!(
            columns(HEADING, &["distance", "node", "step", "brought"]),
            columns(&hops.line(&hop(step)), &["00001f", "81.2", "answered", "5 new"])
        );
        let unknown = Hop { id: None, ..hop(HopStep::Asked) };
        assert!(hops.line(&unknown).contains("    2     ?  ?             81.2.3.4:6881"));
    }

    #[test]
    fn an_answer_that_is_none_is_told_as_what_it_is_and_not_as_an_error() {
        let hops = Hops::new(Id::ZERO, Time::from_millis(1000));
        for (why, name, words) in [
            (Unsound::SomebodyElse, "somebody_else", "somebody else answered"),
            (Unsound::Malformed, "malformed", "nodes that are cut short"),
            (Unsound::Forged, "forged", "a forged item"),
        ] {
            let hop = hop(HopStep::Unsound(why));
            let object = hops.json(&hop);
            assert_eq!((&object["step"], &object["why"]), (&"unsound".into(), &name.into()));
            assert!(object.get("code").is_none(), "{object}");
            assert!(hops.line(&hop).ends_with(&format!("unsound            {words}")), "{}", hops.line(&hop));
        }
    }

    #[test]
    fn an_object_has_the_distance_in_full() {
        let hops = Hops::new(Id::ZERO, Time::from_millis(1000));
        let object = hops.json(&hop(HopStep::Refused { code: 202 }));
        assert_eq!(
            (&object["log2"], &object["code"], &object["at_ms"]),
            (&141.into(), &202.into(), &250.0.into())
        );
        assert_eq!(object["distance"].as_str().map(str::len), Some(40));
    }
}
