//! The owner's side of its connections: tasks that are started, told and missed.

use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::{self, JoinError};

use super::fetching::let_in;
use super::life::Life;
use super::{COMMANDS, Inbound, Owner};
use crate::engine::options::Rates;
use crate::engine::peer::Connection;
use crate::engine::throttle::{Lanes, Limit};
use crate::peer::{CloseReason, Greeting, PeerCommand, PeerConn, PeerEvent, PeerSetup};
use crate::piece::{PieceIndex, Slot};
use crate::swarm::{Command, Input, Intake};

/// The way to a connection's task.
pub(super) struct Link {
    generation: u32,
    commands: mpsc::Sender<PeerCommand>,
    /// What it may receive and send.
    down: Arc<Limit>,
    up: Arc<Limit>,
    /// New pieces that wait for the end of the turn, or for the next other command.
    fresh: Vec<PieceIndex>,
}

impl Link {
    /// Passes on a command, behind all before it; says no when the connection has too many waiting. The
    /// disk may verify more small pieces in one turn than commands may wait, so those of a turn are one
    /// command.
    fn tell(&mut self, command: PeerCommand) -> bool {
        if let PeerCommand::Have(piece) = command {
            self.fresh.push(piece);
            return true;
        }
        self.tell_fresh() && self.pass(command)
    }

    /// Passes on new pieces that wait.
    fn tell_fresh(&mut self) -> bool {
        match self.fresh.len() {
            0 => true,
            // The usual one, without giving the buffer away.
            1 => self.fresh.pop().is_none_or(|piece| self.pass(PeerCommand::Have(piece))),
            _ => {
                let fresh = mem::take(&mut self.fresh);
                self.pass(PeerCommand::Haves(fresh))
            }
        }
    }

    fn pass(&self, command: PeerCommand) -> bool {
        !matches!(self.commands.try_send(command), Err(mpsc::error::TrySendError::Full(_)))
    }
}

impl Owner {
    pub(super) fn dial(&mut self, slot: Slot, addr: SocketAddr) {
        let (commands, inbox) = (self.link(slot), self.inbox.clone());
        let session = Arc::clone(&self.session);
        let setup = self.setup(addr);
        let lanes = self.lanes(slot);
        let run = async move {
            match session.dial(addr).await {
                Ok(stream) => {
                    let conn = PeerConn::outgoing(session.clock.now(), setup);
                    let connection =
                        Connection { slot, conn, stream, commands, torrent: inbox, session, lanes };
                    connection.run().await;
                }
                Err(error) => {
                    tracing::debug!(peer = %addr, %error, "dial failed");
                    let _ = inbox.send(Inbound::DialFailed(slot, addr, error.to_string())).await;
                }
            }
        };
        let id = self.connections.spawn(run).id();
        self.slots.insert(id, slot);
    }

    pub(super) fn incoming(&mut self, stream: TcpStream, from: SocketAddr, greeting: Greeting) {
        let now = self.session.clock.now();
        let Some(slot) = self.swarm.accept(now, from) else {
            tracing::debug!(peer = %from, "no place for an incoming connection");
            return;
        };
        let (commands, torrent) = (self.link(slot), self.inbox.clone());
        let session = Arc::clone(&self.session);
        let conn = greeting.accept(now, self.setup(from));
        let lanes = self.lanes(slot);
        let run = Connection { slot, conn, stream, commands, torrent, session, lanes }.run();
        let id = self.connections.spawn(run).id();
        self.slots.insert(id, slot);
    }

    /// What a connection must know of us and of the torrent.
    pub(super) fn setup(&self, remote: SocketAddr) -> PeerSetup {
        let port = self.session.port;
        PeerSetup {
            config: self.limits.peer,
            infohash: self.infohash,
            peer_id: self.session.peer_id,
            remote: remote.ip(),
            listen_port: (port != 0).then_some(port),
            dht_port: self.session.dht_port(remote),
            shape: self.info.as_ref().map(|info| info.shape()),
            blocks: Arc::clone(&self.session.blocks),
        }
    }

    pub(super) fn link(&mut self, slot: Slot) -> mpsc::Receiver<PeerCommand> {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let index = slot.index as usize;
        if self.links.len() <= index {
            self.links.resize_with(index + 1, || None);
        }
        let (down, up) = (self.options.rates.peer_down, self.options.rates.peer_up);
        let (down, up) = (Limit::new(down), Limit::new(up));
        self.links[index] = Some(Link { generation: slot.generation, commands, down, up, fresh: Vec::new() });
        receiver
    }

    /// The limits of a connection that is linked: its own, the torrent's, the session's.
    pub(super) fn lanes(&self, slot: Slot) -> Lanes {
        let link = self.links.get(slot.index as usize).and_then(Option::as_ref);
        let own = |limit: fn(&Link) -> &Arc<Limit>| {
            link.map_or_else(|| Limit::new(0), |link| Arc::clone(limit(link)))
        };
        Lanes::new(
            [own(|link| &link.down), Arc::clone(&self.down), Arc::clone(&self.session.down)],
            [own(|link| &link.up), Arc::clone(&self.up), Arc::clone(&self.session.up)],
        )
    }

    /// Tells the swarm what it may expect to come in: limits change, and so does the number of torrents that
    /// share the session's. It may get more than that, as many of them may have nothing to do; no more
    /// than that is on its way then.
    pub(super) fn tell_intake(&mut self) {
        let fetches = self.life == Life::Running && !self.swarm.is_complete() && !self.swarm.is_paused();
        let all = let_in(self.session.down.rate(), self.fetching.set(fetches), self.down.rate());
        let intake = Intake { all, each: self.options.rates.peer_down };
        if self.swarm.intake() != intake {
            self.handle(Input::Command(Command::Intake(intake)));
        }
    }

    pub(super) fn limit_rates(&mut self, rates: Rates) {
        let now = self.session.clock.now();
        self.options.rates = rates;
        self.down.set(now, rates.down);
        self.up.set(now, rates.up);
        for link in self.links.iter().flatten() {
            link.down.set(now, rates.peer_down);
            link.up.set(now, rates.peer_up);
        }
        self.tell_intake();
    }

    pub(super) fn unlink(&mut self, slot: Slot) {
        if let Some(place) = self.links.get_mut(slot.index as usize) {
            place.take_if(|link| link.generation == slot.generation);
        }
    }

    pub(super) fn tell(&mut self, slot: Slot, command: PeerCommand) {
        let link = self.links.get_mut(slot.index as usize).and_then(Option::as_mut);
        let Some(link) = link.filter(|link| link.generation == slot.generation) else { return };
        if !link.tell(command) {
            self.stalled(slot);
        }
    }

    /// At the end of a turn: tells connections of the pieces that are new since.
    pub(super) fn tell_fresh(&mut self) {
        for index in 0..self.links.len() {
            if let Some(link) = &mut self.links[index]
                && !link.tell_fresh()
            {
                let slot = Slot { index: index as u32, generation: link.generation };
                self.stalled(slot);
            }
        }
        self.act();
    }

    /// A connection takes no commands.
    fn stalled(&mut self, slot: Slot) {
        // Its task ends when the channel does.
        self.unlink(slot);
        let closed = PeerEvent::Closed(CloseReason::Stalled);
        self.swarm.handle(self.session.clock.now(), Input::Peer(slot, vec![closed]), &mut self.actions);
    }

    /// A task has ended, perhaps in a panic, which must not leave the swarm waiting for its last event.
    pub(super) fn connection_ended(&mut self, ended: Result<(task::Id, ()), JoinError>) {
        let (id, panicked) = match &ended {
            Ok((id, ())) => (*id, false),
            Err(error) => (error.id(), error.is_panic()),
        };
        let Some(slot) = self.slots.remove(&id) else { return };
        if panicked {
            tracing::error!("the task of a connection panicked; this is a bug");
            self.take(Inbound::Peer(slot, vec![PeerEvent::Closed(CloseReason::Disconnected)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link() -> (Link, mpsc::Receiver<PeerCommand>) {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let (down, up) = (Limit::new(0), Limit::new(0));
        (Link { generation: 0, commands, down, up, fresh: Vec::new() }, receiver)
    }

    #[test]
    fn more_new_pieces_in_a_turn_than_commands_may_wait_are_all_told() {
        let (mut link, mut receiver) = link();
        let pieces: Vec<_> = (1..3 * COMMANDS as u32).map(PieceIndex).collect();
        assert!(pieces.iter().all(|&piece| link.tell(PeerCommand::Have(piece))));
        assert!(link.tell_fresh() && link.tell_fresh());
        assert!(matches!(receiver.try_recv(), Ok(PeerCommand::Haves(told)) if told == pieces));
        assert!(receiver.try_recv().is_err());
    }

    #[test]
    fn a_new_piece_is_told_before_what_comes_behind_it() {
        let (mut link, mut receiver) = link();
        assert!(
            link.tell(PeerCommand::Have(PieceIndex(7))) && link.tell(PeerCommand::Suggest(PieceIndex(7)))
        );
        assert!(matches!(receiver.try_recv(), Ok(PeerCommand::Have(PieceIndex(7)))));
        assert!(matches!(receiver.try_recv(), Ok(PeerCommand::Suggest(_))));
    }

    #[test]
    fn a_connection_that_takes_nothing_is_found_out() {
        let (mut link, _receiver) = link();
        assert!((0..COMMANDS).all(|_| link.tell(PeerCommand::Unchoke)));
        assert!(link.tell(PeerCommand::Have(PieceIndex(0))) && !link.tell_fresh());
    }
}
