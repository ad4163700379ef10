//! Content of a step's cache key: the only table of its fields, and the code that a test compares with the table.
//!
//! | Step | In the key | Recorded beside it | Not in the key |
//! |---|---|---|---|
//! | every | `step`: the kind of step; `base`: result keys of the steps it stands on | `warning`: warnings of its run | file name, comments, names of stages, times |
//! | scratch | | | |
//! | image | `layer`: diff ids | | name, config (what of it matters is in the fields of the steps above) |
//! | run | `argument`; `variable`: all, sorted; `directory`; `user`; `network`; `add-host`: names; `hostname`; `security`; `device`: names, and whether they are required; `platform` if foreign; `shm-size`; `ulimit`; `cgroup-parent`; `script`: a heredoc that is run as a file; `mount`: target, access, type, ids, size, owner and mode of secrets, ssh sockets and of caches that set them; `tree`: result keys of the steps that mounts take files from | | proxy settings; limits of memory and processors; addresses of names; what caches, secrets, sockets and volumes hold |
//! | copy | `source`: origin, path, whether archives are unpacked; `inline`: files of the Dockerfile; `destination`; `owner`; `mode`; `parents`; `whole`: a directory itself is copied; `epoch`; `exclude`; then `content`: names, types, permissions, owners, link targets and bytes of exactly what it takes. The definition key has `tree` in place of `content`: result keys of the steps that it takes files from | `file`: each file of the content | other files, times, owners of context files, source names of directories |
//! | directory | `path`, `owner`, `epoch` | | |
//! | merge | nothing more | | |
//! | download | `name`; `checksum`; without one, `content`: digest of the bytes, and `time` | | address, `ETag` |
//! | checkout | `directory`, `git`: whether `.git` stays, `submodules`, `times`; `commit` | | address, branch or tag |
//!
//! A copy from a stage has two keys: the definition key (from the result key of the stage) and the content key (from
//! the copied files). When the stage was built again with the same content, the content key leads back to the cached
//! chain. A copy from the build context has only the content key.
//!
//! # Bytes
//!
//! A key is the SHA-256 of a version byte and the fields in order ([`KeyBytes`]): each a name and a value, both
//! preceded by their length. Values are text in forms that are fixed here ([`KeyText`]), never those of `Debug` or
//! serde. The fields are recorded with the result, so that `--explain` can name the ones that differ when a step runs
//! again.

use crate::content::FilesDigest;
use crate::graph::{Copy, CopyFrom, Exec, Files, MountSource, Network, Operation, StepMount};
use crate::solve::Key;
use kiln_image::digest::Digest;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// Version of the bytes of keys and of the names of fields. It must change whenever equal fields would get another
/// meaning: then no old key is found.
pub(crate) const VERSION: u8 = 3;

/// Types with fixed bytes in a key.
trait KeyBytes {
    /// Feeds the bytes to a hash. A value of variable length is preceded by its length.
    fn feed(&self, hash: &mut Sha256);
}

impl KeyBytes for str {
    fn feed(&self, hash: &mut Sha256) {
        hash.update((self.len() as u64).to_le_bytes());
        hash.update(self);
    }
}

impl KeyBytes for (String, String) {
    fn feed(&self, hash: &mut Sha256) {
        self.0.feed(hash);
        self.1.feed(hash);
    }
}

impl<T: KeyBytes> KeyBytes for [T] {
    fn feed(&self, hash: &mut Sha256) {
        hash.update((self.len() as u64).to_le_bytes());
        self.iter().for_each(|item| item.feed(hash));
    }
}

/// Values of several parts with a fixed, unambiguous text form.
trait KeyText {
    fn key_text(&self) -> String;
}

/// Fields of a key: names and values in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyInputs(Vec<(String, String)>);

impl KeyInputs {
    /// Adds a field at the end.
    pub fn add(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.push((name.into(), value.into()));
    }

    /// Cache key of the fields.
    pub fn key(&self) -> Key {
        let mut hash = Sha256::new();
        hash.update([VERSION]);
        self.0.feed(&mut hash);
        Key(kiln_image::digest::hex(&hash.finalize()))
    }

    /// True when there are no fields: the step has no key yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and values in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Value of a field; `None` when there is no such field.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// True when the copied files are recorded.
    pub(crate) fn has_files(&self) -> bool {
        self.0.iter().any(|(name, _)| name.starts_with("file "))
    }

    /// The same fields with changed names and values.
    pub(crate) fn map(&self, change: impl Fn(&str) -> String) -> KeyInputs {
        KeyInputs(self.0.iter().map(|(name, value)| (change(name), change(value))).collect())
    }

    /// Fields that are missing in `before` or have another value there, and those that only `before` has.
    pub fn changes_since(&self, before: &KeyInputs) -> Vec<InputChange> {
        let values = |inputs: &KeyInputs| -> BTreeMap<String, String> { inputs.0.iter().cloned().collect() };
        let (others, known) = (values(before), values(self));
        let own = self.0.iter().filter_map(|(name, now)| {
            let before = others.get(name);
            (before != Some(now)).then(|| InputChange {
                name: name.clone(),
                before: before.cloned(),
                now: Some(now.clone()),
            })
        });
        let gone = before.0.iter().filter(|(name, _)| !known.contains_key(name));
        let gone = gone.map(|(name, before)| InputChange {
            name: name.clone(),
            before: Some(before.clone()),
            now: None,
        });
        own.chain(gone).collect()
    }
}

/// Name of the field of recorded warnings.
const WARNING: &str = "warning";

/// A field that differs between two keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputChange {
    /// Name of the field.
    pub name: String,
    /// Old value; `None` for a new field.
    pub before: Option<String>,
    /// New value; `None` for a removed field.
    pub now: Option<String>,
}

/// Fields of an operation on bases with the result keys `base`, which mounts files of steps with the result keys
/// `trees`.
pub fn definition(operation: &Operation, base: &[Key], trees: &[Key]) -> KeyInputs {
    let mut inputs = KeyInputs::default();
    inputs.add("step", kind(operation));
    for (number, key) in base.iter().enumerate() {
        inputs.add(format!("base {number}"), &key.0);
    }
    match operation {
        Operation::Scratch | Operation::Merge => {}
        Operation::Image(image) => {
            for (number, diff_id) in image.diff_ids.iter().enumerate() {
                inputs.add(format!("layer {number}"), diff_id.to_string());
            }
        }
        Operation::Exec(exec) => {
            add_exec(&mut inputs, exec);
            add_trees(&mut inputs, trees);
        }
        Operation::Copy(copy) => add_copy(&mut inputs, copy),
        Operation::MakeDir(dir) => {
            inputs.add("path", &dir.path);
            inputs.add("owner", &dir.owner);
            add_epoch(&mut inputs, dir.epoch);
        }
        Operation::Download(download) => {
            inputs.add("name", &download.name);
            if let Some(checksum) = &download.checksum {
                inputs.add("checksum", checksum.to_string());
            }
        }
        Operation::Checkout(checkout) => {
            inputs.add("directory", &checkout.dir);
            inputs.add("git", if checkout.keeps_git { "stays" } else { "goes" });
            inputs.add("submodules", if checkout.submodules { "come" } else { "stay" });
            inputs.add("times", if checkout.commit_times { "commit" } else { "checkout" });
        }
    }
    inputs
}

/// Adds the result keys of the inputs after the first: all of their files are part of the key.
pub(crate) fn add_trees(inputs: &mut KeyInputs, trees: &[Key]) {
    for (number, key) in trees.iter().enumerate() {
        inputs.add(format!("tree {}", number + 1), &key.0);
    }
}

/// Adds the digest of copied files. The list of files is only recorded.
pub(crate) fn add_content(inputs: &mut KeyInputs, content: FilesDigest) -> Key {
    inputs.add("content", &content.digest);
    let key = inputs.key();
    content.files.into_iter().for_each(|(path, digest)| inputs.add(format!("file {path}"), digest));
    key
}

/// Adds the result of a download without a checksum; `time` in seconds since 1970.
pub(crate) fn add_download(inputs: &mut KeyInputs, digest: &Digest, time: i64) {
    inputs.add("content", digest.to_string());
    inputs.add("time", time.to_string());
}

/// Adds the commit of a checkout.
pub(crate) fn add_commit(inputs: &mut KeyInputs, commit: &str) {
    inputs.add("commit", commit);
}

/// Adds a warning of the step's run, which is only recorded.
pub(crate) fn add_warning(inputs: &mut KeyInputs, warning: &str) {
    inputs.add(WARNING, warning);
}

/// Recorded warnings of a step's run.
pub(crate) fn warnings(inputs: &KeyInputs) -> Vec<String> {
    inputs.iter().filter(|(name, _)| *name == WARNING).map(|(_, text)| text.to_owned()).collect()
}

fn add_epoch(inputs: &mut KeyInputs, epoch: Option<i64>) {
    if let Some(epoch) = epoch {
        inputs.add("epoch", epoch.to_string());
    }
}

/// Name of the step's kind, for its key and the history of builds.
pub(crate) fn kind(operation: &Operation) -> &'static str {
    match operation {
        Operation::Scratch => "scratch",
        Operation::Image(_) => "image",
        Operation::Exec(_) => "run",
        Operation::Copy(_) => "copy",
        Operation::MakeDir(_) => "directory",
        Operation::Merge => "merge",
        Operation::Download(_) => "download",
        Operation::Checkout(_) => "checkout",
    }
}

fn add_exec(inputs: &mut KeyInputs, exec: &Exec) {
    for (number, argument) in exec.arguments.iter().enumerate() {
        inputs.add(format!("argument {number}"), argument);
    }
    let mut environment: Vec<(&str, &str)> =
        exec.environment.iter().map(|entry| entry.split_once('=').unwrap_or((entry, ""))).collect();
    environment.sort_unstable();
    for (name, value) in environment {
        inputs.add(format!("variable {name}"), value);
    }
    inputs.add("directory", &exec.dir);
    inputs.add("user", &exec.user);
    inputs.add("network", exec.network.key_text());
    for (number, name) in exec.hosts.iter().enumerate() {
        inputs.add(format!("add-host {number}"), name);
    }
    inputs.add("hostname", &exec.hostname);
    if exec.is_insecure {
        inputs.add("security", "insecure");
    }
    for (name, required) in &exec.devices {
        inputs.add(format!("device {name}"), if *required { "required" } else { "" });
    }
    if let Some(platform) = &exec.platform {
        inputs.add("platform", platform.to_string());
    }
    let limits = &exec.limits;
    if let Some(size) = limits.shm_size {
        inputs.add("shm-size", size.to_string());
    }
    for (name, soft, hard) in &limits.ulimits {
        inputs.add(format!("ulimit {name}"), format!("{soft}:{hard}"));
    }
    if let Some(parent) = &limits.cgroup_parent {
        inputs.add("cgroup-parent", parent);
    }
    if let Some((name, content)) = &exec.script {
        inputs.add(format!("script {name}"), content);
    }
    for mount in &exec.mounts {
        inputs.add(format!("mount {}", mount.target), mount.key_text());
    }
}

impl KeyText for Network {
    fn key_text(&self) -> String {
        let text = match self {
            Network::Bridge => "bridge",
            Network::None => "none",
            Network::Host => "host",
        };
        text.to_owned()
    }
}

impl KeyText for StepMount {
    fn key_text(&self) -> String {
        let access = if self.readonly { "ro" } else { "rw" };
        format!("{access} {}", self.source.key_text())
    }
}

impl KeyText for Files {
    fn key_text(&self) -> String {
        match self {
            Files::Tree(number) => format!("tree {number}"),
            Files::Copy(number) => format!("copy {number}"),
        }
    }
}

impl KeyText for MountSource {
    fn key_text(&self) -> String {
        let needs = |required: bool| if required { " required" } else { "" };
        match self {
            MountSource::Files(files) => format!("files {}", files.key_text()),
            MountSource::Cache { id, given: None, .. } => format!("cache {}", quoted(id)),
            MountSource::Cache { id, given: Some(given), .. } => format!("cache {} of {given}", quoted(id)),
            MountSource::Host(path) => format!("host {}", quoted(&path.display().to_string())),
            MountSource::Tmpfs { size } => format!("tmpfs {size}"),
            MountSource::Secret { id, required, file, variable } => {
                let file = file.as_ref().map(|file| format!(" file {}", file.key_text()));
                let variable = variable.as_ref().map(|name| format!(" variable {}", quoted(name)));
                let (file, variable) = (file.unwrap_or_default(), variable.unwrap_or_default());
                format!("secret {}{}{file}{variable}", quoted(id), needs(*required))
            }
            MountSource::Ssh { id, required, socket } => {
                format!("ssh {}{} socket {}", quoted(id), needs(*required), socket.key_text())
            }
        }
    }
}

/// Mode and owner of a file.
impl KeyText for (u32, (u32, u32)) {
    fn key_text(&self) -> String {
        let (mode, (uid, gid)) = self;
        format!("{mode:04o} {uid}:{gid}")
    }
}

/// Quotes a text of a user as JSON does.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn add_copy(inputs: &mut KeyInputs, copy: &Copy) {
    for (number, source) in copy.sources.iter().enumerate() {
        let from = match source.from {
            CopyFrom::Context(_) => "context",
            CopyFrom::Input(_) => "tree",
        };
        let unpack = if source.unpack { " unpacked" } else { "" };
        inputs.add(format!("source {number}"), format!("{from} {}{unpack}", source.path));
    }
    for (name, content) in &copy.inline {
        inputs.add(format!("inline {name}"), content);
    }
    inputs.add("destination", &copy.destination);
    if let Some(owner) = &copy.owner {
        inputs.add("owner", owner);
    }
    if let Some(mode) = &copy.mode {
        inputs.add("mode", mode.text());
    }
    if copy.parents {
        inputs.add("parents", "kept");
    }
    if copy.whole {
        inputs.add("whole", "itself");
    }
    add_epoch(inputs, copy.epoch);
    for (number, pattern) in copy.exclude.iter().enumerate() {
        inputs.add(format!("exclude {number}"), pattern);
    }
}

#[cfg(test)]
mod tests;
