//! Misbehaviour in what the peer asks of the client (BEP 3).

use std::io;
use std::time::{Duration, Instant};

use super::link::{
    BITFIELD, CANCEL, EXTENSION_BIT, HAVE, INTERESTED, Link, NOT_INTERESTED, PORT, REQUEST, UNCHOKE, Wanted,
    message,
};
use super::mode::modes;

modes! {
    /// What the peer asks of the client.
    Requests {
        /// Requests for all blocks over and over, without end, and never reads an answer (S40).
        RequestFlood,
        /// A request for each block when the client has nearly all, and never reads an answer (S40).
        NeverRead,
        /// Requests for one byte each, without end, and never reads an answer (S40).
        TinyRequestFlood,
        /// 200,000 requests while choked.
        RequestWhileChoked,
        /// Requests behind the end of the torrent and of its pieces.
        RequestOutOfRange,
        /// Requests of no bytes.
        RequestZero,
        /// Requests of 2^31 and 2^32 - 1 bytes, and of just above 128 KiB.
        RequestHuge,
        /// Requests whose offset and length overflow.
        RequestOverflow,
        /// 200,000 cancels.
        CancelFlood,
        /// Interested and not interested 100,000 times.
        InterestFlap,
        /// A DHT node at port 0 (BEP 5).
        PortZero,
        /// 20,000 DHT nodes.
        PortFlood,
    }
}

impl Requests {
    pub(super) fn misbehave(self, mut link: Link) -> io::Result<()> {
        link.greet(EXTENSION_BIT)?;
        let empty = link.torrent.empty_bitfield();
        link.send(BITFIELD, &empty)?;
        let piece_len = link.torrent.piece_len;
        let pieces = link.torrent.pieces();
        match self {
            Self::RequestFlood => {
                let blocks = (piece_len / 16_384).max(1);
                request_flood(link, |n, _| request(n / blocks % pieces, n % blocks * 16_384, 16_384))
            }
            Self::NeverRead => {
                // Or the answers find room in the buffers of the sockets.
                link.shrink_receive_buffer()?;
                wait_for_service(&mut link, pieces - 8, Duration::from_secs(15))?;
                let blocks = (piece_len / 16_384).max(1);
                link.pour(pieces * blocks, |n, out| {
                    out.extend(request(n / blocks, n % blocks * 16_384, 16_384));
                })?;
                until_unwritable(link)
            }
            Self::TinyRequestFlood => request_flood(link, |n, has| request(has, n % piece_len, 1)),
            Self::RequestWhileChoked => link.flood(200_000, |_, out| {
                out.extend(request(0, 0, 16_384));
            }),
            Self::RequestOutOfRange => {
                let requests = [
                    request(pieces, 0, 16_384),
                    request(u32::MAX, 0, 16_384),
                    request(0, piece_len, 16_384),
                    request(0, piece_len - 1, 2),
                    request(pieces - 1, piece_len, 1),
                ];
                ask(link, &requests)
            }
            Self::RequestZero => ask(link, &[request(0, 0, 0)]),
            Self::RequestHuge => {
                let requests =
                    [request(0, 0, 1 << 31), request(0, 0, u32::MAX), request(0, 0, (128 << 10) + 1)];
                ask(link, &requests)
            }
            Self::RequestOverflow => {
                ask(link, &[request(0, u32::MAX, 16_384), request(0, u32::MAX - 16_383, 16_384)])
            }
            Self::CancelFlood => link.flood(200_000, |_, out| {
                out.extend(message(CANCEL, &Wanted { index: 0, begin: 0, len: 16_384 }.body()));
            }),
            Self::InterestFlap => link.flood(100_000, |n, out| {
                out.extend(message(if n % 2 == 0 { INTERESTED } else { NOT_INTERESTED }, b""));
            }),
            Self::PortZero => {
                link.send(PORT, &[0, 0])?;
                link.hold()
            }
            Self::PortFlood => {
                link.flood(20_000, |n, out| out.extend(message(PORT, &(n as u16).to_be_bytes())))
            }
        }
    }
}

/// Waits until the client unchokes us and has something, then asks without end. Reads nothing from
/// there on.
fn request_flood(mut link: Link, request: impl Fn(u32, u32) -> Vec<u8>) -> io::Result<()> {
    let has = wait_for_service(&mut link, 1, Duration::from_secs(15))?;
    link.pour(u32::MAX, |n, out| out.extend(request(n, has)))
}

/// Keep-alives, by which alone somebody who does not read can notice the end.
fn until_unwritable(mut link: Link) -> io::Result<()> {
    loop {
        std::thread::sleep(Duration::from_millis(200));
        link.write(&[0; 4])?;
    }
}

/// Asks for something impossible after service began, again and again while the client allows it.
fn ask(mut link: Link, requests: &[Vec<u8>]) -> io::Result<()> {
    wait_for_service(&mut link, 1, Duration::from_secs(1))?;
    for request in requests.iter().cycle().take(100) {
        link.write(request)?;
    }
    link.hold()
}

/// Interested until unchoked and told of a number of pieces; one that the client said it has.
fn wait_for_service(link: &mut Link, pieces: u32, patience: Duration) -> io::Result<u32> {
    link.send(INTERESTED, b"")?;
    let end = Instant::now() + patience;
    let (mut unchoked, mut has, mut told) = (false, None, 0);
    while !(unchoked && told >= pieces) && Instant::now() < end {
        let Some(message) = link.next_until(end)? else { break };
        match (message.id, message.body.as_slice()) {
            (UNCHOKE, _) => unchoked = true,
            (HAVE, &[a, b, c, d]) => {
                has = Some(u32::from_be_bytes([a, b, c, d]));
                told += 1;
            }
            (BITFIELD, [bits @ .., _]) if bits.first().is_some_and(|bits| *bits != 0) => {
                has = Some(bits[0].leading_zeros());
                told += bits.iter().map(|bits| bits.count_ones()).sum::<u32>();
            }
            _ => {}
        }
    }
    Ok(has.unwrap_or(0))
}

fn request(index: u32, begin: u32, len: u32) -> Vec<u8> {
    message(REQUEST, &Wanted { index, begin, len }.body())
}
