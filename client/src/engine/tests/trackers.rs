//! Trackers of many torrents.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

use krpc::magnet::Magnet;

use super::*;

/// A tracker that takes connections and never answers: its URL, and the connections.
fn silent() -> io::Result<(String, Receiver<TcpStream>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let url = format!("http://{}/announce", listener.local_addr()?);
    let (sender, taken) = channel();
    std::thread::spawn(move || {
        // They are kept open as long as somebody looks at them.
        listener.incoming().flatten().try_for_each(|stream| sender.send(stream))
    });
    Ok((url, taken))
}

#[tokio::test]
async fn a_tracker_is_told_good_bye_though_all_places_wait_for_silent_ones() {
    let (from, _seed, _data) = seeder().await;
    let SocketAddr::V4(peer) = from.local_addrs()[0] else { panic!("it listens on 127.0.0.1") };
    let tracker = HttpTracker::start(move |_| Reply::Body(announce_reply(&[peer], "i1800e")));
    let (session, folder) = (session(), tempfile::tempdir().unwrap());
    let options = |url| {
        let output = folder.path().to_owned();
        AddOptions { output, trackers: vec![url], ..AddOptions::default() }
    };
    let (torrent, mut events) = session.add(source(), options(tracker.url())).unwrap();
    until(&mut events, |event| matches!(event, Event::PeerConnected(..))).await;

    let (url, taken) = silent().unwrap();
    let magnets = (1..=60).map(|n| Magnet::parse(&format!("magnet:?xt=urn:btih:{n:040x}")).unwrap());
    let others: Vec<_> = magnets
        .map(|magnet| session.add(Source::Magnet(Box::new(magnet)), options(url.clone())).unwrap())
        .collect();
    // As many as are asked at once.
    let held = tokio::task::spawn_blocking(move || taken.into_iter().take(50).collect::<Vec<_>>());
    let held = held.await.unwrap();
    torrent.stop().await;
    let heard = tracker.requests();
    assert!(heard.iter().any(|request| request.contains("event=stopped")), "{heard:?}");
    assert_eq!((held.len(), others.len()), (50, 60));
}

#[tokio::test]
async fn a_tracker_hears_of_the_end_and_the_good_bye_though_the_end_found_no_place() {
    let (from, _seed, _data) = seeder().await;
    let SocketAddr::V4(peer) = from.local_addrs()[0] else { panic!("it listens on 127.0.0.1") };
    let tracker = HttpTracker::start(move |_| Reply::Body(announce_reply(&[peer], "i1800e")));
    let (session, folder) = (session(), tempfile::tempdir().unwrap());
    let options = |url, initial_state| {
        let output = folder.path().to_owned();
        AddOptions { output, trackers: vec![url], initial_state, ..AddOptions::default() }
    };
    let (torrent, mut events) = session.add(source(), options(tracker.url(), State::Paused)).unwrap();
    until(&mut events, |event| matches!(event, Event::PeerConnected(..))).await;

    let (url, taken) = silent().unwrap();
    let magnets = (1..=60).map(|n| Magnet::parse(&format!("magnet:?xt=urn:btih:{n:040x}")).unwrap());
    let _others: Vec<_> = magnets
        .map(|magnet| {
            session.add(Source::Magnet(Box::new(magnet)), options(url.clone(), State::Started)).unwrap()
        })
        .collect();
    let held = tokio::task::spawn_blocking(move || taken.into_iter().take(50).collect::<Vec<_>>());
    let _held = held.await.unwrap();
    // It completes now, and no place is free to say so.
    torrent.resume().await;
    torrent.wait_complete().await.unwrap();
    let heard = |event: &str| tracker.requests().iter().position(|request| request.contains(event));
    assert_eq!(heard("event=completed"), None);
    torrent.stop().await;
    let (completed, stopped) = (heard("event=completed"), heard("event=stopped"));
    assert!(completed.is_some() && completed < stopped, "{:?}", tracker.requests());
}
