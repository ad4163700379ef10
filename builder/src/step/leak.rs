//! Handling of steps whose results contain secrets that were passed to the build.
//!
//! A layer is searched while it still is scratch. A layer of an image that contains a secret is refused at once. In a
//! stage from which an image only copies files, it serves this build alone: neither it nor any step based on it gets a
//! cache record, and both layers are removed after the build. Steps that copy files from it are recorded once the whole
//! build has passed the check.
//!
//! Builds with `--allow secret-leak` record all of these under keys that only such builds look up.

use super::{Built, Executor, StepError, lock};
use crate::event::Event;
use crate::secret::Leak;
use crate::solve::{NodeId, Use};
use kiln_image::store::{Active, CacheDir, LayerId, LayerRecord, PrivateLayers, StepRecord, StoreError};
use kiln_image::sys::CallError;
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::sync::Mutex;

/// Prefix of the keys of results that contain secrets, or may.
const ALLOWED: &str = "leak-";
/// Tolerance in seconds: the clock of file times may be behind the clock of this process.
const CLOCK_SLACK: i64 = 2;

/// Relation of a result to secrets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Taint {
    /// No relation to a secret.
    #[default]
    None,
    /// Files were copied from a tree that contains a secret.
    Taken,
    /// One of its layers contains a secret.
    Held,
}

/// Origin and taint of a step's layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Made {
    /// The step created the layer; false when it uses another step's layer.
    pub(super) is_new: bool,
    pub(super) taint: Taint,
}

/// Results of the search for secrets in this build.
#[derive(Default)]
pub(super) struct Found {
    /// New layers without secrets.
    clean: Mutex<BTreeSet<String>>,
    /// New layers that contain a secret.
    leaks: Mutex<BTreeSet<String>>,
    /// New layers that are removed after the build.
    private: Mutex<Vec<LayerId>>,
    /// Names of the layers that contain a secret: they are removed even if the process is killed.
    private_names: Mutex<Option<PrivateLayers>>,
    /// Records to write when the build has passed the check.
    pending: Mutex<Vec<StepRecord>>,
    /// New layers of these records.
    pending_layers: Mutex<Vec<LayerId>>,
}

impl Found {
    /// New layers that were searched and contain no secret.
    pub(super) fn clean(&self) -> BTreeSet<String> {
        lock(&self.clean).clone()
    }
}

impl Executor<'_> {
    /// Searches a snapshot for secrets, and commits it as a layer.
    ///
    /// # Errors
    /// [`StepError::Leak`] when a layer of an image would contain a secret.
    pub(super) fn keep_layer(&self, node: NodeId, active: Active) -> Result<LayerRecord, StepError> {
        let leak = self.search(&active.upper(), None)?;
        if let Some(Leak { id, path }) = &leak
            && !self.tools.allows_leaks
            && self.tools.in_images.contains(&node)
        {
            let name = &self.tools.graph.node(node).name;
            let place = format!("`{}`, in the layer of `{name}`", path.display());
            return Err(StepError::Leak { id: id.clone(), place });
        }
        let store = self.tools.store;
        let layer = match leak.is_some() && !self.tools.allows_leaks {
            true => {
                let mut private = lock(&self.found.private_names);
                let private = match &mut *private {
                    Some(private) => private,
                    None => private.insert(store.private_layers()?),
                };
                store.commit_private(active, private)?
            }
            false => store.commit(active)?,
        };
        let list = if leak.is_some() { &self.found.leaks } else { &self.found.clean };
        lock(list).insert(layer.id.clone());
        Ok(layer)
    }

    fn search(&self, root: &std::path::Path, since: Option<i64>) -> Result<Option<Leak>, StepError> {
        self.tools.needles.find_in_tree(root, since, self.tools.cancel).map_err(|error| match error {
            CallError { errno: Errno::CANCELED, .. } => StepError::Canceled,
            other => other.into(),
        })
    }

    /// Empties caches in which a step has written a secret; the step began at `since` (seconds since 1970).
    pub(super) fn check_caches(&self, caches: &[(String, CacheDir)], since: i64) -> Result<(), StepError> {
        if self.tools.allows_leaks {
            return Ok(());
        }
        for (name, cache) in caches {
            let Some(leak) = self.search(cache.path(), Some(since - CLOCK_SLACK))? else { continue };
            self.tools.store.discard_cache(cache)?;
            let message = format!(
                "[Warning] the cache {name} held the secret {} (`{}`) and was emptied",
                leak.id,
                leak.path.display()
            );
            self.tools.reporter.send(Event::Warning { message });
        }
        Ok(())
    }

    /// Relation of a new result to secrets.
    pub(super) fn taint(&self, node: NodeId, layer: &LayerRecord, inputs: &[Built]) -> Taint {
        if lock(&self.found.leaks).contains(&layer.id) {
            return Taint::Held;
        }
        let edges = self.tools.graph.node(node).inputs.iter().zip(inputs);
        let taints = edges.map(|(edge, built)| match edge.usage {
            Use::Base => built.taint,
            Use::Content => built.taint.min(Taint::Taken),
        });
        taints.max().unwrap_or_default()
    }

    /// Records results at once, after the check of the whole build, or without their layer, depending on the taint.
    pub(super) fn put_records(
        &self,
        records: Vec<StepRecord>,
        layer: &LayerRecord,
        made: Made,
    ) -> Result<(), StoreError> {
        let new = made.is_new.then(|| LayerId::from(layer));
        match made.taint {
            Taint::None => return self.tools.store.put_steps(&records),
            _ if self.tools.allows_leaks => {
                let allowed = |record: StepRecord| StepRecord { key: allowed_key(&record.key), ..record };
                let records: Vec<StepRecord> = records.into_iter().map(allowed).collect();
                return self.tools.store.put_steps(&records);
            }
            Taint::Held => {
                // No later build may use the layer, but steps that only read clean files of this one may be recorded.
                let known = |record: StepRecord| StepRecord { layer: None, ..record };
                self.tools.store.put_steps(&records.into_iter().map(known).collect::<Vec<_>>())?;
                lock(&self.found.private).extend(new);
            }
            Taint::Taken => {
                lock(&self.found.pending).extend(records);
                lock(&self.found.pending_layers).extend(new);
            }
        }
        Ok(())
    }

    /// True when a result was ever recorded under a key that this build may use.
    pub(super) fn was_recorded(&self, key: &str) -> Result<bool, StoreError> {
        let store = self.tools.store;
        Ok(store.is_known_step(key)?
            || (self.tools.allows_leaks && store.is_known_step(&allowed_key(key))?))
    }

    /// Record of a key that this build may use; `None` when there is none.
    pub(super) fn recorded(&self, key: &str) -> Result<Option<(StepRecord, Taint)>, StoreError> {
        if let Some(record) = self.tools.store.step(key)? {
            return Ok(Some((record, Taint::None)));
        }
        if !self.tools.allows_leaks {
            return Ok(None);
        }
        Ok(self.tools.store.step(&allowed_key(key))?.map(|record| (record, Taint::Held)))
    }

    /// Ends the handling of secrets: with `passed`, results that waited for the check are recorded. Layers that contain
    /// a secret are removed, unless that is allowed, and so are layers that were not recorded.
    ///
    /// Only the images of the build may be used afterwards, no other results.
    pub(crate) fn settle(&self, passed: bool) -> Result<(), StoreError> {
        let pending = std::mem::take(&mut *lock(&self.found.pending));
        let mut removed: BTreeSet<LayerId> = lock(&self.found.private).drain(..).collect();
        if passed {
            self.tools.store.put_steps(&pending)?;
        } else {
            removed.extend(lock(&self.found.pending_layers).drain(..));
        }
        removed.iter().try_for_each(|layer| self.tools.store.discard_layer(layer))
    }
}

fn allowed_key(key: &str) -> String {
    format!("{ALLOWED}{key}")
}
