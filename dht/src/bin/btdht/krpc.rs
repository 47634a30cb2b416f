//! `btdht krpc`: one raw query, written and answered as JSON.
//!
//! JSON has no byte strings. Here a text is its UTF-8 bytes, and `hex:` followed by hexadecimal
//! digits is those bytes; answers use the same form for all that is not printable ASCII.

use std::time::Duration;

use btdht::Question;
use krpc::bencode::{Data, Limits, Value as Bencode, Writer};
use serde_json::{Map, Value, json};

use crate::context::Context;
use crate::failure::Failure;
use crate::hops::millis;

/// Bytes of a query's method and arguments; more do not fit a datagram.
const MAX_ARGUMENTS: usize = 900;

/// Send one raw query and print the answer
#[derive(clap::Args)]
#[command(after_help = "\
The query is {\"q\": METHOD, \"a\": {...}}; an \"id\" is added to \"a\" where there is none. Texts \
are bytes; \"hex:00ff\" is bytes in hexadecimal.

Example: btdht krpc 127.0.0.1:6881 '{\"q\":\"find_node\",\"a\":{\"target\":\"abcdefghij0123456789\"}}'")]
pub(crate) struct Args {
    /// The node
    #[arg(value_name = "HOST:PORT")]
    node: String,
    /// The query
    #[arg(value_name = "JSON")]
    query: String,
}

pub(crate) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let dht = context.open_alone()?;
    let id = dht.ids().next().unwrap_or(krpc::Id::ZERO);
    let question =
        question(&args.query, &id).map_err(|error| Failure::usage(format!("invalid query: {error}")))?;
    let addrs = context.resolve(&dht, &args.node).await?;
    let all = async {
        for &addr in &addrs {
            if let Some(answer) = dht.ask(addr, question.clone()).await? {
                return Ok::<_, Failure>(Some(answer));
            }
        }
        Ok(None)
    };
    let answer = tokio::time::timeout(context.timeout(Duration::from_secs(15)), all).await;
    let Some(answer) = answer.unwrap_or(Ok(None))? else {
        return Err(Failure::nothing(format!("no answer from {}", args.node.escape_debug())));
    };
    let message = Bencode::parse(&answer.bytes, Limits::KRPC)
        .map_err(|error| Failure::other(format!("a broken answer: {error}")))?;
    let message = to_json(&message);
    context.out.say(
        || json!({"event": "answer", "addr": answer.from.to_string(), "ms": millis(answer.rtt), "message": message}),
        || message.to_string(),
    )?;
    Ok(())
}

/// The query that `text` describes, from a node called `id`.
fn question(text: &str, id: &krpc::Id) -> Result<Question, String> {
    let mut query: Map<String, Value> = serde_json::from_str(text)
        .map_err(|error| format!("{error}; expected {{\"q\": ..., \"a\": {{...}}}}"))?;
    let Some(Value::String(method)) = query.remove("q") else {
        return Err("\"q\" has to name the method".into());
    };
    let mut arguments = match query.remove("a") {
        None => Map::new(),
        Some(Value::Object(arguments)) => arguments,
        Some(_) => return Err("\"a\" has to be an object".into()),
    };
    if let Some(other) = query.keys().next() {
        return Err(format!("unknown key \"{}\"; there are \"q\" and \"a\"", other.escape_debug()));
    }
    arguments.entry("id").or_insert_with(|| format!("hex:{id}").into());
    let mut encoded = Vec::new();
    let mut writer = Writer::new(&mut encoded);
    write(&mut writer, &Value::Object(arguments))?;
    drop(writer);
    let method = bytes(&method)?;
    let taken = method.len() + encoded.len();
    if taken > MAX_ARGUMENTS {
        return Err(format!("method and arguments take {taken} bytes; {MAX_ARGUMENTS} fit"));
    }
    Ok(Question::Raw { method, arguments: encoded })
}

/// Writes our user's JSON as bencode. The recursion is as deep as the JSON, which its parser bounds.
fn write(writer: &mut Writer<'_>, value: &Value) -> Result<(), String> {
    match value {
        Value::Number(number) => {
            let number = number.as_i64().ok_or_else(|| format!("{number} is no integer of 64 bits"))?;
            writer.int(number);
        }
        Value::String(text) => {
            writer.bytes(&bytes(text)?);
        }
        Value::Array(items) => {
            writer.list();
            for item in items {
                write(writer, item)?;
            }
            writer.end();
        }
        Value::Object(entries) => {
            let mut sorted = Vec::new();
            for (key, value) in entries {
                sorted.push((bytes(key)?, value));
            }
            sorted.sort_by(|(a, _), (b, _)| a.cmp(b));
            if sorted.windows(2).any(|pair| pair[0].0 == pair[1].0) {
                return Err("a key stands twice".into());
            }
            writer.dict();
            for (key, value) in sorted {
                writer.key(&key);
                write(writer, value)?;
            }
            writer.end();
        }
        Value::Bool(_) | Value::Null => {
            return Err("bencode has numbers, texts, lists and objects only".into());
        }
    }
    Ok(())
}

/// The bytes that a JSON text stands for.
fn bytes(text: &str) -> Result<Vec<u8>, String> {
    let Some(hex) = text.strip_prefix("hex:") else { return Ok(text.as_bytes().to_vec()) };
    let digits: Option<Vec<u32>> = hex.chars().map(|digit| digit.to_digit(16)).collect();
    match digits {
        Some(digits) if digits.len() % 2 == 0 => {
            Ok(digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect())
        }
        _ => Err("`hex:` wants an even number of hexadecimal digits".into()),
    }
}

/// A stranger's value as JSON. The recursion is bounded by the depth that its parser allows.
fn to_json(value: &Bencode<'_>) -> Value {
    match value.data() {
        Data::Int(number) => (*number).into(),
        Data::Bytes(bytes) => text(bytes).into(),
        Data::List(items) => items.iter().map(to_json).collect(),
        Data::Dict(entries) => {
            Value::Object(entries.iter().map(|(key, value)| (text(key), to_json(value))).collect())
        }
    }
}

/// The JSON text for bytes: themselves if printable ASCII, else in hexadecimal.
fn text(bytes: &[u8]) -> String {
    let printable = bytes.iter().all(|byte| (0x20..0x7f).contains(byte)) && !bytes.starts_with(b"hex:");
    match std::str::from_utf8(bytes) {
        Ok(text) if printable => text.to_owned(),
        _ => bytes.iter().fold(String::from("hex:"), |mut text, byte| {
            use std::fmt::Write as _;
            let _ = write!(text, "{byte:02x}");
            text
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(text: &str) -> Result<Vec<u8>, String> {
        match question(text, &krpc::Id::new([b'n'; 20]))? {
            Question::Raw { arguments, .. } => Ok(arguments),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn keys_are_sorted_as_bytes_and_an_id_is_added() {
        let encoded = arguments(r#"{"q":"x","a":{"zz":[1,"hex:00ff"],"b":{"d":-3,"c":""}}}"#).unwrap();
        assert_eq!(encoded, b"d1:bd1:c0:1:di-3ee2:id20:nnnnnnnnnnnnnnnnnnnn2:zzli1e2:\x00\xffee");
        assert_eq!(arguments(r#"{"q":"ping","a":{"id":"short"}}"#).unwrap(), b"d2:id5:shorte");
    }

    #[test]
    fn what_bencode_cannot_say_is_refused() {
        for bad in [
            "",
            "[]",
            r#"{"a":{}}"#,
            r#"{"q":1}"#,
            r#"{"q":"x","a":[]}"#,
            r#"{"q":"x","t":"aa"}"#,
            r#"{"q":"x","a":{"b":1.5}}"#,
            r#"{"q":"x","a":{"b":true}}"#,
            r#"{"q":"x","a":{"b":"hex:0"}}"#,
            r#"{"q":"x","a":{"b":1,"hex:62":2}}"#,
        ] {
            assert!(arguments(bad).is_err(), "{bad}");
        }
        assert!(arguments(&format!(r#"{{"q":"x","a":{{"b":"{}"}}}}"#, "x".repeat(1000))).is_err());
        assert!(arguments(&format!(r#"{{"q":"{}"}}"#, "x".repeat(1000))).is_err());
    }

    #[test]
    fn answers_are_escaped_and_read_back() {
        let answer = Bencode::parse(b"d1:a4:\x1b[2J1:b4:hex:1:c2:hi1:dli7eee", Limits::KRPC).unwrap();
        let json = to_json(&answer).to_string();
        assert_eq!(json, r#"{"a":"hex:1b5b324a","b":"hex:6865783a","c":"hi","d":[7]}"#);
        assert_eq!(bytes("hex:6865783a").unwrap(), b"hex:");
    }
}
