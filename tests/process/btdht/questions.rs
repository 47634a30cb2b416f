//! One node, one question: `ping` and `krpc`.

use crate::harness::{Home, NOBODY, fake_node, reply, silent_node};

const LOCAL: [&str; 5] = ["--bind", "127.0.0.1", "--allow-local", "--bootstrap", NOBODY];

fn run(home: &Home, args: &[&str]) -> crate::harness::Finished {
    home.run(&[args, &LOCAL].concat())
}

#[test]
fn ping_prints_id_time_and_version() {
    let home = Home::new();
    let node = fake_node(|query| Some(reply(query, b"", b"LT\x02\x00"))).to_string();
    let plain = run(&home, &["ping", &node]).expect_code(0).stdout;
    let id = krpc::Id::new([b'n'; 20]).to_string();
    assert!(
        plain.starts_with(&format!("{id} {node} ")) && plain.ends_with("ms version LT\\x02\\x00\n"),
        "{plain}"
    );
    let json = run(&home, &["ping", &node, "--json"]).expect_code(0).stdout;
    let object: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(object["id"], id);
    assert!(object["ms"].as_f64().unwrap() > 0.0);
}

#[test]
fn what_a_node_says_cannot_steer_the_terminal() {
    let home = Home::new();
    let node = fake_node(|query| Some(reply(query, b"", b"\x1b[2J\x07\xff"))).to_string();
    let refusing = fake_node(|query| {
        let tid = query.tid;
        Some(
            [&b"d1:eli202e6:\x1b[31m\ne1:t"[..], format!("{}:", tid.len()).as_bytes(), tid, b"1:y1:ee"]
                .concat(),
        )
    });
    let refusing = refusing.to_string();
    for args in [&["ping", &node][..], &["ping", "--json", &node], &["krpc", &node, "{\"q\":\"ping\"}"]] {
        let stdout = run(&home, args).expect_code(0).stdout;
        assert!(stdout.trim_end_matches('\n').chars().all(|c| !c.is_control()), "{stdout:?}");
    }
    let finished = run(&home, &["ping", &refusing]).expect_code(1);
    assert!(finished.error().contains("error 202") && finished.error().chars().all(|c| !c.is_control()));
}

#[test]
fn nobody_there_is_exit_code_4() {
    let home = Home::new();
    let silent = silent_node();
    let node = silent.local_addr().unwrap().to_string();
    for args in
        [&["ping", &node][..], &["krpc", &node, "{\"q\":\"ping\"}"], &["ping", &node, "--timeout", "0.2"]]
    {
        let finished = run(&home, args).expect_code(4);
        assert!(finished.error().contains("no answer"), "{finished:#?}");
        assert!(finished.stdout.is_empty());
    }
}

#[test]
fn krpc_sends_the_query_as_written_and_prints_the_answer() {
    let home = Home::new();
    let node = fake_node(|query| {
        let krpc::Body::Query { .. } = query.body else { return None };
        Some(reply(query, b"5:nodes3:\x00\x01\x02", b"bd00"))
    });
    let node = node.to_string();
    let query = r#"{"q":"find_node","a":{"target":"hex:00000000000000000000000000000000000000ff"}}"#;
    let answer = run(&home, &["krpc", &node, query]).expect_code(0).stdout;
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["r"]["nodes"], "hex:000102");
    assert_eq!(answer["r"]["id"], "nnnnnnnnnnnnnnnnnnnn");
    let finished = run(&home, &["krpc", &node, r#"{"q":"ping","a":{"x":1.5}}"#]).expect_code(2);
    assert!(finished.error().contains("1.5"));
}

#[test]
fn krpc_shows_errors_of_a_real_node_and_refuses_what_is_no_query() {
    let home = Home::new();
    let (_node, addr) = home.serve(NOBODY, &[]);
    let node = addr.to_string();
    let ask = |query: &str| run(&home, &["krpc", &node, query, "--json"]).expect_code(0).objects().remove(0);
    let pong = ask(r#"{"q":"ping"}"#);
    assert_eq!(
        (&pong["event"], &pong["addr"], &pong["message"]["y"]),
        (&"answer".into(), &node[..].into(), &"r".into())
    );
    assert!(pong["ms"].as_f64().unwrap() > 0.0);
    // BEP 5: 204 for an unknown method, 203 for a wrong argument.
    assert_eq!(ask(r#"{"q":"no_such_method"}"#)["message"]["e"][0], 204);
    assert_eq!(ask(r#"{"q":"find_node","a":{"target":"short"}}"#)["message"]["e"][0], 203);
    let token = ask(r#"{"q":"get_peers","a":{"info_hash":"abcdefghij0123456789"}}"#);
    assert!(token["message"]["r"]["token"].is_string(), "{token}");
    for wrong in ["", "[]", "{}", r#"{"q":7}"#, r#"{"q":"ping","t":"aa"}"#, r#"{"q":"ping","a":{"x":null}}"#]
    {
        let finished = run(&home, &["krpc", &node, wrong]).expect_code(2);
        assert!(finished.error().contains("invalid query"), "{finished:#?}");
    }
}
