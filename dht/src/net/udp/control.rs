//! [`Control`]: the control message of a datagram that says to which of our addresses it came, or from
//! which one it is to leave (`IP_PKTINFO`, `IPV6_PKTINFO`). Bytes in the layout of the Linux kernel; what
//! it wrote is read as if a stranger had written it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Control messages start at multiples of this.
const ALIGN: usize = size_of::<usize>();
/// Length with header, level and type: `struct cmsghdr` of the kernel, whatever a C library makes of it.
const HEADER: usize = size_of::<usize>() + 8;
/// `struct in_pktinfo`: index of the interface, our address, destination in the header.
const INFO4: usize = 12;
/// `struct in6_pktinfo`: our address, index of the interface.
const INFO6: usize = 20;
/// Bytes of the longer of the two messages.
pub(super) const ROOM: usize = (HEADER + INFO6).next_multiple_of(ALIGN);

/// Room for one control message.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(super) struct Control([u8; ROOM]);

impl Control {
    pub(super) const EMPTY: Self = Self([0; ROOM]);

    /// Makes a datagram leave from `ip` and returns the bytes that the message takes. Which interface it
    /// leaves by follows from the routes, as for a socket that is bound to `ip`.
    pub(super) fn leave_from(&mut self, ip: IpAddr) -> usize {
        self.0 = [0; ROOM];
        match ip {
            IpAddr::V4(ip) => {
                self.head(HEADER + INFO4, libc::IPPROTO_IP, libc::IP_PKTINFO);
                self.0[HEADER + 4..][..4].copy_from_slice(&ip.octets());
                (HEADER + INFO4).next_multiple_of(ALIGN)
            }
            IpAddr::V6(ip) => {
                self.head(HEADER + INFO6, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO);
                self.0[HEADER..][..16].copy_from_slice(&ip.octets());
                (HEADER + INFO6).next_multiple_of(ALIGN)
            }
        }
    }

    /// The address of ours that a datagram came to, by the first `len` bytes that the kernel wrote.
    pub(super) fn asked(&self, len: usize) -> Option<IpAddr> {
        asked(&self.0[..len.min(ROOM)])
    }

    fn head(&mut self, len: usize, level: i32, kind: i32) {
        self.0[..ALIGN].copy_from_slice(&len.to_ne_bytes());
        self.0[ALIGN..][..4].copy_from_slice(&level.to_ne_bytes());
        self.0[ALIGN + 4..][..4].copy_from_slice(&kind.to_ne_bytes());
    }
}

/// The first address in a list of control messages from which an answer can leave.
fn asked(mut messages: &[u8]) -> Option<IpAddr> {
    loop {
        let len = usize::from_ne_bytes(*messages.first_chunk()?);
        let level = i32::from_ne_bytes(*messages.get(ALIGN..)?.first_chunk()?);
        let kind = i32::from_ne_bytes(*messages.get(ALIGN + 4..)?.first_chunk()?);
        let data = messages.get(HEADER..len)?;
        let ip = match (level, kind) {
            // Our address and not the destination in the header, which may be that of a broadcast.
            (libc::IPPROTO_IP, libc::IP_PKTINFO) if data.len() >= INFO4 => {
                Some(Ipv4Addr::from(*data.get(4..)?.first_chunk::<4>()?).into())
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) if data.len() >= INFO6 => {
                Some(Ipv6Addr::from(*data.first_chunk::<16>()?).into())
            }
            _ => None,
        };
        if let Some(ip) = ip.filter(can_answer) {
            return Some(ip);
        }
        messages = messages.get(len.checked_next_multiple_of(ALIGN)?..)?;
    }
}

/// No datagram leaves from a group, and what came before the socket was to tell has no address.
fn can_answer(ip: &IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast() && *ip != IpAddr::V4(Ipv4Addr::BROADCAST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rng;

    const FOUR: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9));
    const SIX: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9));

    fn message(len: usize, level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
        let mut bytes = len.to_ne_bytes().to_vec();
        bytes.extend(level.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
        bytes
    }

    fn of(ip: IpAddr) -> Vec<u8> {
        let mut control = Control::EMPTY;
        let len = control.leave_from(ip);
        control.0[..len].to_vec()
    }

    #[test]
    fn what_is_written_is_read() {
        for ip in [FOUR, SIX] {
            let mut control = Control([0xff; ROOM]);
            let len = control.leave_from(ip);
            assert_eq!(control.asked(len), Some(ip));
            assert_eq!(control.asked(usize::MAX), Some(ip), "no more is read than there is room for");
            assert_eq!(Control::EMPTY.asked(len), None);
        }
    }

    #[test]
    fn a_message_cut_short_tells_nothing() {
        for (ip, whole) in [(FOUR, HEADER + INFO4), (SIX, HEADER + INFO6)] {
            let bytes = of(ip);
            for len in 0..bytes.len() {
                let told = (len >= whole).then_some(ip);
                assert_eq!(asked(&bytes[..len]), told, "{len} bytes");
                // As the kernel cuts: the length says so too.
                let mut cut = bytes[..len].to_vec();
                if let Some(head) = cut.first_chunk_mut() {
                    *head = len.to_ne_bytes();
                }
                assert_eq!(asked(&cut), told, "{len} bytes that say so");
            }
        }
    }

    #[test]
    fn messages_before_it_are_passed_over_and_lengths_are_not_believed() {
        let other = message(HEADER + 3, libc::SOL_SOCKET, libc::SO_TIMESTAMP, &[1; 3]);
        assert_eq!(asked(&[other.clone(), of(FOUR)].concat()), Some(FOUR));
        assert_eq!(asked(&[of(SIX), other].concat()), Some(SIX));
        for len in [0, 1, HEADER - 1, HEADER + 100, usize::MAX, usize::MAX - 7, usize::MAX / 2] {
            let wrong = message(len, libc::SOL_SOCKET, libc::SO_TIMESTAMP, &[]);
            assert_eq!(asked(&[wrong, of(FOUR)].concat()), None, "{len}");
            let wrong = message(len, libc::IPPROTO_IP, libc::IP_PKTINFO, &[9; 12]);
            assert_eq!(asked(&wrong), None, "{len}");
        }
        // A message of no data is one, and ends.
        assert_eq!(asked(&message(HEADER, libc::IPPROTO_IP, libc::IP_PKTINFO, &[])), None);
    }

    #[test]
    fn groups_and_no_address_are_nothing_to_answer_from() {
        for ip in ["0.0.0.0", "255.255.255.255", "224.0.0.1", "::", "ff02::1"] {
            assert_eq!(asked(&of(ip.parse().unwrap())), None, "{ip}");
        }
    }

    #[test]
    fn any_bytes_end() {
        let mut rng = Rng::from_seed(45);
        let mut told = 0;
        for _ in 0..20_000 {
            let mut bytes = [of(FOUR), of(SIX), of(FOUR)].concat();
            bytes.truncate(rng.below(bytes.len() + 1));
            for _ in 0..rng.below(6) {
                let at = rng.below(bytes.len().max(1));
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = rng.below(256) as u8;
                }
            }
            told += usize::from(asked(&bytes).is_some());
        }
        assert!((1000..19_000).contains(&told), "{told}");
    }
}
