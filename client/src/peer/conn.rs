//! [`PeerConn`]: the protocol state of one connection (BEP 3, 5, 6, 9, 10).

mod clock;
mod commands;
mod extended;
mod held;
#[cfg(test)]
mod tests;

use std::io::{IoSlice, IoSliceMut};
use std::net::IpAddr;
use std::sync::Arc;

use arrayvec::ArrayVec;
use btdht::Time;
use krpc::Id;

use self::extended::Extensions;
pub use self::held::Held;
use super::chatter::Chatter;
use super::download::{Arriving, Download};
use super::send::{MAX_SLICES, SendQueue};
use super::theirs::{Said, Theirs};
use super::untold::Untold;
use super::upload::{Asked, Upload};
use super::{CloseReason, Hello, PeerCommand, PeerConfig, PeerEvent, TorrentShape, Violation};
use crate::piece::{Block, BlockPool, PieceIndex};
use crate::wire::WireError;
use crate::wire::handshake::{self, Handshake};
use crate::wire::message::{Message, Span};
use crate::wire::reader::{FrameReader, MAX_SPACE, Step};

/// What a connection must know of us and of its torrent.
#[derive(Clone, Debug)]
pub struct PeerSetup {
    /// Limits.
    pub config: PeerConfig,
    /// The torrent.
    pub infohash: Id,
    /// Our peer id; a peer with the same one is ourselves.
    pub peer_id: [u8; 20],
    /// The peer's address, told to it (`yourip` of BEP 10).
    pub remote: IpAddr,
    /// Where we accept connections, told to the peer (`p` of BEP 10).
    pub listen_port: Option<u16>,
    /// The UDP port of our DHT node, told to peers that have one (BEP 5).
    pub dht_port: Option<u16>,
    /// The size of the torrent, if known.
    pub shape: Option<TorrentShape>,
    /// Where buffers for blocks come from.
    pub blocks: Arc<BlockPool>,
}

/// One connection.
///
/// The shell's part, in any order:
/// - receive into [`space`](Self::space), then call [`received`](Self::received). No slices mean: do
///   not read now;
/// - write [`pending`](Self::pending), then call [`wrote`](Self::wrote);
/// - pass on [`command`](Self::command)s of the swarm;
/// - at [`timeout`](Self::timeout) call [`handle_timeout`](Self::handle_timeout);
/// - where it limits its rate, say so by [`held`](Self::held), and move first what is
///   [small](Self::small_len), [handshakes](Self::is_ungreeted) above all, and what is left of the
///   peer's [handshake](Self::greeting_len);
/// - call [`disconnected`](Self::disconnected) at the end of the stream or on an error.
///
/// Every call may append events for the swarm. [`PeerEvent::Closed`] is the last one ever; the shell
/// then closes the socket.
#[derive(Debug)]
pub struct PeerConn {
    reader: FrameReader,
    state: State,
}

/// Everything but the reader, which messages borrow from.
#[derive(Debug)]
struct State {
    setup: PeerSetup,
    phase: Phase,
    send: SendQueue,
    download: Download,
    upload: Upload,
    theirs: Theirs,
    extensions: Extensions,
    chatter: Chatter,
    /// What we have and could not say at the start.
    untold: Untold,
    /// Bytes of our handshake that have not been written.
    ungreeted: usize,
    /// The first message after our handshake has gone out: what we have.
    introduced: bool,
    interested: bool,
    upload_only: bool,
    interesting: bool,
    /// When the last byte came in, and when the last one went out.
    heard: Time,
    sent: Time,
    /// When sending last made progress; `NEVER` while there is nothing to send.
    progress: Time,
    /// What a limit of ours holds up since then.
    held: Held,
    held_at: Time,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// The peer's handshake is not complete.
    Greeting {
        deadline: Time,
    },
    /// It is.
    Open {
        fast: bool,
        extended: bool,
        dht: bool,
    },
    Closed,
}

impl PeerConn {
    /// A connection that we have opened, as of now: our handshake is pending.
    pub fn outgoing(now: Time, setup: PeerSetup) -> Self {
        let deadline = now + setup.config.handshake_timeout;
        Self::incoming(now, setup, &[], deadline)
    }

    /// A connection that came to us and began with `received`; see [`Greeting`](super::Greeting).
    pub(super) fn incoming(now: Time, setup: PeerSetup, received: &[u8], deadline: Time) -> Self {
        let mut send = SendQueue::default();
        let ours = Handshake::new(setup.infohash, setup.peer_id, setup.dht_port.is_some());
        send.write(|out| out.extend_from_slice(&ours.encode()));
        let state = State {
            phase: Phase::Greeting { deadline },
            send,
            download: Download::new(&setup.config),
            upload: Upload::default(),
            theirs: Theirs::default(),
            extensions: Extensions::default(),
            chatter: Chatter::default(),
            untold: Untold::default(),
            ungreeted: handshake::LEN,
            introduced: false,
            interested: false,
            upload_only: false,
            interesting: false,
            heard: now,
            sent: now,
            progress: now,
            held: Held::default(),
            held_at: now,
            setup,
        };
        Self { reader: FrameReader::starting_with(received), state }
    }

    /// Where the next bytes belong: the rest of the block that is arriving, the blocks that should come
    /// next, then a scratch buffer, so that payload is received in place. Empty while the peer must be
    /// read no further, because it does not take what it asked for, and once the connection is closed.
    pub fn space(&mut self) -> ArrayVec<IoSliceMut<'_>, MAX_SPACE> {
        self.space_within(usize::MAX)
    }

    /// The first `most` bytes of [`space`](Self::space).
    pub fn space_within(&mut self, most: usize) -> ArrayVec<IoSliceMut<'_>, MAX_SPACE> {
        let State { setup, send, download, .. } = &self.state;
        if self.is_closed() || send.len() >= setup.config.send_buffer {
            return ArrayVec::new();
        }
        let arriving = self.reader.arriving();
        let spans = download.spans().filter(|&span| Some(span) != arriving);
        let expected = spans.map(|span| (span, setup.blocks.take(span.len as usize)));
        self.reader.space(expected, most)
    }

    /// `n` bytes were received into [`space`](Self::space).
    pub fn received(&mut self, now: Time, n: usize, out: &mut Vec<PeerEvent>) {
        if self.is_closed() {
            return;
        }
        self.reader.advance(n);
        self.state.heard = now;
        if let Err(reason) = self.read(now, out) {
            self.state.close(reason, out);
        }
        self.state.settle(now, out);
    }

    /// What the swarm wants. Before the handshake is complete only [`PeerCommand::Torrent`] and
    /// [`PeerCommand::Close`] have an effect; requests are reported as rejected.
    pub fn command(&mut self, now: Time, command: PeerCommand, out: &mut Vec<PeerEvent>) {
        if self.is_closed() {
            return;
        }
        if let Err(violation) = self.state.command(now, command, out) {
            self.state.close(CloseReason::Protocol(violation), out);
        }
        self.state.settle(now, out);
    }

    /// `n` bytes of [`pending`](Self::pending) were written.
    pub fn wrote(&mut self, now: Time, n: usize, out: &mut Vec<PeerEvent>) {
        if self.is_closed() || n == 0 {
            return;
        }
        let payload = self.state.send.advance(n);
        self.state.ungreeted = self.state.ungreeted.saturating_sub(n);
        self.state.sent = now;
        self.state.progress = now;
        if payload > 0 {
            out.push(PeerEvent::Sent(payload));
        }
        self.state.settle(now, out);
    }

    /// A rate limit of ours holds this up until something else is said. It is not the peer's fault:
    /// meanwhile the clocks do not run that end connections to peers that are slow.
    pub fn held(&mut self, now: Time, held: Held) {
        self.state.hold(now, held);
    }

    /// The peer or the network has ended the stream.
    pub fn disconnected(&mut self, out: &mut Vec<PeerEvent>) {
        self.state.close(CloseReason::Disconnected, out);
    }

    /// To be called at [`timeout`](Self::timeout); harmless at any other time.
    pub fn handle_timeout(&mut self, now: Time, out: &mut Vec<PeerEvent>) {
        self.state.handle_timeout(now, out);
        self.state.settle(now, out);
    }

    /// What to write next, at most [`MAX_SLICES`] slices; payload is not copied. Empty when there is
    /// nothing to write.
    pub fn pending(&self) -> ArrayVec<IoSlice<'_>, MAX_SLICES> {
        self.state.send.slices()
    }

    /// Bytes in front of [`pending`](Self::pending), all in its first slice, that are our handshake, as long as it
    /// is [not sent](Self::is_ungreeted), or small messages.
    pub fn small_len(&self) -> usize {
        let small = self.state.send.small_len();
        if self.is_ungreeted() { small.min(self.state.ungreeted) } else { small }
    }

    /// Bytes of the peer's handshake that have not come.
    pub fn greeting_len(&self) -> usize {
        match self.state.phase {
            Phase::Greeting { .. } => handshake::LEN.saturating_sub(self.reader.unread().len()),
            Phase::Open { .. } | Phase::Closed => 0,
        }
    }

    /// Whether our handshake, or our answer to the peer's, has yet to be written.
    pub fn is_ungreeted(&self) -> bool {
        self.state.ungreeted > 0
    }

    /// Bytes to be written in all.
    pub fn pending_len(&self) -> usize {
        self.state.send.len()
    }

    /// Whether [`PeerEvent::Closed`] was given out.
    pub fn is_closed(&self) -> bool {
        matches!(self.state.phase, Phase::Closed)
    }

    fn read(&mut self, now: Time, out: &mut Vec<PeerEvent>) -> Result<(), CloseReason> {
        if matches!(self.state.phase, Phase::Greeting { .. }) {
            match self.reader.take_handshake() {
                Some(bytes) => self.state.greeted(&bytes, out)?,
                None if handshake::may_begin(self.reader.unread()) => return Ok(()),
                None => return Err(CloseReason::BadHandshake),
            }
        }
        self.read_messages(now, out).map_err(CloseReason::Protocol)
    }

    fn read_messages(&mut self, now: Time, out: &mut Vec<PeerEvent>) -> Result<(), Violation> {
        loop {
            match self.reader.step()? {
                Step::Wait => return Ok(()),
                Step::Message(message) => self.state.handle(now, message, out)?,
                Step::PieceBegins(span) => {
                    if let Some(block) = self.state.arriving(span)? {
                        self.reader.receive_into(block);
                    }
                }
                Step::Block(span, payload) => {
                    self.state.chatter.earn();
                    self.state.download.arrived(now, span, payload, out);
                }
            }
        }
    }
}

impl State {
    /// The peer's handshake.
    fn greeted(&mut self, bytes: &[u8; handshake::LEN], out: &mut Vec<PeerEvent>) -> Result<(), CloseReason> {
        let theirs = Handshake::decode(bytes).ok_or(CloseReason::BadHandshake)?;
        if theirs.infohash != self.setup.infohash || theirs.peer_id == self.setup.peer_id {
            return Err(CloseReason::BadHandshake);
        }
        let (fast, extended, dht) = (theirs.fast(), theirs.extended(), theirs.dht());
        self.phase = Phase::Open { fast, extended, dht };
        let Handshake { infohash, peer_id, .. } = theirs;
        out.push(PeerEvent::Ready(Hello { infohash, peer_id, extended, fast, dht }));
        Ok(())
    }

    /// A message of the peer.
    fn handle(&mut self, now: Time, message: Message<'_>, out: &mut Vec<PeerEvent>) -> Result<(), Violation> {
        let useful = match message {
            Message::Choke => {
                if !self.download.is_choked() {
                    self.download.choke(self.fast(), out);
                }
                false
            }
            Message::Unchoke => {
                if self.download.is_choked() {
                    self.download.unchoke();
                    out.push(PeerEvent::Unchoked);
                    // Room is told before a choke that may be next in the same batch.
                    self.download.tell_room(now, out);
                }
                false
            }
            Message::Interested | Message::NotInterested => {
                let interested = message == Message::Interested;
                if std::mem::replace(&mut self.interesting, interested) != interested {
                    out.push(if interested { PeerEvent::Interested } else { PeerEvent::NotInterested });
                }
                false
            }
            Message::Have(index) => self.theirs.have(index, self.setup.shape.as_ref(), out)?,
            Message::Bitfield(bits) => return self.piece_set(now, Said::Bits(bits.to_vec()), out),
            Message::HaveAll | Message::HaveNone => {
                self.agreed_fast()?;
                let all = message == Message::HaveAll;
                return self.piece_set(now, if all { Said::All } else { Said::Nothing }, out);
            }
            Message::Request(span) => self.requested(span)?,
            Message::Cancel(span) => {
                let cancelled = self.upload.cancel(span, out);
                if cancelled && self.fast() {
                    // BEP 6: every request gets one response, also a cancelled one.
                    self.send.put(Message::Reject(span));
                }
                cancelled
            }
            Message::Reject(span) => {
                self.agreed_fast()?;
                self.download.reject(span, out)
            }
            Message::Suggest(index) => {
                self.agreed_fast()?;
                // Advice is not worth an end; but for one a block it is counted, whether it is any good or not.
                if self.setup.shape.as_ref().is_some_and(|shape| index < shape.pieces) {
                    out.push(PeerEvent::Suggested(PieceIndex(index)));
                }
                self.chatter.spend()
            }
            Message::AllowedFast(_) => {
                // Not used: we never ask while choked. Nothing to store, then.
                self.agreed_fast()?;
                false
            }
            Message::Port(port) => {
                if port != 0 {
                    out.push(PeerEvent::DhtPort(port));
                }
                false
            }
            Message::Extended { id, payload } => self.extended_message(id, payload, out)?,
            // The reader hands pieces out in parts.
            Message::Piece { .. } | Message::KeepAlive | Message::Unknown(_) => false,
        };
        if useful || self.chatter.count(now, &self.setup.config) { Ok(()) } else { Err(Violation::Chatter) }
    }

    fn piece_set(&mut self, now: Time, said: Said, out: &mut Vec<PeerEvent>) -> Result<(), Violation> {
        let weight = self.theirs.set(said, self.setup.shape.as_ref(), out)?;
        let forgiven = weight == 0 || self.chatter.count_as(now, weight, &self.setup.config);
        if forgiven { Ok(()) } else { Err(Violation::Chatter) }
    }

    /// The peer asks for a block. `Ok(false)` when it could have known better.
    fn requested(&mut self, span: Span) -> Result<bool, Violation> {
        let block = span.to_block();
        let Some(shape) = &self.setup.shape else {
            self.reject(span);
            return Ok(false);
        };
        if span.len > self.setup.config.max_request || !shape.contains(block) {
            return Err(Violation::OutOfRange);
        }
        match self.upload.ask(&self.setup.config, block) {
            Asked::Queued => Ok(true),
            Asked::Repeated => Ok(false),
            Asked::Choked | Asked::Excess => {
                self.reject(span);
                Ok(false)
            }
            Asked::Flood => Err(Violation::RequestFlood),
        }
    }

    /// Refuses a request; peers without the fast extension get no answer (BEP 6).
    fn reject(&mut self, span: Span) {
        if self.fast() {
            self.send.put(Message::Reject(span));
        }
    }

    /// A block begins: its buffer, if it was asked for.
    fn arriving(&mut self, span: Span) -> Result<Option<Block>, Violation> {
        match self.download.arriving(span) {
            Arriving::Wanted => Ok(Some(self.setup.blocks.take(span.len as usize))),
            Arriving::Stray if self.download.strays() >= self.setup.config.strays => {
                Err(Violation::StrayBlocks)
            }
            Arriving::Late | Arriving::Stray => Ok(None),
        }
    }

    /// At the end of every call: pieces to tell of, requests that can go on, room for our own, and the
    /// watch over progress.
    fn settle(&mut self, now: Time, out: &mut Vec<PeerEvent>) {
        if matches!(self.phase, Phase::Closed) {
            return;
        }
        self.untold.put(&mut self.send);
        let queued = self.send.len();
        self.upload.grant(&self.setup.config, queued + self.extensions.granted_bytes(), out);
        self.extensions.grant(&self.setup.config, queued + self.upload.granted_bytes(), out);
        self.download.tell_room(now, out);
        if self.send.is_empty() {
            self.progress = Time::NEVER;
        } else if self.progress == Time::NEVER {
            self.progress = now;
        }
        // Only our own announcements can get this far, to a peer that does not read.
        if self.send.len() > 8 * self.setup.config.send_buffer {
            self.close(CloseReason::Stalled, out);
        }
    }

    fn close(&mut self, reason: CloseReason, out: &mut Vec<PeerEvent>) {
        if !matches!(self.phase, Phase::Closed) {
            self.phase = Phase::Closed;
            self.send.clear();
            out.push(PeerEvent::Closed(reason));
        }
    }

    fn fast(&self) -> bool {
        matches!(self.phase, Phase::Open { fast: true, .. })
    }

    /// BEP 6: messages of the fast extension close a connection on which it was not agreed.
    fn agreed_fast(&self) -> Result<(), Violation> {
        if self.fast() { Ok(()) } else { Err(Violation::NotNegotiated) }
    }
}

impl From<WireError> for Violation {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Oversize => Self::Oversize,
            WireError::BadLength => Self::BadLength,
        }
    }
}
