//! Cache records in the index.

use super::record::step_record;
use super::{Index, IndexError, StepRecord, now};
use rusqlite::{OptionalExtension, params};

impl Index {
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
