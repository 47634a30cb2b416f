//! The far end of a virtual cable: a thread in a network namespace of its own, which does as it is told.

use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use harness::netns;

/// The namespace lives as long as this, and what was started in it.
pub(crate) struct Beyond {
    /// The kernel's number of the thread.
    thread: String,
    orders: Sender<Box<dyn FnOnce() + Send>>,
}

impl Beyond {
    pub(crate) fn new() -> Self {
        let (there, thread) = channel();
        let (orders, inbox) = channel::<Box<dyn FnOnce() + Send>>();
        thread::spawn(move || {
            netns::enter().unwrap();
            there.send(thread_id()).unwrap();
            for order in inbox {
                order();
            }
        });
        Self { thread: thread.recv().unwrap(), orders }
    }

    /// Lays a cable: its one end is `near`, here, the other one `far`, over there. Both are down and have
    /// no addresses.
    pub(crate) fn lay_cable(&self) {
        ip(&format!("link add near type veth peer name far netns {}", self.thread));
    }

    /// What `work` returns over there.
    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = channel();
        self.orders.send(Box::new(move || drop(done.send(work())))).unwrap();
        result.recv().expect("no panic over there")
    }
}

pub(crate) fn ip(args: &str) {
    let status = Command::new("ip").args(args.split(' ')).status().unwrap();
    assert!(status.success(), "ip {args}: {status}");
}

/// Gives the address to the interface, which may have it already.
pub(crate) fn assign(address: &str, interface: &str) {
    // Nobody else has an address of IPv6, so that there is no need to ask around for a second.
    let (len, nodad) = if address.contains(':') { (64, " nodad") } else { (24, "") };
    ip(&format!("addr replace {address}/{len} dev {interface}{nodad}"));
}

/// Takes it away.
pub(crate) fn withdraw(address: &str, interface: &str) {
    let len = if address.contains(':') { 64 } else { 24 };
    ip(&format!("addr del {address}/{len} dev {interface}"));
}

/// The kernel's number of the calling thread: `/proc/thread-self` leads to `PID/task/TID`.
fn thread_id() -> String {
    let link = std::fs::read_link("/proc/thread-self").unwrap();
    link.file_name().unwrap().to_str().unwrap().to_owned()
}
