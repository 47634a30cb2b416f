//! One announce to a UDP tracker (BEP 15): a socket for the [`UdpTracker`] state machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use btdht::{Rng, Seeds};
use tokio::net::UdpSocket;

use super::http::{HttpError, resolve};
use super::shared::Shared;
use crate::tracker::udp::{Patience, UdpTracker};
use crate::tracker::url::UdpUrl;
use crate::tracker::{Announce, AnnounceReply, TrackerError};

/// Longest datagram that is read: 200 peers of 18 bytes and then some.
const MAX_DATAGRAM: usize = 4096;
/// A name that does not resolve within this is given up.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Announces to the first address of the URL's name that can be reached. `free` accepts local ones.
pub(super) async fn announce(
    session: &Shared,
    url: &str,
    free: bool,
    announce: &Announce,
) -> Result<AnnounceReply, TrackerError> {
    let url = UdpUrl::parse(url)?;
    let resolved = tokio::time::timeout(RESOLVE_TIMEOUT, resolve(url.host, url.port, free)).await;
    let addrs = resolved.map_err(|_| TrackerError::Timeout)?.map_err(|error| match error {
        HttpError::LocalAddress => TrackerError::ForbiddenAddress,
        other => TrackerError::Network(other.to_string()),
    })?;
    let mut last = TrackerError::Timeout;
    for addr in addrs {
        match announce_at(session, addr, url.path, announce).await {
            // No route, or nobody listens: the next address may do.
            Err(error @ TrackerError::Network(_)) => last = error,
            result => return result,
        }
    }
    Err(last)
}

async fn announce_at(
    session: &Shared,
    addr: SocketAddr,
    path: &str,
    announce: &Announce,
) -> Result<AnnounceReply, TrackerError> {
    let network = |error: std::io::Error| TrackerError::Network(error.to_string());
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| TrackerError::Network(error.to_string()))?;
    let any = match addr {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    let source = session.source_for(addr).map_err(network)?.unwrap_or_else(|| SocketAddr::new(any, 0));
    let socket = UdpSocket::bind(source).await.map_err(network)?;
    // A connected socket hears of nobody else, and of ICMP's refusals.
    socket.connect(addr).await.map_err(network)?;
    let mut tracker = UdpTracker::new(addr, path, Rng::new(Seeds(seed)));
    tracker.announce(session.clock.now(), announce.clone(), Patience::Failover);
    let mut datagram = vec![0; MAX_DATAGRAM];
    loop {
        if let Some(bytes) = tracker.poll_transmit() {
            socket.send(&bytes).await.map_err(network)?;
        }
        let wait = tracker.timeout().since(session.clock.now());
        let outcome = tokio::select! {
            received = socket.recv(&mut datagram) => {
                let n = received.map_err(network)?;
                tracker.handle_datagram(session.clock.now(), addr, &datagram[..n])
            }
            () = tokio::time::sleep(wait) => tracker.handle_timeout(session.clock.now()),
        };
        if let Some(outcome) = outcome {
            return outcome;
        }
    }
}
