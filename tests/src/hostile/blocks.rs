//! Misbehaviour in the blocks that the peer sends (BEP 3).

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::link::{EXTENSION_BIT, Link, PIECE, Wanted, message};
use super::mode::modes;

modes! {
    /// The blocks that the peer sends.
    Blocks {
        /// Wrong data in every block (S35).
        WrongData,
        /// Wrong data in every tenth block, at 1 MiB/s (S35). Any faster, and all of a small file is on
        /// its way before the first piece can be judged.
        WrongDataRarely,
        /// Wrong data in the last block of every piece.
        WrongLastBlock,
        /// The data of the next piece under the header of this one.
        OtherPiece,
        /// Right blocks that were never asked for.
        Unrequested,
        /// Wrong blocks that were never asked for, of every piece.
        UnrequestedWrong,
        /// Every block ten times.
        Duplicates,
        /// Every block once right and once wrong.
        RightThenWrong,
        /// Blocks shifted by one byte.
        WrongOffset,
        /// Blocks of pieces that the torrent lacks.
        PieceOutOfRange,
        /// Blocks at the offset 2^32 - 1.
        OffsetOutOfRange,
        /// Blocks one byte short.
        ShortBlock,
        /// Blocks one byte long.
        LongBlock,
        /// Blocks of no bytes.
        EmptyBlock,
        /// Block messages that end within their header.
        HeadlessBlock,
        /// A block of which only the first hundred bytes come.
        EndlessBlock,
        /// Blocks of a hundred bytes a tenth of a second.
        TricklingBlocks,
        /// Closes in the middle of every block.
        CloseWithinBlock,
        /// Right blocks in reverse order of the requests.
        ReverseOrder,
        /// Answers every second request only.
        SkipSome,
    }
}

impl Blocks {
    pub(super) fn misbehave(self, mut link: Link) -> io::Result<()> {
        link.greet(EXTENSION_BIT)?;
        link.offer_all()?;
        match self {
            Self::Unrequested => unrequested(link, Link::send_right),
            Self::UnrequestedWrong => unrequested(link, Link::send_wrong),
            Self::ReverseOrder => reverse_order(link),
            _ => loop {
                let wanted = link.next_request()?;
                self.answer(&mut link, wanted)?;
            },
        }
    }

    fn answer(self, link: &mut Link, wanted: Wanted) -> io::Result<()> {
        let torrent = Arc::clone(&link.torrent);
        let Wanted { index, begin, len } = wanted;
        let Some(data) = torrent.block(index, begin, len) else { return Ok(()) };
        let served = link.seen.blocks_sent.total();
        match self {
            Self::WrongData => link.send_wrong(wanted),
            Self::WrongDataRarely => {
                thread::sleep(Duration::from_micros((u64::from(len) * 1_000_000) >> 20));
                if served % 10 == 9 { link.send_wrong(wanted) } else { link.send_right(wanted) }
            }
            Self::WrongLastBlock if begin + len >= torrent.piece_len => link.send_wrong(wanted),
            Self::OtherPiece => {
                let other = torrent.block((index + 1) % torrent.pieces(), begin, len).unwrap_or(data);
                link.seen.spoil(index);
                link.send_block(index, begin, other)
            }
            Self::Duplicates => (0..10).try_for_each(|_| link.send_right(wanted)),
            Self::RightThenWrong => {
                link.send_right(wanted)?;
                link.send_wrong(wanted)
            }
            Self::WrongOffset => link.send_block(index, begin + 1, data),
            Self::PieceOutOfRange => link.send_block(torrent.pieces() + index, begin, data),
            Self::OffsetOutOfRange => link.send_block(index, u32::MAX, data),
            Self::ShortBlock => link.send_block(index, begin, &data[1..]),
            Self::LongBlock => link.send_block(index, begin, &[data, b"!"].concat()),
            Self::EmptyBlock => link.send_block(index, begin, b""),
            Self::HeadlessBlock => link.send(PIECE, &index.to_be_bytes()),
            Self::EndlessBlock => {
                link.write(&block(wanted, data)[..113])?;
                link.hold()
            }
            Self::TricklingBlocks => trickle(link, &block(wanted, data)),
            Self::CloseWithinBlock => {
                link.write(&block(wanted, data)[..8_000])?;
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            Self::SkipSome if served % 2 == 1 => {
                link.seen.blocks_sent.add(1);
                Ok(())
            }
            _ => link.send_right(wanted),
        }
    }
}

/// Blocks of the whole torrent without a request, over and over.
fn unrequested(mut link: Link, mut send: impl FnMut(&mut Link, Wanted) -> io::Result<()>) -> io::Result<()> {
    for _ in 0..4 {
        for index in 0..link.torrent.pieces() {
            send(&mut link, Wanted { index, begin: 0, len: 16_384 })?;
        }
    }
    link.hold()
}

/// Collects requests while they come and answers the last one first.
fn reverse_order(mut link: Link) -> io::Result<()> {
    let mut waiting = Vec::new();
    loop {
        let end = std::time::Instant::now() + Duration::from_millis(100);
        while let Some(message) = link.next_until(end)? {
            waiting.extend(message.wanted());
        }
        while let Some(wanted) = waiting.pop() {
            link.send_right(wanted)?;
        }
    }
}

fn trickle(link: &mut Link, bytes: &[u8]) -> io::Result<()> {
    for part in bytes.chunks(100) {
        link.write(part)?;
        if link.count_within(Duration::from_millis(100))? {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
    }
    Ok(())
}

fn block(wanted: Wanted, data: &[u8]) -> Vec<u8> {
    message(PIECE, &[&wanted.index.to_be_bytes()[..], &wanted.begin.to_be_bytes(), data].concat())
}
