//! Images and their tags in the index.

use super::record::{digest, image_record};
use super::{ImageRecord, Index, IndexError, TagRecord, now};
use crate::digest::{DiffId, Digest, ImageId};
use rusqlite::{Connection, OptionalExtension, Row, params};

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

impl Index {
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
