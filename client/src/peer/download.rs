//! [`Download`]: what we have asked a peer for, and how much more we could.
//!
//! A block is taken only if it is outstanding. One that was, but was cancelled or voided, is late and
//! thrown away without blame; any other is a stray.

use std::collections::VecDeque;
use std::time::Duration;

use btdht::Time;

use super::rate::Pipeline;
use super::{PeerConfig, PeerEvent};
use crate::piece::{Block, BlockRef};
use crate::wire::message::Span;

/// Voided requests that are remembered; the oldest goes, and its block would count as a stray.
const MAX_LATE: usize = 1024;
/// After requests were refused or voided without a block in between, further ones are asked for no
/// sooner than this: a peer that chokes and unchokes, or rejects everything, gets
/// [`PeerConfig::pipeline_min`] requests a second.
const PAUSE: Duration = Duration::from_secs(1);

/// What is asked of one peer.
#[derive(Debug)]
pub(crate) struct Download {
    choked: bool,
    asked: VecDeque<Asked>,
    late: VecDeque<BlockRef>,
    strays: u32,
    pipeline: Pipeline,
    pipeline_min: u32,
    /// Room that the swarm was told of and has not used.
    told: u32,
    /// Requests came to nothing since the last block.
    fruitless: bool,
    /// When room may be told again although requests are fruitless.
    pause_ends: Time,
    /// When room must be looked at again; `NEVER` if no pause is on.
    room_due: Time,
    /// The last block, or the first request after nothing was outstanding.
    progress: Time,
    snubbed: bool,
    /// It is we who let no block come.
    held: bool,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    block: BlockRef,
    at: Time,
}

/// What a `piece` message brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arriving {
    /// A block that is outstanding.
    Wanted,
    /// One that was, or of which we have no right to complain.
    Late,
    /// One that was never asked for.
    Stray,
}

impl Download {
    pub(crate) fn new(config: &PeerConfig) -> Self {
        Self {
            choked: true,
            asked: VecDeque::new(),
            late: VecDeque::new(),
            strays: 0,
            pipeline: Pipeline::new(config),
            pipeline_min: u32::from(config.pipeline_min),
            told: 0,
            fruitless: false,
            pause_ends: Time::ZERO,
            room_due: Time::NEVER,
            progress: Time::ZERO,
            snubbed: false,
            held: false,
        }
    }

    /// The peer queues so many requests.
    pub(crate) fn limit(&mut self, config: &PeerConfig, request_queue: u16) {
        self.pipeline.limit(config, request_queue);
    }

    /// The swarm asks for `block`. `false` if it cannot be asked for now: the peer chokes us, or there
    /// is no end to the requests.
    pub(crate) fn ask(&mut self, now: Time, config: &PeerConfig, block: BlockRef) -> bool {
        self.told = self.told.saturating_sub(1);
        if self.choked || self.asked.len() >= usize::from(config.pipeline_max) {
            return false;
        }
        if self.asked.is_empty() {
            self.progress = now;
        }
        self.asked.push_back(Asked { block, at: now });
        true
    }

    /// The swarm no longer wants `block`. `false` if it is not outstanding.
    pub(crate) fn cancel(&mut self, block: BlockRef) -> bool {
        let found = self.take(Span::of(block));
        if found.is_some() {
            self.remember(block);
        }
        found.is_some()
    }

    /// The peer chokes us. Without the fast extension all requests are void (BEP 3); with it, each is
    /// rejected by a message of its own (BEP 6).
    pub(crate) fn choke(&mut self, fast: bool, out: &mut Vec<PeerEvent>) {
        self.choked = true;
        self.told = 0;
        if !fast {
            while let Some(Asked { block, .. }) = self.asked.pop_front() {
                self.fruitless = true;
                self.remember(block);
                out.push(PeerEvent::Rejected(block));
            }
        }
        out.push(PeerEvent::Choked);
    }

    pub(crate) fn unchoke(&mut self) {
        self.choked = false;
    }

    pub(crate) fn is_choked(&self) -> bool {
        self.choked
    }

    /// The peer refuses a request (BEP 6). `false` if there was none such.
    pub(crate) fn reject(&mut self, span: Span, out: &mut Vec<PeerEvent>) -> bool {
        if let Some(asked) = self.take(span) {
            self.fruitless = true;
            out.push(PeerEvent::Rejected(asked.block));
            return true;
        }
        self.forget(span)
    }

    /// A `piece` message begins.
    pub(crate) fn arriving(&mut self, span: Span) -> Arriving {
        if self.asked.iter().any(|asked| Span::of(asked.block) == span) {
            Arriving::Wanted
        } else if self.forget(span) {
            Arriving::Late
        } else {
            self.strays += 1;
            Arriving::Stray
        }
    }

    /// What is outstanding, in the order in which it was asked for.
    pub(crate) fn spans(&self) -> impl Iterator<Item = Span> + '_ {
        self.asked.iter().map(|asked| Span::of(asked.block))
    }

    /// Blocks that were never asked for.
    pub(crate) fn strays(&self) -> u32 {
        self.strays
    }

    /// A block that was wanted when it began to arrive is there.
    pub(crate) fn arrived(&mut self, now: Time, span: Span, payload: Block, out: &mut Vec<PeerEvent>) {
        let Some(asked) = self.take(span) else {
            // Cancelled or voided while it arrived.
            self.forget(span);
            return;
        };
        self.pipeline.block(now, span.len, now.since(asked.at));
        self.progress = now;
        self.snubbed = false;
        self.fruitless = false;
        out.push(PeerEvent::Block(asked.block, payload));
    }

    /// Tells the swarm when there is more room than it knows of.
    pub(crate) fn tell_room(&mut self, now: Time, out: &mut Vec<PeerEvent>) {
        // Before anything else: a time that has come and stays would be due for ever.
        self.room_due = Time::NEVER;
        if self.choked {
            return;
        }
        let depth = match (self.snubbed, self.fruitless) {
            (true, _) => 1,
            (false, true) => self.pipeline.depth().min(self.pipeline_min),
            (false, false) => self.pipeline.depth(),
        };
        let room = depth.saturating_sub(u32::try_from(self.asked.len()).unwrap_or(u32::MAX));
        if room <= self.told {
            return;
        }
        if self.fruitless {
            if now < self.pause_ends {
                self.room_due = self.pause_ends;
                return;
            }
            self.pause_ends = now + PAUSE;
        }
        self.told = room;
        out.push(PeerEvent::Room(u16::try_from(room).unwrap_or(u16::MAX)));
    }

    /// Says so, once, when no block has come for too long.
    pub(crate) fn check_snub(&mut self, now: Time, config: &PeerConfig, out: &mut Vec<PeerEvent>) {
        if now >= self.snub_due(config) {
            self.snubbed = true;
            out.push(PeerEvent::Snubbed);
        }
    }

    /// Sets the clock of blocks forward by the time since `since` if it was held, and holds it or not from
    /// now on.
    pub(crate) fn hold(&mut self, now: Time, since: Time, held: bool) {
        if std::mem::replace(&mut self.held, held) {
            self.progress += now.since(since.max(self.progress));
        }
    }

    pub(crate) fn timeout(&self, config: &PeerConfig) -> Time {
        self.room_due.min(self.snub_due(config))
    }

    fn snub_due(&self, config: &PeerConfig) -> Time {
        if self.snubbed || self.held || self.asked.is_empty() {
            Time::NEVER
        } else {
            self.progress + config.snub_timeout
        }
    }

    /// Peers answer in order, nearly always: the search ends at the front.
    fn take(&mut self, span: Span) -> Option<Asked> {
        let at = self.asked.iter().position(|asked| Span::of(asked.block) == span)?;
        self.asked.remove(at)
    }

    fn remember(&mut self, block: BlockRef) {
        if self.late.len() >= MAX_LATE {
            self.late.pop_front();
        }
        self.late.push_back(block);
    }

    fn forget(&mut self, span: Span) -> bool {
        let found = self.late.iter().position(|&block| Span::of(block) == span);
        found.and_then(|at| self.late.remove(at)).is_some()
    }
}
