//! The events of a torrent as programs read them, a JSON object each (CLI.md).

use btfetch::swarm::Event;
use serde_json::{Value, json};

use super::Watch;
use crate::text::{escape, escape_bytes, escape_path};

impl Watch {
    /// An event for a line of its own; `None` for one that only we care for.
    pub(super) fn told(&self, event: &Event) -> Option<Value> {
        let infohash = || self.torrent.infohash().to_string();
        Some(match event {
            Event::Metadata(info) => json!({
                "event": "metadata", "name": escape_bytes(info.name()), "length": info.total(),
                "piece_length": info.piece_length(), "pieces": info.pieces(), "files": info.files().len(),
                "infohash": infohash(), "private": info.is_private(),
            }),
            Event::Piece(piece) => json!({"event": "piece", "index": piece.0, "ok": true}),
            Event::BadPiece(piece, banned) => {
                let banned: Vec<_> = banned.iter().map(ToString::to_string).collect();
                json!({"event": "piece", "index": piece.0, "ok": false, "banned": banned})
            }
            Event::File(index) => {
                let file = self.info.as_ref().and_then(|info| info.file(*index));
                json!({
                    "event": "file", "index": index, "path": file.map(|file| escape_path(&file.path())),
                    "length": file.map(|file| file.len()),
                })
            }
            Event::Preallocating { done, total } => {
                json!({"event": "preallocating", "done": done, "total": total, "infohash": infohash()})
            }
            Event::Verified => {
                json!({"event": "verified", "infohash": infohash(), "ms": self.started.elapsed().as_millis() as u64})
            }
            Event::PeerConnected(_, addr, source) => {
                let source = format!("{source:?}").to_ascii_lowercase();
                json!({"event": "peer", "addr": addr.to_string(), "state": "connected", "source": source})
            }
            Event::PeerClosed(_, addr, reason) => {
                json!({"event": "peer", "addr": addr.to_string(), "state": "closed", "reason": reason})
            }
            Event::Warning(text) => json!({"event": "warning", "message": escape(text)}),
            _ => return None,
        })
    }
}
