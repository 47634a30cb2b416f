//! What Linux has and no safe library offers: calls that move several datagrams, [`Headers`]; a socket that is
//! watched for one direction, [`watch`]; and options, [`send_whole`] and [`tell_asked`].
#![allow(unsafe_code)]

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::{fmt, io, mem, ptr};

use arrayvec::ArrayVec;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::control::{Control, ROOM};
use super::slots::{Answers, BATCH, Datagram, Filled, MAX_DATAGRAM, SLOT};

/// Arrays that the kernel reads and writes, kept so that no call has to clear 13 KiB first.
pub(super) struct Headers {
    messages: [libc::mmsghdr; BATCH],
    vectors: [libc::iovec; BATCH],
    /// Where datagrams came from, or go to.
    names: [libc::sockaddr_storage; BATCH],
    /// Datagrams that the next call has room for: twice what the last one got, because to prepare them all
    /// costs a single datagram more than its way through the kernel.
    expected: usize,
    /// Which addresses of ours they came to, or leave from, where that matters.
    controls: Option<Box<[Control; BATCH]>>,
}

/// Whether a receive call waits while nothing is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// It does not.
    No,
    /// Until one datagram is there, or for the socket's timeout; a socket that blocks.
    ForOne,
}

/// Least room for datagrams.
const FEWEST: usize = 8;

// SAFETY: the raw pointers inside are written before each system call and never read after it,
// so it does not matter on which thread the value is.
unsafe impl Send for Headers {}
// SAFETY: all methods take `&mut self`; a shared reference gives access to nothing.
unsafe impl Sync for Headers {}

impl Headers {
    pub(super) fn new() -> Box<Self> {
        // SAFETY: mmsghdr, iovec and sockaddr_storage are plain C structs of integers and raw
        // pointers, for which all bits zero is a valid value, and so it is for an Option of a Box.
        let mut headers: Box<Self> = Box::new(unsafe { mem::zeroed() });
        headers.expected = BATCH;
        headers
    }

    pub(super) fn set_answers(&mut self, answers: Answers) {
        self.controls = match answers {
            Answers::AsRouted => None,
            Answers::AsAsked => Some(Box::new([Control::EMPTY; BATCH])),
        };
    }

    /// One `recvmmsg` into `slots`. Pushes what arrived whole and returns how many arrived in
    /// all, and how many of these were too long.
    pub(super) fn receive(
        &mut self,
        fd: RawFd,
        wait: Wait,
        slots: &mut [u8],
        filled: &mut ArrayVec<Filled, BATCH>,
    ) -> io::Result<(usize, u64)> {
        filled.clear();
        let wanted = self.expected;
        let wanted = slots.chunks_exact_mut(SLOT).take(wanted).enumerate().fold(0, |count, (i, slot)| {
            self.vectors[i] = libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() };
            let message = &mut self.messages[i];
            message.msg_len = 0;
            message.msg_hdr.msg_name = (&raw mut self.names[i]).cast();
            message.msg_hdr.msg_namelen = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            message.msg_hdr.msg_iov = &raw mut self.vectors[i];
            message.msg_hdr.msg_iovlen = 1;
            message.msg_hdr.msg_control = ptr::null_mut();
            message.msg_hdr.msg_controllen = 0;
            message.msg_hdr.msg_flags = 0;
            count + 1
        });
        if let Some(controls) = &mut self.controls {
            for (message, control) in self.messages.iter_mut().zip(controls.iter_mut()).take(wanted as usize)
            {
                message.msg_hdr.msg_control = ptr::from_mut(control).cast();
                message.msg_hdr.msg_controllen = ROOM as _;
            }
        }
        let flags = match wait {
            Wait::No => libc::MSG_DONTWAIT,
            Wait::ForOne => libc::MSG_WAITFORONE,
        };
        // SAFETY: the first `wanted` messages were set up above. Each points at its own iovec,
        // which points at its own `SLOT` bytes of `slots`, at its own sockaddr_storage, and at its own
        // `Control` of `ROOM` bytes or at none; all of these outlive the call, and nothing else refers to them during it. A null timeout
        // is allowed.
        let count = unsafe { libc::recvmmsg(fd, self.messages.as_mut_ptr(), wanted, flags, ptr::null_mut()) };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        self.expected = (2 * count).clamp(FEWEST, BATCH);
        let mut truncated = 0;
        for (slot, message) in self.messages.iter().take(count).enumerate() {
            let len = message.msg_len as usize;
            if message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 || len > MAX_DATAGRAM {
                truncated += 1;
            } else if let Some(from) = source(&self.names[slot]) {
                let asked = self.controls.as_ref().and_then(|controls| {
                    // Its type is another one elsewhere.
                    #[allow(clippy::unnecessary_cast)]
                    controls[slot].asked(message.msg_hdr.msg_controllen as usize)
                });
                filled.push(Filled { slot, len, from, asked });
            }
        }
        Ok((count, truncated))
    }

    /// One `sendmmsg` of up to [`BATCH`] datagrams from the front; returns how many went. An
    /// error is about the first one: the kernel stops before a datagram that it refuses.
    pub(super) fn send(&mut self, fd: RawFd, datagrams: &[Datagram<'_>]) -> io::Result<usize> {
        let count = datagrams.len().min(BATCH);
        for (i, datagram) in datagrams.iter().take(BATCH).enumerate() {
            self.vectors[i] = libc::iovec {
                // The kernel only reads it; the C struct has no const form.
                iov_base: datagram.bytes.as_ptr().cast_mut().cast(),
                iov_len: datagram.bytes.len(),
            };
            let message = &mut self.messages[i];
            message.msg_len = 0;
            message.msg_hdr.msg_namelen = put_target(&mut self.names[i], datagram.to);
            message.msg_hdr.msg_name = (&raw mut self.names[i]).cast();
            message.msg_hdr.msg_iov = &raw mut self.vectors[i];
            message.msg_hdr.msg_iovlen = 1;
            message.msg_hdr.msg_control = ptr::null_mut();
            message.msg_hdr.msg_controllen = 0;
            message.msg_hdr.msg_flags = 0;
            if let Some(ip) = datagram.from
                && let Some(controls) = &mut self.controls
            {
                message.msg_hdr.msg_controllen = controls[i].leave_from(ip) as _;
                message.msg_hdr.msg_control = (&raw mut controls[i]).cast();
            }
        }
        // SAFETY: the first `count` messages were set up above: each points at its own iovec over
        // the bytes of a datagram, at its own address, and at its own `Control`, of which as many bytes
        // are named as it has, or at none. All outlive the call, which writes to
        // nothing but `msg_len`.
        let count = unsafe {
            libc::sendmmsg(
                fd,
                self.messages.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Headers").finish_non_exhaustive()
    }
}

/// Writes an address for the kernel; returns its length.
fn put_target(storage: &mut libc::sockaddr_storage, to: SocketAddr) -> libc::socklen_t {
    match to {
        SocketAddr::V4(to) => {
            // SAFETY: sockaddr_storage is large enough and aligned for every kind of address, and any
            // bytes are a valid value of both structs.
            let v4 = unsafe { &mut *ptr::from_mut(storage).cast::<libc::sockaddr_in>() };
            v4.sin_family = libc::AF_INET as libc::sa_family_t;
            v4.sin_port = to.port().to_be();
            v4.sin_addr.s_addr = u32::from(*to.ip()).to_be();
            mem::size_of::<libc::sockaddr_in>() as libc::socklen_t
        }
        SocketAddr::V6(to) => {
            // SAFETY: as above, for sockaddr_in6.
            let v6 = unsafe { &mut *ptr::from_mut(storage).cast::<libc::sockaddr_in6>() };
            v6.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            v6.sin6_port = to.port().to_be();
            v6.sin6_flowinfo = to.flowinfo();
            v6.sin6_addr.s6_addr = to.ip().octets();
            v6.sin6_scope_id = to.scope_id();
            mem::size_of::<libc::sockaddr_in6>() as libc::socklen_t
        }
    }
}

/// The address that the kernel wrote; `None` for a family that is not IP.
fn source(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: for this family the kernel wrote a sockaddr_in; sockaddr_storage is large
            // enough and aligned for every kind of address.
            let v4 = unsafe { &*ptr::from_ref(storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above, for sockaddr_in6.
            let v6 = unsafe { &*ptr::from_ref(storage).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}

/// Watches a socket for `interest` only.
///
/// # Errors
/// When the system cannot watch one more.
pub(super) fn watch(socket: UdpSocket, interest: Interest) -> io::Result<AsyncFd<UdpSocket>> {
    // SAFETY: a UdpSocket has one open descriptor and the same as long as it lives, and `AsyncFd` keeps it
    // until it is dropped itself: `Watched` never takes it out and hands out shared references only.
    Ok(unsafe { AsyncFd::register_with_interest(socket, interest) }?)
}

/// Has IPv4 datagrams sent in one piece or not at all, as QUIC does: ours are at most 1024 bytes long, which
/// every path of today takes, and what cannot be cut needs no number to be put together by, whose making is
/// 3 % of what sending a small datagram costs. IPv6 has none anyway. Without it all works as well.
pub(super) fn send_whole(socket: &impl AsRawFd) {
    let _ = set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE);
}

/// Has the kernel tell, or not, to which address each datagram came.
///
/// # Errors
/// What the system says.
pub(super) fn tell_asked(socket: &impl AsRawFd, is_ipv6: bool, answers: Answers) -> io::Result<()> {
    let (level, name) = if is_ipv6 {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)
    } else {
        (libc::IPPROTO_IP, libc::IP_PKTINFO)
    };
    set(socket, level, name, (answers == Answers::AsAsked).into())
}

/// Sets an option of a socket.
fn set(socket: &impl AsRawFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the value outlives the call, which reads as many bytes of it as are named.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
