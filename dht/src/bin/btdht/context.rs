//! [`Context`]: what all verbs that open the network share: settings, output, a node.

use std::net::SocketAddr;
use std::time::Duration;

use btdht::ReadOnly;
use btdht::net::{Dht, Options, State};
use btdht::settings::{Flags, Program, Settings};
use krpc::Id;
use krpc::magnet::Magnet;

use crate::failure::Failure;
use crate::output::Output;
use crate::recording::Recording;

/// Everything that a verb is given besides its own arguments.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) settings: Settings,
    pub(crate) flags: Flags,
    pub(crate) out: Output,
}

impl Context {
    pub(crate) fn new(flags: Flags) -> Result<Self, Failure> {
        let program = Program { prefix: "BTDHT", environment: &|name| std::env::var(name).ok() };
        let settings = Settings::load(&program, &flags)?;
        Ok(Self { settings, out: Output::new(&flags), flags })
    }

    /// Starts the node of a one-shot verb: any port, the saved nodes read but never locked. It is
    /// read-only (BEP 43), so that nobody keeps a node in his table that is gone in a second.
    pub(crate) fn open(&self) -> Result<Dht, Failure> {
        Ok(Dht::bind(self.one_shot())?)
    }

    /// Starts the node of a verb that goes on until a signal: as [`Context::open`], but it answers, since
    /// it stays.
    pub(crate) fn open_to_stay(&self) -> Result<Dht, Failure> {
        let read_only = self.settings.config.read_only;
        let mut options = self.one_shot();
        options.config.read_only = read_only;
        Ok(Dht::bind(options)?)
    }

    /// The same; with `trace`, and output for programs, it is recorded, so that it can be replayed.
    pub(crate) fn open_traced(&self, trace: bool) -> Result<Recording, Failure> {
        if trace && self.flags.json {
            Recording::start(|records| Dht::bind_recorded(self.one_shot(), Some(records)))
        } else {
            self.open().map(Recording::none)
        }
    }

    fn one_shot(&self) -> Options {
        let state = self.settings.folders.state.clone().map_or(State::Nothing, State::Read);
        let mut options = self.options(self.settings.listen.port.unwrap_or(0), state);
        options.config.read_only = ReadOnly::Yes;
        options
    }

    /// Starts the node of a verb that talks to one named node only: it knows nobody else and asks no
    /// router.
    pub(crate) fn open_alone(&self) -> Result<Dht, Failure> {
        let mut options = self.options(self.settings.listen.port.unwrap_or(0), State::Nothing);
        options.config.read_only = ReadOnly::Yes;
        options.bootstrap.clear();
        Ok(Dht::bind(options)?)
    }

    /// The options for a node at `port`.
    pub(crate) fn options(&self, port: u16, state: State) -> Options {
        Options {
            binds: self.settings.binds(port),
            shards: 1,
            lingers: false,
            config: self.settings.config.clone(),
            bootstrap: self.settings.routers.clone(),
            state,
        }
    }

    /// How long the verb may take.
    pub(crate) fn timeout(&self, default: Duration) -> Duration {
        self.flags.timeout.unwrap_or(default)
    }

    /// The addresses of `name` that `dht` has a socket for.
    pub(crate) async fn resolve(&self, dht: &Dht, name: &str) -> Result<Vec<SocketAddr>, Failure> {
        let has_port =
            name.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if !has_port {
            let shown = name.escape_debug();
            return Err(
                Failure::usage(format!("`{shown}` is not HOST:PORT")).hint("for example 192.0.2.1:6881")
            );
        }
        let addrs = btdht::net::lookup(name).await?;
        let usable = |addr: &SocketAddr| dht.local_addrs().any(|local| local.is_ipv4() == addr.is_ipv4());
        let addrs: Vec<_> = addrs.into_iter().filter(usable).collect();
        if addrs.is_empty() {
            return Err(Failure::other(format!(
                "{} has no address of a family that we listen on",
                name.escape_debug()
            )));
        }
        Ok(addrs)
    }
}

/// Whether a word is meant as a magnet link.
pub(crate) fn is_magnet(text: &str) -> bool {
    text.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("magnet:"))
}

/// An infohash written in hex or base32, or as a magnet link.
pub(crate) fn infohash(text: &str) -> Result<Id, String> {
    if is_magnet(text) {
        let magnet = Magnet::parse(text).map_err(|error| format!("invalid magnet link: {error}"))?;
        // BEP 52: the DHT knows a v2 torrent by the first 20 bytes of its infohash.
        let short = || magnet.infohash_v2.as_ref().and_then(|long| Id::from_slice(&long[..Id::LEN]));
        return magnet.infohash_v1.or_else(short).ok_or_else(|| {
            "this magnet link names a key; `btdht get` shows the infohash that it stands for".into()
        });
    }
    text.parse::<Id>().map_err(|error| format!("{error}, or a magnet link"))
}

/// A node id or other point of the key space.
pub(crate) fn id(text: &str) -> Result<Id, String> {
    text.parse::<Id>().map_err(|error| error.to_string())
}
