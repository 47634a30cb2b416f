//! Recording what a node is given, and giving it to a fresh node again.
//!
//! A [`Node`] is a function of its [`Origin`] and its inputs: fed with the same ones, another node
//! sends and tells the same. So a run on real sockets can be kept as a list of [`Record`]s and looked
//! at later, step by step, on another machine. How records are written to a file is told in
//! `btdht::trace`.

mod recorded;

use std::net::SocketAddr;
use std::sync::Arc;

use sha1::{Digest as _, Sha1};

use crate::{
    Command, Config, Event, Home, HopStep, LookupId, NetworkChange, Node, Outbox, Seeds, Time, Unsound,
};

pub use recorded::{Recorded, Tap};

/// What is kept of a run, in this order: one origin, any number of steps, one end.
#[derive(Clone, Debug)]
pub enum Record {
    /// What the node was made from.
    Origin(Box<Origin>),
    /// One input, and what came of it.
    Step(Step),
    /// The node has ended.
    End {
        /// Whether every input was recorded: whoever keeps records may have been too slow.
        complete: bool,
    },
}

/// What a node was made from. It holds the secret of the tokens that this node gave out.
#[derive(Clone, Debug)]
pub struct Origin {
    /// All that is random about it.
    pub seeds: Seeds,
    /// Its numbers.
    pub config: Config,
    /// Its homes, with the nodes known from an earlier run.
    pub homes: Vec<Home>,
    /// When it was made.
    pub at: Time,
}

/// One input of a node, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// When.
    pub at: Time,
    /// What it was given.
    pub input: Input,
    /// The datagrams that it sent, in order.
    pub sent: Vec<Sent>,
    /// [`digest`] of what it told its owner.
    pub told: u64,
}

/// What a node can be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A datagram from the network.
    Datagram {
        /// The index of the socket that it came to.
        socket: u8,
        /// Where it came from.
        from: SocketAddr,
        /// All of it.
        bytes: Vec<u8>,
    },
    /// A wish of its owner.
    Command(Command),
    /// What happened to the network of a socket.
    Network {
        /// The index of the socket.
        socket: u8,
        /// What happened.
        change: NetworkChange,
    },
    /// The passing of time.
    Timeout,
}

/// A datagram that a node sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Destination.
    pub to: SocketAddr,
    /// Index of the socket.
    pub socket: u8,
    /// All of it.
    pub bytes: Vec<u8>,
}

/// Gives recorded inputs to a fresh node.
pub struct Replay {
    node: Node,
    out: Outbox,
}

/// What a replayed step came to.
#[derive(Debug)]
pub struct Replayed {
    /// The lookup that a command started.
    pub lookup: Option<LookupId>,
    /// What the node told.
    pub events: Vec<Event>,
    /// How it went otherwise than recorded, if it did.
    pub difference: Option<Difference>,
}

/// The first way in which a step differs from its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Another datagram was sent, or none, or one more.
    Sent {
        /// Which of the step's, counted from 0.
        index: usize,
        /// What was recorded.
        recorded: Option<Sent>,
        /// What was sent now.
        now: Option<Sent>,
    },
    /// The same was sent, but something else was told to the owner.
    Told,
}

impl Replay {
    /// A fresh node, as it was in the beginning.
    pub fn new(origin: Origin) -> Self {
        let Origin { seeds, config, homes, at } = origin;
        Self { node: Node::new(Arc::new(config), homes, seeds, at), out: Outbox::new() }
    }

    /// Gives the node what `step` says that it was given, and compares what comes of it.
    pub fn step(&mut self, step: &Step) -> Replayed {
        self.out.clear();
        let lookup = match &step.input {
            Input::Datagram { socket, from, bytes } => {
                self.node.handle_datagram(step.at, *socket, *from, bytes, &mut self.out);
                None
            }
            Input::Command(command) => self.node.handle_command(step.at, command.clone(), &mut self.out),
            Input::Network { socket, change } => {
                self.node.handle_network(step.at, *socket, *change, &mut self.out);
                None
            }
            Input::Timeout => {
                self.node.handle_timeout(step.at, &mut self.out);
                None
            }
        };
        let now = sent(&self.out, 0);
        let other = (0..now.len().max(step.sent.len())).find(|&n| now.get(n) != step.sent.get(n));
        let events = std::mem::take(&mut self.out.events);
        let difference = match other {
            Some(index) => {
                let (recorded, now) = (step.sent.get(index).cloned(), now.get(index).cloned());
                Some(Difference::Sent { index, recorded, now })
            }
            None => {
                let same = digest(&events) == step.told || former_digest(&events) == step.told;
                (!same).then_some(Difference::Told)
            }
        };
        Replayed { lookup, events, difference }
    }

    /// The node as it stands after the last step.
    pub fn node(&self) -> &Node {
        &self.node
    }
}

/// The datagrams of `out` from the one at `first` on.
pub fn sent(out: &Outbox, first: usize) -> Vec<Sent> {
    let fresh = out.transmits.get(first..).unwrap_or_default().iter();
    fresh.map(|t| Sent { to: t.to, socket: t.socket, bytes: out.datagram(t).to_vec() }).collect()
}

/// A short sum over what a node told; 0 for nothing. It holds for one version of this crate: a new
/// detail in an event changes it.
pub fn digest(events: &[Event]) -> u64 {
    if events.is_empty() {
        return 0;
    }
    let mut sum = Sha1::new();
    for event in events {
        sum.update(format!("{event:?}\n"));
    }
    let sum = sum.finalize();
    u64::from_be_bytes(std::array::from_fn(|n| sum[n]))
}

/// The [`digest`] of traces that were written when an answer that is none was told as an error, under a code
/// that nobody had sent.
fn former_digest(events: &[Event]) -> u64 {
    let former: Vec<Event> = events.iter().cloned().map(as_formerly_told).collect();
    digest(&former)
}

fn as_formerly_told(mut event: Event) -> Event {
    if let Event::Hop { hop, .. } = &mut event
        && let HopStep::Unsound(why) = hop.step
    {
        let code = match why {
            Unsound::SomebodyElse => 0,
            Unsound::Malformed => 203,
            Unsound::Forged => 206,
        };
        hop.step = HopStep::Refused { code };
    }
    event
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use krpc::Id;

    use super::*;

    /// What a node goes through that looks for a target at a router, which answers one query with an
    /// error and is silent then.
    fn recorded() -> (Origin, Vec<Step>) {
        recorded_with(b"d1:eli202e4:nonee", b"1:y1:ee")
    }

    /// The same with another answer: what stands in it before and behind its transaction id.
    fn recorded_with(head: &[u8], tail: &[u8]) -> (Origin, Vec<Step>) {
        let router: SocketAddr = ([81, 2, 3, 4], 6881).into();
        let local = ([0, 0, 0, 0], 6881).into();
        let home = Home { id: Id::new([1; 20]), local, external: None, saved: Vec::new() };
        let at = Time::from_secs(10);
        let origin = Origin { seeds: Seeds::from_u64(3), config: Config::default(), homes: vec![home], at };
        let records = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&records);
        let tap: Tap = Box::new(move |record| sink.lock().unwrap().push(record));
        let mut node = Recorded::new(origin, Some(tap));
        let mut out = Outbox::new();
        node.handle_command(at, Command::Routers(vec![router]), &mut out);
        // The output of several inputs lies in one outbox, as in a turn of the shell.
        node.handle_command(at, Command::FindNode { target: Id::new([9; 20]), trace: true }, &mut out);
        let asked = sent(&out, 0).pop().expect("the router is asked");
        let query = krpc::Message::decode(&asked.bytes).unwrap();
        let tid = [format!("{}:", query.tid.len()).as_bytes(), query.tid].concat();
        let answer = [head, b"1:t", &tid, tail].concat();
        node.handle_datagram(at + Duration::from_millis(80), 0, router, &answer, &mut out);
        node.handle_network(at + Duration::from_millis(90), 0, NetworkChange::Changed, &mut out);
        for _ in 0..20 {
            out.clear();
            node.handle_timeout(node.timeout(), &mut out);
        }
        drop(node);
        let mut records = std::mem::take(&mut *records.lock().unwrap()).into_iter();
        let Some(Record::Origin(origin)) = records.next() else { panic!("the origin comes first") };
        let steps = records.map(|record| match record {
            Record::Step(step) => step,
            other => panic!("{other:?}"),
        });
        (*origin, steps.collect())
    }

    #[test]
    fn a_fresh_node_does_the_same_with_the_same_inputs() {
        let (origin, steps) = recorded();
        let mut replay = Replay::new(origin);
        let (mut hops, mut done, mut sent) = (Vec::new(), 0, 0);
        for step in &steps {
            let replayed = replay.step(step);
            assert_eq!(replayed.difference, None, "{step:?}");
            sent += step.sent.len() as u64;
            for event in replayed.events {
                match event {
                    Event::Hop { hop, .. } => hops.push(hop.step),
                    Event::Done { .. } => done += 1,
                    _ => {}
                }
            }
        }
        assert_eq!(hops[..2], [HopStep::Asked, HopStep::Refused { code: 202 }]);
        assert_eq!((done, replay.node().counters().datagrams_out), (1, sent));
        assert!(sent > 2);
    }

    /// Until then an answer that is none had been told as an error that nobody had sent.
    #[test]
    fn a_trace_of_an_older_version_is_replayed_without_a_difference() {
        let (origin, mut steps) = recorded_with(b"d1:rd2:id20:abcdefghij01234567895:nodes3:abce", b"1:y1:re");
        let mut replay = Replay::new(origin.clone());
        let mut unsound = 0;
        for step in &mut steps {
            let events = replay.step(step).events;
            let now: String = events.iter().map(|event| format!("{event:?}\n")).collect();
            let then = now.replace("Unsound(Malformed)", "Refused { code: 203 }");
            if now != then {
                let sum = Sha1::digest(then);
                step.told = u64::from_be_bytes(std::array::from_fn(|n| sum[n]));
                unsound += 1;
            }
        }
        assert_eq!(unsound, 1);
        let mut replay = Replay::new(origin.clone());
        assert!(steps.iter().all(|step| replay.step(step).difference.is_none()));
        let refused = steps.iter().position(|step| matches!(step.input, Input::Datagram { .. })).unwrap();
        steps[refused].told ^= 1;
        let mut replay = Replay::new(origin);
        let differences: Vec<_> = steps.iter().map(|step| replay.step(step).difference).collect();
        assert_eq!(differences[refused], Some(Difference::Told));
    }

    #[test]
    fn what_was_tampered_with_is_a_difference() {
        let (origin, steps) = recorded();
        let differences = |steps: &[Step]| {
            let mut replay = Replay::new(origin.clone());
            steps.iter().map(|step| replay.step(step).difference).collect::<Vec<_>>()
        };
        let asking = steps.iter().position(|step| !step.sent.is_empty()).unwrap();
        let mut more = steps.clone();
        let extra = more[asking].sent[0].clone();
        more[asking].sent.push(extra);
        assert!(matches!(
            &differences(&more)[asking],
            Some(Difference::Sent { recorded: Some(_), now: None, .. })
        ));
        let mut other = steps.clone();
        other[asking].sent[0].bytes[0] ^= 1;
        assert!(matches!(&differences(&other)[asking], Some(Difference::Sent { index: 0, .. })));
        let mut told = steps.clone();
        let telling = told.iter().position(|step| step.told != 0).unwrap();
        told[telling].told ^= 1;
        assert_eq!(differences(&told)[telling], Some(Difference::Told));
        // An answer that never came changes what the node does afterwards.
        let answer = steps.iter().position(|step| matches!(step.input, Input::Datagram { .. })).unwrap();
        let mut fewer = steps.clone();
        fewer.remove(answer);
        assert!(differences(&fewer).iter().any(Option::is_some));
        let mut another = Replay::new(Origin { seeds: Seeds::from_u64(4), ..origin.clone() });
        assert!(steps.iter().any(|step| another.step(step).difference.is_some()));
    }
}
