//! Names of routers → addresses, asked again until all are known.
//!
//! The list is the caller's. A name whose lookup fails is tried again with growing pauses: a laptop
//! may wake up before its network does.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;

use super::Error;
use crate::Rng;
use crate::addr::canonical;

/// Addresses taken of one name.
const MAX_ADDRESSES: usize = 8;
/// First and longest pause before a failed name is tried again; doubled in between.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// A resolver that hangs is a failure after this.
const PATIENCE: Duration = Duration::from_secs(15);

/// The families that there are sockets for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Families {
    pub(super) ipv4: bool,
    pub(super) ipv6: bool,
}

/// Routers in order of preference, with the addresses known so far.
#[derive(Debug, Default)]
pub(super) struct Routers {
    known: Vec<(String, Vec<SocketAddr>)>,
    families: Families,
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
            known.push((router.clone(), router.parse().into_iter().map(canonical).collect()));
        }
        Ok(Self { known, families })
    }

    /// Whether nobody was named.
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// All addresses known so far, in order of preference: the first of each name, then the rest.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        let nth =
            |n| self.known.iter().filter_map(move |(_, addrs): &(String, Vec<SocketAddr>)| addrs.get(n));
        let mut all = Vec::new();
        for &addr in (0..MAX_ADDRESSES).flat_map(nth).filter(|addr| self.families.of(addr)) {
            if !all.contains(&addr) {
                all.push(addr);
            }
        }
        all
    }

    /// Resolves what is unknown, telling `news` each time that more is known, until nothing is
    /// unknown or `news` says that nobody listens any more.
    pub(super) async fn resolve<F: Future<Output = bool>>(
        mut self,
        mut rng: Rng,
        mut news: impl FnMut(Vec<SocketAddr>) -> F,
    ) {
        let mut pause = RETRY.0;
        let mut warned: Option<tokio::time::Instant> = None;
        loop {
            let mut lookups = JoinSet::new();
            for (index, (name, _)) in self.known.iter().enumerate().filter(|(_, (_, addrs))| addrs.is_empty())
            {
                let name = name.clone();
                lookups.spawn(async move { (index, lookup(&name).await) });
            }
            let mut failed = None;
            while let Some(finished) = lookups.join_next().await {
                match finished {
                    Ok((index, Ok(addrs))) => {
                        self.known[index].1 = addrs;
                        if !news(self.addresses()).await {
                            return;
                        }
                    }
                    Ok((_, Err(error))) => failed = Some(error),
                    Err(error) => tracing::debug!(%error, "a name lookup ended early"),
                }
            }
            let Some(error) = failed else { return };
            let unknown = self.known.iter().filter(|(_, addrs)| addrs.is_empty()).count();
            if warned.is_none_or(|at| at.elapsed() >= RETRY.1) {
                // A few dead names among living ones are an ordinary day.
                if unknown == self.known.len() {
                    tracing::warn!(%error, "no router could be resolved; trying on");
                } else {
                    tracing::debug!(%error, unknown, "some routers could not be resolved; trying on");
                }
                warned = Some(tokio::time::Instant::now());
            }
            tokio::time::sleep(pause.mul_f64(0.75 + rng.below(500) as f64 / 1000.0)).await;
            pause = (pause * 2).min(RETRY.1);
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

    #[tokio::test]
    async fn names_are_told_when_they_are_known() {
        let routers = routers(&["192.0.2.1:9", "localhost:7"], BOTH).unwrap();
        let mut told = Vec::new();
        routers
            .resolve(Rng::from_seed(1), |addrs| {
                told.push(addrs);
                std::future::ready(true)
            })
            .await;
        let last = told.last().expect("localhost resolves without a network");
        assert_eq!(last[0], "192.0.2.1:9".parse().unwrap());
        assert!(last[1..].iter().all(|addr| addr.ip().is_loopback() && addr.port() == 7) && last.len() > 1);
    }

    #[tokio::test]
    async fn resolving_ends_when_nobody_listens() {
        let routers = routers(&["localhost:7", "name.invalid:7"], BOTH).unwrap();
        routers.resolve(Rng::from_seed(1), |_| std::future::ready(false)).await;
    }
}
