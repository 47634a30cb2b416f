//! Misbehaviour in the lengths and ids of messages (BEP 3).

use std::io;
use std::time::Duration;

use super::link::{CHOKE, EXTENDED, EXTENSION_BIT, HAVE, Link, PIECE, REQUEST, UNCHOKE, message};
use super::mode::modes;

modes! {
    /// Lengths and ids of messages.
    Framing {
        /// The length prefix 0xffffffff (which aborts aria2 1.36.0).
        LongestLength,
        /// The length prefix 0xffffffff after everything else was right.
        LongestLengthLater,
        /// A block message just longer than any client takes, and all of its bytes.
        LengthAboveCap,
        /// An extension message of 16 MiB, and all of its bytes.
        HugeMessage,
        /// A message of an unknown id of 16 MiB, and all of its bytes.
        HugeUnknownMessage,
        /// A message whose end never comes.
        EndlessMessage,
        /// A bitfield of one byte a tenth of a second.
        SlowMessage,
        /// A choke that carries five bytes.
        LongChoke,
        /// A have of three bytes.
        ShortHave,
        /// A request of eleven bytes.
        ShortRequest,
        /// An extension message without its id.
        EmptyExtended,
        /// Messages of every id that nobody knows.
        UnknownIds,
        /// 200,000 keep-alives.
        KeepAliveFlood,
        /// 200,000 unchokes.
        UnchokeFlood,
    }
}

impl Framing {
    pub(super) fn misbehave(self, mut link: Link) -> io::Result<()> {
        link.greet(EXTENSION_BIT)?;
        match self {
            Self::LongestLength => raw(link, &[0xff; 4]),
            Self::LongestLengthLater => {
                link.offer_all()?;
                link.next_request()?;
                raw(link, &[0xff; 5])
            }
            Self::LengthAboveCap => {
                link.offer_all()?;
                let wanted = link.next_request()?;
                let mut body = wanted.body();
                body.truncate(8);
                body.resize(132 * 1024 + 64, 0);
                link.send(PIECE, &body)?;
                link.hold()
            }
            Self::HugeMessage => huge(link, EXTENDED),
            Self::HugeUnknownMessage => huge(link, 99),
            Self::EndlessMessage => raw(link, &[0, 0, 0, 5, HAVE, 0]),
            Self::SlowMessage => {
                let bitfield = message(5, &link.torrent.full_bitfield());
                for byte in bitfield {
                    link.write(&[byte])?;
                    if link.closed_within(Duration::from_millis(100))? {
                        return Ok(());
                    }
                }
                link.hold()
            }
            Self::LongChoke => raw(link, &message(CHOKE, b"three")),
            Self::ShortHave => raw(link, &message(HAVE, &[0; 3])),
            Self::ShortRequest => raw(link, &message(REQUEST, &[0; 11])),
            Self::EmptyExtended => raw(link, &message(EXTENDED, b"")),
            Self::UnknownIds => {
                link.offer_all()?;
                link.flood(20_000, |n, out| {
                    let id = (10..=12).chain(21..=255).nth(n as usize % 238).expect("238 ids");
                    out.extend(message(id, &[0; 8]));
                })
            }
            Self::KeepAliveFlood => {
                link.offer_all()?;
                link.flood(200_000, |_, out| out.extend([0; 4]))
            }
            Self::UnchokeFlood => link.flood(200_000, |_, out| out.extend(message(UNCHOKE, b""))),
        }
    }
}

/// Sends these bytes and waits.
fn raw(mut link: Link, bytes: &[u8]) -> io::Result<()> {
    link.write(bytes)?;
    link.hold()
}

/// A message of 16 MiB with everything that belongs to it.
fn huge(mut link: Link, id: u8) -> io::Result<()> {
    link.write(&[1, 0, 0, 1, id])?;
    link.flood(1024, |_, out| out.resize(out.len() + 16_384, 0))
}
