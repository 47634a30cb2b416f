//! `btdht get`: an item of BEP 44.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::Duration;

use btdht::item::{Item, PublicKey};
use btdht::mutable_torrent::infohash_in;
use btdht::{Command, Event};
use krpc::Id;
use krpc::magnet::Magnet;
use serde_json::json;
use tokio::time::timeout;

use crate::context::{self, Context};
use crate::failure::Failure;
use crate::follow::follow;
use crate::item_text::{public_key, salt, shown, to_hex};

/// Fetch an item (BEP 44)
#[derive(clap::Args)]
#[command(after_help = "\
Prints the value: a printable string as it is, anything else as escaped bencode. An immutable item \
ends at the first copy that hashes to TARGET; of a mutable one the newest version is printed when \
the closest nodes have answered. Exit code 4 when nobody has it.

Examples: btdht get e5f96f6f38320f0f33959cb4d3d656452117aadb
          btdht get --key 77ff84905a91936367c01360803104f92432fcd904a43511876df5cdf3e7e548 --salt news
          btdht get 'magnet:?xs=urn:btpk:8543d3e6115f0f98c944077a4493dcd543e49c739fd998550a1f614ab36ed63e'
          btdht get --key 77ff84905a91936367c01360803104f92432fcd904a43511876df5cdf3e7e548 --follow --json")]
pub(crate) struct Args {
    /// Hash of an immutable value, 40 hexadecimal digits, or a magnet link that names a key (BEP 46)
    #[arg(value_name = "TARGET", value_parser = target, required_unless_present = "key")]
    target: Option<Target>,
    /// Public key of a mutable item, 64 hexadecimal digits
    #[arg(long, value_name = "PUBKEY", value_parser = public_key, conflicts_with = "target")]
    key: Option<PublicKey>,
    /// Which of the key's items: text, or hex: and digits
    #[arg(long, value_name = "SALT", value_parser = salt, requires = "key", conflicts_with = "target")]
    salt: Option<std::vec::Vec<u8>>,
    /// Only a version newer than this
    #[arg(long, value_name = "N", requires = "key", conflicts_with = "target")]
    seq: Option<i64>,
    /// Go on asking every hour, print each newer version and put it again, until stopped
    #[arg(long, conflicts_with = "trace")]
    follow: bool,
    /// Show each hop, on stderr; with --json a trace that `btdht replay` can replay
    #[arg(long)]
    trace: bool,
}

/// Which item.
#[derive(Clone)]
enum Target {
    /// The immutable one that hashes to this.
    Hash(Id),
    /// The mutable one of this key and salt.
    Key(PublicKey, Vec<u8>),
}

/// A target as digits or as a magnet link.
fn target(text: &str) -> Result<Target, String> {
    if !context::is_magnet(text) {
        return context::id(text).map(Target::Hash);
    }
    let magnet = Magnet::parse(text).map_err(|error| format!("invalid magnet link: {error}"))?;
    let key = magnet.mutable.ok_or("this magnet link names a torrent and no key of an item")?;
    Ok(Target::Key(key.public_key, key.salt))
}

pub(crate) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let target = match (args.key, args.target.clone()) {
        (None, Some(target)) => target,
        (key, _) => Target::Key(key.unwrap_or_default(), args.salt.clone().unwrap_or_default()),
    };
    let command = match target {
        Target::Key(key, salt) if args.follow => return watch(args, context, key, &salt).await,
        Target::Hash(_) if args.follow => {
            return Err(Failure::usage("an immutable item has one version: --follow needs a key"));
        }
        Target::Key(key, salt) => Command::GetMutable { key, salt, seq: args.seq, trace: args.trace },
        Target::Hash(target) => Command::GetImmutable { target, trace: args.trace },
    };
    let dht = context.open_traced(args.trace)?;
    let limit = context.timeout(Duration::from_secs(30));
    let (mut newest, mut copies) = (None, 0);
    let end = follow(context, &dht, command, limit, |event, _| {
        if let Event::Item { item, node, .. } = event {
            copies += 1;
            // Of two values of one number the first one counts, as it does for `Dht::get_mutable`.
            if newest.as_ref().is_none_or(|(newest, _): &(Box<Item>, _)| item.seq() > newest.seq()) {
                newest = Some((item.clone(), *node));
            }
        }
        Ok(ControlFlow::Continue(()))
    })
    .await?;
    dht.finish().await?;
    let Some((item, node)) = newest else {
        context.out.say_json(|| end.json())?;
        return Err(end.nothing("fetching the item"));
    };
    say(context, &item, Some(node))?;
    context.out.say_json(|| end.json())?;
    tracing::debug!(versions = copies, "found");
    Ok(())
}

/// Prints each version that is newer than the one before, and keeps it alive (BEP 46), until a signal; `--timeout` limits how long
/// the first one may take.
async fn watch(args: &Args, context: &Context, key: PublicKey, salt: &[u8]) -> Result<(), Failure> {
    let dht = context.open_to_stay()?;
    let mut versions = dht.follow_and_keep(key, salt, args.seq).await?;
    let mut limit = context.flags.timeout;
    loop {
        let next = versions.next();
        let version = match limit.take() {
            Some(limit) => timeout(limit, next)
                .await
                .map_err(|_| Failure::nothing("following the key: nothing before the timeout"))?,
            None => next.await,
        };
        let Some(version) = version else { return Err(btdht::net::Error::Stopped.into()) };
        say(context, &Item::Mutable(version), None)?;
    }
}

fn say(context: &Context, item: &Item, node: Option<SocketAddr>) -> Result<(), Failure> {
    let object = || {
        let mut object = json!({
            "event": "item",
            "target": item.target().to_string(),
            "value": shown(item.value()),
            "bencode": format!("hex:{}", to_hex(item.value())),
        });
        if let Some(object) = object.as_object_mut() {
            if let Some(node) = node {
                object.insert("node".into(), node.to_string().into());
            }
            if let Some(infohash) = infohash_in(item.value()) {
                object.insert("infohash".into(), infohash.to_string().into());
            }
            if let Item::Mutable(item) = item {
                object.insert("seq".into(), item.seq.into());
                object.insert("key".into(), to_hex(&item.key).into());
                object.insert("signature".into(), to_hex(&item.signature).into());
            }
        }
        object
    };
    Ok(context.out.say(object, || shown(item.value()))?)
}
