//! The index: references, layers and cache records in one SQLite database, shared by processes.
//!
//! It indexes files that can be read without it (blobs, `layer.json`, `index.json`), with one exception: cache records,
//! whose loss costs time and no images.
//!
//! Rules: WAL is set once at creation; the busy timeout is set first; writers begin with `BEGIN IMMEDIATE`; each
//! process has one connection, which is never used across a fork.

use crate::digest::{DiffId, Digest, ImageId};
use crate::json;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, TransactionBehavior, params};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// Version of the schema; a store with a higher one was written by a newer version.
const SCHEMA: i32 = 2;

const TABLES: &str = "
CREATE TABLE image (
    id TEXT PRIMARY KEY,            -- config digest
    manifest TEXT NOT NULL,         -- manifest digest
    media_type TEXT NOT NULL,       -- of the manifest
    created TEXT NOT NULL,          -- as the config says
    size INTEGER NOT NULL,          -- bytes of all layers' files
    added INTEGER NOT NULL          -- nanoseconds since 1970
) STRICT, WITHOUT ROWID;
CREATE TABLE image_layer (          -- diff ids of an image, lowest first
    image TEXT NOT NULL,
    position INTEGER NOT NULL,
    diff_id TEXT NOT NULL,
    PRIMARY KEY (image, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX image_layer_diff_id ON image_layer (diff_id);
CREATE TABLE tag (
    reference TEXT PRIMARY KEY,     -- host/path:tag
    image TEXT NOT NULL,
    updated INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE repo_digest (          -- what a registry called an image
    image TEXT NOT NULL,
    repository TEXT NOT NULL,       -- host/path
    digest TEXT NOT NULL,
    PRIMARY KEY (image, repository, digest)
) STRICT, WITHOUT ROWID;
CREATE TABLE layer (
    id TEXT PRIMARY KEY,            -- directory under layers/
    diff_id TEXT,                   -- null until computed
    tar_size INTEGER,               -- length of the tar with that digest
    size INTEGER NOT NULL,          -- bytes of its files
    empty INTEGER NOT NULL,         -- 1: nothing in it
    opaque_root INTEGER NOT NULL,   -- 1: hides all layers below
    blob TEXT,                      -- digest of the compressed blob it came from
    created INTEGER NOT NULL,       -- nanoseconds since 1970
    boot TEXT,                      -- boot in which it was written; null once known to be on disk
    below TEXT                      -- diff ids of the layers that it fits on alone, as JSON; null for any
) STRICT, WITHOUT ROWID;
CREATE INDEX layer_diff_id ON layer (diff_id);
CREATE TABLE step (
    key TEXT PRIMARY KEY,           -- definition or content key
    result TEXT NOT NULL,           -- content key: equal for equal results
    layer TEXT,                     -- the layer it made; null once that was removed: the key alone is known
    created INTEGER NOT NULL,
    used INTEGER NOT NULL,
    place TEXT NOT NULL,            -- Dockerfile and instruction, for explanations
    inputs TEXT NOT NULL            -- what went into the key, as JSON
) STRICT, WITHOUT ROWID;
CREATE INDEX step_layer ON step (layer);
CREATE INDEX step_place ON step (place, created);
";

/// Statements that upgrade to schema 2.
const META: &str = "
CREATE TABLE meta (
    name TEXT PRIMARY KEY,          -- see `Meta`
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
";

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

/// Record of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRecord {
    /// Digest of the config.
    pub id: ImageId,
    /// Digest of the manifest.
    pub manifest: Digest,
    /// Media type of the manifest.
    pub media_type: String,
    /// Creation time, as in RFC 3339.
    pub created: String,
    /// Size of all layers' files in bytes.
    pub size: u64,
}

/// Record of a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagRecord {
    /// Full reference as `host/path:tag`.
    pub reference: String,
    /// Image that it refers to.
    pub image: ImageId,
    /// Time of the last change: nanoseconds since 1970.
    pub updated: i64,
}

/// Record of a layer; `layer.json` beside its directory has the same content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// Name of the directory under `layers/`.
    #[serde(skip)]
    pub id: String,
    /// Digest of the tar; `None` until it is computed.
    pub diff_id: Option<DiffId>,
    /// Length of the tar in bytes; `None` until it is computed.
    pub tar_size: Option<u64>,
    /// Size of the files in bytes.
    pub size: u64,
    /// Whether the layer has no files.
    pub empty: bool,
    /// Whether the layer hides all layers below.
    pub opaque_root: bool,
    /// Digest of the blob it was unpacked from; `None` for a layer created here.
    pub blob: Option<Digest>,
    /// Creation time: nanoseconds since 1970.
    pub created: i64,
    /// Boot in which the layer was written, until it is known to be on disk.
    pub boot: Option<String>,
    /// Diff ids of the layers below, lowest first, when the directory is valid above these only.
    #[serde(default)]
    pub below: Option<Vec<DiffId>>,
}

/// Cache record of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepRecord {
    /// Definition or content key.
    pub key: String,
    /// Content key of the result.
    pub result: String,
    /// Layer of the result; `None` when it was removed or must not be used.
    pub layer: Option<String>,
    /// Creation time: nanoseconds since 1970.
    pub created: i64,
    /// Dockerfile and instruction, for explanations.
    pub place: String,
    /// Inputs of the key, as JSON.
    pub inputs: String,
}

/// References of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    /// Full references of tags, as `host/path:tag`.
    pub(crate) tags: Vec<String>,
    /// Repositories and digests in registries.
    pub(crate) digests: Vec<(String, Digest)>,
}

/// Result of the removal of a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Untagged {
    /// There is no such tag, or it refers to another image by now.
    Missing,
    /// The image has other tags.
    HasOthers,
    /// The image was removed, too, with these references.
    Last(Names),
}

/// An open database with its connection.
pub(crate) struct Index {
    path: PathBuf,
    connection: Mutex<Connection>,
}

impl Index {
    /// Opens the database at `path`; a missing or empty one is created, or is an error when `make` is false.
    pub(crate) fn open(path: &Path, make: bool) -> Result<Index, IndexError> {
        let fail = |what| move |source| IndexError::Database { what, path: path.to_owned(), source };
        let create_it = if make { OpenFlags::SQLITE_OPEN_CREATE } else { OpenFlags::empty() };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | create_it;
        let mut connection = Connection::open_with_flags(path, flags).map_err(fail("open"))?;
        connection.busy_timeout(Duration::from_secs(60)).map_err(fail("open"))?;
        connection.pragma_update(None, "synchronous", "NORMAL").map_err(fail("open"))?;
        // Every command closes the database; the log is checkpointed when it has grown.
        let no_checkpoint = rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
        connection.set_db_config(no_checkpoint, true).map_err(fail("open"))?;
        let version: i32 =
            connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(fail("read"))?;
        match version {
            SCHEMA => {}
            0 if !make => return Err(IndexError::Empty { path: path.to_owned() }),
            0 => create(&mut connection).map_err(fail("create"))?,
            1 => upgrade(&mut connection).map_err(fail("upgrade"))?,
            found if found > SCHEMA => return Err(IndexError::TooNew { path: path.to_owned(), found }),
            _ => return Err(fail("upgrade")(rusqlite::Error::InvalidQuery)),
        }
        Ok(Index { path: path.to_owned(), connection: Mutex::new(connection) })
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn read<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, IndexError> {
        query(&self.connection()).map_err(|source| self.failed("read", source))
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
        let mut connection = self.connection();
        let run = || {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = change(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        let done = run();
        drop(connection);
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

    // Images and tags.

    pub(crate) fn put_image(&self, image: &ImageRecord, diff_ids: &[DiffId]) -> Result<(), IndexError> {
        self.write(|db| {
            db.prepare_cached("INSERT OR REPLACE INTO image VALUES (?, ?, ?, ?, ?, ?)")?.execute(params![
                image.id.0.as_str(),
                image.manifest.as_str(),
                image.media_type,
                image.created,
                image.size as i64,
                now()
            ])?;
            db.execute("DELETE FROM image_layer WHERE image = ?", [image.id.0.as_str()])?;
            let mut insert = db.prepare_cached("INSERT INTO image_layer VALUES (?, ?, ?)")?;
            for (position, diff_id) in diff_ids.iter().enumerate() {
                insert.execute(params![image.id.0.as_str(), position as i64, diff_id.0.as_str()])?;
            }
            Ok(())
        })
    }

    pub(crate) fn image(&self, id: &ImageId) -> Result<Option<ImageRecord>, IndexError> {
        self.read(|db| {
            let mut statement = db.prepare_cached("SELECT * FROM image WHERE id = ?")?;
            statement.query_row([id.0.as_str()], image_record).optional()
        })
    }

    /// Images whose ids begin with the given hexadecimal digits.
    pub(crate) fn images_with_prefix(&self, hex: &str) -> Result<Vec<ImageRecord>, IndexError> {
        let from = format!("sha256:{hex}");
        let to = format!("sha256:{hex}g");
        self.read(|db| {
            let mut statement = db.prepare_cached("SELECT * FROM image WHERE id >= ? AND id < ? LIMIT 2")?;
            statement.query_map([from, to], image_record)?.collect()
        })
    }

    /// Images with a layer of this diff id.
    pub(crate) fn images_with_layer(&self, diff_id: &DiffId) -> Result<Vec<ImageRecord>, IndexError> {
        self.read(|db| {
            db.prepare_cached(
                "SELECT * FROM image WHERE id IN (SELECT image FROM image_layer WHERE diff_id = ?)",
            )?
            .query_map([diff_id.0.as_str()], image_record)?
            .collect()
        })
    }

    pub(crate) fn images(&self) -> Result<Vec<ImageRecord>, IndexError> {
        self.read(|db| db.prepare_cached("SELECT * FROM image")?.query_map([], image_record)?.collect())
    }

    /// Removes an image with its references, and returns these; `None` when it has more than `most` tags and was not
    /// removed.
    pub(crate) fn remove_image(&self, id: &ImageId, most: usize) -> Result<Option<Names>, IndexError> {
        self.write(|db| {
            let names = names(db, id)?;
            if names.tags.len() > most {
                return Ok(None);
            }
            delete_image(db, id)?;
            Ok(Some(names))
        })
    }

    /// Removes a tag of an image, and the image with its last tag.
    pub(crate) fn remove_tag_of(&self, reference: &str, image: &ImageId) -> Result<Untagged, IndexError> {
        self.write(|db| {
            let removed = db.execute(
                "DELETE FROM tag WHERE reference = ? AND image = ?",
                [reference, image.0.as_str()],
            )?;
            if removed == 0 {
                return Ok(Untagged::Missing);
            }
            let names = names(db, image)?;
            if !names.tags.is_empty() {
                return Ok(Untagged::HasOthers);
            }
            delete_image(db, image)?;
            Ok(Untagged::Last(names))
        })
    }

    /// Points `reference` to an image at the time `updated` (nanoseconds since 1970); false when there is no such
    /// image.
    pub(crate) fn set_tag(&self, reference: &str, image: &ImageId, updated: i64) -> Result<bool, IndexError> {
        self.write(|db| {
            let set = db
                .prepare_cached("INSERT OR REPLACE INTO tag SELECT ?, id, ? FROM image WHERE id = ?")?
                .execute(params![reference, updated, image.0.as_str()])?;
            Ok(set > 0)
        })
    }

    pub(crate) fn remove_tag(&self, reference: &str) -> Result<(), IndexError> {
        self.write(|db| db.execute("DELETE FROM tag WHERE reference = ?", [reference]).map(drop))
    }

    pub(crate) fn tag(&self, reference: &str) -> Result<Option<ImageId>, IndexError> {
        self.read(|db| {
            let mut statement = db.prepare_cached("SELECT image FROM tag WHERE reference = ?")?;
            statement.query_row([reference], |row| digest(row, 0).map(ImageId)).optional()
        })
    }

    pub(crate) fn tags(&self) -> Result<Vec<TagRecord>, IndexError> {
        self.read(|db| {
            let mut statement =
                db.prepare_cached("SELECT reference, image, updated FROM tag ORDER BY reference")?;
            let record = |row: &Row<'_>| {
                Ok(TagRecord {
                    reference: row.get(0)?,
                    image: ImageId(digest(row, 1)?),
                    updated: row.get(2)?,
                })
            };
            statement.query_map([], record)?.collect()
        })
    }

    pub(crate) fn add_repo_digest(
        &self,
        image: &ImageId,
        repository: &str,
        digest: &Digest,
    ) -> Result<(), IndexError> {
        self.write(|db| {
            db.execute(
                "INSERT OR IGNORE INTO repo_digest VALUES (?, ?, ?)",
                [image.0.as_str(), repository, digest.as_str()],
            )
            .map(drop)
        })
    }

    pub(crate) fn repo_digests(&self, image: &ImageId) -> Result<Vec<(String, Digest)>, IndexError> {
        Ok(self.read(|db| names(db, image))?.digests)
    }

    pub(crate) fn image_by_repo_digest(
        &self,
        repository: &str,
        wanted: &Digest,
    ) -> Result<Option<ImageId>, IndexError> {
        self.read(|db| {
            let mut statement =
                db.prepare_cached("SELECT image FROM repo_digest WHERE repository = ? AND digest = ?")?;
            statement.query_row([repository, wanted.as_str()], |row| digest(row, 0).map(ImageId)).optional()
        })
    }

    // Layers.

    pub(crate) fn put_layer(&self, layer: &LayerRecord) -> Result<(), IndexError> {
        self.write(|db| {
            db.prepare_cached("INSERT OR REPLACE INTO layer VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")?
                .execute(params![
                    layer.id,
                    layer.diff_id.as_ref().map(|id| id.0.as_str()),
                    layer.tar_size.map(|size| size as i64),
                    layer.size as i64,
                    layer.empty,
                    layer.opaque_root,
                    layer.blob.as_ref().map(Digest::as_str),
                    layer.created,
                    layer.boot,
                    layer
                        .below
                        .as_ref()
                        .map(|below| String::from_utf8_lossy(&json::to_vec(below)).into_owned()),
                ])?;
            Ok(())
        })
    }

    pub(crate) fn layer(&self, id: &str) -> Result<Option<LayerRecord>, IndexError> {
        self.read(|db| {
            let mut statement = db.prepare_cached("SELECT * FROM layer WHERE id = ?")?;
            statement.query_row([id], layer_record).optional()
        })
    }

    pub(crate) fn layers_of_diff_id(&self, diff_id: &DiffId) -> Result<Vec<LayerRecord>, IndexError> {
        self.read(|db| {
            let mut statement =
                db.prepare_cached("SELECT * FROM layer WHERE diff_id = ? ORDER BY created")?;
            statement.query_map([diff_id.0.as_str()], layer_record)?.collect()
        })
    }

    pub(crate) fn layers(&self) -> Result<Vec<LayerRecord>, IndexError> {
        self.read(|db| db.prepare_cached("SELECT * FROM layer")?.query_map([], layer_record)?.collect())
    }

    pub(crate) fn remove_layer(&self, id: &str) -> Result<(), IndexError> {
        self.write(|db| {
            db.execute("UPDATE step SET layer = NULL WHERE layer = ?", [id])?;
            db.execute("DELETE FROM layer WHERE id = ?", [id]).map(drop)
        })
    }

    /// Diff ids of the layers of each image, lowest first.
    pub(crate) fn image_chains(&self) -> Result<Vec<Vec<DiffId>>, IndexError> {
        self.read(|db| {
            let mut statement =
                db.prepare_cached("SELECT image, diff_id FROM image_layer ORDER BY image, position")?;
            let rows =
                statement.query_map([], |row| Ok((row.get::<_, String>(0)?, DiffId(digest(row, 1)?))))?;
            let mut chains: Vec<(String, Vec<DiffId>)> = Vec::new();
            for row in rows {
                let (image, diff_id) = row?;
                match chains.last_mut().filter(|(last, _)| *last == image) {
                    Some((_, chain)) => chain.push(diff_id),
                    None => chains.push((image, vec![diff_id])),
                }
            }
            Ok(chains.into_iter().map(|(_, chain)| chain).collect())
        })
    }

    /// Layers without a cache record that are valid above certain lower layers only.
    pub(crate) fn layers_on_others(&self) -> Result<Vec<LayerRecord>, IndexError> {
        self.read(|db| {
            db.prepare_cached(
                "SELECT * FROM layer WHERE below IS NOT NULL
                 AND id NOT IN (SELECT layer FROM step WHERE layer IS NOT NULL)",
            )?
            .query_map([], layer_record)?
            .collect()
        })
    }

    /// Layers that neither an image nor a cache record needs.
    pub(crate) fn unused_layers(&self) -> Result<Vec<LayerRecord>, IndexError> {
        self.read(|db| {
            db.prepare_cached(
                "SELECT * FROM layer WHERE id NOT IN (SELECT layer FROM step WHERE layer IS NOT NULL)
                 AND (diff_id IS NULL OR diff_id NOT IN (SELECT diff_id FROM image_layer))",
            )?
            .query_map([], layer_record)?
            .collect()
        })
    }

    // Cache records.

    pub(crate) fn put_steps(&self, steps: &[StepRecord]) -> Result<(), IndexError> {
        self.write(|db| {
            for step in steps {
                let mut insert = db.prepare_cached(match step.layer {
                    Some(_) => "INSERT OR REPLACE INTO step VALUES (?, ?, ?, ?, ?, ?, ?)",
                    None => "INSERT OR IGNORE INTO step VALUES (?, ?, ?, ?, ?, ?, ?)",
                })?;
                insert.execute(params![
                    step.key,
                    step.result,
                    step.layer,
                    step.created,
                    now(),
                    step.place,
                    step.inputs
                ])?;
            }
            Ok(())
        })
    }

    pub(crate) fn step(&self, key: &str) -> Result<Option<StepRecord>, IndexError> {
        self.read(|db| {
            let mut statement = db.prepare_cached("SELECT * FROM step WHERE key = ?")?;
            statement.query_row([key], step_record).optional()
        })
    }

    /// Newest record of the same instruction in the same file, for explanations.
    pub(crate) fn newest_step_at(&self, place: &str) -> Result<Option<StepRecord>, IndexError> {
        self.read(|db| {
            let mut statement =
                db.prepare_cached("SELECT * FROM step WHERE place = ? ORDER BY created DESC LIMIT 1")?;
            statement.query_row([place], step_record).optional()
        })
    }

    pub(crate) fn touch_steps(&self, keys: &[String]) -> Result<(), IndexError> {
        self.write(|db| {
            let mut update = db.prepare_cached("UPDATE step SET used = ? WHERE key = ?")?;
            for key in keys {
                update.execute(params![now(), key])?;
            }
            Ok(())
        })
    }

    /// Evicts the results of the steps that created a layer; their keys stay known.
    pub(crate) fn evict_steps_of(&self, layer: &str) -> Result<(), IndexError> {
        self.write(|db| db.execute("UPDATE step SET layer = NULL WHERE layer = ?", [layer]).map(drop))
    }

    pub(crate) fn remove_all_steps(&self) -> Result<usize, IndexError> {
        self.write(|db| db.execute("DELETE FROM step", []))
    }
}

/// References of an image, sorted.
fn names(db: &Connection, image: &ImageId) -> rusqlite::Result<Names> {
    let mut tags = db.prepare_cached("SELECT reference FROM tag WHERE image = ? ORDER BY 1")?;
    let tags = tags.query_map([image.0.as_str()], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let mut digests =
        db.prepare_cached("SELECT repository, digest FROM repo_digest WHERE image = ? ORDER BY 1, 2")?;
    let digests = digests.query_map([image.0.as_str()], |row| Ok((row.get(0)?, digest(row, 1)?)))?;
    Ok(Names { tags, digests: digests.collect::<Result<_, _>>()? })
}

fn delete_image(db: &Connection, image: &ImageId) -> rusqlite::Result<()> {
    for table in ["image_layer", "tag", "repo_digest"] {
        db.execute(&format!("DELETE FROM {table} WHERE image = ?"), [image.0.as_str()])?;
    }
    db.execute("DELETE FROM image WHERE id = ?", [image.0.as_str()]).map(drop)
}

fn create(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have created the tables while this one waited.
    let version: i32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version == 0 {
        transaction.execute_batch(TABLES)?;
        transaction.execute_batch(META)?;
        transaction.pragma_update(None, "user_version", SCHEMA)?;
    }
    transaction.commit()
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

/// Upgrades from schema 1, in which layers could depend on any lower layers: they are recreated at their next use, like
/// those of an earlier boot.
fn upgrade(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version == 1 {
        transaction.execute_batch(
            "ALTER TABLE layer ADD COLUMN below TEXT;
             UPDATE layer SET boot = 'schema 1' WHERE blob IS NOT NULL;
             UPDATE layer SET empty = 0;",
        )?;
        transaction.execute_batch(META)?;
        transaction.pragma_update(None, "user_version", SCHEMA)?;
    }
    transaction.commit()
}

/// Current time in nanoseconds since 1970.
pub(crate) fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
}

fn digest(row: &Row<'_>, column: usize) -> rusqlite::Result<Digest> {
    let text: String = row.get(column)?;
    text.parse().map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
    })
}

fn optional_digest(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Digest>> {
    match row.get_ref(column)? {
        rusqlite::types::ValueRef::Null => Ok(None),
        _ => digest(row, column).map(Some),
    }
}

fn below(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Vec<DiffId>>> {
    let Some(text) = row.get::<_, Option<String>>(column)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
    })
}

fn image_record(row: &Row<'_>) -> rusqlite::Result<ImageRecord> {
    Ok(ImageRecord {
        id: ImageId(digest(row, 0)?),
        manifest: digest(row, 1)?,
        media_type: row.get(2)?,
        created: row.get(3)?,
        size: row.get::<_, i64>(4)? as u64,
    })
}

fn layer_record(row: &Row<'_>) -> rusqlite::Result<LayerRecord> {
    Ok(LayerRecord {
        id: row.get(0)?,
        diff_id: optional_digest(row, 1)?.map(DiffId),
        tar_size: row.get::<_, Option<i64>>(2)?.map(|size| size as u64),
        size: row.get::<_, i64>(3)? as u64,
        empty: row.get(4)?,
        opaque_root: row.get(5)?,
        blob: optional_digest(row, 6)?,
        created: row.get(7)?,
        boot: row.get(8)?,
        below: below(row, 9)?,
    })
}

fn step_record(row: &Row<'_>) -> rusqlite::Result<StepRecord> {
    Ok(StepRecord {
        key: row.get(0)?,
        result: row.get(1)?,
        layer: row.get(2)?,
        created: row.get(3)?,
        place: row.get(5)?,
        inputs: row.get(6)?,
    })
}
