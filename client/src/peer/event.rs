//! What a connection tells its swarm ([`PeerEvent`]) and what the swarm tells it ([`PeerCommand`]).
//! Both travel in batches; neither carries wire bytes.

use std::net::IpAddr;
use std::sync::Arc;

use krpc::Id;

use crate::bitfield::Bitfield;
use crate::piece::{Block, BlockRef, PieceIndex};

/// What happened on a connection. Everything here was checked against the protocol: indices are in
/// range once the piece count is known, blocks were asked for on this connection, requests are at
/// most 128 KiB long and inside their piece.
#[derive(Debug)]
pub enum PeerEvent {
    /// The handshake is complete in both directions (BEP 3).
    Ready(Hello),
    /// The peer's extension handshake (BEP 10); may come again with changes.
    Extended(ExtendedHello),
    /// The peer chokes us. Outstanding requests without the fast extension are void: they are
    /// reported one by one as [`PeerEvent::Rejected`] before this.
    Choked,
    /// The peer unchokes us.
    Unchoked,
    /// The peer wants something that we have.
    Interested,
    /// The peer wants nothing.
    NotInterested,
    /// The peer has a further piece.
    Have(PieceIndex),
    /// The peer suggests to ask for a piece next (BEP 6).
    Suggested(PieceIndex),
    /// A whole piece set: `bitfield`. A later one, also of the two that follow, takes the place of all
    /// that was said before. Before the piece count is known (magnet) the connection keeps it back.
    Pieces(Bitfield),
    /// The peer has all pieces (BEP 6). Five bytes on the wire: no set is made for them.
    HaveAll,
    /// The peer has no piece (BEP 6).
    HaveNone,
    /// The peer asks for a block.
    Requested(BlockRef),
    /// The peer no longer wants a block.
    Cancelled(BlockRef),
    /// A block that we asked for.
    Block(BlockRef, Block),
    /// A request of ours will not be answered: rejected (BEP 6), or void by choke.
    Rejected(BlockRef),
    /// The connection could use this many further requests; repeated when it grows.
    Room(u16),
    /// No block came for the snub time although requests are outstanding.
    Snubbed,
    /// A block of ours has gone out: payload bytes.
    Sent(u32),
    /// The peer runs a DHT node on this UDP port (BEP 5, PORT message).
    DhtPort(u16),
    /// A message of BEP 9.
    Metadata(MetadataMessage),
    /// The connection is over; always the last event.
    Closed(CloseReason),
}

impl PeerEvent {
    /// Whether it takes the place of all pieces that were told before.
    pub(crate) fn is_piece_set(&self) -> bool {
        matches!(self, Self::Pieces(_) | Self::HaveAll | Self::HaveNone)
    }
}

/// The peer's handshake (BEP 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The torrent that it is about.
    pub infohash: Id,
    /// The peer's id.
    pub peer_id: [u8; 20],
    /// It speaks the extension protocol (BEP 10).
    pub extended: bool,
    /// It speaks the fast extension (BEP 6).
    pub fast: bool,
    /// It runs a DHT node (BEP 5).
    pub dht: bool,
}

/// The parts of an extension handshake that we use (BEP 10).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtendedHello {
    /// The peer takes `ut_metadata` messages (BEP 9).
    pub metadata: bool,
    /// Size of the info dictionary, 1 byte to 64 MiB (BEP 9).
    pub metadata_size: Option<u32>,
    /// Requests that the peer queues (`reqq`), at least 1.
    pub request_queue: Option<u16>,
    /// The peer's listening port (`p`).
    pub listen_port: Option<u16>,
    /// Our address as the peer sees it (`yourip`).
    pub your_ip: Option<IpAddr>,
    /// Client name and version (`v`), at most 64 bytes, escaped.
    pub client: Option<String>,
    /// The peer only uploads (BEP 21).
    pub upload_only: bool,
}

/// A message of the metadata extension (BEP 9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetadataMessage {
    /// Asks for a 16 KiB piece of the info dictionary.
    Request {
        /// Its index.
        piece: u32,
    },
    /// Carries a piece that we asked for.
    Data {
        /// Its index.
        piece: u32,
        /// Size of the whole info dictionary, as this message says.
        total_size: u32,
        /// At most 16 KiB.
        bytes: Vec<u8>,
    },
    /// Refuses a request.
    Reject {
        /// Its index.
        piece: u32,
    },
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer closed it, or the network did.
    Disconnected,
    /// No or a foreign handshake: another protocol, infohash or our own peer id.
    BadHandshake,
    /// The handshake did not arrive in time.
    HandshakeTimeout,
    /// Nothing arrived for the idle time.
    Idle,
    /// The peer broke the protocol.
    Protocol(Violation),
    /// The peer does not read what it asked for.
    Stalled,
    /// The swarm asked for it.
    Local,
}

impl CloseReason {
    /// What the user is told.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Disconnected => "closed by the peer or the network",
            Self::BadHandshake => "wrong handshake",
            Self::HandshakeTimeout => "no handshake in time",
            Self::Idle => "silent for too long",
            Self::Protocol(_) => "broke the protocol",
            Self::Stalled => "did not read what it asked for",
            Self::Local => "closed by us",
        }
    }
}

/// How a peer broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Violation {
    /// A length prefix above what its message may have.
    Oversize,
    /// A message of the wrong length.
    BadLength,
    /// A piece index or block outside the torrent.
    OutOfRange,
    /// A bitfield of the wrong length or with spare bits.
    BadBitfield,
    /// Too many blocks that were never asked for.
    StrayBlocks,
    /// More requests than we queue.
    RequestFlood,
    /// An extension message that cannot be read.
    BadExtension,
    /// A message of an extension that was not agreed on (BEP 6).
    NotNegotiated,
    /// Useless messages by the thousand.
    Chatter,
}

/// What a swarm asks of a connection.
#[derive(Debug)]
pub enum PeerCommand {
    /// The torrent's size is known now (magnet): check indices from here on.
    Torrent(TorrentShape),
    /// Tell which pieces we have; the first message after the handshake. Later ones are told one by one,
    /// all of them, as fast as the peer takes them.
    Pieces(Arc<Bitfield>),
    /// Tell of a new piece.
    Have(PieceIndex),
    /// Tell of new pieces.
    Haves(Vec<PieceIndex>),
    /// Suggest to ask for a piece next (BEP 6); not told to peers without the fast extension.
    Suggest(PieceIndex),
    /// We want nothing from anybody from here on, or something again (BEP 21).
    UploadOnly(bool),
    /// Choke; void every queued request of the peer.
    Choke,
    /// Unchoke.
    Unchoke,
    /// We want something.
    Interested,
    /// We want nothing.
    NotInterested,
    /// Ask for blocks.
    Request(Vec<BlockRef>),
    /// Stop wanting a block.
    Cancel(BlockRef),
    /// Answer a request.
    Send(BlockRef, Block),
    /// Refuse a request (BEP 6; silently dropped for peers without it).
    Refuse(BlockRef),
    /// Send a metadata message (BEP 9).
    Metadata(MetadataMessage),
    /// Close.
    Close,
}

/// What a connection must know of a torrent to check indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TorrentShape {
    /// Number of pieces.
    pub pieces: u32,
    /// Bytes in every piece but the last.
    pub piece_len: u32,
    /// Bytes in the last piece.
    pub last_piece_len: u32,
    /// Size of the info dictionary, told to peers (BEP 9).
    pub metadata_size: u32,
}

impl TorrentShape {
    /// Bytes in `piece`; 0 if there is none such.
    pub fn piece_len(&self, piece: PieceIndex) -> u32 {
        match piece.0 {
            // Any index may be asked about, also by a stranger: nothing is added to it.
            index if index < self.pieces.saturating_sub(1) => self.piece_len,
            index if index < self.pieces => self.last_piece_len,
            _ => 0,
        }
    }

    /// Whether `block` lies inside its piece and is not empty.
    pub fn contains(&self, block: BlockRef) -> bool {
        block.len > 0
            && block.begin.checked_add(block.len).is_some_and(|end| end <= self.piece_len(block.piece))
    }
}
