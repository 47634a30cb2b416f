//! Machines that lack an address family, and users who want one only.

use std::process::Command;

use crate::harness::{Finished, Home, NOBODY, Running};
use crate::ipv6::has_ipv6;

/// `serve` at its usual addresses, for a moment.
fn serve(home: &Home, more: &[&str]) -> Command {
    let args = ["serve", "--port", "0", "--no-state", "--shards", "1", "--timeout", "0.2"];
    home.command(&[&args[..], &["--bootstrap", NOBODY], more].concat())
}

/// Where it listened, without ports.
fn hosts(finished: &Finished) -> Vec<&str> {
    let addresses = finished.stdout.lines().map(|line| line.split(' ').nth(1).unwrap());
    addresses.map(|addr| addr.rsplit_once(':').unwrap().0).collect()
}

#[test]
fn one_family_is_had_alone_where_the_user_says_so() {
    let home = Home::new();
    let run = |more: &[&str]| Running::start(&mut serve(&home, more)).finish().expect_code(0);
    assert_eq!(hosts(&run(&["--ipv4-only"])), ["0.0.0.0"]);
    if has_ipv6() {
        assert_eq!(hosts(&run(&["--ipv6-only"])), ["[::]"]);
        assert_eq!(hosts(&run(&[])), ["0.0.0.0", "[::]"]);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_family_that_the_machine_lacks_is_a_warning_and_one_that_was_asked_for_an_error() {
    let home = Home::new();
    let run =
        |lacks: i32, more: &[&str]| Running::start(lacking::family(lacks, &mut serve(&home, more))).finish();
    let finished = run(libc::AF_INET6, &[]).expect_code(0);
    assert_eq!(hosts(&finished), ["0.0.0.0"]);
    let said = finished.error();
    assert!(said.contains("WARN") && said.contains("this machine has no IPv6; going on without"), "{said}");
    let finished = run(libc::AF_INET6, &["--ipv4-only"]).expect_code(0);
    assert_eq!(finished.stderr, "", "nobody asked for it");
    let finished = run(libc::AF_INET6, &["--ipv6-only", "--quiet"]).expect_code(3);
    assert!(finished.error().contains("hint: is --ipv4-only or --ipv6-only right"), "{finished:#?}");
    let finished = run(libc::AF_INET6, &["--bind", "[::1]:0"]).expect_code(3);
    assert!(finished.error().contains("binding [::1]:0"), "{finished:#?}");
    if has_ipv6() {
        let finished = run(libc::AF_INET, &[]).expect_code(0);
        assert_eq!(hosts(&finished), ["[::]"]);
        assert!(finished.error().contains("this machine has no IPv4; going on without"), "{finished:#?}");
    }
}

/// Children for which the kernel lacks a family: a filter on their system calls says so.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
mod lacking {
    use std::io;
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;

    /// Places of the call's number and of the lower half of its first argument in `seccomp_data`, on
    /// little-endian machines.
    const NUMBER: u32 = 0;
    const FIRST: u32 = 16;

    /// Lets `socket(family, ..)` of the child fail as on a machine without `family`.
    pub(super) fn family(family: i32, command: &mut Command) -> &mut Command {
        let load = |at| op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, at);
        let skip_unless = |value, skip| op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, skip, value);
        let end = |what| op(libc::BPF_RET | libc::BPF_K, 0, 0, what);
        let mut filter = [
            load(NUMBER),
            skip_unless(libc::SYS_socket as u32, 3),
            load(FIRST),
            skip_unless(family as u32, 1),
            end(libc::SECCOMP_RET_ERRNO | libc::EAFNOSUPPORT as u32),
            end(libc::SECCOMP_RET_ALLOW),
        ];
        // SAFETY: prctl is safe to call between fork and exec, and nothing else is called; the program
        // that the kernel copies is owned by the closure.
        unsafe {
            command.pre_exec(move || {
                let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
                let done = libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                    && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0;
                if done { Ok(()) } else { Err(io::Error::last_os_error()) }
            })
        }
    }

    fn op(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
        libc::sock_filter { code: code as u16, jt, jf, k }
    }
}
