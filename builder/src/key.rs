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
mod tests {
    use super::*;
    use crate::graph::{Checkout, CopySource, Download, ImageSource, MakeDir, RunLimits};
    use crate::mode::ModeChange;
    use kiln_image::digest::DiffId;
    use std::collections::BTreeSet;

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
            limits: RunLimits::default(),
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
        definition(&operation, &base, &[]).key()
    }

    /// An example of each operation with every field of its key and every recorded field.
    fn whole_records() -> Vec<KeyInputs> {
        let digest = || Digest::of(b"x");
        let key = |text: &str| Key(text.to_owned());
        let whole_exec = Exec {
            script: Some(("EOF".into(), "#!x".into())),
            hosts: vec!["a".into()],
            is_insecure: true,
            devices: vec![("a.b/c=d".into(), true)],
            limits: RunLimits {
                shm_size: Some(1),
                ulimits: vec![("nofile".into(), 1, 2)],
                cgroup_parent: Some("x".into()),
                ..RunLimits::default()
            },
            platform: "linux/arm64".parse().ok(),
            mounts: vec![tmpfs("/a", 1)],
            ..exec()
        };
        let whole_copy = Copy {
            owner: Some("app".into()),
            mode: ModeChange::parse("644").ok(),
            exclude: vec!["x".into()],
            parents: true,
            whole: true,
            epoch: Some(1),
            ..copy()
        };
        let dir = MakeDir { path: "/a".into(), owner: String::new(), epoch: Some(1) };
        let download = |checksum| Download { url: "u".into(), name: "n".into(), checksum };
        let checkout = Checkout {
            remote: "r".into(),
            reference: String::new(),
            commit: String::new(),
            dir: String::new(),
            keeps_git: false,
            submodules: true,
            commit_times: false,
        };
        let image = ImageSource { reference: "i".into(), diff_ids: vec![DiffId(digest())] };
        let of = |operation: &Operation| definition(operation, &[key("b")], &[key("t")]);
        let mut copied = of(&Operation::Copy(Box::new(whole_copy.clone())));
        add_content(&mut copied, FilesDigest { digest: "d".into(), files: vec![("/f".into(), "e".into())] });
        let mut copied_by_definition = of(&Operation::Copy(Box::new(whole_copy)));
        add_trees(&mut copied_by_definition, &[key("t")]);
        let mut downloaded = of(&Operation::Download(download(None)));
        add_download(&mut downloaded, &digest(), 1);
        let mut checked_out = of(&Operation::Checkout(checkout));
        add_commit(&mut checked_out, "c");
        let mut records = vec![
            of(&Operation::Scratch),
            of(&Operation::Image(image)),
            of(&Operation::Exec(Box::new(whole_exec))),
            copied,
            copied_by_definition,
            of(&Operation::MakeDir(dir)),
            of(&Operation::Merge),
            downloaded,
            of(&Operation::Download(download(Some(digest())))),
            checked_out,
        ];
        records.iter_mut().for_each(|record| add_warning(record, "w"));
        records
    }

    /// Texts between backticks in a cell.
    fn field_names(cell: &str) -> BTreeSet<String> {
        cell.split('`').skip(1).step_by(2).filter(|word| !word.starts_with('.')).map(str::to_owned).collect()
    }

    /// Table at the top of this file: for each kind of step the fields in the key, and those recorded with it.
    fn table() -> BTreeMap<String, [BTreeSet<String>; 2]> {
        let rows = include_str!("key.rs").lines().filter_map(|line| line.strip_prefix("//! | "));
        let rows = rows.filter(|row| !row.starts_with("Step"));
        rows.map(|row| {
            let cells: Vec<&str> = row.split('|').collect();
            (cells[0].trim().to_owned(), [field_names(cells[1]), field_names(cells[2])])
        })
        .collect()
    }

    #[test]
    fn table_names_the_fields_of_each_key() {
        let mut table = table();
        let [every, every_record] = table.remove("every").unwrap();
        let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for record in whole_records() {
            let names = record.iter().map(|(name, _)| name.split(' ').next().unwrap_or_default().to_owned());
            found.entry(record.value("step").unwrap().to_owned()).or_default().extend(names);
        }
        let expected: BTreeMap<String, BTreeSet<String>> = table
            .into_iter()
            .map(|(kind, [in_key, recorded])| {
                let all = [&in_key, &recorded, &every, &every_record];
                (kind, all.into_iter().flatten().cloned().collect())
            })
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn recorded_fields_are_in_no_key() {
        let mut inputs = definition(&Operation::Copy(Box::new(copy())), &[], &[]);
        let content = |files| FilesDigest { digest: "d".into(), files };
        let key = add_content(&mut inputs.clone(), content(Vec::new()));
        assert_eq!(add_content(&mut inputs, content(vec![("/f".into(), "e".into())])), key);
    }

    /// Keys outlive the program that wrote them: a change of their bytes needs a change of [`VERSION`].
    #[test]
    fn bytes_are_fixed() {
        let mount = |source| StepMount { target: "/m".into(), source, readonly: false };
        let mounts = vec![
            mount(MountSource::Files(Files::Copy(1))),
            mount(MountSource::Cache {
                id: "a b".into(),
                given: Some("1:2 0700".into()),
                sharing: kiln_parser::mount::Sharing::Shared,
                mode: 0o700,
                owner: (1, 2),
                seed: None,
            }),
            mount(MountSource::Secret {
                id: "s".into(),
                required: true,
                file: Some((0o400, (0, 0))),
                variable: Some("V".into()),
            }),
            mount(MountSource::Ssh { id: "default".into(), required: false, socket: (0o600, (1, 1)) }),
        ];
        let texts: Vec<String> = mounts.iter().map(KeyText::key_text).collect();
        assert_eq!(
            texts,
            [
                "rw files copy 1",
                r#"rw cache "a b" of 1:2 0700"#,
                r#"rw secret "s" required file 0400 0:0 variable "V""#,
                r#"rw ssh "default" socket 0600 1:1"#,
            ]
        );
        let inputs = definition(&Operation::Exec(Box::new(Exec { mounts, ..exec() })), &[], &[]);
        assert_eq!(inputs.key().0, "28c8e0d71f15264a802625b8ce8cc124ff608dfad1893cc0d5e7232615da836a");
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
        let distinct: BTreeSet<&Key> = keys.iter().collect();
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
