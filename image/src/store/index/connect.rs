//! Connections with the database.
//!
//! Processes that use the database at once share memory in a file beside it. SQLite empties that file when the first of
//! them opens it, so on a full disk its space may be lost before it is used, and then a process fails or is even killed by
//! SIGBUS. There each operation has its own connection, which locks the whole database and needs no such memory.

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest wait for another process that uses the database.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Wait for another process before the next attempt.
const PAUSE: Duration = Duration::from_millis(5);
/// Space in bytes below which a disk counts as full: that of the shared memory, several times.
const SPACE: u64 = 256 << 10;
/// Size of the shared memory in bytes, for a log of up to four thousand pages.
const SHARED: u64 = 32 << 10;

/// True when the disk of the database has no space for the memory that processes share.
pub(super) fn is_disk_full(path: &Path) -> bool {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Some file systems do not know their size.
    let is_full = |found: rustix::fs::StatVfs| {
        found.f_blocks > 0 && found.f_bavail.saturating_mul(found.f_frsize) < SPACE
    };
    rustix::fs::statvfs(dir).is_ok_and(is_full)
}

/// Opens the database for this process and others. A missing one is created when `make` is true.
pub(super) fn shared(path: &Path, make: bool) -> rusqlite::Result<Connection> {
    open(path, make, "NORMAL", PATIENCE)
}

fn open(path: &Path, make: bool, locking: &str, patience: Duration) -> rusqlite::Result<Connection> {
    let create = if make { OpenFlags::SQLITE_OPEN_CREATE } else { OpenFlags::empty() };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | create;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(patience)?;
    // Set first: the next statement reads the file.
    connection.pragma_update(None, "locking_mode", locking)?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    // Every command closes the database; the log is checkpointed when it has grown.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(connection)
}

/// Opens the database for one operation, without shared memory. While processes have it open since before the disk was
/// full, their memory is used.
pub(super) fn alone(path: &Path) -> rusqlite::Result<Connection> {
    let began = Instant::now();
    loop {
        let attempt = |locking| {
            let connection = open(path, false, locking, Duration::ZERO)?;
            version(&connection).map(|_| connection)
        };
        let mut result = attempt("EXCLUSIVE");
        if result.as_ref().is_err_and(is_busy) && has_memory(path) {
            result = attempt("NORMAL");
        }
        match result {
            Err(error) if is_busy(&error) && began.elapsed() < PATIENCE => std::thread::sleep(PAUSE),
            Err(error) => return Err(error),
            Ok(connection) => {
                connection.busy_timeout(PATIENCE)?;
                return Ok(connection);
            }
        }
    }
}

/// Version of the schema; the first access to the file.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i32> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// True when the file of the shared memory has all of its space.
fn has_memory(path: &Path) -> bool {
    let mut memory = path.as_os_str().to_owned();
    memory.push("-shm");
    std::fs::metadata(memory).is_ok_and(|found| found.len().min(found.blocks() * 512) >= SHARED)
}
