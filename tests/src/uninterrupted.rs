//! System calls made again when the system breaks them off.

use std::io;

/// Makes `call` until it is not broken off by EINTR. A receive from a socket with a timeout is, without
/// any handler of signals, when the machine is frozen or the process stopped and goes on (signal(7)).
///
/// # Errors
/// Those of `call`, [`io::ErrorKind::Interrupted`] apart.
pub fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_is_broken_off_is_made_again_and_no_other_error_is_passed_over() {
        let mut results = [
            Err(io::ErrorKind::Interrupted.into()),
            Err(io::ErrorKind::Interrupted.into()),
            Err(io::ErrorKind::WouldBlock.into()),
            Ok(1),
        ]
        .into_iter();
        let mut next = || uninterrupted(|| results.next().unwrap());
        assert_eq!(next().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(next().unwrap(), 1);
    }
}
