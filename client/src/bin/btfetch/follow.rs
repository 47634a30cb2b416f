//! Downloads what a key stands for (BEP 46), and with `--follow` each later version of it.
//!
//! Versions of a torrent have the same file names as a rule, so an older one that is fetched is written
//! over a newer one. Hence, with `--follow`:
//!
//! - The newest version that was met is kept in the folder ([`VersionFile`]) before anything of it is
//!   fetched. The next run begins with it, and only a newer one takes its place: neither what the DHT
//!   still holds nor the torrent that the link names beside its key, which is older than all of them.
//! - Where the folder knows none, that named torrent is there whatever has become of the key, but the key
//!   has a head start: the torrent is fetched when nothing was found under it in [`HEAD_START`].
//!
//! What a version alone is to blame for, metadata that is refused or no file that was selected, is told and
//! the next version waited for, just as what is published under the key and no torrent at all. What the
//! disk refuses, or time, ends the run. A version that is complete and seeded as long as that was wanted is
//! closed.
//!
//! A version that another link of the run downloads is left to that one ([`Claims`]), and taken up where
//! that one goes on to a newer version of its own before it is complete.

use std::pin::{Pin, pin};
use std::time::Duration;

use btfetch::engine::{Failed, Phase, Source, Version, VersionError, VersionFile, Versions};
use data_encoding::HEXLOWER;
use krpc::Id;
use krpc::magnet::Magnet;
use serde_json::json;

use crate::claims::{Claims, Left};
use crate::failure::{Exit, Failure};
use crate::fetch::{Args, Fetch};
use crate::output::Output;
use crate::text::{escape, span};

/// A lookup takes seconds, and one that came to nothing is tried again after ten.
const HEAD_START: Duration = Duration::from_secs(15);

/// Why a run ends in which nobody can fetch what a key stands for.
const NONE_OF_USE: &str = "no version that can be fetched was found";

/// Whether a link can only be resolved, or is wanted to be resolved again and again, through its key.
pub(crate) fn goes_by_key(magnet: &Magnet, args: &Args) -> bool {
    magnet.mutable.is_some() && (args.follow || magnet.infohash_v1.is_none() && magnet.infohash_v2.is_none())
}

/// The newest version of `magnet`, and what puts it again every hour as long as it is kept.
pub(crate) async fn newest(run: Fetch<'_>, magnet: &Magnet) -> Result<(Version, Versions), Failure> {
    let mut versions = run.running.session.versions(magnet).await.map_err(|error| explain(&error))?;
    let found = within(run.timeout, versions.next(), "nothing is published under the key, or not found");
    let version = found.await?.map_err(|error| explain(&error))?;
    show(&version, magnet, run.output)?;
    Ok((version, versions))
}

/// Downloads the newest version of `magnet` and goes on until a signal: a newer version takes the place of
/// the one before, finished or not.
pub(crate) async fn follow(run: Fetch<'_>, claims: &Claims, magnet: Magnet) -> Result<(), Failure> {
    let Fetch { timeout, output, .. } = run;
    let file = VersionFile::new(&run.args.output, &magnet).map_err(|error| explain(&error))?;
    let known = load(&file, output).await?;
    let versions = match &known {
        Some(version) => run.running.session.versions_after(version).await,
        None => run.running.session.versions(&magnet).await,
    };
    let versions = versions.map_err(|error| explain(&error))?;
    let mut key = Key { magnet, versions, file, output };
    let (mut infohash, mut link) = key.begin(known, timeout).await?;
    loop {
        let newer = pin!(key.other(infohash));
        let version = until_newer(run, claims, (infohash, link), newer).await?;
        (infohash, link) = (version.infohash, version.magnet);
    }
}

/// Downloads a version until there is a `newer` one, unless another link has it and does.
async fn until_newer(
    run: Fetch<'_>,
    claims: &Claims,
    (infohash, link): (Id, Magnet),
    mut newer: Pin<&mut impl Future<Output = Result<Version, Failure>>>,
) -> Result<Version, Failure> {
    let Fetch { timeout, output, .. } = run;
    let claim = loop {
        let mut taken = match claims.take(infohash) {
            Ok(claim) => break claim,
            Err(taken) => taken,
        };
        let meanwhile = "waiting for a newer version, or until that is left";
        warn(&format!("{infohash} is downloaded already"), meanwhile, output)?;
        waiting(infohash, output)?;
        // Without a timeout: where the other link does not get on, it ends the run itself.
        match newer_or_end(newer.as_mut(), taken.left()).await {
            Ok(newer) => return newer,
            Err(Left::Complete) => return newer.await,
            Err(Left::Useless) => return within(timeout, newer, NONE_OF_USE).await?,
            Err(Left::Unfinished) => {
                let what = format!("{infohash} was left unfinished by the link that downloaded it");
                warn(&what, "going on with it", output)?;
            }
        }
    };
    let (torrent, download) = run.add(Source::Magnet(Box::new(link))).await?;
    match newer_or_end(newer.as_mut(), download).await {
        Ok(newer) => {
            if torrent.phase() == Phase::Complete {
                claim.settle(Left::Complete);
            }
            // It may have the same files, which only one of the two may write.
            torrent.close().await;
            newer
        }
        Err(end) => {
            let was_complete = torrent.phase() == Phase::Complete;
            let timeout = waited_out(end, &torrent.phase(), output)?.and(timeout);
            torrent.close().await;
            claim.settle(if was_complete { Left::Complete } else { Left::Useless });
            drop(claim);
            waiting(infohash, output)?;
            output.say(format!("{infohash} is closed; waiting for a newer version"));
            within(timeout, newer, NONE_OF_USE).await?
        }
    }
}

/// A key that is followed.
struct Key {
    magnet: Magnet,
    versions: Versions,
    /// Where the newest version is kept.
    file: VersionFile,
    output: Output,
}

impl Key {
    /// What is fetched first: infohash and link. The version that the folder knows, or the newest one that
    /// is found, or what the link names.
    async fn begin(
        &mut self,
        known: Option<Version>,
        timeout: Option<Duration>,
    ) -> Result<(Id, Magnet), Failure> {
        let version = match (known, self.magnet.infohash_v1) {
            (Some(known), named) => {
                show(&known, &self.magnet, self.output)?;
                if let Some(named) = named.filter(|named| *named != known.infohash) {
                    let (seq, file) = (known.seq, escape(&self.file.path().display().to_string()));
                    let what =
                        format!("the link names {named}, which is not fetched: {file} knows version {seq}");
                    warn(&what, "going on with that one", self.output)?;
                }
                known
            }
            (None, Some(named)) => match self.head_start(timeout).await? {
                Some(version) => version,
                None => return Ok((named, self.magnet.clone())),
            },
            (None, None) => {
                let first = self.later("waiting for one");
                within(timeout, first, "no torrent was found under the key").await??
            }
        };
        Ok((version.infohash, version.magnet))
    }

    /// The newest version, if it is found before it is time for the named torrent.
    async fn head_start(&mut self, timeout: Option<Duration>) -> Result<Option<Version>, Failure> {
        let most = timeout.map_or(HEAD_START, |timeout| timeout.min(HEAD_START));
        self.output.say("asking for a newer version than the link names");
        match tokio::time::timeout(most, self.versions.next()).await {
            Ok(Ok(version)) => self.take(version).await.map(Some),
            Ok(Err(error @ VersionError::NoTorrent { .. })) => {
                warn(&error.to_string(), "going on with what the link names", self.output)?;
                Ok(None)
            }
            Ok(Err(error)) => Err(explain(&error)),
            Err(_) => Ok(None),
        }
    }

    /// The next version that is another torrent than `infohash`. Each one is shown.
    async fn other(&mut self, infohash: Id) -> Result<Version, Failure> {
        loop {
            let version = self.later("going on with what was there before").await?;
            if version.infohash != infohash {
                return Ok(version);
            }
        }
    }

    /// A version that comes later. Something else under the key is told, with what is done `meanwhile`, and
    /// waited out.
    async fn later(&mut self, meanwhile: &str) -> Result<Version, Failure> {
        loop {
            match self.versions.next().await {
                Ok(version) => return self.take(version).await,
                Err(error @ VersionError::NoTorrent { .. }) => {
                    warn(&error.to_string(), meanwhile, self.output)?;
                }
                Err(error) => return Err(explain(&error)),
            }
        }
    }

    /// Shows a version and keeps it for later runs. Where that cannot be done this run goes on: the download
    /// itself tells what the disk refuses.
    async fn take(&self, version: Version) -> Result<Version, Failure> {
        show(&version, &self.magnet, self.output)?;
        let (file, kept) = (self.file.clone(), version.clone());
        let saved = tokio::task::spawn_blocking(move || file.save(&kept)).await;
        if let Ok(Err(error)) = saved {
            let meanwhile = "the next run may begin with an older version";
            warn(&escape(&error.to_string()), meanwhile, self.output)?;
        }
        Ok(version)
    }
}

/// The version that an earlier run has kept. A file that is not believed is told and is none.
async fn load(file: &VersionFile, output: Output) -> Result<Option<Version>, Failure> {
    let read = file.clone();
    match tokio::task::spawn_blocking(move || read.load()).await {
        Ok(Ok(known)) => Ok(known),
        Ok(Err(error)) => {
            let what = format!("{}: {error}", file.path().display());
            warn(&escape(&what), "the version that it held is not known", output)?;
            Ok(None)
        }
        // A panic, which is a bug of ours.
        Err(_) => Ok(None),
    }
}

/// What comes first. Where both are there it is the newer version: how the older one ended does not matter
/// any more.
async fn newer_or_end<N, E>(newer: impl Future<Output = N>, end: impl Future<Output = E>) -> Result<N, E> {
    tokio::select! {
        biased;
        newer = newer => Ok(newer),
        end = end => Err(end),
    }
}

/// How a version ended after which a newer one is waited for: `None` is well, and something is there;
/// else it alone is to blame, which is told.
///
/// # Errors
/// It ended in a way that a newer version would end as well.
fn waited_out(end: Result<(), Failure>, phase: &Phase, output: Output) -> Result<Option<()>, Failure> {
    match (end, phase) {
        (Ok(()), _) => Ok(None),
        (Err(failure), Phase::Failed(Failed::Invalid(_) | Failed::Unsupported(_))) => {
            warn(&failure.to_string(), "waiting for a newer version", output)?;
            Ok(Some(()))
        }
        (Err(failure), _) => Err(failure),
    }
}

/// What `wanted` comes to; exit 4 with `message` when that takes longer than `timeout`.
async fn within<T>(
    timeout: Option<Duration>,
    wanted: impl Future<Output = T>,
    message: &str,
) -> Result<T, Failure> {
    let Some(timeout) = timeout else { return Ok(wanted.await) };
    tokio::time::timeout(timeout, wanted).await.map_err(|_| {
        let message = format!("{message} in {}", span(timeout));
        Failure::new(Exit::Nothing, message).hint("is the key right? --timeout SECONDS waits longer")
    })
}

fn warn(what: &str, meanwhile: &str, output: Output) -> Result<(), Failure> {
    output.event(|| json!({"event": "warning", "message": what}))?;
    output.say(format!("{what}; {meanwhile}"));
    Ok(())
}

/// The version under the key is `infohash`, and nothing is done about it for now.
fn waiting(infohash: Id, output: Output) -> Result<(), Failure> {
    output.event(|| json!({"event": "waiting", "infohash": infohash.to_string()}))
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

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::path::PathBuf;

    use btfetch::storage::{DiskError, DiskErrorKind};

    use super::*;

    #[tokio::test]
    async fn where_a_newer_version_is_there_the_end_of_the_older_one_does_not_matter() {
        for _ in 0..100 {
            assert_eq!(newer_or_end(ready(2), ready("failed")).await, Ok(2));
        }
        assert_eq!(newer_or_end(pending::<u8>(), ready("failed")).await, Err("failed"));
    }

    #[test]
    fn what_a_version_alone_is_to_blame_for_is_waited_out_and_nothing_else() {
        let output = Output { json: false, quiet: true };
        let end = |phase| waited_out(Err(Failure::failed("for a reason")), &phase, output);
        let failed = |failed| end(Phase::Failed(failed)).map_err(|failure| failure.message);
        assert_eq!(failed(Failed::Invalid("no file of the torrent is selected".into())), Ok(Some(())));
        assert_eq!(failed(Failed::Unsupported("version 2 alone".into())), Ok(Some(())));
        let error = DiskError {
            kind: DiskErrorKind::NoSpace,
            doing: "writing",
            path: PathBuf::from("x"),
            detail: "no space left on the device".into(),
        };
        for fatal in [Failed::Disk(error), Failed::InUse(PathBuf::from("x"))] {
            assert_eq!(failed(fatal), Err("for a reason".into()));
        }
        // Nothing came in time, or nobody reads what is written.
        assert!(end(Phase::Running).is_err() && end(Phase::Complete).is_err());
        assert_eq!(waited_out(Ok(()), &Phase::Complete, output).ok(), Some(None));
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_too_long_is_exit_code_4_and_without_a_timeout_nothing_does() {
        let second = Duration::from_secs(1);
        let late = within(Some(second), pending::<()>(), "nothing was found").await.unwrap_err();
        assert_eq!((late.exit, &late.message[..]), (Exit::Nothing, "nothing was found in 0:01"));
        assert_eq!(within(Some(second), ready(1), "nothing").await.ok(), Some(1));
        let slow = async { tokio::time::sleep(second * 1_000_000).await };
        assert!(within(None, slow, "nothing").await.is_ok());
    }
}
