//! [`Recorded`]: a node whose inputs can be kept as they come.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use super::{Input, Origin, Record, Step, digest, sent};
use crate::shards::{Crossing, Satellite};
use crate::store::{Archive, Counts, Damaged};
use crate::{Command, LookupId, NetworkChange, Node, Outbox, Time};

/// Takes records. It is called while the node works and must not block.
pub type Tap = Box<dyn FnMut(Record) + Send>;

/// A [`Node`] behind all of its inputs: each is handed on and, if somebody listens, told to a [`Tap`]
/// with what came of it. What changes nothing is reached through [`Deref`]; there is no `DerefMut`, so
/// that no input can pass by unrecorded. While nobody listens it costs one comparison per input.
pub struct Recorded {
    node: Node,
    tap: Option<Tap>,
}

impl Recorded {
    /// Makes a node, recorded if there is a `tap`.
    pub fn new(origin: Origin, mut tap: Option<Tap>) -> Self {
        if let Some(tap) = &mut tap {
            tap(Record::Origin(Box::new(origin.clone())));
        }
        let Origin { seeds, config, homes, at } = origin;
        Self { node: Node::new(Arc::new(config), homes, seeds, at), tap }
    }

    /// Takes back what others stored in an earlier run; see [`crate::store::Store::restore`]. A node that
    /// is recorded starts without: records tell of what happens from the origin on.
    ///
    /// # Errors
    /// [`Damaged`].
    pub fn restore(&mut self, now: Time, archive: &Archive, away: Duration) -> Result<Counts, Damaged> {
        if self.tap.is_some() { Ok(Counts::default()) } else { self.node.restore(now, archive, away) }
    }

    /// See [`Node::begin`]. A node that is recorded begins at the origin: it restores nothing.
    pub fn begin(&mut self, now: Time) {
        if self.tap.is_none() {
            self.node.begin(now);
        }
    }

    /// See [`Node::split`]. A node that is recorded stays whole: records tell of one shard.
    pub fn split(&mut self, now: Time, count: usize) -> Vec<Satellite> {
        if self.tap.is_some() { Vec::new() } else { self.node.split(now, count) }
    }

    /// See [`Node::handle_crossing`].
    pub fn handle_crossing(&mut self, now: Time, crossing: Crossing, out: &mut Outbox) {
        self.node.handle_crossing(now, crossing, out);
    }

    /// See [`Node::handle_datagram`].
    pub fn handle_datagram(
        &mut self,
        now: Time,
        socket: u8,
        from: SocketAddr,
        bytes: &[u8],
        out: &mut Outbox,
    ) {
        let before = marks(out);
        self.node.handle_datagram(now, socket, from, bytes, out);
        self.note(now, before, out, || Input::Datagram { socket, from, bytes: bytes.to_vec() });
    }

    /// See [`Node::handle_command`].
    pub fn handle_command(&mut self, now: Time, command: Command, out: &mut Outbox) -> Option<LookupId> {
        let before = marks(out);
        let copy = self.tap.is_some().then(|| command.clone());
        let name = self.node.handle_command(now, command, out);
        if let Some(command) = copy {
            self.note(now, before, out, || Input::Command(command));
        }
        name
    }

    /// See [`Node::handle_network`].
    pub fn handle_network(&mut self, now: Time, socket: u8, change: NetworkChange, out: &mut Outbox) {
        let before = marks(out);
        self.node.handle_network(now, socket, change, out);
        self.note(now, before, out, || Input::Network { socket, change });
    }

    /// See [`Node::handle_timeout`].
    pub fn handle_timeout(&mut self, now: Time, out: &mut Outbox) {
        let before = marks(out);
        self.node.handle_timeout(now, out);
        self.note(now, before, out, || Input::Timeout);
    }

    fn note(
        &mut self,
        at: Time,
        (transmits, events): (usize, usize),
        out: &Outbox,
        input: impl FnOnce() -> Input,
    ) {
        if let Some(tap) = &mut self.tap {
            let told = digest(out.events.get(events..).unwrap_or_default());
            tap(Record::Step(Step { at, input: input(), sent: sent(out, transmits), told }));
        }
    }
}

/// A node that nobody records.
impl From<Node> for Recorded {
    fn from(node: Node) -> Self {
        Self { node, tap: None }
    }
}

impl Deref for Recorded {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

/// Where the outbox ends before an input: a turn of the shell gathers the output of several.
fn marks(out: &Outbox) -> (usize, usize) {
    (out.transmits.len(), out.events.len())
}
