//! Two pieces from one peer over one connection:
//! `cargo run -p btfetch --example one_piece -- FILE.torrent HOST:PORT INDEX [INDEX]...`
//!
//! `btfetch piece` does it for one, and `btfetch` is the client that fetches whole torrents.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use btdht::net::Bind;
use btfetch::engine::{Listeners, Options, PieceDownloader, Session};
use btfetch::metainfo::Metainfo;
use btfetch::one_piece::{PieceEvent, Wanted};
use btfetch::piece::PieceIndex;

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let (Some(torrent), Some(addr)) = (words.next(), words.next()) else {
        return Err("usage: one_piece FILE.torrent HOST:PORT INDEX...".into());
    };
    let info = Metainfo::parse(&std::fs::read(torrent)?)?.info;
    let infohash = info.hash().v1.ok_or("a torrent of version 2 alone")?;
    let addr: SocketAddr = addr.parse()?;
    let mut pieces = Vec::new();
    for word in words {
        let wanted = Wanted::of(&info, PieceIndex(word.parse()?));
        pieces.push(wanted.ok_or("the torrent has no such piece")?);
    }
    let mut pieces = pieces.into_iter();
    let first = pieces.next().ok_or("no piece named")?;

    // Where we dial from; nobody needs to reach us.
    let any = if addr.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let listeners = Listeners::bind(&[Bind { addr: any.parse()?, required: true }])?;
    let session = Session::new(Options { allow_local: true, ..Options::new(listeners) })?;
    let download = PieceDownloader::new(addr, infohash, first).shape(info.shape()).patience(PATIENCE);
    let (handle, mut events) = download.spawn(&session)?;
    while let Some(event) = events.next().await {
        match event {
            PieceEvent::Complete { index, bytes, verified } => {
                println!("piece {}: {} bytes, verified: {verified}", index.0, bytes.len());
                match pieces.next() {
                    Some(next) => handle.switch_piece(next, PATIENCE).await?,
                    None => handle.stop("that was all", PATIENCE).await?,
                }
            }
            PieceEvent::Failed(index, error) => return Err(format!("piece {}: {error}", index.0).into()),
            PieceEvent::Ended(end) => println!("{end}"),
            other => println!("{other:?}"),
        }
    }
    Ok(())
}
