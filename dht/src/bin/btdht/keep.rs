//! What `--keep` does: an order stands until a signal, and each of its rounds is shown.

use std::collections::BTreeSet;

use btdht::Announce;
use btdht::item::Item;
use btdht::net::{Dht, Round};
use btdht::standing::Cause;
use krpc::Id;
use serde_json::{Value, json};

use crate::context::Context;
use crate::failure::Failure;

/// Announces again and again. Each node that stored it is printed once.
pub(crate) async fn keep_announcing(
    context: &Context,
    dht: &Dht,
    infohash: Id,
    announce: Announce,
) -> Result<(), Failure> {
    let mut announcing = dht.announce(infohash, announce).await?;
    let mut seen = BTreeSet::new();
    while let Some(round) = announcing.next().await {
        let result = &round.result;
        for &(id, node) in &result.stored {
            let event = || json!({"event": "stored", "id": id.to_string(), "addr": node.to_string()});
            if seen.insert((id, node)) {
                context.out.say(event, || format!("{id} {node}"))?;
            }
        }
        show_round(context, &round, result.stored.len(), result.refused.len())?;
    }
    Err(btdht::net::Error::Stopped.into())
}

/// Stores `item` again and again, until somebody has a newer version.
pub(crate) async fn keep_stored(context: &Context, dht: &Dht, item: Item) -> Result<(), Failure> {
    let (mut keeping, mut is_told) = (dht.keep(item).await?, false);
    while let Some(round) = keeping.next().await {
        let result = &round.result;
        show_round(context, &round, result.stored.len(), result.refused.len())?;
        let Some(newer) = &result.newer else { continue };
        if round.next.is_none() {
            let message = format!("version {} is in the DHT now; it is not overwritten", newer.seq);
            return Err(Failure::other(message).hint("`btdht get` shows it"));
        }
        if !std::mem::replace(&mut is_told, true) {
            tracing::warn!(seq = newer.seq, "some nodes have another value of this version, and keep it");
        }
    }
    Err(btdht::net::Error::Stopped.into())
}

/// Says how a round went: progress for people, a line for machines.
fn show_round<T>(context: &Context, round: &Round<T>, stored: usize, refused: usize) -> Result<(), Failure> {
    let next = round.next.map(|next| next.as_secs());
    let cause = word(round.cause);
    let number = round.number;
    let object = || -> Value {
        json!({
            "event": "round", "number": number, "cause": cause, "stored": stored, "refused": refused,
            "next_s": next,
        })
    };
    let line = || {
        let next = next.map(|next| format!(", again in {} min", next.div_ceil(60))).unwrap_or_default();
        format!("round {number} ({cause}): stored by {stored} nodes{next}")
    };
    Ok(context.out.note(object, line)?)
}

fn word(cause: Cause) -> &'static str {
    match cause {
        Cause::New => "new",
        Cause::Due => "due",
        Cause::Retry => "retry",
        Cause::Moved => "moved",
    }
}
