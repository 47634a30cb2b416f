//! How a [`Command`] stands in a trace: an object with its name as `do` and its arguments.

use krpc::Want;
use serde_json::{Value, json};

use super::fields::{Fields, hex};
use crate::item::{Item, MutableItem};
use crate::{Announce, Command, LookupId, Question};

pub(super) fn to_json(command: &Command) -> Value {
    match command {
        Command::FindNode { target, trace } => {
            json!({"do": "find_node", "target": target.to_string(), "trace": trace})
        }
        Command::GetPeers { infohash, announce, trace } => {
            let announce =
                announce.map(|how| json!({"port": how.port, "implied": how.implied, "seed": how.seed}));
            json!({"do": "get_peers", "target": infohash.to_string(), "announce": announce, "trace": trace})
        }
        Command::Scrape { infohash, trace } => {
            json!({"do": "scrape", "target": infohash.to_string(), "trace": trace})
        }
        Command::Sample { target, trace } => {
            json!({"do": "sample", "target": target.to_string(), "trace": trace})
        }
        Command::GetImmutable { target, trace } => {
            json!({"do": "get_immutable", "target": target.to_string(), "trace": trace})
        }
        Command::GetMutable { key, salt, seq, trace } => {
            json!({"do": "get_mutable", "key": hex(key), "salt": hex(salt), "seq": seq, "trace": trace})
        }
        Command::Put { item, cas, trace } => {
            json!({"do": "put", "item": item_to_json(item), "cas": cas, "trace": trace})
        }
        Command::Ask { to, question } => {
            json!({"do": "ask", "to": to, "question": question_to_json(question)})
        }
        Command::AddNode(addr) => json!({"do": "add_node", "addr": addr}),
        Command::RemoveNode(addr) => json!({"do": "remove_node", "addr": addr}),
        Command::Routers(routers) => json!({"do": "routers", "addrs": routers}),
        Command::TellAnnounces(tells) => json!({"do": "tell_announces", "on": tells}),
        Command::Cancel(LookupId(lookup)) => json!({"do": "cancel", "lookup": lookup}),
    }
}

pub(super) fn from_json(fields: Fields<'_>) -> Result<Command, String> {
    let trace = || fields.flag("trace");
    Ok(match fields.text("do")? {
        "find_node" => Command::FindNode { target: fields.id("target")?, trace: trace()? },
        "get_peers" => {
            let announce = match fields.0.get("announce") {
                None | Some(Value::Null) => None,
                Some(_) => Some(announce_from_json(fields.object("announce")?)?),
            };
            Command::GetPeers { infohash: fields.id("target")?, announce, trace: trace()? }
        }
        "scrape" => Command::Scrape { infohash: fields.id("target")?, trace: trace()? },
        "sample" => Command::Sample { target: fields.id("target")?, trace: trace()? },
        "get_immutable" => Command::GetImmutable { target: fields.id("target")?, trace: trace()? },
        "get_mutable" => Command::GetMutable {
            key: array(fields, "key")?,
            salt: fields.bytes("salt")?,
            seq: fields.signed("seq")?,
            trace: trace()?,
        },
        "put" => {
            let item = Box::new(item_from_json(fields.object("item")?)?);
            Command::Put { item, cas: fields.signed("cas")?, trace: trace()? }
        }
        "ask" => {
            Command::Ask { to: fields.addr("to")?, question: question_from_json(fields.object("question")?)? }
        }
        "add_node" => Command::AddNode(fields.addr("addr")?),
        "remove_node" => Command::RemoveNode(fields.addr("addr")?),
        "routers" => {
            let addr = |value: &Value| value.as_str()?.parse().ok();
            let routers = fields.list("addrs")?.iter().map(addr).collect::<Option<_>>();
            Command::Routers(routers.ok_or("`addrs` has to be a list of IP:PORT")?)
        }
        "tell_announces" => Command::TellAnnounces(fields.flag("on")?),
        "cancel" => Command::Cancel(LookupId(fields.number("lookup")?)),
        other => return Err(format!("there is no command {other:?}")),
    })
}

fn announce_from_json(fields: Fields<'_>) -> Result<Announce, String> {
    let port = u16::try_from(fields.number("port")?).map_err(|_| "`port` has to be a port")?;
    Ok(Announce { port, implied: fields.flag("implied")?, seed: fields.flag("seed")? })
}

fn item_to_json(item: &Item) -> Value {
    match item {
        Item::Immutable { value } => json!({"value": hex(value)}),
        Item::Mutable(MutableItem { key, salt, seq, value, signature }) => json!({
            "value": hex(value), "key": hex(key), "salt": hex(salt), "seq": seq, "signature": hex(signature),
        }),
    }
}

fn item_from_json(fields: Fields<'_>) -> Result<Item, String> {
    let value = fields.bytes("value")?;
    if !fields.0.contains_key("key") {
        return Ok(Item::Immutable { value });
    }
    Ok(Item::Mutable(MutableItem {
        key: array(fields, "key")?,
        salt: fields.bytes("salt")?,
        seq: fields.signed("seq")?.ok_or("`seq` has to be a whole number")?,
        value,
        signature: array(fields, "signature")?,
    }))
}

fn question_to_json(question: &Question) -> Value {
    let aimed = |ask: &str, target: &krpc::Id, want: &Want| json!({"ask": ask, "target": target.to_string(), "n4": want.n4, "n6": want.n6});
    match question {
        Question::Ping => json!({"ask": "ping"}),
        Question::FindNode(target, want) => aimed("find_node", target, want),
        Question::GetPeers(target, want) => aimed("get_peers", target, want),
        Question::Scrape(target, want) => aimed("scrape", target, want),
        Question::Sample(target, want) => aimed("sample", target, want),
        Question::Raw { method, arguments } => {
            json!({"ask": "raw", "method": hex(method), "arguments": hex(arguments)})
        }
    }
}

fn question_from_json(fields: Fields<'_>) -> Result<Question, String> {
    let aimed = || Ok::<_, String>((fields.id("target")?, want(fields)?));
    Ok(match fields.text("ask")? {
        "ping" => Question::Ping,
        "find_node" => aimed().map(|(target, want)| Question::FindNode(target, want))?,
        "get_peers" => aimed().map(|(target, want)| Question::GetPeers(target, want))?,
        "scrape" => aimed().map(|(target, want)| Question::Scrape(target, want))?,
        "sample" => aimed().map(|(target, want)| Question::Sample(target, want))?,
        "raw" => Question::Raw { method: fields.bytes("method")?, arguments: fields.bytes("arguments")? },
        other => return Err(format!("there is no question {other:?}")),
    })
}

fn want(fields: Fields<'_>) -> Result<Want, String> {
    Ok(Want { n4: fields.flag("n4")?, n6: fields.flag("n6")? })
}

fn array<const N: usize>(fields: Fields<'_>, key: &str) -> Result<[u8; N], String> {
    fields.bytes(key)?.try_into().map_err(|_| format!("`{key}` has to be {N} bytes"))
}

#[cfg(test)]
mod tests {
    use krpc::Id;

    use super::*;
    use crate::item::SecretKey;

    #[test]
    fn every_command_is_read_back_as_it_was() {
        let (target, infohash, to) = (Id::new([9; 20]), Id::new([8; 20]), "81.2.3.4:5".parse().unwrap());
        let key = SecretKey::from_seed(&[1; 32]);
        let signed = MutableItem::sign(&key, b"salt", 7, b"5:value").unwrap();
        let announce = Some(Announce { port: 7, implied: false, seed: true });
        let questions = [
            Question::Ping,
            Question::FindNode(target, Want::BOTH),
            Question::GetPeers(target, Want::UNSPECIFIED),
            Question::Scrape(target, Want::BOTH),
            Question::Sample(target, Want::BOTH),
            Question::Raw { method: b"\xff".to_vec(), arguments: b"de".to_vec() },
        ];
        let mut commands = vec![
            Command::FindNode { target, trace: true },
            Command::GetPeers { infohash, announce, trace: false },
            Command::GetPeers { infohash, announce: None, trace: true },
            Command::Scrape { infohash, trace: true },
            Command::Sample { target, trace: false },
            Command::GetImmutable { target, trace: true },
            Command::GetMutable { key: key.public(), salt: b"salt".to_vec(), seq: Some(-3), trace: true },
            Command::Put { item: Box::new(Item::Mutable(signed)), cas: Some(6), trace: false },
            Command::Put {
                item: Box::new(Item::Immutable { value: b"1:x".to_vec() }),
                cas: None,
                trace: true,
            },
            Command::AddNode(to),
            Command::RemoveNode(to),
            Command::Routers(vec![to, "[2001:db8::1]:6881".parse().unwrap()]),
            Command::TellAnnounces(true),
            Command::Cancel(LookupId(u64::MAX)),
        ];
        commands.extend(questions.map(|question| Command::Ask { to, question }));
        for command in commands {
            let text = to_json(&command).to_string();
            let object: serde_json::Map<_, _> = serde_json::from_str(&text).unwrap();
            assert_eq!(from_json(Fields(&object)), Ok(command), "{text}");
        }
    }
}
