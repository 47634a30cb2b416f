//! [`Writer`]: appends bencode to the caller's buffer. The caller gives keys in ascending order;
//! debug builds check that, and that containers are balanced.

/// An append-only encoder. Does not reserve: the caller knows its buffer.
#[derive(Debug)]
pub struct Writer<'b> {
    out: &'b mut Vec<u8>,
    #[cfg(debug_assertions)]
    open: Vec<Open>,
}

impl<'b> Writer<'b> {
    /// Writes behind what `out` already holds.
    pub fn new(out: &'b mut Vec<u8>) -> Self {
        Self {
            out,
            #[cfg(debug_assertions)]
            open: Vec::new(),
        }
    }

    /// Appends an integer.
    pub fn int(&mut self, number: i64) -> &mut Self {
        self.out.push(b'i');
        if number < 0 {
            self.out.push(b'-');
        }
        self.decimal(number.unsigned_abs());
        self.out.push(b'e');
        self
    }

    /// Appends a byte string.
    #[inline]
    pub fn bytes(&mut self, string: &[u8]) -> &mut Self {
        self.string_len(string.len());
        self.out.extend_from_slice(string);
        self
    }

    /// Appends a key of the innermost dictionary; its value must follow.
    ///
    /// Debug builds panic on a key that is not above the one before.
    #[inline]
    pub fn key(&mut self, key: &[u8]) -> &mut Self {
        self.check_key(key);
        self.bytes(key)
    }

    /// Opens a list.
    pub fn list(&mut self) -> &mut Self {
        self.check_open(false);
        self.out.push(b'l');
        self
    }

    /// Opens a dictionary.
    pub fn dict(&mut self) -> &mut Self {
        self.check_open(true);
        self.out.push(b'd');
        self
    }

    /// Closes the innermost list or dictionary.
    pub fn end(&mut self) -> &mut Self {
        self.check_end();
        self.out.push(b'e');
        self
    }

    /// Appends bytes that are bencode already: a value, or several inside a list.
    #[inline]
    pub fn raw(&mut self, encoded: &[u8]) -> &mut Self {
        self.out.extend_from_slice(encoded);
        self
    }

    #[inline]
    fn string_len(&mut self, len: usize) {
        if let Ok(digit @ 0..10) = u8::try_from(len) {
            self.out.extend_from_slice(&[b'0' + digit, b':']);
        } else {
            self.decimal(len as u64);
            self.out.push(b':');
        }
    }

    fn decimal(&mut self, mut number: u64) {
        let mut digits = [0; 20]; // u64::MAX has twenty digits
        let mut first = digits.len();
        for slot in digits.iter_mut().rev() {
            *slot = b'0' + (number % 10) as u8;
            number /= 10;
            first -= 1;
            if number == 0 {
                break;
            }
        }
        self.out.extend_from_slice(&digits[first..]);
    }
}

/// An open container, for the checks of debug builds.
#[cfg(debug_assertions)]
#[derive(Debug)]
struct Open {
    dict: bool,
    last_key: Option<Vec<u8>>,
}

#[cfg(debug_assertions)]
impl Writer<'_> {
    fn check_key(&mut self, key: &[u8]) {
        let open = self.open.last_mut().expect("a key outside of any container");
        assert!(open.dict, "a key inside a list");
        if let Some(last) = &open.last_key {
            assert!(key > &last[..], "{} after {}", key.escape_ascii(), last.escape_ascii());
        }
        open.last_key = Some(key.to_vec());
    }

    fn check_open(&mut self, dict: bool) {
        self.open.push(Open { dict, last_key: None });
    }

    fn check_end(&mut self) {
        assert!(self.open.pop().is_some(), "nothing to end");
    }
}

#[cfg(not(debug_assertions))]
#[allow(clippy::unused_self)]
impl Writer<'_> {
    #[inline(always)]
    fn check_key(&mut self, _: &[u8]) {}
    #[inline(always)]
    fn check_open(&mut self, _: bool) {}
    #[inline(always)]
    fn check_end(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_out_as_bep_3_prints_them() {
        let mut out = b"before".to_vec();
        let mut writer = Writer::new(&mut out);
        writer.dict().key(b"cow").bytes(b"moo").key(b"spam").list().bytes(b"a").bytes(b"b").end();
        writer.key(b"z").int(-3).end();
        assert_eq!(out, b"befored3:cow3:moo4:spaml1:a1:be1:zi-3ee");
    }

    #[test]
    fn integers_of_every_width_are_written() {
        for number in [0, 1, 9, 10, -1, -10, 99, 100, i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            Writer::new(&mut out).int(number);
            assert_eq!(out, format!("i{number}e").into_bytes());
        }
    }

    #[test]
    fn lengths_of_every_width_are_written() {
        for len in [0, 9, 10, 99, 100, 1024] {
            let mut out = Vec::new();
            Writer::new(&mut out).bytes(&vec![b'x'; len]);
            assert_eq!(out, format!("{len}:{}", "x".repeat(len)).into_bytes());
        }
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "a after b")]
    fn keys_out_of_order_are_a_bug_of_ours() {
        Writer::new(&mut Vec::new()).dict().key(b"b").int(1).key(b"a");
    }
}
