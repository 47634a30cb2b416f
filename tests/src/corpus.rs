//! KRPC datagrams and what becomes of them: the packets of BEP 5, and several hundred malformed ones
//! derived from them by rule, the same in every run (S1).

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

/// What BEP 5 asks for when a datagram arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is a message.
    Message,
    /// It is a query with wrong arguments, to be answered with error 203.
    ProtocolError,
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

/// The whole corpus: over two thousand datagrams.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (index, packet) in BEP_5.iter().enumerate() {
        let mut add = |rule: &str, bytes: Vec<u8>, outcome| {
            cases.push(Case { name: format!("{rule}, packet {index}"), bytes, outcome });
        };
        add("as it is", packet.to_vec(), Outcome::Message);
        cut_and_glue(packet, &mut add);
        break_tokens(packet, &mut add);
        stretch_limits(packet, &mut add);
    }
    wrong_arguments(&mut cases);
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
