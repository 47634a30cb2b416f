//! A wide-area network in user space, as this kernel has no netem: a network namespace with a TUN
//! device for each host ([`host`]), and between them links of a rate, a delay, a queue and a loss
//! ([`links`]). The program `wan` moves the packets.

pub mod host;
pub mod links;
