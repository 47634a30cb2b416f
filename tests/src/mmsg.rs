//! A UDP socket that speaks for many addresses: `recvmmsg` and `sendmmsg` with `IP_PKTINFO`, so that
//! one thread can be 20,000 sources. For load generators and the floor, inside [`crate::netns`].
//!
//! All `unsafe` of the load generator is here.
#![allow(unsafe_code)]

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::ptr::null_mut;

/// Datagrams per call.
pub const BATCH: usize = 64;

/// Bytes of a datagram that are kept.
const MAX_LEN: usize = 2048;

/// One datagram, in or out.
#[derive(Clone)]
pub struct Packet {
    bytes: [u8; MAX_LEN],
    len: usize,
    /// The other side.
    pub remote: SocketAddrV4,
    /// Our address: where it arrived, or where it shall seem to come from (unspecified: any).
    pub local: Ipv4Addr,
}

impl Packet {
    fn empty() -> Self {
        let remote = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
        Self { bytes: [0; MAX_LEN], len: 0, remote, local: Ipv4Addr::UNSPECIFIED }
    }

    /// The payload.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Makes the payload `len` bytes long, with whatever was behind it.
    pub fn set_len(&mut self, len: usize) {
        self.len = len.min(MAX_LEN);
    }
}

/// Whether a socket speaks for one address or for all of its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// The address that it is bound to; [`Packet::local`] stays unspecified.
    ForOne,
    /// Any local address, by `IP_PKTINFO`.
    ForAll,
}

/// The socket with its receive slots and its queue of datagrams to send.
pub struct Socket {
    inner: UdpSocket,
    inbox: Vec<Packet>,
    outbox: Vec<Packet>,
    queued: usize,
    headers: Headers,
    speaks: Speaks,
}

impl Socket {
    /// Binds with buffers of 8 MiB (as root past the system's limit).
    pub fn bind(addr: SocketAddrV4, speaks: Speaks) -> io::Result<Self> {
        let inner = UdpSocket::bind(addr)?;
        for (level, name, value) in [
            (libc::IPPROTO_IP, libc::IP_PKTINFO, i32::from(speaks == Speaks::ForAll)),
            (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 8 << 20),
            (libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, 8 << 20),
        ] {
            // SAFETY: the value outlives the call and its size is given.
            let result = unsafe {
                libc::setsockopt(
                    inner.as_raw_fd(),
                    level,
                    name,
                    (&raw const value).cast(),
                    size_of::<libc::c_int>() as libc::socklen_t,
                )
            };
            if result != 0 && level == libc::IPPROTO_IP {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(Self {
            inner,
            inbox: vec![Packet::empty(); BATCH],
            outbox: vec![Packet::empty(); BATCH],
            queued: 0,
            headers: Headers::new(),
            speaks,
        })
    }

    /// Where it is bound.
    pub fn local_addr(&self) -> io::Result<SocketAddrV4> {
        match self.inner.local_addr()? {
            SocketAddr::V4(addr) => Ok(addr),
            SocketAddr::V6(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Receives up to [`BATCH`] datagrams into [`Socket::received`]; with `wait`, at least one.
    pub fn receive(&mut self, wait: bool) -> io::Result<usize> {
        let headers = &mut self.headers;
        for (n, packet) in self.inbox.iter_mut().enumerate() {
            headers.set(n, packet.bytes.as_mut_ptr(), MAX_LEN, self.speaks == Speaks::ForAll);
        }
        let flags = if wait { libc::MSG_WAITFORONE } else { libc::MSG_DONTWAIT };
        // SAFETY: all pointers in the first BATCH headers were just set to buffers that live in self.
        let count = unsafe {
            libc::recvmmsg(
                self.inner.as_raw_fd(),
                headers.messages.as_mut_ptr(),
                BATCH as u32,
                flags as _,
                null_mut(),
            )
        };
        if count < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::WouldBlock { Ok(0) } else { Err(error) };
        }
        for (n, packet) in self.inbox.iter_mut().enumerate().take(count as usize) {
            packet.len = (headers.messages[n].msg_len as usize).min(MAX_LEN);
            packet.remote = address(&headers.names[n]);
            packet.local = headers.destination(n, self.speaks);
        }
        Ok(count as usize)
    }

    /// The datagram in slot `n` of the last [`Socket::receive`].
    pub fn received(&self, n: usize) -> &Packet {
        &self.inbox[n]
    }

    /// Queues what was received in slot `n` to go back, changed by `change`, without copying it.
    pub fn reflect(&mut self, n: usize, change: impl FnOnce(&mut Packet)) -> io::Result<()> {
        if self.queued == BATCH {
            self.flush()?;
        }
        std::mem::swap(&mut self.inbox[n], &mut self.outbox[self.queued]);
        change(&mut self.outbox[self.queued]);
        self.queued += 1;
        Ok(())
    }

    /// Queues a datagram; sends the queue when it is full.
    pub fn send(&mut self, local: Ipv4Addr, remote: SocketAddrV4, bytes: &[u8]) -> io::Result<()> {
        if self.queued == BATCH {
            self.flush()?;
        }
        let packet = &mut self.outbox[self.queued];
        packet.len = bytes.len();
        packet.bytes[..bytes.len()].copy_from_slice(bytes);
        (packet.local, packet.remote) = (local, remote);
        self.queued += 1;
        Ok(())
    }

    /// Sends the queue.
    pub fn flush(&mut self) -> io::Result<()> {
        let headers = &mut self.headers;
        for (n, packet) in self.outbox.iter_mut().enumerate().take(self.queued) {
            headers.names[n] = name(packet.remote);
            headers.set(n, packet.bytes.as_mut_ptr(), packet.len, !packet.local.is_unspecified());
            headers.set_source(n, packet.local);
        }
        let mut done = 0;
        while done < self.queued {
            // SAFETY: the headers from `done` to `queued` were just set to buffers that live in self.
            let sent = unsafe {
                libc::sendmmsg(
                    self.inner.as_raw_fd(),
                    headers.messages.as_mut_ptr().add(done),
                    (self.queued - done) as u32,
                    0,
                )
            };
            if sent < 0 {
                return Err(io::Error::last_os_error());
            }
            done += sent as usize;
        }
        self.queued = 0;
        Ok(())
    }
}

/// What the system calls are given: only valid during a call, set anew before each.
struct Headers {
    messages: Vec<libc::mmsghdr>,
    vectors: Vec<libc::iovec>,
    names: Vec<libc::sockaddr_in>,
    controls: Vec<[u64; 8]>,
}

// SAFETY: the raw pointers in the headers are set anew before every call and never followed between.
unsafe impl Send for Headers {}

impl Headers {
    fn new() -> Self {
        // SAFETY: all of these are plain C structs for which zeros are a value.
        unsafe {
            Self {
                messages: (0..BATCH).map(|_| zeroed()).collect(),
                vectors: (0..BATCH).map(|_| zeroed()).collect(),
                names: vec![zeroed(); BATCH],
                controls: vec![[0; 8]; BATCH],
            }
        }
    }

    fn set(&mut self, n: usize, bytes: *mut u8, len: usize, control: bool) {
        self.vectors[n] = libc::iovec { iov_base: bytes.cast(), iov_len: len };
        let header = &mut self.messages[n].msg_hdr;
        header.msg_name = (&raw mut self.names[n]).cast();
        header.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        header.msg_iov = &raw mut self.vectors[n];
        header.msg_iovlen = 1;
        header.msg_control = if control { (&raw mut self.controls[n]).cast() } else { null_mut() };
        header.msg_controllen = if control { size_of::<[u64; 8]>() as _ } else { 0 };
        header.msg_flags = 0;
    }

    /// Makes message `n` come from `local`.
    fn set_source(&mut self, n: usize, local: Ipv4Addr) {
        if local.is_unspecified() {
            return;
        }
        let header = &mut self.messages[n].msg_hdr;
        // SAFETY: msg_control points to 64 zeroed or formerly used bytes, more than CMSG_SPACE of one
        // in_pktinfo, and is aligned for cmsghdr (u64).
        unsafe {
            header.msg_controllen = libc::CMSG_SPACE(size_of::<libc::in_pktinfo>() as u32) as _;
            let control = libc::CMSG_FIRSTHDR(header);
            (*control).cmsg_level = libc::IPPROTO_IP;
            (*control).cmsg_type = libc::IP_PKTINFO;
            (*control).cmsg_len = libc::CMSG_LEN(size_of::<libc::in_pktinfo>() as u32) as _;
            let mut info: libc::in_pktinfo = zeroed();
            info.ipi_spec_dst.s_addr = u32::from(local).to_be();
            libc::CMSG_DATA(control).cast::<libc::in_pktinfo>().write_unaligned(info);
        }
    }

    /// The address that message `n` was sent to.
    fn destination(&self, n: usize, speaks: Speaks) -> Ipv4Addr {
        if speaks == Speaks::ForOne {
            return Ipv4Addr::UNSPECIFIED;
        }
        let header = &self.messages[n].msg_hdr;
        // SAFETY: the kernel wrote msg_controllen bytes of control messages; the macros stay inside.
        unsafe {
            let mut control = libc::CMSG_FIRSTHDR(header);
            while !control.is_null() {
                if (*control).cmsg_level == libc::IPPROTO_IP && (*control).cmsg_type == libc::IP_PKTINFO {
                    let info = libc::CMSG_DATA(control).cast::<libc::in_pktinfo>().read_unaligned();
                    return Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr));
                }
                control = libc::CMSG_NXTHDR(header, control);
            }
        }
        Ipv4Addr::UNSPECIFIED
    }
}

fn address(name: &libc::sockaddr_in) -> SocketAddrV4 {
    SocketAddrV4::new(u32::from_be(name.sin_addr.s_addr).into(), u16::from_be(name.sin_port))
}

fn name(addr: SocketAddrV4) -> libc::sockaddr_in {
    // SAFETY: a plain C struct for which zeros are a value.
    let mut name: libc::sockaddr_in = unsafe { zeroed() };
    name.sin_family = libc::AF_INET as libc::sa_family_t;
    name.sin_port = addr.port().to_be();
    name.sin_addr.s_addr = u32::from(*addr.ip()).to_be();
    name
}
