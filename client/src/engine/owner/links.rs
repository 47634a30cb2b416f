//! The owner's side of its connections: tasks that are started, told and missed.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::{self, JoinError};

use super::{COMMANDS, Inbound, Owner};
use crate::engine::dial::dial;
use crate::engine::options::Rates;
use crate::engine::peer::Connection;
use crate::engine::throttle::{Lanes, Limit};
use crate::peer::{CloseReason, Greeting, PeerCommand, PeerConn, PeerEvent, PeerSetup};
use crate::piece::Slot;
use crate::swarm::Input;

/// The way to a connection's task.
pub(super) struct Link {
    generation: u32,
    commands: mpsc::Sender<PeerCommand>,
    /// What it may receive and send.
    down: Arc<Limit>,
    up: Arc<Limit>,
}
impl Owner {
    pub(super) fn dial(&mut self, slot: Slot, addr: SocketAddr) {
        let (commands, inbox) = (self.link(slot), self.inbox.clone());
        let session = Arc::clone(&self.session);
        let setup = self.setup(addr);
        let lanes = self.lanes(slot);
        let run = async move {
            match dial(&session, addr).await {
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
        self.links[index] =
            Some(Link { generation: slot.generation, commands, down: Limit::new(down), up: Limit::new(up) });
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

    pub(super) fn limit_rates(&mut self, rates: Rates) {
        let now = self.session.clock.now();
        self.options.rates = rates;
        self.down.set(now, rates.down);
        self.up.set(now, rates.up);
        for link in self.links.iter().flatten() {
            link.down.set(now, rates.peer_down);
            link.up.set(now, rates.peer_up);
        }
    }

    pub(super) fn unlink(&mut self, slot: Slot) {
        if let Some(place) = self.links.get_mut(slot.index as usize) {
            place.take_if(|link| link.generation == slot.generation);
        }
    }

    pub(super) fn tell(&mut self, slot: Slot, command: PeerCommand) {
        let link = self.links.get(slot.index as usize).and_then(Option::as_ref);
        let Some(link) = link.filter(|link| link.generation == slot.generation) else { return };
        if let Err(mpsc::error::TrySendError::Full(_)) = link.commands.try_send(command) {
            // Its task ends when the channel does.
            self.unlink(slot);
            let closed = PeerEvent::Closed(CloseReason::Stalled);
            self.swarm.handle(self.session.clock.now(), Input::Peer(slot, vec![closed]), &mut self.actions);
        }
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
