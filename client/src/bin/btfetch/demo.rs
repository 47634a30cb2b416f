//! `btfetch demo`: the whole chain on one machine and without a network. A small DHT, a seeder with a
//! generated file, a magnet link, the download with nothing but that link, and the check.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use btdht::net::{Bind, Dht};
use btdht::settings::Flags;
use btdht::testnet::Testnet;
use btdht::{Event as DhtEvent, Rng};
use btfetch::engine::{AddOptions, Listeners, Options, Session, Source};
use btfetch::metainfo::Metainfo;
use btfetch::metainfo::create::{Options as CreateOptions, create};
use data_encoding::HEXLOWER;
use krpc::Id;
use krpc::magnet::Magnet;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::create::magnet_of;
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::run;
use crate::signals::Signals;
use crate::text::size;
use crate::watch::{Until, Watch};

/// A step that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two questions whether the seeder can be found.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// Bytes generated and hashed at a time.
const CHUNK: usize = 1 << 20;

/// Shows the whole chain on this machine, with no network: DHT, magnet, download, check
///
/// Example: btfetch demo --size 256
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Nodes of the DHT
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u16).range(2..=200))]
    nodes: u16,

    /// Size of the file, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    size: u32,
}

/// Runs the verb.
pub(crate) fn run(flags: &Flags, args: Args, output: Output) -> Result<(), Failure> {
    let patience = flags.timeout.unwrap_or(PATIENCE);
    run::block_on(async {
        let mut signals = Signals::new()?;
        let folder =
            tempfile::tempdir().map_err(|error| disk("making a folder for temporary files", &error))?;
        let demo = Demo { args, output, patience, started: Instant::now(), folder: folder.path().to_owned() };
        let result = tokio::select! {
            result = Box::pin(demo.run()) => result,
            exit = signals.next() => Err(Failure::quiet(exit)),
        };
        folder.close().map_err(|error| disk("removing the temporary files", &error))?;
        result
    })
}

struct Demo {
    args: Args,
    output: Output,
    patience: Duration,
    started: Instant,
    folder: PathBuf,
}

impl Demo {
    async fn run(&self) -> Result<(), Failure> {
        let net = self.within("starting the DHT", self.start_dht()).await?;

        let original = self.folder.join("seeder").join("demo.bin");
        let sha256 = self.generate(original.clone()).await?;
        let torrent = self.make_torrent(original).await?;
        let infohash = torrent.info.hash().swarm();

        let seeder_node = Dht::bind(net.guest()).map_err(unbound)?;
        let seeder = self.within("seeding", self.seed(&torrent, &seeder_node)).await?;
        let magnet = magnet_of(&torrent);
        self.tell("magnet", &magnet, json!({"magnet": magnet}))?;
        self.within("announcing", self.find_seeder(&net, infohash, seeder.port())).await?;

        self.download(&magnet, &net).await?;
        self.check(&sha256).await?;

        seeder.shutdown().await;
        let total = self.started.elapsed();
        let words = format!("all of it in {:.1} s", total.as_secs_f64());
        self.tell("done", &words, json!({"total_ms": total.as_millis() as u64}))
    }

    /// Starts a network that is whole from the start, as one that has run for long.
    async fn start_dht(&self) -> Result<Testnet, Failure> {
        let count = usize::from(self.args.nodes);
        let net = Testnet::new(count).await.map_err(unbound)?;
        let mut known = Vec::new();
        for node in net.nodes() {
            known.push(node.bootstrapped().await.map_err(failed)?);
        }
        let (least, most) = (known.iter().min().copied(), known.iter().max().copied());
        let words = format!(
            "{count} nodes on 127.0.0.1, to bootstrap from {}, each knows at least {} others",
            net.bootstrap().next().map_or_else(String::new, |addr| addr.to_string()),
            least.unwrap_or(0),
        );
        self.tell("dht", &words, json!({"nodes": count, "known_least": least, "known_most": most}))?;
        Ok(net)
    }

    /// Writes a file of random bytes; its SHA-256.
    async fn generate(&self, path: PathBuf) -> Result<[u8; 32], Failure> {
        let mut left = (self.args.size as usize) << 20;
        let bytes = left as u64;
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)
            .map_err(|error| Failure::failed(format!("drawing random numbers: {error}")))?;
        let work = move || -> io::Result<[u8; 32]> {
            std::fs::create_dir_all(path.parent().unwrap_or_else(|| Path::new("/")))?;
            let mut file = File::create(path)?;
            let mut rng = Rng::new(btdht::Seeds(seed));
            let (mut hash, mut chunk) = (Sha256::new(), vec![0; CHUNK]);
            while left > 0 {
                rng.fill(&mut chunk);
                hash.update(&chunk);
                file.write_all(&chunk)?;
                left -= chunk.len();
            }
            Ok(hash.finalize().into())
        };
        let sha256 = blocking(work).await?.map_err(|error| disk("writing the file", &error))?;
        let hex = HEXLOWER.encode(&sha256);
        let words = format!("demo.bin, {} of random bytes, SHA-256 {hex}", size(bytes));
        self.tell("file", &words, json!({"bytes": bytes, "sha256": hex}))?;
        Ok(sha256)
    }

    async fn make_torrent(&self, path: PathBuf) -> Result<Metainfo, Failure> {
        let made = blocking(move || create(&path, &CreateOptions::default(), &|_| {})).await?;
        let torrent = made.map_err(|error| Failure::failed(error.to_string()))?.metainfo;
        let infohash = torrent.info.hash().swarm().to_string();
        let words = format!("{} pieces, infohash {infohash}", torrent.info.pieces());
        self.tell("torrent", &words, json!({"pieces": torrent.info.pieces(), "infohash": infohash}))?;
        Ok(torrent)
    }

    async fn seed(&self, torrent: &Metainfo, node: &Dht) -> Result<Session, Failure> {
        let session = session(node)?;
        let folder = self.folder.join("seeder");
        let options = AddOptions { output: folder.clone(), ..AddOptions::default() };
        let added = session.add(Source::Metainfo(Box::new(torrent.clone())), options);
        let (handle, events) = added.map_err(|error| Failure::failed(error.to_string()))?;
        let quiet = Output { json: false, quiet: true };
        Watch::new(handle, events, folder, quiet).wait(Until::Complete, None).await?;
        let words = format!("the data is checked, 127.0.0.1:{} serves it", session.port());
        self.tell("seeder", &words, json!({"port": session.port()}))?;
        Ok(session)
    }

    /// Asks the DHT, from a node that has nothing to do with the seeder, until it names the seeder.
    async fn find_seeder(&self, net: &Testnet, infohash: Id, port: u16) -> Result<(), Failure> {
        let node = net.nodes().last().expect("there are at least two nodes");
        loop {
            let mut lookup = node.get_peers(infohash, None, false).await.map_err(failed)?;
            let mut found = false;
            while let Some(event) = lookup.next().await {
                match event {
                    DhtEvent::Peer { addr, .. } => found |= addr.port() == port,
                    DhtEvent::Done { stats, .. } if found => {
                        let words = format!(
                            "the seeder is announced; a lookup from another node: {} queries, {} answers, {} hops, {:.1} ms",
                            stats.queries,
                            stats.answered,
                            stats.hops,
                            stats.elapsed.as_secs_f64() * 1e3
                        );
                        let numbers = json!({
                            "queries": stats.queries, "answered": stats.answered, "hops": stats.hops,
                            "lookup_us": stats.elapsed.as_micros() as u64,
                        });
                        return self.tell("lookup", &words, numbers);
                    }
                    _ => {}
                }
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    /// Downloads with nothing but the magnet link and one address of the DHT.
    async fn download(&self, magnet: &str, net: &Testnet) -> Result<(), Failure> {
        let begun = Instant::now();
        let node = Dht::bind(net.guest()).map_err(unbound)?;
        let session = session(&node)?;
        let folder = self.folder.join("leecher");
        let magnet = Magnet::parse(magnet).map_err(|error| Failure::failed(error.to_string()))?;
        let options = AddOptions { output: folder.clone(), ..AddOptions::default() };
        let added = session.add(Source::Magnet(Box::new(magnet)), options);
        let (handle, events) = added.map_err(|error| Failure::failed(error.to_string()))?;
        // Its progress is shown, its JSON events are not: the demo has its own.
        let shown = Output { json: false, quiet: self.output.quiet || self.output.json };
        let mut watch = Watch::new(handle.clone(), events, folder, shown);

        watch.wait(Until::Metadata, Some(self.patience)).await?;
        let found = begun.elapsed();
        let words =
            format!("found a peer over the DHT and got the metadata from it, {} ms", found.as_millis());
        self.tell("metadata", &words, json!({"since_start_ms": found.as_millis() as u64}))?;

        watch.wait(Until::Complete, Some(self.patience)).await?;
        let took = begun.elapsed().saturating_sub(found);
        let bytes = handle.status().wanted;
        let rate = bytes as f64 / took.as_secs_f64().max(1e-6);
        let words = format!("{} in {:.2} s, {}/s", size(bytes), took.as_secs_f64(), size(rate as u64));
        self.tell("download", &words, json!({"bytes": bytes, "took_ms": took.as_millis() as u64}))?;
        session.shutdown().await;
        Ok(())
    }

    async fn check(&self, original: &[u8; 32]) -> Result<(), Failure> {
        let path = self.folder.join("leecher").join("demo.bin");
        let work = move || -> io::Result<[u8; 32]> {
            let (mut file, mut hash, mut chunk) = (File::open(path)?, Sha256::new(), vec![0; CHUNK]);
            loop {
                match file.read(&mut chunk)? {
                    0 => return Ok(hash.finalize().into()),
                    n => hash.update(&chunk[..n]),
                }
            }
        };
        let copy = blocking(work).await?.map_err(|error| disk("reading the copy", &error))?;
        if copy != *original {
            return Err(Failure::failed("the copy differs from the original"));
        }
        let hex = HEXLOWER.encode(&copy);
        self.tell(
            "check",
            "the SHA-256 of the copy is that of the original",
            json!({"sha256": hex, "ok": true}),
        )
    }

    /// Says what a step came to, with the time since the start.
    fn tell(&self, step: &str, words: &str, mut numbers: Value) -> Result<(), Failure> {
        let at = self.started.elapsed();
        self.output.event(|| {
            numbers["event"] = json!(if step == "done" { "done" } else { "step" });
            numbers["step"] = json!(step);
            numbers["ms"] = json!(at.as_millis() as u64);
            numbers
        })?;
        self.output.plain(format!("{:6.2} s  {step:<9} {words}", at.as_secs_f64()))
    }

    async fn within<T>(
        &self,
        doing: &str,
        step: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let late =
            || Failure::new(Exit::Nothing, format!("{doing} took more than {} s", self.patience.as_secs()));
        tokio::time::timeout(self.patience, Box::pin(step)).await.map_err(|_| late())?
    }
}

fn session(node: &Dht) -> Result<Session, Failure> {
    let listeners =
        Listeners::bind(&[loopback()]).map_err(|error| Failure::new(Exit::Bind, error.to_string()))?;
    let options = Options { dht: Some(node.clone()), allow_local: true, ..Options::new(listeners) };
    Session::new(options).map_err(|error| Failure::failed(error.to_string()))
}

fn loopback() -> Bind {
    Bind { addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), required: true }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Failure::failed(error.to_string()))
}

fn unbound(error: btdht::net::Error) -> Failure {
    Failure::new(Exit::Bind, error.to_string())
}

fn failed(error: btdht::net::Error) -> Failure {
    Failure::failed(error.to_string())
}

fn disk(doing: &str, error: &io::Error) -> Failure {
    Failure::new(Exit::Disk, format!("{doing}: {error}"))
}
