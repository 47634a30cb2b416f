use super::*;
const NOW: Time = Time::from_secs(1);

fn port(index: u8) -> Port {
    Port::new(index, UdpSocket::bind("127.0.0.1:0".parse().unwrap(), Batching::Native).unwrap())
}

fn outbox(to: SocketAddr, class: Class, payloads: &[&[u8]]) -> Outbox {
    let mut out = Outbox::new();
    for payload in payloads {
        out.send(0, to, class, |bytes| bytes.extend_from_slice(payload));
        out.send(1, to, class, |bytes| bytes.extend_from_slice(b"for the other socket"));
    }
    out
}

async fn receive(port: &mut Port, count: usize) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let everything = async {
        while all.len() < count {
            std::future::poll_fn(|cx| port.poll_ready(cx)).await;
            all.extend(port.receive(NOW).unwrap().unwrap().map(|datagram| datagram.bytes.to_vec()));
        }
    };
    tokio::time::timeout(Duration::from_secs(20), everything).await.expect("datagrams arrive");
    all
}

#[tokio::test]
async fn a_port_sends_what_is_for_its_socket() {
    let (mut a, mut b) = (port(0), port(1));
    a.warm_up().await.unwrap();
    assert!(a.send(NOW, &outbox(b.local(), Class::Reply, &[b"one", b"two"]), &[]).is_none());
    assert_eq!(receive(&mut b, 2).await, [b"one", b"two"]);
}

#[tokio::test]
async fn while_the_send_buffer_is_full_replies_go_and_queries_wait_in_order() {
    let (mut a, mut b) = (port(0), port(1));
    a.socket.as_mut().unwrap().set_full();
    a.send(NOW, &outbox(b.local(), Class::Reply, &[b"reply"]), &[]);
    a.send(NOW, &outbox(b.local(), Class::Query, &[b"first", b"second"]), &[]);
    assert_eq!((a.counters().replies_dropped, a.waiting.len()), (1, 2));
    for _ in 0..MAX_WAITING {
        a.send(NOW, &outbox(b.local(), Class::Query, &[b"more"]), &[]);
    }
    assert_eq!((a.counters().queries_dropped, a.waiting.len()), (2, MAX_WAITING));
    std::future::poll_fn(|cx| a.poll_ready(cx)).await;
    a.send(NOW, &outbox(b.local(), Class::Query, &[b"last"]), &[]);
    assert!(a.waiting.is_empty());
    let got = receive(&mut b, MAX_WAITING + 1).await;
    assert_eq!(
        (&got[0][..], &got[1][..], &got[MAX_WAITING][..]),
        (&b"first"[..], &b"second"[..], &b"last"[..])
    );
}

#[tokio::test]
async fn a_port_bound_anew_keeps_its_address_its_counts_and_its_queue() {
    let (mut a, mut b) = (port(0), port(1));
    let local = a.local();
    a.send(NOW, &outbox(b.local(), Class::Query, &[b"before"]), &[]);
    b.warm_up().await.unwrap();
    let to_a = |payload: &'static [u8]| {
        let mut out = Outbox::new();
        out.send(1, local, Class::Reply, |bytes| bytes.extend_from_slice(payload));
        out
    };
    b.send(NOW, &to_a(b"one"), &[]);
    assert_eq!(receive(&mut a, 1).await, [b"one"]);
    a.rebind(NOW).unwrap();
    b.send(NOW, &to_a(b"two"), &[]);
    assert_eq!(receive(&mut a, 1).await, [b"two"]);
    assert_eq!((a.local(), a.counters().udp.received, a.counters().rebinds), (local, 2, 1));
    a.warm_up().await.unwrap();
    a.send(NOW, &Outbox::new(), &[]);
    assert_eq!(receive(&mut b, 1).await, [b"before"]);
    assert!(a.repair(NOW + REBIND_PAUSE).is_none(), "there is nothing to repair");
}

#[tokio::test]
async fn a_port_that_cannot_be_bound_anew_tries_again() {
    let mut a = port(0);
    let local = a.local();
    a.socket = None;
    let taken = std::net::UdpSocket::bind(local).unwrap();
    assert!(a.rebind(NOW).is_err());
    assert!(a.repair(NOW).is_none(), "not at once");
    a.send(NOW, &outbox(local, Class::Query, &[b"waits"]), &[]);
    assert!(a.receive(NOW).unwrap().is_none());
    let later = NOW + REBIND_PAUSE;
    assert!(a.repair(later).unwrap().is_err());
    drop(taken);
    a.repair(later + REBIND_PAUSE).unwrap().unwrap();
    assert_eq!((a.counters().rebinds, a.waiting.len()), (1, 1));
}

#[test]
fn each_datagram_finds_its_source_among_those_of_others() {
    let ip = |n: u8| IpAddr::from([192, 0, 2, n]);
    let all: Vec<_> = [1, 2, 5, 9].map(|nth: u8| Source { nth: nth.into(), ip: ip(nth) }).into();
    // Another socket sends 1 and 5.
    let mut rest = &all[..];
    let found: Vec<_> = [0, 2, 3, 9, 10].map(|nth| source(&mut rest, nth)).into();
    assert_eq!(found, [None, Some(ip(2)), None, Some(ip(9)), None]);
}

#[test]
fn only_lasting_errors_of_the_socket_itself_make_it_broken() {
    let of = |code| io::Error::from_raw_os_error(code);
    let fails = |error: &io::Error, seconds: u64| {
        let mut health = Health::default();
        (0..=seconds).for_each(|second| health.note(Time::from_secs(second), Some(error)));
        health.is_broken(Time::from_secs(seconds))
    };
    for code in [libc::EBADF, libc::ENOTCONN, libc::EPIPE, libc::EIO, libc::ECONNABORTED] {
        assert!(fails(&of(code), 5) && !fails(&of(code), 4), "{code}");
    }
    for code in [
        libc::ENETUNREACH,
        libc::EHOSTUNREACH,
        libc::ENETDOWN,
        libc::EADDRNOTAVAIL,
        libc::EINVAL,
        libc::EPERM,
        libc::EMSGSIZE,
        libc::ENOBUFS,
    ] {
        assert!(!fails(&of(code), 60), "{code}");
    }
    let mut health = Health::default();
    health.note(Time::from_secs(0), Some(&of(libc::EBADF)));
    health.note(Time::from_secs(4), None);
    health.note(Time::from_secs(5), Some(&of(libc::EBADF)));
    assert!(!health.is_broken(Time::from_secs(9)), "a call that works starts the count anew");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_port_bound_anew_lingers_as_before_unless_queries_wait() {
    let (mut a, mut b) = (port(0), port(1));
    let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    a.allow_linger();
    a.rebind(NOW).unwrap();
    for _ in 0..10 {
        sender.send_to(b"d", a.local()).unwrap();
        assert_eq!(receive(&mut a, 1).await.len(), 1);
    }
    sender.send_to(b"d", a.local()).unwrap();
    a.socket.as_mut().unwrap().set_full();
    a.send(NOW, &outbox(b.local(), Class::Query, &[b"waits"]), &[]);
    assert!(!a.linger());
    assert_eq!(a.counters().udp.lingered, 0);
    std::future::poll_fn(|cx| a.poll_ready(cx)).await;
    a.send(NOW, &Outbox::new(), &[]);
    assert_eq!(receive(&mut b, 1).await, [b"waits"]);
    assert!(a.linger());
    assert_eq!(a.counters().udp.lingered, 1);
}
