//! S61: a panic in the task of a connection is a bug of ours, and must cost that connection only.

use super::*;
use crate::engine::peer::fault;

#[tokio::test]
async fn a_hundred_panics_in_connections_end_those_and_nothing_else() {
    let (from, seed, _data) = seeder().await;
    // Places that are not given back would run out.
    seed.set_max_peers(3).await;
    fault::order(100);
    for number in 0..100 {
        let mut stream = TcpStream::connect(from.local_addrs()[0]).await.unwrap();
        let hello = Handshake::new(seed.infohash(), [number as u8; 20], false);
        stream.write_all(&hello.encode()).await.unwrap();
        // To the end of the connection, which may be a reset.
        let _ = stream.read_to_end(&mut Vec::new()).await;
        assert_eq!(fault::left(), 99 - number);
        // The owner hears of the end of a task in one of its next turns.
        let mut turns = 0;
        while !seed.peers().await.is_empty() {
            turns += 1;
            assert!(turns < 10_000, "the place was not given back");
            tokio::task::yield_now().await;
        }
    }
    let (session, folder) = (session(), tempfile::tempdir().unwrap());
    let (torrent, _events) = leech(&from, &session, &folder, State::Started);
    torrent.wait_complete().await.unwrap();
    assert_eq!(std::fs::read(folder.path().join("t/b")).unwrap(), payload()[200_000..]);
}
