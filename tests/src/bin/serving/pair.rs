//! [`Pair`]: the floor and a node measured in turns, so that what the machine does within seconds it does to both.

use std::io;
use std::time::Duration;

use harness::load::{Load, Tally};
use harness::process::Running;

use super::{FLOOR, Floor, Measured, Options, cpu_nanos, report};

/// How long the turns of one measurement are, in parts of all of them together. They differ, and who is first changes, so
/// that nothing that comes again and again falls into the turns of one of them alone.
const TURNS: [u32; 8] = [7, 13, 10, 8, 12, 9, 11, 10];

/// The floor and a node, which run beside each other and are asked by turns.
pub(crate) struct Pair {
    pub(crate) echo: Running,
    pub(crate) node: Running,
    pub(crate) load: Load,
}

#[derive(Clone, Copy)]
pub(crate) enum Who {
    Floor,
    Node,
}

/// Queries a second.
#[derive(Clone, Copy)]
pub(crate) struct Rates {
    pub(crate) floor: u32,
    pub(crate) node: u32,
}

impl Rates {
    pub(crate) fn of(self, who: Who) -> u32 {
        match who {
            Who::Floor => self.floor,
            Who::Node => self.node,
        }
    }
}

impl Pair {
    /// Asks each as long as is wanted, in turns; what the floor gave and what the node gave.
    pub(crate) fn measure(
        &mut self,
        options: &Options,
        ask: impl Fn(&mut Load, Who, Duration) -> io::Result<Tally>,
    ) -> (Measured, Measured) {
        let all = Duration::from_secs(options.seconds) / TURNS.iter().sum();
        let (mut floor, mut node) = (Cost::default(), Cost::default());
        let echo_at = FLOOR.parse().expect("an address");
        for (turn, parts) in TURNS.into_iter().enumerate() {
            let order = [Who::Floor, Who::Node];
            for who in if turn % 2 == 0 { order } else { [order[1], order[0]] } {
                let (load, span) = (&mut self.load, all * parts);
                match who {
                    Who::Floor => {
                        let before = cpu_nanos(self.node.pid());
                        floor.add(&self.echo, || load.visiting(echo_at, |load| ask(load, who, span)));
                        node.aside += cpu_nanos(self.node.pid()).saturating_sub(before);
                    }
                    Who::Node => node.add(&self.node, || ask(load, who, span)),
                }
            }
        }
        let floor = floor.measured(None);
        let beside = floor.floor;
        (floor, node.measured(Some(beside)))
    }
}

/// What a program gave and took in some turns.
#[derive(Default)]
struct Cost {
    tally: Tally,
    nanos: u64,
    /// What it took while it was not asked.
    aside: u64,
}

impl Cost {
    fn add(&mut self, program: &Running, ask: impl FnOnce() -> io::Result<Tally>) {
        let before = cpu_nanos(program.pid());
        self.tally.add(ask().expect("a network"));
        self.nanos += cpu_nanos(program.pid()).saturating_sub(before);
    }

    /// Beside the floor; without one it is the floor itself.
    fn measured(self, floor: Option<Floor>) -> Measured {
        let Self { tally, nanos, aside } = self;
        let cpu_micros = nanos as f64 / 1000.0 / tally.answered.max(1) as f64;
        let aside_percent = aside as f64 / 1e7 / tally.seconds;
        let itself = Floor { cpu_micros, rate: tally.rate(), p50_micros: report::quantile(&tally, 0.5) };
        Measured { tally, cpu_micros, aside_percent, floor: floor.unwrap_or(itself) }
    }
}
