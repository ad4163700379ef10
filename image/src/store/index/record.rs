//! Records of the index, and their rows in its tables.

use crate::digest::{DiffId, Digest, ImageId};
use rusqlite::Row;
use serde::{Deserialize, Serialize};

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

pub(super) fn digest(row: &Row<'_>, column: usize) -> rusqlite::Result<Digest> {
    let text: String = row.get(column)?;
    text.parse().map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
    })
}

pub(super) fn optional_digest(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Digest>> {
    match row.get_ref(column)? {
        rusqlite::types::ValueRef::Null => Ok(None),
        _ => digest(row, column).map(Some),
    }
}

pub(super) fn below(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Vec<DiffId>>> {
    let Some(text) = row.get::<_, Option<String>>(column)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
    })
}

pub(super) fn image_record(row: &Row<'_>) -> rusqlite::Result<ImageRecord> {
    Ok(ImageRecord {
        id: ImageId(digest(row, 0)?),
        manifest: digest(row, 1)?,
        media_type: row.get(2)?,
        created: row.get(3)?,
        size: row.get::<_, i64>(4)? as u64,
    })
}

pub(super) fn layer_record(row: &Row<'_>) -> rusqlite::Result<LayerRecord> {
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

pub(super) fn step_record(row: &Row<'_>) -> rusqlite::Result<StepRecord> {
    Ok(StepRecord {
        key: row.get(0)?,
        result: row.get(1)?,
        layer: row.get(2)?,
        created: row.get(3)?,
        place: row.get(5)?,
        inputs: row.get(6)?,
    })
}
