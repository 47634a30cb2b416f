//! What happens to the addresses of this machine: snapshots of its interfaces, taken every few
//! seconds, and what a change means for each socket.
//!
//! Polling and not netlink, because it is the same on every system and soon enough: a network that
//! came back is found within [`PAUSE`].

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::sync::mpsc;

use super::udp::Answers;
use crate::NetworkChange;

/// Time between two snapshots. Reading the interfaces takes some 100 µs.
const PAUSE: Duration = Duration::from_secs(5);

/// The addresses of all interfaces that are up, but those that reach no further than the next cable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Snapshot(BTreeSet<(String, IpAddr)>);

/// What differs between two snapshots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// Addresses that came, or whose interface changed.
    pub(super) appeared: BTreeSet<IpAddr>,
    /// Addresses that went.
    pub(super) vanished: BTreeSet<IpAddr>,
    /// Addresses that are there now.
    pub(super) present: BTreeSet<IpAddr>,
}

impl Snapshot {
    /// The interfaces now.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn take() -> io::Result<Self> {
        let up = if_addrs::get_if_addrs()?.into_iter().filter(if_addrs::Interface::is_oper_up);
        Ok(up.map(|interface| (interface.name.clone(), interface.ip())).collect())
    }

    /// The addresses.
    pub(super) fn present(&self) -> BTreeSet<IpAddr> {
        self.0.iter().map(|(_, ip)| *ip).collect()
    }

    /// What is new since `earlier`.
    pub(super) fn since(&self, earlier: &Self) -> Difference {
        let present = self.present();
        Difference {
            appeared: self.0.difference(&earlier.0).map(|(_, ip)| *ip).collect(),
            vanished: earlier.present().difference(&present).copied().collect(),
            present,
        }
    }
}

impl FromIterator<(String, IpAddr)> for Snapshot {
    fn from_iter<T: IntoIterator<Item = (String, IpAddr)>>(addresses: T) -> Self {
        Self(addresses.into_iter().filter(|(_, ip)| reaches_out(ip)).collect())
    }
}

impl Difference {
    /// What it means for a socket bound to `local`; `None` if nothing.
    pub(super) fn meaning(&self, local: SocketAddr) -> Option<NetworkChange> {
        let is_ours = |ip: &&IpAddr| {
            ip.is_ipv4() == local.is_ipv4() && (local.ip().is_unspecified() || **ip == local.ip())
        };
        let touched = self.appeared.iter().chain(&self.vanished).any(|ip| is_ours(&ip));
        let left = self.present.iter().any(|ip| is_ours(&ip));
        match (touched, left) {
            (false, _) => None,
            (true, true) => Some(NetworkChange::Changed),
            (true, false) => Some(NetworkChange::Lost),
        }
    }

    /// Whether a socket bound to `local` should be bound anew, because its address was away.
    pub(super) fn came_back(&self, local: SocketAddr) -> bool {
        self.appeared.contains(&local.ip())
    }

    /// Makes this one of both, `later` being what happened since.
    pub(super) fn append(&mut self, later: &Self) {
        self.appeared.retain(|ip| !later.vanished.contains(ip));
        self.appeared.extend(&later.appeared);
        self.vanished.extend(&later.vanished);
        self.vanished.retain(|ip| !later.present.contains(ip));
        self.present.clone_from(&later.present);
    }

    fn is_empty(&self) -> bool {
        self.appeared.is_empty() && self.vanished.is_empty()
    }
}

/// How a socket bound to `local` answers where the machine has the addresses `present`. Of one address
/// the system can choose no other, and to be told it with each datagram is not free; a socket that is bound
/// to one has no choice either (BEP 45).
pub(super) fn answers(local: SocketAddr, present: &BTreeSet<IpAddr>) -> Answers {
    let several = present.iter().filter(|ip| ip.is_ipv4() == local.is_ipv4()).nth(1).is_some();
    if several && local.ip().is_unspecified() { Answers::AsAsked } else { Answers::AsRouted }
}

/// What is known of the interfaces by those who watch them.
#[derive(Clone, Debug)]
pub(super) struct Known(Option<Snapshot>);

impl Known {
    /// The addresses, as far as they are known.
    pub(super) fn present(&self) -> BTreeSet<IpAddr> {
        self.0.as_ref().map(Snapshot::present).unwrap_or_default()
    }

    /// Takes what they are now; what to tell of it, if anything. The first that could be read says which
    /// addresses there are and of no change.
    fn follow(&mut self, now: Snapshot) -> Option<Difference> {
        let difference = match &self.0 {
            Some(known) => Some(now.since(known)).filter(|difference| !difference.is_empty()),
            None => Some(Difference { present: now.present(), ..Difference::default() }),
        };
        self.0 = Some(now);
        difference
    }
}

/// What is to be watched for sockets at these addresses; `None` if nothing is.
pub(super) fn concerning(locals: &[SocketAddr]) -> Option<Known> {
    // No change of the interfaces concerns loopback.
    if locals.iter().all(|local| local.ip().is_loopback()) {
        return None;
    }
    let snapshot = Snapshot::take().inspect_err(|error| {
        // It may be for want of memory or descriptors. Meanwhile the core notices by itself when nobody
        // answers any more.
        tracing::debug!(%error, "the interfaces of this machine cannot be read yet");
    });
    Some(Known(snapshot.ok()))
}

/// Tells the node's task of every change since `known`, as long as it runs.
pub(super) async fn watch<R: From<Difference>>(mut known: Known, requests: mpsc::WeakSender<R>) {
    loop {
        tokio::time::sleep(PAUSE).await;
        let Some(requests) = requests.upgrade() else { return };
        // Once in a while it fails for want of memory or descriptors; the next one will tell.
        let Ok(now) = Snapshot::take() else { continue };
        if let Some(difference) = known.follow(now)
            && requests.send(difference.into()).await.is_err()
        {
            return;
        }
    }
}

/// Loopback and link-local addresses come and go with every container and say nothing of the network.
fn reaches_out(ip: &IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local() && !ip.is_unspecified(),
        IpAddr::V6(ip) => !ip.is_loopback() && !is_link_local(ip) && !ip.is_unspecified(),
    }
}

/// fe80::/10.
fn is_link_local(ip: Ipv6Addr) -> bool {
    ip.segments()[0] & 0xffc0 == 0xfe80
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(addresses: &[(&str, &str)]) -> Snapshot {
        addresses.iter().map(|(name, ip)| ((*name).to_owned(), ip.parse().unwrap())).collect()
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn difference_names_what_came_and_what_went() {
        let before = snapshot(&[("eth0", "192.0.2.7"), ("eth0", "2001:db8::7"), ("wlan0", "198.51.100.4")]);
        let after = snapshot(&[("eth0", "192.0.2.8"), ("eth0", "2001:db8::7"), ("tun0", "198.51.100.4")]);
        let difference = after.since(&before);
        let ips = |list: &[&str]| list.iter().map(|ip| ip.parse().unwrap()).collect::<BTreeSet<IpAddr>>();
        // The same address at another interface is another way out.
        assert_eq!(difference.appeared, ips(&["192.0.2.8", "198.51.100.4"]));
        assert_eq!(difference.vanished, ips(&["192.0.2.7"]));
        assert!(before.since(&before).is_empty());
        assert_eq!(after.since(&Snapshot::default()).appeared.len(), 3);
    }

    #[test]
    fn interfaces_that_could_not_be_read_at_first_are_watched_from_the_first_time_that_they_can() {
        let (one, two) = (snapshot(&[("eth0", "192.0.2.7")]), snapshot(&[("eth0", "192.0.2.8")]));
        let mut known = Known(None);
        assert!(known.present().is_empty());
        let first = known.follow(one.clone()).expect("the addresses have to be told");
        assert_eq!((&first.present, first.meaning(addr("0.0.0.0:6881"))), (&one.present(), None));
        assert!(!first.came_back(addr("192.0.2.7:6881")), "its socket was bound all the time");
        assert_eq!(known.follow(one), None);
        let changed = known.follow(two).expect("a change");
        assert_eq!(changed.meaning(addr("0.0.0.0:6881")), Some(NetworkChange::Changed));
    }

    #[test]
    fn addresses_that_reach_nobody_do_not_count() {
        let nothing =
            snapshot(&[("lo", "127.0.0.1"), ("lo", "::1"), ("eth0", "fe80::1"), ("x", "169.254.1.1")]);
        assert_eq!(nothing, Snapshot::default());
        assert_ne!(snapshot(&[("docker0", "172.17.0.1")]), Snapshot::default());
    }

    #[test]
    fn a_change_concerns_sockets_of_its_family_and_address() {
        let both = snapshot(&[("eth0", "192.0.2.7"), ("eth0", "2001:db8::7")]);
        let six = snapshot(&[("eth0", "2001:db8::7")]);
        let other = snapshot(&[("eth0", "192.0.2.8"), ("eth0", "2001:db8::7")]);
        let (any4, any6) = (addr("0.0.0.0:6881"), addr("[::]:6881"));
        let (one, loopback) = (addr("192.0.2.7:6881"), addr("127.0.0.1:6881"));

        let down = six.since(&both);
        assert_eq!(down.meaning(any4), Some(NetworkChange::Lost));
        assert_eq!(down.meaning(one), Some(NetworkChange::Lost));
        assert_eq!((down.meaning(any6), down.meaning(loopback)), (None, None));

        let up = both.since(&six);
        assert_eq!(up.meaning(any4), Some(NetworkChange::Changed));
        assert!(up.came_back(one) && !up.came_back(any4) && !down.came_back(one));

        let moved = other.since(&both);
        assert_eq!(moved.meaning(any4), Some(NetworkChange::Changed));
        assert_eq!(moved.meaning(one), Some(NetworkChange::Lost));
        assert_eq!(moved.meaning(any6), None);
        // A temporary address of a socket's family may have been the one that we were known by.
        let more = snapshot(&[("eth0", "192.0.2.7"), ("eth0", "2001:db8::7"), ("eth0", "2001:db8::99")]);
        assert_eq!(both.since(&more).meaning(any6), Some(NetworkChange::Changed));
    }

    #[test]
    fn only_a_socket_at_several_addresses_of_its_family_is_told_which_was_asked() {
        let (any4, any6, one) = (addr("0.0.0.0:6881"), addr("[::]:6881"), addr("192.0.2.7:6881"));
        let told = |addresses: &[(&str, &str)]| {
            let present = snapshot(addresses).present();
            [any4, any6, one].map(|local| answers(local, &present) == Answers::AsAsked)
        };
        let (four, six) = (("eth0", "192.0.2.7"), ("eth0", "2001:db8::7"));
        assert_eq!(told(&[four, six, ("lo", "127.0.0.1"), ("eth0", "fe80::1")]), [false; 3]);
        assert_eq!(told(&[four, six, ("eth0", "2001:db8::99")]), [false, true, false]);
        assert_eq!(told(&[four, six, ("wlan0", "198.51.100.4")]), [true, false, false]);
        // One address at two interfaces is one.
        assert_eq!(told(&[four, ("wlan0", "192.0.2.7")]), [false; 3]);
        assert_eq!(told(&[]), [false; 3]);
    }

    #[test]
    fn the_interfaces_of_this_machine_can_be_read() {
        Snapshot::take().unwrap();
    }
}
