//! Both ways of moving datagrams on loopback.

use std::time::Duration;

use super::*;

const BOTH: [Batching; 2] = [Batching::Native, Batching::Single];

fn loopback(batching: Batching) -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0".parse().unwrap(), batching).unwrap()
}

/// Receives until `count` datagrams are there; loopback loses none below the buffer's size.
async fn receive(socket: &mut UdpSocket, count: usize) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut all = Vec::new();
    let everything = async {
        while all.len() < count {
            socket.readable().await.unwrap();
            all.extend(socket.recv_batch().unwrap().map(|datagram| (datagram.from, datagram.bytes.to_vec())));
        }
    };
    tokio::time::timeout(Duration::from_secs(20), everything).await.expect("datagrams arrive");
    all
}

#[tokio::test]
async fn batches_arrive_whole_in_order_and_with_their_source() {
    for (from, to) in BOTH.into_iter().flat_map(|from| BOTH.map(|to| (from, to))) {
        let (mut a, mut b) = (loopback(from), loopback(to));
        let payloads: Vec<Vec<u8>> = (0..150_u8).map(|n| vec![n; 1 + usize::from(n) * 7]).collect();
        let datagrams: Vec<_> =
            payloads.iter().map(|bytes| Datagram { to: b.local_addr(), from: None, bytes }).collect();
        a.writable().await.unwrap();
        let sent = a.send_batch(&datagrams);
        assert_eq!((sent.done, sent.skipped), (150, 0), "{from:?} {:?}", sent.error);
        let got = receive(&mut b, 150).await;
        assert!(got.iter().all(|(source, _)| *source == a.local_addr()), "{to:?}");
        assert_eq!(got.into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>(), payloads, "{to:?}");
        assert_eq!(b.counters().received, 150);
        assert_eq!(b.recv_batch().unwrap().len(), 0, "an empty socket is an empty batch");
    }
}

#[tokio::test]
async fn ipv6_sources_are_read_and_ipv4_is_not_mapped() {
    for batching in BOTH {
        let bound = UdpSocket::bind("[::1]:0".parse().unwrap(), batching);
        let Ok(mut socket) = bound else {
            return skip_without_ipv6();
        };
        socket.writable().await.unwrap();
        let to = socket.local_addr();
        assert_eq!(socket.send_batch(&[Datagram { to, from: None, bytes: b"six" }]).done, 1);
        assert_eq!(receive(&mut socket, 1).await, [(to, b"six".to_vec())]);
    }
}

#[tokio::test]
async fn oversize_datagrams_are_dropped_and_counted() {
    for batching in BOTH {
        let (mut a, mut b) = (loopback(Batching::Native), loopback(batching));
        let sizes = [MAX_DATAGRAM, MAX_DATAGRAM + 1, SLOT, SLOT + 1, 20_000, 3];
        let payload = vec![b'x'; 20_000];
        let datagrams: Vec<_> = sizes
            .iter()
            .map(|&len| Datagram { to: b.local_addr(), from: None, bytes: &payload[..len] })
            .collect();
        a.writable().await.unwrap();
        assert_eq!(a.send_batch(&datagrams).done, sizes.len());
        let got = receive(&mut b, 2).await;
        assert_eq!(got.iter().map(|(_, bytes)| bytes.len()).collect::<Vec<_>>(), [MAX_DATAGRAM, 3]);
        assert_eq!(b.counters().truncated, 4, "{batching:?}");
    }
}

#[tokio::test]
async fn a_refused_datagram_is_skipped_alone() {
    for batching in BOTH {
        let (mut a, mut b) = (loopback(batching), loopback(batching));
        let too_long = vec![0; 65_536];
        let other_family = "[2001:db8::1]:6881".parse().unwrap();
        a.writable().await.unwrap();
        let sent = a.send_batch(&[
            Datagram { to: b.local_addr(), from: None, bytes: b"first" },
            Datagram { to: b.local_addr(), from: None, bytes: &too_long },
            Datagram { to: other_family, from: None, bytes: b"wrong family" },
            Datagram { to: b.local_addr(), from: None, bytes: b"last" },
        ]);
        assert_eq!((sent.done, sent.skipped), (4, 2), "{batching:?} {:?}", sent.error);
        assert_eq!(a.counters().send_errors, 2);
        assert_eq!(receive(&mut b, 2).await[1].1, b"last");
    }
}

#[tokio::test]
async fn a_closed_port_does_not_disturb_later_datagrams() {
    for batching in BOTH {
        let closed = loopback(batching).local_addr();
        let (mut a, mut b) = (loopback(batching), loopback(batching));
        a.writable().await.unwrap();
        for _ in 0..5 {
            assert_eq!(a.send_batch(&[Datagram { to: closed, from: None, bytes: b"anybody?" }]).done, 1);
        }
        assert!(a.recv_batch().unwrap().next().is_none());
        assert_eq!(a.send_batch(&[Datagram { to: b.local_addr(), from: None, bytes: b"here" }]).skipped, 0);
        assert_eq!(receive(&mut b, 1).await[0].1, b"here");
    }
}

#[tokio::test]
async fn a_bound_port_is_not_shared() {
    let first = loopback(Batching::Native);
    let error = UdpSocket::bind(first.local_addr(), Batching::Native).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(!is_family_missing(&error));
    let elsewhere = UdpSocket::bind("203.0.113.1:0".parse().unwrap(), Batching::Native).unwrap_err();
    assert!(is_family_missing(&elsewhere), "{elsewhere}");
}

/// All of 127/8 is at home on Linux.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn answers_leave_from_the_address_that_was_asked() {
    let asked: SocketAddr = "127.0.0.9:0".parse().unwrap();
    let mut asker = loopback(Batching::Native);
    let mut socket = UdpSocket::bind("0.0.0.0:0".parse().unwrap(), Batching::Native).unwrap();
    let port = socket.local_addr().port();
    // Off, on, and off again: of several that arrive in one batch each has its own.
    for answers in [Answers::AsRouted, Answers::AsAsked, Answers::AsRouted] {
        socket.set_answers(answers).unwrap();
        let homes = [9, 7, 8].map(|n| SocketAddr::from(([127, 0, 0, n], port)));
        let questions = homes.map(|to| Datagram { to, from: None, bytes: b"?" });
        assert_eq!(asker.send_batch(&questions).done, 3);
        let mut told = Vec::new();
        while told.len() < 3 {
            socket.readable().await.unwrap();
            told.extend(socket.recv_batch().unwrap().map(|datagram| datagram.asked));
        }
        let expected = |home: SocketAddr| (answers == Answers::AsAsked).then(|| home.ip());
        assert_eq!(told, homes.map(expected));
        let to = asker.local_addr();
        let replies = homes.map(|home| Datagram { to, from: expected(home), bytes: b"!" });
        assert_eq!(socket.send_batch(&replies).skipped, 0);
        let sources = receive(&mut asker, 3).await.into_iter().map(|(from, _)| from);
        let from = |home| if answers == Answers::AsAsked { home } else { ([127, 0, 0, 1], port).into() };
        assert_eq!(sources.collect::<Vec<_>>(), homes.map(from));
    }
    // An address that is not ours any more answers nobody, and disturbs no others.
    socket.set_answers(Answers::AsAsked).unwrap();
    let to = asker.local_addr();
    let gone = Datagram { to, from: Some("203.0.113.9".parse().unwrap()), bytes: b"gone" };
    let sent = socket.send_batch(&[gone, Datagram { to, from: Some(asked.ip()), bytes: b"here" }]);
    assert_eq!((sent.done, sent.skipped), (2, 1), "{:?}", sent.error);
    assert_eq!(receive(&mut asker, 1).await, [((asked.ip(), port).into(), b"here".to_vec())]);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn ipv6_tells_and_takes_its_address_too() {
    let Ok(mut socket) = UdpSocket::bind("[::]:0".parse().unwrap(), Batching::Native) else {
        return skip_without_ipv6();
    };
    socket.set_answers(Answers::AsAsked).unwrap();
    let to = SocketAddr::new("::1".parse().unwrap(), socket.local_addr().port());
    assert_eq!(socket.send_batch(&[Datagram { to, from: Some(to.ip()), bytes: b"six" }]).skipped, 0);
    socket.readable().await.unwrap();
    let mut batch = socket.recv_batch().unwrap();
    assert_eq!(batch.next(), Some(Received { from: to, asked: Some(to.ip()), bytes: b"six" }));
}

#[tokio::test]
async fn one_datagram_a_call_leaves_the_source_to_the_system() {
    let mut socket = loopback(Batching::Single);
    socket.set_answers(Answers::AsRouted).unwrap();
    let error = socket.set_answers(Answers::AsAsked).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_lingering_finds_is_the_next_batch() {
    let (mut a, mut b) = (loopback(Batching::Native), loopback(Batching::Native));
    let to = b.local_addr();
    let mut send = |bytes: &[&[u8]]| {
        let datagrams: Vec<_> = bytes.iter().map(|bytes| Datagram { to, from: None, bytes }).collect();
        assert_eq!(a.send_batch(&datagrams).done, bytes.len());
    };
    let taken = |socket: &mut UdpSocket| -> Vec<Vec<u8>> {
        socket.recv_batch().unwrap().map(|datagram| datagram.bytes.to_vec()).collect()
    };
    send(&[b"before"]);
    assert!(!b.linger(), "it must be allowed first");
    b.allow_linger().unwrap();
    assert!(b.linger());
    assert_eq!(taken(&mut b), [b"before"]);
    send(&[b"one", b"two", &[b'x'; MAX_DATAGRAM + 1]]);
    assert!(b.linger());
    // What was found is handed on before more is asked for.
    send(&[b"three"]);
    assert!(b.linger());
    assert_eq!(taken(&mut b), [b"one", b"two"]);
    assert!(b.linger());
    assert_eq!(taken(&mut b), [b"three"]);
    assert!(!b.linger(), "nobody sends");
    assert!(taken(&mut b).is_empty());
    // What is too long is nothing to hand on.
    send(&[&[b'x'; MAX_DATAGRAM + 1]]);
    assert!(!b.linger());
    assert!(taken(&mut b).is_empty());
    assert_eq!((b.counters().received, b.counters().truncated, b.counters().lingered), (4, 2, 4));
    // The runtime knows when the next one is there, as before.
    send(&[b"four", b"five"]);
    let got = receive(&mut b, 2).await;
    assert_eq!(got.iter().map(|(_, bytes)| &bytes[..]).collect::<Vec<_>>(), [&b"four"[..], b"five"]);
}

#[tokio::test]
async fn one_datagram_a_call_cannot_linger() {
    let (mut a, mut b) = (loopback(Batching::Single), loopback(Batching::Single));
    assert_eq!(b.allow_linger().unwrap_err().kind(), io::ErrorKind::Unsupported);
    assert_eq!(a.send_batch(&[Datagram { to: b.local_addr(), from: None, bytes: b"here" }]).done, 1);
    assert!(!b.linger());
    assert_eq!(receive(&mut b, 1).await[0].1, b"here");
}
