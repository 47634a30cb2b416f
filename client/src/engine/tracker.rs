//! One announce, whichever protocol its URL names.

use krpc::Id;
use tokio::sync::Notify;

use super::http::{HttpError, MAX_ANNOUNCE, Trust};
use super::shared::Shared;
use super::udp_tracker;
use crate::swarm::AnnounceJob;
use crate::tracker::url::{Scheme, scheme};
use crate::tracker::{Announce, AnnounceEvent, AnnounceReply, TrackerError, http};

/// Waits for a place, or takes one of those for good-byes when told to `hurry`, says that it `begins`, announces
/// once and waits for the reply.
pub(super) async fn announce(
    session: &Shared,
    (infohash, key): (Id, u32),
    job: AnnounceJob,
    hurry: &Notify,
    begins: impl FnOnce(),
) -> Result<AnnounceReply, TrackerError> {
    let announce = Announce {
        infohash,
        peer_id: session.peer_id,
        port: session.port,
        uploaded: job.uploaded,
        downloaded: job.downloaded,
        left: job.left,
        event: job.event,
        num_want: job.num_want,
        key,
        tracker_id: job.tracker_id,
    };
    let places = match job.event {
        Some(AnnounceEvent::Stopped) => &session.farewells,
        _ => &session.announces,
    };
    let place = tokio::select! {
        place = places.acquire() => place,
        () = hurry.notified() => session.farewells.acquire().await,
    };
    let _place = place.map_err(|_| TrackerError::Timeout)?;
    begins();
    match scheme(&job.url)? {
        Scheme::Http => {
            let trust = if job.trusted { Trust::User } else { Trust::Stranger };
            let url = http::announce_url(&job.url, &announce)?;
            let body = session.http.get(&url, trust, MAX_ANNOUNCE).await.map_err(explain)?;
            http::parse_reply(&body)
        }
        Scheme::Udp => {
            let free = job.trusted || session.allow_local;
            udp_tracker::announce(session, &job.url, free, &announce).await
        }
    }
}

fn explain(error: HttpError) -> TrackerError {
    match error {
        HttpError::Timeout => TrackerError::Timeout,
        HttpError::LocalAddress => TrackerError::ForbiddenAddress,
        HttpError::NotHttp => TrackerError::UnsupportedScheme,
        other => TrackerError::Network(other.to_string()),
    }
}
