//! Outgoing TCP connections: within a cap on half-open ones and on how many begin in a second, given up after
//! [`DIAL_TIMEOUT`].

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use btdht::Time;
use btdht::net::Clock;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;

/// A connection that is not open after this will not be.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections being opened by a session at once. Home routers and firewalls dislike more.
const HALF_OPEN: usize = 64;
/// Time from one to the next, however many torrents there are: 50 a second. Each is an entry in the tables of
/// the same routers, for minutes, also where it is refused at once.
const GAP: Duration = Duration::from_millis(20);
/// So many may begin together after a pause.
const BURST: u32 = 50;

/// What all connections that a session opens share.
#[derive(Debug)]
pub(super) struct Dials {
    half_open: Semaphore,
    pace: Mutex<Pace>,
}

/// How far dials are ahead of one each [`GAP`].
#[derive(Debug, Default)]
struct Pace {
    ahead: Duration,
    at: Time,
}

impl Default for Dials {
    fn default() -> Self {
        Self { half_open: Semaphore::new(HALF_OPEN), pace: Mutex::default() }
    }
}

impl Dials {
    /// Opens a connection from `source`, or from any address of ours, after waiting for a place among the half-open
    /// ones and for its turn.
    pub(super) async fn dial(
        &self,
        clock: &Clock,
        source: Option<SocketAddr>,
        addr: SocketAddr,
    ) -> io::Result<TcpStream> {
        let _place = self.half_open.acquire().await.map_err(io::Error::other)?;
        // With a place, so that few are in front of it.
        let wait = self.book(clock.now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(source) = source {
            socket.bind(source)?;
        }
        match tokio::time::timeout(DIAL_TIMEOUT, socket.connect(addr)).await {
            Ok(connected) => connected,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    fn book(&self, now: Time) -> Duration {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner).book(now)
    }
}

impl Pace {
    /// One more dial: how long it has to wait.
    fn book(&mut self, now: Time) -> Duration {
        self.ahead = self.ahead.saturating_sub(now.since(self.at));
        self.at = now.max(self.at);
        let wait = (self.ahead + GAP).saturating_sub(GAP * BURST);
        self.ahead += GAP;
        wait
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_dial_waits_for_a_place_among_the_half_open_ones_and_only_then_for_its_turn() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (dials, clock) = (Dials::default(), Clock::start());
        let others = dials.half_open.acquire_many(HALF_OPEN as u32).await.unwrap();
        let mut dial = Box::pin(dials.dial(&clock, None, listener.local_addr().unwrap()));
        for _ in 0..9 {
            assert!((&mut dial).now_or_never().is_none());
        }
        assert_eq!(dials.pace.lock().unwrap().ahead, Duration::ZERO, "no turn is booked without a place");
        drop(others);
        let (opened, accepted) = tokio::join!(dial, listener.accept());
        assert_eq!(opened.unwrap().local_addr().unwrap(), accepted.unwrap().1);
        assert_eq!(dials.half_open.available_permits(), HALF_OPEN);
    }

    /// P2. A host whose queue of connections is full says nothing to whoever comes next, like one that is gone.
    #[tokio::test(start_paused = true)]
    async fn a_dial_that_nobody_answers_ends_after_ten_seconds() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let addr = listener.local_addr().unwrap();
        let connect = || std::net::TcpStream::connect_timeout(&addr, Duration::from_millis(50)).ok();
        let queue: Vec<_> = std::iter::from_fn(connect).take(100).collect();
        assert!(queue.len() < 100, "the queue is never full");
        let (dials, clock, begin) = (Dials::default(), Clock::start(), tokio::time::Instant::now());
        let error = dials.dial(&clock, None, addr).await.unwrap_err();
        assert_eq!((error.kind(), begin.elapsed()), (io::ErrorKind::TimedOut, Duration::from_secs(10)));
        assert_eq!(dials.half_open.available_permits(), HALF_OPEN);
    }

    #[test]
    fn dials_of_all_torrents_come_one_behind_the_other_after_a_burst() {
        let mut pace = Pace::default();
        let mut book = |now, count: u32| -> Vec<_> {
            (0..count).map(|_| pace.book(Time::from_millis(now)).as_millis()).collect()
        };
        let mut expected = vec![0; BURST as usize];
        expected.extend([20, 40, 60, 80]);
        assert_eq!(book(5, BURST + 4), expected);
        assert_eq!(book(95, 2), [10, 30]);
        assert_eq!(book(4, 1), [50], "whoever looked at the clock before others did");
        assert_eq!(book(2000, BURST + 1), [&[0; BURST as usize][..], &[20]].concat());
    }
}
