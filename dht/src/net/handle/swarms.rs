//! Questions about swarms and stores through the handle: BEP 33 and BEP 51.

use krpc::Id;

use super::{Dht, Lookup};
use crate::net::Error;
use crate::{Command, Event, SwarmEstimate};

impl Dht {
    /// Estimates how many seeds and downloaders `infohash` has, from the filters that the nodes
    /// closest to it send (BEP 33). Useful up to about 6,000 of each.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    ///
    /// ```
    /// # use btdht::Announce;
    /// # use btdht::net::{Dht, Options};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), btdht::net::Error> {
    /// let first = Dht::bind(Options::loopback([]))?;
    /// let second = Dht::bind(Options::loopback(first.local_addrs()))?;
    /// let infohash = krpc::Id::new([7; 20]);
    /// let announce = Announce { port: 7777, implied: false, seed: true };
    /// second.get_peers(infohash, Some(announce), false).await?.finish().await;
    /// let estimate = second.scrape(infohash).await?;
    /// assert_eq!((estimate.seeds, estimate.downloaders), (1, 0));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn scrape(&self, infohash: Id) -> Result<SwarmEstimate, Error> {
        let mut lookup = self.start(Command::Scrape { infohash, trace: false }).await?;
        let mut estimate = SwarmEstimate::default();
        while let Some(event) = lookup.next().await {
            match event {
                Event::Scraped { estimate: merged, .. } => estimate = merged,
                Event::Done { .. } => return Ok(estimate),
                _ => {}
            }
        }
        Err(Error::Stopped)
    }

    /// Asks the nodes on the way to `target` which infohashes they store (BEP 51): a stream of
    /// [`Event::Samples`]. A node that was asked within its interval is only asked for nodes.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn sample(&self, target: Id) -> Result<Lookup, Error> {
        self.start(Command::Sample { target, trace: false }).await
    }
}
