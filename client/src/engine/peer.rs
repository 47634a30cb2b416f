//! The task of one connection: bytes between a TCP socket and a [`PeerConn`], events in batches to the
//! torrent, commands from it. What bytes mean is decided in `PeerConn`.
//!
//! The task reads while the torrent takes its events and the session's rate allows; it always takes
//! commands, so the torrent never waits for a connection. How much can be on its way to the disk is
//! bounded by what the swarm asks for.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use btdht::Time;
use futures_util::FutureExt as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

use super::inbound::Inbound;
use super::shared::Shared;
use super::throttle::Lanes;
use crate::peer::{Held, PeerCommand, PeerConn, PeerEvent};
use crate::piece::Slot;

/// Reads of one turn, of up to 256 KiB each; a faster peer waits for its next turn.
const READS_PER_TURN: usize = 4;
/// Writes of one turn.
const WRITES_PER_TURN: usize = 8;
/// Commands taken in one turn.
const COMMANDS_PER_TURN: usize = 256;
/// A batch of events that is this long is sent before more is read.
const BATCH: usize = 256;
/// Bytes that the kernel takes before the network has carried earlier ones.
#[cfg(any(target_os = "android", target_os = "linux"))]
const MAX_UNSENT: u32 = 256 << 10;
/// The timer is looked at again after this, whatever the connection says.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// What a connection's task owns.
pub(super) struct Connection {
    pub(super) slot: Slot,
    pub(super) conn: PeerConn,
    pub(super) stream: TcpStream,
    pub(super) commands: mpsc::Receiver<PeerCommand>,
    pub(super) torrent: mpsc::Sender<Inbound>,
    pub(super) session: Arc<Shared>,
    pub(super) lanes: Lanes,
}

/// What a turn has left to be waited for.
#[derive(Default)]
struct Turn {
    /// The rate allows reading again then.
    read_at: Option<Time>,
    /// The rate allows writing again then.
    write_at: Option<Time>,
    /// The connection wants no bytes now.
    read_closed: bool,
    /// The socket has to be asked whether it takes more.
    write_blocked: bool,
    /// There may be more to read at once.
    read_cut_off: bool,
}

impl Connection {
    /// Runs until the connection or the torrent is over. The last event is always
    /// [`PeerEvent::Closed`], unless the torrent has gone first.
    pub(super) async fn run(mut self) {
        // Requests and keep-alives are small and must not wait for the answer to earlier bytes.
        let _ = self.stream.set_nodelay(true);
        bound_unsent(&self.stream);
        let mut batch = Vec::new();
        let timer = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(timer);
        loop {
            let turn = self.turn(&mut batch);
            if self.conn.is_closed() {
                let _ = self.torrent.send(Inbound::Peer(self.slot, batch)).await;
                return;
            }
            if !batch.is_empty()
                && let Ok(permit) = self.torrent.try_reserve()
            {
                permit.send(Inbound::Peer(self.slot, std::mem::take(&mut batch)));
            }
            if turn.read_cut_off {
                // A peer that sends without end must not keep the thread from the torrent's owner and
                // from other peers: the budget of the runtime counts turns, not how long they take.
                tokio::task::yield_now().await;
            }
            self.arm(timer.as_mut(), &turn);
            let stands_in_line = turn.read_at.is_some() || turn.write_at.is_some();
            let may_read = batch.len() < BATCH && turn.read_at.is_none() && !turn.read_closed;
            tokio::select! {
                permit = self.torrent.reserve(), if !batch.is_empty() => match permit {
                    Ok(permit) => permit.send(Inbound::Peer(self.slot, std::mem::take(&mut batch))),
                    Err(_) => return,
                },
                command = self.commands.recv() => match command {
                    Some(command) => self.conn.command(self.session.clock.now(), command, &mut batch),
                    None => return,
                },
                _ = self.stream.readable(), if may_read => {}
                _ = self.stream.writable(), if turn.write_blocked => {}
                () = self.lanes.woken(), if stands_in_line => {}
                () = timer.as_mut() => {}
            }
        }
    }

    /// Does what can be done without waiting.
    fn turn(&mut self, batch: &mut Vec<PeerEvent>) -> Turn {
        let now = self.session.clock.now();
        let mut turn = Turn::default();
        for _ in 0..COMMANDS_PER_TURN {
            match self.commands.try_recv() {
                Ok(command) => self.conn.command(now, command, batch),
                Err(_) => break,
            }
        }
        if self.conn.timeout() <= now {
            self.conn.handle_timeout(now, batch);
        }
        self.read(now, batch, &mut turn);
        #[cfg(test)]
        fault::trip(batch);
        if turn.read_at.is_none() {
            self.lanes.down.pass();
        }
        self.write(now, batch, &mut turn);
        if turn.write_at.is_none() {
            self.lanes.up.pass();
        }
        let sending = turn.write_at.is_some();
        // It may be read no further because of what we do not send.
        let receiving = turn.read_at.is_some() || turn.read_closed && sending;
        self.conn.held(now, Held { receiving, sending });
        turn
    }

    fn read(&mut self, now: Time, batch: &mut Vec<PeerEvent>, turn: &mut Turn) {
        for _ in 0..READS_PER_TURN {
            // Only who has something to read stands in line.
            let down = &mut self.lanes.down;
            if batch.len() >= BATCH || down.is_limited() && self.stream.readable().now_or_never().is_none() {
                return;
            }
            // A handshake is waited for by a clock, and stands in no line.
            let greeting = self.conn.greeting_len();
            let ahead = greeting > 0 && down.is_limited() && down.pass_ahead(now, greeting, true);
            let most = match if ahead { Ok(greeting) } else { down.ask(now) } {
                Ok(most) => most,
                Err(at) => return turn.read_at = Some(at),
            };
            // With a limit, not more than the share.
            let mut space = self.conn.space_within(most);
            if space.is_empty() {
                drop(space);
                if ahead {
                    self.lanes.down.refund_ahead(greeting);
                }
                turn.read_closed = true;
                return;
            }
            let read = self.stream.try_read_vectored(&mut space);
            drop(space);
            if ahead {
                self.lanes.down.refund_ahead(greeting - read.as_ref().map_or(0, |&n| n.min(greeting)));
            }
            match read {
                Ok(0) => return self.conn.disconnected(batch),
                Ok(n) => {
                    if !ahead {
                        self.lanes.down.spend(now, n);
                        #[cfg(test)]
                        meter::note(self.session.port, meter::Way::Down, now, n);
                    }
                    self.conn.received(now, n, batch);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.conn.disconnected(batch),
            }
        }
        turn.read_cut_off = true;
    }

    fn write(&mut self, now: Time, batch: &mut Vec<PeerEvent>, turn: &mut Turn) {
        for _ in 0..WRITES_PER_TURN {
            let slices = self.conn.pending();
            if slices.is_empty() {
                return;
            }
            let up = &mut self.lanes.up;
            if up.is_limited() && self.stream.writable().now_or_never().is_none() {
                return turn.write_blocked = true;
            }
            // So do small messages: what they cause is worth more than they cost.
            let small = self.conn.small_len();
            let ahead = small > 0 && up.is_limited() && up.pass_ahead(now, small, self.conn.is_ungreeted());
            let most = match if ahead { Ok(small) } else { up.ask(now) } {
                Ok(most) => most,
                Err(at) => return turn.write_at = Some(at),
            };
            let written = match slices.first() {
                // With a limit, one slice and not more than the share.
                Some(first) if most < usize::MAX => self.stream.try_write(first.get(..most).unwrap_or(first)),
                _ => self.stream.try_write_vectored(&slices),
            };
            drop(slices);
            if ahead {
                self.lanes.up.refund_ahead(small - written.as_ref().map_or(0, |&n| n.min(small)));
            }
            match written {
                Ok(0) => return self.conn.disconnected(batch),
                Ok(n) => {
                    if !ahead {
                        self.lanes.up.spend(now, n);
                        #[cfg(test)]
                        meter::note(self.session.port, meter::Way::Up, now, n);
                    }
                    self.conn.wrote(now, n, batch);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    turn.write_blocked = true;
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.conn.disconnected(batch),
            }
        }
        turn.write_blocked = true;
    }

    fn arm(&self, timer: Pin<&mut Sleep>, turn: &Turn) {
        let now = self.session.clock.now();
        let mut due = self.conn.timeout();
        for at in [turn.read_at, turn.write_at].into_iter().flatten() {
            due = due.min(at);
        }
        timer.reset(Instant::now() + due.since(now).min(LONGEST_SLEEP));
    }
}

/// Lets blocks wait here instead of in the kernel, which would take 4 MiB of them for a peer that reads
/// nothing: here they count, can be cancelled, and show that the peer has stalled. What is on its way
/// is not limited by this, so a fast peer gets as much as before.
fn bound_unsent(stream: &TcpStream) {
    #[cfg(any(target_os = "android", target_os = "linux"))]
    let _ = socket2::SockRef::from(stream).set_tcp_notsent_lowat(MAX_UNSENT);
    #[cfg(not(any(target_os = "android", target_os = "linux")))]
    let _ = stream;
}

/// Panics on order, as bugs would.
#[cfg(test)]
pub(super) mod fault {
    use std::cell::Cell;

    use crate::peer::PeerEvent;

    thread_local! {
        /// On the thread of one test, which runs all its tasks.
        static LEFT: Cell<u32> = const { Cell::new(0) };
    }

    /// So many of the next connections panic when they have something to tell.
    pub(in crate::engine) fn order(panics: u32) {
        LEFT.set(panics);
    }

    /// How many panics are still to come.
    pub(in crate::engine) fn left() -> u32 {
        LEFT.get()
    }

    pub(super) fn trip(batch: &[PeerEvent]) {
        if !batch.is_empty() && LEFT.get() > 0 {
            LEFT.set(LEFT.get() - 1);
            panic!("injected");
        }
    }
}

/// What went through sockets, but for what passes ahead of lines.
#[cfg(test)]
pub(super) mod meter {
    use std::cell::RefCell;

    use btdht::Time;

    /// Out of or into a socket.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(in crate::engine) enum Way {
        Down,
        Up,
    }

    thread_local! {
        /// On the thread of one test, which runs all its tasks.
        static NOTES: RefCell<Vec<(u16, Way, Time, usize)>> = const { RefCell::new(Vec::new()) };
    }

    pub(super) fn note(port: u16, way: Way, now: Time, bytes: usize) {
        NOTES.with_borrow_mut(|notes| notes.push((port, way, now, bytes)));
    }

    /// When the session that listens on `port` moved how many bytes.
    pub(in crate::engine) fn moved(port: u16, way: Way) -> Vec<(Time, usize)> {
        NOTES.with_borrow(|notes| {
            let own = notes.iter().filter(|note| (note.0, note.1) == (port, way));
            own.map(|&(_, _, at, bytes)| (at, bytes)).collect()
        })
    }
}
