//! [`Strings`]: a list of byte strings that stays in wire form.

use std::fmt;

use crate::{DecodeError, DecodeErrorKind};

/// Consecutive bencoded byte strings, the inside of a list such as `values` (BEP 5): checked once,
/// read in place, written without a copy per string.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Strings<'a> {
    raw: &'a [u8],
    count: u32,
}

impl<'a> Strings<'a> {
    /// Wraps `raw`, the bytes between the `l` and the `e` of a list, if they are whole strings.
    /// [`crate::compact::put_value`] builds them.
    pub fn from_raw(raw: &'a [u8]) -> Result<Self, DecodeError> {
        let (mut at, mut count) = (0, 0);
        while at < raw.len() {
            let (_, next) = read_string(raw, at)?;
            at = next;
            count += 1;
        }
        Ok(Self { raw, count })
    }

    /// For a reader that has just counted these strings.
    pub(crate) fn from_checked(raw: &'a [u8], count: u32) -> Self {
        Self { raw, count }
    }

    /// The wire form, without the list's `l` and `e`.
    pub fn as_raw(&self) -> &'a [u8] {
        self.raw
    }

    /// How many strings there are.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there is no string at all.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Iterates over the strings.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        let raw = self.raw;
        let mut at = 0;
        std::iter::from_fn(move || {
            let (string, next) = read_string(raw, at).ok()?;
            at = next;
            Some(string)
        })
    }
}

impl fmt::Debug for Strings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|string| string.escape_ascii().to_string())).finish()
    }
}

/// Reads the string that begins at `at`; returns it and the offset behind it.
#[inline]
pub(super) fn read_string(bytes: &[u8], at: usize) -> Result<(&[u8], usize), DecodeError> {
    let fail = |kind, at: usize| Err(DecodeError { kind, at: u32::try_from(at).unwrap_or(u32::MAX) });
    let mut len = match bytes.get(at) {
        Some(digit @ b'0'..=b'9') => usize::from(digit - b'0'),
        Some(_) => return fail(DecodeErrorKind::UnexpectedByte, at),
        None => return fail(DecodeErrorKind::Truncated, at),
    };
    let mut colon = at + 1;
    loop {
        match bytes.get(colon) {
            Some(b':') => break,
            Some(digit @ b'0'..=b'9') if len != 0 => len = len * 10 + usize::from(digit - b'0'),
            Some(_) => return fail(DecodeErrorKind::BadLength, colon),
            None => return fail(DecodeErrorKind::Truncated, colon),
        }
        // Also keeps `len` from overflowing, however many digits a stranger sends.
        if len > bytes.len() {
            return fail(DecodeErrorKind::LengthPastEnd, at);
        }
        colon += 1;
    }
    let start = colon + 1;
    match bytes.get(start..start + len) {
        Some(string) => Ok((string, start + len)),
        None => fail(DecodeErrorKind::LengthPastEnd, at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_strings_are_counted_and_iterated() {
        let strings = Strings::from_raw(b"6:axje.u6:idhtnm0:").unwrap();
        assert_eq!(strings.len(), 3);
        assert_eq!(strings.iter().collect::<Vec<_>>(), [&b"axje.u"[..], b"idhtnm", b""]);
        assert!(Strings::from_raw(b"").unwrap().is_empty());
    }

    #[test]
    fn anything_else_is_refused() {
        for (raw, kind) in [
            (&b"6:axje."[..], DecodeErrorKind::LengthPastEnd),
            (b"i1e", DecodeErrorKind::UnexpectedByte),
            (b"06:axje.u", DecodeErrorKind::BadLength),
            (b"1", DecodeErrorKind::Truncated),
            (b"99999999999999999999999999:a", DecodeErrorKind::LengthPastEnd),
            (b"1:ae", DecodeErrorKind::UnexpectedByte),
        ] {
            assert_eq!(Strings::from_raw(raw).map_err(|error| error.kind), Err(kind));
        }
    }
}
