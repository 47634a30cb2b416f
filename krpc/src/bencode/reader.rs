//! [`Reader`]: a pull reader over borrowed bytes. It neither recurses nor builds anything: memory
//! is one frame of 16 bytes per open container, the first ten of them inside the reader.

use std::cmp::Ordering;

use super::Limits;
use super::strings::read_string;
use crate::{DecodeError, DecodeErrorKind};

/// One step of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// An integer.
    Int(i64),
    /// A byte string; inside a dictionary keys and values take turns.
    Bytes(&'a [u8]),
    /// A list opens.
    List,
    /// A dictionary opens.
    Dict,
    /// The innermost open container closes.
    End,
}

/// What comes next, by its first byte alone; see [`Reader::peek`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An integer.
    Int,
    /// A byte string (or a key).
    Bytes,
    /// A list.
    List,
    /// A dictionary.
    Dict,
    /// The end of the innermost open container.
    End,
}

/// Reads a document front to back, token by token or with the typed methods below. After an error
/// the reader stays where it is; there is no way to go on.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    pos: usize,
    top: Frame,
    depth: u32,
    max_depth: u32,
    tokens_left: u32,
    /// Tokens that may be looked at again to find duplicates in unsorted dictionaries.
    rescan_left: u32,
    unsorted: u32,
    strict: bool,
    too_long: bool,
    inline: [Frame; INLINE],
    spilled: Vec<Frame>,
}

impl<'a> Reader<'a> {
    /// A reader that accepts unsorted keys and counts them.
    pub fn new(bytes: &'a [u8], limits: Limits) -> Self {
        let too_long = bytes.len() > limits.len.min(u32::MAX as usize);
        Self {
            bytes: if too_long { &[] } else { bytes },
            pos: 0,
            top: Frame::default(),
            depth: 0,
            max_depth: limits.depth.min(Limits::MAX_DEPTH),
            tokens_left: limits.tokens,
            rescan_left: limits.tokens.saturating_mul(RESCANS),
            unsorted: 0,
            strict: false,
            too_long,
            inline: [Frame::default(); INLINE],
            spilled: Vec::new(),
        }
    }

    /// A reader that accepts the canonical form only: unsorted keys are an error. For what gets
    /// signed (BEP 44 `v`).
    pub fn strict(bytes: &'a [u8], limits: Limits) -> Self {
        Self { strict: true, ..Self::new(bytes, limits) }
    }

    /// The next token. Past the end of the document: `TrailingBytes` or `Truncated`.
    #[allow(clippy::should_implement_trait)] // an iterator would go on after an error
    #[inline]
    pub fn next(&mut self) -> Result<Token<'a>, DecodeError> {
        let Some(&byte) = self.bytes.get(self.pos) else {
            return Err(self.fail(if self.too_long {
                DecodeErrorKind::TooLong
            } else {
                DecodeErrorKind::Truncated
            }));
        };
        match (self.top.state, byte) {
            (State::Key | State::List, b'e') => Ok(self.close()),
            (State::Key, _) => self.read_key(byte).map(Token::Bytes),
            (State::Done, _) => Err(self.fail(DecodeErrorKind::TrailingBytes)),
            (_, b'0'..=b'9') => self.read_bytes().map(Token::Bytes),
            (_, b'i') => self.read_int(),
            (_, b'l') => self.open(State::List),
            (_, b'd') => self.open(State::Key),
            _ => Err(self.fail(DecodeErrorKind::UnexpectedByte)),
        }
    }

    /// Skips the next value with all that it holds; returns its bytes as they came.
    pub fn skip(&mut self) -> Result<&'a [u8], DecodeError> {
        let (start, depth) = (self.pos, self.depth);
        if self.peek() == Some(Kind::End) && depth > 0 {
            return Err(self.fail(DecodeErrorKind::UnexpectedByte));
        }
        loop {
            self.next()?;
            if self.depth == depth {
                return Ok(self.since(start));
            }
        }
    }

    /// Enters the dictionary that must come next. Then call [`Reader::key`] until it says `None`.
    pub fn expect_dict(&mut self) -> Result<(), DecodeError> {
        self.expect(Kind::Dict)
    }

    /// Enters the list that must come next. Then call [`Reader::item`] before each value.
    pub fn expect_list(&mut self) -> Result<(), DecodeError> {
        self.expect(Kind::List)
    }

    /// The next key of the innermost dictionary, whose value must be read or skipped before the
    /// next call; `None` once the dictionary is left.
    #[inline]
    pub fn key(&mut self) -> Result<Option<&'a [u8]>, DecodeError> {
        debug_assert_eq!(self.top.state, State::Key, "the value of the last key was not read");
        match self.bytes.get(self.pos) {
            Some(b'e') if self.top.state == State::Key => {
                self.close();
                Ok(None)
            }
            Some(&byte) if self.top.state == State::Key => self.read_key(byte).map(Some),
            _ => Err(self.wrong_type()),
        }
    }

    /// Whether the innermost list has another value; the list is left when it has none.
    #[inline]
    pub fn item(&mut self) -> Result<bool, DecodeError> {
        debug_assert_eq!(self.top.state, State::List, "not between the values of a list");
        if self.peek() == Some(Kind::End) {
            self.next()?;
            return Ok(false);
        }
        Ok(true)
    }

    /// The integer that must come next.
    pub fn int(&mut self) -> Result<i64, DecodeError> {
        match self.peek() {
            Some(Kind::Int) => match self.next()? {
                Token::Int(number) => Ok(number),
                _ => unreachable!("the byte says integer"),
            },
            _ => Err(self.wrong_type()),
        }
    }

    /// The byte string that must come next.
    #[inline]
    pub fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        match self.peek() {
            Some(Kind::Bytes) if !matches!(self.top.state, State::Key | State::Done) => self.read_bytes(),
            _ => Err(self.wrong_type()),
        }
    }

    /// The next value if it is an integer; anything else is skipped.
    pub fn int_or_skip(&mut self) -> Result<Option<i64>, DecodeError> {
        match self.peek() {
            Some(Kind::Int) => self.int().map(Some),
            _ => self.skip().map(|_| None),
        }
    }

    /// The next value if it is a byte string; anything else is skipped.
    #[inline]
    pub fn bytes_or_skip(&mut self) -> Result<Option<&'a [u8]>, DecodeError> {
        match self.peek() {
            Some(Kind::Bytes) => self.bytes().map(Some),
            _ => self.skip().map(|_| None),
        }
    }

    /// Ends the reading: the document must be complete and nothing may follow it.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.top.state {
            State::Done if self.pos == self.bytes.len() => Ok(()),
            State::Done => Err(self.fail(DecodeErrorKind::TrailingBytes)),
            _ => Err(self.fail(DecodeErrorKind::Truncated)),
        }
    }

    /// What comes next, judged by one byte; `None` for a byte that starts nothing or at the end.
    #[inline]
    pub fn peek(&self) -> Option<Kind> {
        match self.bytes.get(self.pos)? {
            b'0'..=b'9' => Some(Kind::Bytes),
            b'i' => Some(Kind::Int),
            b'l' => Some(Kind::List),
            b'd' => Some(Kind::Dict),
            b'e' => Some(Kind::End),
            _ => None,
        }
    }

    /// Offset of the next token.
    pub fn position(&self) -> usize {
        self.pos
    }

    /// The bytes from `start`, an earlier [`Reader::position`], up to here: the raw span of what
    /// was read in between. Hashes and signatures are taken over these, never over a re-encoding.
    pub fn since(&self, start: usize) -> &'a [u8] {
        self.bytes.get(start..self.pos).unwrap_or_default()
    }

    /// Open containers.
    pub fn depth(&self) -> u32 {
        self.depth
    }

    /// Whether the document, as far as read, has its keys in ascending order everywhere. All else
    /// that makes a document canonical is enforced.
    pub fn is_canonical(&self) -> bool {
        self.unsorted == 0
    }

    /// Keys that came after a greater one.
    pub fn unsorted(&self) -> u32 {
        self.unsorted
    }

    /// An error of `kind` at the next token, for callers that find a value wanting.
    pub fn fail(&self, kind: DecodeErrorKind) -> DecodeError {
        DecodeError { kind, at: offset(self.pos) }
    }

    fn expect(&mut self, kind: Kind) -> Result<(), DecodeError> {
        if self.peek() != Some(kind) {
            return Err(self.wrong_type());
        }
        self.next().map(|_| ())
    }

    /// The next value is not what the caller wants; if it is not even a value, says so instead.
    #[cold]
    fn wrong_type(&mut self) -> DecodeError {
        let error = self.fail(DecodeErrorKind::WrongType);
        match self.peek() {
            Some(Kind::End) if self.depth > 0 => error,
            Some(_) if self.top.state != State::Done => error,
            _ => self.next().err().unwrap_or(error),
        }
    }

    #[inline]
    fn count_token(&mut self) -> Result<(), DecodeError> {
        match self.tokens_left.checked_sub(1) {
            Some(left) => self.tokens_left = left,
            None => return Err(self.fail(DecodeErrorKind::TooManyTokens)),
        }
        Ok(())
    }

    /// A byte string that is no key.
    #[inline]
    fn read_bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let (string, next) = read_string(self.bytes, self.pos)?;
        self.count_token()?;
        self.pos = next;
        self.top.state = self.top.state.after_value();
        Ok(string)
    }

    fn read_int(&mut self) -> Result<Token<'a>, DecodeError> {
        let digit_at = |at| self.bytes.get(at).copied();
        let mut at = self.pos + 1;
        let negative = digit_at(at) == Some(b'-');
        if negative {
            at += 1;
        }
        let first = at;
        // Counts downwards: i64::MIN has no positive counterpart.
        let mut number = 0_i64;
        loop {
            let kind = match digit_at(at) {
                Some(b'e') if at > first => break,
                // A leading zero, or the zero of `-0`.
                Some(b'0') if at == first && (negative || digit_at(at + 1) != Some(b'e')) => {
                    match digit_at(at + 1) {
                        None => DecodeErrorKind::Truncated,
                        Some(_) => DecodeErrorKind::BadInteger,
                    }
                }
                Some(digit @ b'0'..=b'9') => {
                    match number.checked_mul(10).and_then(|tens| tens.checked_sub(i64::from(digit - b'0'))) {
                        Some(next) => {
                            number = next;
                            at += 1;
                            continue;
                        }
                        None => DecodeErrorKind::IntegerOverflow,
                    }
                }
                Some(_) => DecodeErrorKind::BadInteger,
                None => DecodeErrorKind::Truncated,
            };
            return Err(DecodeError { kind, at: offset(at) });
        }
        if !negative {
            number = number
                .checked_neg()
                .ok_or_else(|| DecodeError { kind: DecodeErrorKind::IntegerOverflow, at: offset(first) })?;
        }
        self.count_token()?;
        self.pos = at + 1;
        self.top.state = self.top.state.after_value();
        Ok(Token::Int(number))
    }

    #[inline]
    fn read_key(&mut self, byte: u8) -> Result<&'a [u8], DecodeError> {
        if !byte.is_ascii_digit() {
            return Err(self.fail(match byte {
                b'i' | b'l' | b'd' => DecodeErrorKind::KeyNotString,
                _ => DecodeErrorKind::UnexpectedByte,
            }));
        }
        let (key, next) = read_string(self.bytes, self.pos)?;
        self.count_token()?;
        match self.top.last_key(self.bytes).map_or(Ordering::Greater, |last| compare(key, last)) {
            Ordering::Greater => {
                self.top.key_end = offset(next);
                self.top.key_len = offset(key.len());
            }
            Ordering::Equal => return Err(self.fail(DecodeErrorKind::DuplicateKey)),
            Ordering::Less if self.strict => return Err(self.fail(DecodeErrorKind::UnsortedKeys)),
            Ordering::Less => {
                self.unsorted += 1;
                self.refuse_repetition(key)?;
            }
        }
        self.pos = next;
        self.top.state = State::Value;
        Ok(key)
    }

    /// Looks for `key` among the earlier keys of the innermost dictionary.
    ///
    /// A key above the greatest so far is new, so this runs for the others only, over bytes that
    /// were read before, and keeps no set. All such walks together may touch [`RESCANS`] times the
    /// token limit; a document that needs more is refused as `TooManyTokens`.
    #[cold]
    fn refuse_repetition(&mut self, key: &[u8]) -> Result<(), DecodeError> {
        let mut at = self.top.start as usize;
        while at < self.pos {
            let (earlier, value) = read_string(self.bytes, at)?;
            if earlier == key {
                return Err(self.fail(DecodeErrorKind::DuplicateKey));
            }
            at = self.skim(value)?;
        }
        Ok(())
    }

    /// The offset behind the value at `at`, which was read before.
    fn skim(&mut self, mut at: usize) -> Result<usize, DecodeError> {
        let mut open = 0_u32;
        loop {
            match self.rescan_left.checked_sub(1) {
                Some(left) => self.rescan_left = left,
                None => return Err(self.fail(DecodeErrorKind::TooManyTokens)),
            }
            match self.bytes.get(at) {
                Some(b'l' | b'd') => (open, at) = (open + 1, at + 1),
                Some(b'e') => (open, at) = (open.saturating_sub(1), at + 1),
                Some(b'i') => {
                    let rest = self.bytes.get(at..).unwrap_or_default();
                    at += rest.iter().position(|&byte| byte == b'e').map_or(rest.len(), |end| end + 1);
                }
                _ => at = read_string(self.bytes, at)?.1,
            }
            if open == 0 {
                return Ok(at);
            }
        }
    }

    #[inline]
    fn open(&mut self, inside: State) -> Result<Token<'a>, DecodeError> {
        if self.depth >= self.max_depth {
            return Err(self.fail(DecodeErrorKind::TooDeep));
        }
        self.count_token()?;
        self.top.state = self.top.state.after_value();
        match self.inline.get_mut(self.depth as usize) {
            Some(slot) => *slot = self.top,
            None => self.spilled.push(self.top),
        }
        self.depth += 1;
        self.pos += 1;
        self.top = Frame { start: offset(self.pos), key_end: 0, key_len: 0, state: inside };
        Ok(if inside == State::List { Token::List } else { Token::Dict })
    }

    #[inline]
    fn close(&mut self) -> Token<'a> {
        self.pos += 1;
        self.depth -= 1;
        self.top = match self.inline.get(self.depth as usize) {
            Some(frame) => *frame,
            None => self.spilled.pop().expect("depth counts the frames"),
        };
        Token::End
    }
}

/// An open container.
#[derive(Clone, Copy, Debug, Default)]
struct Frame {
    /// Offset of the first byte inside.
    start: u32,
    /// Offset behind the greatest key so far; 0 before the first.
    key_end: u32,
    key_len: u32,
    state: State,
}

impl Frame {
    #[inline]
    fn last_key<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let end = self.key_end as usize;
        (end != 0).then(|| bytes.get(end - self.key_len as usize..end).unwrap_or_default())
    }
}

/// What the innermost container waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
enum State {
    /// The document itself.
    #[default]
    Root,
    /// Nothing: the document is complete.
    Done,
    /// A value of a list, or its end.
    List,
    /// A key, or the end of the dictionary.
    Key,
    /// The value of a key.
    Value,
}

impl State {
    #[inline]
    fn after_value(self) -> Self {
        match self {
            Self::Root => Self::Done,
            Self::Value => Self::Key,
            other => other,
        }
    }
}

/// `key.cmp(last)`; most keys differ in their first byte, which spares a call to memcmp.
#[inline]
fn compare(key: &[u8], last: &[u8]) -> Ordering {
    match (key.first(), last.first()) {
        (Some(first), Some(last_first)) if first != last_first => first.cmp(last_first),
        _ => key.cmp(last),
    }
}

/// Documents are at most `u32::MAX` bytes long ([`Reader::new`]).
#[inline]
fn offset(at: usize) -> u32 {
    at as u32
}

/// Frames inside the reader: as many as [`Limits::KRPC`] allows, so that a datagram never allocates.
const INLINE: usize = 10;
/// How often the token limit may be spent again on looking for duplicates in unsorted dictionaries.
const RESCANS: u32 = 4;

#[cfg(test)]
mod tests;
