//! [`Rpc`]: our queries in flight. An answer counts only if transaction id, address and socket are
//! those of a query (D8); who asked, and what the answer means, is not known here.
//!
//! A query has two deadlines. At the *soft* one, which follows the round-trip times that its socket sees (see
//! [`Patience`]), whoever asked may go on without it; until the *hard* one a late answer
//! still counts.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use krpc::{Body, Id, Message, Query};

use self::socket::Socket;
use crate::addr::acceptable;
use crate::{Class, Config, KeyedHash, Outbox, Rng, Seeds, Time};

/// The value of `v` in our messages: `bd` and two version bytes (DECISIONS.md 11).
pub(crate) const VERSION: &[u8; 4] = b"bd\x00\x01";

/// Queries in flight, each with a `P` that says what for.
#[derive(Debug)]
pub(crate) struct Rpc<P> {
    rng: Rng,
    hash: KeyedHash,
    /// There as long as something is in flight.
    waits: Option<Box<Waits<P>>>,
    /// The first socket, which is the only one of most nodes.
    first: Socket,
    /// Of those in flight, how many went to addresses that no stranger may have.
    unusual: u32,
    config: Arc<Config>,
    /// The other sockets, as far as there is something to tell of them.
    others: Box<[Socket]>,
}

#[derive(Debug)]
struct Waits<P> {
    in_flight: HashMap<u32, InFlight<P>, KeyedHash>,
    /// Entries of answered queries stay until their time or until they reach the front.
    deadlines: BinaryHeap<Reverse<(Time, u32, Deadline)>>,
}

/// Whom to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    /// The socket to send from.
    pub(crate) socket: u8,
    /// The address to send to.
    pub(crate) to: SocketAddr,
    /// The id that has to answer; `None` where we don't know it yet.
    pub(crate) id: Option<Id>,
}

#[derive(Debug)]
struct InFlight<P> {
    destination: Destination,
    sent: Time,
    purpose: P,
}

/// How soon whoever asked goes on without an answer: the share of answers that have come by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// 95 %.
    Full,
    /// 92 %: there are others to ask.
    InLookup,
    /// 87 %: of those that were silent once nine in ten are gone.
    AgainInLookup,
}

/// A query that was answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Taken<P> {
    pub(crate) destination: Destination,
    pub(crate) rtt: Duration,
    pub(crate) purpose: P,
}

/// A query that was not answered in time.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Expired<P> {
    /// It is past its soft deadline; a late answer still counts.
    Slow(Destination, P),
    /// It is given up.
    Silent(Destination, P),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Deadline {
    Soft,
    Hard,
}

impl<P: Copy> Rpc<P> {
    pub(crate) fn new(config: &Arc<Config>, seeds: Seeds) -> Self {
        let mut rng = Rng::new(seeds);
        Self {
            hash: KeyedHash::new(&mut rng),
            rng,
            waits: None,
            first: Socket::new(config),
            unusual: 0,
            config: Arc::clone(config),
            others: Box::default(),
        }
    }

    /// Sends a query as `own`. `false`, and nothing sent, when [`Config::max_in_flight`] are waited for.
    pub(crate) fn ask(
        &mut self,
        now: Time,
        destination: Destination,
        query: (Id, Query<'_>),
        purpose: P,
        out: &mut Outbox,
    ) -> bool {
        self.ask_within(now, destination, query, (purpose, Patience::Full), out)
    }

    /// The same with another soft deadline.
    pub(crate) fn ask_within(
        &mut self,
        now: Time,
        destination: Destination,
        (own, query): (Id, Query<'_>),
        (purpose, patience): (P, Patience),
        out: &mut Outbox,
    ) -> bool {
        let Some(tid) = self.begin(now, destination, purpose, patience) else {
            return false;
        };
        let body = Body::Query { id: own, query };
        let read_only = self.is_read_only(destination.socket);
        out.send(destination.socket, destination.to, Class::Query, |bytes| {
            Message { tid: &tid, version: Some(VERSION), ip: None, read_only, body }.encode(bytes);
        });
        true
    }

    /// Sends a query whose bencoded arguments were written by hand; see [`Rpc::ask`].
    pub(crate) fn ask_raw(
        &mut self,
        now: Time,
        destination: Destination,
        (method, arguments): (&[u8], &[u8]),
        purpose: P,
        out: &mut Outbox,
    ) -> bool {
        let Some(tid) = self.begin(now, destination, purpose, Patience::Full) else {
            return false;
        };
        let read_only = self.is_read_only(destination.socket);
        let read_only: &[u8] = if read_only { b"2:roi1e" } else { b"" };
        out.send(destination.socket, destination.to, Class::Query, |bytes| {
            let length = method.len().to_string();
            let parts =
                [b"d1:a", arguments, b"1:q", length.as_bytes(), b":", method, read_only, b"1:t4:", &tid];
            parts.iter().for_each(|part| bytes.extend_from_slice(part));
            bytes.extend_from_slice(b"1:v4:");
            bytes.extend_from_slice(VERSION);
            bytes.extend_from_slice(b"1:y1:qe");
        });
        true
    }

    /// The query that a datagram answers; it is no longer in flight.
    pub(crate) fn take(&mut self, now: Time, socket: u8, from: SocketAddr, tid: &[u8]) -> Option<Taken<P>> {
        let tid = u32::from_be_bytes(tid.try_into().ok()?);
        let asked = &self.waits.as_ref()?.in_flight.get(&tid)?.destination;
        if asked.socket != socket || !is_same(asked.to, from) {
            return None;
        }
        let InFlight { destination, sent, purpose } = self.remove(tid)?;
        self.trim();
        let rtt = now.since(sent);
        self.socket_mut(destination.socket).measured(rtt);
        Some(Taken { destination, rtt, purpose })
    }

    /// Whether a query of ours with this transaction id waits for its answer.
    pub(crate) fn knows(&self, tid: &[u8]) -> bool {
        let knows = |tid| self.waits.as_ref().is_some_and(|waits| waits.in_flight.contains_key(&tid));
        tid.try_into().is_ok_and(|tid| knows(u32::from_be_bytes(tid)))
    }

    /// The next query that is past a deadline; call it until it says `None`.
    pub(crate) fn expire(&mut self, now: Time) -> Option<Expired<P>> {
        while let Some(waits) = &mut self.waits
            && let Some(&Reverse((at, tid, deadline))) = waits.deadlines.peek()
        {
            if at > now {
                break;
            }
            waits.deadlines.pop();
            match deadline {
                Deadline::Soft => {
                    if let Some(query) = waits.in_flight.get(&tid) {
                        return Some(Expired::Slow(query.destination, query.purpose));
                    }
                }
                Deadline::Hard => {
                    if let Some(query) = self.remove(tid) {
                        return Some(Expired::Silent(query.destination, query.purpose));
                    }
                }
            }
        }
        self.trim();
        None
    }

    /// Whether further queries from `socket` say that we answer none there (BEP 43).
    pub(crate) fn set_read_only(&mut self, socket: u8, read_only: bool) {
        if self.is_read_only(socket) != read_only {
            self.socket_mut(socket).read_only = read_only;
        }
    }

    /// When [`Rpc::expire`] has something to say.
    pub(crate) fn timeout(&self) -> Time {
        let next = self.waits.as_ref().and_then(|waits| waits.deadlines.peek());
        next.map_or(Time::NEVER, |&Reverse((at, ..))| at)
    }

    /// Queries in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.waits.as_ref().map_or(0, |waits| waits.in_flight.len())
    }

    /// Whether `addr`, which no stranger may have, owes us an answer. Looks through all queries if any such
    /// address does.
    pub(crate) fn is_waiting_for(&self, addr: SocketAddr) -> bool {
        let asked =
            |waits: &Waits<P>| waits.in_flight.values().any(|query| is_same(query.destination.to, addr));
        self.unusual > 0 && self.waits.as_deref().is_some_and(asked)
    }

    fn is_read_only(&self, socket: u8) -> bool {
        self.socket(socket).read_only
    }

    fn socket(&self, socket: u8) -> Socket {
        match usize::from(socket).checked_sub(1) {
            Some(other) => self.others.get(other).copied().unwrap_or_else(|| Socket::new(&self.config)),
            None => self.first,
        }
    }

    fn socket_mut(&mut self, socket: u8) -> &mut Socket {
        let Some(other) = usize::from(socket).checked_sub(1) else { return &mut self.first };
        if self.others.len() <= other {
            let mut longer = std::mem::take(&mut self.others).into_vec();
            longer.resize(other + 1, Socket::new(&self.config));
            self.others = longer.into();
        }
        &mut self.others[other]
    }

    fn begin(
        &mut self,
        now: Time,
        destination: Destination,
        purpose: P,
        patience: Patience,
    ) -> Option<[u8; 4]> {
        if self.config.max_in_flight != 0 && self.in_flight() >= self.config.max_in_flight {
            return None;
        }
        let (hash, timeout) = (self.hash, self.config.query_timeout);
        let soft = self.socket(destination.socket).soft_timeout(patience, &self.config).min(timeout);
        let waits = self.waits.get_or_insert_with(|| Box::new(Waits::new(hash)));
        let mut tid = self.rng.next_u32();
        while waits.in_flight.contains_key(&tid) {
            tid = self.rng.next_u32();
        }
        self.unusual += u32::from(!acceptable(destination.to, self.config.allow_local));
        waits.in_flight.insert(tid, InFlight { destination, sent: now, purpose });
        waits.deadlines.push(Reverse((now + soft, tid, Deadline::Soft)));
        waits.deadlines.push(Reverse((now + timeout, tid, Deadline::Hard)));
        Some(tid.to_be_bytes())
    }

    fn remove(&mut self, tid: u32) -> Option<InFlight<P>> {
        let waits = self.waits.as_mut()?;
        let query = waits.in_flight.remove(&tid)?;
        if waits.in_flight.is_empty() {
            self.waits = None;
        } else {
            waits.give_back();
        }
        self.unusual -= u32::from(!acceptable(query.destination.to, self.config.allow_local));
        Some(query)
    }

    /// Drops the deadlines of answered queries from the front, so that nobody wakes up for them.
    fn trim(&mut self) {
        let Some(waits) = &mut self.waits else { return };
        while let Some(&Reverse((_, tid, _))) = waits.deadlines.peek() {
            if waits.in_flight.contains_key(&tid) {
                return;
            }
            waits.deadlines.pop();
        }
    }
}

impl<P> Waits<P> {
    fn new(hash: KeyedHash) -> Self {
        Self { in_flight: HashMap::with_hasher(hash), deadlines: BinaryHeap::new() }
    }

    /// Gives back what many queries took once few are left: the last of a lookup's may be waited for long.
    fn give_back(&mut self) {
        let Self { in_flight, deadlines } = self;
        if in_flight.capacity() > SMALL && in_flight.capacity() > 8 * in_flight.len() {
            in_flight.shrink_to(2 * in_flight.len());
            deadlines.retain(|Reverse((_, tid, _))| in_flight.contains_key(tid));
            deadlines.shrink_to_fit();
        }
    }
}

/// Queries in flight whose room is not worth giving back.
const SMALL: usize = 7;

/// Whether two addresses are the same IP and port; scopes and flow labels don't matter.
fn is_same(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && a.ip().to_canonical() == b.ip().to_canonical()
}

mod size;
mod socket;

#[cfg(test)]
mod distribution;
#[cfg(test)]
mod tests {
    use super::*;

    fn rpc(config: &Config) -> Rpc<u32> {
        Rpc::new(&Arc::new(config.clone()), Seeds::from_u64(1))
    }

    fn to(last: u8) -> Destination {
        Destination { socket: 0, to: ([81, 2, 3, last], 6881).into(), id: None }
    }

    fn ask(rpc: &mut Rpc<u32>, now: Time, last: u8, purpose: u32) -> Option<Vec<u8>> {
        let mut out = Outbox::new();
        if !rpc.ask(now, to(last), (Id::new([1; 20]), Query::Ping), purpose, &mut out) {
            assert!(out.transmits.is_empty());
            return None;
        }
        let message = Message::decode(out.datagram(&out.transmits[0])).unwrap();
        assert_eq!(message.body, Body::Query { id: Id::new([1; 20]), query: Query::Ping });
        Some(message.tid.to_vec())
    }

    #[test]
    fn answer_counts_only_with_its_tid_address_and_socket() {
        let mut rpc = rpc(&Config::default());
        let tid = ask(&mut rpc, Time::ZERO, 4, 7).unwrap();
        assert_eq!(tid.len(), 4);
        let now = Time::from_millis(90);
        let from = to(4).to;
        let mut wrong = tid.clone();
        wrong[3] ^= 1;
        assert!(rpc.take(now, 0, from, &wrong).is_none());
        assert!(rpc.take(now, 0, from, &tid[..3]).is_none());
        assert!(rpc.take(now, 0, from, &[&tid[..], &[0]].concat()).is_none());
        assert!(rpc.take(now, 0, to(5).to, &tid).is_none());
        assert!(rpc.take(now, 0, SocketAddr::new(from.ip(), 6882), &tid).is_none());
        assert!(rpc.take(now, 1, from, &tid).is_none());
        let taken = rpc.take(now, 0, from, &tid).unwrap();
        assert_eq!((taken.purpose, taken.rtt), (7, Duration::from_millis(90)));
        assert!(rpc.take(now, 0, from, &tid).is_none());
        assert_eq!((rpc.in_flight(), rpc.timeout()), (0, Time::NEVER));
    }

    #[test]
    fn last_of_many_queries_takes_little_room_and_still_expires() {
        let mut rpc = rpc(&Config { max_in_flight: 0, ..Config::default() });
        let tids: Vec<_> = (0..200).map(|n| ask(&mut rpc, Time::ZERO, n as u8, n).unwrap()).collect();
        let last = tids.len() - 1;
        for (n, tid) in tids[..last].iter().enumerate() {
            assert!(rpc.take(Time::from_millis(50), 0, to(n as u8).to, tid).is_some());
        }
        let waits = rpc.waits.as_ref().unwrap();
        assert!(waits.in_flight.capacity() <= 14 && waits.deadlines.capacity() <= 32, "{waits:?}");
        let end = Time::from_secs(60);
        assert_eq!(rpc.expire(end), Some(Expired::Slow(to(last as u8), last as u32)));
        assert_eq!(rpc.expire(end), Some(Expired::Silent(to(last as u8), last as u32)));
        assert_eq!((rpc.expire(end), rpc.timeout(), rpc.waits.is_none()), (None, Time::NEVER, true));
    }

    #[test]
    fn slow_query_may_still_be_answered_and_a_silent_one_not() {
        let mut rpc = rpc(&Config::default());
        let tid = ask(&mut rpc, Time::ZERO, 4, 1).unwrap();
        ask(&mut rpc, Time::ZERO, 5, 2).unwrap();
        let soft = rpc.timeout();
        assert_eq!(soft, Time::from_millis(250));
        assert!(rpc.expire(Time::from_millis(249)).is_none());
        let slow = [rpc.expire(soft).unwrap(), rpc.expire(soft).unwrap()];
        assert!(slow.contains(&Expired::Slow(to(4), 1)) && slow.contains(&Expired::Slow(to(5), 2)));
        assert_eq!(rpc.expire(soft), None);
        assert!(rpc.take(Time::from_secs(3), 0, to(4).to, &tid).is_some());
        assert_eq!(rpc.timeout(), Time::from_secs(4));
        assert_eq!(rpc.expire(Time::from_secs(4)), Some(Expired::Silent(to(5), 2)));
        assert_eq!((rpc.expire(Time::from_secs(9)), rpc.timeout()), (None, Time::NEVER));
    }

    #[test]
    fn queries_in_flight_are_bounded() {
        let mut rpc = rpc(&Config { max_in_flight: 2, ..Config::default() });
        assert!(ask(&mut rpc, Time::ZERO, 1, 0).is_some());
        assert!(ask(&mut rpc, Time::ZERO, 2, 0).is_some());
        assert!(ask(&mut rpc, Time::ZERO, 3, 0).is_none());
        while rpc.expire(Time::from_secs(4)).is_some() {}
        assert!(ask(&mut rpc, Time::from_secs(4), 3, 0).is_some());
    }

    /// When the first of the queries in flight is past its soft deadline.
    fn soft_deadline(rpc: &mut Rpc<u32>, now: Time, socket: u8) -> Duration {
        let destination = Destination { socket, ..to(9) };
        rpc.ask(now, destination, (Id::new([1; 20]), Query::Ping), 0, &mut Outbox::new());
        let deadline = rpc.timeout();
        while rpc.expire(now + Duration::from_secs(60)).is_some() {}
        deadline.since(now)
    }

    #[test]
    fn each_socket_has_the_soft_deadlines_of_its_own_line() {
        let mut rpc = rpc(&Config::default());
        let mut now = Time::ZERO;
        for _ in 0..100 {
            for (socket, rtt) in [(2, 300), (0, 20)] {
                let destination = Destination { socket, ..to(4) };
                let mut out = Outbox::new();
                assert!(rpc.ask(now, destination, (Id::new([1; 20]), Query::Ping), 0, &mut out));
                let tid = Message::decode(out.datagram(&out.transmits[0])).unwrap().tid.to_vec();
                now += Duration::from_millis(rtt);
                assert!(rpc.take(now, socket, to(4).to, &tid).is_some());
            }
        }
        let millis = [0, 1, 2, 3].map(|socket| soft_deadline(&mut rpc, now, socket).as_millis());
        assert_eq!(
            [millis[0], millis[1], millis[3]],
            [100, 250, 250],
            "the least, and where nobody answered"
        );
        assert!((300..310).contains(&millis[2]), "{millis:?}");
    }

    #[test]
    fn each_socket_says_for_itself_that_it_is_read_only() {
        let mut rpc = rpc(&Config::default());
        rpc.set_read_only(3, false);
        assert!(rpc.others.is_empty(), "nothing to keep");
        let said = |rpc: &Rpc<u32>| [0, 1, 2, 3].map(|socket| rpc.is_read_only(socket));
        rpc.set_read_only(2, true);
        assert_eq!(said(&rpc), [false, false, true, false]);
        rpc.set_read_only(0, true);
        rpc.set_read_only(2, false);
        assert_eq!(said(&rpc), [true, false, false, false]);
    }

    #[test]
    fn raw_query_is_a_canonical_message() {
        let mut rpc = rpc(&Config::default());
        rpc.set_read_only(0, true);
        let mut out = Outbox::new();
        let arguments = b"d2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e";
        assert!(rpc.ask_raw(Time::ZERO, to(1), (b"vote", arguments), 0, &mut out));
        let message = Message::decode(out.datagram(&out.transmits[0])).unwrap();
        assert!(message.read_only);
        let mut again = Vec::new();
        let Body::Query { query: Query::Other { method, target, .. }, .. } = message.body else { panic!() };
        assert_eq!((method, target), (&b"vote"[..], Id::from_slice(b"mnopqrstuvwxyz123456")));
        message.encode(&mut again);
        assert_eq!(again, out.bytes);
    }
}
