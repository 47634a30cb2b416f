//! [`Scratch`]: buffers for the parts of a reply. They travel with the caller's [`crate::Outbox`], so that a
//! million nodes share one set of them.

/// Kept from query to query; whoever uses a buffer clears it first.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) nodes: Vec<u8>,
    pub(crate) nodes6: Vec<u8>,
    pub(crate) values: Vec<u8>,
    pub(crate) value: Vec<u8>,
    pub(crate) ip: Vec<u8>,
}
