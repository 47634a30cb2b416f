//! The queries that nearly all datagrams of a serving node are, in the one form that nearly all clients
//! give them: keys in order, nothing unknown. Whatever differs is left to the general reader, which says
//! the same of these and costs ten times as much.

use crate::bencode::Limits;
use crate::{Body, Id, Message, Query, Want};

/// Reads a `ping`, `find_node`, `get_peers` or `announce_peer` of the usual form; `None` says nothing
/// about the datagram.
#[inline]
pub(super) fn query(datagram: &[u8]) -> Option<Message<'_>> {
    let mut rest = Rest(datagram);
    rest.eat(b"d1:ad2:id20:").filter(|()| datagram.len() <= Limits::KRPC.len)?;
    let id = rest.id()?;
    let query = match rest.0.first()? {
        b'e' => {
            rest.eat(b"e1:q4:ping")?;
            Query::Ping
        }
        b'6' => find_node(&mut rest)?,
        _ => about_torrent(&mut rest)?,
    };
    let read_only = rest.0.first() == Some(&b'2');
    if read_only {
        rest.eat(b"2:roi1e")?;
    }
    rest.eat(b"1:t")?;
    let tid = rest.string().filter(|tid| !tid.is_empty())?;
    let has_version = rest.0.get(2) == Some(&b'v');
    let version = if has_version { Some(rest.value(b"1:v")?) } else { None };
    let ends = rest.0 == b"1:y1:qe";
    ends.then_some(Message { tid, version, ip: None, read_only, body: Body::Query { id, query } })
}

fn find_node<'a>(rest: &mut Rest<'a>) -> Option<Query<'a>> {
    rest.eat(b"6:target20:")?;
    let target = rest.id()?;
    let want = rest.want()?;
    rest.eat(b"e1:q9:find_node")?;
    Some(Query::FindNode { target, want })
}

fn about_torrent<'a>(rest: &mut Rest<'a>) -> Option<Query<'a>> {
    let implied_port = rest.eat(b"12:implied_porti1e").is_some();
    rest.eat(b"9:info_hash20:")?;
    let infohash = rest.id()?;
    if rest.eat(b"4:porti").is_some() {
        let port = rest.port()?;
        let seed = rest.eat(b"4:seedi1e").is_some();
        let token = rest.value(b"5:token")?;
        rest.eat(b"e1:q13:announce_peer")?;
        return Some(Query::AnnouncePeer { infohash, port, implied_port, token, seed });
    }
    let want = rest.want()?;
    rest.eat(b"e1:q9:get_peers").filter(|()| !implied_port)?;
    Some(Query::GetPeers { infohash, want, scrape: false, no_seed: false })
}

/// What has not been read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    /// Passes over `word`; stays where it is if something else is there.
    #[inline]
    fn eat<const N: usize>(&mut self, word: &[u8; N]) -> Option<()> {
        let (first, rest) = self.0.split_first_chunk()?;
        (first == word).then(|| self.0 = rest)
    }

    #[inline]
    fn id(&mut self) -> Option<Id> {
        let (&id, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(Id::new(id))
    }

    /// A string of fewer than a hundred bytes.
    #[inline]
    fn string(&mut self) -> Option<&'a [u8]> {
        let digit =
            |at: usize| self.0.get(at).map(|byte| usize::from(byte.wrapping_sub(b'0'))).filter(|&d| d < 10);
        let first = digit(0)?;
        let (len, start) = match digit(1) {
            Some(second) if first != 0 => (10 * first + second, 3),
            _ => (first, 2),
        };
        let (head, rest) = self.0.split_at_checked(start + len)?;
        let (&colon, string) = head.get(start - 1..)?.split_first()?;
        self.0 = rest;
        (colon == b':').then_some(string)
    }

    /// The string under `key`.
    #[inline]
    fn value<const N: usize>(&mut self, key: &[u8; N]) -> Option<&'a [u8]> {
        self.eat(key)?;
        self.string()
    }

    /// A number that a port can be, with the `e` behind it.
    fn port(&mut self) -> Option<i64> {
        let digits = self.0.iter().take(6).position(|&byte| byte == b'e')?;
        let (number, rest) = self.0.split_at(digits);
        let is_number = number.iter().all(u8::is_ascii_digit) && (number.first()? != &b'0' || digits == 1);
        self.0 = rest.get(1..)?;
        is_number.then(|| number.iter().fold(0, |port, digit| 10 * port + i64::from(digit - b'0')))
    }

    /// The families wanted, which may be absent.
    fn want(&mut self) -> Option<Want> {
        if self.0.first() != Some(&b'4') {
            return Some(Want::UNSPECIFIED);
        }
        self.eat(b"4:wantl")?;
        let n4 = self.eat(b"2:n4").is_some();
        let n6 = self.eat(b"2:n6").is_some();
        self.eat(b"e")?;
        Some(Want { n4, n6 })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Tolerated;

    /// Queries of the usual form with all that may be in them.
    fn usual() -> impl Strategy<Value = Vec<u8>> {
        let id = || prop::array::uniform20(any::<u8>()).prop_map(Id::new);
        let want = || any::<(bool, bool)>().prop_map(|(n4, n6)| Want { n4, n6 });
        let token = prop::collection::vec(any::<u8>(), 0..40);
        let announce = (id(), 0..65536_i64, any::<bool>(), token, any::<bool>());
        let body = (0..4, id(), want(), announce);
        let tid = prop::collection::vec(any::<u8>(), 1..40);
        let version = prop::option::of(prop::collection::vec(any::<u8>(), 0..12));
        (id(), body, tid, version, any::<bool>()).prop_map(|(own, body, tid, version, read_only)| {
            let (kind, target, want, (infohash, port, implied_port, ref token, seed)) = body;
            let query = match kind {
                0 => Query::Ping,
                1 => Query::FindNode { target, want },
                2 => Query::GetPeers { infohash, want, scrape: false, no_seed: false },
                _ => Query::AnnouncePeer { infohash, port, implied_port, token, seed },
            };
            let body = Body::Query { id: own, query };
            let mut bytes = Vec::new();
            let message = Message { tid: &tid, version: version.as_deref(), ip: None, read_only, body };
            message.encode(&mut bytes);
            bytes
        })
    }

    /// Whatever this reader takes, the general one takes for the same, without having to tolerate anything.
    fn agrees(bytes: &[u8]) -> Result<bool, TestCaseError> {
        let Some(message) = query(bytes) else { return Ok(false) };
        let mut tolerated = Tolerated::default();
        prop_assert_eq!(Ok(message), Message::decode_any(bytes, &mut tolerated), "{}", bytes.escape_ascii());
        prop_assert_eq!(tolerated, Tolerated::default(), "{}", bytes.escape_ascii());
        Ok(true)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn the_usual_queries_are_read_and_mean_the_same_to_the_general_reader(bytes in usual()) {
            prop_assert!(agrees(&bytes)?);
        }

        #[test]
        fn damaged_ones_are_left_alone_or_mean_the_same(
            mut bytes in usual(),
            other in usual(),
            (at, from, len) in any::<(prop::sample::Index, prop::sample::Index, u8)>(),
            byte in prop::sample::select(b"0123456789:deil-+aqtvy\x00\xff".to_vec()),
            how in 0..5,
        ) {
            let at = at.index(bytes.len());
            let from = from.index(other.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 => drop(bytes.remove(at)),
                3 => bytes.truncate(at),
                _ => {
                    let part = &other[from..other.len().min(from + usize::from(len))];
                    bytes.splice(at..at, part.iter().copied());
                }
            }
            agrees(&bytes)?;
        }
    }

    #[test]
    fn unusual_forms_are_left_to_the_general_reader() {
        let args = |args: &str| format!("d1:ad2:id20:abcdefghij0123456789{args}1:t2:aa1:y1:qe");
        let infohash = "9:info_hash20:mnopqrstuvwxyz123456";
        assert!(query(args("e1:q4:ping").as_bytes()).is_some());
        for unusual in [
            args("e1:q4:pong"),
            args("1:xi1ee1:q4:ping"),
            args("e1:q4:ping2:roi0e"),
            args("e1:q4:ping2:ip6:abcdef"),
            args(&format!("{infohash}4:porti-1e5:token2:xxe1:q13:announce_peer")),
            args(&format!("{infohash}4:porti01e5:token2:xxe1:q13:announce_peer")),
            args(&format!("{infohash}4:porti99999999e5:token2:xxe1:q13:announce_peer")),
            args(&format!("{infohash}4:portie5:token2:xxe1:q13:announce_peer")),
            args(&format!("{infohash}6:scrapei1ee1:q9:get_peers")),
            args(&format!("12:implied_porti1e{infohash}e1:q9:get_peers")),
            args(&format!("{infohash}4:wantl2:n62:n4ee1:q9:get_peers")),
            args("e1:q4:ping").replace("2:aa", "0:"),
            args("e1:q4:ping").replace("2:aa", "02:aa"),
            args("e1:q4:ping").replace("2:aa", &format!("100:{}", "a".repeat(100))),
            args("e1:q4:ping") + "e",
        ] {
            assert_eq!(query(unusual.as_bytes()), None, "{unusual}");
            assert!(agrees(unusual.as_bytes()).is_ok());
        }
    }
}
