//! Tables of the index, and their upgrades.

use rusqlite::{Connection, TransactionBehavior};

/// Version of the schema; a store with a higher one was written by a newer version.
pub(super) const SCHEMA: i32 = 2;

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

pub(super) fn create(connection: &mut Connection) -> rusqlite::Result<()> {
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

/// Upgrades from schema 1, in which layers could depend on any lower layers: they are recreated at their next use, like
/// those of an earlier boot.
pub(super) fn upgrade(connection: &mut Connection) -> rusqlite::Result<()> {
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
