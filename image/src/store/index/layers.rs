//! Layers in the index.

use super::record::layer_record;
use super::{Index, IndexError, LayerRecord};
use crate::digest::{DiffId, Digest};
use crate::json;
use rusqlite::{OptionalExtension, params};

impl Index {
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
}
