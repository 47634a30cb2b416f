//! The errors that a `put` gets only with a good token (S1, S14): 206, 301 and 302, over a socket.

use btdht::item::{MutableItem, SecretKey, immutable_target, mutable_target};
use krpc::{Body, Id, Message, Query, Signed, Want};

use crate::{Stranger, serve};

impl Stranger {
    fn ask(&self, query: Query<'_>) -> Vec<u8> {
        let body = Body::Query { id: Id::new([7; 20]), query };
        let mut bytes = Vec::new();
        Message { tid: b"ask", version: None, ip: None, read_only: true, body }.encode(&mut bytes);
        self.answer_to(&bytes).expect("an answer")
    }

    /// Puts with a fresh token; the error code, 0 for none.
    fn put(&self, value: &[u8], signed: Option<Signed<'_>>) -> i64 {
        let target = signed.map_or_else(|| immutable_target(value), |s| mutable_target(s.key, s.salt));
        let answer = self.ask(Query::Get { target, seq: None, want: Want::UNSPECIFIED });
        let Body::Response(response) = Message::decode(&answer).unwrap().body else { panic!() };
        let token = response.token.expect("a token");
        match Message::decode(&self.ask(Query::Put { token, value, signed })).unwrap().body {
            Body::Error(error) => error.code,
            _ => 0,
        }
    }
}

#[test]
fn puts_with_a_good_token_get_the_errors_of_bep_44() {
    let (_node, at) = serve();
    let stranger = Stranger::new(at);
    let version = |seq, value| MutableItem::sign(&SecretKey::from_seed(&[3; 32]), b"s", seq, value).unwrap();
    assert_eq!(stranger.put(b"12:Hello World!", None), 0);
    assert_eq!(stranger.put(b"d1:bi1e1:ai2ee", None), 203, "keys out of order");
    let second = version(2, b"1:b");
    let forged = Signed { signature: &[0; 64], ..second.as_signed(None) };
    assert_eq!(stranger.put(b"1:b", Some(forged)), 206);
    assert_eq!(stranger.put(b"1:b", Some(second.as_signed(None))), 0);
    assert_eq!(stranger.put(b"1:c", Some(version(3, b"1:c").as_signed(Some(1)))), 301);
    assert_eq!(stranger.put(b"1:a", Some(version(1, b"1:a").as_signed(None))), 302);
    assert_eq!(
        stranger.put(b"1:c", Some(version(2, b"1:c").as_signed(None))),
        302,
        "same number, other value"
    );
    assert_eq!(stranger.put(b"1:c", Some(version(3, b"1:c").as_signed(Some(2)))), 0);
    // What is stored comes back byte by byte.
    let target = mutable_target(&second.key, b"s");
    let answer = stranger.ask(Query::Get { target, seq: None, want: Want::UNSPECIFIED });
    let Body::Response(response) = Message::decode(&answer).unwrap().body else { panic!() };
    assert_eq!((response.value, response.seq), (Some(&b"1:c"[..]), Some(3)));
}
