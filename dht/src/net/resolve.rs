//! Names of routers → addresses, asked again until all are known, and as long as they are of no use.
//!
//! The list is the caller's. A name whose lookup fails is tried again with growing pauses: a laptop
//! may wake up before its network does. What a name resolved to may be wrong as well: behind a captive
//! portal every name is the portal's own address. So as long as the node has not bootstrapped, or nobody
//! answers it, all names are looked up anew with such pauses, and sooner when the network has changed (S17).
//! A network that changes again and again, as that of a host whose containers come and go, brings no more
//! lookups than one that does not; and to whom others answer what names stand for is no matter. Nor does the
//! node hurry to ask routers because of a name that stands for many addresses, of which others are told each time.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Error;
use crate::Rng;
use crate::addr::canonical;

/// Addresses taken of one name.
const MAX_ADDRESSES: usize = 8;
/// First and longest pause before a failed name is tried again; doubled in between.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Shortest time between two lookups of a name that is known. A start that goes well is over by then.
const ANEW_AFTER: Duration = Duration::from_secs(8);
/// Shortest time between two times that the node is told new addresses of a name beside known ones.
const PARTLY_AFTER: Duration = Duration::from_secs(600);
/// A resolver that hangs is a failure after this.
const PATIENCE: Duration = Duration::from_secs(15);

/// The families that there are sockets for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Families {
    pub(super) ipv4: bool,
    pub(super) ipv6: bool,
}

/// What there is to say of the node's network, to whoever resolves names for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Condition {
    /// It has not bootstrapped yet, or nobody answers any more.
    pub(super) is_lonely: bool,
    /// Changes of the network so far.
    pub(super) changes: u64,
}

/// Routers in order of preference, with the addresses known so far.
#[derive(Debug, Default)]
pub(super) struct Routers {
    known: Vec<Router>,
    families: Families,
}

#[derive(Debug)]
struct Router {
    /// `host:port`.
    name: String,
    addrs: Vec<SocketAddr>,
    /// When that became known.
    since: Option<Instant>,
    /// The name is an address.
    is_literal: bool,
}

impl Families {
    fn of(self, addr: &SocketAddr) -> bool {
        if addr.is_ipv4() { self.ipv4 } else { self.ipv6 }
    }
}

impl Router {
    /// Takes what its name stands for now; whether the node has to know. As long as some of the addresses are
    /// left, as many resolvers tell them in turn, that is seldom so: it hurries to ask whoever is new. Each of
    /// the `families` is judged by itself, since a portal may answer for one and let the other through.
    fn take(&mut self, mut addrs: Vec<SocketAddr>, families: Families) -> bool {
        let is_known = |addr: &SocketAddr| self.addrs.contains(addr);
        let mut has_moved = false;
        for is_of in [SocketAddr::is_ipv4, SocketAddr::is_ipv6] {
            let mut told = addrs.iter().filter(|addr| families.of(addr) && is_of(addr)).peekable();
            if told.peek().is_none() {
                // What is told no longer is kept where nothing better is known.
                let old = self.addrs.iter().filter(|addr| families.of(addr) && is_of(addr));
                addrs.extend(old);
            } else {
                has_moved |= !told.any(is_known);
            }
        }
        // A resolver may tell the same in another order each time.
        let is_same = addrs.iter().all(is_known) && self.addrs.iter().all(|addr| addrs.contains(addr));
        let is_due = self.since.is_none_or(|at| at.elapsed() >= PARTLY_AFTER);
        let is_news = !is_same && (has_moved || is_due);
        if is_news {
            (self.addrs, self.since) = (addrs, Some(Instant::now()));
        }
        is_news
    }
}

impl Routers {
    /// Takes `host:port` texts; those that are IP addresses are known at once.
    ///
    /// # Errors
    /// [`Error::Router`] for a text that is not `host:port`.
    pub(super) fn new(routers: &[String], families: Families) -> Result<Self, Error> {
        let mut known = Vec::new();
        for router in routers {
            let has_port = router.rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0)
            });
            if !has_port {
                return Err(Error::Router { router: router.escape_debug().to_string() });
            }
            let addrs: Vec<_> = router.parse().into_iter().map(canonical).collect();
            known.push(Router { name: router.clone(), is_literal: !addrs.is_empty(), addrs, since: None });
        }
        Ok(Self { known, families })
    }

    /// Whether nobody was named.
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// All addresses known so far, in order of preference: the first of each name, then the rest.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        let nth = |n| self.known.iter().filter_map(move |router: &Router| router.addrs.get(n));
        let mut all = Vec::new();
        // Those of a family that is told no longer come behind as many of the other one.
        for &addr in (0..2 * MAX_ADDRESSES).flat_map(nth).filter(|addr| self.families.of(addr)) {
            if !all.contains(&addr) {
                all.push(addr);
            }
        }
        all
    }

    /// Resolves what is unknown, and everything anew as long as `condition` says so, by `resolver`, telling
    /// `news` each time that the addresses are other ones, until `condition` has ended or `news` says that
    /// nobody listens any more.
    pub(super) async fn resolve<L, F>(
        mut self,
        mut rng: Rng,
        mut condition: watch::Receiver<Condition>,
        resolver: impl Fn(String) -> L,
        mut news: impl FnMut(Vec<SocketAddr>) -> F,
    ) where
        L: Future<Output = Result<Vec<SocketAddr>, Error>> + Send + 'static,
        F: Future<Output = bool>,
    {
        if self.known.iter().all(|router| router.is_literal) {
            return;
        }
        let (mut pause, mut changes) = (RETRY.0, Changes::since(*condition.borrow()));
        let (mut warned, mut looked_at): (Option<Instant>, _) = (None, Instant::now());
        let mut anew = true;
        loop {
            if anew {
                looked_at = Instant::now();
            }
            let failed = match self.round(anew, &resolver, &mut news).await {
                Ok(failed) => failed,
                Err(NobodyListens) => return,
            };
            if let Some(error) = failed
                && warned.is_none_or(|at| at.elapsed() >= RETRY.1)
            {
                self.complain(&error);
                warned = Some(Instant::now());
            }
            let jitter = 0.75 + rng.below(500) as f64 / 1000.0;
            let is_over = |router: &Router| router.is_literal || !router.addrs.is_empty();
            let all_known = self.known.iter().all(is_over);
            let due = (Instant::now() + pause.mul_f64(jitter), looked_at + ANEW_AFTER.mul_f64(0.25 + jitter));
            if wait(&mut condition, due, all_known, &mut changes).await.is_err() {
                return;
            }
            let is_lonely = condition.borrow().is_lonely;
            let has_changed = is_lonely && std::mem::take(&mut changes.are_news);
            pause = if has_changed { RETRY.0 } else { (pause * 2).min(RETRY.1) };
            anew = is_lonely && looked_at.elapsed() >= ANEW_AFTER;
        }
    }

    /// Looks up the names that are unknown, or all of them; the last failure, if there was one.
    async fn round<L, F>(
        &mut self,
        anew: bool,
        resolver: &impl Fn(String) -> L,
        news: &mut impl FnMut(Vec<SocketAddr>) -> F,
    ) -> Result<Option<Error>, NobodyListens>
    where
        L: Future<Output = Result<Vec<SocketAddr>, Error>> + Send + 'static,
        F: Future<Output = bool>,
    {
        let mut lookups = JoinSet::new();
        for (index, router) in self.known.iter().enumerate() {
            if !router.is_literal && (anew || router.addrs.is_empty()) {
                let lookup = resolver(router.name.clone());
                lookups.spawn(async move { (index, lookup.await) });
            }
        }
        let all_known = self.known.iter().all(|router| !router.addrs.is_empty());
        let (mut failed, mut has_news) = (None, false);
        while let Some(finished) = lookups.join_next().await {
            match finished {
                // What a name stood for is kept where nothing better is known.
                Ok((index, Ok(addrs))) => {
                    let is_news = self.known[index].take(addrs, self.families);
                    has_news |= is_news;
                    // Who knows somebody can wait for the others.
                    if is_news && !all_known && !news(self.addresses()).await {
                        return Err(NobodyListens);
                    }
                }
                Ok((_, Err(error))) => failed = Some(error),
                Err(error) => tracing::debug!(%error, "a name lookup ended early"),
            }
        }
        if all_known && has_news && !news(self.addresses()).await {
            return Err(NobodyListens);
        }
        Ok(failed)
    }

    fn complain(&self, error: &Error) {
        let unknown = self.known.iter().filter(|router| router.addrs.is_empty()).count();
        // A few dead names among living ones are an ordinary day.
        if unknown == self.known.len() {
            tracing::warn!(%error, "no router could be resolved; trying on");
        } else {
            tracing::debug!(%error, unknown, "some routers could not be resolved; trying on");
        }
    }
}

/// What was noted of the node's [`Condition`].
#[derive(Debug)]
struct Changes {
    last: Condition,
    /// When the network was seen to change last, and when the node became lonely last.
    at: [Option<Instant>; 2],
    /// One came after a calm of [`RETRY`]'s longest pause, and nothing was looked up because of it yet.
    are_news: bool,
}

impl Changes {
    fn since(last: Condition) -> Self {
        Self { last, at: [None; 2], are_news: false }
    }

    fn note(&mut self, now: Condition) {
        let last = std::mem::replace(&mut self.last, now);
        let happened = [now.changes != last.changes, now.is_lonely && !last.is_lonely];
        for (at, _) in self.at.iter_mut().zip(happened).filter(|(_, happened)| *happened) {
            self.are_news |= at.is_none_or(|at| at.elapsed() >= RETRY.1);
            *at = Some(Instant::now());
        }
    }
}

/// There is no node any more.
#[derive(Debug)]
struct NobodyListens;

/// Waits until there is something to look up: for `pause` to end if some names are unknown or the node is
/// lonely, which a change of the network may cut short, and so may that nobody answers any more. What was looked
/// up is left in peace until `anew`.
async fn wait(
    condition: &mut watch::Receiver<Condition>,
    (pause, anew): (Instant, Instant),
    all_known: bool,
    changes: &mut Changes,
) -> Result<(), watch::error::RecvError> {
    loop {
        let now = *condition.borrow_and_update();
        changes.note(now);
        let due = match (now.is_lonely, all_known) {
            (true, _) if changes.are_news => Some(anew),
            (true, true) => Some(pause.max(anew)),
            (false, true) => None,
            (_, false) => Some(pause),
        };
        tokio::select! {
            changed = condition.changed() => changed?,
            () = async { tokio::time::sleep_until(due.unwrap_or_else(Instant::now)).await }, if due.is_some() => {
                return Ok(());
            }
        }
    }
}

/// The addresses of one `host:port`.
///
/// # Errors
/// [`Error::Resolve`] when there are none.
pub async fn lookup(name: &str) -> Result<Vec<SocketAddr>, Error> {
    let failed = |source| Error::Resolve { name: name.escape_debug().to_string(), source };
    let found = tokio::time::timeout(PATIENCE, tokio::net::lookup_host(name));
    let found = found.await.map_err(|_| failed(std::io::ErrorKind::TimedOut.into()))?.map_err(failed)?;
    let addrs = some_of(found.map(canonical).collect());
    if addrs.is_empty() { Err(failed(std::io::ErrorKind::NotFound.into())) } else { Ok(addrs) }
}

/// Those that are taken of many addresses: always the same, in whatever order they come, and of both families.
fn some_of(mut addrs: Vec<SocketAddr>) -> Vec<SocketAddr> {
    if addrs.len() <= MAX_ADDRESSES {
        return addrs;
    }
    addrs.sort();
    addrs.dedup();
    let (v4, v6): (Vec<_>, Vec<_>) = addrs.into_iter().partition(SocketAddr::is_ipv4);
    let in_turn = (0..MAX_ADDRESSES).flat_map(|nth| [v4.get(nth), v6.get(nth)]);
    in_turn.flatten().copied().take(MAX_ADDRESSES).collect()
}

#[cfg(test)]
mod tests;
