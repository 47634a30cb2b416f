//! Opening the database of a crawl, or saying why it cannot be: somebody else has it, it is another
//! program's file, a later version's, or damaged. Nothing that is not ours is ever written to.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::Path;

use redb::{
    Builder, Database, DatabaseError, ReadableDatabase as _, StorageError, TableDefinition, TableError,
};

use crate::failure::Failure;

/// What the crawl itself has to remember.
pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// The form of the tables.
const SCHEMA: u32 = 1;
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
        Ok(false) => {
            return Err(Failure::usage(format!("{shown} is not the database of a crawl"))
                .hint("it is left as it is; --db FILE names another"));
        }
        Err(error) if error.kind() == ErrorKind::NotFound && missing == Missing::Create => {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)
                    .map_err(|error| Failure::disk(format!("making the folder of {shown}: {error}")))?;
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Failure::nothing(format!("nothing has been recorded in {shown} yet"))
                .hint("`btdht crawl` does; --db FILE names another database"));
        }
        Err(error) => return Err(Failure::disk(format!("reading {shown}: {error}"))),
    }
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
    let opened = match missing {
        Missing::Create => builder.create(path),
        Missing::Refuse => builder.open(path),
    };
    let database = opened.map_err(|error| refused(path, &error))?;
    let found = schema(&database).map_err(|error| damaged(path, &error))?;
    match found {
        Found::Ours(SCHEMA) => Ok(database),
        Found::Ours(version) => {
            Err(Failure::usage(format!("{shown} has the form {version}, and this version knows {SCHEMA}"))
                .hint("a later btdht has written it; --db FILE names another"))
        }
        Found::New if missing == Missing::Create => {
            start(&database).map_err(|error| damaged(path, &error))?;
            Ok(database)
        }
        Found::New | Found::Foreign => Err(Failure::usage(format!("{shown} is not the database of a crawl"))
            .hint("it is left as it is; --db FILE names another")),
    }
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
fn begins_like_a_database(path: &Path) -> std::io::Result<bool> {
    let mut first = Vec::new();
    File::open(path)?.take(MAGIC.len() as u64).read_to_end(&mut first)?;
    Ok(first.is_empty() || first == MAGIC)
}

fn refused(path: &Path, error: &DatabaseError) -> Failure {
    let shown = path.display();
    match error {
        DatabaseError::DatabaseAlreadyOpen => {
            Failure::in_use(format!("{shown} is in use by another process"))
                .hint("another crawl runs on it; --db FILE takes another database")
        }
        DatabaseError::Storage(StorageError::Io(error)) if !is_damage(error) => {
            Failure::disk(format!("opening {shown}: {error}"))
        }
        error => Failure::disk(format!("opening {shown}: {}", one_line(error)))
            .hint("it is damaged; --db FILE begins another"),
    }
}

/// Whether it is the file's fault, not the disk's.
fn is_damage(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof)
}

fn one_line(error: &impl std::fmt::Display) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What every file of redb begins with.
const MAGIC: &[u8] = b"redb\x1a\x0a\xa9\x0d\x0a";
/// Memory for pages of the database, in bytes.
const CACHE: usize = 32 << 20;
