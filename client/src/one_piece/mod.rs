//! [`PieceDownload`]: one piece from one peer. What a swarm is when there is nothing to choose from.
//!
//! A state machine on top of a [`PeerConn`](crate::peer::PeerConn): its events go in with the time, and
//! what to tell it ([`Output::Tell`]) and the user ([`Output::Event`]) comes out. It needs no torrent
//! file: an index and a size are enough to ask, a hash to verify, and a shape to know whether the peer
//! has the piece. On a live connection it can be switched to another piece.

mod event;
#[cfg(test)]
mod tests;

use std::time::Duration;

use btdht::Time;
use sha1::{Digest as _, Sha1};

pub use self::event::{End, PieceError, PieceEvent, Refused};
use crate::bitfield::Bitfield;
use crate::metainfo::Info;
use crate::peer::{Hello, MetadataMessage, PeerCommand, PeerEvent, TorrentShape};
use crate::piece::{BLOCK_LEN, BlockRef, PieceIndex};

/// Bytes of a piece at most: as long as one of a torrent can be.
pub const MAX_PIECE: u32 = 256 << 20;

/// A piece that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its index.
    pub index: PieceIndex,
    /// Its bytes, 1 to [`MAX_PIECE`].
    pub size: u32,
    /// Its SHA-1 (BEP 3); without it nothing is verified.
    pub hash: Option<[u8; 20]>,
}

/// How a piece is downloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The id that the peer must have (BEP 3); any when `None`.
    pub peer_id: Option<[u8; 20]>,
    /// The torrent's shape, if known: then a peer is only asked for what it says to have.
    pub shape: Option<TorrentShape>,
    /// A piece is given up when no block of it came for so long.
    pub patience: Duration,
}

/// What a [`PieceDownload`] wants done.
#[derive(Debug)]
pub enum Output {
    /// Tell the connection.
    Tell(PeerCommand),
    /// Tell the user.
    Event(PieceEvent),
}

/// A picture of a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PieceStatus {
    /// The piece that is under way; `None` when it is complete or was given up.
    pub piece: Option<PieceIndex>,
    /// Its size in bytes, 0 without one.
    pub size: u32,
    /// Bytes of it that are there.
    pub done: u32,
    /// Requests without an answer.
    pub outstanding: usize,
    /// The handshake is complete.
    pub connected: bool,
    /// The peer answers no requests.
    pub choked: bool,
}

/// The download of one piece at a time from one peer.
#[derive(Debug)]
pub struct PieceDownload {
    rules: Rules,
    part: Option<Part>,
    /// What the peer has; `None` when the shape is not known.
    theirs: Option<Bitfield>,
    link: Link,
    choked: bool,
    /// Further requests that the connection has room for.
    room: u16,
    /// Why we are closing the connection.
    end: Option<End>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Opening,
    Open,
    Over,
}

/// The piece that is under way.
#[derive(Debug)]
struct Part {
    wanted: Wanted,
    bytes: Vec<u8>,
    blocks: Vec<BlockState>,
    /// No block before this one is open.
    cursor: usize,
    done: u32,
    /// The beginning, or the last block.
    progress: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BlockState {
    Open,
    Asked,
    There,
}

impl Wanted {
    /// The piece of a torrent; `None` when it has none such, or is of version 2 alone.
    pub fn of(info: &Info, index: PieceIndex) -> Option<Self> {
        let hash = *info.piece_hash(index)?;
        Some(Self { index, size: info.shape().piece_len(index), hash: Some(hash) })
    }

    fn check(self, shape: Option<&TorrentShape>) -> Result<Self, Refused> {
        if self.size == 0 || self.size > MAX_PIECE {
            return Err(Refused::Size(self.size));
        }
        match shape {
            Some(shape) if shape.piece_len(self.index) != self.size => Err(Refused::Shape(self)),
            _ => Ok(self),
        }
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self { peer_id: None, shape: None, patience: Duration::from_secs(60) }
    }
}

impl PieceDownload {
    /// For a connection whose first event is still to come.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn new(now: Time, wanted: Wanted, rules: Rules) -> Result<Self, Refused> {
        let part = Part::new(now, wanted.check(rules.shape.as_ref())?);
        Ok(Self {
            part: Some(part),
            theirs: rules.shape.map(|shape| Bitfield::new(shape.pieces)),
            link: Link::Opening,
            choked: true,
            room: 0,
            end: None,
            rules,
        })
    }

    /// An event of the connection.
    pub fn handle(&mut self, now: Time, event: PeerEvent, out: &mut Vec<Output>) {
        match event {
            PeerEvent::Ready(hello) => self.ready(now, &hello, out),
            PeerEvent::Choked => {
                (self.choked, self.room) = (true, 0);
                out.push(Output::Event(PieceEvent::Choked));
            }
            PeerEvent::Unchoked => {
                self.choked = false;
                out.push(Output::Event(PieceEvent::Unchoked));
            }
            PeerEvent::Room(room) => self.room = room,
            PeerEvent::Pieces(pieces) => self.theirs = self.theirs.take().map(|_| pieces),
            PeerEvent::HaveAll => self.theirs = self.theirs.take().map(|set| Bitfield::full(set.len())),
            PeerEvent::HaveNone => self.theirs = self.theirs.take().map(|set| Bitfield::new(set.len())),
            PeerEvent::Have(piece) => {
                if let Some(theirs) = &mut self.theirs {
                    theirs.insert(piece.0);
                }
            }
            PeerEvent::Block(block, bytes) => self.block(now, block, &bytes, out),
            PeerEvent::Rejected(block) => {
                self.give_back(block);
            }
            // A peer that learns the size of the metadata from us may ask for it: we have none to give.
            PeerEvent::Metadata(MetadataMessage::Request { piece }) => {
                out.push(Output::Tell(PeerCommand::Metadata(MetadataMessage::Reject { piece })));
            }
            PeerEvent::Closed(reason) => return self.over(End::Closed(reason), out),
            PeerEvent::Extended(_)
            | PeerEvent::Suggested(_)
            | PeerEvent::Interested
            | PeerEvent::NotInterested
            | PeerEvent::Requested(_)
            | PeerEvent::Cancelled(_)
            | PeerEvent::Snubbed
            | PeerEvent::Sent(_)
            | PeerEvent::DhtPort(_)
            | PeerEvent::Metadata(_) => {}
        }
        self.ask(out);
    }

    /// Asks for another piece on the same connection. What was asked for is cancelled.
    ///
    /// # Errors
    /// [`Refused`]; then nothing has changed.
    pub fn switch(&mut self, now: Time, wanted: Wanted, out: &mut Vec<Output>) -> Result<(), Refused> {
        if self.link == Link::Over || self.end.is_some() {
            return Err(Refused::Ended);
        }
        let wanted = wanted.check(self.rules.shape.as_ref())?;
        let idle = self.part.is_none();
        self.cancel(out);
        self.part = Some(Part::new(now, wanted));
        if idle && self.link == Link::Open {
            out.push(Output::Tell(PeerCommand::Interested));
        }
        self.ask(out);
        Ok(())
    }

    /// Closes the connection; the last event says why.
    pub fn stop(&mut self, end: End, out: &mut Vec<Output>) {
        if self.end.is_none() && self.link != Link::Over {
            self.cancel(out);
            self.end = Some(end);
            out.push(Output::Tell(PeerCommand::Close));
        }
    }

    /// The connection is over without a word of its own, or never was.
    pub fn over(&mut self, end: End, out: &mut Vec<Output>) {
        if self.link != Link::Over {
            self.link = Link::Over;
            self.part = None;
            let end = self.end.take().unwrap_or(end);
            out.push(Output::Event(PieceEvent::Ended(end)));
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due; [`Time::NEVER`] without a piece. While the
    /// connection is being opened its own limits hold.
    pub fn timeout(&self) -> Time {
        match &self.part {
            Some(part) if self.link == Link::Open && self.end.is_none() => {
                part.progress + self.rules.patience
            }
            _ => Time::NEVER,
        }
    }

    /// To be called at [`timeout`](Self::timeout); harmless at any other time.
    pub fn handle_timeout(&mut self, now: Time, out: &mut Vec<Output>) {
        if now < self.timeout() || self.end.is_some() {
            return;
        }
        let error = match (self.has_it(), self.choked) {
            (false, _) => PieceError::Absent,
            (true, true) => PieceError::Choked,
            (true, false) => PieceError::Silent,
        };
        self.cancel(out);
        if let Some(part) = self.part.take() {
            self.leave(out);
            out.push(Output::Event(PieceEvent::Failed(part.wanted.index, error)));
        }
    }

    /// Whether the last event was given out.
    pub fn is_over(&self) -> bool {
        self.link == Link::Over
    }

    /// Whether the handshake is complete and the connection is not over.
    pub fn is_open(&self) -> bool {
        self.link == Link::Open
    }

    /// How it stands.
    pub fn status(&self) -> PieceStatus {
        let part = self.part.as_ref();
        PieceStatus {
            piece: part.map(|part| part.wanted.index),
            size: part.map_or(0, |part| part.wanted.size),
            done: part.map_or(0, |part| part.done),
            outstanding: part.map_or(0, |part| part.asked().count()),
            connected: self.link == Link::Open,
            choked: self.choked,
        }
    }

    fn ready(&mut self, now: Time, hello: &Hello, out: &mut Vec<Output>) {
        self.link = Link::Open;
        if self.rules.peer_id.is_some_and(|wanted| wanted != hello.peer_id) {
            return self.stop(End::WrongPeer(hello.peer_id), out);
        }
        out.push(Output::Event(PieceEvent::Connected(hello.peer_id)));
        if let Some(part) = &mut self.part {
            part.progress = now;
            out.push(Output::Tell(PeerCommand::Interested));
        }
    }

    fn block(&mut self, now: Time, block: BlockRef, bytes: &[u8], out: &mut Vec<Output>) {
        // One of an earlier piece may have been on its way when we switched.
        let Some(state) = self.state_mut(block).filter(|state| **state != BlockState::There) else { return };
        *state = BlockState::There;
        let Some(part) = &mut self.part else { return };
        part.bytes[block.begin as usize..][..bytes.len()].copy_from_slice(bytes);
        part.done += block.len;
        part.progress = now;
        out.push(Output::Event(PieceEvent::Block { block, done: part.done }));
        if part.done < part.wanted.size {
            return;
        }
        let Some(Part { wanted, bytes, .. }) = self.part.take() else { return };
        self.leave(out);
        let right = wanted.hash.map(|hash| Sha1::digest(&bytes)[..] == hash);
        out.push(Output::Event(match right {
            Some(false) => PieceEvent::Failed(wanted.index, PieceError::WrongHash),
            _ => PieceEvent::Complete { index: wanted.index, bytes, verified: right.is_some() },
        }));
    }

    /// Asks for as many blocks as there is room for.
    fn ask(&mut self, out: &mut Vec<Output>) {
        if self.choked || self.room == 0 || self.end.is_some() || !self.has_it() {
            return;
        }
        let Some(part) = &mut self.part else { return };
        let open = (part.cursor..part.blocks.len()).filter(|&at| part.blocks[at] == BlockState::Open);
        let chosen: Vec<usize> = open.take(usize::from(self.room)).collect();
        part.cursor = chosen.last().map_or(part.blocks.len(), |last| last + 1);
        if chosen.is_empty() {
            return;
        }
        self.room -= chosen.len() as u16;
        for &at in &chosen {
            part.blocks[at] = BlockState::Asked;
        }
        let blocks = chosen.into_iter().map(|at| part.wanted.block(at)).collect();
        out.push(Output::Tell(PeerCommand::Request(blocks)));
    }

    /// A request will not be answered.
    fn give_back(&mut self, block: BlockRef) {
        if let Some(state) = self.state_mut(block).filter(|state| **state == BlockState::Asked) {
            *state = BlockState::Open;
            if let Some(part) = &mut self.part {
                part.cursor = part.cursor.min((block.begin / BLOCK_LEN) as usize);
            }
        }
    }

    /// Takes back what was asked for: the piece is given up after this.
    fn cancel(&self, out: &mut Vec<Output>) {
        if let Some(part) = &self.part {
            out.extend(part.asked().map(|block| Output::Tell(PeerCommand::Cancel(block))));
        }
    }

    /// Nothing is wanted any more: somebody else can have our place.
    fn leave(&self, out: &mut Vec<Output>) {
        if self.link == Link::Open {
            out.push(Output::Tell(PeerCommand::NotInterested));
        }
    }

    /// Whether the peer may be asked for the piece.
    fn has_it(&self) -> bool {
        match (&self.theirs, &self.part) {
            (Some(theirs), Some(part)) => theirs.contains(part.wanted.index.0),
            _ => true,
        }
    }

    /// A block of the piece that is under way.
    fn state_mut(&mut self, block: BlockRef) -> Option<&mut BlockState> {
        let part = self.part.as_mut()?;
        let at = (block.begin / BLOCK_LEN) as usize;
        let fits = at < part.blocks.len() && part.wanted.block(at) == block;
        part.blocks.get_mut(at).filter(|_| fits)
    }
}

impl Part {
    fn new(now: Time, wanted: Wanted) -> Self {
        let blocks = vec![BlockState::Open; wanted.size.div_ceil(BLOCK_LEN) as usize];
        Self { wanted, bytes: vec![0; wanted.size as usize], blocks, cursor: 0, done: 0, progress: now }
    }

    fn asked(&self) -> impl Iterator<Item = BlockRef> + '_ {
        let states = self.blocks.iter().enumerate();
        states.filter(|(_, state)| **state == BlockState::Asked).map(|(at, _)| self.wanted.block(at))
    }
}

impl Wanted {
    /// The block at a position that it has.
    fn block(&self, at: usize) -> BlockRef {
        let begin = at as u32 * BLOCK_LEN;
        BlockRef { piece: self.index, begin, len: BLOCK_LEN.min(self.size - begin) }
    }
}
