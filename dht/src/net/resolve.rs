//! Names of routers → addresses, asked again until all are known, and as long as they are of no use.
//!
//! The list is the caller's. A name whose lookup fails is tried again with growing pauses: a laptop
//! may wake up before its network does. What a name resolved to may be wrong as well: behind a captive
//! portal every name is the portal's own address. So as long as the node has not bootstrapped, or nobody
//! answers it, all names are looked up anew with such pauses, and sooner when the network has changed (S17).
//! A network that changes again and again, as that of a host whose containers come and go, brings no more
//! lookups than one that does not; and to whom others answer what names stand for is no matter.

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
    /// The name is an address.
    is_literal: bool,
}

impl Families {
    fn of(self, addr: &SocketAddr) -> bool {
        if addr.is_ipv4() { self.ipv4 } else { self.ipv6 }
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
            known.push(Router { name: router.clone(), is_literal: !addrs.is_empty(), addrs });
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
        for &addr in (0..MAX_ADDRESSES).flat_map(nth).filter(|addr| self.families.of(addr)) {
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
        let (mut pause, mut changes) = (RETRY.0, Changes::since(condition.borrow().changes));
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
                Ok((index, Ok(addrs))) if !are_same(&self.known[index].addrs, &addrs) => {
                    self.known[index].addrs = addrs;
                    has_news = true;
                    // Who knows somebody can wait for the others.
                    if !all_known && !news(self.addresses()).await {
                        return Err(NobodyListens);
                    }
                }
                Ok((_, Ok(_))) => {}
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

/// Whether these are the same addresses: a resolver may tell them in another order each time.
fn are_same(some: &[SocketAddr], others: &[SocketAddr]) -> bool {
    some.iter().all(|addr| others.contains(addr)) && others.iter().all(|addr| some.contains(addr))
}

/// Changes of the network that were noted.
#[derive(Debug)]
struct Changes {
    count: u64,
    /// When the last one was noted.
    last: Option<Instant>,
    /// One came after a calm of [`RETRY`]'s longest pause, and nothing was looked up because of it yet.
    are_news: bool,
}

impl Changes {
    fn since(count: u64) -> Self {
        Self { count, last: None, are_news: false }
    }

    fn note(&mut self, count: u64) {
        if std::mem::replace(&mut self.count, count) != count {
            self.are_news |= self.last.is_none_or(|at| at.elapsed() >= RETRY.1);
            self.last = Some(Instant::now());
        }
    }
}

/// There is no node any more.
#[derive(Debug)]
struct NobodyListens;

/// Waits until there is something to look up: for `pause` to end if some names are unknown or the node is
/// lonely, which a change of the network may cut short. What was looked up is left in peace until `anew`.
async fn wait(
    condition: &mut watch::Receiver<Condition>,
    (pause, anew): (Instant, Instant),
    all_known: bool,
    changes: &mut Changes,
) -> Result<(), watch::error::RecvError> {
    loop {
        let now = *condition.borrow_and_update();
        changes.note(now.changes);
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
    let addrs: Vec<_> = found.take(MAX_ADDRESSES).map(canonical).collect();
    if addrs.is_empty() { Err(failed(std::io::ErrorKind::NotFound.into())) } else { Ok(addrs) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    use tokio::sync::mpsc;

    use super::*;

    const BOTH: Families = Families { ipv4: true, ipv6: true };

    fn routers(list: &[&str], families: Families) -> Result<Routers, Error> {
        Routers::new(&list.iter().map(ToString::to_string).collect::<Vec<_>>(), families)
    }

    #[test]
    fn addresses_need_no_resolver_and_keep_their_order() {
        let list = ["192.0.2.2:6881", "[2001:db8::1]:6881", "192.0.2.1:1", "192.0.2.2:6881"];
        let all = routers(&list, BOTH).unwrap().addresses();
        assert_eq!(all.iter().map(ToString::to_string).collect::<Vec<_>>(), list[..3]);
        let four = routers(&list, Families { ipv4: true, ipv6: false }).unwrap();
        assert!(four.addresses().iter().all(SocketAddr::is_ipv4));
    }

    #[tokio::test]
    async fn mapped_address_is_of_the_family_that_it_means() {
        let four = Families { ipv4: true, ipv6: false };
        let expected = ["192.0.2.1:9".parse().unwrap()];
        assert_eq!(routers(&["[::ffff:192.0.2.1]:9"], four).unwrap().addresses(), expected);
        assert_eq!(lookup("[::ffff:192.0.2.1]:9").await.unwrap(), expected);
    }

    #[test]
    fn a_router_without_a_port_is_refused() {
        for bad in ["192.0.2.1", "host:", "host:0", ":7", "host:99999", ""] {
            assert!(matches!(routers(&[bad], BOTH), Err(Error::Router { .. })), "{bad}");
        }
    }

    /// Names that resolve to what the table says, in which an empty list is a failure, and how often each
    /// was asked for.
    #[derive(Clone, Default)]
    struct Resolver(Arc<Mutex<BTreeMap<String, Known>>>);

    #[derive(Default)]
    struct Known {
        addrs: Vec<SocketAddr>,
        asked: u32,
    }

    impl Resolver {
        fn set(&self, name: &str, addrs: &[&str]) {
            let addrs = addrs.iter().map(|addr| addr.parse().unwrap()).collect();
            self.0.lock().unwrap().entry(name.into()).or_default().addrs = addrs;
        }

        fn asked(&self, name: &str) -> u32 {
            self.0.lock().unwrap().get(name).map_or(0, |known| known.asked)
        }

        fn lookup(&self, name: String) -> std::future::Ready<Result<Vec<SocketAddr>, Error>> {
            let mut table = self.0.lock().unwrap();
            let entry = table.entry(name.clone()).or_default();
            entry.asked += 1;
            let source = std::io::ErrorKind::NotFound.into();
            let found = Some(entry.addrs.clone()).filter(|addrs| !addrs.is_empty());
            std::future::ready(found.ok_or(Error::Resolve { name, source }))
        }
    }

    /// The resolving of `list` as a task on the paused clock: what it tells, and the node's end of it.
    fn start(
        list: &[&str],
        resolver: &Resolver,
    ) -> (mpsc::UnboundedReceiver<Vec<SocketAddr>>, watch::Sender<Condition>) {
        let (sender, told) = mpsc::unbounded_channel();
        let (condition, receiver) = watch::channel(Condition { is_lonely: true, changes: 0 });
        let (routers, resolver) = (routers(list, BOTH).unwrap(), resolver.clone());
        let lookup = move |name| resolver.lookup(name);
        let news = move |addrs| std::future::ready(sender.send(addrs).is_ok());
        tokio::spawn(routers.resolve(Rng::from_seed(1), receiver, lookup, news));
        (told, condition)
    }

    fn addrs(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|addr| addr.parse().unwrap()).collect()
    }

    /// S17, a start behind a captive portal, whose resolver answers every name with its own address.
    #[tokio::test(start_paused = true)]
    async fn what_a_portal_said_is_replaced_while_the_node_has_not_bootstrapped() {
        let (resolver, names) = (Resolver::default(), ["a.invalid:1", "b.invalid:2"]);
        resolver.set(names[0], &["192.0.2.9:1"]);
        resolver.set(names[1], &["192.0.2.9:2"]);
        let (mut told, condition) = start(&names, &resolver);
        assert_eq!(told.recv().await.unwrap().len(), 1);
        assert_eq!(told.recv().await.unwrap(), addrs(&["192.0.2.9:1", "192.0.2.9:2"]));
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let asked = resolver.asked(names[0]);
        assert!((55..=90).contains(&asked), "about once a minute: {asked}");

        let left = Instant::now();
        resolver.set(names[0], &["203.0.113.1:1"]);
        resolver.set(names[1], &["203.0.113.2:2", "203.0.113.3:2"]);
        // What was known already is replaced at once.
        let expected = addrs(&["203.0.113.1:1", "203.0.113.2:2", "203.0.113.3:2"]);
        assert_eq!(told.recv().await.unwrap(), expected);
        assert!(left.elapsed() <= Duration::from_secs(76), "{:?}", left.elapsed());

        // Once it has bootstrapped, what it knows is good.
        condition.send_replace(Condition { is_lonely: false, changes: 0 });
        let asked = resolver.asked(names[0]);
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(resolver.asked(names[0]), asked);

        // Nobody answers any more, and the names have moved.
        resolver.set(names[0], &["203.0.113.4:1"]);
        condition.send_replace(Condition { is_lonely: true, changes: 0 });
        assert!(told.recv().await.unwrap().contains(&"203.0.113.4:1".parse().unwrap()));
    }

    /// Who gets answers has no use for routers: that names may be stale matters when nobody answers any more.
    #[tokio::test(start_paused = true)]
    async fn a_change_of_the_network_is_of_no_matter_until_nobody_answers() {
        let (resolver, name) = (Resolver::default(), "a.invalid:1");
        resolver.set(name, &["192.0.2.9:1"]);
        let (mut told, condition) = start(&[name, "203.0.113.9:9"], &resolver);
        told.recv().await.unwrap();
        for changes in 0..600 {
            condition.send_replace(Condition { is_lonely: false, changes });
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
        assert_eq!(resolver.asked(name), 1, "a start that went well asks once");
        resolver.set(name, &["203.0.113.1:1"]);
        let left = Instant::now();
        condition.send_replace(Condition { is_lonely: true, changes: 600 });
        assert_eq!(told.recv().await.unwrap(), addrs(&["203.0.113.1:1", "203.0.113.9:9"]));
        assert!(left.elapsed() < Duration::from_secs(1) && resolver.asked(name) == 2);
    }

    #[tokio::test(start_paused = true)]
    async fn names_are_looked_up_soon_when_the_network_has_changed_but_not_at_every_flicker() {
        let (resolver, name) = (Resolver::default(), "a.invalid:1");
        resolver.set(name, &["192.0.2.9:1"]);
        let (_told, condition) = start(&[name], &resolver);
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let asked = resolver.asked(name);
        for changes in 1..=600 {
            condition.send_replace(Condition { is_lonely: true, changes });
            tokio::time::sleep(Duration::from_secs(1)).await;
            let asked = resolver.asked(name) - asked;
            assert!(changes < 13 || asked >= 1, "soon after the first");
            let minutes = u32::try_from(changes / 45).unwrap();
            assert!(asked <= 6 + minutes, "about one a minute: {asked} in {changes} s");
        }
        // A calm of a minute: the next one counts again.
        tokio::time::sleep(Duration::from_secs(600)).await;
        let asked = resolver.asked(name);
        condition.send_replace(Condition { is_lonely: true, changes: 601 });
        tokio::time::sleep(Duration::from_secs(40)).await;
        assert!(resolver.asked(name) >= asked + 3, "{} after {asked}", resolver.asked(name));
    }

    /// Round-robin DNS.
    #[tokio::test(start_paused = true)]
    async fn the_same_addresses_in_another_order_are_no_news() {
        let rotating = Arc::new(Mutex::new(addrs(&["192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1"])));
        let lookup = |_| {
            let mut rotating = rotating.lock().unwrap();
            rotating.rotate_left(1);
            std::future::ready(Ok(rotating.clone()))
        };
        let mut told = Vec::new();
        let (sender, receiver) = watch::channel(Condition { is_lonely: true, changes: 0 });
        let news = |addrs: Vec<SocketAddr>| {
            told.push(addrs);
            std::future::ready(true)
        };
        let two = routers(&["a.invalid:1", "b.invalid:1"], BOTH).unwrap();
        let all = two.resolve(Rng::from_seed(1), receiver, lookup, news);
        assert!(tokio::time::timeout(Duration::from_secs(3600), all).await.is_err());
        drop(sender);
        assert!(told.len() <= 2 && told.iter().all(|told| told.len() == 3), "once a name: {told:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_fails_again_keeps_its_addresses_and_unknown_ones_are_tried_on() {
        let (resolver, names) = (Resolver::default(), ["a.invalid:1", "b.invalid:2"]);
        resolver.set(names[0], &["192.0.2.9:1"]);
        let (mut told, condition) = start(&names, &resolver);
        assert_eq!(told.recv().await.unwrap(), addrs(&["192.0.2.9:1"]));
        resolver.set(names[0], &[]);
        tokio::time::sleep(Duration::from_secs(600)).await;
        condition.send_replace(Condition::default());
        resolver.set(names[1], &["192.0.2.7:2"]);
        assert_eq!(told.recv().await.unwrap(), addrs(&["192.0.2.9:1", "192.0.2.7:2"]));
        assert!(resolver.asked(names[1]) >= 10, "{}", resolver.asked(names[1]));
    }

    #[tokio::test(start_paused = true)]
    async fn resolving_ends_with_the_node_and_where_all_is_known() {
        let (resolver, name) = (Resolver::default(), "a.invalid:1");
        resolver.set(name, &["192.0.2.9:1"]);
        let (mut told, condition) = start(&[name], &resolver);
        assert!(told.recv().await.is_some());
        drop(condition);
        assert_eq!(told.recv().await, None);
        // Addresses need nobody.
        let (mut told, _condition) = start(&["192.0.2.1:9"], &resolver);
        assert_eq!(told.recv().await, None);
    }

    #[tokio::test]
    async fn localhost_is_found_without_a_network() {
        let found = lookup("localhost:7").await.unwrap();
        assert!(found.iter().all(|addr| addr.ip().is_loopback() && addr.port() == 7) && !found.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn resolving_ends_when_nobody_listens() {
        let (resolver, name) = (Resolver::default(), "a.invalid:1");
        resolver.set(name, &["192.0.2.9:1"]);
        let (told, condition) = start(&[name, "b.invalid:7"], &resolver);
        drop(told);
        condition.closed().await;
    }
}
