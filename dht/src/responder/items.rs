//! Answers to `get` and `put` (BEP 44).
//!
//! An item of 1,000 bytes does not fit the 1,024 of BEP 32. Such a reply carries the item and nothing
//! that it can do without, within [`crate::Config::max_item_datagram`]; and no reply is longer than
//! [`crate::Config::max_amplification`] times its query, so that a query of 86 bytes does not get the very
//! largest items: whoever wants them sends `want` or a version, as all but the barest clients do. Where a value is
//! too long the rest is told: nodes, a token and its version.

use krpc::{ErrorCode, Id, Signed, Want};

use super::fit::{ENVELOPE_BYTES, NODES_BESIDE};
use super::reply::{Asker, ItemParts, Parts, Responder};
use crate::addr::source_key;
use crate::guard::Budgets;
use crate::item::{
    InvalidItem, Item, check_bounds, check_signed, check_value, immutable_target, mutable_target,
};
use crate::store::Put;
use crate::table::FamilyTable;
use crate::{Outbox, Time};

impl<P: AsRef<FamilyTable>, G: Budgets> Responder<'_, P, G> {
    pub(super) fn get(
        &mut self,
        now: Time,
        asker: Asker<'_>,
        (target, seq, want): (Id, Option<i64>, Want),
        out: &mut Outbox,
    ) {
        self.gather_nodes(asker, (&target, want), NODES_BESIDE);
        let token = Some(self.tokens.issue(asker.from.ip(), &target));
        let (beside, alone) = (self.limit(asker, false), self.limit(asker, true));
        let (mut item, mut shortened) = (ItemParts::default(), false);
        if let Some(stored) = self.store.item(now, &target) {
            item.seq = stored.seq();
            // BEP 44: `seq` asks for a newer one only.
            let wanted = item.seq.is_none_or(|stored| seq.is_none_or(|seq| stored > seq));
            let bytes = stored.value().len() + SIGNED_BYTES;
            let small = bytes + ENVELOPE_BYTES + asker.tid.len() <= beside;
            let fits = small || alone >= bytes + BARE_BYTES + asker.tid.len();
            shortened = wanted && !(fits && small);
            if wanted && fits {
                item.value = true;
                item.large = !small;
                if let Item::Mutable(stored) = stored {
                    item.signed = Some((stored.key, stored.signature));
                }
                self.scratch.value.clear();
                self.scratch.value.extend_from_slice(stored.value());
            }
        }
        self.reply(now, asker, Parts { nodes: !item.large, token, item, shortened, ..Parts::default() }, out);
    }

    pub(super) fn put(
        &mut self,
        now: Time,
        asker: Asker<'_>,
        (token, value, signed): (&[u8], &[u8], Option<Signed<'_>>),
        out: &mut Outbox,
    ) {
        let bounds = signed.map_or(Ok(()), |signed| check_bounds(signed.salt, signed.seq));
        if let Err(invalid) = check_value(value).and(bounds) {
            return self.refuse_item(now, asker, invalid, out);
        }
        let target = match signed {
            None => immutable_target(value),
            Some(signed) => mutable_target(signed.key, signed.salt),
        };
        if !self.accepts_token(now, asker, (&target, token), out) {
            return;
        }
        let put = match self.store.item_objection(now, &target, value, signed.as_ref()) {
            Some(objection) => objection,
            None => {
                if let Some(signed) = &signed {
                    if !self.guard.allow_signature(now) {
                        self.counters.items_refused += 1;
                        return self.refuse(now, asker, (ErrorCode::Server, b"busy, try again"), out);
                    }
                    if let Err(invalid) = check_signed(signed, value) {
                        return self.refuse_item(now, asker, invalid, out);
                    }
                }
                let source = source_key(asker.from, self.config.allow_local);
                let put = self.store.put_item(now, target, source, (value, signed));
                self.counters.count_lost(self.store.take_lost());
                put
            }
        };
        match put {
            Put::Stored | Put::Refreshed => {
                self.counters.items_stored += 1;
                self.reply(now, asker, Parts::default(), out);
            }
            Put::CasMismatch | Put::NotNewer | Put::TooMany => {
                self.counters.items_refused += 1;
                let error: (_, &[u8]) = match put {
                    Put::CasMismatch => (ErrorCode::CasMismatch, b"cas mismatch"),
                    Put::NotNewer => (ErrorCode::SequenceTooLow, b"seq not newer"),
                    _ => (ErrorCode::Server, b"too many items"),
                };
                self.refuse(now, asker, error, out);
            }
        }
    }

    fn refuse_item(&mut self, now: Time, asker: Asker<'_>, invalid: InvalidItem, out: &mut Outbox) {
        self.counters.items_refused += 1;
        let error: (_, &[u8]) = match invalid {
            InvalidItem::ValueTooBig => (ErrorCode::ValueTooBig, b"v too big"),
            InvalidItem::SaltTooBig => (ErrorCode::SaltTooBig, b"salt too big"),
            InvalidItem::BadSignature => (ErrorCode::InvalidSignature, b"bad signature"),
            InvalidItem::NotCanonical => (ErrorCode::Protocol, b"v not canonical"),
            InvalidItem::NegativeSequence | InvalidItem::LastSequence => (ErrorCode::Protocol, b"bad seq"),
        };
        self.refuse(now, asker, error, out);
    }
}

/// As much as `1:k32:…3:seqi…e3:sig64:…1:v` at most.
const SIGNED_BYTES: usize =
    b"1:k32:".len() + 32 + b"3:seqi9223372036854775807e3:sig64:".len() + 64 + b"1:v".len();

/// All of a reply without nodes, address and version but its transaction id and the item, at most.
const BARE_BYTES: usize = b"d1:rd2:id20:".len() + 20 + b"5:token8:".len() + 8 + b"e1:t32:1:y1:re".len();
