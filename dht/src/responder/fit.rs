//! What a reply leaves out so that it is no longer than it may be (BEP 32, "Maximum packet size"; D2).
//!
//! Every reply goes through here, because what each part may take is no business of the others: with
//! addresses in both families, with a larger k or more samples they do not all fit. Whoever asks would
//! rather have most of an answer than none.

use krpc::{Body, Id, Message, Response};

use crate::store::Family;

/// Appends a reply to an asker of the family `own`, without what does not fit `limit` bytes. It is longer all
/// the same when nothing of it can be left out. Whether something was.
pub(super) fn encode_within(
    limit: usize,
    own: Family,
    message: &mut Message<'_>,
    bytes: &mut Vec<u8>,
) -> bool {
    let start = bytes.len();
    message.encode(bytes);
    // Seldom: written again costs less than counting before what it will take.
    let excess = |bytes: &[u8]| (bytes.len() - start).saturating_sub(limit);
    let is_too_long = excess(bytes) > 0;
    if let Body::Response(response) = &mut message.body
        && excess(bytes) > 0
    {
        shorten(response, own, excess(bytes));
        bytes.truncate(start);
        message.encode(bytes);
    }
    if excess(bytes) > 0 {
        strip(message);
        bytes.truncate(start);
        message.encode(bytes);
    }
    is_too_long
}

/// Leaves out what an answer is one without: who we are, whom we see (BEP 42), and which version of an item
/// we have whose value is too long as well. Only where so little may be sent for what was asked
/// ([`crate::Config::max_amplification`]) that not even this much fits.
fn strip(message: &mut Message<'_>) {
    (message.version, message.ip) = (None, None);
    if let Body::Response(response) = &mut message.body
        && response.value.is_none()
    {
        response.seq = None;
    }
}

/// Leaves out what is worth least to an asker of the family `own` until `excess` bytes are saved, or there is
/// nothing left that can be missed: first nodes of the other family, which that one's own nodes tell as well;
/// then samples, of which any choice will do (BEP 51); then nodes of its own, the farthest first.
fn shorten(response: &mut Response<'_>, own: Family, excess: usize) {
    let (nodes, nodes6) = ((&mut response.nodes, NODE4_BYTES), (&mut response.nodes6, NODE6_BYTES));
    let (own, other) = match own {
        Family::V4 => (nodes, nodes6),
        Family::V6 => (nodes6, nodes),
    };
    let mut excess = excess;
    for (part, record) in [other, (&mut response.samples, Id::LEN), own] {
        excess = excess.saturating_sub(cut(part, record, excess));
    }
}

/// Cuts records of so many bytes off the end of `part`: as many as make up `excess`, or all. Bytes cut. The
/// key stays, which says of an empty part that we know of it.
fn cut(part: &mut Option<&[u8]>, record: usize, excess: usize) -> usize {
    let Some(all) = *part else {
        return 0;
    };
    let kept = all.len().saturating_sub(excess) / record * record;
    *part = Some(&all[..kept]);
    all.len() - kept
}

/// Nodes of each family that a reply names beside something else (BEP 5, BEP 32: eight); the rest of the room
/// is for peers and samples, whatever [`crate::Config::k`] is.
pub(super) const NODES_BESIDE: usize = 8;

/// More than all of a reply but its transaction id and the contents of nodes, nodes6, values and
/// filters: `d2:ip18:…1:rd2:id20:…5:nodes208:6:nodes6304:5:token8:…6:valuesleee1:t32:1:v4:…1:y1:re`.
pub(super) const ENVELOPE_BYTES: usize = 144;

/// `4:BFpe256:…4:BFsd256:…`.
pub(super) const FILTERS_BYTES: usize = 2 * (6 + 4 + 256);

/// Records of BEP 5 and BEP 32.
const NODE4_BYTES: usize = 26;
const NODE6_BYTES: usize = 38;

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of nodes, nodes6 and samples that are left of eight, eight and twenty.
    fn left(own: Family, excess: usize) -> [usize; 3] {
        let (nodes, nodes6, samples) = ([4; 8 * 26], [6; 8 * 38], [7; 400]);
        let mut response = Response {
            nodes: Some(&nodes),
            nodes6: Some(&nodes6),
            samples: Some(&samples),
            ..Response::new(Id::ZERO)
        };
        shorten(&mut response, own, excess);
        [response.nodes, response.nodes6, response.samples].map(|part| part.unwrap().len())
    }

    #[test]
    fn nodes_of_the_other_family_go_first_then_samples_then_the_askers_own() {
        assert_eq!(left(Family::V4, 1), [208, 7 * 38, 400]);
        assert_eq!(left(Family::V4, 39), [208, 6 * 38, 400]);
        assert_eq!(left(Family::V6, 39), [6 * 26, 304, 400]);
        assert_eq!(left(Family::V4, 304 + 20), [208, 0, 380]);
        assert_eq!(left(Family::V4, 304 + 400 + 27), [6 * 26, 0, 0]);
        assert_eq!(left(Family::V6, 5000), [0; 3]);
    }

    #[test]
    fn what_is_not_there_is_not_cut() {
        let mut response = Response { token: Some(b"12345678"), ..Response::new(Id::ZERO) };
        let before = response;
        shorten(&mut response, Family::V6, 100);
        assert_eq!(response, before);
    }
}
