//! KRPC datagrams and what becomes of them: the packets of BEP 5, those of BEP 33, 44 and 51, and several
//! thousand malformed ones derived from them by rule, the same in every run (S1).

use krpc::ErrorCode;
use krpc::bencode::{Kind, Limits, Reader, Token};

/// Every packet that BEP 5 prints: six queries first, then replies and an error. The announce is
/// there twice, as printed and with the `implied_port` that its dictionary has.
pub const BEP_5: [&[u8]; 12] = [
    b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe",
    b"d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e1:q9:find_node1:t2:aa1:y1:qe",
    b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz123456e1:q9:get_peers1:t2:aa1:y1:qe",
    b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz1234564:porti6881e5:token8:aoeusnthe1:q13:announce_peer1:t2:aa1:y1:qe",
    b"d1:ad2:id20:abcdefghij012345678912:implied_porti1e9:info_hash20:mnopqrstuvwxyz1234564:porti6881e5:token8:aoeusnthe1:q13:announce_peer1:t2:aa1:y1:qe",
    b"d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz1234564:wantl2:n42:n6ee1:q9:find_node1:t2:aa1:y1:qe",
    b"d1:rd2:id20:mnopqrstuvwxyz123456e1:t2:aa1:y1:re",
    b"d1:rd2:id20:0123456789abcdefghij5:nodes9:def456...e1:t2:aa1:y1:re",
    b"d1:rd2:id20:abcdefghij01234567895:token8:aoeusnth6:valuesl6:axje.u6:idhtnmee1:t2:aa1:y1:re",
    b"d1:rd2:id20:abcdefghij01234567895:nodes9:def456...5:token8:aoeusnthe1:t2:aa1:y1:re",
    b"d1:eli201e23:A Generic Error Ocurrede1:t2:aa1:y1:ee",
    b"d1:rd2:id20:mnopqrstuvwxyz123456e1:t2:aa1:v4:bd011:y1:re",
];

/// Packets of the later BEPs: `get`, `put` of an immutable and of two mutable items (the test vectors of
/// BEP 44, with an invented token), a reply to `get`; `sample_infohashes` and its reply (BEP 51); a
/// `get_peers` that asks for filters, and its reply (BEP 33).
pub fn extensions() -> Vec<Vec<u8>> {
    let bytes = |hex: &str| data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap();
    let key = bytes("77ff84905a91936367c01360803104f92432fcd904a43511876df5cdf3e7e548");
    let plain = bytes(
        "305ac8aeb6c9c151fa120f120ea2cfb923564e11552d06a5d856091e5e853cff\
         1260d3f39e4999684aa92eb73ffd136e6f4f3ecbfda0ce53a1608ecd7ae21f01",
    );
    let salted = bytes(
        "6834284b6b24c3204eb2fea824d82f88883a3d95e8b4a21b8c0ded553d17d17d\
         df9a8a7104b1258f30bed3787e6cb896fca78c58f8e03b5f18f14951a87d9a08",
    );
    let filter = [b"256:".to_vec(), vec![0xf6; 256]].concat();
    let id = b"2:id20:abcdefghij0123456789";
    let query = |method: &[u8], arguments: &[&[u8]]| {
        let length = format!("{}:", method.len());
        let tail: [&[u8]; 5] = [b"e1:q", length.as_bytes(), method, b"1:t2:aa1:y", b"1:qe"];
        [&[b"d1:ad".as_slice()], arguments, &tail].concat().concat()
    };
    let reply = |values: &[&[u8]]| [&[b"d1:rd".as_slice()], values, &[b"e1:t2:aa1:y1:re"]].concat().concat();
    let target = b"6:target20:mnopqrstuvwxyz123456";
    let value = b"1:v12:Hello World!";
    vec![
        query(b"get", &[id, b"3:seqi1e", target]),
        query(b"put", &[id, b"5:token8:aoeusnth", value]),
        query(b"put", &[id, b"1:k32:", &key, b"3:seqi1e3:sig64:", &plain, b"5:token8:aoeusnth", value]),
        query(
            b"put",
            &[
                b"3:casi0e",
                id,
                b"1:k32:",
                &key,
                b"4:salt6:foobar3:seqi1e3:sig64:",
                &salted,
                b"5:token8:aoeusnth",
                value,
            ],
        ),
        reply(&[id, b"1:k32:", &key, b"3:seqi1e3:sig64:", &plain, b"5:token8:aoeusnth", value]),
        query(b"sample_infohashes", &[id, target, b"4:wantl2:n42:n6e"]),
        reply(&[id, b"8:intervali21600e3:numi2e7:samples40:abcdefghij0123456789mnopqrstuvwxyz123456"]),
        query(b"get_peers", &[id, b"9:info_hash20:mnopqrstuvwxyz1234566:noseedi1e6:scrapei1e"]),
        reply(&[b"4:BFpe", &filter, b"4:BFsd", &filter, id]),
    ]
}

/// What BEP 5 asks for when a datagram arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is a message.
    Message,
    /// It is a query with wrong arguments, to be answered with error 203.
    ProtocolError,
    /// It is a message that a node refuses with this error, whatever the token in it.
    Refused(ErrorCode),
    /// It is not worth an answer.
    Silence,
}

/// A datagram with its expected outcome.
#[derive(Clone, Debug)]
pub struct Case {
    /// The rule that made it, and from which packet.
    pub name: String,
    /// The datagram.
    pub bytes: Vec<u8>,
    /// What must become of it.
    pub outcome: Outcome,
}

/// The whole corpus: over four thousand datagrams.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let extensions = extensions();
    let packets = BEP_5.into_iter().chain(extensions.iter().map(Vec::as_slice));
    for (index, packet) in packets.enumerate() {
        let mut add = |rule: &str, bytes: Vec<u8>, outcome| {
            cases.push(Case { name: format!("{rule}, packet {index}"), bytes, outcome });
        };
        add("as it is", packet.to_vec(), Outcome::Message);
        cut_and_glue(packet, &mut add);
        break_tokens(packet, &mut add);
        stretch_limits(packet, &mut add);
    }
    wrong_arguments(&mut cases);
    wrong_items(&mut cases);
    cases
}

type Add<'a> = dyn FnMut(&str, Vec<u8>, Outcome) + 'a;

fn cut_and_glue(packet: &[u8], add: &mut Add<'_>) {
    for len in 0..packet.len() {
        add("cut short", packet[..len].to_vec(), Outcome::Silence);
    }
    for tail in [&b"\0"[..], b"\n", b"e", b"0:", b"de", packet] {
        add("with a tail", [packet, tail].concat(), Outcome::Silence);
    }
    for head in [&b" "[..], b"\xef\xbb\xbf", b"e", b"0:", b"l", b"d1:a"] {
        add("with a head", [head, packet].concat(), Outcome::Silence);
    }
    add("in a list", [b"l", packet, b"e"].concat(), Outcome::Silence);
}

/// Breaks each token in each way that the grammar knows.
fn break_tokens(packet: &[u8], add: &mut Add<'_>) {
    let mut reader = Reader::new(packet, Limits::KRPC);
    let mut depth = Vec::new(); // per open container: whether a key comes next, None in a list
    loop {
        let start = reader.position();
        let kind = reader.peek();
        let Ok(token) = reader.next() else { return };
        let end = reader.position();
        let mut replace = |rule: &str, by: &[u8]| {
            add(rule, [&packet[..start], by, &packet[end..]].concat(), Outcome::Silence);
        };
        let is_key = depth.last().copied().flatten() == Some(true) && kind != Some(Kind::End);
        let whole = &packet[start..end];
        replace("byte before a token", &[b"x", whole].concat());
        match token {
            Token::Bytes(_) => {
                replace("length with a zero in front", &[b"0", whole].concat());
                replace("length with a sign", &[b"+", whole].concat());
                replace("length past the end", &[b"9", whole].concat());
                replace("length past 64 bits", &[b"99999999999999999999", whole].concat());
                if is_key {
                    replace("integer for a key", b"i1e");
                    replace("list for a key", b"le");
                    replace("key twice", &[whole, b"0:", whole].concat());
                }
            }
            Token::Int(number) => {
                for text in
                    [format!("0{number}"), format!("+{number}"), format!("{number}.0"), format!(" {number}")]
                {
                    replace("malformed integer", format!("i{text}e").as_bytes());
                }
                for text in ["", "-", "-0", "--1", "0x1", "9223372036854775808", "-9223372036854775809"] {
                    replace("malformed integer", format!("i{text}e").as_bytes());
                }
            }
            Token::End => replace("no end", b""),
            Token::List | Token::Dict => {}
        }
        if let Some(Some(key_next)) = depth.last_mut()
            && token != Token::End
        {
            *key_next = !*key_next;
        }
        match token {
            Token::List => depth.push(None),
            Token::Dict => depth.push(Some(true)),
            Token::End => drop(depth.pop()),
            _ => {}
        }
    }
}

/// Puts an unknown key `z` behind all others and drives each limit to its edge and over it.
fn stretch_limits(packet: &[u8], add: &mut Add<'_>) {
    let with_z = |value: &[u8]| [&packet[..packet.len() - 1], b"1:z", value, b"e"].concat();
    let nested = |levels: usize| with_z(&[b"l".repeat(levels), b"e".repeat(levels)].concat());
    add("nested to the limit", nested(9), Outcome::Message);
    add("nested over the limit", nested(10), Outcome::Silence);
    add("nested a thousand times", nested(1000), Outcome::Silence);
    add("dictionaries never closed", with_z(&b"d1:a".repeat(400)), Outcome::Silence);
    add("many values", with_z(&[b"l".as_slice(), &b"0:".repeat(460), b"e"].concat()), Outcome::Message);
    add("too many values", with_z(&[b"l".as_slice(), &b"0:".repeat(500), b"e"].concat()), Outcome::Silence);
    let padded = |len: usize| {
        let rest = packet.len() + b"1:z1000:".len();
        with_z(format!("{}:{}", len - rest, "z".repeat(len - rest)).as_bytes())
    };
    add("as long as allowed", padded(2048), Outcome::Message);
    add("too long", padded(2049), Outcome::Silence);
    add("as long as UDP allows", [packet, &vec![b'l'; 65_507 - packet.len()]].concat(), Outcome::Silence);
}

fn wrong_arguments(cases: &mut Vec<Case>) {
    let id = "2:id20:abcdefghij0123456789";
    let hash = "9:info_hash20:mnopqrstuvwxyz123456";
    let queries = [
        ("ping", String::new()),
        ("ping", "2:id19:abcdefghij012345678".into()),
        ("ping", "2:id21:abcdefghij01234567890".into()),
        ("ping", "2:idi20e".into()),
        ("ping", "2:idle".into()),
        ("find_node", id.into()),
        ("find_node", format!("{id}6:target0:")),
        ("find_node", format!("{id}6:target19:mnopqrstuvwxyz12345")),
        ("find_node", format!("{id}6:targeti7e")),
        ("find_node", "6:target20:mnopqrstuvwxyz123456".into()),
        ("get_peers", id.into()),
        ("get_peers", format!("{id}9:info_hash32:mnopqrstuvwxyz123456mnopqrstuvwx")),
        ("get_peers", format!("{id}9:info_hashd1:a0:e")),
        ("get_peers", hash.into()),
        ("announce_peer", id.into()),
        ("announce_peer", format!("{id}{hash}")),
        ("announce_peer", format!("{id}{hash}4:porti6881e")),
        ("announce_peer", format!("{id}{hash}4:porti6881e5:tokeni1e")),
        ("announce_peer", format!("{id}4:porti6881e5:token8:aoeusnth")),
        ("sample_infohashes", id.into()),
        ("sample_infohashes", format!("{id}6:target19:mnopqrstuvwxyz12345")),
        ("sample_infohashes", format!("{id}{hash}")),
        ("get", id.into()),
        ("get", format!("{id}6:target21:mnopqrstuvwxyz1234567")),
        ("get", format!("{id}3:seqi1e{hash}")),
        ("put", id.into()),
        ("put", format!("{id}5:token8:aoeusnth")),
        ("put", format!("{id}1:v1:x")),
        ("put", format!("{id}5:tokenle1:v1:x")),
        ("put", "5:token8:aoeusnth1:v1:x".into()),
        ("", String::new()),
        ("vote", String::new()),
    ];
    for (method, args) in queries {
        let (name, len) = (format!("{method} with wrong arguments"), method.len());
        let bytes = format!("d1:ad{args}e1:q{len}:{method}1:t2:aa1:y1:qe").into_bytes();
        cases.push(Case { name, bytes, outcome: Outcome::ProtocolError });
    }
    for (name, text, outcome) in [
        ("arguments of another type", "d1:ale1:q4:ping1:t2:aa1:y1:qe", Outcome::ProtocolError),
        ("no arguments", "d1:q4:ping1:t2:aa1:y1:qe", Outcome::ProtocolError),
        ("no method", "d1:ad2:id20:abcdefghij0123456789e1:t2:aa1:y1:qe", Outcome::ProtocolError),
        ("no transaction", "d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:y1:qe", Outcome::Silence),
        (
            "transaction of length 0",
            "d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t0:1:y1:qe",
            Outcome::Silence,
        ),
        ("no kind", "d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aae", Outcome::Silence),
        ("kind unheard of", "d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:ze", Outcome::Silence),
        ("reply without id", "d1:rde1:t2:aa1:y1:re", Outcome::Silence),
        ("reply without r", "d1:t2:aa1:y1:re", Outcome::Silence),
        ("reply that is a list", "d1:rle1:t2:aa1:y1:re", Outcome::Silence),
        ("error without list", "d1:t2:aa1:y1:ee", Outcome::Message),
        ("keys backwards", "d1:y1:q1:t2:aa1:q4:ping1:ad2:id20:abcdefghij0123456789ee", Outcome::Message),
        ("method unheard of", "d1:ad2:id20:abcdefghij0123456789e1:q4:vote1:t2:aa1:y1:qe", Outcome::Message),
    ] {
        cases.push(Case { name: name.into(), bytes: text.into(), outcome });
    }
}

/// Items that BEP 44 refuses, and with which error; those that only a put with a good token can get (206,
/// 301, 302) are not among them.
fn wrong_items(cases: &mut Vec<Case>) {
    let mut put = |name: &str, arguments: [&str; 3], outcome| {
        let [before, middle, value] = arguments;
        let text = format!(
            "d1:ad{before}2:id20:abcdefghij0123456789{middle}5:token8:aoeusnth1:v{value}e1:q3:put1:t2:aa1:y1:qe"
        );
        cases.push(Case { name: name.into(), bytes: text.into_bytes(), outcome });
    };
    let too_big = Outcome::Refused(ErrorCode::ValueTooBig);
    let not_canonical = Outcome::Refused(ErrorCode::Protocol);
    let string = |len: usize| format!("{len}:{}", "x".repeat(len));
    put("value of 1,000 bytes", ["", "", &string(996)], Outcome::Message);
    put("value of 1,001 bytes", ["", "", &string(997)], too_big);
    put("value as long as a datagram", ["", "", &string(1900)], too_big);
    put("list of 1,001 bytes", ["", "", &format!("l{}e", string(995))], too_big);
    put("value with keys backwards", ["", "", "d1:bi1e1:ai2ee"], not_canonical);
    put("value with keys backwards within", ["", "", "ld1:bi1e1:ai2eee"], not_canonical);
    let (key, sig) = (format!("1:k{}", string(32)), format!("3:sig{}", string(64)));
    let signed = |salt: &str, seq: &str| format!("{key}{salt}3:seqi{seq}e{sig}");
    let salt = |len| format!("4:salt{}", string(len));
    put("salt of 64 bytes", ["", &signed(&salt(64), "1"), "1:x"], Outcome::Message);
    put("salt of 65 bytes", ["", &signed(&salt(65), "1"), "1:x"], Outcome::Refused(ErrorCode::SaltTooBig));
    put(
        "salt of a kilobyte",
        ["", &signed(&salt(1000), "1"), "1:x"],
        Outcome::Refused(ErrorCode::SaltTooBig),
    );
    put("negative sequence number", ["", &signed("", "-1"), "1:x"], Outcome::Refused(ErrorCode::Protocol));
    put("largest sequence number", ["", &signed("", "9223372036854775807"), "1:x"], Outcome::Message);
    for (name, arguments) in [
        ("no signature", format!("{key}3:seqi1e")),
        ("no sequence number", format!("{key}{sig}")),
        ("short key", format!("1:k{}3:seqi1e{sig}", string(31))),
        ("long key", format!("1:k{}3:seqi1e{sig}", string(33))),
        ("short signature", format!("{key}3:seqi1e3:sig{}", string(63))),
        ("sequence number that is a string", format!("{key}3:seq1:1{sig}")),
    ] {
        put(name, ["", &arguments, "1:x"], Outcome::ProtocolError);
    }
    put("cas without key", ["3:casi1e", "", "1:x"], Outcome::Message);
    put("cas that is a string", ["3:cas1:1", &signed("", "1"), "1:x"], Outcome::Message);
}
