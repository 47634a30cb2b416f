//! Faults of the system for a child process: few descriptors, a disk with a bad place, one that cannot
//! reserve space, calls that are not there.
#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Where struct seccomp_data has the number of the call.
const NUMBER: u32 = 0;
const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const ANSWER: u32 = libc::BPF_RET | libc::BPF_K;

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
    fail_from(command, [libc::SYS_pwritev, libc::SYS_pwritev2, libc::SYS_pwrite64], from);
}

/// The same for positioned reads.
pub fn fail_reads_from(command: &mut Command, from: u32) {
    fail_from(command, [libc::SYS_preadv, libc::SYS_preadv2, libc::SYS_pread64], from);
}

fn fail_from(command: &mut Command, calls: [libc::c_long; 3], from: u32) {
    // Of their arguments the fourth, which is the position in all of them; its lower half is enough for
    // the files of tests.
    const POSITION: u32 = if cfg!(target_endian = "little") { 40 } else { 44 };
    let at_least = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
    let [one, two, three] = calls.map(|call| call as u32);
    filter_calls(
        command,
        [
            step(LOAD, NUMBER, 0, 0),
            step(EQUAL, one, 2, 0),
            step(EQUAL, two, 1, 0),
            step(EQUAL, three, 0, 2),
            step(LOAD, POSITION, 0, 0),
            step(at_least, from, 1, 0),
            step(ANSWER, libc::SECCOMP_RET_ALLOW, 0, 0),
            step(ANSWER, libc::SECCOMP_RET_ERRNO | libc::EIO as u32, 0, 0),
        ],
    );
}

/// The command finds no file system that can reserve space (`fallocate` is EOPNOTSUPP).
pub fn refuse_fallocate(command: &mut Command) {
    refuse(command, libc::SYS_fallocate, libc::EOPNOTSUPP);
}

/// The command finds file systems that know of no sync (EINVAL), as those that cannot be written to.
pub fn refuse_fsync(command: &mut Command) {
    refuse(command, libc::SYS_fsync, libc::EINVAL);
}

/// The command finds a kernel that has no `openat2` (ENOSYS), or may not ask it (EPERM).
pub fn refuse_openat2(command: &mut Command, errno: i32) {
    refuse(command, libc::SYS_openat2, errno);
}

fn refuse(command: &mut Command, call: libc::c_long, errno: libc::c_int) {
    filter_calls(
        command,
        [
            step(LOAD, NUMBER, 0, 0),
            step(EQUAL, call as u32, 1, 0),
            step(ANSWER, libc::SECCOMP_RET_ALLOW, 0, 0),
            step(ANSWER, libc::SECCOMP_RET_ERRNO | errno as u32, 0, 0),
        ],
    );
}

const fn step(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

/// Lets the kernel judge each call of the command by a program (seccomp).
fn filter_calls<const N: usize>(command: &mut Command, mut program: [libc::sock_filter; N]) {
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
