//! [`Captured`]: what chosen hosts sent and got, and [`write_pcap`], which writes it as a file that
//! Wireshark and tcpdump read.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};

use crate::Time;

/// Microseconds, little-endian, version 2.4, whole packets, and packets that begin with an IP header.
const MAGIC: u32 = 0xa1b2_c3d4;
const VERSION: [u16; 2] = [2, 4];
const SNAPLEN: u32 = 262_144;
const LINKTYPE_RAW: u32 = 101;

const UDP: u8 = 17;
const TTL: u8 = 64;

/// A datagram that a watched host sent or got; see [`super::World::watch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// When it left or reached the host.
    pub at: Time,
    /// The host's index.
    pub host: usize,
    /// Which of the two.
    pub direction: Direction,
    /// Its sender as the other side sees it, or as the sender claims.
    pub from: SocketAddr,
    /// Where it goes.
    pub to: SocketAddr,
    /// What it says.
    pub bytes: Vec<u8>,
}

/// Which way a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Out; when it reaches the other side, [`Time::NEVER`] if it is lost on the way. It may still be
    /// refused there.
    Sent(Time),
    /// In.
    Received,
}

/// Writes datagrams as a pcap file, with the world's time as if it had begun in 1970.
///
/// # Errors
/// Those of the writer.
pub fn write_pcap<'a>(
    datagrams: impl IntoIterator<Item = &'a Captured>,
    to: &mut impl Write,
) -> io::Result<()> {
    to.write_all(&MAGIC.to_le_bytes())?;
    VERSION.iter().try_for_each(|word| to.write_all(&word.to_le_bytes()))?;
    [0, 0, SNAPLEN, LINKTYPE_RAW].iter().try_for_each(|word| to.write_all(&word.to_le_bytes()))?;
    let mut packet = Vec::new();
    for captured in datagrams {
        packet.clear();
        put_packet(&mut packet, captured);
        let (micros, len) = (captured.at.as_micros(), packet.len() as u32);
        // Seconds wrap around after 136 years.
        let words = [(micros / 1_000_000) as u32, (micros % 1_000_000) as u32, len, len];
        words.iter().try_for_each(|word| to.write_all(&word.to_le_bytes()))?;
        to.write_all(&packet)?;
    }
    Ok(())
}

/// The datagram with its UDP and IP headers. Addresses of different families, which no sender can have, are
/// written as IPv6 ones.
fn put_packet(packet: &mut Vec<u8>, captured: &Captured) {
    // The world lets no datagram through whose length does not fit with its headers.
    let udp_len = (captured.bytes.len() + 8).min(usize::from(u16::MAX) - 20);
    let payload = &captured.bytes[..udp_len - 8];
    let len = udp_len as u16;
    let mut pseudo = Vec::new();
    match (captured.from.ip(), captured.to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = [0; 20];
            header[0] = 0x45;
            header[2..4].copy_from_slice(&(len + 20).to_be_bytes());
            (header[8], header[9]) = (TTL, UDP);
            header[12..16].copy_from_slice(&from.octets());
            header[16..20].copy_from_slice(&to.octets());
            let sum = checksum(&[&header]);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            packet.extend_from_slice(&header);
            pseudo.extend_from_slice(&header[12..]);
        }
        (from, to) => {
            packet.extend_from_slice(&[0x60, 0, 0, 0]);
            packet.extend_from_slice(&len.to_be_bytes());
            packet.extend_from_slice(&[UDP, TTL]);
            for ip in [from, to] {
                let octets = match ip {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
                    IpAddr::V6(ip) => ip.octets(),
                };
                packet.extend_from_slice(&octets);
                pseudo.extend_from_slice(&octets);
            }
        }
    }
    pseudo.extend_from_slice(&[0, UDP]);
    pseudo.extend_from_slice(&len.to_be_bytes());
    let mut header = [0; 8];
    header[..2].copy_from_slice(&captured.from.port().to_be_bytes());
    header[2..4].copy_from_slice(&captured.to.port().to_be_bytes());
    header[4..6].copy_from_slice(&len.to_be_bytes());
    // Zero would mean that there is none.
    let sum = match checksum(&[&pseudo, &header, payload]) {
        0 => u16::MAX,
        sum => sum,
    };
    header[6..].copy_from_slice(&sum.to_be_bytes());
    packet.extend_from_slice(&header);
    packet.extend_from_slice(payload);
}

/// The Internet checksum (RFC 1071) of parts of which all but the last have even lengths.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let word = |pair: &[u8]| u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u64::from(low));
    let mut sum: u64 = words.map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(from: &str, to: &str, bytes: &[u8]) -> Captured {
        Captured {
            at: Time::from_micros(1_500_000),
            host: 0,
            direction: Direction::Received,
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            bytes: bytes.to_vec(),
        }
    }

    /// What follows the file's header.
    fn written(captured: &Captured) -> Vec<u8> {
        let mut file = Vec::new();
        write_pcap([captured], &mut file).unwrap();
        assert_eq!(&file[..8], [0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0]);
        assert_eq!(&file[20..24], [101, 0, 0, 0]);
        file.split_off(24)
    }

    #[test]
    fn ipv4_packets_have_valid_headers() {
        // An odd length, so that the checksum pads.
        let record = written(&captured("1.2.3.4:6881", "5.6.7.8:9", b"abc"));
        let mut expected = vec![1, 0, 0, 0, 0x20, 0xa1, 7, 0, 31, 0, 0, 0, 31, 0, 0, 0];
        expected.extend([0x45, 0, 0, 31, 0, 0, 0, 0, 64, 17, 0x6a, 0xbb, 1, 2, 3, 4, 5, 6, 7, 8]);
        expected.extend([0x1a, 0xe1, 0, 9, 0, 11, 0x10, 0x78]);
        expected.extend(b"abc");
        assert_eq!(record, expected);
    }

    #[test]
    fn checksums_add_up_to_nothing() {
        let v4 = written(&captured("1.2.3.4:6881", "5.6.7.8:9", &[255; 1400]));
        assert_eq!(checksum(&[&v4[16..36]]), 0);
        let v6 = written(&captured("[2a00::1]:6881", "[2a00::2]:9", b"hello"));
        let (header, udp) = v6[16..].split_at(40);
        assert_eq!((header[0], header[6], udp.len()), (0x60, 17, 13));
        assert_eq!(checksum(&[&header[8..], &[0, 17, 0, 13], udp]), 0);
    }

    #[test]
    fn longest_and_empty_datagrams_are_written() {
        for len in [0, 65_507, 70_000] {
            let record = written(&captured("1.2.3.4:6881", "5.6.7.8:9", &vec![1; len]));
            assert_eq!(record.len(), 16 + 28 + len.min(65_507));
        }
    }
}
