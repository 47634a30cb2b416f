use super::*;

const ABC: Id = Id::new(*b"abcdefghij0123456789");
const MNO: Id = Id::new(*b"mnopqrstuvwxyz123456");
const NUM: Id = Id::new(*b"0123456789abcdefghij");

fn plain<'a>(body: Body<'a>) -> Message<'a> {
    Message { tid: b"aa", version: None, ip: None, read_only: false, body }
}

fn query(query: Query<'_>) -> Message<'_> {
    plain(Body::Query { id: ABC, query })
}

/// Decodes to `message`, and `message` encodes to the same bytes.
#[track_caller]
fn both_ways(bytes: &[u8], message: Message<'_>) {
    let mut tolerated = Tolerated::default();
    assert_eq!(Message::decode_counting(bytes, &mut tolerated), Ok(message));
    assert_eq!(tolerated, Tolerated::default());
    let mut out = Vec::new();
    message.encode(&mut out);
    assert_eq!(out.escape_ascii().to_string(), bytes.escape_ascii().to_string());
}

/// D1: each limit is exact, for a message that is one in all else.
#[test]
fn nesting_and_tokens_have_the_limits_of_the_house() {
    let with = |value: &[u8]| {
        [b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:q1:z".as_slice(), value, b"e"].concat()
    };
    let decodes = |value: &[u8]| Message::decode(&with(value)).is_ok();
    let nested = |levels: usize| [b"l".repeat(levels), b"e".repeat(levels)].concat();
    // The message itself is the first level.
    assert!(decodes(&nested(9)) && !decodes(&nested(10)));
    // The message is 13 tokens with the key and the list.
    let many = |count: usize| [b"l".as_slice(), &b"0:".repeat(count), b"e"].concat();
    assert!(decodes(&many(500 - 13)) && !decodes(&many(500 - 12)));
    let long = |len: usize| format!("{}:{}", len - 64, "z".repeat(len - 64)).into_bytes();
    assert_eq!(with(&long(2048)).len(), 2048);
    assert!(decodes(&long(2048)) && !decodes(&long(2049)));
}

#[test]
fn bep_5_generic_error() {
    both_ways(
        b"d1:eli201e23:A Generic Error Ocurrede1:t2:aa1:y1:ee",
        plain(Body::Error(ErrorBody { code: 201, text: b"A Generic Error Ocurred" })),
    );
}

#[test]
fn bep_5_ping() {
    both_ways(b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe", query(Query::Ping));
    both_ways(b"d1:rd2:id20:mnopqrstuvwxyz123456e1:t2:aa1:y1:re", plain(Body::Response(Response::new(MNO))));
}

#[test]
fn bep_5_find_node() {
    both_ways(
        b"d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e1:q9:find_node1:t2:aa1:y1:qe",
        query(Query::FindNode { target: MNO, want: Want::UNSPECIFIED }),
    );
    both_ways(
        b"d1:rd2:id20:0123456789abcdefghij5:nodes9:def456...e1:t2:aa1:y1:re",
        plain(Body::Response(Response { nodes: Some(b"def456..."), ..Response::new(NUM) })),
    );
}

#[test]
fn bep_5_get_peers() {
    both_ways(
        b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz123456e1:q9:get_peers1:t2:aa1:y1:qe",
        query(Query::GetPeers { infohash: MNO, want: Want::UNSPECIFIED, scrape: false, no_seed: false }),
    );
    let values = Strings::from_raw(b"6:axje.u6:idhtnm").unwrap();
    both_ways(
        b"d1:rd2:id20:abcdefghij01234567895:token8:aoeusnth6:valuesl6:axje.u6:idhtnmee1:t2:aa1:y1:re",
        plain(Body::Response(Response {
            token: Some(b"aoeusnth"),
            values: Some(values),
            ..Response::new(ABC)
        })),
    );
    both_ways(
        b"d1:rd2:id20:abcdefghij01234567895:nodes9:def456...5:token8:aoeusnthe1:t2:aa1:y1:re",
        plain(Body::Response(Response {
            nodes: Some(b"def456..."),
            token: Some(b"aoeusnth"),
            ..Response::new(ABC)
        })),
    );
}

/// The BEP prints the packet without `implied_port`, over two lines; its dictionary has it.
#[test]
fn bep_5_announce_peer() {
    let announce = |implied_port| {
        query(Query::AnnouncePeer {
            infohash: MNO,
            port: 6881,
            implied_port,
            token: b"aoeusnth",
            seed: false,
        })
    };
    both_ways(
        b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz1234564:porti6881e5:token8:aoeusnthe1:q13:announce_peer1:t2:aa1:y1:qe",
        announce(false),
    );
    both_ways(
        b"d1:ad2:id20:abcdefghij012345678912:implied_porti1e9:info_hash20:mnopqrstuvwxyz1234564:porti6881e5:token8:aoeusnthe1:q13:announce_peer1:t2:aa1:y1:qe",
        announce(true),
    );
}

#[test]
fn bep_32_33_42_43_51_fields_are_read_and_written() {
    both_ways(
        b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz1234566:noseedi1e6:scrapei1e4:wantl2:n42:n6ee2:ip6:\x01\x02\x03\x04\x1a\xe11:q9:get_peers2:roi1e1:t1:x1:v4:bd011:y1:qe",
        Message {
            tid: b"x",
            version: Some(b"bd01"),
            ip: Some(b"\x01\x02\x03\x04\x1a\xe1"),
            read_only: true,
            ..query(Query::GetPeers { infohash: MNO, want: Want::BOTH, scrape: true, no_seed: true })
        },
    );
    both_ways(
        b"d1:rd4:BFpe2:pp4:BFsd2:ss2:id20:abcdefghij01234567898:intervali21600e5:nodes0:6:nodes60:3:numi42e7:samples20:mnopqrstuvwxyz123456e1:t2:aa1:y1:re",
        plain(Body::Response(Response {
            bloom_peers: Some(b"pp"),
            bloom_seeds: Some(b"ss"),
            interval: Some(21_600),
            nodes: Some(b""),
            nodes6: Some(b""),
            num: Some(42),
            samples: Some(MNO.as_bytes()),
            ..Response::new(ABC)
        })),
    );
    both_ways(
        b"d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz1234564:wantl2:n6ee1:q17:sample_infohashes1:t2:aa1:y1:qe",
        query(Query::SampleInfohashes { target: MNO, want: Want { n4: false, n6: true } }),
    );
    both_ways(
        b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz1234564:porti1e4:seedi1e5:token0:e1:q13:announce_peer1:t2:aa1:y1:qe",
        query(Query::AnnouncePeer { infohash: MNO, port: 1, implied_port: false, token: b"", seed: true }),
    );
}

#[test]
fn unknown_methods_keep_their_name_and_target() {
    both_ways(
        b"d1:ad2:id20:abcdefghij0123456789e1:q4:vote1:t2:aa1:y1:qe",
        query(Query::Other { method: b"vote", target: None, want: Want::UNSPECIFIED }),
    );
    let by_infohash =
        b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz123456e1:q3:new1:t2:aa1:y1:qe";
    let other = Query::Other { method: b"new", target: Some(MNO), want: Want::UNSPECIFIED };
    assert_eq!(Message::decode(by_infohash), Ok(query(other)));
}

/// Decodes although something is not as it should be, and counts it.
#[track_caller]
fn tolerated(bytes: &[u8], unsorted_keys: u64, ignored_fields: u64) -> Message<'_> {
    let mut counted = Tolerated::default();
    let message = Message::decode_counting(bytes, &mut counted).unwrap();
    assert_eq!(counted, Tolerated { unsorted_keys, ignored_fields });
    message
}

#[test]
fn tolerates_keys_in_any_order() {
    let message = tolerated(b"d1:y1:q1:t2:aa1:q4:ping1:ad6:target3:abc2:id20:abcdefghij0123456789ee", 4, 1);
    assert_eq!(message, query(Query::Ping));
}

#[test]
fn tolerates_unknown_keys_of_any_type() {
    let message = tolerated(
        b"d1:ad2:id20:abcdefghij01234567893:new1:xe1:bld1:xleee1:q4:ping1:t2:aa1:y1:q1:zli1eleee",
        0,
        0,
    );
    assert_eq!(message, query(Query::Ping));
}

#[test]
fn tolerates_optional_fields_of_the_wrong_type() {
    let message = tolerated(
        b"d1:ad2:id20:abcdefghij01234567894:want2:n4e2:ipi7e1:q4:ping2:ro3:yes1:t2:aa1:vle1:y1:qe",
        0,
        4,
    );
    assert_eq!(message, query(Query::Ping));
    let message = tolerated(
        b"d1:rd2:id20:abcdefghij01234567895:nodesle5:tokeni1e6:values6:axje.ue1:t2:aa1:y1:re",
        0,
        3,
    );
    assert_eq!(message, plain(Body::Response(Response::new(ABC))));
}

#[test]
fn tolerates_values_that_are_not_strings_by_ignoring_the_list() {
    let message = tolerated(b"d1:rd2:id20:abcdefghij01234567896:valuesl6:axje.ui1eee1:t2:aa1:y1:re", 0, 1);
    assert_eq!(message, plain(Body::Response(Response::new(ABC))));
}

#[test]
fn tolerates_unknown_strings_in_want() {
    let message = tolerated(
        b"d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz1234564:wantl2:n92:n6i1eee1:q9:find_node1:t2:aa1:y1:qe",
        0,
        1,
    );
    assert_eq!(message, query(Query::FindNode { target: MNO, want: Want { n4: false, n6: true } }));
}

#[test]
fn tolerates_errors_of_a_strange_shape() {
    let error = |code, text| plain(Body::Error(ErrorBody { code, text }));
    let table: &[(&[u8], Message<'_>, u64)] = &[
        (b"d1:e4:oops1:t2:aa1:y1:ee", error(0, b"oops"), 1),
        (b"d1:ele1:t2:aa1:y1:ee", error(0, b""), 0),
        (b"d1:eli204ee1:t2:aa1:y1:ee", error(204, b""), 0),
        (b"d1:el2:noi204ee1:t2:aa1:y1:ee", error(204, b"no"), 0),
        (b"d1:eli204e2:noi1elee1:t2:aa1:y1:ee", error(204, b"no"), 2),
        (b"d1:ei203e1:t2:aa1:y1:ee", error(0, b""), 1),
        (b"d1:t2:aa1:y1:ee", error(0, b""), 0),
    ];
    for (bytes, message, ignored) in table {
        assert_eq!(tolerated(bytes, 0, *ignored), *message, "{}", bytes.escape_ascii());
    }
}

#[test]
fn ports_are_kept_as_sent() {
    for (port, expected) in [("i65616e", 65_616), ("i-1e", -1), ("i0e", 0), ("2:80", 0)] {
        let bytes = format!(
            "d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz1234564:port{port}5:token1:xe1:q13:announce_peer1:t2:aa1:y1:qe"
        );
        let Body::Query { query: Query::AnnouncePeer { port, .. }, .. } =
            Message::decode(bytes.as_bytes()).unwrap().body
        else {
            panic!("not an announce");
        };
        assert_eq!(port, expected);
    }
    let absent = b"d1:ad2:id20:abcdefghij012345678912:implied_porti5e9:info_hash20:mnopqrstuvwxyz1234565:token1:xe1:q13:announce_peer1:t2:aa1:y1:qe";
    let announce =
        Query::AnnouncePeer { infohash: MNO, port: 0, implied_port: true, token: b"x", seed: false };
    assert_eq!(Message::decode(absent), Ok(query(announce)));
}

#[test]
fn queries_with_wrong_arguments_are_answerable() {
    let table: &[&[u8]] = &[
        b"d1:ade1:q4:ping1:t2:aa1:y1:qe",
        b"d1:ad2:id19:abcdefghij012345678e1:q4:ping1:t2:aa1:y1:qe",
        b"d1:ad2:id21:abcdefghij01234567890e1:q4:ping1:t2:aa1:y1:qe",
        b"d1:ad2:idi1ee1:q4:ping1:t2:aa1:y1:qe",
        b"d1:ale1:q4:ping1:t2:aa1:y1:qe",
        b"d1:q4:ping1:t2:aa1:y1:qe",
        b"d1:ad2:id20:abcdefghij0123456789e1:t2:aa1:y1:qe",
        b"d1:ad2:id20:abcdefghij0123456789e1:qi1e1:t2:aa1:y1:qe",
        b"d1:ad2:id20:abcdefghij0123456789e1:q9:find_node1:t2:aa1:y1:qe",
        b"d1:ad2:id20:abcdefghij01234567896:target2:xye1:q9:find_node1:t2:aa1:y1:qe",
        b"d1:ad2:id20:abcdefghij0123456789e1:q9:get_peers1:t2:aa1:y1:qe",
        b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz1234564:porti1ee1:q13:announce_peer1:t2:aa1:y1:qe",
    ];
    for bytes in table {
        let failure = Message::decode(bytes).unwrap_err();
        assert_eq!(failure.answerable(), Some(&b"aa"[..]), "{}", bytes.escape_ascii());
    }
}

#[test]
fn anything_else_deserves_silence() {
    let table: &[&[u8]] = &[
        b"",
        b"hello",
        b"le",
        b"4:ping",
        b"de",
        b"d1:t2:aae",
        b"d1:t2:aa1:y1:xe",
        b"d1:t2:aa1:yi1ee",
        b"d1:t2:aa1:y1:re",
        b"d1:rd2:id2:xye1:t2:aa1:y1:re",
        b"d1:ade1:q4:ping1:y1:qe",
        b"d1:ade1:q4:ping1:t0:1:y1:qe",
        b"d1:ade1:q4:ping1:ti1e1:y1:qe",
        // Malformed bencode is not answered, however much of a query it looks like.
        b"d1:ade1:q4:ping1:t2:aa1:y1:q",
        b"d1:ade1:q4:ping1:t2:aa1:y1:qe\n",
        b"d1:ade1:q4:ping1:t2:aa1:y1:q1:zi00ee",
        b"d1:ade1:q4:ping1:t2:aa1:t2:aa1:y1:qe",
        b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t0:1:y1:qe",
    ];
    for bytes in table {
        let failure = Message::decode(bytes).unwrap_err();
        assert_eq!(failure.answerable(), None, "{}", bytes.escape_ascii());
    }
}

/// The messages of BEP 44, "Messages", with values for the placeholders.
#[test]
fn bep_44_get_and_put() {
    let get = Query::Get { target: MNO, seq: None, want: Want::UNSPECIFIED };
    both_ways(
        b"d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e1:q3:get1:t2:aa1:y1:qe",
        query(get),
    );
    let get = Query::Get { target: MNO, seq: Some(4), want: Want::UNSPECIFIED };
    both_ways(
        b"d1:ad2:id20:abcdefghij01234567893:seqi4e6:target20:mnopqrstuvwxyz123456e1:q3:get1:t2:aa1:y1:qe",
        query(get),
    );
    let put = Query::Put { token: b"aoeusnth", value: b"12:Hello World!", signed: None };
    let without_target =
        b"d1:ad2:id20:abcdefghij01234567895:token8:aoeusnth1:v12:Hello World!e1:q3:put1:t2:aa1:y1:qe";
    assert_eq!(Message::decode(without_target), Ok(query(put)), "as in BEP 44");
    let bytes = [
        &b"d1:ad2:id20:abcdefghij01234567896:target20:"[..],
        b"\xe5\xf9oo82\x0f\x0f3\x95\x9c\xb4\xd3\xd6VE!\x17\xaa\xdb",
        b"5:token8:aoeusnth1:v12:Hello World!e1:q3:put1:t2:aa1:y1:qe",
    ];
    both_ways(&bytes.concat(), query(put));
    let (key, signature) = ([b'k'; 32], [b's'; 64]);
    let signed = Signed { key: &key, signature: &signature, seq: 5, salt: b"foobar", cas: Some(4) };
    let put = Query::Put { token: b"aoeusnth", value: b"d1:ai1e1:bi2ee", signed: Some(signed) };
    let bytes = [
        &b"d1:ad3:casi4e2:id20:abcdefghij01234567891:k32:"[..],
        &key,
        b"4:salt6:foobar3:seqi5e3:sig64:",
        &signature,
        b"6:target20:\x95\x0f\xd4\xd6h\xc9!\x11\xae1\xcf\xa1vbF\x88\r\xad=\xd5",
        b"5:token8:aoeusnth1:vd1:ai1e1:bi2eee1:q3:put1:t2:aa1:y1:qe",
    ];
    both_ways(&bytes.concat(), query(put));
    let response = Response {
        token: Some(b"aoeusnth"),
        value: Some(b"le"),
        key: Some(&key),
        signature: Some(&signature),
        seq: Some(-1),
        ..Response::new(ABC)
    };
    let bytes = [
        &b"d1:rd2:id20:abcdefghij01234567891:k32:"[..],
        &key,
        b"3:seqi-1e3:sig64:",
        &signature,
        b"5:token8:aoeusnth1:vlee1:t2:aa1:y1:re",
    ];
    both_ways(&bytes.concat(), plain(Body::Response(response)));
}

#[test]
fn put_needs_all_that_a_mutable_item_has() {
    let (key, signature) = (["1:k32:", &"k".repeat(32)].concat(), ["3:sig64:", &"s".repeat(64)].concat());
    let kind = |arguments: &str| {
        let bytes = format!("d1:ad2:id20:abcdefghij0123456789{arguments}e1:q3:put1:t2:aa1:y1:qe");
        let failure = Message::decode(bytes.as_bytes()).expect_err("incomplete");
        assert_eq!(failure.tid, Some(&b"aa"[..]), "its sender can be told");
        failure.error.kind
    };
    assert_eq!(kind("5:token1:x"), DecodeErrorKind::MissingKey);
    assert_eq!(kind("1:v1:x"), DecodeErrorKind::MissingKey);
    assert_eq!(kind(&format!("{key}{signature}5:token1:x1:v1:x")), DecodeErrorKind::MissingKey);
    assert_eq!(kind(&format!("{key}3:seqi1e5:token1:x1:v1:x")), DecodeErrorKind::MissingKey);
    assert_eq!(kind(&format!("1:k2:ab3:seqi1e{signature}5:token1:x1:v1:x")), DecodeErrorKind::BadValue);
    assert_eq!(kind(&format!("{key}3:seqi1e3:sig2:ab5:token1:x1:v1:x")), DecodeErrorKind::BadValue);
}

#[test]
fn value_keeps_the_bytes_that_came() {
    // Unsorted keys inside v are for the responder to refuse: the span tells it.
    let bytes = b"d1:ad2:id20:abcdefghij01234567895:token1:x1:vd1:bi1e1:ai2eee1:q3:put1:t2:aa1:y1:qe";
    let Ok(Message { body: Body::Query { query: Query::Put { value, .. }, .. }, .. }) =
        Message::decode(bytes)
    else {
        panic!()
    };
    assert_eq!(value, b"d1:bi1e1:ai2ee");
}

/// S2 and S3: bombs up to the longest datagram, on a stack of 64 KiB where a worker has 2 MiB. What time they
/// take is told by the byte at which they are refused: reading never goes back, and what is longer than a
/// datagram that we take is not read at all.
#[test]
fn bombs_cost_neither_stack_nor_time() {
    let bombs = || {
        let bombs = [vec![b'l'; 65_507], b"d1:a".repeat(16_376), b"d1:a".repeat(512), vec![b'l'; 2048]];
        for bomb in &bombs {
            let failure = Message::decode(bomb).unwrap_err();
            assert_eq!(failure.answerable(), None);
            let most = 4 * Limits::KRPC.depth;
            let is_too_long = failure.error.kind == DecodeErrorKind::TooLong;
            assert_eq!(is_too_long, bomb.len() > Limits::KRPC.len, "{:?}", failure.error);
            assert!(is_too_long || failure.error.at <= most, "{:?}", failure.error);
        }
    };
    std::thread::Builder::new().stack_size(64 << 10).spawn(bombs).unwrap().join().unwrap();
}
