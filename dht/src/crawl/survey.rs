//! [`Survey`]: finds the nodes nearest to a random point, by asking who is nearer again and again; how far
//! the last of them is says how many nodes there are ([`super::size`]).
//!
//! The questions are those that the crawl asks anyway where they can be, and a node that answered a moment ago need
//! not be asked again to count. One that rests since longer is asked for nodes, for this alone: it may be gone
//! (`frontier`, `trust`). Who is silent is asked once more, as a packet may have been lost. A survey begins with
//! fresh nodes, and hears of those that rest near the point with the first answer about it: late in a round hardly
//! anybody else is left, and whoever is asked from far away names those near the point that it happens to
//! know, which are not the nearest; while early in a round those that rest are not, either.

use std::net::SocketAddr;

use krpc::{Distance, Id};

use super::frontier::Known;
use super::size::{NEAREST, share};
use crate::addr::SourceKey;

/// The search for the nodes nearest to one point.
#[derive(Debug)]
pub(super) struct Survey {
    /// Names it.
    pub(super) serial: u64,
    pub(super) target: Id,
    pub(super) ipv6: bool,
    /// Nearest first.
    candidates: Vec<Candidate>,
    asked: u32,
}

#[derive(Debug)]
struct Candidate {
    distance: Distance,
    id: Id,
    addr: SocketAddr,
    source: SourceKey,
    state: State,
    /// It was silent once, and is asked once more: with each lost packet the DHT would be smaller.
    silent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// To be asked, if it comes to that.
    Fresh,
    /// Somebody asks it.
    Waiting,
    Alive,
    Gone,
}

/// What a survey wants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Step {
    /// To ask this node.
    Ask(Id, SocketAddr),
    Wait,
    /// It is over: the distance to the last of the nearest, unless it found too few.
    Done(Option<f64>),
}

impl Survey {
    pub(super) fn new(serial: u64, target: Id, ipv6: bool) -> Self {
        Self { serial, target, ipv6, candidates: Vec::new(), asked: 0 }
    }

    /// Hears of a node, and what else is known of it.
    pub(super) fn offer(&mut self, (id, addr): (Id, SocketAddr), source: SourceKey, known: Known) {
        let distance = id.distance(&self.target);
        let at = self.candidates.partition_point(|candidate| candidate.distance < distance);
        let twice = |candidate: &Candidate| candidate.source == source || candidate.id == id;
        if addr.is_ipv6() != self.ipv6 || at >= CANDIDATES || self.candidates.iter().any(twice) {
            return;
        }
        let state = match known {
            Known::Unknown | Known::Fresh | Known::Stale | Known::Asking => State::Fresh,
            Known::Alive => State::Alive,
            // An IP counts once, where it was met first.
            Known::Otherwise | Known::Gone => return,
        };
        self.candidates.insert(at, Candidate { distance, id, addr, source, state, silent: false });
        self.candidates.truncate(CANDIDATES);
    }

    /// What to do next; the node of an [`Step::Ask`] counts as asked.
    pub(super) fn step(&mut self) -> Step {
        let waiting = self.candidates.iter().filter(|candidate| candidate.state == State::Waiting).count();
        let spent = self.asked >= MOST_QUERIES;
        let mut alive = 0;
        let nearest = self.candidates.iter_mut().filter(|candidate| candidate.state != State::Gone);
        for candidate in nearest.take(NEAREST) {
            match candidate.state {
                State::Fresh if waiting < AT_ONCE && !spent => {
                    candidate.state = State::Waiting;
                    self.asked += 1;
                    return Step::Ask(candidate.id, candidate.addr);
                }
                State::Alive => {
                    alive += 1;
                    if alive == NEAREST {
                        return Step::Done(Some(share(&candidate.distance)));
                    }
                }
                State::Fresh | State::Waiting | State::Gone => {}
            }
        }
        if waiting == 0 { Step::Done(None) } else { Step::Wait }
    }

    /// The node that was to be asked is asked by somebody else, or what is known of it says enough.
    pub(super) fn not_asked(&mut self, source: SourceKey, known: Known) {
        self.asked -= 1;
        match known {
            Known::Asking => {}
            Known::Alive => self.set(source, State::Alive),
            // Nobody is left here who was merely not asked: that says nothing.
            Known::Otherwise | Known::Gone | Known::Stale | Known::Unknown | Known::Fresh => {
                self.set(source, State::Gone);
            }
        }
    }

    /// A node that somebody asked answered under this id, or with nonsense, or was silent. Who is silent twice is gone.
    pub(super) fn settled(&mut self, source: SourceKey, id: Option<Id>, was_silent: bool) {
        if let Some(candidate) = self.candidates.iter_mut().find(|candidate| candidate.source == source) {
            candidate.state = match id {
                Some(id) if id == candidate.id => State::Alive,
                None if was_silent && !std::mem::replace(&mut candidate.silent, true) => State::Fresh,
                Some(_) | None => State::Gone,
            };
        }
    }

    /// The id under which the node of a source is looked for.
    pub(super) fn id_of(&self, source: SourceKey) -> Option<Id> {
        self.candidates.iter().find(|candidate| candidate.source == source).map(|candidate| candidate.id)
    }

    fn set(&mut self, source: SourceKey, state: State) {
        if let Some(candidate) = self.candidates.iter_mut().find(|candidate| candidate.source == source) {
            candidate.state = state;
        }
    }
}

/// Nodes that a survey remembers.
const CANDIDATES: usize = 48;
/// Nodes of one survey that are asked at the same time.
const AT_ONCE: usize = 3;
/// Where four in ten of the nodes are gone some 25 are asked, and a third of them twice.
const MOST_QUERIES: u32 = 60;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rng;
    use crate::addr::source_key;

    fn node(n: u8, rng: &mut Rng) -> (Id, SocketAddr) {
        (rng.id(), ([81, 2, 3, n], 6881).into())
    }

    fn source(addr: SocketAddr) -> SourceKey {
        source_key(addr, false)
    }

    #[test]
    fn the_nearest_that_answer_count_and_nobody_else() {
        let mut rng = Rng::from_seed(1);
        let mut survey = Survey::new(1, rng.id(), false);
        let mut nodes: Vec<_> = (0..30).map(|n| node(n, &mut rng)).collect();
        for &node in &nodes {
            survey.offer(node, source(node.1), Known::Unknown);
        }
        nodes.sort_by_key(|(id, _)| id.distance(&survey.target));
        // Of the nearest, every third is gone, and one answers under another name.
        let lives = |addr: SocketAddr| nodes.iter().position(|node| node.1 == addr).unwrap() % 3 != 0;
        let liar = nodes[4].1;
        let (mut asked, mut waiting) = (0, Vec::new());
        let distance = loop {
            match survey.step() {
                Step::Ask(id, addr) => {
                    asked += 1;
                    waiting.push((id, addr));
                    assert!(waiting.len() <= AT_ONCE);
                }
                Step::Wait => {
                    let (id, addr) = waiting.remove(0);
                    let id = if addr == liar { Id::ZERO } else { id };
                    survey.settled(source(addr), lives(addr).then_some(id), !lives(addr));
                }
                Step::Done(distance) => break distance.unwrap(),
            }
        };
        let alive: Vec<_> = nodes.iter().filter(|node| lives(node.1) && node.1 != liar).collect();
        assert_eq!(distance, share(&alive[NEAREST - 1].0.distance(&survey.target)));
        // Five of those are asked twice.
        assert!(asked <= 21, "{asked}");
    }

    #[test]
    fn who_answered_lately_counts_without_being_asked() {
        let mut rng = Rng::from_seed(2);
        let mut survey = Survey::new(1, rng.id(), false);
        for n in 0..8 {
            let node = node(n, &mut rng);
            survey.offer(node, source(node.1), Known::Alive);
        }
        assert!(matches!(survey.step(), Step::Done(Some(_))));
    }

    #[test]
    fn too_few_are_no_result_and_memory_is_bounded() {
        let mut rng = Rng::from_seed(3);
        let mut survey = Survey::new(1, rng.id(), false);
        assert_eq!(survey.step(), Step::Done(None));
        for n in 0..200 {
            let node = node(n, &mut rng);
            survey.offer(node, source(node.1), Known::Unknown);
            survey.offer(node, source(node.1), Known::Unknown);
            survey.offer((rng.id(), node.1), source(node.1), Known::Unknown);
        }
        survey.offer(
            (rng.id(), "[2001:db8::1]:1".parse().unwrap()),
            source(([1; 4], 1).into()),
            Known::Alive,
        );
        assert_eq!(survey.candidates.len(), CANDIDATES);
        let mut asked = 0;
        loop {
            match survey.step() {
                Step::Ask(_, addr) => {
                    asked += 1;
                    survey.settled(source(addr), None, true);
                }
                Step::Wait => panic!("nobody is waited for"),
                Step::Done(result) => break assert_eq!(result, None),
            }
        }
        assert_eq!(asked, MOST_QUERIES);
    }
}
