//! [`End`]: one side of a connection between two swarms, without its bytes.
//!
//! What [`PeerConn`](crate::peer::PeerConn) does over a socket is done here over messages as values: a
//! block is its name and its length. The window of requests, its growth with the measured rate and
//! snubbing are the shipping code ([`Download`]); messages wait in one queue in order, blocks among
//! them, as they do in a socket.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use btdht::Time;

use crate::bitfield::Bitfield;
use crate::peer::download::{Arriving, Download};
use crate::peer::{CloseReason, ExtendedHello, PeerCommand, PeerConfig, PeerEvent};
use crate::piece::{Block, BlockRef, PieceIndex, Slot};
use crate::wire::message::Span;

/// A message between two peers.
#[derive(Clone, Debug)]
pub(super) enum Note {
    /// The handshake.
    Hello,
    Extended {
        upload_only: bool,
    },
    Pieces(Bitfield),
    Have(PieceIndex),
    Suggest(PieceIndex),
    Choke,
    Unchoke,
    Interested,
    NotInterested,
    Request(BlockRef),
    Cancel(BlockRef),
    Reject(BlockRef),
    Block(BlockRef),
    /// The other side has closed.
    End,
}

/// One side of a connection.
#[derive(Debug)]
pub(super) struct End {
    /// Whose side it is, and what its swarm calls the connection.
    pub(super) host: u32,
    pub(super) slot: Slot,
    /// How long a message takes from here to the other side.
    pub(super) latency: Duration,
    /// Whether it is among those that have something to send.
    pub(super) active: bool,
    /// Messages that are on their way here, by when they arrive.
    pub(super) inbound: VecDeque<(Time, Note)>,
    config: PeerConfig,
    download: Download,
    /// Messages to be sent and what is left of each.
    queue: VecDeque<(Note, u64)>,
    queued: u64,
    /// Whether the peer may ask; what it asked for; what the swarm was told of.
    serves: bool,
    waiting: VecDeque<BlockRef>,
    granted: Vec<BlockRef>,
    introduced: bool,
    upload_only: bool,
    interested: bool,
    interesting: bool,
}

/// Parts of a byte in which what is left of messages is counted, so that slow flows lose nothing to
/// rounding.
pub(super) const PARTS: u64 = 1 << 10;

impl Note {
    /// Bytes on the wire.
    fn len(&self) -> u64 {
        match self {
            Self::Hello => 68,
            Self::Extended { .. } => 120,
            Self::Pieces(pieces) if pieces.is_empty() || pieces.is_full() => 5,
            Self::Pieces(pieces) => 5 + u64::from(pieces.len().div_ceil(8)),
            Self::Have(_) | Self::Suggest(_) => 9,
            Self::Choke | Self::Unchoke | Self::Interested | Self::NotInterested => 5,
            Self::Request(_) | Self::Cancel(_) | Self::Reject(_) => 17,
            Self::Block(block) => 13 + u64::from(block.len),
            Self::End => 0,
        }
    }
}

impl End {
    pub(super) fn new(host: u32, slot: Slot, latency: Duration, config: PeerConfig) -> Self {
        Self {
            host,
            slot,
            latency,
            active: false,
            inbound: VecDeque::new(),
            download: Download::new(&config),
            config,
            queue: VecDeque::new(),
            queued: 0,
            serves: false,
            waiting: VecDeque::new(),
            granted: Vec::new(),
            introduced: false,
            upload_only: false,
            interested: false,
            interesting: false,
        }
    }

    /// What waits to be sent, in [`PARTS`] of bytes.
    pub(super) fn queued(&self) -> u64 {
        self.queued
    }

    /// When something arrives or is due here.
    pub(super) fn timeout(&self) -> Time {
        let arrives = self.inbound.front().map_or(Time::NEVER, |&(at, _)| at);
        arrives.min(self.download.timeout(&self.config))
    }

    /// Does what the swarm wants.
    pub(super) fn command(&mut self, now: Time, command: PeerCommand, out: &mut Vec<PeerEvent>) {
        match command {
            PeerCommand::Pieces(have) => self.introduce(Arc::unwrap_or_clone(have)),
            PeerCommand::UploadOnly(upload_only) => {
                let changed = std::mem::replace(&mut self.upload_only, upload_only) != upload_only;
                if changed && self.introduced {
                    self.put(Note::Extended { upload_only });
                }
            }
            PeerCommand::Have(piece) => self.put(Note::Have(piece)),
            PeerCommand::Haves(pieces) => pieces.into_iter().for_each(|piece| self.put(Note::Have(piece))),
            PeerCommand::Suggest(piece) => self.put(Note::Suggest(piece)),
            PeerCommand::Choke if self.serves => self.choke(),
            PeerCommand::Unchoke if !self.serves => {
                self.serves = true;
                self.put(Note::Unchoke);
            }
            PeerCommand::Interested if !self.interested => {
                self.interested = true;
                self.put(Note::Interested);
            }
            PeerCommand::NotInterested if self.interested => {
                self.interested = false;
                self.put(Note::NotInterested);
            }
            PeerCommand::Request(blocks) => {
                for block in blocks {
                    if self.download.ask(now, &self.config, block) {
                        self.put(Note::Request(block));
                    } else {
                        out.push(PeerEvent::Rejected(block));
                    }
                }
            }
            PeerCommand::Cancel(block) if self.download.cancel(block) => self.put(Note::Cancel(block)),
            PeerCommand::Send(block, _) if self.settle_grant(block) => self.put(Note::Block(block)),
            PeerCommand::Refuse(block) if self.settle_grant(block) => self.put(Note::Reject(block)),
            // Repeated or late ones, and the metadata, which everybody has.
            _ => {}
        }
        self.settle(now, out);
    }

    /// Takes what has arrived.
    pub(super) fn receive(&mut self, now: Time, note: Note, out: &mut Vec<PeerEvent>) {
        match note {
            // The world greets: it knows both.
            Note::Hello => {}
            Note::Extended { upload_only } => out.push(PeerEvent::Extended(ExtendedHello {
                request_queue: Some(self.config.upload_queue),
                listen_port: Some(super::PORT),
                upload_only,
                ..ExtendedHello::default()
            })),
            Note::Pieces(pieces) => out.push(PeerEvent::Pieces(pieces)),
            Note::Have(piece) => out.push(PeerEvent::Have(piece)),
            Note::Suggest(piece) => out.push(PeerEvent::Suggested(piece)),
            Note::Choke if !self.download.is_choked() => self.download.choke(true, out),
            Note::Unchoke if self.download.is_choked() => {
                self.download.unchoke();
                out.push(PeerEvent::Unchoked);
            }
            Note::Choke | Note::Unchoke => {}
            Note::Interested | Note::NotInterested => {
                let interested = matches!(note, Note::Interested);
                if std::mem::replace(&mut self.interesting, interested) != interested {
                    out.push(if interested { PeerEvent::Interested } else { PeerEvent::NotInterested });
                }
            }
            Note::Request(block) => self.requested(block),
            Note::Cancel(block) => self.cancelled(block, out),
            Note::Reject(block) => {
                self.download.reject(Span::of(block), out);
            }
            Note::Block(block) => {
                let span = Span::of(block);
                if self.download.arriving(span) == Arriving::Wanted {
                    self.download.arrived(now, span, Block::from(Vec::new()), out);
                }
            }
            Note::End => out.push(PeerEvent::Closed(CloseReason::Disconnected)),
        }
    }

    /// At the end of every turn: requests that can go on, and room for our own.
    pub(super) fn settle(&mut self, now: Time, out: &mut Vec<PeerEvent>) {
        self.download.check_snub(now, &self.config, out);
        let granted: u64 = self.granted.iter().map(|block| u64::from(block.len)).sum();
        let mut waiting = granted + self.queued / PARTS;
        while waiting < self.config.send_buffer as u64
            && let Some(block) = self.waiting.pop_front()
        {
            waiting += u64::from(block.len);
            self.granted.push(block);
            out.push(PeerEvent::Requested(block));
        }
        self.download.tell_room(now, out);
    }

    /// Sends so many [`PARTS`]. `done` gets each message that has gone out whole, and how much was sent
    /// until then.
    pub(super) fn send(&mut self, share: u64, mut done: impl FnMut(Note, u64)) {
        let mut left = share;
        while let Some((_, rest)) = self.queue.front_mut() {
            let part = left.min(*rest);
            *rest -= part;
            left -= part;
            if *rest > 0 {
                break;
            }
            if let Some((note, _)) = self.queue.pop_front() {
                done(note, share - left);
            }
        }
        self.queued -= share - left;
    }

    fn put(&mut self, note: Note) {
        let len = note.len() * PARTS;
        self.queued += len;
        self.queue.push_back((note, len));
    }

    fn introduce(&mut self, have: Bitfield) {
        if !std::mem::replace(&mut self.introduced, true) {
            self.put(Note::Pieces(have));
            self.put(Note::Extended { upload_only: self.upload_only });
        }
    }

    /// Voids and rejects all requests (BEP 6); blocks that were handed over go out before.
    fn choke(&mut self) {
        self.serves = false;
        self.put(Note::Choke);
        let void: Vec<_> = self.granted.drain(..).chain(self.waiting.drain(..)).collect();
        void.into_iter().for_each(|block| self.put(Note::Reject(block)));
    }

    fn requested(&mut self, block: BlockRef) {
        if self.granted.contains(&block) || self.waiting.contains(&block) {
            return;
        }
        let queued = self.waiting.len() + self.granted.len();
        if self.serves && queued < usize::from(self.config.upload_queue) {
            self.waiting.push_back(block);
        } else {
            self.put(Note::Reject(block));
        }
    }

    fn cancelled(&mut self, block: BlockRef, out: &mut Vec<PeerEvent>) {
        if let Some(at) = self.waiting.iter().position(|&waiting| waiting == block) {
            self.waiting.remove(at);
            self.put(Note::Reject(block));
        } else if self.settle_grant(block) {
            out.push(PeerEvent::Cancelled(block));
            self.put(Note::Reject(block));
        }
    }

    fn settle_grant(&mut self, block: BlockRef) -> bool {
        let at = self.granted.iter().position(|&granted| granted == block);
        at.map(|at| self.granted.remove(at)).is_some()
    }
}
