//! The part of the switchboard that gives: who is unchoked, what is read for whom, what is offered.

use btdht::Time;
use btdht::addr::source_key;

use super::{Action, Company, Conn, Stage, SuperSeed, Swarm, Timer};
use crate::peer::PeerCommand;
use crate::piece::{BlockRef, PieceIndex, Slot};
use crate::storage::Job;

impl Swarm {
    pub(super) fn interested(&mut self, now: Time, slot: Slot, out: &mut Vec<Action>) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        conn.wants = true;
        let (source, snubs) = (source_key(conn.addr, self.limits.allow_local), conn.snubbed);
        if self.may_serve_at_once(snubs) && self.choker.interested(now, slot, source, &self.limits) {
            self.serve(slot, out);
        }
        self.set(Timer::Choke, self.choker.next());
    }

    pub(super) fn uninterested(&mut self, now: Time, slot: Slot, out: &mut Vec<Action>) {
        self.with(slot, |conn| conn.wants = false);
        if self.choker.uninterested(now, slot) {
            self.dismiss(slot, out);
            self.fill_slots(now, out);
        }
    }

    /// Gives slots that have become free to whoever waits.
    pub(super) fn fill_slots(&mut self, now: Time, out: &mut Vec<Action>) {
        let waits = |conn: &&Conn| conn.wants && self.may_serve_at_once(conn.snubbed);
        let waiting: Vec<_> = self.conns.iter().filter(waits).map(|conn| (conn.slot, conn.addr)).collect();
        for (slot, addr) in waiting {
            let source = source_key(addr, self.limits.allow_local);
            if self.choker.interested(now, slot, source, &self.limits) {
                self.serve(slot, out);
            }
        }
    }

    /// Whether somebody may have a slot before the next round. As long as something is missing, who snubs us
    /// has one by luck only, which the rounds decide.
    fn may_serve_at_once(&self, snubs: bool) -> bool {
        !self.paused && (!snubs || self.is_complete())
    }

    /// Unchokes a peer. What it should ask for first is told before.
    pub(super) fn serve(&mut self, slot: Slot, out: &mut Vec<Action>) {
        self.suggest_first(slot, out);
        out.push(Action::Tell(slot, PeerCommand::Unchoke));
    }

    /// Chokes a peer.
    pub(super) fn dismiss(&mut self, slot: Slot, out: &mut Vec<Action>) {
        self.uploads.clear(slot);
        if let Some(suggest) = &mut self.suggest {
            suggest.end(slot);
        }
        out.push(Action::Tell(slot, PeerCommand::Choke));
    }

    pub(super) fn requested(&mut self, slot: Slot, block: BlockRef, out: &mut Vec<Action>) {
        let offered = |seed: &SuperSeed| seed.is_offered(slot, block.piece.0);
        let servable = self.choker.is_unchoked(slot)
            && self.super_seed.as_ref().is_none_or(offered)
            && !self.held
            && self.transfer().is_some_and(|transfer| {
                transfer.have().contains(block.piece.0) && transfer.info().shape().contains(block)
            });
        if servable && self.uploads.push(slot, block, &self.limits) {
            self.read_ahead(slot, out);
            self.suggest_after(slot, block.piece, out);
        } else {
            out.push(Action::Tell(slot, PeerCommand::Refuse(block)));
        }
    }

    pub(super) fn read_ahead(&mut self, slot: Slot, out: &mut Vec<Action>) {
        let reads = self.uploads.reads(slot, &self.limits);
        out.extend(reads.into_iter().map(|block| Action::Disk(Job::Read(slot, block))));
    }

    /// Offers further pieces as a super-seed.
    pub(super) fn offer_pieces(&mut self, now: Time, out: &mut Vec<Action>) {
        let (Some(seed), Stage::Transfer(transfer)) = (&mut self.super_seed, &self.stage) else { return };
        let company = if self.conns.open() > 1 { Company::Others } else { Company::Alone };
        for conn in self.conns.iter() {
            let availability = |piece| transfer.availability(piece);
            let offered = seed.offer(now, conn.slot, &conn.has, company, availability);
            let told = |piece| Action::Tell(conn.slot, PeerCommand::Have(PieceIndex(piece)));
            out.extend(offered.into_iter().map(told));
        }
    }
}
