//! Where the peers of a torrent come from: what its source names, trackers, the DHT.

use std::net::SocketAddr;
use std::sync::Arc;

use btdht::{Announce, Event as DhtEvent};
use futures_util::FutureExt as _;
use krpc::Id;
use tokio::sync::{Notify, oneshot};

use super::{FOUND_BATCH, Inbound, Owner};
use crate::engine::http;
use crate::engine::options::{AddOptions, Source};
use crate::engine::tracker;
use crate::swarm::{AnnounceJob, NewTorrent, Source as Found, TrackerId, TrackerUrl};
use crate::tracker::AnnounceEvent;

/// Hosts and ports that have to be resolved before they are of use.
#[derive(Clone, Debug)]
pub(super) struct Elsewhere {
    /// `x.pe` of a magnet.
    peers: Vec<(String, u16)>,
    /// The `nodes` key of a torrent.
    nodes: Vec<(String, u16)>,
}

pub(super) fn new_torrent(
    infohash: Id,
    peer_id: [u8; 20],
    source: Source,
    options: &AddOptions,
) -> (NewTorrent, Elsewhere) {
    let url = |trusted| move |url: &String| TrackerUrl { url: url.clone(), trusted };
    let mut new = NewTorrent {
        infohash,
        peer_id,
        info: None,
        trackers: options.trackers.iter().map(|tracker| vec![url(true)(tracker)]).collect(),
        peers: options.peers.iter().map(|&addr| (Found::User, addr)).collect(),
        select: None,
    };
    let mut elsewhere = Elsewhere { peers: Vec::new(), nodes: Vec::new() };
    if !options.no_source_trackers {
        new.trackers.extend(source.trackers().into_iter().map(|tier| tier.iter().map(url(false)).collect()));
    }
    match source {
        Source::Magnet(magnet) => {
            elsewhere.peers = magnet.peers.into_iter().map(|peer| (peer.host, peer.port)).collect();
            new.select = magnet.select_only;
        }
        Source::Metainfo(torrent) => {
            elsewhere.nodes = torrent.nodes;
            new.info = Some(Arc::new(torrent.info));
        }
    }
    (new, elsewhere)
}

/// An announce to a tracker.
pub(super) struct Announced {
    /// Closes when it has ended: the next one waits for that, so that `stopped` never overtakes `completed`.
    ended: oneshot::Receiver<()>,
    /// Told when `stopped` waits behind it.
    hurry: Arc<Notify>,
}

impl Owner {
    pub(super) fn announce(&mut self, tracker: TrackerId, job: AnnounceJob) {
        let (session, inbox) = (Arc::clone(&self.session), self.inbox.clone());
        let (infohash, key) = (self.infohash, self.key);
        let (ends, ended) = oneshot::channel();
        let hurry = Arc::new(Notify::new());
        let announced = Announced { ended, hurry: Arc::clone(&hurry) };
        let before = self.announced.insert(tracker, announced);
        // A good-bye is not waited for long, and should not wait itself for one that has no place yet.
        if let Some(before) = before.as_ref().filter(|_| job.event == Some(AnnounceEvent::Stopped)) {
            before.hurry.notify_one();
        }
        self.announces.spawn(async move {
            // Nothing is ever sent: the channel closes when the announce before has ended.
            let ends: oneshot::Sender<()> = ends;
            if let Some(before) = before {
                let _ = before.ended.await;
            }
            // An owner with more to read than fits hears of the end alone; a good-bye waits for nobody.
            let begins = || drop(inbox.try_send(Inbound::Announcing(tracker)));
            let reply = Box::pin(tracker::announce(&session, (infohash, key), job, &hurry, begins)).await;
            // An owner that waits for the next one may not read any more.
            drop(ends);
            let _ = inbox.send(Inbound::Tracker(tracker, reply)).await;
        });
    }

    pub(super) fn look_up(&mut self, infohash: Id, announce: bool, seed: bool) {
        let (session, inbox) = (Arc::clone(&self.session), self.inbox.clone());
        self.chores.spawn(async move {
            // Nobody could connect to port 0.
            let announce = (announce && session.port != 0).then_some(Announce {
                port: session.port,
                implied: false,
                seed,
            });
            if let Some(dht) = &session.dht
                && let Ok(mut lookup) = dht.get_peers(infohash, announce, false).await
            {
                while let Some(event) = lookup.next().await {
                    // What has come with it goes with it.
                    let mut found: Vec<_> = peer(&event).into_iter().collect();
                    while found.len() < FOUND_BATCH
                        && let Some(Some(event)) = lookup.next().now_or_never()
                    {
                        found.extend(peer(&event));
                    }
                    if !found.is_empty() && inbox.send(Inbound::Found(Found::Dht, found)).await.is_err() {
                        return;
                    }
                }
            }
            let _ = inbox.send(Inbound::LookupEnded).await;
        });
    }

    pub(super) fn add_node(&mut self, addr: SocketAddr) {
        if let Some(dht) = self.session.dht.clone() {
            self.chores.spawn(async move {
                let _ = dht.add_node(addr).await;
            });
        }
    }

    /// Resolves what the source named by host name.
    pub(super) fn resolve(&mut self, elsewhere: Elsewhere) {
        let (session, inbox) = (Arc::clone(&self.session), self.inbox.clone());
        self.chores.spawn(async move {
            for (host, port) in elsewhere.peers {
                if let Ok(addrs) = http::resolve(&host, port, session.allow_local).await {
                    let _ = inbox.send(Inbound::Found(Found::Magnet, addrs)).await;
                }
            }
        });
        let Some(dht) = self.session.dht.clone() else { return };
        let allow_local = self.session.allow_local;
        self.chores.spawn(async move {
            for (host, port) in elsewhere.nodes {
                for addr in http::resolve(&host, port, allow_local).await.unwrap_or_default() {
                    let _ = dht.add_node(addr).await;
                }
            }
        });
    }
}

/// The address in an event of a lookup.
fn peer(event: &DhtEvent) -> Option<SocketAddr> {
    match event {
        DhtEvent::Peer { addr, .. } => Some(*addr),
        DhtEvent::Done { outcome, stats, .. } => {
            tracing::debug!(?outcome, ?stats, "lookup ended");
            None
        }
        DhtEvent::Stored { node, .. } => {
            tracing::debug!(%node, "announced");
            None
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tests::metainfo;
    use crate::metainfo::Metainfo;

    #[test]
    fn trackers_of_the_user_come_first_and_those_of_the_source_can_be_left_out() {
        let infohash = Id::new([7; 20]);
        let link = format!("magnet:?xt=urn:btih:{infohash}&tr=udp%3A%2F%2Fa%3A1&tr=udp%3A%2F%2Fb%3A1");
        let magnet = Source::Magnet(Box::new(link.parse().unwrap()));
        let tiers = [&["udp://a:1", "udp://b:1"][..], &["udp://c:1"]];
        let trackers = tiers.map(|tier| tier.iter().map(|&url| url.to_owned()).collect()).to_vec();
        let torrent = Source::Metainfo(Box::new(Metainfo { trackers, ..metainfo() }));
        for (source, theirs) in [(magnet, &[&["udp://a:1"][..], &["udp://b:1"]]), (torrent, &tiers)] {
            for no_source_trackers in [false, true] {
                let trackers = vec!["udp://ours:1".to_owned()];
                let options = AddOptions { trackers, no_source_trackers, ..AddOptions::default() };
                let (new, _) = new_torrent(infohash, [1; 20], source.clone(), &options);
                let (ours, others) = new.trackers.split_first().unwrap();
                assert!(ours.len() == 1 && ours[0].url == "udp://ours:1" && ours[0].trusted);
                assert!(others.iter().flatten().all(|tracker| !tracker.trusted));
                let others: Vec<Vec<&str>> =
                    others.iter().map(|tier| tier.iter().map(|tracker| &*tracker.url).collect()).collect();
                let expected = if no_source_trackers { &[][..] } else { &theirs[..] };
                assert_eq!(others, expected);
            }
        }
    }
}
