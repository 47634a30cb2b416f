//! S34: two peers of every mode and an honest one at 1 MiB/s: the file comes out right.

use std::sync::Arc;

use harness::hostile::{Blocks, Honest, Mode, Peer, Torrent};

use crate::run::{Fetch, MOST_TIME, Source, addresses, each, hostile};

#[test]
fn an_honest_seeder_alone_is_served_by_the_rules() {
    let variants =
        [(false, false, 64 << 10), (true, false, 64 << 10), (false, true, 256 << 10), (true, true, 1 << 20)];
    each(&variants, |&(fast, extension_first, piece_len)| {
        let torrent = Arc::new(Torrent::new(3 << 20, piece_len, 0, u64::from(piece_len)));
        let seeder = Peer::honest(&torrent, Honest { fast, extension_first, ..Honest::default() });
        let outcome = Fetch::new(&torrent, Source::File, [seeder.addr]).run();
        match seeder.seen.complaints() {
            complaints if complaints.is_empty() => outcome.complete(&torrent),
            complaints => Err(format!("{complaints:?}")),
        }
    });
}

#[test]
fn greetings_do_no_harm() {
    topic(|mode| matches!(mode, Mode::Greetings(_)));
}

#[test]
fn framing_does_no_harm() {
    topic(|mode| matches!(mode, Mode::Framing(_)));
}

#[test]
fn claimed_pieces_do_no_harm() {
    topic(|mode| matches!(mode, Mode::Pieces(_)));
}

#[test]
fn requests_do_no_harm() {
    topic(|mode| matches!(mode, Mode::Requests(_)));
}

#[test]
fn blocks_do_no_harm() {
    topic(|mode| matches!(mode, Mode::Blocks(_)));
}

#[test]
fn extensions_do_no_harm() {
    topic(|mode| matches!(mode, Mode::Extensions(_)));
}

#[test]
fn metadata_does_no_harm() {
    topic(|mode| matches!(mode, Mode::Metadata(_)));
}

fn topic(of_it: impl Fn(&Mode) -> bool) {
    let modes: Vec<_> = Mode::all().filter(of_it).collect();
    each(&modes, |&mode| {
        let magnet = matches!(mode, Mode::Metadata(_));
        // A padded info dictionary has several pieces (BEP 9); 256 KiB pieces are shared by peers.
        let torrent = match mode {
            Mode::Blocks(_) => Torrent::new(3 << 20, 256 << 10, 0, 1),
            _ if magnet => Torrent::new(3 << 20, 64 << 10, 40_000, 2),
            // The last byte of the bitfield has spare bits.
            _ => Torrent::new((3 << 20) - 70_000, 64 << 10, 0, 3),
        };
        let torrent = Arc::new(torrent);
        let evil = hostile(&torrent, mode, 2);
        let honest = Peer::honest(&torrent, Honest::default());
        let source = if magnet { Source::Magnet } else { Source::File };
        let outcome = Fetch::new(&torrent, source, addresses(evil.iter().chain([&honest]))).run();
        let figures = outcome.complete(&torrent)?;
        if outcome.took > MOST_TIME {
            return Err(format!("too long: {figures}\n{}", outcome.output()));
        }
        let seen: Vec<_> = evil.iter().map(|peer| &peer.seen).collect();
        if seen.iter().any(|seen| seen.connections.total() == 0) {
            return Err("a hostile peer was never dialed".to_owned());
        }
        let waste = waste(mode, &torrent, &evil, &honest)?;
        match honest.seen.complaints() {
            complaints if complaints.is_empty() => Ok(format!("{figures}{waste}")),
            complaints => Err(format!("{complaints:?}")),
        }
    });
}

/// S35: whoever sends wrong blocks where right ones were asked for spoils two pieces at most, and the honest peer
/// sends no more again than four pieces of two such peers.
fn waste(mode: Mode, torrent: &Torrent, evil: &[Peer], honest: &Peer) -> Result<String, String> {
    let Mode::Blocks(mode) = mode else { return Ok(String::new()) };
    let spoiled: Vec<_> = evil.iter().map(|peer| peer.seen.spoiled_pieces()).collect();
    let honest = honest.seen.blocks_sent.total();
    let figures = format!(", {spoiled:?} pieces spoiled, {honest} honest blocks");
    // What was never asked for spoils nothing, nor what is right at first; the rest is often right.
    let may_spoil =
        matches!(mode, Blocks::UnrequestedWrong | Blocks::RightThenWrong | Blocks::WrongDataRarely);
    let spoils = !may_spoil && spoiled.iter().any(|&pieces| pieces > 2);
    let blocks_of_a_piece = u64::from(torrent.piece_len / 16_384);
    let most = (u64::from(torrent.pieces()) + 4) * blocks_of_a_piece;
    if spoils || honest > most { Err(format!("too much waste{figures}")) } else { Ok(figures) }
}
