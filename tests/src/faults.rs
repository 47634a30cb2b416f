//! Faults of the system for a child process: few descriptors, a disk with a bad place.
#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Lets this process have as many descriptors open as it may, and says how many that is.
pub fn raise_descriptors() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get a pointer to a limit that outlives them.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0, "a limit that always exists");
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0, "up to the hard limit");
    }
    limit.rlim_cur
}

/// The command can have `most` descriptors open (`ulimit -n`), and cannot help it.
pub fn limit_descriptors(command: &mut Command, most: u64) {
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: setrlimit may be called between fork and exec; the closure owns the limit.
    unsafe {
        command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
}

/// Positioned writes of the command at `from` and behind it, in whatever file, fail with EIO: its calls
/// are filtered by the kernel (seccomp).
pub fn fail_writes_from(command: &mut Command, from: u32) {
    // struct seccomp_data: the number of the call, then of its arguments the fourth, which is the
    // position in all three calls; its lower half is enough for the files of tests.
    const NUMBER: u32 = 0;
    const POSITION: u32 = if cfg!(target_endian = "little") { 40 } else { 44 };
    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let at_least = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
    let answer = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        step(load, NUMBER, 0, 0),
        step(equal, libc::SYS_pwritev as u32, 2, 0),
        step(equal, libc::SYS_pwritev2 as u32, 1, 0),
        step(equal, libc::SYS_pwrite64 as u32, 0, 2),
        step(load, POSITION, 0, 0),
        step(at_least, from, 1, 0),
        step(answer, libc::SECCOMP_RET_ALLOW, 0, 0),
        step(answer, libc::SECCOMP_RET_ERRNO | libc::EIO as u32, 0, 0),
    ];
    // SAFETY: prctl may be called between fork and exec; the closure owns the program, whose length is
    // told right.
    unsafe {
        command.pre_exec(move || {
            let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
            if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
                || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) != 0
            {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
}
