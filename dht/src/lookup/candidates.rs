//! [`Candidates`]: whom a search has heard of, nearest to its target first.
//!
//! An answer names eight nodes, each of which is looked for among some hundreds, and then the nearest are gone
//! through for whom to ask next. So what such walks look at lies close together, in [`Place`]s of 40 bytes,
//! and the rest, several times as long, stays where it is when somebody comes between.

use std::net::SocketAddr;

use krpc::{Distance, Id};

use super::lines::{Lines, Longest};
use super::weights::LONG_LINE;
use crate::addr::subnet_key;
use crate::secure_id::is_secure;

/// Everybody that a search has heard of and not dropped.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// By distance, nearest first; those whose id is unknown (routers) before all.
    places: Vec<Place>,
    candidates: Vec<Candidate>,
    /// The line of each of them (see [`Offered::line`]), by which whom to drop is found among all.
    lines: Vec<u64>,
    /// Indices of `candidates` whose place is gone.
    free: Vec<u32>,
    next_serial: u32,
    /// Places in [`State::Fresh`].
    fresh: usize,
    /// Places that [are new](Place::is_new), of each line.
    new: Lines,
    /// [`Place::subnet`] of all that were asked.
    tried: Vec<u64>,
}

/// What decides whether a candidate is asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// [`crate::addr::SubnetKey::short`].
    pub(super) subnet: u64,
    pub(super) distance: Distance,
    pub(super) serial: u32,
    index: u32,
    pub(super) state: State,
    /// Queries sent.
    pub(super) tries: u8,
    /// Queries that may still be answered.
    pub(super) open: u8,
    /// Asked only when there is nobody else.
    pub(super) is_reserve: bool,
}

const _: () = assert!(size_of::<Place>() == 40);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Not asked yet.
    Fresh,
    /// Asked; before the soft deadline.
    Asked,
    /// Past the soft deadline of the last query.
    Slow,
    /// So too, and near enough to be asked a second time.
    Again,
    /// Answered.
    Answered,
    /// Gave no answer, an error, or one from another id.
    Failed,
}

/// A node on the way.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) serial: u32,
    /// `None` for a router until it has answered.
    pub(crate) id: Option<Id>,
    pub(crate) addr: SocketAddr,
    /// Referrals between the start and this node.
    pub(crate) depth: u16,
    pub(crate) token: Option<Box<[u8]>>,
    /// The sequence number of the item that it has (BEP 44).
    pub(crate) held: Option<i64>,
    pub(crate) announce: AnnounceState,
    /// The id under which it answered when that was another one.
    pub(crate) answered_as: Option<Id>,
}

/// Whom a search from another home begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whom {
    Everybody,
    /// Those that have answered.
    Answerers,
}

/// Somebody whom a search is told of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offered {
    /// `None` for a router.
    pub(super) id: Option<Id>,
    pub(super) addr: SocketAddr,
    /// Referrals between the start and this node.
    pub(super) depth: u16,
    /// The line that it belongs to (see [`super::lines`]); `None` of one with whom a line begins.
    pub(super) line: Option<u64>,
    /// See [`Place::is_reserve`].
    pub(super) is_reserve: bool,
}

/// The `announce_peer` to a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnnounceState {
    /// Not sent.
    No,
    /// Sent so many times, not acknowledged.
    Sent(u8),
    /// Acknowledged, refused or given up.
    Over,
}

/// What a trace tells of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) addr: SocketAddr,
    pub(crate) id: Option<Id>,
    /// See [`Candidate::depth`].
    pub(crate) depth: u16,
    /// See [`Offered::line`].
    pub(super) line: u64,
}

impl Place {
    /// Of somebody whom nobody has asked.
    fn new(subnet: u64, distance: Distance, is_reserve: bool) -> Self {
        Self { subnet, distance, serial: 0, index: 0, state: State::Fresh, tries: 0, open: 0, is_reserve }
    }

    /// The same for another of our homes, which has not asked there.
    fn anew(&self) -> Self {
        let tries = if self.has_answered() { 0 } else { self.tries };
        Self { tries, ..Self::new(self.subnet, self.distance, self.is_reserve) }
    }

    pub(super) fn has_answered(&self) -> bool {
        self.state == State::Answered
    }

    /// Whether no home has asked it.
    fn is_new(&self) -> bool {
        self.state == State::Fresh && self.tries == 0
    }
}

impl Candidate {
    fn new(id: Option<Id>, addr: SocketAddr, depth: u16) -> Self {
        let (serial, token, held, announce, answered_as) = (0, None, None, AnnounceState::No, None);
        Self { serial, id, addr, depth, token, held, announce, answered_as }
    }

    /// The same for another of our homes, which nobody has given a token.
    fn anew(&self) -> Self {
        Self { answered_as: self.answered_as, ..Self::new(self.id, self.addr, self.depth) }
    }

    /// Whether its id belongs to its address (BEP 42).
    fn is_secure(&self) -> bool {
        self.id.is_some_and(|id| is_secure(&id, self.addr.ip()))
    }

    /// Whether an offer is of this node: who stands for a router is told apart by the address alone.
    fn is_same(&self, id: Option<Id>, addr: SocketAddr) -> bool {
        self.addr == addr && (self.id == id || id.is_none() || self.id.is_none())
    }
}

impl Candidates {
    /// The same nodes for a search from another of our homes, which none of them has been asked by: all of
    /// them, or those that have answered. Queries to those that never answered still count, whichever home
    /// they came from (D7). Serials go on from `first_serial`.
    pub(super) fn anew(&self, whom: Whom, first_serial: u32) -> Self {
        let mut anew = Self { next_serial: first_serial, ..Self::default() };
        let of_use = |place: &&Place| whom == Whom::Everybody || place.has_answered();
        for place in self.places.iter().filter(of_use) {
            anew.insert(anew.places.len(), self.of(place).anew(), self.line_of(place), place.anew());
        }
        anew
    }

    /// Adds those of a search from another of our homes, to which the same applies. Beyond `most` fresh ones
    /// some of these go, as in [`Candidates::offer`].
    pub(super) fn join(&mut self, others: &Self, most: usize) {
        for place in others.places.iter() {
            let (other, candidate) = (place.anew(), others.of(place));
            let Candidate { id, addr, answered_as, .. } = *candidate;
            let first = self.places.partition_point(|place| place.distance < other.distance);
            let Some(known) = self.known(first, &other.distance, id, addr) else {
                let at = first + self.equals_before(first, id, addr, &other.distance);
                self.insert(at, candidate.anew(), others.line_of(place), other);
                continue;
            };
            let place = &mut self.places[known];
            place.is_reserve &= other.is_reserve;
            if !place.has_answered() {
                self.change(known, |place| place.tries = place.tries.max(other.tries));
                let candidate = self.at_mut(known);
                candidate.answered_as = candidate.answered_as.or(answered_as);
            }
        }
        while self.fresh > most && self.drop_farthest().is_some() {}
    }

    /// The serial of whoever is added next.
    pub(super) fn next_serial(&self) -> u32 {
        self.next_serial
    }

    /// Adds somebody, unless they are there already. Beyond `most` fresh ones the farthest of the line with most
    /// of these goes, or of all where no line is long ([`LONG_LINE`]). Whether it was new and stays.
    pub(super) fn offer(&mut self, offered: Offered, target: &Id, allow_local: bool, most: usize) -> bool {
        let Offered { id, addr, depth, line, is_reserve } = offered;
        // Routers come first: they are offered where nobody else is of use.
        let distance = id.map_or(ROUTERS_FIRST, |id| id.distance(target));
        let first = self.places.partition_point(|place| place.distance < distance);
        if let Some(known) = self.known(first, &distance, id, addr) {
            self.places[known].is_reserve = false;
            return false;
        }
        let at = first + self.equals_before(first, id, addr, &distance);
        let place = Place::new(subnet_key(addr, allow_local).short(), distance, is_reserve);
        let line = line.unwrap_or(place.subnet);
        let serial = self.insert(at, Candidate::new(id, addr, depth), line, place);
        self.fresh <= most || self.drop_farthest() != Some(serial)
    }

    /// Puts somebody whom nobody has asked from here at a place; the serial.
    fn insert(&mut self, at: usize, candidate: Candidate, line: u64, place: Place) -> u32 {
        let serial = self.next_serial;
        self.next_serial += 1;
        let index = self.keep(Candidate { serial, ..candidate }, line);
        if self.places.capacity() == 0 {
            self.places.reserve(ROOM);
        }
        self.places.insert(at, Place { serial, index, ..place });
        self.fresh += 1;
        if place.is_new() {
            self.new.add(line);
        }
        if place.tries > 0 {
            self.tried.push(place.subnet);
        }
        serial
    }

    /// The place of whom an offer is of, where `first` is the first place at that distance. Whoever has the
    /// same id is at the same distance, and who stands for a router before all.
    fn known(&self, first: usize, distance: &Distance, id: Option<Id>, addr: SocketAddr) -> Option<usize> {
        let is_same = |place: &Place| self.of(place).is_same(id, addr);
        if id.is_none() {
            return self.places.iter().position(is_same);
        }
        let routers = self.places.iter().take_while(|place| place.distance == ROUTERS_FIRST);
        let equals = self.places[first..].iter().take_while(|place| place.distance == *distance);
        let mut all = routers.enumerate().chain((first..).zip(equals));
        all.find(|(_, place)| is_same(place)).map(|(at, _)| at)
    }

    /// How many of those at the same distance, from `first` on, somebody belongs behind. Whoever claims the id
    /// of another stands behind it if only that one's belongs to its address (BEP 42), or if it came first.
    fn equals_before(&self, first: usize, id: Option<Id>, addr: SocketAddr, distance: &Distance) -> usize {
        let is_not = || id.is_none_or(|id| !is_secure(&id, addr.ip()));
        self.places[first..]
            .partition_point(|place| place.distance == *distance && (self.of(place).is_secure() || is_not()))
    }

    fn keep(&mut self, candidate: Candidate, line: u64) -> u32 {
        match self.free.pop() {
            Some(index) => {
                self.candidates[index as usize] = candidate;
                self.lines[index as usize] = line;
                index
            }
            None => {
                if self.candidates.capacity() == 0 {
                    self.candidates.reserve(ROOM);
                    self.lines.reserve(ROOM);
                }
                self.candidates.push(candidate);
                self.lines.push(line);
                self.candidates.len() as u32 - 1
            }
        }
    }

    /// Forgets the farthest that was not asked, by any home, of the line that has most of those: whoever names
    /// nodes without end drives out its own. Its serial.
    fn drop_farthest(&mut self) -> Option<u32> {
        let longest = self.longest_line();
        let may_go = |place: &Place| place.is_new() && longest.is_none_or(|line| self.line_of(place) == line);
        let farthest = self.places.iter().rposition(may_go)?;
        let place = self.places.remove(farthest);
        self.new.remove(self.line_of(&place));
        self.fresh -= 1;
        self.free.push(place.index);
        Some(place.serial)
    }

    /// The line with most new places, if these are more than [`LONG_LINE`]. Of several, the one whose nearest is
    /// farthest from the target.
    fn longest_line(&self) -> Option<u64> {
        debug_assert!(self.new.is_same(&self.count_new()));
        match self.new.longest_beyond(LONG_LINE) {
            Longest::Several => {
                let (most, places) = (self.new.most(), self.places.iter().filter(|place| place.is_new()));
                let is_longest = |line: &u64| self.new.of(*line) == most;
                let lines = places.map(|place| self.line_of(place)).filter(is_longest);
                Lines::sum(lines.map(|line| (line, 1))).last()
            }
            Longest::One(line) => Some(line),
            Longest::None => None,
        }
    }

    fn count_new(&self) -> Lines {
        let new = self.places.iter().filter(|place| place.is_new());
        Lines::sum(new.map(|place| (self.line_of(place), 1)))
    }

    /// The candidate at this place has told its id. The place that it has then.
    pub(super) fn identify(&mut self, at: usize, id: Id, target: &Id) -> usize {
        let mut place = self.places.remove(at);
        self.candidates[place.index as usize].id = Some(id);
        place.distance = id.distance(target);
        let at = self.places.partition_point(|other| other.distance < place.distance);
        self.places.insert(at, place);
        at
    }

    pub(super) fn set_state(&mut self, at: usize, state: State) {
        self.change(at, |place| place.state = state);
    }

    /// Changes the state of a place, and how often it was asked.
    pub(super) fn change(&mut self, at: usize, change: impl FnOnce(&mut Place)) {
        let place = &mut self.places[at];
        let (was_fresh, was_new, was_tried) = (place.state == State::Fresh, place.is_new(), place.tries > 0);
        change(place);
        if place.tries > 0 && !was_tried {
            self.tried.push(place.subnet);
        }
        let (is_fresh, is_new) = (place.state == State::Fresh, place.is_new());
        self.fresh = self.fresh + usize::from(is_fresh) - usize::from(was_fresh);
        match (was_new, is_new) {
            (true, false) => self.new.remove(self.lines[place.index as usize]),
            (false, true) => self.new.add(self.lines[place.index as usize]),
            _ => {}
        }
    }

    /// All places, nearest first.
    pub(super) fn places(&self) -> &[Place] {
        &self.places
    }

    /// All of a network that were asked. Most often there are none, and nobody has to be looked at.
    pub(super) fn tried(&self, subnet: u64) -> impl Iterator<Item = &Place> {
        let most = if self.tried.contains(&subnet) { self.places.len() } else { 0 };
        self.places.iter().take(most).filter(move |place| place.subnet == subnet && place.tries > 0)
    }

    /// The candidate at this place.
    pub(super) fn at(&self, at: usize) -> &Candidate {
        self.of(&self.places[at])
    }

    pub(super) fn at_mut(&mut self, at: usize) -> &mut Candidate {
        &mut self.candidates[self.places[at].index as usize]
    }

    /// The candidate of one of the [`Candidates::places`].
    pub(super) fn of(&self, place: &Place) -> &Candidate {
        &self.candidates[place.index as usize]
    }

    /// The line of one of the [`Candidates::places`].
    pub(super) fn line_of(&self, place: &Place) -> u64 {
        self.lines[place.index as usize]
    }

    /// What is told of the candidate at this place.
    pub(super) fn facts(&self, at: usize) -> Facts {
        let (place, &Candidate { addr, id, depth, .. }) = (&self.places[at], self.at(at));
        Facts { addr, id, depth, line: self.line_of(place) }
    }

    /// The place of a node.
    pub(super) fn place_of(&self, id: Id, addr: SocketAddr, target: &Id) -> Option<usize> {
        let distance = id.distance(target);
        let first = self.places.partition_point(|place| place.distance < distance);
        self.known(first, &distance, Some(id), addr)
    }

    /// Who was named in `line` too belongs to it if that had fewer queries than its own, unless it was asked.
    pub(super) fn named_too(&mut self, at: usize, line: u64) {
        let (index, tries) = (self.places[at].index as usize, self.tries());
        let own = self.lines[index];
        if self.places[at].tries == 0 && tries.of(line) < tries.of(own) {
            self.lines[index] = line;
            if self.places[at].is_new() {
                self.new.remove(own);
                self.new.add(line);
            }
        }
    }

    /// Queries sent to nodes of each line.
    pub(super) fn tries(&self) -> Lines {
        Lines::sum(self.places.iter().map(|place| (self.line_of(place), place.tries.into())))
    }

    pub(super) fn position(&self, serial: u32) -> Option<usize> {
        self.places.iter().position(|place| place.serial == serial)
    }

    /// All candidates, nearest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Candidate> {
        self.places.iter().map(|place| self.of(place))
    }
}

/// Candidates that there is room for from the start: half of the searches come by with that.
const ROOM: usize = 64;

/// The distance of nodes whose id is unknown.
const ROUTERS_FIRST: Distance = Distance::ZERO;
