//! What the swarm tells a connection to do.

use std::sync::Arc;

use btdht::Time;

use super::{Phase, State};
use crate::bitfield::Bitfield;
use crate::peer::{CloseReason, PeerCommand, PeerEvent, Violation};
use crate::wire::message::{Message, Span};

impl State {
    pub(super) fn command(
        &mut self,
        now: Time,
        command: PeerCommand,
        out: &mut Vec<PeerEvent>,
    ) -> Result<(), Violation> {
        let open = matches!(self.phase, Phase::Open { .. });
        match command {
            PeerCommand::Close => {
                self.close(CloseReason::Local, out);
                return Ok(());
            }
            PeerCommand::Torrent(shape) => {
                self.setup.shape = Some(shape);
                if self.introduced {
                    self.greet_extended();
                }
                return self.theirs.shape_known(&shape, out);
            }
            PeerCommand::UploadOnly(upload_only) => {
                if std::mem::replace(&mut self.upload_only, upload_only) != upload_only && self.introduced {
                    self.greet_extended();
                }
                return Ok(());
            }
            PeerCommand::Request(blocks) if !open => {
                out.extend(blocks.into_iter().map(PeerEvent::Rejected));
                return Ok(());
            }
            PeerCommand::Pieces(have) if open => {
                self.introduce(have);
                return Ok(());
            }
            _ if !open => return Ok(()),
            _ => self.introduce_empty(),
        }
        self.command_open(now, command, out);
        Ok(())
    }

    /// A command to an open connection that has been introduced.
    fn command_open(&mut self, now: Time, command: PeerCommand, out: &mut Vec<PeerEvent>) {
        let fast = self.fast();
        match command {
            PeerCommand::Have(piece) => self.send.put(Message::Have(piece.0)),
            PeerCommand::Haves(pieces) => {
                pieces.into_iter().for_each(|piece| self.send.put(Message::Have(piece.0)));
            }
            PeerCommand::Suggest(piece) if fast => self.send.put(Message::Suggest(piece.0)),
            PeerCommand::Choke if self.upload.is_unchoked() => self.upload.choke(fast, &mut self.send),
            PeerCommand::Unchoke if !self.upload.is_unchoked() => {
                self.upload.unchoke();
                self.send.put(Message::Unchoke);
            }
            PeerCommand::Interested if !self.interested => {
                self.interested = true;
                self.send.put_ahead(Message::Interested);
            }
            PeerCommand::NotInterested if self.interested => {
                self.interested = false;
                self.send.put_ahead(Message::NotInterested);
            }
            PeerCommand::Request(blocks) => {
                for block in blocks {
                    if self.download.ask(now, &self.setup.config, block) {
                        self.send.put_ahead(Message::Request(Span::of(block)));
                    } else {
                        out.push(PeerEvent::Rejected(block));
                    }
                }
            }
            PeerCommand::Cancel(block) => {
                if self.download.cancel(block) {
                    self.send.put_ahead(Message::Cancel(Span::of(block)));
                }
            }
            PeerCommand::Send(block, payload) => self.upload.send(block, payload, &mut self.send),
            PeerCommand::Refuse(block) => self.upload.refuse(block, fast, &mut self.send),
            PeerCommand::Metadata(message) => self.send_metadata(message, out),
            // Repeated ones, those that were handled before, and what the peer would not understand.
            PeerCommand::Choke
            | PeerCommand::Suggest(_)
            | PeerCommand::Unchoke
            | PeerCommand::Interested
            | PeerCommand::NotInterested
            | PeerCommand::UploadOnly(_)
            | PeerCommand::Torrent(_)
            | PeerCommand::Pieces(_)
            | PeerCommand::Close => {}
        }
    }

    /// The first messages after the handshake: what we have (BEP 3, BEP 6: nothing may come before
    /// it), then the extension handshake and the port of our DHT node.
    fn introduce(&mut self, have: Arc<Bitfield>) {
        let Phase::Open { fast, extended, dht } = self.phase else { return };
        if std::mem::replace(&mut self.introduced, true) {
            // Other clients may hang up on a bitfield in the middle (BEP 3 allows it at the start alone).
            return self.untold.add(have);
        }
        if fast && have.is_empty() {
            self.send.put(Message::HaveNone);
        } else if fast && have.is_full() {
            self.send.put(Message::HaveAll);
        } else if !have.is_empty() {
            let mut bits = Vec::new();
            have.put_wire(&mut bits);
            self.send.put(Message::Bitfield(&bits));
        }
        if extended {
            self.greet_extended();
        }
        if let Some(port) = self.setup.dht_port.filter(|_| dht) {
            self.send.put(Message::Port(port));
        }
    }

    /// The swarm has something to say before it told what we have: we have nothing, then.
    fn introduce_empty(&mut self) {
        if !self.introduced {
            self.introduce(Arc::default());
        }
    }
}
