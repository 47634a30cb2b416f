use proptest::prelude::*;

use super::*;
use crate::bencode::{Data, Value, Writer, from_bytes, scan, scan_prefix, to_bytes};

const WIDE: Limits = Limits { depth: 100, tokens: 100_000, len: 1 << 20 };

fn scan_kind(bytes: &[u8]) -> Result<(), DecodeErrorKind> {
    scan(bytes, WIDE).map_err(|error| error.kind)
}

#[test]
fn tokens_come_in_order_and_borrow() {
    let bytes = b"d1:ai-12e1:bl3:xyzdeee";
    let mut reader = Reader::new(bytes, WIDE);
    let mut tokens = Vec::new();
    while reader.top.state != State::Done {
        tokens.push(reader.next().unwrap());
    }
    use Token::*;
    assert_eq!(tokens, [Dict, Bytes(b"a"), Int(-12), Bytes(b"b"), List, Bytes(b"xyz"), Dict, End, End, End]);
    assert!(reader.is_canonical());
    reader.finish().unwrap();
}

#[test]
fn typed_methods_read_a_document_without_tokens() {
    let mut reader = Reader::new(b"d4:infod6:lengthi5e4:name1:xe4:listli1ei2ee1:zlee", WIDE);
    reader.expect_dict().unwrap();
    assert_eq!(reader.key().unwrap(), Some(&b"info"[..]));
    assert_eq!(reader.skip().unwrap(), b"d6:lengthi5e4:name1:xe");
    assert_eq!(reader.key().unwrap(), Some(&b"list"[..]));
    reader.expect_list().unwrap();
    let mut sum = 0;
    while reader.item().unwrap() {
        sum += reader.int().unwrap();
    }
    assert_eq!(sum, 3);
    assert_eq!(reader.key().unwrap(), Some(&b"z"[..]));
    assert_eq!(reader.int().map_err(|error| error.kind), Err(DecodeErrorKind::WrongType));
    assert_eq!(reader.bytes_or_skip().unwrap(), None);
    assert_eq!(reader.key().unwrap(), None);
    reader.finish().unwrap();
}

#[test]
fn malformed_documents_are_refused_by_the_rule_they_break() {
    use DecodeErrorKind::*;
    let table: &[(&[u8], DecodeErrorKind)] = &[
        (b"", Truncated),
        (b"x", UnexpectedByte),
        (b"e", UnexpectedByte),
        (b" 1:a", UnexpectedByte),
        (b"-1:a", UnexpectedByte),
        (b":a", UnexpectedByte),
        (b"i", Truncated),
        (b"i1", Truncated),
        (b"i0", Truncated),
        (b"i-", Truncated),
        (b"ie", BadInteger),
        (b"i-e", BadInteger),
        (b"i-0e", BadInteger),
        (b"i00e", BadInteger),
        (b"i03e", BadInteger),
        (b"i-03e", BadInteger),
        (b"i+3e", BadInteger),
        (b"i--1e", BadInteger),
        (b"i1-2e", BadInteger),
        (b"i 1e", BadInteger),
        (b"i1 e", BadInteger),
        (b"i1.5e", BadInteger),
        (b"iae", BadInteger),
        (b"i9223372036854775808e", IntegerOverflow),
        (b"i-9223372036854775809e", IntegerOverflow),
        (b"i99999999999999999999999999999e", IntegerOverflow),
        (b"1", Truncated),
        (b"1:", LengthPastEnd),
        (b"3:ab", LengthPastEnd),
        (b"03:abc", BadLength),
        (b"00:", BadLength),
        (b"3 :abc", BadLength),
        (b"3abc", BadLength),
        (b"99999999999:abc", LengthPastEnd),
        (b"18446744073709551615:abc", LengthPastEnd),
        (b"99999999999999999999999999999999:abc", LengthPastEnd),
        (b"l", Truncated),
        (b"li1e", Truncated),
        (b"d", Truncated),
        (b"d1:a", Truncated),
        (b"d1:ai1e", Truncated),
        (b"d1:ae", UnexpectedByte),
        (b"di1ei2ee", KeyNotString),
        (b"dlei2ee", KeyNotString),
        (b"ddei2ee", KeyNotString),
        (b"d-", UnexpectedByte),
        (b"d1:ai1e1:ai2ee", DuplicateKey),
        (b"d1:bi1e1:ai2e1:bi3ee", DuplicateKey),
        (b"d1:bi1e1:ai2e1:ai3ee", DuplicateKey),
        (b"d0:i1e0:i2ee", DuplicateKey),
        (b"d1:cd1:xl1:bee1:ai1e1:bi2e1:ai3ee", DuplicateKey),
        (b"i1ei2e", TrailingBytes),
        (b"dee", TrailingBytes),
        (b"1:aGARBAGE", TrailingBytes),
        (b"de\n", TrailingBytes),
    ];
    for (bytes, kind) in table {
        assert_eq!(scan_kind(bytes), Err(*kind), "{}", bytes.escape_ascii());
    }
}

#[test]
fn well_formed_documents_pass() {
    let table: &[&[u8]] = &[
        b"i0e",
        b"i-1e",
        b"i9223372036854775807e",
        b"i-9223372036854775808e",
        b"0:",
        b"10:0123456789",
        b"le",
        b"de",
        b"d0:0:e",
        b"d1:ai1e2:aai2e1:bi3ee",
        b"d1:\xffle2:\xff\x00lee",
        b"lllleeee",
    ];
    for bytes in table {
        assert_eq!(scan_kind(bytes), Ok(()), "{}", bytes.escape_ascii());
    }
}

#[test]
fn errors_name_the_offending_byte() {
    let error = scan(b"d1:ai1e1:bi03ee", WIDE).unwrap_err();
    assert_eq!((error.kind, error.at), (DecodeErrorKind::BadInteger, 11));
    let error = scan(b"d1:ai1e1:ai2ee", WIDE).unwrap_err();
    assert_eq!((error.kind, error.at), (DecodeErrorKind::DuplicateKey, 7));
}

#[test]
fn unsorted_keys_are_accepted_and_counted() {
    let bytes = b"d1:ci1e1:ad1:z0:1:y0:e1:bi2e1:di3ee";
    let mut reader = Reader::new(bytes, WIDE);
    reader.skip().unwrap();
    assert_eq!(reader.unsorted(), 3);
    assert!(!reader.is_canonical());
    reader.finish().unwrap();
}

#[test]
fn a_strict_reader_refuses_unsorted_keys() {
    let error = Reader::strict(b"d1:bi1e1:ai2ee", WIDE).skip().unwrap_err();
    assert_eq!((error.kind, error.at), (DecodeErrorKind::UnsortedKeys, 7));
}

#[test]
fn each_limit_is_exact() {
    let limits = Limits { depth: 2, tokens: 4, len: 10 };
    let kind = |bytes: &[u8]| scan(bytes, limits).map_err(|error| error.kind);
    assert_eq!(kind(b"llee"), Ok(()));
    assert_eq!(kind(b"llleee"), Err(DecodeErrorKind::TooDeep));
    assert_eq!(kind(b"l0:0:0:e"), Ok(()));
    assert_eq!(kind(b"l0:0:0:lee"), Err(DecodeErrorKind::TooManyTokens));
    assert_eq!(kind(b"8:12345678"), Ok(()));
    assert_eq!(kind(b"9:123456789"), Err(DecodeErrorKind::TooLong));
}

#[test]
fn a_prefix_is_measured_without_what_follows() {
    let message = b"d8:msg_typei1e5:piecei0e10:total_sizei34256eexxxxxxxx";
    assert_eq!(scan_prefix(message, Limits::EXTENSION), Ok(message.len() - 8));
    let tight = Limits { len: 10, ..WIDE };
    assert_eq!(scan_prefix(b"8:12345678xxxxxxxx", tight), Ok(10));
    assert_eq!(scan_prefix(b"9:123456789xxx", tight).unwrap_err().kind, DecodeErrorKind::TooLong);
    assert_eq!(scan_prefix(b"9:1234", tight).unwrap_err().kind, DecodeErrorKind::LengthPastEnd);
    assert_eq!(scan_prefix(b"x", tight).unwrap_err().kind, DecodeErrorKind::UnexpectedByte);
}

#[test]
fn skip_does_not_leave_its_container() {
    let mut reader = Reader::new(b"le", WIDE);
    reader.expect_list().unwrap();
    assert_eq!(reader.skip().unwrap_err().kind, DecodeErrorKind::UnexpectedByte);
}

/// S2: 65,507 bytes are the longest datagram. No stack, and no time either (S3): what is too long is not
/// looked at, and of the others no more is read than the depth that is allowed.
#[test]
fn recursion_bombs_are_refused_within_their_first_bytes() {
    let lists = vec![b'l'; 65_507];
    let dicts = b"d1:a".repeat(16_376);
    let closed = [vec![b'l'; 32_000], vec![b'e'; 32_000]].concat();
    for (bomb, step) in [(&lists, 1), (&dicts, 4), (&closed, 1)] {
        assert_eq!(scan(bomb, Limits::KRPC).unwrap_err().kind, DecodeErrorKind::TooLong);
        // A reader of what is too long has not begun to read.
        assert_eq!(Reader::new(bomb, Limits::KRPC).next().unwrap_err().kind, DecodeErrorKind::TooLong);
        let depth_only = Limits { len: usize::MAX, tokens: u32::MAX, ..Limits::KRPC };
        let unlimited = Limits { depth: u32::MAX, ..depth_only };
        for (limits, depth) in [(depth_only, Limits::KRPC.depth), (unlimited, Limits::MAX_DEPTH)] {
            let error = scan(bomb, limits).unwrap_err();
            assert_eq!((error.kind, error.at), (DecodeErrorKind::TooDeep, depth * step));
            let mut reader = Reader::new(bomb, limits);
            let steps = std::iter::from_fn(|| reader.next().ok()).count();
            assert!(steps <= 2 * depth as usize, "{steps} steps");
        }
    }
}

/// The work of finding duplicates is bounded by tokens, not by the square of the keys.
#[test]
fn an_unsorted_dictionary_is_bounded_work() {
    let mut bytes = b"d".to_vec();
    for key in (10_000..30_000).rev() {
        bytes.extend_from_slice(format!("5:{key}0:").as_bytes());
    }
    bytes.push(b'e');
    assert_eq!(scan_kind(&bytes), Err(DecodeErrorKind::TooManyTokens));
    // As many keys as a datagram can hold are within the allowance when only a few are astray.
    let mut bytes = b"d1:z0:".to_vec();
    for key in 10..40 {
        bytes.extend_from_slice(format!("2:{key}0:").as_bytes());
    }
    bytes.push(b'e');
    assert_eq!(scan(&bytes, Limits::KRPC), Ok(()));
}

#[test]
fn a_hostile_list_of_a_million_strings_is_refused_at_the_token_limit() {
    let bytes = [b"l".as_slice(), &b"0:".repeat(1_000_000), b"e"].concat();
    let error = scan(&bytes, Limits { len: usize::MAX, ..Limits::EXTENSION }).unwrap_err();
    assert_eq!(error.kind, DecodeErrorKind::TooManyTokens);
    assert_eq!(error.at as usize, 1 + 2 * 1999);
}

#[test]
fn the_typed_door_scans_first() {
    #[derive(serde::Deserialize, serde::Serialize, Debug, PartialEq)]
    struct Saved {
        count: i64,
        #[serde(with = "serde_bytes")]
        data: Vec<u8>,
    }
    let saved = Saved { count: 3, data: b"\x00\xff".to_vec() };
    let bytes = to_bytes(&saved).unwrap();
    assert_eq!(bytes, b"d5:counti3e4:data2:\x00\xffe");
    assert_eq!(from_bytes::<Saved>(&bytes, Limits::RESUME).unwrap(), saved);
    let kind = |bytes: &[u8]| from_bytes::<Saved>(bytes, Limits::RESUME).unwrap_err().kind;
    assert_eq!(kind(b"d5:counti03e4:data0:e"), DecodeErrorKind::BadInteger);
    assert_eq!(kind(b"d5:counti3e4:data0:eGARBAGE"), DecodeErrorKind::TrailingBytes);
    assert_eq!(kind(&b"l".repeat(100_000)), DecodeErrorKind::TooDeep);
    assert_eq!(kind(b"d5:counti3ee"), DecodeErrorKind::Typed);
}

/// An owned document, to be generated and written.
#[derive(Clone, Debug)]
enum Tree {
    Int(i64),
    Bytes(Vec<u8>),
    List(Vec<Self>),
    Dict(std::collections::BTreeMap<Vec<u8>, Self>),
}

impl Tree {
    fn write(&self, w: &mut Writer<'_>) {
        match self {
            Self::Int(number) => {
                w.int(*number);
            }
            Self::Bytes(string) => {
                w.bytes(string);
            }
            Self::List(items) => {
                w.list();
                items.iter().for_each(|item| item.write(w));
                w.end();
            }
            Self::Dict(entries) => {
                w.dict();
                for (key, value) in entries {
                    w.key(key);
                    value.write(w);
                }
                w.end();
            }
        }
    }

    fn equals(&self, value: &Value<'_>) -> bool {
        match (self, value.data()) {
            (Self::Int(own), Data::Int(read)) => own == read,
            (Self::Bytes(own), Data::Bytes(read)) => own == read,
            (Self::List(own), Data::List(read)) => {
                own.len() == read.len() && own.iter().zip(read).all(|(own, read)| own.equals(read))
            }
            (Self::Dict(own), Data::Dict(read)) => {
                own.len() == read.len()
                    && own.iter().zip(read).all(|(own, read)| own.0 == read.0 && own.1.equals(&read.1))
            }
            _ => false,
        }
    }

    fn same_as_serde(&self, value: &serde_bencode::value::Value) -> bool {
        use serde_bencode::value::Value as Serde;
        match (self, value) {
            (Self::Int(own), Serde::Int(read)) => own == read,
            (Self::Bytes(own), Serde::Bytes(read)) => own == read,
            (Self::List(own), Serde::List(read)) => {
                own.len() == read.len() && own.iter().zip(read).all(|(own, read)| own.same_as_serde(read))
            }
            (Self::Dict(own), Serde::Dict(read)) => {
                own.len() == read.len()
                    && own.iter().all(|(key, own)| read.get(key).is_some_and(|read| own.same_as_serde(read)))
            }
            _ => false,
        }
    }
}

fn trees() -> impl Strategy<Value = Tree> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..24);
    let leaf = prop_oneof![any::<i64>().prop_map(Tree::Int), bytes().prop_map(Tree::Bytes)];
    leaf.prop_recursive(6, 64, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Tree::List),
            prop::collection::btree_map(bytes(), inner, 0..8).prop_map(Tree::Dict),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(tree in trees()) {
        let mut bytes = Vec::new();
        tree.write(&mut Writer::new(&mut bytes));
        let value = Value::parse_strict(&bytes, WIDE).unwrap();
        prop_assert!(tree.equals(&value));
        prop_assert_eq!(value.raw(), &bytes[..]);
        // Prefixes of a document are never documents.
        for cut in 0..bytes.len() {
            prop_assert!(scan(&bytes[..cut], WIDE).is_err());
        }
    }

    /// On canonical input the hand-written reader and serde_bencode agree, in both directions.
    #[test]
    fn serde_bencode_reads_and_writes_the_same(tree in trees()) {
        let mut bytes = Vec::new();
        tree.write(&mut Writer::new(&mut bytes));
        let theirs: serde_bencode::value::Value = from_bytes(&bytes, WIDE).unwrap();
        prop_assert!(tree.same_as_serde(&theirs));
        prop_assert_eq!(to_bytes(&theirs).unwrap(), bytes);
    }

    /// Whatever we accept, serde_bencode accepts too.
    #[test]
    fn nothing_is_accepted_that_serde_bencode_refuses(bytes in "[idl0-3e:a-]{0,24}") {
        let bytes = bytes.as_bytes();
        if scan(bytes, WIDE).is_ok() {
            prop_assert!(from_bytes::<serde_bencode::value::Value>(bytes, WIDE).is_ok());
            prop_assert_eq!(Value::parse(bytes, WIDE).unwrap().raw(), bytes);
        }
    }

    /// The duplicate search agrees with a set, whatever the order of the keys.
    #[test]
    fn duplicates_are_found_in_any_order(keys in prop::collection::vec("[a-d]{0,2}", 0..12)) {
        let mut bytes = b"d".to_vec();
        for key in &keys {
            bytes.extend_from_slice(format!("{}:{key}i1e", key.len()).as_bytes());
        }
        bytes.push(b'e');
        let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
        let expected = if distinct.len() == keys.len() { Ok(()) } else { Err(DecodeErrorKind::DuplicateKey) };
        prop_assert_eq!(scan_kind(&bytes), expected);
    }
}
