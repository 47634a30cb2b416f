//! What follows when a home's line to the world dies, returns or changes (see [`crate::network`]).

use std::net::SocketAddr;
use std::time::Duration;

use super::Node;
use crate::lookup::{Owner, Upkeep};
use crate::network::{Silence, Situation};
use crate::rpc::Destination;
use crate::table::Failure;
use crate::{Event, NetworkChange, Outbox, Time};

impl Node {
    /// Somebody answered a query of `home` after `rtt`. An answer from our own machine says nothing: it
    /// would come without any network too. (Where local addresses are accepted all may be there.)
    pub(super) fn line_answered(
        &mut self,
        now: Time,
        home: usize,
        (from, rtt): (SocketAddr, Duration),
        out: &mut Outbox,
    ) {
        if self.is_here(home, from) {
            return;
        }
        if self.places[home].line.answered(now, now - rtt, &self.config) {
            self.counters.network_returns += 1;
            self.places[home].table.pardon_all();
            out.events.push(Event::NetworkChanged { home });
            self.maintain.line_returned(now, home, &self.config);
        }
    }

    /// Whether a node lives on our own machine, so that it hears us without any network.
    fn is_here(&self, home: usize, node: SocketAddr) -> bool {
        self.places[home].own(&self.config).contains(&Some(node.ip()))
    }

    /// A node is of no use. If somebody waits for its place, it is asked once more (BEP 5).
    pub(super) fn blame(&mut self, now: Time, node: Destination, out: &mut Outbox) {
        let home = usize::from(node.socket);
        let place = &mut self.places[home];
        match place.table.failed(node.to, &self.config) {
            Failure::PingAgain => self.ping(now, home, (node.id, node.to), out),
            Failure::Removed => {
                self.counters.nodes_removed += 1;
                if let Some(id) = node.id {
                    place.missing.note(now, (id, node.to), &self.config);
                }
            }
            Failure::Kept | Failure::Unknown => {}
        }
    }

    /// A query was not answered in time. If that is the fault of a node of the table, and somebody waits
    /// for its place, it is asked once more (BEP 5).
    pub(super) fn line_silent(&mut self, now: Time, destination: Destination, out: &mut Outbox) {
        let Destination { to, id, .. } = destination;
        let home = usize::from(destination.socket);
        let is_here = self.is_here(home, to);
        let (config, place) = (&self.config, &mut self.places[home]);
        let Some(is_trusty) = place.table.is_trusty_at(now, to, config) else {
            if !place.line.is_lost() {
                place.table.forget_candidate(to);
            }
            return;
        };
        let own = place.own(config);
        let is_trusty = is_trusty && !is_here;
        let (trusty, is_last) =
            (place.table.trusty_elsewhere(now, own, config), place.table.is_at_its_last(to, config));
        let situation = Situation { is_trusty, trusty, is_last };
        let asked = now - config.query_timeout;
        match place.line.silent(asked, to, situation, config) {
            Silence::Blamed => self.blame(now, destination, out),
            Silence::Suspect { ask } => {
                self.forgive(home, to);
                if ask > 0 {
                    self.ping(now, home, (id, to), out);
                }
                self.ping_freshest(now, home, ask, out);
            }
            Silence::Forgiven => self.forgive(home, to),
            Silence::Lost => {
                self.forgive(home, to);
                self.line_is_lost(now, home);
            }
        }
    }

    pub(super) fn line_is_lost(&mut self, now: Time, home: usize) {
        self.counters.network_losses += 1;
        self.maintain.line_lost(now, home, &self.config);
    }

    fn line_changed(&mut self, now: Time, home: usize, out: &mut Outbox) {
        out.events.push(Event::NetworkChanged { home });
        let place = &mut self.places[home];
        place.line.change(now);
        place.table.pardon_all();
        // Other NATs and firewalls may stand there.
        place.reach.restart(now, &self.config);
        self.follow_reach(home);
        // What a lookup of our own id has heard so far does not show that anybody hears us now, and whom it has
        // asked in vain it does not ask again.
        let mut drop = |kind| self.lookups.drop_upkeep(Owner::Upkeep { home: home as u8, kind });
        let (was_own_hungry, was_reunion_hungry) = (drop(Upkeep::Own), drop(Upkeep::Reunion));
        if was_own_hungry {
            self.pass_over_saved(home);
        }
        if was_reunion_hungry {
            self.places[home].missing.resume(now, &self.config);
        }
        self.maintain.line_returned(now, home, &self.config);
    }

    /// Takes note of what happened to the network of `socket`. Nodes that did not answer meanwhile are
    /// not blamed; after a change all are pinged and our own neighbourhood is looked up at once.
    pub fn handle_network(&mut self, now: Time, socket: u8, change: NetworkChange, out: &mut Outbox) {
        let (sent, home) = (out.transmits.len(), usize::from(socket));
        if home >= self.places.len() {
            return;
        }
        self.touch();
        match change {
            NetworkChange::Lost => {
                if self.places[home].line.lose() {
                    self.line_is_lost(now, home);
                }
            }
            NetworkChange::Changed => {
                self.counters.network_changes += 1;
                self.line_changed(now, home, out);
                self.upkeep(now, out);
            }
        }
        self.settle(now, sent, out);
    }

    pub(super) fn notice_sleep(&mut self, now: Time, out: &mut Outbox) {
        if now.since(self.timeout) > self.config.asleep_after {
            self.woke(now, out);
        }
    }

    /// A machine that was suspended wakes up to another network, most often.
    fn woke(&mut self, now: Time, out: &mut Outbox) {
        self.counters.network_changes += 1;
        for home in 0..self.places.len() {
            self.line_changed(now, home, out);
        }
        // An answer that has waited for us says neither that who sent it hears us now nor how long it was on its
        // way: whatever was asked long before is over.
        while let Some(expired) = self.rpc.expire(now) {
            self.handle_expired(now, expired, out);
        }
        // Once, however many datagrams come before the deadlines are handled.
        self.timeout = now;
    }

    fn ping_freshest(&mut self, now: Time, home: usize, count: usize, out: &mut Outbox) {
        for _ in 0..count {
            let place = &mut self.places[home];
            let own = place.own(&self.config);
            let Some((id, addr)) = place.table.ping_freshest(now, own, &self.config) else {
                return;
            };
            self.ping(now, home, (Some(id), addr), out);
        }
    }

    fn forgive(&mut self, home: usize, node: SocketAddr) {
        self.counters.timeouts_forgiven += 1;
        self.places[home].table.forgive(node);
    }
}
