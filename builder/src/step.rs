//! Execution of a graph's steps: one file for each kind of step.

mod advice;
mod copy;
mod device;
mod dir;
mod error;
mod exec;
mod fetch;
mod leak;
mod mount;
mod owner;
mod socket;

pub use error::StepError;

use crate::cancel::Cancel;
use crate::content::{Content, StatCache};
use crate::credentials::Credentials;
use crate::event::{Event, Reporter, Row};
use crate::explain::Explainer;
use crate::graph::{Copy, Graph, Operation};
use crate::key::{self, KeyInputs};
use crate::remote::Remote;
use crate::sandbox::Sandbox;
use crate::secret::Needles;
use crate::solve::{Content as KeyContent, Definition, Key, Lookup, NodeId, Steps, Use};
use kiln_image::store::{LayerId, LayerRecord, Stack, StepRecord, Store};
use kiln_runtime::view;
use rustix::fd::OwnedFd;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use tracing::debug;

use leak::{Found, Made, Taint};

/// Tree that a step created.
#[derive(Clone, Debug)]
pub(crate) struct Built {
    /// All layers of the tree.
    pub(crate) stack: Stack,
    /// Layers of steps, with their times in nanoseconds since 1970.
    pub(crate) layers: Vec<(LayerId, i64)>,
    /// Relation of the tree to secrets.
    taint: Taint,
}

impl Built {
    fn empty() -> Built {
        Built { stack: Stack::empty(), layers: Vec::new(), taint: Taint::None }
    }

    fn with(&self, store: &Store, layer: &LayerRecord, created: i64, taint: Taint) -> Built {
        let mut layers = self.layers.clone();
        layers.push((layer.into(), created));
        Built { stack: store.stack_on(&self.stack, layer), layers, taint: self.taint.max(taint) }
    }
}

/// Entry of the cache.
#[derive(Clone, Debug)]
pub(crate) enum Cached {
    /// The step is a source: its definition determines its content.
    Source,
    /// Result of an earlier build, and its relation to secrets.
    Record(StepRecord, Taint),
}

/// Executes the steps of a graph.
pub(crate) struct Executor<'a> {
    tools: Tools<'a>,
    /// Receives the layers whose diff ids will be needed; `None` after the last one.
    made: Mutex<Option<mpsc::Sender<LayerId>>>,
    /// Explains why steps run, with `--explain`.
    explainer: Option<Explainer<'a>>,
    /// Unique identity of this build.
    nonce: String,
    notes: Notes,
    found: Found,
}

/// Log of a build, read by explanations, the history, and the usage times of cache records.
#[derive(Default)]
struct Notes {
    /// Key inputs of the steps that have a key.
    inputs: Mutex<BTreeMap<NodeId, KeyInputs>>,
    /// Keys of the cache records that were used.
    used: Mutex<Vec<String>>,
    /// Cache mounts that this build has emptied because of `--no-cache`.
    emptied: Mutex<BTreeSet<String>>,
}

/// Results of computing a step's key that running it needs.
#[derive(Default)]
pub(crate) struct Evidence {
    /// Inputs of the step's key.
    inputs: KeyInputs,
    /// Key under which later builds find a step whose input has `no_cache`; `None` for other steps.
    plain_key: Option<Key>,
    /// File of an ADD; `None` when it was not fetched to hash it.
    download: Option<fetch::Downloaded>,
    /// Commit to which the reference of a checkout resolves now.
    commit: Option<String>,
    /// Warnings about the step; they are sent again when the step is found in the cache.
    warnings: Vec<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Effects and options that all steps share.
#[derive(Clone, Copy)]
pub(crate) struct Tools<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) store: &'a Store,
    /// The build context, then the named contexts.
    pub(crate) contexts: &'a [Option<Content>],
    pub(crate) remote: &'a dyn Remote,
    /// Fail on what the reference builder only warns about.
    pub(crate) strict: bool,
    pub(crate) stat_cache: &'a StatCache,
    pub(crate) sandbox: &'a Sandbox<'a>,
    pub(crate) reporter: &'a Reporter<'a>,
    pub(crate) cancel: &'a Cancel,
    pub(crate) credentials: &'a Credentials,
    /// Secrets to mask and to search for.
    pub(crate) needles: &'a Needles<'a>,
    /// Images may contain secrets.
    pub(crate) allows_leaks: bool,
    /// Steps whose layers become layers of images.
    pub(crate) in_images: &'a BTreeSet<NodeId>,
}

impl<'a> Executor<'a> {
    pub(crate) fn new(
        tools: Tools<'a>,
        made: mpsc::Sender<LayerId>,
        explainer: Option<Explainer<'a>>,
    ) -> Executor<'a> {
        let nonce = format!("{}-{}", std::process::id(), now());
        let made = Mutex::new(Some(made));
        Executor { tools, made, explainer, nonce, notes: Notes::default(), found: Found::default() }
    }

    /// Closes the channel of new layers.
    pub(crate) fn close(&self) {
        lock(&self.made).take();
    }

    /// Keys of the cache records that were used.
    pub(crate) fn used(&self) -> Vec<String> {
        lock(&self.notes.used).clone()
    }

    /// New layers that were searched and contain no secret.
    pub(crate) fn clean_layers(&self) -> BTreeSet<String> {
        self.found.clean()
    }

    /// True when an input of a step has `no_cache` and the step itself has not.
    fn stands_on_fresh(&self, node: NodeId) -> bool {
        let node = self.tools.graph.node(node);
        !node.no_cache && node.inputs.iter().any(|input| self.tools.graph.node(input.node).no_cache)
    }

    /// Result keys of the steps on which a step is based.
    fn base_keys(&self, node: NodeId, inputs: &[Key]) -> Vec<Key> {
        let edges = self.tools.graph.node(node).inputs.iter().zip(inputs);
        edges.filter(|(input, _)| input.usage == Use::Base).map(|(_, key)| key.clone()).collect()
    }

    /// Read-only view of a tree; `None` when the tree is empty.
    fn view(&self, stack: &Stack) -> Result<Option<OwnedFd>, StepError> {
        if stack.is_empty() {
            return Ok(None);
        }
        Ok(Some(view::detached(&self.tools.store.view_mount(stack, &[]))?))
    }

    /// Ids of an owner by name or number. Unknown names cause a warning, or fail with `--strict`.
    fn find_owner(
        &self,
        evidence: &mut Evidence,
        text: &str,
        tree: Option<&OwnedFd>,
    ) -> Result<(u32, u32), StepError> {
        let owner = owner::find(text, tree)?;
        if let (Some(unknown), None) = (owner.unknown.first(), tree) {
            // As in the reference, an empty tree has no users at all, so the name cannot be found.
            return Err(StepError::UnknownOwner {
                kind: unknown.kind,
                name: unknown.name.clone(),
                near: None,
            });
        }
        for owner::UnknownName { kind, name, near } in owner.unknown.clone() {
            if self.tools.strict {
                return Err(StepError::UnknownOwner { kind, name, near });
            }
            let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            let message = format!("[Warning] --chown={text}: unknown {kind} {name} counts as root{near}");
            self.tools.reporter.send(Event::Warning { message: message.clone() });
            evidence.warnings.push(message);
        }
        Ok(owner.ids())
    }

    fn make_layer(
        &self,
        node: NodeId,
        row: Row,
        evidence: &mut Evidence,
        inputs: &[Built],
    ) -> Result<(LayerRecord, bool), StepError> {
        let operation = &self.tools.graph.node(node).operation;
        match operation {
            Operation::Download(download) => {
                let downloaded = evidence.download.take();
                return Ok((self.download_layer(node, row, download, downloaded)?, true));
            }
            Operation::Checkout(checkout) => {
                let commit = evidence.commit.take();
                return Ok((self.checkout_layer(node, row, checkout, commit)?, true));
            }
            _ => {}
        }
        let below = &inputs[0];
        Ok(match &self.tools.graph.node(node).operation {
            Operation::Exec(exec) => (self.run_program(node, exec, inputs, row)?, true),
            Operation::Copy(copy) => {
                (self.copy_files(node, copy, evidence, &below.stack, &inputs[1..])?, true)
            }
            Operation::MakeDir(dir) => (self.make_dir(node, dir, &below.stack)?, true),
            Operation::Merge => {
                let (layer, _) = inputs[1].layers.last().expect("what is merged has a layer of its own");
                let layer = self.tools.store.layer(layer)?;
                (layer.expect("layers in use are not removed"), false)
            }
            Operation::Scratch | Operation::Image(_) => unreachable!("sources are always found"),
            Operation::Download(_) | Operation::Checkout(_) => unreachable!("these stand on nothing"),
        })
    }

    /// Content key of a copy.
    fn copy_key(&self, copy: &Copy, evidence: &mut Evidence, inputs: &[Built]) -> Result<Key, StepError> {
        let (reporter, read) = (self.tools.reporter, self.tools.stat_cache.read());
        let digested = reporter.slow(READING, read, || self.digest(copy, inputs))?;
        Ok(key::add_content(&mut evidence.inputs, digested))
    }

    /// Logs the key inputs of a step.
    fn note(&self, node: NodeId, inputs: &KeyInputs) {
        lock(&self.notes.inputs).insert(node, inputs.clone());
    }

    fn explain(&self, node: NodeId, row: Row) {
        let Some(explainer) = &self.explainer else { return };
        for reason in explainer.causes(node, &|node| self.shown_inputs(node)) {
            self.tools.reporter.send(Event::Explained { row, reason });
        }
    }

    /// Record of the same step from another process or stage, created meanwhile; `None` when there is none.
    fn made_meanwhile(
        &self,
        node: NodeId,
        keys: &[Key],
        evidence: &mut Evidence,
    ) -> Result<Option<Cached>, StepError> {
        if self.tools.graph.node(node).no_cache {
            return Ok(None);
        }
        for key in keys {
            if let Some((record, taint)) =
                self.recorded(&key.0)?.filter(|(record, _)| self.passes(evidence, record))
            {
                return Ok(Some(Cached::Record(record, taint)));
            }
        }
        Ok(None)
    }

    /// Reads the warnings of the step's run from its record. False with `--strict` when there are any: the step then
    /// runs again and fails.
    fn passes(&self, evidence: &mut Evidence, record: &StepRecord) -> bool {
        if !record.inputs.contains("\"warning\"") {
            return true;
        }
        let inputs = serde_json::from_str::<KeyInputs>(&record.inputs).unwrap_or_default();
        let told = key::warnings(&inputs);
        let passes = told.is_empty() || !self.tools.strict;
        if passes {
            evidence.warnings = told;
        }
        passes
    }

    /// Key inputs of a step, with secrets masked.
    pub(crate) fn shown_inputs(&self, node: NodeId) -> KeyInputs {
        self.masked(lock(&self.notes.inputs).get(&node).cloned().unwrap_or_default())
    }

    fn masked(&self, inputs: KeyInputs) -> KeyInputs {
        if self.tools.needles.is_empty() {
            inputs
        } else {
            inputs.map(|text| self.tools.needles.masked(text))
        }
    }

    fn record(
        &self,
        node: NodeId,
        keys: &[Key],
        evidence: &Evidence,
        layer: &LayerRecord,
        made: Made,
    ) -> Result<i64, StepError> {
        let mut inputs = self.masked(evidence.inputs.clone());
        evidence.warnings.iter().for_each(|warning| key::add_warning(&mut inputs, warning));
        let inputs = serde_json::to_string(&inputs).expect("texts are JSON");
        let now = now();
        let records: Vec<StepRecord> = keys
            .iter()
            .chain(evidence.plain_key.as_ref())
            .map(|key| StepRecord {
                key: key.0.clone(),
                result: keys[0].0.clone(),
                layer: Some(layer.id.clone()),
                created: now,
                place: self.tools.graph.node(node).place.clone(),
                inputs: inputs.clone(),
            })
            .collect();
        self.put_records(records, layer, made)?;
        Ok(now)
    }

    fn run_step(
        &self,
        node: NodeId,
        row: Row,
        keys: &[Key],
        mut evidence: Evidence,
        inputs: &[Built],
    ) -> Result<Built, StepError> {
        if self.tools.cancel.is_stopped() {
            return Err(StepError::Canceled);
        }
        let (layer, is_new) = self.make_layer(node, row, &mut evidence, inputs)?;
        let taint = self.taint(node, &layer, inputs);
        let created = self.record(node, keys, &evidence, &layer, Made { is_new, taint })?;
        if is_new {
            // The receiver may be closed when the build has failed.
            if let Some(made) = &*lock(&self.made) {
                let _ = made.send((&layer).into());
            }
        }
        Ok(inputs.first().unwrap_or(&Built::empty()).with(self.tools.store, &layer, created, taint))
    }
}

/// Content that is part of the key of a copy.
fn copied_content(copy: &Copy) -> KeyContent {
    match (copy.takes_context(), copy.takes_inputs()) {
        (false, false) => KeyContent::None,
        (true, false) => KeyContent::Own,
        (false, true) => KeyContent::Inputs,
        (true, true) => KeyContent::Both,
    }
}

/// Progress row for a context that takes long to read.
const READING: &str = "[internal] load build context";

/// Current time in nanoseconds since 1970.
fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
}

impl Steps for Executor<'_> {
    type Output = Built;
    type Cached = Cached;
    type Evidence = Evidence;
    type Error = StepError;

    fn definition(&self, node: NodeId, inputs: &[Key]) -> Definition<Evidence> {
        let base = self.base_keys(node, inputs);
        let operation = &self.tools.graph.node(node).operation;
        let trees = inputs.get(1..).unwrap_or_default();
        let own = key::definition(operation, &base, trees);
        let content = match operation {
            Operation::Copy(copy) => copied_content(copy),
            Operation::Download(download) if download.checksum.is_none() => KeyContent::Own,
            Operation::Checkout(_) => KeyContent::Own,
            _ => KeyContent::None,
        };
        let mut whole = own.clone();
        if matches!(content, KeyContent::Inputs | KeyContent::Both) {
            key::add_trees(&mut whole, trees);
        }
        self.note(node, &own);
        let mut evidence = Evidence { inputs: own, ..Evidence::default() };
        let mut key = whole.key();
        if self.stands_on_fresh(node) {
            // A rebuilt input must not lead to results of earlier builds by definition; only its content can.
            whole.add("fresh", &self.nonce);
            evidence.plain_key = Some(std::mem::replace(&mut key, whole.key()));
        }
        Definition { key, content, evidence }
    }

    fn look_up(&self, id: NodeId, key: &Key, evidence: &mut Evidence) -> Result<Lookup<Cached>, StepError> {
        let node = self.tools.graph.node(id);
        if matches!(node.operation, Operation::Scratch | Operation::Image(_)) {
            return Ok(Lookup::Hit { key: key.clone(), cached: Cached::Source });
        }
        let step = &node.name;
        if node.no_cache {
            debug!(step, "runs without a look at the cache: --no-cache");
            return Ok(Lookup::New);
        }
        let Some((record, taint)) = self.recorded(&key.0)? else {
            let was_recorded = self.was_recorded(&key.0)?;
            let why = if was_recorded { "its result was removed" } else { "it has never run" };
            debug!(step, key = key.0, "miss: {why} under this key");
            return Ok(if was_recorded { Lookup::Evicted } else { Lookup::New });
        };
        if !self.passes(evidence, &record) {
            debug!(step, key = key.0, "miss: its result has warnings, which --strict forbids");
            // It must run, regardless of the steps based on it.
            return Ok(Lookup::New);
        }
        debug!(step, key = key.0, layer = record.layer, "hit");
        if let Operation::Copy(copy) = &node.operation
            && copy.takes_inputs()
            && let Ok(inputs) = serde_json::from_str::<KeyInputs>(&record.inputs)
        {
            // Found by its definition key: the record has the list of copied files.
            self.note(id, &inputs);
            evidence.inputs = inputs;
        }
        Ok(Lookup::Hit { key: Key(record.result.clone()), cached: Cached::Record(record, taint) })
    }

    fn content_key(&self, node: NodeId, evidence: &mut Evidence, inputs: &[Built]) -> Result<Key, StepError> {
        let step = self.tools.graph.node(node);
        let key = match &step.operation {
            Operation::Copy(copy) => self.copy_key(copy, evidence, inputs)?,
            Operation::Download(download) => self.download_key(node, download, evidence)?,
            Operation::Checkout(checkout) => self.checkout_key(checkout, evidence)?,
            _ => unreachable!("only copies and what is fetched look at content"),
        };
        debug!(step = step.name, key = key.0, "key of its content");
        self.note(node, &evidence.inputs);
        Ok(key)
    }

    fn restore(&self, node: NodeId, cached: &Cached, base: &[Built]) -> Result<Built, StepError> {
        let (record, taint) = match cached {
            Cached::Record(record, taint) => (record, *taint),
            Cached::Source => {
                let stack = match &self.tools.graph.node(node).operation {
                    Operation::Image(image) => self.tools.store.stack(&image.diff_ids)?,
                    _ => Stack::empty(),
                };
                return Ok(Built { stack, ..Built::empty() });
            }
        };
        let id = LayerId::from(record.layer.as_deref().unwrap_or_default());
        let layer = self.tools.store.layer(&id)?.expect("layers in use are not removed");
        Ok(base.first().unwrap_or(&Built::empty()).with(self.tools.store, &layer, record.created, taint))
    }

    fn run(
        &self,
        node: NodeId,
        keys: &[Key],
        mut evidence: Evidence,
        inputs: &[Built],
    ) -> Result<Built, StepError> {
        // One lock for each key: steps of one build may wait for each other.
        let lock_name = format!("step-{}", keys[0].0);
        let _lock = self.tools.store.lock(&lock_name, || {})?;
        if let Some(cached) = self.made_meanwhile(node, keys, &mut evidence)? {
            debug!(step = self.tools.graph.node(node).name, "another process has made its result meanwhile");
            self.found(node, &keys[0], &keys[0], &evidence);
            return self.restore(node, &cached, inputs);
        }
        if self.tools.cancel.is_stopped() {
            return Err(StepError::Canceled);
        }
        let row = self.tools.reporter.start(&self.tools.graph.node(node).name);
        self.explain(node, row);
        let result = self.run_step(node, row, keys, evidence, inputs);
        self.tools.reporter.end(row, &result);
        result
    }

    fn found(&self, id: NodeId, definition: &Key, result: &Key, evidence: &Evidence) {
        let node = self.tools.graph.node(id);
        if matches!(node.operation, Operation::Scratch) {
            return;
        }
        for message in evidence.warnings.clone() {
            self.tools.reporter.send(Event::Warning { message });
        }
        let row = self.tools.reporter.row();
        self.tools.reporter.send(Event::Cached { row, name: node.name.clone() });
        if !matches!(node.operation, Operation::Image(_)) {
            lock(&self.notes.used).extend([definition.0.clone(), result.0.clone()]);
        }
    }

    fn cancel(&self) {
        self.tools.cancel.stop();
    }
}
