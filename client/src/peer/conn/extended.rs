//! Extension messages of a connection: the extension handshake (BEP 10) and metadata (BEP 9).

use std::collections::VecDeque;

use super::{Phase, State};
use crate::peer::{ExtendedHello, MetadataMessage, PeerConfig, PeerEvent, Violation};
use crate::wire::extension::{HANDSHAKE, OurHandshake, TheirHandshake, UT_METADATA};
use crate::wire::message::Message;
use crate::wire::metadata::{Metadata, PIECE_LEN};

/// Metadata pieces of our own requests that are outstanding at most; more are refused at once.
const MAX_ASKED: usize = 4096;

/// What was agreed on extensions.
#[derive(Debug, Default)]
pub(super) struct Extensions {
    /// All that the peer's extension handshakes have said so far; `m` is additive (BEP 10).
    theirs: TheirHandshake,
    /// Metadata pieces that we have asked for.
    asked: Vec<u32>,
    /// Requests of the peer for metadata that the swarm does not know of yet. Some clients ask for all pieces at
    /// once, and never again for one that is refused.
    waiting: VecDeque<u32>,
    /// Those that it knows of and has not answered, and all that there have been.
    granted: u32,
    served: u32,
}

impl Extensions {
    /// The id under which the peer takes metadata messages.
    fn metadata_id(&self) -> Option<u8> {
        self.theirs.ut_metadata.filter(|&id| id != 0)
    }

    /// Whether a metadata piece was asked for; it no longer is.
    fn answered(&mut self, piece: u32) -> bool {
        let at = self.asked.iter().position(|&asked| asked == piece);
        at.map(|at| self.asked.swap_remove(at)).is_some()
    }

    /// Bytes of the pieces that the swarm was told of and has not answered.
    pub(super) fn granted_bytes(&self) -> usize {
        self.granted as usize * PIECE_LEN as usize
    }

    /// Tells the swarm of waiting requests as far as there is room in the send buffer, of which `taken` bytes are.
    pub(super) fn grant(&mut self, config: &PeerConfig, taken: usize, out: &mut Vec<PeerEvent>) {
        while self.granted_bytes() + taken < config.send_buffer / 4 * 3
            && let Some(piece) = self.waiting.pop_front()
        {
            self.granted += 1;
            out.push(PeerEvent::Metadata(MetadataMessage::Request { piece }));
        }
    }

    fn merge(&mut self, new: TheirHandshake) {
        let old = std::mem::take(&mut self.theirs);
        self.theirs = TheirHandshake {
            ut_metadata: new.ut_metadata.or(old.ut_metadata),
            metadata_size: new.metadata_size.or(old.metadata_size),
            request_queue: new.request_queue.or(old.request_queue),
            listen_port: new.listen_port.or(old.listen_port),
            your_ip: new.your_ip.or(old.your_ip),
            client: new.client.or(old.client),
            upload_only: new.upload_only.or(old.upload_only),
        };
    }

    fn hello(&self) -> ExtendedHello {
        ExtendedHello {
            metadata: self.metadata_id().is_some(),
            metadata_size: self.theirs.metadata_size,
            request_queue: self.theirs.request_queue,
            listen_port: self.theirs.listen_port,
            your_ip: self.theirs.your_ip,
            client: self.theirs.client.clone(),
            upload_only: self.theirs.upload_only.unwrap_or(false),
        }
    }
}

impl State {
    /// Sends our extension handshake; again when there is news in it.
    pub(super) fn greet_extended(&mut self) {
        if !matches!(self.phase, Phase::Open { extended: true, .. }) {
            return;
        }
        let ours = OurHandshake {
            request_queue: self.setup.config.upload_queue,
            metadata_size: self.setup.shape.map(|shape| shape.metadata_size),
            listen_port: self.setup.listen_port,
            upload_only: self.upload_only,
            your_ip: self.setup.remote,
        };
        let mut payload = Vec::new();
        ours.encode(&mut payload);
        self.send.put(Message::Extended { id: HANDSHAKE, payload: &payload });
    }

    /// An extension message of the peer. `Ok(false)` for one without use.
    pub(super) fn extended_message(
        &mut self,
        id: u8,
        payload: &[u8],
        out: &mut Vec<PeerEvent>,
    ) -> Result<bool, Violation> {
        match id {
            HANDSHAKE => {
                let theirs = TheirHandshake::decode(payload).map_err(|_| Violation::BadExtension)?;
                if let Some(queue) = theirs.request_queue {
                    self.download.limit(&self.setup.config, queue);
                }
                self.extensions.merge(theirs);
                out.push(PeerEvent::Extended(self.extensions.hello()));
                Ok(false)
            }
            UT_METADATA => self.metadata_message(payload, out),
            _ => Ok(false),
        }
    }

    fn metadata_message(&mut self, payload: &[u8], out: &mut Vec<PeerEvent>) -> Result<bool, Violation> {
        let message = match Metadata::decode(payload).ok_or(Violation::BadExtension)? {
            Metadata::Request { piece } => return Ok(self.metadata_requested(piece)),
            Metadata::Data { piece, .. } | Metadata::Reject { piece } if !self.extensions.answered(piece) => {
                return Ok(false);
            }
            Metadata::Data { piece, total_size, bytes } => {
                MetadataMessage::Data { piece, total_size, bytes: bytes.to_vec() }
            }
            Metadata::Reject { piece } => MetadataMessage::Reject { piece },
            Metadata::Unknown => return Ok(false),
        };
        out.push(PeerEvent::Metadata(message));
        Ok(true)
    }

    /// The peer asks for metadata. Each piece is served a few times on average; who wants it more often has
    /// another aim than the torrent.
    fn metadata_requested(&mut self, piece: u32) -> bool {
        let pieces = self.setup.shape.map_or(0, |shape| shape.metadata_size.div_ceil(PIECE_LEN));
        if self.extensions.metadata_id().is_none() {
            // Nothing can be sent to it.
            return false;
        }
        let Extensions { waiting, served, .. } = &mut self.extensions;
        let (queue, serves) = (self.setup.config.metadata_queue, self.setup.config.metadata_serves);
        let is_full = waiting.len() >= queue.max(pieces) as usize;
        if piece >= pieces || is_full || *served >= serves * pieces + queue {
            self.put_metadata(Metadata::Reject { piece });
            return false;
        }
        waiting.push_back(piece);
        *served += 1;
        true
    }

    /// A metadata message of the swarm.
    pub(super) fn send_metadata(&mut self, message: MetadataMessage, out: &mut Vec<PeerEvent>) {
        match message {
            MetadataMessage::Request { piece } => {
                let full = self.extensions.asked.len() >= MAX_ASKED;
                if full || self.extensions.metadata_id().is_none() {
                    out.push(PeerEvent::Metadata(MetadataMessage::Reject { piece }));
                } else if !self.extensions.asked.contains(&piece) {
                    self.extensions.asked.push(piece);
                    self.put_metadata(Metadata::Request { piece });
                }
            }
            MetadataMessage::Data { piece, total_size, ref bytes } => {
                self.extensions.granted = self.extensions.granted.saturating_sub(1);
                self.put_metadata(Metadata::Data { piece, total_size, bytes });
            }
            MetadataMessage::Reject { piece } => {
                self.extensions.granted = self.extensions.granted.saturating_sub(1);
                self.put_metadata(Metadata::Reject { piece });
            }
        }
    }

    /// Queues a metadata message, if the peer has told under which id it takes such.
    fn put_metadata(&mut self, message: Metadata<'_>) {
        if let Some(id) = self.extensions.metadata_id() {
            let mut payload = Vec::new();
            message.encode(&mut payload);
            self.send.put(Message::Extended { id, payload: &payload });
        }
    }
}
