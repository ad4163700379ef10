//! What enters a step's cache key.
//!
//! | Step | In the key | Not in the key |
//! |---|---|---|
//! | any | what kind of step it is, the result keys of the steps it stands on | file name, comments, names of stages, times |
//! | image | the diff ids of its layers | its name, its config (that is in the steps' own inputs) |
//! | run | arguments, every variable, directory, user, network, host name, security, devices, platform, size of /dev/shm, ulimits, control group, script; mounts: target, access, ids, owners and modes of caches that are given, sizes, and the result keys of what files come from | proxy settings; limits of memory and processors; what caches, secrets and sockets hold |
//! | copy | sources, destination, owner, mode, exclusions, whether archives are unpacked and directories above kept, files that stand in the Dockerfile, the epoch if there is one; then names, types, permissions, owners, link targets and bytes of exactly what it takes | other files, times, owners of context files |
//! | directory | path, owner, the epoch if there is one | |
//! | merge | nothing more | |
//! | download | its checksum if it has one; else the digest of the bytes, name and time | address, ETag |
//! | checkout | commit, directory, whether `.git` stays and submodules come | address, branch or tag |
//!
//! A key is the sha256 of its inputs in order, each with its length in front. The inputs themselves are kept
//! with the result, so that it can be said which one differs when a step runs again.

use crate::graph::{Copy, CopyFrom, Exec, MountSource, Network, Operation};
use crate::solve::Key;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Changes whenever equal inputs would mean something else.
const VERSION: &str = "kiln step 2";

/// The inputs of a key: names and values in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyInputs(Vec<(String, String)>);

impl KeyInputs {
    /// Adds an input.
    pub fn add(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.push((name.into(), value.into()));
    }

    /// The key.
    pub fn key(&self) -> Key {
        let mut hash = Sha256::new();
        for text in std::iter::once(VERSION).chain(self.0.iter().flat_map(|(n, v)| [n.as_str(), v])) {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
        Key(kiln_image::digest::hex(&hash.finalize()))
    }

    /// True when nothing is known.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and values in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of an input.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// True when the copied files are listed.
    pub(crate) fn has_files(&self) -> bool {
        self.0.iter().any(|(name, _)| name.starts_with("file "))
    }

    /// The same inputs with other values.
    pub(crate) fn map(&self, change: impl Fn(&str) -> String) -> KeyInputs {
        KeyInputs(self.0.iter().map(|(name, value)| (change(name), change(value))).collect())
    }

    /// The inputs that are not in `before` or have another value there, and those that only `before` has.
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

/// An input that differs between two keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputChange {
    /// Which.
    pub name: String,
    /// What it was.
    pub before: Option<String>,
    /// What it is.
    pub now: Option<String>,
}

/// What a step says, on top of steps with these result keys.
pub fn definition(operation: &Operation, base: &[Key]) -> KeyInputs {
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
        Operation::Exec(exec) => add_exec(&mut inputs, exec),
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
            inputs.add("folder", &checkout.dir);
            inputs.add("git", if checkout.keeps_git { "stays" } else { "goes" });
            inputs.add("submodules", if checkout.submodules { "come" } else { "stay" });
            inputs.add("times", if checkout.commit_times { "commit" } else { "checkout" });
        }
    }
    inputs
}

fn add_epoch(inputs: &mut KeyInputs, epoch: Option<i64>) {
    if let Some(epoch) = epoch {
        inputs.add("epoch", epoch.to_string());
    }
}

pub(crate) fn kind(operation: &Operation) -> &'static str {
    match operation {
        Operation::Scratch => "scratch",
        Operation::Image(_) => "image",
        Operation::Exec(_) => "run",
        Operation::Copy(_) => "copy",
        Operation::MakeDir(_) => "folder",
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
    inputs.add("folder", &exec.dir);
    inputs.add("user", &exec.user);
    let network = match exec.network {
        Network::Bridge => "bridge",
        Network::None => "none",
        Network::Host => "host",
    };
    inputs.add("network", network);
    for name in &exec.hosts {
        inputs.add("host name", name);
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
        inputs.add("shm size", size.to_string());
    }
    for (name, soft, hard) in &limits.ulimits {
        inputs.add(format!("ulimit {name}"), format!("{soft}:{hard}"));
    }
    if let Some(parent) = &limits.cgroup_parent {
        inputs.add("cgroup parent", parent);
    }
    if let Some((name, content)) = &exec.script {
        inputs.add(format!("script {name}"), content);
    }
    for mount in &exec.mounts {
        // What caches and secrets hold is no part of it.
        let access = if mount.readonly { "ro" } else { "rw" };
        inputs.add(format!("mount {}", mount.target), format!("{access} {}", describe(&mount.source)));
    }
}

fn describe(source: &MountSource) -> String {
    match source {
        MountSource::Files(files) => format!("files {files:?}"),
        MountSource::Cache { id, given: None, .. } => format!("cache {id}"),
        MountSource::Cache { id, given: Some(given), .. } => format!("cache {id} of {given}"),
        MountSource::Host(path) => format!("host {}", path.display()),
        MountSource::Tmpfs { size } => format!("tmpfs {size}"),
        MountSource::Secret { id, required, file, variable } => {
            format!("secret {id} {file:?} {variable:?}{}", if *required { " required" } else { "" })
        }
        MountSource::Ssh { id, required, socket } => {
            format!("ssh {id} {socket:?}{}", if *required { " required" } else { "" })
        }
    }
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
        inputs.add("folder", "whole");
    }
    add_epoch(inputs, copy.epoch);
    for (number, pattern) in copy.exclude.iter().enumerate() {
        inputs.add(format!("exclude {number}"), pattern);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{CopySource, MakeDir, StepMount};
    use crate::mode::ModeChange;

    fn exec() -> Exec {
        Exec {
            arguments: vec!["a".into(), "b".into()],
            environment: vec!["X=1".into(), "Y=2".into()],
            proxies: Vec::new(),
            dir: "/".into(),
            user: String::new(),
            network: Network::Bridge,
            script: None,
            hosts: Vec::new(),
            hostname: "sandbox".into(),
            is_insecure: false,
            devices: Vec::new(),
            limits: crate::graph::RunLimits::default(),
            platform: None,
            mounts: Vec::new(),
            declared: Vec::new(),
        }
    }

    fn source(path: &str) -> CopySource {
        let place = kiln_parser::span::Span::default();
        CopySource {
            from: CopyFrom::Context(0),
            path: path.into(),
            place,
            unpack: false,
            origin: String::new(),
        }
    }

    fn copy() -> Copy {
        Copy {
            sources: vec![source("/a")],
            inline: vec![("f".into(), "text".into())],
            destination: "/d/".into(),
            owner: None,
            mode: None,
            exclude: Vec::new(),
            parents: false,
            whole: false,
            epoch: None,
        }
    }

    fn tmpfs(target: &str, size: u64) -> StepMount {
        StepMount { target: target.into(), source: MountSource::Tmpfs { size }, readonly: false }
    }

    fn key(operation: Operation, base: &[&str]) -> Key {
        let base: Vec<Key> = base.iter().map(|key| Key((*key).to_owned())).collect();
        definition(&operation, &base).key()
    }

    #[test]
    fn every_listed_input_counts() {
        let run = |change: &dyn Fn(&mut Exec)| {
            let mut exec = exec();
            change(&mut exec);
            key(Operation::Exec(Box::new(exec)), &["base"])
        };
        let files = |change: &dyn Fn(&mut Copy)| {
            let mut copy = copy();
            change(&mut copy);
            key(Operation::Copy(Box::new(copy)), &["base"])
        };
        let dir = |path: &str, owner: &str| {
            let dir = MakeDir { path: path.into(), owner: owner.into(), epoch: None };
            key(Operation::MakeDir(dir), &["base"])
        };
        let keys = vec![
            run(&|_| {}),
            run(&|exec| exec.arguments = vec!["ab".into()]),
            run(&|exec| exec.environment.push("Z=3".into())),
            run(&|exec| exec.environment[0] = "X=2".into()),
            run(&|exec| exec.dir = "/x".into()),
            run(&|exec| exec.user = "app".into()),
            run(&|exec| exec.network = Network::None),
            run(&|exec| exec.network = Network::Host),
            run(&|exec| exec.hosts.push("a".into())),
            run(&|exec| exec.script = Some(("EOF".into(), "#!x".into()))),
            run(&|exec| exec.mounts.push(tmpfs("/a", 1))),
            run(&|exec| exec.mounts.push(tmpfs("/b", 1))),
            run(&|exec| exec.mounts.push(tmpfs("/a", 2))),
            key(Operation::Exec(Box::new(exec())), &["other"]),
            files(&|_| {}),
            run(&|exec| exec.hostname = "other".into()),
            run(&|exec| exec.is_insecure = true),
            run(&|exec| exec.devices.push(("a.b/c=d".into(), false))),
            run(&|exec| exec.limits.shm_size = Some(1)),
            run(&|exec| exec.limits.ulimits.push(("nofile".into(), 1, 2))),
            run(&|exec| exec.platform = "linux/arm64".parse().ok()),
            files(&|copy| copy.sources[0].from = CopyFrom::Input(1)),
            files(&|copy| copy.sources[0].unpack = true),
            files(&|copy| copy.parents = true),
            files(&|copy| copy.whole = true),
            files(&|copy| copy.epoch = Some(1)),
            files(&|copy| copy.sources.push(source("/b"))),
            files(&|copy| copy.inline[0].1 = "other".into()),
            files(&|copy| copy.inline[0].0 = "g".into()),
            files(&|copy| copy.destination = "/d".into()),
            files(&|copy| copy.owner = Some("app".into())),
            files(&|copy| copy.mode = ModeChange::parse("644").ok()),
            files(&|copy| copy.exclude.push("x".into())),
            dir("/a", ""),
            dir("/b", ""),
            dir("/a", "app"),
            key(Operation::Scratch, &[]),
            key(Operation::Merge, &["a", "b"]),
            key(Operation::Merge, &["b", "a"]),
        ];
        let distinct: std::collections::BTreeSet<&Key> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
    }

    #[test]
    fn nothing_else_counts() {
        let mut other = exec();
        other.proxies.push("HTTP_PROXY=x".into());
        other.environment.reverse();
        let same = key(Operation::Exec(Box::new(exec())), &["base"]);
        assert_eq!(key(Operation::Exec(Box::new(other)), &["base"]), same);
    }

    #[test]
    fn differences_are_named() {
        let inputs = |entries: &[(&str, &str)]| {
            let mut inputs = KeyInputs::default();
            entries.iter().for_each(|(name, value)| inputs.add(*name, *value));
            inputs
        };
        let before = inputs(&[("a", "1"), ("b", "2"), ("c", "3")]);
        let now = inputs(&[("a", "1"), ("b", "4"), ("d", "5")]);
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(
            now.changes_since(&before),
            [
                InputChange { name: "b".into(), before: text("2"), now: text("4") },
                InputChange { name: "d".into(), before: None, now: text("5") },
                InputChange { name: "c".into(), before: text("3"), now: None },
            ]
        );
    }
}
