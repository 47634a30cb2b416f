//! A host of the emulated network: a network namespace of its own whose only way out is a TUN device,
//! the other end of which is ours. Host *n* has the address 85.(n+1).0.1 and reaches 85.0.0.0/8.
//!
//! All `unsafe` of the emulator is here.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Command;
use std::thread;
use std::time::Duration;

/// Name of the device in each namespace.
const DEVICE: &str = "wan0";

/// From `linux/if_tun.h`.
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const IFF_TUN: libc::c_short = 0x0001;
const IFF_NO_PI: libc::c_short = 0x1000;

/// Most bytes of a packet: the device's MTU.
pub const MTU: usize = 1500;

/// The namespace and our end of its device. Both are gone with this value, once the last program in
/// the namespace has ended.
pub struct Host {
    /// Its address.
    pub addr: Ipv4Addr,
    tun: File,
    namespace: File,
}

impl Host {
    /// Makes the namespace of host `number`, whose TCP uses the given congestion control. `Err` says
    /// what cannot be done here (most often: not root).
    pub fn new(number: u8, congestion: &str) -> Result<Self, String> {
        let (addr, congestion) = (address(number), congestion.to_owned());
        // A thread of its own, as a namespace belongs to a thread.
        let made = thread::spawn(move || make(addr, &congestion)).join();
        made.map_err(|_| "the thread that makes a namespace has panicked".to_owned())?
    }

    /// Where programs find the namespace while this process lives: `nsenter --net=PATH PROGRAM`.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.namespace.as_raw_fd())
    }

    /// Takes a packet that the host has sent; `None` if there is none now.
    pub fn receive<'a>(&self, buffer: &'a mut [u8; MTU]) -> Option<&'a [u8]> {
        let len = io::Read::read(&mut &self.tun, buffer).ok()?;
        buffer.get(..len)
    }

    /// Gives the host a packet. Like a wire it does not say when the host has no room.
    pub fn deliver(&self, packet: &[u8]) {
        let _ = io::Write::write(&mut &self.tun, packet);
    }
}

/// The address of host `number`.
pub fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(85, number + 1, 0, 1)
}

/// The number of the host to which an IPv4 packet is addressed.
pub fn destination(packet: &[u8]) -> Option<usize> {
    match packet {
        [first, ..] if first >> 4 != 4 => None,
        _ => match packet.get(16..20)? {
            [85, n, 0, 1] => usize::from(*n).checked_sub(1),
            _ => None,
        },
    }
}

/// Waits until one of the hosts has sent something or the time is over.
pub fn wait(hosts: &[Host], also: RawFd, timeout: Option<Duration>) {
    let interest = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut fds: Vec<_> = hosts.iter().map(|host| interest(host.tun.as_raw_fd())).collect();
    fds.push(interest(also));
    let limit = timeout.map(|timeout| libc::timespec {
        tv_sec: timeout.as_secs() as libc::time_t,
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let limit = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: both pointers are valid for the length of the call, and the count is that of the array.
    unsafe { libc::ppoll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, limit, std::ptr::null()) };
}

fn make(addr: Ipv4Addr, congestion: &str) -> Result<Host, String> {
    let told = |what: &str, error: io::Error| format!("{what}: {error}");
    // SAFETY: unshare takes no pointers; CLONE_NEWNET changes the network of this thread only.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return Err(told("no network namespace", io::Error::last_os_error()));
    }
    let namespace = File::open("/proc/thread-self/ns/net").map_err(|error| told("namespace", error))?;
    let tun = device().map_err(|error| told("/dev/net/tun", error))?;
    for args in [
        "link set lo up".to_owned(),
        format!("addr add {addr}/8 dev {DEVICE}"),
        format!("link set {DEVICE} up mtu {MTU} txqueuelen 1000"),
    ] {
        let status = Command::new("ip").args(args.split(' ')).status();
        if !status.as_ref().is_ok_and(std::process::ExitStatus::success) {
            return Err(format!("ip {args}: {status:?}"));
        }
    }
    const SWITCH: &str = "/proc/sys/net/ipv4/tcp_congestion_control";
    std::fs::write(SWITCH, congestion).map_err(|error| told(&format!("{congestion} in {SWITCH}"), error))?;
    Ok(Host { addr, tun, namespace })
}

/// A TUN device in the calling thread's namespace, without the four bytes before each packet.
fn device() -> io::Result<File> {
    let mut options = OpenOptions::new();
    let tun = options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    // SAFETY: ifreq is a plain struct for which all zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(DEVICE.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = IFF_TUN | IFF_NO_PI;
    // SAFETY: the request is valid for the length of the call, and of the type that this call wants.
    if unsafe { libc::ioctl(tun.as_raw_fd(), TUNSETIFF, &raw mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(tun)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destination_is_read_from_the_header() {
        let mut packet = [0; 20];
        packet[0] = 0x45;
        packet[16..].copy_from_slice(&address(3).octets());
        assert_eq!(destination(&packet), Some(3));
        packet[16] = 10;
        assert_eq!(destination(&packet), None, "another network");
        packet[16..].copy_from_slice(&[85, 0, 0, 1]);
        assert_eq!(destination(&packet), None, "no host has this number");
        packet[0] = 0x60;
        assert_eq!(destination(&packet), None, "IPv6");
        assert_eq!(destination(&[0x45; 19]), None, "cut off");
        assert_eq!(destination(&[]), None);
    }
}
