//! A private network of many internet-like addresses on one machine: a network namespace of the
//! calling thread in which every address of 85.0.0.0/8, fd85::/16 and 2a85::/16 is local.
//!
//! Loopback itself misleads: transmission's DHT drops 127/8, libtorrent lifts its limits there. No
//! packet can leave: the namespace has no interface but its own loopback.
#![allow(unsafe_code)]

use std::process::Command;

/// Moves the calling thread, and with it every process and thread that it starts afterwards, into a
/// fresh network namespace; the kernel removes it when the last of them ends. `Err` says why it
/// cannot be done here (most often: not root).
pub fn enter() -> Result<(), String> {
    // SAFETY: unshare takes no pointers; CLONE_NEWNET changes the network of this thread only.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return Err(format!("no network namespace: {}", std::io::Error::last_os_error()));
    }
    for args in [
        "link set lo up",
        "route add local 85.0.0.0/8 dev lo",
        "-6 route add local fd85::/16 dev lo",
        "-6 route add local 2a85::/16 dev lo",
    ] {
        let status = Command::new("ip").args(args.split(' ')).status();
        if !status.as_ref().is_ok_and(std::process::ExitStatus::success) {
            return Err(format!("ip {args}: {status:?}"));
        }
    }
    Ok(())
}

/// Lets sockets of the calling thread's namespace bind every address below 2a85::/16, as they can those
/// of IPv4. `Err` says why not (most often: `/proc/sys` is read-only).
pub fn bind_any_ipv6() -> Result<(), String> {
    const SWITCH: &str = "/proc/sys/net/ipv6/ip_nonlocal_bind";
    std::fs::write(SWITCH, "1").map_err(|error| format!("{SWITCH}: {error}"))
}

/// Moves the calling thread into a mount namespace of its own, so that what it mounts is seen by its
/// children only and vanishes with them.
pub fn enter_mounts() -> Result<(), String> {
    // SAFETY: as above; CLONE_FS is implied for a thread that asks for a mount namespace.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return Err(format!("no mount namespace: {}", std::io::Error::last_os_error()));
    }
    let status = Command::new("mount").args(["--make-rprivate", "/"]).status();
    if status.as_ref().is_ok_and(std::process::ExitStatus::success) {
        Ok(())
    } else {
        Err(format!("mount --make-rprivate /: {status:?}"))
    }
}
