//! [`UdpTracker`]: announces over UDP (BEP 15), with the path of the URL as an option (BEP 41). A
//! state machine: datagrams and time go in, datagrams and outcomes come out.

use std::net::SocketAddr;
use std::time::Duration;

use btdht::{Rng, Time};
use krpc::compact::{self, Address, V4, V6};

use super::{
    Announce, AnnounceEvent, AnnounceReply, MAX_PEERS, TrackerError, UNKNOWN_LEFT, clamp_interval, printable,
};

/// Says "I want to connect" (BEP 15, `protocol_id`).
const PROTOCOL_ID: u64 = 0x417_2710_1980;
const CONNECT: u32 = 0;
const ANNOUNCE: u32 = 1;
const ERROR: u32 = 3;
/// How long a connection id may be used after it was received (BEP 15, "UDP connections / spoofing").
const CONNECTION_LIFE: Duration = Duration::from_secs(60);
/// Bytes of the path that are sent: four options.
const MAX_PATH: usize = 4 * 255;

/// How long to wait for answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// 3 s, then 9 s after a retransmission: the next tracker gets its chance within 15 s.
    Failover,
    /// 15 · 2^n s for n from 0 to 8, as BEP 15 says: over two hours.
    Standard,
}

impl Patience {
    /// How long to wait after the n-th transmission; `None` to give up.
    fn wait(self, n: u32) -> Option<Duration> {
        match (self, n) {
            (Self::Failover, 0) => Some(Duration::from_secs(3)),
            (Self::Failover, 1) => Some(Duration::from_secs(9)),
            (Self::Standard, 0..=8) => Some(Duration::from_secs(15 << n)),
            _ => None,
        }
    }
}

/// A tracker at one address. Remembers its connection id from one announce to the next.
#[derive(Debug)]
pub struct UdpTracker {
    remote: SocketAddr,
    /// Path and query of the URL (BEP 41).
    path: Vec<u8>,
    rng: Rng,
    connection: Option<Connection>,
    request: Option<Request>,
}

#[derive(Clone, Copy, Debug)]
struct Connection {
    id: u64,
    until: Time,
}

/// An announce under way.
#[derive(Debug)]
struct Request {
    announce: Announce,
    patience: Patience,
    stage: Stage,
    tid: u32,
    /// Transmissions that had no answer.
    n: u32,
    /// When to transmit again.
    due: Time,
    /// To be sent.
    datagram: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Connecting,
    Announcing,
}

impl UdpTracker {
    /// A tracker; `path` is the path and query of its URL.
    pub fn new(remote: SocketAddr, path: &str, rng: Rng) -> Self {
        let path = path.as_bytes();
        let path = path.get(..MAX_PATH).unwrap_or(path).to_vec();
        Self { remote, path, rng, connection: None, request: None }
    }

    /// Begins an announce; one that was under way is forgotten.
    pub fn announce(&mut self, now: Time, announce: Announce, patience: Patience) {
        let (stage, datagram) = (Stage::Connecting, None);
        self.request = Some(Request { announce, patience, stage, tid: 0, n: 0, due: Time::NEVER, datagram });
        self.transmit(now);
    }

    /// The datagram to send now to [`remote`](Self::remote), if any. One that is lost on the way, also
    /// by a full socket, is sent again later.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.request.as_mut()?.datagram.take()
    }

    /// A datagram has arrived. Gives the outcome of the announce if it is that. Whatever is not the
    /// answer, from that address and with that transaction id, is ignored.
    pub fn handle_datagram(
        &mut self,
        now: Time,
        from: SocketAddr,
        bytes: &[u8],
    ) -> Option<Result<AnnounceReply, TrackerError>> {
        let request = self.request.as_mut()?;
        if !same_address(from, self.remote) {
            return None;
        }
        let (action, rest) = number(bytes)?;
        let (tid, body) = number(rest)?;
        if tid != request.tid {
            return None;
        }
        match (action, request.stage) {
            (CONNECT, Stage::Connecting) => {
                let id = u64::from_be_bytes(*body.first_chunk()?);
                self.connection = Some(Connection { id, until: now + CONNECTION_LIFE });
                self.transmit(now);
                None
            }
            (ANNOUNCE, Stage::Announcing) => {
                let reply = parse_reply(self.remote, body)?;
                self.request = None;
                Some(Ok(reply))
            }
            (ERROR, _) => {
                // Perhaps the connection id was not good enough: the next announce gets a fresh one.
                self.connection = None;
                self.request = None;
                Some(Err(TrackerError::Refused { reason: printable(body), retry: None }))
            }
            _ => None,
        }
    }

    /// To be called at [`timeout`](Self::timeout): transmits again, or gives up.
    pub fn handle_timeout(&mut self, now: Time) -> Option<Result<AnnounceReply, TrackerError>> {
        let request = self.request.as_mut()?;
        if now < request.due {
            return None;
        }
        request.n += 1;
        if request.patience.wait(request.n).is_none() {
            self.request = None;
            return Some(Err(TrackerError::Timeout));
        }
        self.transmit(now);
        None
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn timeout(&self) -> Time {
        self.request.as_ref().map_or(Time::NEVER, |request| request.due)
    }

    /// Where datagrams go, and the only address whose answers count.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Prepares the datagram of the current stage: connect without a fresh connection id, else
    /// announce. A retransmission keeps its transaction id, so that a late answer still counts.
    fn transmit(&mut self, now: Time) {
        let Some(request) = &mut self.request else { return };
        let connection = self.connection.filter(|connection| now < connection.until);
        let stage = if connection.is_some() { Stage::Announcing } else { Stage::Connecting };
        if stage != request.stage || request.tid == 0 {
            request.tid = self.rng.next_u32().max(1);
        }
        let mut out = Vec::with_capacity(98 + 2 + self.path.len());
        match connection {
            None => put_connect(&mut out, request.tid),
            Some(Connection { id, .. }) => {
                put_announce(&mut out, id, request.tid, &request.announce);
                put_path(&mut out, &self.path);
            }
        }
        request.stage = stage;
        request.datagram = Some(out);
        request.due = request.patience.wait(request.n).map_or(now, |wait| now + wait);
    }
}

fn put_connect(out: &mut Vec<u8>, tid: u32) {
    out.extend_from_slice(&PROTOCOL_ID.to_be_bytes());
    out.extend_from_slice(&CONNECT.to_be_bytes());
    out.extend_from_slice(&tid.to_be_bytes());
}

fn put_announce(out: &mut Vec<u8>, connection: u64, tid: u32, announce: &Announce) {
    let event: u32 = match announce.event {
        // BEP 15 has no number for BEP 21's.
        None | Some(AnnounceEvent::Paused) => 0,
        Some(AnnounceEvent::Completed) => 1,
        Some(AnnounceEvent::Started) => 2,
        Some(AnnounceEvent::Stopped) => 3,
    };
    out.extend_from_slice(&connection.to_be_bytes());
    out.extend_from_slice(&ANNOUNCE.to_be_bytes());
    out.extend_from_slice(&tid.to_be_bytes());
    out.extend_from_slice(announce.infohash.as_bytes());
    out.extend_from_slice(&announce.peer_id);
    out.extend_from_slice(&announce.downloaded.to_be_bytes());
    out.extend_from_slice(&announce.left.unwrap_or(UNKNOWN_LEFT).to_be_bytes());
    out.extend_from_slice(&announce.uploaded.to_be_bytes());
    out.extend_from_slice(&event.to_be_bytes());
    out.extend_from_slice(&[0; 4]); // our address: as the datagram has it
    out.extend_from_slice(&announce.key.to_be_bytes());
    out.extend_from_slice(&u32::from(announce.num_want).to_be_bytes());
    out.extend_from_slice(&announce.port.to_be_bytes());
}

/// BEP 41: option 2 carries at most 255 bytes of the path; several are read as one. The end of the
/// datagram ends the options.
fn put_path(out: &mut Vec<u8>, path: &[u8]) {
    for part in path.chunks(255) {
        out.push(2);
        out.push(u8::try_from(part.len()).expect("chunks of 255"));
        out.extend_from_slice(part);
    }
}

/// The answer to an announce behind action and transaction id; `None` if it is too short.
fn parse_reply(remote: SocketAddr, body: &[u8]) -> Option<AnnounceReply> {
    let (interval, rest) = number(body)?;
    let (leechers, rest) = number(rest)?;
    let (seeds, peers) = number(rest)?;
    // BEP 15: the family of the datagram is that of the peers.
    let peers: Vec<SocketAddr> = if remote.ip().to_canonical().is_ipv4() {
        compact::peers::<V4>(peers).map(Address::to_socket).filter(has_port).take(MAX_PEERS).collect()
    } else {
        compact::peers::<V6>(peers).map(Address::to_socket).filter(has_port).take(MAX_PEERS).collect()
    };
    Some(AnnounceReply {
        interval: clamp_interval(i64::from(interval.cast_signed())),
        peers,
        seeds: Some(seeds),
        leechers: Some(leechers),
        ..AnnounceReply::default()
    })
}

fn has_port(peer: &SocketAddr) -> bool {
    peer.port() != 0
}

fn same_address(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && a.ip().to_canonical() == b.ip().to_canonical()
}

fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u32::from_be_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use krpc::Id;

    const REMOTE: &str = "1.2.3.4:6969";

    fn announce() -> Announce {
        Announce {
            infohash: Id::new([7; 20]),
            peer_id: [8; 20],
            port: 6881,
            uploaded: 1,
            downloaded: 2,
            left: Some(3),
            event: Some(AnnounceEvent::Started),
            num_want: 50,
            key: 9,
            tracker_id: None,
        }
    }

    fn tracker(path: &str) -> UdpTracker {
        UdpTracker::new(REMOTE.parse().unwrap(), path, Rng::from_seed(1))
    }

    fn reply(action: u32, tid: &[u8], rest: &[u8]) -> Vec<u8> {
        [&action.to_be_bytes()[..], tid, rest].concat()
    }

    /// Connects; returns the announce that follows.
    fn connect(tracker: &mut UdpTracker, now: Time) -> Vec<u8> {
        let request = tracker.poll_transmit().unwrap();
        assert_eq!(request[..12], *b"\0\0\x04\x17\x27\x10\x19\x80\0\0\0\0");
        assert_eq!(request.len(), 16);
        let answer = reply(CONNECT, &request[12..16], b"connect!");
        assert_eq!(tracker.handle_datagram(now, tracker.remote, &answer), None);
        tracker.poll_transmit().unwrap()
    }

    #[test]
    fn an_announce_connects_first_and_keeps_the_connection_for_a_minute() {
        let mut tracker = tracker("");
        tracker.announce(Time::ZERO, announce(), Patience::Failover);
        let request = connect(&mut tracker, Time::ZERO);
        assert_eq!(request.len(), 98);
        assert_eq!(request[..12], *b"connect!\0\0\0\x01");
        assert_eq!(request[16..56], [[7; 20], [8; 20]].concat());
        let numbers = b"\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x01\0\0\0\x02\0\0\0\0\0\0\0\x09\0\0\0\x32\x1a\xe1";
        assert_eq!(request[56..], *numbers);
        assert_eq!(tracker.poll_transmit(), None);

        let body = b"\0\0\x07\x08\0\0\0\x05\0\0\0\x06\x01\x02\x03\x04\x1a\xe1\x01\x02\x03\x04\0\0\x05\x06\x07\x08\0\x01xx";
        let answer = reply(ANNOUNCE, &request[12..16], body);
        let got = tracker.handle_datagram(Time::from_secs(1), tracker.remote, &answer).unwrap().unwrap();
        assert_eq!(got.peers, ["1.2.3.4:6881".parse().unwrap(), "5.6.7.8:1".parse().unwrap()]);
        assert_eq!((got.leechers, got.seeds, got.interval), (Some(5), Some(6), Duration::from_secs(1800)));
        assert_eq!(tracker.timeout(), Time::NEVER);

        tracker.announce(Time::from_secs(59), announce(), Patience::Failover);
        assert_eq!(tracker.poll_transmit().unwrap().len(), 98);
        tracker.announce(Time::from_secs(60), announce(), Patience::Failover);
        assert_eq!(tracker.poll_transmit().unwrap().len(), 16, "the connection id has expired");
    }

    #[test]
    fn what_is_not_the_answer_is_ignored() {
        let mut tracker = tracker("");
        tracker.announce(Time::ZERO, announce(), Patience::Failover);
        let request = connect(&mut tracker, Time::ZERO);
        let (tid, remote) = (&request[12..16], tracker.remote);
        let good = reply(ANNOUNCE, tid, &[0; 12]);
        let other = "1.2.3.5:6969".parse().unwrap();
        let other_port = "1.2.3.4:6970".parse().unwrap();
        for (from, bytes) in [
            (remote, reply(ANNOUNCE, b"abcd", &[0; 12])),
            (remote, reply(CONNECT, tid, &[0; 12])),
            (remote, reply(2, tid, &[0; 12])),
            (remote, reply(ANNOUNCE, tid, &[0; 11])),
            (remote, b"abc".to_vec()),
            (remote, Vec::new()),
            (other, good.clone()),
            (other_port, good.clone()),
        ] {
            assert_eq!(tracker.handle_datagram(Time::ZERO, from, &bytes), None, "{from} {bytes:?}");
        }
        let mapped = "[::ffff:1.2.3.4]:6969".parse().unwrap();
        assert!(matches!(tracker.handle_datagram(Time::ZERO, mapped, &good), Some(Ok(_))));
        assert_eq!(tracker.handle_datagram(Time::ZERO, remote, &good), None, "once");
    }

    #[test]
    fn an_error_ends_the_announce() {
        let mut tracker = tracker("");
        tracker.announce(Time::ZERO, announce(), Patience::Failover);
        let request = connect(&mut tracker, Time::ZERO);
        let answer = reply(ERROR, &request[12..16], b"go away\n");
        let outcome = tracker.handle_datagram(Time::ZERO, tracker.remote, &answer);
        assert_eq!(outcome, Some(Err(TrackerError::Refused { reason: "go away\\n".into(), retry: None })));
        tracker.announce(Time::ZERO, announce(), Patience::Failover);
        assert_eq!(tracker.poll_transmit().unwrap().len(), 16, "with a fresh connection id");
    }

    /// Sends to nobody; returns when which stage was transmitted, and the end.
    fn silence(tracker: &mut UdpTracker, answer_connect: bool) -> (Vec<(u64, usize)>, u64) {
        let mut sent = Vec::new();
        let mut now = Time::ZERO;
        loop {
            while let Some(datagram) = tracker.poll_transmit() {
                sent.push((now.as_secs(), datagram.len()));
                if answer_connect && datagram.len() == 16 && sent.len() == 1 {
                    let answer = reply(CONNECT, &datagram[12..], &[1; 8]);
                    assert_eq!(tracker.handle_datagram(now, tracker.remote, &answer), None);
                }
            }
            now = tracker.timeout();
            if let Some(outcome) = tracker.handle_timeout(now) {
                assert_eq!(outcome, Err(TrackerError::Timeout));
                return (sent, now.as_secs());
            }
        }
    }

    #[test]
    fn silence_is_retried_as_bep_15_says() {
        let mut tracker = tracker("");
        tracker.announce(Time::ZERO, announce(), Patience::Standard);
        let (sent, end) = silence(&mut tracker, false);
        let times: Vec<u64> = sent.iter().map(|(at, _)| *at).collect();
        assert_eq!(times, [0, 15, 45, 105, 225, 465, 945, 1905, 3825]);
        assert_eq!(end, 3825 + 3840);
        // "Announce times out": the connection id expires on the way.
        tracker.announce(Time::ZERO, announce(), Patience::Standard);
        let (sent, _) = silence(&mut tracker, true);
        assert_eq!(sent[..5], [(0, 16), (0, 98), (15, 98), (45, 98), (105, 16)]);
    }

    #[test]
    fn the_next_tracker_gets_its_chance_within_fifteen_seconds() {
        let mut tracker = tracker("");
        tracker.announce(Time::ZERO, announce(), Patience::Failover);
        let (sent, end) = silence(&mut tracker, true);
        assert_eq!(sent, [(0, 16), (0, 98), (3, 98)]);
        assert_eq!(end, 12);
    }

    #[test]
    fn the_path_goes_along_as_an_option() {
        let path = format!("/announce?k={}", "x".repeat(300));
        let mut tracker = tracker(&path);
        tracker.announce(Time::ZERO, announce(), Patience::Failover);
        let request = connect(&mut tracker, Time::ZERO);
        let options = &request[98..];
        assert_eq!(options[..2], [2, 255]);
        assert_eq!(options[2..257], path.as_bytes()[..255]);
        assert_eq!(options[257..259], [2, (path.len() - 255) as u8]);
        assert_eq!(options[259..], path.as_bytes()[255..]);
    }

    #[test]
    fn a_tracker_on_ipv6_gives_ipv6_peers() {
        let mut tracker = UdpTracker::new("[2001:db8::1]:80".parse().unwrap(), "", Rng::from_seed(1));
        tracker.announce(Time::ZERO, announce(), Patience::Failover);
        let request = connect(&mut tracker, Time::ZERO);
        let mut body = vec![0xff; 12];
        body.extend_from_slice(b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02\x1a\xe1");
        let answer = reply(ANNOUNCE, &request[12..16], &body);
        let got = tracker.handle_datagram(Time::ZERO, tracker.remote, &answer).unwrap().unwrap();
        assert_eq!(got.peers, ["[2001:db8::2]:6881".parse().unwrap()]);
        assert_eq!(got.interval, Duration::from_secs(60), "a negative interval");
        let many = [vec![0; 12], vec![1; 18 * 500]].concat();
        tracker.announce(Time::ZERO, announce(), Patience::Failover);
        let request = tracker.poll_transmit().unwrap();
        let answer = reply(ANNOUNCE, &request[12..16], &many);
        let got = tracker.handle_datagram(Time::ZERO, tracker.remote, &answer).unwrap().unwrap();
        assert_eq!(got.peers.len(), MAX_PEERS);
    }
}
