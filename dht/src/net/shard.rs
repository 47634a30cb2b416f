//! The drive loop: one task that owns one [`crate::Node`], its sockets and its saved state.
//!
//! A turn reads the clock once, receives a batch from each socket, hands it on, runs what is due,
//! takes a few requests, sends everything in batches and delivers the events. Then it waits for a
//! socket, a request or the node's next deadline, whichever comes first. No protocol lives here.

mod request;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use krpc::Id;
use tokio::sync::{mpsc, oneshot, watch};

use super::complaint::Complaint;
use super::heartbeat::Heartbeat;
use super::interfaces::Difference;
use super::keeper::StateKeeper;
use super::persist::{Saved, SavedHome};
use super::port::PortCounters;
use super::ports::{Ports, Turns};
use super::resolve::Condition;
use super::satellites::Satellites;
use super::station::Handed;
use super::subscribers::Subscribers;
use super::{Clock, Error};
use crate::replay::Recorded;
use crate::{Command, Event, LookupId, NetworkChange, Node, Outbox, Time};

pub(super) use self::request::{Request, Sink};
pub use self::request::{SocketStats, Stats};

/// Requests taken in one turn.
const REQUESTS_PER_TURN: usize = 32;
/// What serving shards handed over that is taken in one turn.
const CROSSINGS_PER_TURN: usize = 256;
/// A node that has met nobody after this says so.
const LONELY_AFTER: Duration = Duration::from_secs(10);

/// The task's state.
pub(super) struct Shard {
    pub(super) node: Recorded,
    pub(super) clock: Clock,
    pub(super) ports: Ports,
    /// The shards that serve beside this one.
    pub(super) satellites: Satellites,
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) bootstrapped: watch::Sender<Option<usize>>,
    /// Whether there is somebody to ask: an address of a router, a saved node.
    pub(super) ready: watch::Sender<bool>,
    /// Our ids, one per socket.
    pub(super) ids: watch::Sender<Vec<Id>>,
    pub(super) state: Option<StateKeeper>,
    pub(super) heartbeat: Heartbeat,
    /// See [`crate::Config::asleep_after`]. The node notices longer delays of what is due by itself.
    pub(super) asleep_after: Duration,
    /// What an earlier run left of addresses that this one does not have.
    pub(super) absent: Vec<SavedHome>,
    /// Whether anybody was named to bootstrap from.
    pub(super) has_routers: bool,
    /// What whoever resolves the routers' names has to know.
    pub(super) condition: watch::Sender<Condition>,
}

/// Everything that a running task changes besides the shard's parts.
struct Running {
    out: Outbox,
    sinks: BTreeMap<LookupId, Sink>,
    subscribers: Subscribers,
    /// The node tells announces, because somebody wants to hear of them.
    tells_announces: bool,
    started: Time,
    events_missed: u64,
    lonely_complaint: Complaint,
    /// Whether the network of all sockets works, as far as was said.
    online: bool,
    /// It has not bootstrapped yet.
    is_starting: bool,
    /// What was said of that last in [`Condition`].
    is_lonely: bool,
    /// Ends a wait at `alarm_at`, at the latest when something is due.
    alarm: Pin<Box<tokio::time::Sleep>>,
    alarm_at: Time,
    finished: Option<Finish>,
}

/// Why the task ends.
enum Finish {
    /// Nobody holds a handle any more.
    Abandoned,
    /// Somebody asked, and waits.
    Asked(oneshot::Sender<Result<(), Error>>),
}

impl Shard {
    /// Runs until asked to stop or abandoned.
    pub(super) async fn run(mut self) {
        self.ports.warm_up().await;
        let mut running = self.begin();
        let mut turns = Turns::default();
        let finish = loop {
            let worked = self.turn(&mut running);
            if let Some(finish) = running.finished.take() {
                break finish;
            }
            let now = self.clock.now();
            let is_busy = worked || self.linger(now, turns.end(now), &mut running);
            if turns.are_over(is_busy, self.clock.now()).await {
                self.wait(&mut running).await;
            }
        };
        let saved = self.finish().await;
        match finish {
            Finish::Asked(reply) => drop(reply.send(saved)),
            Finish::Abandoned => {
                if let Err(error) = saved {
                    tracing::warn!(%error, "state was not saved");
                }
            }
        }
    }

    fn begin(&self) -> Running {
        let started = self.clock.now();
        let is_starting = self.bootstrapped.borrow().is_none();
        Running {
            out: Outbox::new(),
            sinks: BTreeMap::new(),
            subscribers: Subscribers::default(),
            tells_announces: false,
            started,
            events_missed: 0,
            lonely_complaint: Complaint::new(started + LONELY_AFTER),
            online: true,
            is_starting,
            is_lonely: is_starting,
            alarm: Box::pin(tokio::time::sleep(self.heartbeat.longest_wait())),
            alarm_at: started + self.heartbeat.longest_wait(),
            finished: None,
        }
    }

    /// Does what there is to do, bounded; whether it was anything.
    fn turn(&mut self, running: &mut Running) -> bool {
        let now = self.clock.now();
        // Who asked waits; the rest of the turn concerns nobody else.
        let received = self.answer(now, running);
        // One alone was all there was, and the next one is waited for.
        let mut worked = received > 1;
        worked |= self.take_crossings(now, running);
        if self.node.timeout() <= now {
            worked = true;
            self.node.handle_timeout(now, &mut running.out);
        }
        for _ in 0..REQUESTS_PER_TURN {
            match self.requests.try_recv() {
                Ok(request) => self.request(now, request, running),
                Err(mpsc::error::TryRecvError::Empty) => break,
                Err(mpsc::error::TryRecvError::Disconnected) => {
                    running.finished.get_or_insert(Finish::Abandoned);
                    break;
                }
            }
            worked = true;
        }
        worked |= self.housekeeping(now, running);
        self.flush(now, running);
        worked
    }

    /// Gives the node what has come, and sends what it says to that; how many datagrams.
    fn answer(&mut self, now: Time, running: &mut Running) -> usize {
        self.notice_stop(now, running);
        let node = &mut self.node;
        let received = self.ports.receive(now, &mut running.out, |index, datagram, out| {
            node.handle_datagram(now, index, datagram.from, datagram.bytes, out);
        });
        if received > 0 {
            self.flush(now, running);
        }
        received
    }

    /// Answers datagrams that come one after the other, until `end` at most, with nothing else in between: the rest of
    /// a turn is mostly nothing, and not free. Whether a turn is to follow at once.
    fn linger(&mut self, mut now: Time, end: Time, running: &mut Running) -> bool {
        let mut worked = false;
        while self.ports.linger(now, self.due()) {
            worked = true;
            now = self.clock.now();
            if now >= end || self.node.timeout() <= now || self.answer(now, running) != 1 {
                break;
            }
        }
        worked
    }

    /// A machine that was suspended wakes up to another network, most often; a process that was stopped may.
    /// Called before the node is given anything at another time: it notices longer delays by itself, and
    /// whatever was due is not late any more then.
    fn notice_stop(&mut self, now: Time, running: &mut Running) {
        let is_noticed_anyway = now.since(self.node.timeout()) > self.asleep_after;
        if !self.heartbeat.beat(now) || is_noticed_anyway {
            return;
        }
        for (index, _) in (0..).zip(self.ports.iter()) {
            self.node.handle_network(now, index, NetworkChange::Changed, &mut running.out);
        }
        // What was asked long before is over, whatever has come meanwhile and waits in the sockets.
        self.node.handle_timeout(now, &mut running.out);
    }

    /// Takes what serving shards handed over.
    fn take_crossings(&mut self, now: Time, running: &mut Running) -> bool {
        for taken in 0..CROSSINGS_PER_TURN {
            let Some(handed) = self.satellites.try_next() else { return taken > 0 };
            self.take_crossing(now, handed, running);
        }
        true
    }

    fn take_crossing(&mut self, now: Time, handed: Handed, running: &mut Running) {
        let sent = running.out.transmits.len();
        self.node.handle_crossing(now, handed.crossing, &mut running.out);
        self.ports.answered(handed.asked, sent, &running.out);
    }

    fn request(&mut self, now: Time, request: Request, running: &mut Running) {
        match request {
            Request::Start { command, sink } => {
                if let Some(lookup) = self.node.handle_command(now, command, &mut running.out) {
                    running.sinks.insert(lookup, sink);
                }
            }
            Request::Tell(command) => {
                let somebody = matches!(&command, Command::Routers(routers) if !routers.is_empty());
                self.node.handle_command(now, command, &mut running.out);
                if somebody {
                    self.ready.send_replace(true);
                }
            }
            Request::Cancel(ticket) => {
                let named = running.sinks.iter().find(|(_, sink)| sink.ticket == ticket);
                if let Some(lookup) = named.map(|(lookup, _)| *lookup) {
                    self.node.handle_command(now, Command::Cancel(lookup), &mut running.out);
                }
            }
            Request::Interfaces(difference) => self.interfaces_changed(now, &difference, running),
            // Whoever asked may have gone; the same holds for every answer here.
            Request::Stats(reply) => {
                self.flush(now, running);
                drop(reply.send(self.stats(now, running)));
            }
            Request::Closest(target, count, reply) => {
                drop(reply.send(self.node.closest(&target, count)));
            }
            Request::Table(reply) => drop(reply.send(self.node.table(now))),
            Request::Subscribe(subscriber) => {
                running.subscribers.add(subscriber);
            }
            Request::Shutdown(reply) => running.finished = Some(Finish::Asked(reply)),
        }
    }

    /// Sockets whose address was away are bound anew, and the node hears of what concerns it.
    fn interfaces_changed(&mut self, now: Time, difference: &Difference, running: &mut Running) {
        tracing::debug!(?difference, "the interfaces have changed");
        // It may be read first after a stop, which the node notices by what was due, for all homes; a change is
        // told to one, and what was due before it is forgotten. No other request tells the node
        // anything but by a command, which looks at the time itself.
        if self.node.timeout() <= now {
            self.node.handle_timeout(now, &mut running.out);
        }
        self.satellites.interfaces_changed(difference);
        self.ports.interfaces_changed(now, difference);
        for (index, port) in (0..).zip(self.ports.iter()) {
            if let Some(change) = difference.meaning(port.local()) {
                self.node.handle_network(now, index, change, &mut running.out);
            }
        }
    }

    /// Sends and delivers what the node produced. Delivering may find that a reader has gone, which
    /// makes the node produce more; it ends because each lookup is cancelled once.
    fn flush(&mut self, now: Time, running: &mut Running) {
        loop {
            self.ports.send(now, &running.out);
            running.out.bytes.clear();
            running.out.transmits.clear();
            let mut abandoned = Vec::new();
            for event in std::mem::take(&mut running.out.events) {
                if let Some(lookup) = self.deliver(event, running) {
                    abandoned.push(lookup);
                }
            }
            if abandoned.is_empty() {
                return;
            }
            for lookup in abandoned {
                self.node.handle_command(now, Command::Cancel(lookup), &mut running.out);
            }
        }
    }

    /// Passes one event on; the lookup whose reader has gone, if it has. A reader that is too slow
    /// misses events, but never the last one.
    fn deliver(&mut self, event: Event, running: &mut Running) -> Option<LookupId> {
        let Some(lookup) = event.lookup() else {
            self.announce(event, running);
            return None;
        };
        if event.is_last() {
            if let Some(sink) = running.sinks.remove(&lookup) {
                sink.last.send(event);
            }
            return None;
        }
        match running.sinks.get(&lookup)?.events.try_send(event) {
            Ok(()) => None,
            Err(mpsc::error::TrySendError::Full(_)) => {
                running.events_missed += 1;
                None
            }
            Err(mpsc::error::TrySendError::Closed(_)) => running.sinks.remove(&lookup).map(|_| lookup),
        }
    }

    /// Passes on what concerns the whole node.
    fn announce(&mut self, event: Event, running: &mut Running) {
        if let Event::Bootstrapped { nodes } = event {
            self.bootstrapped.send_replace(Some(nodes));
            running.is_starting = false;
        }
        if let Event::ExternalAddress { home, addr, id, .. } = event {
            tracing::debug!(home, %addr, %id, "other nodes agree on our address");
            self.ids.send_modify(|ids| ids[home] = id);
        }
        if event.is_move() {
            self.condition.send_modify(|condition| condition.changes += 1);
        }
        running.subscribers.tell(&event);
    }

    /// What is done now and then; whether there is more to do at once.
    fn housekeeping(&mut self, now: Time, running: &mut Running) -> bool {
        let wanted = running.subscribers.want_announces();
        if std::mem::replace(&mut running.tells_announces, wanted) != wanted {
            self.node.handle_command(now, Command::TellAnnounces(wanted), &mut running.out);
        }
        if self.has_routers && self.bootstrapped.borrow().is_none() && running.lonely_complaint.is_due(now) {
            running.lonely_complaint.about(now, |_| {
                tracing::warn!(
                    "not bootstrapped yet: no router has answered, or none knows anybody else; trying on"
                );
            });
        }
        let online = (0..).zip(self.ports.iter()).all(|(index, _)| self.node.is_online(index));
        if online != std::mem::replace(&mut running.online, online) {
            if online {
                tracing::info!("the network is back");
            } else {
                tracing::info!("nobody answers any more: is the network down?");
            }
        }
        // The names of routers are worth another look as long as no home reaches anybody.
        let anybody = (0..).zip(self.ports.iter()).any(|(index, _)| self.node.is_online(index));
        let is_lonely = running.is_starting || !anybody;
        if is_lonely != std::mem::replace(&mut running.is_lonely, is_lonely) {
            self.condition.send_modify(|condition| condition.is_lonely = is_lonely);
        }
        self.satellites.notice_lost();
        let (node, out) = (&mut self.node, &mut running.out);
        self.ports.repair(now, |index| node.handle_network(now, index, NetworkChange::Changed, out));
        let Some(state) = &mut self.state else { return false };
        state.work(now, &self.node, || saved(&self.node, &self.ports, &self.absent, now))
    }

    /// Waits until there is something to do.
    async fn wait(&mut self, running: &mut Running) {
        if self.ports.paused().await {
            return;
        }
        let due = self.due();
        // One timer for many waits: it is set anew for an earlier deadline only, or once it has rung.
        if due < running.alarm_at || running.alarm.is_elapsed() {
            let now = self.clock.now();
            let pause = due.since(now).min(self.heartbeat.longest_wait());
            running.alarm.as_mut().reset(tokio::time::Instant::now() + pause);
            running.alarm_at = now + pause;
        }
        // In this order, because to draw one takes longer than to ask; a turn looks at all of them anyway.
        tokio::select! {
            biased;
            () = self.ports.ready() => {}
            () = running.alarm.as_mut() => {}
            handed = self.satellites.next() => {
                let now = self.clock.now();
                self.notice_stop(now, running);
                self.take_crossing(now, handed, running);
            }
            request = self.requests.recv() => {
                let now = self.clock.now();
                self.notice_stop(now, running);
                match request {
                    Some(request) => self.request(now, request, running),
                    None => running.finished = Some(Finish::Abandoned),
                }
            }
        }
    }

    /// When something is to be done even if nothing comes.
    fn due(&self) -> Time {
        let save_due = self.state.as_ref().map_or(Time::NEVER, StateKeeper::due);
        self.node.timeout().min(save_due).min(self.ports.due())
    }

    /// Ends the other shards and saves for the last time.
    async fn finish(&mut self) -> Result<(), Error> {
        self.satellites.stop().await;
        match self.state.take() {
            Some(state) => {
                let now = self.clock.now();
                let saved = saved(&self.node, &self.ports, &self.absent, now);
                state.finish(now, self.node.kept(), saved).await
            }
            None => Ok(()),
        }
    }

    fn stats(&self, now: Time, running: &Running) -> Stats {
        let homes = self.node.stats(now).into_iter();
        let mut counters = self.node.counters();
        let mut ports: Vec<PortCounters> = self.ports.counters().collect();
        self.satellites.add_counters(&mut counters, &mut ports);
        let sockets = homes.zip(ports).map(|(home, counters)| SocketStats { home, counters });
        Stats {
            counters,
            sockets: sockets.collect(),
            shards: std::iter::once(self.node.counters()).chain(self.satellites.counters()).collect(),
            buckets: self.node.buckets(now),
            running: running.sinks.len(),
            events_missed: running.events_missed,
            state: self.state.as_ref().map(StateKeeper::stats).unwrap_or_default(),
            uptime: now.since(running.started),
        }
    }
}

/// What is kept of the tables between runs: those of this one, and of addresses that are not in use now.
fn saved(node: &Node, ports: &Ports, absent: &[SavedHome], now: Time) -> Saved {
    let homes = node.saved(now).into_iter().zip(ports.iter());
    let homes = homes.map(|(home, port)| SavedHome {
        id: home.id,
        ipv6: port.is_ipv6(),
        local: Some(port.local()),
        external: home.external,
        nodes: home.nodes,
    });
    Saved::of(homes.collect(), absent)
}
