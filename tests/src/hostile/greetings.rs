//! Misbehaviour before and in the handshake (BEP 3).

use std::io;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use super::link::{EXTENSION_BIT, INTERESTED, Link};
use super::mode::modes;

modes! {
    /// Connecting and the handshake.
    Greetings {
        /// A handshake for another torrent.
        WrongInfohash,
        /// A handshake of another protocol.
        OtherProtocol,
        /// A protocol name of no bytes.
        EmptyProtocolName,
        /// A protocol name of 255 bytes.
        LongProtocolName,
        /// Closes as soon as it is connected.
        CloseAtOnce,
        /// Closes after the handshake (S38).
        CloseAfterHandshake,
        /// Resets after the handshake.
        ResetAfterHandshake,
        /// A handshake of one byte a second (S37).
        SlowLoris,
        /// Connects back and sends a handshake of one byte a second (S37).
        SlowLorisDialsBack,
        /// Never says anything.
        Silence,
        /// The handshake and nothing else.
        SilenceAfterHandshake,
        /// Two thirds of a handshake.
        HalfHandshake,
        /// Bytes without meaning instead of a handshake.
        GarbageForHandshake,
        /// Bytes without meaning after the handshake.
        GarbageAfterHandshake,
        /// A web server.
        Http,
        /// The client's own handshake, peer id included.
        OwnPeerId,
        /// Every byte of the client comes back.
        Echo,
        /// Every reserved bit is set, nothing of it is spoken.
        AllReservedBits,
        /// A second handshake after the first.
        HandshakeTwice,
        /// A hundred connections back to the client that stay silent.
        ConnectBackInSilence,
        /// A hundred connections back to the client that shake hands.
        ConnectBackAndGreet,
    }
}

impl Greetings {
    pub(super) fn misbehave(self, mut link: Link) -> io::Result<()> {
        match self {
            Self::WrongInfohash => greet_changed(link, |hello| hello[30] ^= 1),
            Self::OtherProtocol => greet_changed(link, |hello| hello[19] = b'X'),
            Self::EmptyProtocolName => greet_changed(link, |hello| *hello = [b"\0", &hello[20..]].concat()),
            Self::LongProtocolName => {
                greet_changed(link, |hello| *hello = [&[255; 256], &hello[20..]].concat())
            }
            Self::CloseAtOnce => Ok(()),
            Self::CloseAfterHandshake => link.greet(EXTENSION_BIT),
            Self::ResetAfterHandshake => {
                link.greet(EXTENSION_BIT)?;
                link.reset()
            }
            Self::SlowLoris => {
                let hello = link.hello(EXTENSION_BIT);
                drip(link, &hello)
            }
            Self::SlowLorisDialsBack => slow_loris_back(link),
            Self::Silence => {
                link.read_hello()?;
                link.hold()
            }
            Self::SilenceAfterHandshake => {
                link.greet(EXTENSION_BIT)?;
                link.hold()
            }
            Self::HalfHandshake => greet_changed(link, |hello| hello.truncate(45)),
            Self::GarbageForHandshake => {
                link.read_hello()?;
                link.flood(64, garbage)
            }
            Self::GarbageAfterHandshake => {
                link.greet(EXTENSION_BIT)?;
                link.flood(64, garbage)
            }
            Self::Http => {
                link.read_hello()?;
                link.write(
                    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\n\r\n<html>no</html>\r\n",
                )?;
                link.hold()
            }
            Self::OwnPeerId => {
                link.read_hello()?;
                let theirs = link.theirs;
                link.write(&theirs)?;
                link.offer_all()?;
                link.hold()
            }
            Self::Echo => echo(link),
            Self::AllReservedBits => {
                link.greet([0xff; 8])?;
                link.hold()
            }
            Self::HandshakeTwice => {
                link.greet(EXTENSION_BIT)?;
                let hello = link.hello(EXTENSION_BIT);
                link.write(&hello)?;
                link.hold()
            }
            Self::ConnectBackInSilence => connect_back(link, b""),
            Self::ConnectBackAndGreet => {
                let hello = link.hello(EXTENSION_BIT);
                connect_back(link, &hello)
            }
        }
    }
}

/// A handshake that is changed before it goes out.
fn greet_changed(mut link: Link, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
    let mut hello = link.hello(EXTENSION_BIT);
    change(&mut hello);
    link.read_hello()?;
    link.write(&hello)?;
    link.hold()
}

/// One byte a second until the client has enough.
fn drip(mut link: Link, bytes: &[u8]) -> io::Result<()> {
    for byte in bytes {
        link.write(&[*byte])?;
        if link.closed_within(Duration::from_secs(1))? {
            return Ok(());
        }
    }
    link.hold()
}

/// Learns where the client listens, connects there and drips a handshake.
fn slow_loris_back(mut link: Link) -> io::Result<()> {
    let hello = link.hello(EXTENSION_BIT);
    let stream = TcpStream::connect(listening_address(&mut link)?)?;
    link.seen.dialed_back.add(1);
    let back = Link::new(stream, link.peer_id, link.torrent.clone(), link.seen.clone())?;
    // The first connection stays open only as long as it takes to learn the address, so that the
    // lifetimes that are measured are those of the dripping ones.
    drop(link);
    drip(back, &hello)
}

fn echo(mut link: Link) -> io::Result<()> {
    link.read_hello()?;
    let theirs = link.theirs;
    link.write(&theirs)?;
    loop {
        let message = link.next()?;
        link.send(message.id, &message.body)?;
    }
}

/// A hundred connections that begin with `greeting` and are kept.
fn connect_back(mut link: Link, greeting: &[u8]) -> io::Result<()> {
    let client = listening_address(&mut link)?;
    let mut kept = Vec::new();
    for _ in 0..100 {
        if let Ok(mut stream) = TcpStream::connect_timeout(&client, Duration::from_secs(1)) {
            // It may have closed the connection already.
            let _ = io::Write::write_all(&mut stream, greeting);
            kept.push(stream);
            link.seen.dialed_back.add(1);
        }
        thread::sleep(Duration::from_millis(2));
    }
    link.send(INTERESTED, b"")?;
    link.hold()
}

/// Shakes hands and waits for the extension handshake that says where the client listens (`p`).
fn listening_address(link: &mut Link) -> io::Result<std::net::SocketAddr> {
    link.greet(EXTENSION_BIT)?;
    loop {
        if let Some(addr) = link.listens {
            return Ok(addr);
        }
        link.next()?;
    }
}

/// A kilobyte that means nothing.
fn garbage(n: u32, out: &mut Vec<u8>) {
    out.extend((0..1024_u32).map(|i| (n.wrapping_mul(1_103_515_245) ^ i.wrapping_mul(2_654_435_761)) as u8));
}
