//! [`Recording`]: writes what a node is given and sends to stdout, so that the run can be replayed.

use std::io;
use std::ops::Deref;
use std::time::Duration;

use btdht::net::Dht;
use btdht::replay::Record;
use btdht::trace;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use crate::failure::Failure;
use crate::output::line;

/// Records that wait for stdout, some hundred bytes each; when it is slower the recording ends.
const WAITING: usize = 16_384;
/// The rest of a trace takes no longer to write.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// A node, and the writer of its trace if it has one.
#[derive(Debug)]
pub(crate) struct Recording {
    dht: Dht,
    writer: Option<JoinHandle<io::Result<()>>>,
}

impl Recording {
    /// A node that nobody records.
    pub(crate) fn none(dht: Dht) -> Self {
        Self { dht, writer: None }
    }

    /// Starts a node with `bind`, giving it a channel whose records are written a line each.
    pub(crate) fn start(
        bind: impl FnOnce(tokio::sync::mpsc::Sender<Record>) -> Result<Dht, btdht::net::Error>,
    ) -> Result<Self, Failure> {
        let (sender, records) = channel(WAITING);
        let dht = bind(sender)?;
        Ok(Self { dht, writer: Some(spawn_blocking(move || write(records))) })
    }

    /// Stops the node and writes the rest of its trace.
    pub(crate) async fn finish(self) -> Result<(), Failure> {
        let Some(writer) = self.writer else { return Ok(()) };
        self.dht.shutdown().await?;
        match timeout(LAST_WORDS, writer).await {
            Ok(Ok(written)) => Ok(written?),
            Ok(Err(error)) => Err(Failure::other(format!("writing the trace: {error}"))),
            // Whoever reads it has stopped reading; the end is missing, which a replay says.
            Err(_) => Ok(()),
        }
    }
}

impl Deref for Recording {
    type Target = Dht;

    fn deref(&self) -> &Dht {
        &self.dht
    }
}

fn write(mut records: Receiver<Record>) -> io::Result<()> {
    while let Some(record) = records.blocking_recv() {
        line(&trace::write(&record))?;
    }
    Ok(())
}
