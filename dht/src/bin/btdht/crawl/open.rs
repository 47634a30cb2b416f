//! Opening the database of a crawl, or saying why it cannot be: somebody else has it, it is another
//! program's file, a later version's, or damaged. Nothing that is not ours is ever written to.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Read as _};
use std::path::Path;

use redb::backends::FileBackend;
use redb::{
    Builder, Database, DatabaseError, ReadableDatabase as _, StorageError, TableDefinition, TableError,
};

use super::place;
use crate::failure::Failure;

/// What the crawl itself has to remember.
pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// The form of the tables. The first one knew of a swarm's size only when it was last asked for, and is read as it
/// is; a crawl makes it one of the second form, which earlier versions do not know.
const SCHEMA: u32 = 2;
const FIRST: u32 = 1;
const SCHEMA_KEY: &str = "schema";

/// Whether a database that is not there is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    Create,
    Refuse,
}

/// Opens the database at `path`; whether it is a new one. Blocks as long as the disk takes: all of it is read
/// once, so that damage is noticed here and not in the middle of the work.
pub(super) fn open(path: &Path, missing: Missing) -> Result<Database, Failure> {
    let shown = path.display();
    match begins_like_a_database(path) {
        Ok(true) => {}
        Ok(false) => return Err(foreign(path)),
        Err(error) if error.kind() == ErrorKind::NotFound && missing == Missing::Create => {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)
                    .map_err(|error| Failure::disk(format!("making the folder of {shown}: {error}")))?;
            }
            if let Some(database) = create(path)? {
                return Ok(database);
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Failure::nothing(format!("nothing has been recorded in {shown} yet"))
                .hint("`btdht crawl` does; --db FILE names another database"));
        }
        Err(error) => return Err(Failure::disk(format!("reading {shown}: {error}"))),
    }
    let opened = match missing {
        Missing::Create => builder().create(path),
        Missing::Refuse => builder().open(path),
    };
    let database = opened.map_err(|error| refused(path, &error))?;
    let found = schema(&database).map_err(|error| damaged(path, &error))?;
    match found {
        Found::Ours(SCHEMA) => Ok(database),
        Found::Ours(FIRST) if missing == Missing::Refuse => Ok(database),
        Found::Ours(FIRST) | Found::New if missing == Missing::Create => {
            start(&database).map_err(|error| damaged(path, &error))?;
            Ok(database)
        }
        Found::Ours(version) => Err(Failure::usage(format!(
            "{shown} has the form {version}, and this version knows {FIRST} and {SCHEMA}"
        ))
        .hint("a later btdht has written it; --db FILE names another")),
        Found::New | Found::Foreign => Err(foreign(path)),
    }
}

/// Makes a database under another name, which it keeps until it is whole: redb writes what its files begin with last,
/// so that of a first run that was killed a file would stay that is no database. `None` if another first run was
/// quicker.
///
/// The lock is on the file from before it is emptied until the database is closed, by whatever name: nobody empties
/// or renames what another one fills.
fn create(path: &Path) -> Result<Option<Database>, Failure> {
    let failed = |error: io::Error| Failure::disk(format!("making {}: {error}", path.display()));
    let place = place::followed(path);
    let temporary = place::with(&place, ".new");
    let mut options = File::options();
    let file =
        options.read(true).write(true).create(true).truncate(false).open(&temporary).map_err(failed)?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => return Err(in_use(path)),
        // Where files cannot be locked redb does without, too.
        Ok(()) | Err(TryLockError::Error(_)) => {}
    }
    if !is_leftover(&file).map_err(failed)? {
        return Err(foreign(&temporary));
    }
    if place.exists() {
        // Of nobody who makes one: they look here first, too.
        let _ = fs::remove_file(&temporary);
        return Ok(None);
    }
    file.set_len(0).map_err(failed)?;
    let created = FileBackend::new(file).and_then(|file| builder().create_with_backend(file));
    let database = created.map_err(|error| refused(path, &error))?;
    start(&database).map_err(|error| damaged(path, &error))?;
    fs::rename(&temporary, &place).map_err(failed)?;
    if let Some(folder) = place.parent() {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        // Where a folder cannot be opened as a file there is nothing to do for its names.
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
    Ok(Some(database))
}

/// Whether it is what a first run that was killed may have left: nothing, a database, or zeros where it would begin.
fn is_leftover(file: &File) -> io::Result<bool> {
    let mut first = Vec::new();
    file.take(MAGIC.len() as u64).read_to_end(&mut first)?;
    let is_zeros = first.iter().all(|&byte| byte == 0);
    Ok(file.metadata()?.is_file() && (is_zeros || first == MAGIC))
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
    builder
}

/// The database did not do what it should.
pub(super) fn damaged(path: &Path, error: &redb::Error) -> Failure {
    let shown = path.display();
    match error {
        redb::Error::Io(error) if !is_damage(error) => Failure::disk(format!("using {shown}: {error}")),
        error => Failure::disk(format!("using {shown}: {}", one_line(error)))
            .hint("it is damaged; --db FILE begins another"),
    }
}

enum Found {
    New,
    Ours(u32),
    Foreign,
}

fn schema(database: &Database) -> Result<Found, redb::Error> {
    let reading = database.begin_read()?;
    let meta = match reading.open_table(META) {
        Ok(meta) => meta,
        Err(TableError::TableDoesNotExist(_)) => {
            let is_empty = reading.list_tables()?.next().is_none();
            return Ok(if is_empty { Found::New } else { Found::Foreign });
        }
        Err(TableError::Storage(error)) => return Err(error.into()),
        Err(_) => return Ok(Found::Foreign),
    };
    let version =
        meta.get(SCHEMA_KEY)?.and_then(|bytes| Some(u32::from_be_bytes(bytes.value().try_into().ok()?)));
    Ok(version.map_or(Found::Foreign, Found::Ours))
}

fn start(database: &Database) -> Result<(), redb::Error> {
    let writing = database.begin_write()?;
    writing.open_table(META)?.insert(SCHEMA_KEY, &SCHEMA.to_be_bytes()[..])?;
    Ok(writing.commit()?)
}

/// A file that another program wrote is told apart before anything is opened; an empty one may be filled.
fn begins_like_a_database(path: &Path) -> io::Result<bool> {
    let mut first = Vec::new();
    File::open(path)?.take(MAGIC.len() as u64).read_to_end(&mut first)?;
    Ok(first.is_empty() || first == MAGIC)
}

fn refused(path: &Path, error: &DatabaseError) -> Failure {
    let shown = path.display();
    match error {
        DatabaseError::DatabaseAlreadyOpen => in_use(path),
        DatabaseError::Storage(StorageError::Io(error)) if !is_damage(error) => {
            Failure::disk(format!("opening {shown}: {error}"))
        }
        error => Failure::disk(format!("opening {shown}: {}", one_line(error)))
            .hint("it is damaged; --db FILE begins another"),
    }
}

fn in_use(path: &Path) -> Failure {
    Failure::in_use(format!("{} is in use by another process", path.display()))
        .hint("another crawl runs on it; --db FILE takes another database")
}

fn foreign(path: &Path) -> Failure {
    Failure::usage(format!("{} is not the database of a crawl", path.display()))
        .hint("it is left as it is; --db FILE names another")
}

/// Whether it is the file's fault, not the disk's.
fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof)
}

fn one_line(error: &impl std::fmt::Display) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What every file of redb begins with.
const MAGIC: &[u8] = b"redb\x1a\x0a\xa9\x0d\x0a";
/// Memory for pages of the database, in bytes.
const CACHE: usize = 32 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn code(path: &Path) -> String {
        open(path, Missing::Create).map_or_else(|failure| format!("{failure:?}"), |_| "opened".to_owned())
    }

    #[test]
    fn what_a_killed_first_run_left_is_replaced_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        // As long as redb makes a file before it writes to it.
        for (n, left) in [&[0; 1 << 20][..], b"", MAGIC].into_iter().enumerate() {
            let path = at(&format!("{n}.redb"));
            fs::write(place::with(&path, ".new"), left).unwrap();
            assert_eq!(code(&path), "opened", "{n}");
            assert!(!place::with(&path, ".new").exists());
            assert!(begins_like_a_database(&path).unwrap() && path.metadata().unwrap().len() > 0);
            assert!(open(&path, Missing::Refuse).is_ok());
        }
        let letter = at("letter.redb.new");
        fs::write(&letter, "dear").unwrap();
        let failure = code(&at("letter.redb"));
        assert!(failure.contains("code: 2") && failure.contains("redb.new is not"), "{failure}");
        assert_eq!(fs::read(&letter).unwrap(), b"dear");
        // Zeros under its own name may be anybody's.
        fs::write(at("zeros.redb"), [0; 4096]).unwrap();
        let failure = code(&at("zeros.redb"));
        assert!(failure.contains("code: 2"), "{failure}");
        assert_eq!(fs::read(at("zeros.redb")).unwrap(), [0; 4096]);
    }

    #[test]
    fn of_two_first_runs_one_has_to_go_whatever_the_other_is_at() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("crawl.redb");
        let temporary = place::with(&path, ".new");
        fs::write(&temporary, "").unwrap();
        let other = File::options().write(true).open(&temporary).unwrap();
        other.lock().unwrap();
        other.set_len(4096).unwrap();
        let failure = code(&path);
        assert!(failure.contains("code: 6") && failure.contains("in use"), "{failure}");
        assert_eq!((temporary.metadata().unwrap().len(), path.exists()), (4096, false));
        drop(other);
        let database = open(&path, Missing::Create).unwrap();
        assert!(code(&path).contains("code: 6"), "it has its name now");
        drop(database);
        assert_eq!(code(&path), "opened");
    }

    #[test]
    fn a_database_that_cannot_be_made_has_no_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("crawl.redb");
        fs::create_dir(place::with(&path, ".new")).unwrap();
        let failure = code(&path);
        assert!(failure.contains("code: 5"), "{failure}");
        assert!(!path.exists());
    }
}
