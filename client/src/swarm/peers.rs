//! The part of the switchboard that connections speak to: each event goes to the part that it
//! concerns, and afterwards the connection is asked for more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use btdht::Time;

use super::conns::Conn;
use super::has::Has;
use super::known::Outcome;
use super::transfer::{Asked, Picked};
use super::{Action, Event, Source, Stage, Swarm, Timer};
use crate::bitfield::Bitfield;
use crate::peer::{CloseReason, ExtendedHello, Hello, PeerCommand, PeerEvent};
use crate::piece::{Block, BlockRef, PieceIndex, Slot};
use crate::storage::Job;

/// A new connection that meets one with the same peer in the other direction replaces it if that is
/// younger: both sides are still deciding.
const CROSSING: Duration = Duration::from_secs(10);

impl Swarm {
    pub(super) fn peer_events(
        &mut self,
        now: Time,
        slot: Slot,
        events: Vec<PeerEvent>,
        out: &mut Vec<Action>,
    ) {
        let mut rejected = false;
        // What a later set takes the place of is not looked at: each costs a step a piece.
        let set = events.iter().rposition(PeerEvent::is_piece_set).unwrap_or(0);
        for (at, event) in events.into_iter().enumerate() {
            if at < set && (event.is_piece_set() || matches!(event, PeerEvent::Have(_))) {
                continue;
            }
            if self.conns.get(slot).is_none() {
                return; // closed by us or by an earlier event
            }
            rejected |= matches!(event, PeerEvent::Rejected(_));
            self.peer_event(now, slot, event, out);
        }
        if rejected {
            self.leave_alone(now, slot);
        }
        self.refill(now, slot, out);
    }

    fn peer_event(&mut self, now: Time, slot: Slot, event: PeerEvent, out: &mut Vec<Action>) {
        match event {
            PeerEvent::Ready(hello) => self.ready(now, slot, hello, out),
            PeerEvent::Extended(hello) => self.extended(now, slot, &hello, out),
            PeerEvent::Choked => self.with(slot, |conn| (conn.choking, conn.room) = (true, 0)),
            PeerEvent::Unchoked => self.with(slot, |conn| conn.choking = false),
            PeerEvent::Interested => self.interested(now, slot, out),
            PeerEvent::NotInterested => self.uninterested(now, slot, out),
            PeerEvent::Have(piece) => self.peer_has(now, slot, piece, out),
            PeerEvent::Suggested(piece) => self.with(slot, |conn| conn.suggest(piece)),
            PeerEvent::Pieces(pieces) => self.peer_pieces(now, slot, Has::from(pieces), out),
            PeerEvent::HaveAll => self.peer_pieces(now, slot, Has::All, out),
            PeerEvent::HaveNone => self.peer_pieces(now, slot, Has::Nothing, out),
            PeerEvent::Requested(block) => self.requested(slot, block, out),
            PeerEvent::Cancelled(block) => {
                self.uploads.cancel(slot, block);
                self.read_ahead(slot, out);
            }
            PeerEvent::Block(block, bytes) => self.block(now, slot, block, bytes, out),
            PeerEvent::Rejected(block) => {
                if let Stage::Transfer(transfer) = &mut self.stage {
                    transfer.give_back(slot, block);
                }
                self.stirred = true;
            }
            PeerEvent::Room(room) => self.with(slot, |conn| conn.room = room),
            PeerEvent::Snubbed => self.silent(now, slot),
            PeerEvent::Sent(bytes) => {
                self.up.add(now, u64::from(bytes));
                self.with(slot, |conn| conn.up.add(now, u64::from(bytes)));
                self.uploads.sent(slot, bytes);
                self.read_ahead(slot, out);
            }
            PeerEvent::DhtPort(port) => self.dht_port(slot, port, out),
            PeerEvent::Metadata(message) => self.metadata(now, slot, message, out),
            PeerEvent::Closed(reason) => {
                self.with(slot, |conn| conn.hung_up = reason == CloseReason::Disconnected);
                self.ended(now, slot, reason.words(), out);
            }
        }
    }

    fn ready(&mut self, now: Time, slot: Slot, hello: Hello, out: &mut Vec<Action>) {
        if !self.conns.greet(slot, hello) {
            return;
        }
        let Some(conn) = self.conns.get(slot) else { return };
        let (addr, source, dialed) = (conn.addr, conn.source, conn.dialed);
        if let Some(listens) = conn.listens {
            self.known.shook_hands(listens);
        }
        out.push(Action::Event(Event::PeerConnected(slot, addr, source)));
        if self.known.is_banned(addr, &self.limits) {
            return self.close(now, slot, "banned", out);
        }
        // The same peer has dialed us while we dialed it. Both sides keep the same one of the two.
        let same = |other: &&Conn| {
            let id = other.hello.map(|hello| hello.peer_id);
            other.dialed != dialed && id == Some(hello.peer_id) && other.addr.ip() == addr.ip()
        };
        let rival = self.conns.iter().find(same).map(|other| (other.slot, other.since));
        if let Some((other, since)) = rival {
            let ours_wins = self.peer_id > hello.peer_id;
            let replaces = ours_wins == dialed && now.since(since) < CROSSING;
            let loser = if replaces { other } else { slot };
            self.close(now, loser, "connected twice", out);
            if loser == slot {
                return;
            }
        }
        self.rivals.enter(slot, hello.peer_id);
        if let Some(info) = self.info() {
            out.push(Action::Tell(slot, PeerCommand::Torrent(info.shape())));
        }
        let pieces = match &self.stage {
            Stage::Transfer(transfer) if self.super_seed.is_none() => transfer.have().clone(),
            Stage::Transfer(transfer) => Bitfield::new(transfer.info().pieces()),
            Stage::Opening(info) => Bitfield::new(info.pieces()),
            Stage::Metadata(_) | Stage::Refused => Bitfield::new(0),
        };
        out.push(Action::Tell(slot, PeerCommand::UploadOnly(self.is_upload_only())));
        out.push(Action::Tell(slot, PeerCommand::Pieces(Arc::new(pieces))));
        self.set(Timer::Tick, now + super::TICK);
        self.set(Timer::Dial, now);
    }

    fn extended(&mut self, now: Time, slot: Slot, hello: &ExtendedHello, out: &mut Vec<Action>) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        let was = std::mem::replace(&mut conn.upload_only, hello.upload_only);
        if conn.upload_only {
            self.rivals.leave(slot);
        } else if let (true, false, Some(hello)) = (was, conn.has.is_all(), conn.hello) {
            self.rivals.enter(slot, hello.peer_id); // it wants more than before
        }
        let addr = conn.addr;
        // The first port that it names counts, and no other: each would be one more address to remember.
        let unknown = conn.listens.is_none();
        if let Some(port) = hello.listen_port.filter(|&port| port > 0 && unknown) {
            let listens = SocketAddr::new(addr.ip(), port);
            conn.listens = Some(listens);
            if self.announce.is_public() {
                self.known.insert(now, listens, Source::Incoming, &self.limits, &mut self.rng);
            }
            self.known.busy(listens);
        }
        if let (Stage::Metadata(fetch), true, Some(size)) =
            (&mut self.stage, hello.metadata, hello.metadata_size)
        {
            fetch.offer(slot, addr, size, &self.limits);
            self.drive_fetch(now, out);
        }
        self.close_if_useless(now, slot, out);
    }

    fn peer_pieces(&mut self, now: Time, slot: Slot, has: Has, out: &mut Vec<Action>) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        let before = std::mem::replace(&mut conn.has, has);
        if let Stage::Transfer(transfer) = &mut self.stage {
            transfer.peer_lost(&before);
            conn.wanted = transfer.peer_came(slot, &conn.has);
            tell_interest(conn, self.paused, out);
            if let (Some(suggest), Has::Some(pieces)) = (&mut self.suggest, &conn.has) {
                suggest.seen_all(pieces);
            }
        }
        if conn.has.is_all() {
            self.rivals.leave(slot);
        }
        self.close_if_useless(now, slot, out);
        self.offer_pieces(now, out);
    }

    fn peer_has(&mut self, now: Time, slot: Slot, piece: PieceIndex, out: &mut Vec<Action>) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        match &mut self.stage {
            Stage::Transfer(transfer) => {
                if let Some(suggest) = self.suggest.as_mut().filter(|_| transfer.availability(piece.0) == 0) {
                    suggest.seen(piece.0);
                }
                if conn.has.insert(piece.0, transfer.info().pieces()) && transfer.peer_has(slot, piece) {
                    conn.wanted += 1;
                    tell_interest(conn, self.paused, out);
                }
            }
            Stage::Opening(info) => {
                conn.has.insert(piece.0, info.pieces());
            }
            Stage::Metadata(_) | Stage::Refused => {}
        }
        if conn.has.is_all() {
            self.rivals.leave(slot);
            self.close_if_useless(now, slot, out);
        }
        self.offer_pieces(now, out);
    }

    fn block(&mut self, now: Time, slot: Slot, block: BlockRef, bytes: Block, out: &mut Vec<Action>) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        conn.down.add(now, u64::from(block.len));
        conn.last_block = now;
        conn.rejects = 0;
        conn.snubbed = false;
        self.down.add(now, u64::from(block.len));
        let arrival = match &mut self.stage {
            Stage::Transfer(transfer) => transfer.receive((slot, conn.addr), block, &bytes),
            _ => None,
        };
        let Some(arrival) = arrival else {
            self.wasted += u64::from(block.len);
            return;
        };
        if let Stage::Transfer(transfer) = &mut self.stage {
            transfer.heard(now);
        }
        out.push(Action::Disk(Job::Write(block, bytes)));
        for other in arrival.cancel {
            out.push(Action::Tell(other, PeerCommand::Cancel(block)));
            self.stirred = true;
        }
    }

    /// A peer that rejects is left alone for a while, longer each time, so that it costs nothing.
    fn leave_alone(&mut self, now: Time, slot: Slot) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        let pause = self.limits.reject_pause * (1 << conn.rejects.min(16));
        conn.rejects += 1;
        conn.paused_until = now + pause.min(self.limits.reject_pause_max);
        let until = conn.paused_until;
        self.set(Timer::Tick, until);
    }

    /// A peer answers too slowly: what it owes us is open for others.
    fn snubbed(&mut self, slot: Slot) {
        self.with(slot, |conn| conn.snubbed = true);
        if let Stage::Transfer(transfer) = &mut self.stage {
            transfer.snubbed(slot);
        }
        self.stirred = true;
    }

    /// Whoever gives a block now and then, but not those that it was asked for long ago, snubs us, too.
    pub(super) fn snub_late(&mut self, now: Time) {
        let late = match &self.stage {
            Stage::Transfer(transfer) => transfer.late(now, &self.limits),
            _ => return,
        };
        late.into_iter().for_each(|slot| self.snubbed(slot));
    }

    /// A connection has brought nothing for long. That says nothing of the peer as long as it is we who have
    /// it wait; after that it is late.
    fn silent(&mut self, now: Time, slot: Slot) {
        let waits = match &self.stage {
            Stage::Transfer(transfer) if !self.limits.intake.is_none() => {
                !transfer.late(now, &self.limits).contains(&slot)
            }
            _ => false,
        };
        if !waits {
            self.snubbed(slot);
        }
    }

    fn dht_port(&mut self, slot: Slot, port: u16, out: &mut Vec<Action>) {
        let Some(conn) = self.conns.get_mut(slot).filter(|conn| port > 0 && !conn.named_node) else { return };
        // One node a connection: each is asked, and some address has to take the question.
        conn.named_node = true;
        if self.announce.is_public() {
            out.push(Action::DhtNode(SocketAddr::new(conn.addr.ip(), port)));
        }
    }

    /// Asks a connection for blocks, if it could use any.
    pub(super) fn refill(&mut self, now: Time, slot: Slot, out: &mut Vec<Action>) {
        let (Stage::Transfer(transfer), Some(conn), false) =
            (&mut self.stage, self.conns.get_mut(slot), self.held || self.paused)
        else {
            return;
        };
        if conn.choking
            || conn.room == 0
            || conn.wanted == 0
            || conn.hello.is_none()
            || now < conn.paused_until
        {
            return;
        }
        // Whoever answers slowly or not at all gets a block at a time, as a test.
        let room = if conn.snubbed || conn.rejects > 0 { 1 } else { usize::from(conn.room) };
        let rate = if transfer.is_urgent() { conn.down.per_second(now) } else { 0 };
        let asked = Asked {
            slot,
            addr: conn.addr,
            has: &conn.has,
            room,
            rate,
            rivals: &self.rivals,
            suggested: &conn.suggested,
        };
        let Picked { blocks, given_up } = transfer.pick(now, asked, &self.limits, &mut self.rng);
        for given_up in given_up {
            self.wasted += given_up.bytes;
            given_up.tell(out);
        }
        conn.room -= blocks.len().min(usize::from(conn.room)) as u16;
        self.starved |= conn.room > 0;
        if !blocks.is_empty() {
            out.push(Action::Tell(slot, PeerCommand::Request(blocks)));
        }
    }

    /// Asks all connections that could use it for more.
    pub(super) fn refill_all(&mut self, now: Time, out: &mut Vec<Action>) {
        let mut slots: Vec<_> =
            self.conns.iter().filter(|conn| conn.room > 0 && !conn.choking).map(|conn| conn.slot).collect();
        if !slots.is_empty() {
            let start = self.rng.below(slots.len());
            slots.rotate_left(start); // nobody is always first
        }
        for slot in slots {
            self.refill(now, slot, out);
        }
    }

    pub(super) fn interest_all(&mut self, out: &mut Vec<Action>) {
        self.conns.iter_mut().for_each(|conn| tell_interest(conn, self.paused, out));
    }

    /// Peers know whether we want something (BEP 21): a partial seed looks like a downloader otherwise.
    pub(super) fn tell_upload_only(&self, out: &mut Vec<Action>) {
        let told = |slot| Action::Tell(slot, PeerCommand::UploadOnly(self.is_upload_only()));
        out.extend(self.conns.iter().map(|conn| told(conn.slot)));
    }

    /// A super-seed looks like somebody who has nothing yet.
    fn is_upload_only(&self) -> bool {
        self.is_complete() && self.super_seed.is_none()
    }

    /// A complete swarm has no use for those that give only.
    pub(super) fn close_seeds(&mut self, now: Time, out: &mut Vec<Action>) {
        let slots: Vec<_> = self.conns.iter().map(|conn| conn.slot).collect();
        for slot in slots {
            self.close_if_useless(now, slot, out);
        }
    }

    fn close_if_useless(&mut self, now: Time, slot: Slot, out: &mut Vec<Action>) {
        let Some(conn) = self.conns.get(slot).filter(|_| self.is_complete()) else { return };
        if conn.has.is_all() || conn.upload_only {
            if let Some(addr) = conn.listens {
                self.known.retire(addr);
            }
            self.close(now, slot, "both are seeds", out);
        }
    }

    /// When all places are taken and others wait, whoever gave and took nothing for a while goes. Those
    /// who knocked in vain wait, too: latecomers to a swarm that is full everywhere would stay outside,
    /// since nobody knows their addresses and they try each of ours a few times only.
    pub(super) fn make_room(&mut self, now: Time, out: &mut Vec<Action>) {
        let knocked = std::mem::take(&mut self.turned_away);
        let full = self.conns.len() >= self.limits.max_peers;
        if !full || !knocked && !self.known.has_untried(now, &self.limits) {
            return;
        }
        let idle = |conn: &&Conn| {
            now.since(conn.last_block) >= self.limits.useless_after
                && conn.up.per_second(now) == 0
                && conn.source != Source::User
        };
        let worst = self.conns.iter().filter(idle).min_by_key(|conn| (conn.wanted > 0, conn.last_block));
        if let Some(slot) = worst.map(|conn| conn.slot) {
            self.close(now, slot, "made room for others", out);
        }
    }

    /// Closes connections above `Limits::max_peers`: half-open ones, then those that give and take
    /// least.
    pub(super) fn close_excess(&mut self, now: Time, out: &mut Vec<Action>) {
        let excess = self.conns.len().saturating_sub(self.limits.max_peers);
        let worth = |conn: &Conn| {
            let rates = conn.down.per_second(now) + conn.up.per_second(now);
            (conn.hello.is_some(), conn.source == Source::User, rates, conn.slot)
        };
        let mut all: Vec<_> = self.conns.all().map(worth).collect();
        all.sort_unstable();
        for (.., slot) in all.into_iter().take(excess) {
            self.close(now, slot, "too many connections", out);
        }
    }

    /// Closes a connection; whatever it still says is ignored.
    pub(super) fn close(&mut self, now: Time, slot: Slot, why: &'static str, out: &mut Vec<Action>) {
        out.push(Action::Tell(slot, PeerCommand::Close));
        self.ended(now, slot, why, out);
    }

    /// A connection or dial is over.
    pub(super) fn ended(&mut self, now: Time, slot: Slot, why: &'static str, out: &mut Vec<Action>) {
        let Some(conn) = self.conns.remove(slot) else { return };
        match &mut self.stage {
            Stage::Transfer(transfer) => transfer.peer_gone(slot, conn.addr, &conn.has),
            Stage::Metadata(fetch) => {
                fetch.lost(slot);
                self.timers[Timer::Fetch as usize] = now;
            }
            Stage::Opening(_) | Stage::Refused => {}
        }
        self.choker.gone(slot);
        if let Some(suggest) = &mut self.suggest {
            suggest.end(slot);
            if let (Stage::Transfer(transfer), Has::Some(pieces)) = (&self.stage, &conn.has) {
                pieces
                    .iter()
                    .filter(|&piece| transfer.availability(piece) == 0)
                    .for_each(|piece| suggest.lost(piece));
            }
        }
        self.rivals.leave(slot);
        if let Some(seed) = &mut self.super_seed {
            seed.gone(slot);
        }
        self.uploads.clear(slot);
        let outcome = match conn.hello {
            Some(_) if conn.down.total() + conn.up.total() > 0 => Outcome::Useful,
            Some(_) => Outcome::Useless,
            None if conn.hung_up && !self.is_complete() => Outcome::HungUp,
            None => Outcome::Silent,
        };
        if let Some(addr) = conn.listens {
            self.known.ended(now, addr, outcome, &self.limits, &mut self.rng);
        }
        if conn.hello.is_some() {
            out.push(Action::Event(Event::PeerClosed(slot, conn.addr, why)));
        }
        self.fill_slots(now, out);
        self.set(Timer::Dial, now);
        self.stirred = true;
    }

    pub(super) fn with(&mut self, slot: Slot, change: impl FnOnce(&mut Conn)) {
        if let Some(conn) = self.conns.get_mut(slot) {
            change(conn);
        }
    }
}

fn tell_interest(conn: &mut Conn, paused: bool, out: &mut Vec<Action>) {
    let interested = conn.wanted > 0 && !paused;
    if conn.interested != interested {
        conn.interested = interested;
        let command = if interested { PeerCommand::Interested } else { PeerCommand::NotInterested };
        out.push(Action::Tell(conn.slot, command));
    }
}
