//! The index: references, layers and cache records in one SQLite database, shared by processes.
//!
//! It indexes files that can be read without it (blobs, `layer.json`, `index.json`), with one exception: cache records,
//! whose loss costs time and no images.
//!
//! Rules: WAL is set once at creation; the busy timeout is set first; writers begin with `BEGIN IMMEDIATE`; each
//! process has one connection, which is never used across a fork, but on a full disk (see `connect`).

mod connect;
mod images;
mod layers;
mod record;
mod schema;
mod steps;

pub(crate) use images::{Names, Untagged};
pub use record::{ImageRecord, LayerRecord, StepRecord, TagRecord};

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use schema::{SCHEMA, create, upgrade};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Properties of the store as a whole.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Meta {
    /// Boot in which the store was last recovered.
    Boot,
    /// Number of times that `index.json` was written.
    Generation,
    /// Inode, size and time of the last `index.json` written.
    Layout,
    /// Time of the last sync: nanoseconds since 1970.
    Synced,
}

impl Meta {
    fn name(self) -> &'static str {
        match self {
            Meta::Boot => "boot",
            Meta::Generation => "generation",
            Meta::Layout => "layout",
            Meta::Synced => "synced",
        }
    }
}

/// Failure of the index.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// An operation of the database failed.
    #[error("cannot {what} the store's index `{path}`", path = path.display())]
    Database {
        /// Operation, as a verb.
        what: &'static str,
        /// Path of the database.
        path: PathBuf,
        /// Error returned by SQLite.
        #[source]
        source: rusqlite::Error,
    },
    /// The database file exists and is empty.
    #[error("the store's index `{path}` is empty", path = .path.display())]
    Empty {
        /// Path of the database.
        path: PathBuf,
    },
    /// The store was written by a newer version of this program.
    #[error("the store `{path}` was written by a newer version of kiln (schema {found}, this one knows {SCHEMA})", path = .path.display())]
    TooNew {
        /// Path of the database.
        path: PathBuf,
        /// Schema version of the store.
        found: i32,
    },
}

impl IndexError {
    /// True when the disk is full.
    pub fn is_full(&self) -> bool {
        match self {
            IndexError::Database { source, .. } => {
                // The shared memory of the processes cannot be extended (SQLITE_IOERR_SHMSIZE).
                let is_io =
                    matches!(source, rusqlite::Error::SqliteFailure(error, _) if error.extended_code == 4874);
                is_io || source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
            }
            IndexError::TooNew { .. } | IndexError::Empty { .. } => false,
        }
    }

    /// True when the file is not a database, or has damaged pages.
    pub fn is_damaged(&self) -> bool {
        use rusqlite::{Error, ErrorCode};
        let IndexError::Database { source, .. } = self else { return false };
        match source {
            // A value that no version of Kiln writes.
            Error::FromSqlConversionFailure(..) | Error::InvalidColumnType(..) => true,
            // A table or column is missing.
            Error::SqliteFailure(_, Some(message)) if message.starts_with("no such ") => true,
            other => matches!(
                other.sqlite_error_code(),
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
            ),
        }
    }
}

/// Size in bytes of a log that [`Index::shorten_log`] leaves: 64 pages.
const LONGEST_LOG: u64 = 64 << 12;

/// An open database and its path.
pub(crate) struct Index {
    path: PathBuf,
    /// Connection of this process; `None` on a full disk, where each operation has its own.
    connection: Mutex<Option<Connection>>,
}

impl Index {
    /// Opens the database at `path`; a missing or empty one is created, or is an error when `make` is false.
    pub(crate) fn open(path: &Path, make: bool) -> Result<Index, IndexError> {
        let fail = |what| move |source| IndexError::Database { what, path: path.to_owned(), source };
        let read = |connection| connect::version(&connection).map(|version| (connection, version));
        let is_full = !make && connect::is_disk_full(path);
        let opened = if is_full { connect::alone(path) } else { connect::shared(path, make) };
        let (mut connection, version) = opened.and_then(read).map_err(fail("open"))?;
        match version {
            SCHEMA => {}
            0 if !make => return Err(IndexError::Empty { path: path.to_owned() }),
            0 => create(&mut connection).map_err(fail("create"))?,
            1 => upgrade(&mut connection).map_err(fail("upgrade"))?,
            found if found > SCHEMA => return Err(IndexError::TooNew { path: path.to_owned(), found }),
            _ => return Err(fail("upgrade")(rusqlite::Error::InvalidQuery)),
        }
        let connection = (!is_full).then_some(connection);
        Ok(Index { path: path.to_owned(), connection: Mutex::new(connection) })
    }

    /// Calls `work` with the connection of this process, or on a full disk with one that is closed afterwards.
    fn with<T>(&self, work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *connection {
            Some(connection) => work(connection),
            None => work(&mut connect::alone(&self.path)?),
        }
    }

    fn read<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, IndexError> {
        self.with(|connection| query(connection)).map_err(|source| self.failed("read", source))
    }

    /// Converts an error, and records damage for the next command.
    fn failed(&self, what: &'static str, source: rusqlite::Error) -> IndexError {
        let error = IndexError::Database { what, path: self.path.clone(), source };
        if error.is_damaged() {
            SAW_DAMAGE.store(true, Ordering::Relaxed);
            // Without the record the next command fails like this one.
            let _ = std::fs::write(damage_marker(&self.path), error.to_string());
        }
        error
    }

    fn write<T>(
        &self,
        change: impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, IndexError> {
        let done = self.with(|connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = change(&transaction)?;
            transaction.commit()?;
            Ok(value)
        });
        done.map_err(|source| self.failed("write", source))
    }

    // The store as a whole.

    pub(crate) fn meta(&self, meta: Meta) -> Result<Option<String>, IndexError> {
        self.read(|db| {
            let mut statement = db.prepare_cached("SELECT value FROM meta WHERE name = ?")?;
            statement.query_row([meta.name()], |row| row.get(0)).optional()
        })
    }

    pub(crate) fn set_meta(&self, values: &[(Meta, String)]) -> Result<(), IndexError> {
        self.write(|db| {
            let mut insert = db.prepare_cached("INSERT OR REPLACE INTO meta VALUES (?, ?)")?;
            for (meta, value) in values {
                insert.execute([meta.name(), value])?;
            }
            Ok(())
        })
    }

    /// Damage that SQLite finds in the file; `None` when there is none.
    pub(crate) fn quick_check(&self) -> Result<Option<String>, IndexError> {
        let found: String = self.read(|db| db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)))?;
        Ok((found != "ok").then_some(found))
    }

    /// Records damage, so that the next command recreates the index.
    pub(crate) fn mark_damaged(&self, why: &str) {
        // Without the record nothing changes.
        let _ = std::fs::write(damage_marker(&self.path), why);
    }

    /// Marks layers as on disk that the boot `boot` created before an instant (nanoseconds since 1970).
    pub(crate) fn mark_synced(&self, boot: &str, before: i64) -> Result<(), IndexError> {
        self.write(|db| {
            let synced = params![Meta::Synced.name(), before.to_string()];
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", synced)?;
            db.execute("UPDATE layer SET boot = NULL WHERE boot = ? AND created < ?", params![boot, before])
                .map(drop)
        })
    }

    /// Moves the records of a log that has grown into the database. Every process that opens the database reads all of
    /// its log first; SQLite itself would let it grow to 4 MB. Nothing is done while others use the database.
    pub(crate) fn shorten_log(&self) -> Result<(), IndexError> {
        let mut log = self.path.clone().into_os_string();
        log.push("-wal");
        if std::fs::metadata(log).is_ok_and(|found| found.len() <= LONGEST_LOG) {
            return Ok(());
        }
        let done = self.with(|connection| {
            connection.busy_timeout(Duration::ZERO)?;
            // Only an empty file remembers for the next process that its records are in the database.
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
            connection.busy_timeout(connect::PATIENCE)
        });
        done.map_err(|source| self.failed("write", source))
    }
}

static SAW_DAMAGE: AtomicBool = AtomicBool::new(false);

/// True when this process found a damaged index. It is recreated when the store is next opened.
pub fn found_damaged_index() -> bool {
    SAW_DAMAGE.load(Ordering::Relaxed)
}

/// Path of the file that records damage of an index.
pub(crate) fn damage_marker(index: &Path) -> PathBuf {
    index.with_extension("damaged")
}

/// Current time in nanoseconds since 1970.
pub(crate) fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
}
