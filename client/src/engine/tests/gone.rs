//! Files that are taken away or cut under torrents.

use super::*;

fn cut(path: &Path) {
    std::fs::File::options().write(true).open(path).unwrap().set_len(0).unwrap();
}

#[tokio::test]
async fn a_seed_goes_on_with_what_is_left_when_a_file_of_it_is_cut() {
    let (folder, from) = (tempfile::tempdir().unwrap(), session());
    put(folder.path());
    let output = folder.path().to_owned();
    let options = AddOptions { output, share: Share::SeedOnly, ..AddOptions::default() };
    let (seed, mut seen) = from.add(source(), options).unwrap();
    seed.wait_complete().await.unwrap();
    cut(&folder.path().join("t/a"));
    // The first one who asks finds out. What it was told we have cannot be taken back.
    let (first, to) = (session(), tempfile::tempdir().unwrap());
    let (_asks, _events) = leech(&from, &first, &to, State::Started);
    let Event::Warning(words) = until(&mut seen, |event| matches!(event, Event::Warning(_))).await else {
        panic!("it is one");
    };
    assert!(words.contains("t/a") && words.contains("7 pieces"), "{words}");
    let (second, to) = (session(), tempfile::tempdir().unwrap());
    let (torrent, mut events) = leech(&from, &second, &to, State::Started);
    let mut pieces = Vec::new();
    while pieces.len() < 13 {
        if let Event::Piece(piece) = until(&mut events, |event| matches!(event, Event::Piece(_))).await {
            pieces.push(piece.0);
        }
    }
    pieces.sort_unstable();
    assert_eq!(pieces, (7..20).collect::<Vec<_>>(), "the others have bytes of the first file");
    assert!(!matches!(seed.phase(), Phase::Failed(_)), "{:?}", seed.phase());
    assert_eq!(torrent.missing().await.unwrap().count(), 7);
}

#[tokio::test]
async fn a_download_fetches_again_what_was_taken_away_from_under_it() {
    let (from, _seed, _data) = seeder().await;
    let (session, folder) = (session(), tempfile::tempdir().unwrap());
    let (torrent, _events) = leech(&from, &session, &folder, State::Started);
    torrent.wait_complete().await.unwrap();
    cut(&folder.path().join("t/a"));
    // Somebody asks for it.
    let (other, to) = (super::session(), tempfile::tempdir().unwrap());
    let (second, _) = leech(&session, &other, &to, State::Started);
    second.wait_complete().await.unwrap();
    torrent.wait_complete().await.unwrap();
    assert_eq!(std::fs::read(to.path().join("t/a")).unwrap(), payload()[..200_000]);
    assert_eq!(std::fs::read(folder.path().join("t/a")).unwrap(), payload()[..200_000]);
}
