//! [`Claims`]: which torrents the links of a run have. Of links that come to the same one, one downloads
//! it, and the others wait for what becomes of that.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

use krpc::Id;
use tokio::sync::watch;

/// The torrents of a run that some link has.
#[derive(Default)]
pub(crate) struct Claims(RefCell<BTreeMap<Id, Weak<watch::Sender<Left>>>>);

/// A torrent that a link has; dropping it leaves the torrent to others. It is to be dropped after the
/// torrent is closed: a session takes none twice.
#[derive(Debug)]
pub(crate) struct Claim(Rc<watch::Sender<Left>>);

/// A torrent that another link has.
#[derive(Debug)]
pub(crate) struct Taken(watch::Receiver<Left>);

/// How a torrent was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// A newer version came before it was complete.
    Unfinished,
    /// It was complete: nobody has to fetch it again.
    Complete,
    /// It is to blame for what was refused, and nobody can fetch it.
    Useless,
}

impl Claims {
    /// Takes a torrent that no link has.
    pub(crate) fn take(&self, infohash: Id) -> Result<Claim, Taken> {
        let mut claims = self.0.borrow_mut();
        // As many stay as there are links.
        claims.retain(|_, claim| claim.strong_count() > 0);
        if let Some(claim) = claims.get(&infohash).and_then(Weak::upgrade) {
            return Err(Taken(claim.subscribe()));
        }
        let claim = Rc::new(watch::Sender::new(Left::Unfinished));
        claims.insert(infohash, Rc::downgrade(&claim));
        Ok(Claim(claim))
    }
}

impl Claim {
    /// Says how the torrent will be left, when it is.
    pub(crate) fn settle(&self, how: Left) {
        self.0.send_replace(how);
    }
}

impl Taken {
    /// Waits until the other link leaves it. Cancel safe.
    pub(crate) async fn left(&mut self) -> Left {
        while self.0.changed().await.is_ok() {}
        *self.0.borrow()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_torrent_is_had_by_one_link_at_a_time_and_others_hear_how_it_was_left() {
        let (claims, x, y) = (Claims::default(), Id::new([1; 20]), Id::new([2; 20]));
        let first = claims.take(x).unwrap();
        let mut waits = [claims.take(x).unwrap_err(), claims.take(x).unwrap_err()];
        let other = claims.take(y).unwrap();
        assert!(waits.iter_mut().all(|taken| taken.left().now_or_never().is_none()));
        drop(first);
        assert!(waits.iter_mut().all(|taken| taken.left().now_or_never() == Some(Left::Unfinished)));

        // The first of those that waited has it.
        let second = claims.take(x).unwrap();
        let mut waits = claims.take(x).unwrap_err();
        second.settle(Left::Complete);
        assert_eq!(waits.left().now_or_never(), None, "it is seeded still");
        drop(second);
        assert_eq!(waits.left().now_or_never(), Some(Left::Complete));

        // What was settled once may be wanted anew: a version may come back after another one.
        assert!(claims.take(x).is_ok() && claims.take(y).is_err());
        drop(other);
        assert!(claims.take(y).is_ok());
        assert!(claims.0.borrow().len() <= 2);
    }
}
