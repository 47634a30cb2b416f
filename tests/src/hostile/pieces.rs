//! Misbehaviour in what the peer says it has, and whether it serves that (BEP 3, BEP 6).

use std::io;
use std::time::Duration;

use super::link::{
    ALLOWED_FAST, BITFIELD, CHOKE, EXTENSION_BIT, FAST_BITS, HAVE, HAVE_ALL, HAVE_NONE, Link, REJECT,
    SUGGEST, UNCHOKE, message,
};
use super::mode::modes;

modes! {
    /// What the peer says it has, and whether it serves it.
    Pieces {
        /// A bitfield one byte too long.
        LongBitfield,
        /// A bitfield one byte too short.
        ShortBitfield,
        /// A bitfield of 120,000 bytes.
        HugeBitfield,
        /// A bitfield with bits behind the last piece.
        SpareBits,
        /// The bitfield comes twice.
        SecondBitfield,
        /// A bitfield after other messages.
        LateBitfield,
        /// Haves of pieces that the torrent lacks.
        HaveOutOfRange,
        /// 200,000 haves.
        HaveFlood,
        /// First nothing, then everything, by messages that may come once (BEP 6).
        HaveAllAfterHaveNone,
        /// `have all` without the fast extension.
        HaveAllUnasked,
        /// 100,000 times `have all`.
        HaveAllFlood,
        /// Has everything and never unchokes.
        NeverUnchoke,
        /// Has everything, unchokes, never answers.
        SilentSeed,
        /// Unchokes until it is asked for something, then chokes for good.
        ChokeWhenAsked,
        /// Chokes and unchokes fifty times a second (S39).
        ChokeFlap,
        /// Chokes and unchokes 100,000 times as fast as it can.
        ChokeFlapFlood,
        /// Rejects every request (BEP 6, S39).
        RejectAll,
        /// Rejects every request without the fast extension.
        RejectAllUnasked,
        /// Rejects what nobody asked for.
        RejectStray,
        /// Rejects every request twice.
        RejectTwice,
        /// 100,000 pieces that may be asked for while choked (BEP 6), and answers none.
        AllowedFastFlood,
        /// Pieces out of range that may be asked for while choked.
        AllowedFastOutOfRange,
        /// 100,000 suggested pieces.
        SuggestFlood,
    }
}

impl Pieces {
    pub(super) fn misbehave(self, mut link: Link) -> io::Result<()> {
        let fast = !matches!(self, Self::HaveAllUnasked | Self::RejectAllUnasked);
        link.greet(if fast { FAST_BITS } else { EXTENSION_BIT })?;
        let full = link.torrent.full_bitfield();
        let pieces = link.torrent.pieces();
        match self {
            Self::LongBitfield => claim(link, &[&full[..], &[0]].concat()),
            Self::ShortBitfield => claim(link, &full[1..]),
            Self::HugeBitfield => claim(link, &vec![0xff; 120_000]),
            // A torrent of the tests may have no spare bits; then a whole byte is too much.
            Self::SpareBits if super::torrent::bits_spare(pieces as usize) == 0 => {
                claim(link, &[&full[..], &[0x80]].concat())
            }
            Self::SpareBits => claim(link, &vec![0xff; full.len()]),
            Self::SecondBitfield => {
                link.send(BITFIELD, &full)?;
                claim(link, &full)
            }
            Self::LateBitfield => {
                link.send(UNCHOKE, b"")?;
                link.send(HAVE, &0_u32.to_be_bytes())?;
                claim(link, &full)
            }
            Self::HaveOutOfRange => {
                link.send(UNCHOKE, b"")?;
                for index in [pieces, pieces + 7, i32::MAX as u32, u32::MAX] {
                    link.send(HAVE, &index.to_be_bytes())?;
                }
                link.hold()
            }
            Self::HaveFlood => {
                link.flood(200_000, |n, out| out.extend(message(HAVE, &(n % pieces).to_be_bytes())))
            }
            Self::HaveAllAfterHaveNone => {
                link.send(HAVE_NONE, b"")?;
                link.send(UNCHOKE, b"")?;
                link.send(HAVE_ALL, b"")?;
                link.hold()
            }
            Self::HaveAllUnasked => {
                link.send(HAVE_ALL, b"")?;
                link.send(UNCHOKE, b"")?;
                link.hold()
            }
            Self::HaveAllFlood => link.flood(100_000, |_, out| out.extend(message(HAVE_ALL, b""))),
            Self::NeverUnchoke => {
                link.send(BITFIELD, &full)?;
                link.hold()
            }
            Self::SilentSeed => {
                link.offer_all()?;
                link.hold()
            }
            Self::ChokeWhenAsked => {
                link.offer_all()?;
                link.next_request()?;
                link.send(CHOKE, b"")?;
                link.hold()
            }
            Self::ChokeFlap => choke_flap(link),
            Self::ChokeFlapFlood => {
                link.send(BITFIELD, &full)?;
                link.flood(100_000, |n, out| {
                    out.extend(message(if n % 2 == 0 { UNCHOKE } else { CHOKE }, b""));
                })
            }
            Self::RejectAll | Self::RejectAllUnasked => reject_all(link, 1),
            Self::RejectTwice => reject_all(link, 2),
            Self::RejectStray => {
                link.offer_all()?;
                link.flood(20_000, |n, out| {
                    let words = [n % pieces, 0, 16_384];
                    out.extend(message(REJECT, &words.map(u32::to_be_bytes).concat()));
                })
            }
            Self::AllowedFastFlood => {
                link.send(BITFIELD, &full)?;
                link.flood(100_000, |n, out| out.extend(message(ALLOWED_FAST, &(n % pieces).to_be_bytes())))
            }
            Self::AllowedFastOutOfRange => {
                link.send(BITFIELD, &full)?;
                for index in [pieces, i32::MAX as u32, u32::MAX] {
                    link.send(ALLOWED_FAST, &index.to_be_bytes())?;
                }
                link.hold()
            }
            Self::SuggestFlood => {
                link.send(BITFIELD, &full)?;
                link.flood(100_000, |n, out| out.extend(message(SUGGEST, &n.to_be_bytes())))
            }
        }
    }
}

/// Sends this bitfield, unchokes and waits for what the client makes of it.
fn claim(mut link: Link, bitfield: &[u8]) -> io::Result<()> {
    link.send(BITFIELD, bitfield)?;
    link.send(UNCHOKE, b"")?;
    link.hold()
}

fn choke_flap(mut link: Link) -> io::Result<()> {
    link.offer_all()?;
    loop {
        for id in [CHOKE, UNCHOKE] {
            if link.count_within(Duration::from_millis(10))? {
                return Ok(());
            }
            link.send(id, b"")?;
        }
    }
}

fn reject_all(mut link: Link, times: u32) -> io::Result<()> {
    link.offer_all()?;
    loop {
        let wanted = link.next_request()?;
        for _ in 0..times {
            link.send(REJECT, &wanted.body())?;
        }
    }
}
