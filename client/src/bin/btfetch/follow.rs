//! Downloads what a key stands for (BEP 46), and with `--follow` each later version of it.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use btfetch::engine::{Source, Version, VersionError, Versions};
use data_encoding::HEXLOWER;
use krpc::Id;
use krpc::magnet::Magnet;
use serde_json::json;

use crate::failure::{Exit, Failure};
use crate::fetch::{Args, fetch};
use crate::output::Output;
use crate::run::Running;
use crate::text::span;

/// Whether a link can only be resolved, or is wanted to be resolved again and again, through its key.
pub(crate) fn goes_by_key(magnet: &Magnet, args: &Args) -> bool {
    magnet.mutable.is_some() && (args.follow || magnet.infohash_v1.is_none() && magnet.infohash_v2.is_none())
}

/// Downloads the newest version of `magnet`. With `--follow` it goes on until a signal: a newer version
/// takes the place of the one before, finished or not. A torrent that the link names beside its key is the
/// version before all others, which is there whatever has become of the key.
pub(crate) async fn fetch_versions(
    running: &Running,
    magnet: Magnet,
    peers: &[SocketAddr],
    args: &Args,
    timeout: Option<Duration>,
    output: Output,
) -> Result<(), Failure> {
    let mut versions = running.session.versions(&magnet).await.map_err(|error| explain(&error))?;
    let named = magnet.infohash_v1.filter(|_| args.follow);
    let (mut infohash, mut link) = match named {
        Some(named) => (named, magnet.clone()),
        None => {
            let version = first(&mut versions, timeout, args.follow, output).await?;
            show(&version, &magnet, output)?;
            (version.infohash, version.magnet)
        }
    };
    loop {
        let source = Source::Magnet(Box::new(link));
        let (torrent, download) = fetch(running, source, peers, args, timeout, output).await?;
        if !args.follow {
            return download.await;
        }
        let mut newer = pin!(other(&mut versions, infohash, &magnet, output));
        let version = tokio::select! {
            result = download => {
                result?;
                newer.await?
            }
            version = &mut newer => version?,
        };
        // It may have the same files, which only one of the two may write.
        torrent.close().await;
        (infohash, link) = (version.infohash, version.magnet);
    }
}

/// The newest version there is, within `timeout`. Something else under the key is an answer too: who follows
/// goes on until a signal.
async fn first(
    versions: &mut Versions,
    timeout: Option<Duration>,
    follow: bool,
    output: Output,
) -> Result<Version, Failure> {
    let next = versions.next();
    let found = match timeout {
        Some(timeout) => tokio::time::timeout(timeout, next).await.map_err(|_| {
            let message = format!("nothing is published under the key, or not found in {}", span(timeout));
            Failure::new(Exit::Nothing, message).hint("is the key right? --timeout SECONDS waits longer")
        })?,
        None => next.await,
    };
    match found {
        Err(error @ VersionError::NoTorrent { .. }) if follow => {
            warn(&error, "waiting for one", output)?;
            later(versions, "waiting for one", output).await
        }
        found => found.map_err(|error| explain(&error)),
    }
}

/// The next version that is another torrent than `infohash`. Each one is shown.
async fn other(
    versions: &mut Versions,
    infohash: Id,
    magnet: &Magnet,
    output: Output,
) -> Result<Version, Failure> {
    loop {
        let version = later(versions, "going on with what was there before", output).await?;
        show(&version, magnet, output)?;
        if version.infohash != infohash {
            return Ok(version);
        }
    }
}

/// A version that comes later. Something else under the key is told, with what is done `meanwhile`, and waited out.
async fn later(versions: &mut Versions, meanwhile: &str, output: Output) -> Result<Version, Failure> {
    loop {
        match versions.next().await {
            Ok(version) => return Ok(version),
            Err(error @ VersionError::NoTorrent { .. }) => warn(&error, meanwhile, output)?,
            Err(error) => return Err(explain(&error)),
        }
    }
}

fn warn(error: &VersionError, meanwhile: &str, output: Output) -> Result<(), Failure> {
    output.event(|| json!({"event": "warning", "message": error.to_string()}))?;
    output.say(format!("{error}; {meanwhile}"));
    Ok(())
}

fn show(version: &Version, magnet: &Magnet, output: Output) -> Result<(), Failure> {
    output.event(|| {
        let key = magnet.mutable.as_ref().map(|key| HEXLOWER.encode(&key.public_key));
        json!({
            "event": "version", "seq": version.seq, "infohash": version.infohash.to_string(), "key": key,
        })
    })?;
    output.say(format!("version {} is {}", version.seq, version.infohash));
    Ok(())
}

fn explain(error: &VersionError) -> Failure {
    match error {
        VersionError::NoDht => Failure::usage(error.to_string()).hint("leave --no-dht out"),
        VersionError::NoKey => Failure::usage(error.to_string()),
        _ => Failure::failed(error.to_string()),
    }
}
