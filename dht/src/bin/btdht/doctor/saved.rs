//! What an earlier run left, and how much of it still lives.

use std::net::SocketAddr;
use std::time::Duration;

use btdht::diagnosis::StateFacts;
use btdht::net::{Answer, Dht, Saved, StateCondition};
use krpc::{Body, Id, Message};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::context::Context;
use crate::failure::Failure;

/// Saved nodes that are asked: enough to tell a tenth from a half, and no more than a lookup asks.
const ASKED: usize = 64;

/// Looks at the state folder, and which nodes in it are to be asked.
pub(super) fn look(context: &Context) -> (StateFacts, Vec<(Id, SocketAddr)>) {
    let nobody = Vec::new();
    let Some(folder) = &context.settings.folders.state else { return (StateFacts::Off, nobody) };
    match Saved::inspect(folder) {
        StateCondition::Missing => (StateFacts::Missing, nobody),
        StateCondition::Readable { saved, in_use, age } => {
            let nodes: Vec<_> = saved.homes.into_iter().flat_map(|home| home.nodes).collect();
            let (asked, answered, silent) = (0, 0, 0);
            (StateFacts::Readable { nodes: nodes.len(), in_use, age, asked, answered, silent }, nodes)
        }
        StateCondition::Damaged => (StateFacts::Damaged, nobody),
        StateCondition::Unreadable(error) => (StateFacts::Unreadable(error.to_string()), nobody),
    }
}

/// What came of a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    /// The node is who it was.
    Itself,
    /// Nothing, for as long as a query is waited for.
    Nothing,
    /// Somebody else or an error answered, or nobody knows: it was not sent, or the time was over.
    Else,
}

/// How many saved nodes were asked, and what came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) asked: usize,
    pub(super) answered: usize,
    pub(super) silent: usize,
}

/// Pings a choice of the saved `nodes` of our families, all at once.
pub(super) async fn ask(
    context: &Context,
    dht: &Dht,
    nodes: Vec<(Id, SocketAddr)>,
    deadline: Instant,
) -> Result<Asked, Failure> {
    let chosen = choice(nodes, |addr| dht.local_addrs().any(|local| local.is_ipv4() == addr.is_ipv4()));
    let wait = context.settings.config.query_timeout;
    let mut asking = JoinSet::new();
    for &(id, addr) in &chosen {
        let dht = dht.clone();
        asking.spawn(async move {
            let asked = Instant::now();
            let answer = timeout_at(deadline, dht.ping(addr)).await.ok()?.ok()?;
            Some(came(&id, answer.as_ref(), asked.elapsed(), wait))
        });
    }
    let mut all = Asked { asked: chosen.len(), ..Asked::default() };
    while let Some(asked) = asking.join_next().await {
        let came = asked.ok().flatten().unwrap_or(Came::Else);
        all.answered += usize::from(came == Came::Itself);
        all.silent += usize::from(came == Came::Nothing);
    }
    let Asked { asked, answered, .. } = all;
    if asked > 0 {
        context.out.note_plain(|| format!("{answered} of {asked} saved nodes answered"))?;
    }
    Ok(all)
}

/// What came of a ping of the node `id`, which ended after `elapsed`. Without an answer that is about `wait` by
/// another clock, or no time at all if the ping could not be sent.
fn came(id: &Id, answer: Option<&Answer>, elapsed: Duration, wait: Duration) -> Came {
    match answer {
        Some(answer) if is_from(id, &answer.bytes) => Came::Itself,
        None if 2 * elapsed >= wait => Came::Nothing,
        Some(_) | None => Came::Else,
    }
}

/// At most [`ASKED`] of the nodes that can be reached, evenly from the whole list, in which those that were
/// heard of last come first.
fn choice(mut nodes: Vec<(Id, SocketAddr)>, is_ours: impl Fn(&SocketAddr) -> bool) -> Vec<(Id, SocketAddr)> {
    nodes.retain(|(_, addr)| is_ours(addr));
    let all = nodes.len();
    let chosen = all.min(ASKED);
    (0..chosen).map(|n| nodes[n * all / chosen]).collect()
}

/// Whether the node `id` sent this answer.
fn is_from(id: &Id, answer: &[u8]) -> bool {
    match Message::decode(answer) {
        Ok(Message { body: Body::Response(response), .. }) => response.id == *id,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_chosen_from_the_whole_list_and_of_our_families() {
        let node = |n: usize| {
            let addr =
                if n.is_multiple_of(2) { format!("81.2.3.4:{}", n + 1) } else { format!("[::1]:{}", n + 1) };
            (Id::new([n as u8; 20]), addr.parse::<SocketAddr>().unwrap())
        };
        let chosen = |count| choice((0..count).map(node).collect(), SocketAddr::is_ipv4);
        assert!(chosen(0).is_empty());
        assert_eq!(chosen(9), [0, 2, 4, 6, 8].map(node));
        let many = chosen(1000);
        assert_eq!((many.len(), many[0], many[32]), (ASKED, node(0), node(500)));
        assert!(many.windows(2).all(|pair| pair[0].1.port() < pair[1].1.port()), "each once");
    }

    #[test]
    fn whoever_answers_as_somebody_else_is_not_the_node_that_was_saved() {
        let answer = b"d1:rd2:id20:abcdefghij0123456789e1:t1:a1:y1:re";
        let id = Id::from_slice(b"abcdefghij0123456789").unwrap();
        assert!(is_from(&id, answer) && !is_from(&Id::ZERO, answer));
        assert!(!is_from(&id, b"d1:eli201e1:xe1:t1:a1:y1:ee"));
    }

    #[test]
    fn only_a_node_that_was_waited_for_in_vain_is_silent() {
        let (wait, id) = (Duration::from_secs(4), Id::from_slice(b"abcdefghij0123456789").unwrap());
        let answer = |bytes: &[u8]| Answer {
            from: ([81, 2, 3, 4], 6881).into(),
            bytes: bytes.to_vec(),
            rtt: Duration::from_millis(50),
        };
        let own = answer(b"d1:rd2:id20:abcdefghij0123456789e1:t1:a1:y1:re");
        let error = answer(b"d1:eli201e1:xe1:t1:a1:y1:ee");
        assert_eq!(came(&id, Some(&own), own.rtt, wait), Came::Itself);
        assert_eq!(came(&Id::ZERO, Some(&own), own.rtt, wait), Came::Else);
        assert_eq!(came(&id, Some(&error), error.rtt, wait), Came::Else);
        assert_eq!(came(&id, None, wait - Duration::from_micros(1), wait), Came::Nothing);
        assert_eq!(came(&id, None, Duration::from_millis(1), wait), Came::Else, "not sent");
    }
}
