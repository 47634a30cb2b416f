//! `btdht put`: store an item of BEP 44, or publish a torrent under a key (BEP 46).

use std::path::PathBuf;
use std::time::Duration;

use btdht::item::{Item, MutableItem, SecretKey, immutable_target, mutable_target};
use btdht::mutable_torrent::value_of;
use btdht::net::{PutReport, Writing};
use krpc::Id;
use krpc::magnet::{Magnet, MutableKey};
use serde_json::json;
use tokio::time::timeout;

use crate::context::{self, Context};
use crate::failure::Failure;
use crate::item_text::{new_key, read_key, salt, to_hex, value};
use crate::keep::keep_stored;

/// Store an item (BEP 44)
#[derive(clap::Args)]
#[command(after_help = "\
Without a key the value is immutable and lives under its hash. With --key or --new-key it is \
signed: the newest version is read first, and the next one stored only over that one. With --cas N \
it becomes version N + 1, and nothing is stored when another version than N is found. With --seq N \
it becomes version N without reading first; a --cas beside it is checked by each node for what that \
node has; where it is N - 1, nodes that refuse are looked into as without --seq. Prints the target \
(for signed items: the public key and the target). Nodes forget items after two hours; --keep stores \
it again every hour until it is stopped, or until a newer version is in the DHT, which is never \
overwritten.

Exit code 4 when no node took it, 1 when another writer was faster (another version was met, or no \
fewer nodes refuse than took it): read it again. Where --timeout ends it, what nodes took until then \
is stored and told, nobody has looked into refusals, and --json says that it is not complete.

Examples: btdht put 'Hello World!'
          btdht put @news.txt --new-key my.key --salt news
          btdht put --infohash 08ada5a7a6183aae1e09d831df6748d566095a10 --key my.key --keep")]
pub(crate) struct Args {
    /// The value: text, or @ and the name of a file
    #[arg(value_name = "VALUE or @FILE", required_unless_present = "infohash")]
    value: Option<String>,
    /// The value is bencode already
    #[arg(long)]
    bencode: bool,
    /// Publish this torrent under the key instead of a value (BEP 46), and print its magnet link
    #[arg(long, value_name = "INFOHASH", value_parser = context::infohash, conflicts_with_all = ["value", "bencode"])]
    infohash: Option<Id>,
    /// Sign with the key in this file: a seed or an expanded secret, in hexadecimal
    #[arg(long, value_name = "FILE", conflicts_with = "new_key")]
    key: Option<PathBuf>,
    /// Make a key, write it to this file, which must not exist, and sign with it
    #[arg(long, value_name = "FILE")]
    new_key: Option<PathBuf>,
    /// Which of the key's items: text, or hex: and digits
    #[arg(long, value_name = "SALT", value_parser = salt)]
    salt: Option<std::vec::Vec<u8>>,
    /// Sequence number to use, instead of the one after the newest
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    seq: Option<i64>,
    /// Store only over the version of this sequence number, or where there is none
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    cas: Option<i64>,
    /// Go on storing it every hour until stopped
    #[arg(long)]
    keep: bool,
}

pub(crate) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let signed = args.key.is_some() || args.new_key.is_some();
    let signed_only = args.salt.is_some() || args.seq.is_some() || args.cas.is_some();
    if !signed && (signed_only || args.infohash.is_some()) {
        return Err(Failure::usage("--salt, --seq, --cas and --infohash are for signed items")
            .hint("--key FILE or --new-key FILE signs"));
    }
    let value = match (&args.value, args.infohash) {
        (Some(text), _) => value(text, args.bencode)?,
        (None, infohash) => value_of(&infohash.unwrap_or(Id::ZERO)),
    };
    let secret = match (&args.key, &args.new_key) {
        (Some(path), _) => Some(read_key(path)?),
        (None, Some(path)) => Some(new_key(path)?),
        (None, None) => None,
    };
    let dht = if args.keep { context.open_to_stay()? } else { context.open()? };
    let limit = context.timeout(Duration::from_secs(60));
    let mut writing = dht.writing();
    let stored = async {
        dht.ready().await?;
        store(args, &mut writing, secret.as_ref(), &value).await
    };
    let is_complete = timeout(limit, stored).await.map_or(Ok(false), |end| end.map(|()| true))?;
    let (seq, report) = (writing.seq(), writing.into_report());
    if !is_complete && report.stored.is_empty() && report.refused.is_empty() && report.newer.is_none() {
        return Err(Failure::nothing("storing the item: no answer before the timeout"));
    }
    say(args, context, secret.as_ref(), &value, (seq, &report, is_complete))?;
    if !is_complete {
        tracing::warn!("the timeout came before the put was complete: a longer --timeout gives it more time");
    }
    // Why nodes refuse is looked into after all have been asked.
    if report.newer.is_some() || is_complete && report.is_conflict() {
        return Err(Failure::other("another writer was faster: what is stored is not what was expected")
            .hint("`btdht get` shows it; put again"));
    }
    if args.keep {
        return keep_stored(context, &dht, args.item(secret.as_ref(), seq, value)?).await;
    }
    if report.stored.is_empty() {
        return Err(Failure::nothing(format!("no node took the item; {} refused it", report.refused.len())));
    }
    Ok(())
}

async fn store(
    args: &Args,
    writing: &mut Writing,
    secret: Option<&SecretKey>,
    value: &[u8],
) -> Result<(), Failure> {
    let salt = args.salt.as_deref().unwrap_or_default();
    let Some(secret) = secret else {
        return Ok(writing.put_immutable(value).await?);
    };
    match (args.seq, args.cas) {
        (None, None) => _ = writing.update(secret, salt, value).await?,
        (None, Some(expected)) => _ = writing.update_over(secret, salt, value, expected).await?,
        (Some(seq), cas) => writing.put_mutable(args.signed(secret, seq, value)?, cas).await?,
    }
    Ok(())
}

impl Args {
    fn signed(&self, secret: &SecretKey, seq: i64, value: &[u8]) -> Result<MutableItem, Failure> {
        let salt = self.salt.as_deref().unwrap_or_default();
        MutableItem::sign(secret, salt, seq, value).map_err(|error| Failure::usage(error.to_string()))
    }

    /// What was stored.
    fn item(&self, secret: Option<&SecretKey>, seq: Option<i64>, value: Vec<u8>) -> Result<Item, Failure> {
        Ok(match (secret, seq) {
            (Some(secret), Some(seq)) => Item::Mutable(self.signed(secret, seq, &value)?),
            _ => Item::Immutable { value },
        })
    }
}

fn say(
    args: &Args,
    context: &Context,
    secret: Option<&SecretKey>,
    value: &[u8],
    (seq, report, is_complete): (Option<i64>, &PutReport, bool),
) -> Result<(), Failure> {
    let salt = args.salt.as_deref().unwrap_or_default();
    let (key, target) = match secret {
        Some(secret) => (Some(secret.public()), mutable_target(&secret.public(), salt)),
        None => (None, immutable_target(value)),
    };
    let magnet = key.filter(|_| args.infohash.is_some()).map(|public_key| {
        let mutable = Some(MutableKey { public_key, salt: salt.to_vec() });
        Magnet { mutable, ..Magnet::default() }.to_string()
    });
    context.out.say(
        || {
            json!({
                "event": "put",
                "target": target.to_string(),
                "key": key.map(|key| to_hex(&key)),
                "seq": seq,
                "stored": report.stored.len(),
                "refused": report.refused.iter().map(|(node, code)| json!({"node": node.to_string(), "code": code})).collect::<Vec<_>>(),
                "complete": is_complete,
                "newer": report.newer.as_ref().map(|item| item.seq),
                "magnet": magnet,
            })
        },
        || match (&magnet, key) {
            (Some(magnet), _) => magnet.clone(),
            (None, Some(key)) => format!("{} {target}", to_hex(&key)),
            (None, None) => target.to_string(),
        },
    )?;
    Ok(())
}
