//! Rate limits of sessions, torrents and connections, over real connections.

use super::*;

#[tokio::test]
async fn a_handshake_waits_for_no_limit_however_much_is_owed() {
    for owes in
        [|from: &Session| Arc::clone(&from.shared().up), |from: &Session| Arc::clone(&from.shared().down)]
    {
        let (from, _seed, _data) = seeder().await;
        from.set_rates(10_000, 10_000);
        // Blocks wait for days now.
        owes(&from).owe(from.shared().clock.now(), 10 << 30);
        let (session, folder) = (session(), tempfile::tempdir().unwrap());
        let (_torrent, mut events) = leech(&from, &session, &folder, State::Paused);
        let end = |event: &Event| matches!(event, Event::PeerConnected(..) | Event::PeerClosed(..));
        let event = until(&mut events, end).await;
        assert!(matches!(event, Event::PeerConnected(..)), "{event:?}");
    }
}
