//! Connections between hosts: how they come about, what is said on them, and who gets how much of the lines.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use btdht::Time;

use super::{EPHEMERAL, World, addr};
use crate::peer::{PeerCommand, PeerEvent};
use crate::piece::{BlockRef, PieceIndex, Slot};
use crate::sim::STEP;
use crate::sim::fluid::Flow;
use crate::sim::host::{Kind, Later, Leaves, Side};
use crate::sim::line::{End, Note, PARTS};
use crate::swarm::Input;

impl World {
    pub(super) fn dial(&mut self, host: u32, slot: Slot, to: SocketAddr) {
        self.hosts[host as usize].set_side(slot, Some(Side::Dialing));
        let Some(target) = self.host_at(to) else {
            return self.later(host, self.now + STEP, Later::Refused(slot));
        };
        // SYN, its answer, and the handshake.
        let at = self.now + self.latency(host, target) * 3;
        self.later(target, at, Later::Knock(host, slot));
    }

    pub(super) fn knock(&mut self, host: u32, from: u32, theirs: Slot) {
        if self.hosts[from as usize].side(theirs) != Some(Side::Dialing) {
            return; // given up or gone meanwhile
        }
        let latency = self.latency(host, from);
        let remote = addr(from, EPHEMERAL);
        let Some(swarm) = &mut self.hosts[host as usize].swarm else {
            return self.later(from, self.now + latency, Later::Refused(theirs));
        };
        let Some(ours) = swarm.accept(self.now, remote) else {
            return self.later(from, self.now + latency, Later::HungUp(theirs));
        };
        let number = self.ends.len() as u32;
        let end = |host, slot| Some(Box::new(End::new(host, slot, latency, self.limits.peer)));
        self.ends.extend([end(from, theirs), end(host, ours)]);
        for (host, slot, number) in [(from, theirs, number), (host, ours, number + 1)] {
            let running = &mut self.hosts[host as usize];
            running.set_side(slot, Some(Side::Open(number)));
            running.fate.connections += 1;
        }
        self.arrives(number, self.now + latency, Note::Hello);
        let hello = self.hello(from);
        self.input(host, Input::Peer(ours, vec![PeerEvent::Ready(hello)]));
    }

    pub(super) fn tell(&mut self, host: u32, slot: Slot, command: PeerCommand, inputs: &mut VecDeque<Input>) {
        let running = &mut self.hosts[host as usize];
        let closes = matches!(command, PeerCommand::Close);
        let number = match running.side(slot) {
            Some(Side::Open(number)) => number,
            Some(Side::Dialing) if closes => return running.set_side(slot, None),
            Some(Side::Dialing) | None => return,
        };
        if closes {
            running.set_side(slot, None);
            return self.close(number);
        }
        // A free rider's swarm does not know that nobody hears its unchokes.
        if running.plan.kind == Kind::FreeRider && matches!(command, PeerCommand::Unchoke) {
            return;
        }
        let Some(end) = &mut self.ends[number as usize] else { return };
        let mut events = Vec::new();
        end.command(self.now, command, &mut events);
        if !events.is_empty() {
            inputs.push_back(Input::Peer(slot, events));
        }
        self.rouse(number);
    }

    /// One side of a connection closes it: the other hears of it later, and nothing else any more.
    pub(super) fn close(&mut self, number: u32) {
        let Some(end) = self.ends[number as usize].take() else { return };
        self.wheel.set(2 * number + 1, Time::NEVER, 0);
        self.arrives(number ^ 1, self.now + end.latency, Note::End);
    }

    /// What has arrived at an end, or is due there.
    pub(super) fn wake_end(&mut self, number: u32) {
        let Some(end) = &mut self.ends[number as usize] else { return };
        let (host, slot, mut events, mut hello, mut over) = (end.host, end.slot, Vec::new(), false, false);
        while let Some((_, note)) = end.inbound.pop_front_if(|(at, _)| *at <= self.now) {
            let mut hasher = std::hash::BuildHasher::build_hasher(&self.hash);
            std::hash::Hasher::write(&mut hasher, &said(self.now, number, &note));
            self.digest.sum = self.digest.sum.wrapping_add(std::hash::Hasher::finish(&hasher));
            self.digest.count += 1;
            hello |= matches!(note, Note::Hello);
            over |= matches!(note, Note::End);
            end.receive(self.now, note, &mut events);
        }
        if !over {
            end.settle(self.now, &mut events);
        }
        if hello && let Some(peer) = &self.ends[(number ^ 1) as usize] {
            events.insert(0, PeerEvent::Ready(self.hello(peer.host)));
        }
        if over {
            self.ends[number as usize] = None;
            self.hosts[host as usize].set_side(slot, None);
        }
        if !events.is_empty() {
            self.input(host, Input::Peer(slot, events));
        }
        self.rouse(number);
    }

    /// Something arrives at an end later.
    fn arrives(&mut self, number: u32, at: Time, note: Note) {
        if let Some(end) = &mut self.ends[number as usize] {
            end.inbound.push_back((at, note));
            self.arm_end(number);
        }
    }

    /// An end may have something to send now.
    fn rouse(&mut self, number: u32) {
        let Some(end) = &mut self.ends[number as usize] else { return };
        if end.queued() > 0 && !std::mem::replace(&mut end.active, true) {
            if self.active.is_empty() {
                let (now, step) = (self.now.as_micros(), STEP.as_micros() as u64);
                self.step_at = self.step_at.max(Time::from_micros(now.next_multiple_of(step)));
            }
            self.active.push(number);
        }
        self.arm_end(number);
    }

    // ---- lines ----

    /// Shares lines out for one [`STEP`] from now on.
    pub(super) fn step(&mut self) {
        let begins = self.now;
        self.step_at = begins + STEP;
        let ends = &self.ends;
        self.active.retain(|&number| ends[number as usize].is_some());
        self.flows.clear();
        for &number in &self.active {
            let Some(end) = &ends[number as usize] else { continue };
            // What is sent to somebody who has closed goes to nobody, until the sender hears of it.
            let to = ends[(number ^ 1) as usize].as_ref().map_or(end.host, |peer| peer.host);
            let demand = if to == end.host { 0 } else { end.queued() };
            self.flows.push(Flow { from: end.host, to, demand, share: 0 });
        }
        let per_step = |rate: u64| rate * PARTS * STEP.as_millis() as u64 / 1000;
        let lines = self.hosts.iter().map(|host| (per_step(host.plan.up), per_step(host.plan.down)));
        self.filling.fill(&mut self.flows, lines);
        let mut sent = Vec::new();
        for index in 0..self.active.len() {
            self.send(self.active[index], self.flows[index].share, &mut sent);
        }
        let ends = &mut self.ends;
        self.active.retain(|&number| {
            let end = ends[number as usize].as_mut();
            end.is_some_and(|end| {
                end.active = end.queued() > 0;
                end.active
            })
        });
        for (number, events) in sent {
            self.sent(number, events);
        }
    }

    /// Sends a share of an end's messages.
    fn send(&mut self, number: u32, share: u64, sent: &mut Vec<(u32, Vec<PeerEvent>)>) {
        let Some(mut end) = self.ends[number as usize].take() else { return };
        let first = self.now + end.latency;
        let mut blocks = Vec::new();
        end.send(share, |note, until| {
            let part = STEP.as_micros() as u64 * until / share.max(1);
            if let Note::Block(BlockRef { len, .. }) = note {
                blocks.push(PeerEvent::Sent(len));
            }
            self.arrives(number ^ 1, first + Duration::from_micros(part), note);
        });
        self.ends[number as usize] = Some(end);
        if !blocks.is_empty() {
            sent.push((number, blocks));
        }
    }

    /// Blocks of an end have gone out: there is room for more.
    fn sent(&mut self, number: u32, mut events: Vec<PeerEvent>) {
        let Some(end) = &mut self.ends[number as usize] else { return };
        let (host, slot) = (end.host, end.slot);
        end.settle(self.now, &mut events);
        self.input(host, Input::Peer(slot, events));
        self.rouse(number);
        let running = &self.hosts[host as usize];
        if let (Leaves::Sent(most), Some(swarm)) = (running.plan.leaves, &running.swarm)
            && swarm.status(self.now).uploaded >= most
        {
            self.leave(host);
        }
    }
}

/// What the digest takes in of a message.
fn said(now: Time, number: u32, note: &Note) -> [u8; 32] {
    let block = |kind: u64, block: BlockRef| (kind, u64::from(block.piece.0), u64::from(block.begin));
    let (kind, a, b) = match *note {
        Note::Hello => (1, 0, 0),
        Note::Extended { upload_only } => (2, u64::from(upload_only), 0),
        Note::Pieces(ref pieces) => (3, u64::from(pieces.count()), 0),
        Note::Have(PieceIndex(piece)) => (4, u64::from(piece), 0),
        Note::Choke => (5, 0, 0),
        Note::Unchoke => (6, 0, 0),
        Note::Interested => (7, 0, 0),
        Note::NotInterested => (8, 0, 0),
        Note::Request(of) => block(9, of),
        Note::Cancel(of) => block(10, of),
        Note::Reject(of) => block(11, of),
        Note::Block(of) => block(12, of),
        Note::End => (13, 0, 0),
        Note::Suggest(PieceIndex(piece)) => (14, u64::from(piece), 0),
    };
    let mut said = [0; 32];
    for (at, word) in [now.as_micros(), u64::from(number) << 8 | kind, a, b].into_iter().enumerate() {
        said[8 * at..8 * at + 8].copy_from_slice(&word.to_le_bytes());
    }
    said
}
