//! [`Ports`]: the sockets of one task with what goes wrong at them, and [`Turns`]: when that task lets others
//! of its thread have theirs. The node's own task and each serving shard drive their sockets by them.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::net::IpAddr;
use std::task::Poll;
use std::time::Duration;

use super::complaint::Complaint;
use super::interfaces::{Difference, answers};
use super::port::{Port, PortCounters, Source};
use super::udp::{LONGEST_LINGER, Received};
use crate::{Class, Outbox, Time};

/// Longest wait of a task: timers of the runtime stand still while the machine sleeps, ours do not.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Pause after a receive call that keeps failing.
const BROKEN_PAUSE: Duration = Duration::from_millis(100);
/// Other tasks of the thread, and what the runtime has to say of sockets and signals, wait no longer for turns
/// with work; beside one [linger](Ports::linger) that brings nothing.
const LONGEST_RUN: Duration = Duration::from_millis(8);

/// The sockets of one task, by their index.
pub(super) struct Ports {
    ports: Vec<Port>,
    /// The socket, if it was one alone, at which datagrams came when some came last.
    busy: Option<usize>,
    /// Where answers leave from that are not sent yet, in the order of the outbox.
    sources: Vec<Source>,
    /// A receive call failed since the last wait.
    is_broken: bool,
    send_complaint: Complaint,
    receive_complaint: Complaint,
    rebind_complaint: Complaint,
}

impl Ports {
    pub(super) fn new(ports: Vec<Port>, now: Time) -> Self {
        Self {
            ports,
            busy: None,
            sources: Vec::new(),
            is_broken: false,
            send_complaint: Complaint::new(now),
            receive_complaint: Complaint::new(now),
            rebind_complaint: Complaint::new(now),
        }
    }

    /// Waits until the runtime knows that they can send; see [`Port::warm_up`].
    pub(super) async fn warm_up(&self) {
        for port in &self.ports {
            if let Err(error) = port.warm_up().await {
                tracing::warn!(%error, "the runtime cannot watch a socket");
            }
        }
    }

    /// Hands on what has come for the node, with the index of its socket and the outbox for what it sends,
    /// which [`Ports::send`] wants to see next; how many datagrams.
    pub(super) fn receive(
        &mut self,
        now: Time,
        out: &mut Outbox,
        mut hand_on: impl FnMut(u8, Received<'_>, &mut Outbox),
    ) -> usize {
        let (mut received, mut busy) = (0, (0, 0));
        for (index, port) in (0..).zip(&mut self.ports) {
            let mut foreign = 0;
            match port.receive(now) {
                Ok(None) => {}
                Ok(Some(batch)) => {
                    if batch.len() > 0 {
                        busy = (busy.0 + 1, usize::from(index));
                    }
                    for datagram in batch {
                        received += 1;
                        if is_krpc(datagram.bytes) {
                            let sent = out.transmits.len();
                            hand_on(index, datagram, out);
                            note_sources(&mut self.sources, datagram.asked, sent, out);
                        } else {
                            foreign += 1;
                        }
                    }
                }
                Err(error) => {
                    self.is_broken = true;
                    self.receive_complaint.about(now, |count| {
                        tracing::warn!(%error, count, "receiving failed; going on");
                    });
                }
            }
            port.foreign(foreign);
        }
        if busy.0 > 0 {
            self.busy = (busy.0 == 1).then_some(busy.1);
        }
        received
    }

    /// Lets them [`linger`](Self::linger): for a task that has its thread to itself, or nearly so.
    pub(super) fn allow_linger(&mut self) {
        self.ports.iter_mut().for_each(Port::allow_linger);
    }

    /// Waits a moment for the next datagram, with its thread, if they come one after the other at one socket
    /// and nothing is due before; whether there are some. Others of the thread wait meanwhile, which
    /// is worth it while datagrams come: to sleep in the runtime and be woken costs more than to answer one.
    pub(super) fn linger(&mut self, now: Time, due: Time) -> bool {
        // Where something is wrong, or soon to be done, the other way to wait is the right one.
        if self.is_broken || due.since(now) <= LONGEST_LINGER {
            return false;
        }
        self.busy.and_then(|index| self.ports.get_mut(index)).is_some_and(Port::linger)
    }

    /// Has the answers among what was put into `out` since it held `sent` datagrams leave from the address
    /// that was asked.
    pub(super) fn answered(&mut self, asked: Option<IpAddr>, sent: usize, out: &Outbox) {
        note_sources(&mut self.sources, asked, sent, out);
    }

    /// Sends what `out` holds, each socket its own. It is to be cleared before it is sent again.
    pub(super) fn send(&mut self, now: Time, out: &Outbox) {
        for port in &mut self.ports {
            if let Some(error) = port.send(now, out, &self.sources) {
                self.send_complaint.about(now, |count| {
                    tracing::debug!(%error, count, "datagrams were refused by the system");
                });
            }
        }
        self.sources.clear();
    }

    /// Binds what is broken anew; `mended` hears of each success.
    pub(super) fn repair(&mut self, now: Time, mut mended: impl FnMut(u8)) {
        for (index, port) in (0..).zip(&mut self.ports) {
            match port.repair(now) {
                None => {}
                Some(Ok(())) => {
                    tracing::info!(local = %port.local(), "a broken socket was bound anew");
                    mended(index);
                }
                Some(Err(error)) => self.rebind_complaint.about(now, |count| {
                    tracing::warn!(local = %port.local(), %error, count, "a socket could not be bound anew; trying on");
                }),
            }
        }
    }

    /// Has each socket answer as it should where the machine has the addresses `present`.
    pub(super) fn answer_at(&mut self, present: &BTreeSet<IpAddr>) {
        for port in &mut self.ports {
            let answers = answers(port.local(), present);
            if let Err(error) = port.set_answers(answers) {
                tracing::warn!(local = %port.local(), %error, "answers may leave from another address than asked");
            }
        }
    }

    /// Binds the sockets anew whose address was away, and has all answer as they should now.
    pub(super) fn interfaces_changed(&mut self, now: Time, difference: &Difference) {
        for port in &mut self.ports {
            if difference.came_back(port.local())
                && let Err(error) = port.rebind(now)
            {
                tracing::warn!(local = %port.local(), %error, "a socket could not be bound anew; trying on");
            }
        }
        self.answer_at(&difference.present);
    }

    /// Whether a receive call failed since the last wait. It pauses then: the socket stays ready with its
    /// error, and without a pause its task would spin.
    pub(super) async fn paused(&mut self) -> bool {
        let is_broken = std::mem::take(&mut self.is_broken);
        if is_broken {
            tokio::time::sleep(BROKEN_PAUSE).await;
        }
        is_broken
    }

    /// Waits until one of them is ready. Cancel safe.
    pub(super) async fn ready(&self) {
        poll_fn(|cx| {
            // Every port is asked, so that each will wake this task.
            let ready = self.ports.iter().filter(|port| port.poll_ready(cx).is_ready()).count();
            if ready > 0 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// When [`Ports::send`] wants to be called for what is on an emulated line.
    pub(super) fn due(&self) -> Time {
        self.ports.iter().map(Port::due).min().unwrap_or(Time::NEVER)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Port> {
        self.ports.iter()
    }

    pub(super) fn counters(&self) -> impl Iterator<Item = PortCounters> {
        self.ports.iter().map(Port::counters)
    }
}

/// Notes that the answers in `out` from `sent` on leave from `asked`. Our own questions leave from where the
/// system chooses: so they all show one address, by which others know us.
fn note_sources(sources: &mut Vec<Source>, asked: Option<IpAddr>, sent: usize, out: &Outbox) {
    let Some(ip) = asked else { return };
    let fresh = out.transmits.iter().enumerate().skip(sent);
    let answers = fresh.filter(|(_, transmit)| transmit.class == Class::Reply);
    sources.extend(answers.map(|(nth, _)| Source { nth, ip }));
}

/// When the turns with work began that others of the thread have been waiting for.
#[derive(Default)]
pub(super) struct Turns(Option<Time>);

impl Turns {
    /// Until when turns may go on after one that begins no later than `now`.
    pub(super) fn end(&mut self, now: Time) -> Time {
        *self.0.get_or_insert(now) + LONGEST_RUN
    }

    /// After a turn: whether the task is to wait. If it has worked for long, others get their turns first.
    pub(super) async fn are_over(&mut self, worked: bool, now: Time) -> bool {
        if !worked {
            self.0 = None;
        } else if now.since(*self.0.get_or_insert(now)) >= LONGEST_RUN {
            self.0 = None;
            tokio::task::yield_now().await;
        }
        !worked
    }
}

/// Whether a datagram is for the node. A KRPC message is a dictionary; the port is shared with other
/// protocols whose first byte is never `d`: uTP's is version and type (BEP 29: 0x01 to 0x41), the
/// UDP tracker's is the first of an action below 4 (BEP 15).
fn is_krpc(bytes: &[u8]) -> bool {
    bytes.first() == Some(&b'd')
}

#[cfg(test)]
mod tests;
