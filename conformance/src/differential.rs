//! Whole builds: a context, a Dockerfile, and the resulting image, as text.
//!
//! `testdata/differential/*.cases` holds trials in the format of [`cases`](crate::cases). In a trial's text, lines that
//! begin with `$ ` are commands that create the context (run by `sh -eu` in its directory), a line that begins with
//! `& ` has more arguments for `build` (`{}` is the context's directory); the rest is the Dockerfile. The reference
//! engine's image is recorded in `recorded/NAME`.

use crate::cases::{self, Case};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Modification time of files in contexts, unless the trial sets an older one.
const CONTEXT_TIME: i64 = 1_000_000_000;
/// Times later than this one are from the build.
const NOW: u64 = 1_600_000_000;

/// A build to compare.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Name of the trial.
    pub name: String,
    /// Rule that the trial shows, in one sentence.
    pub rule: String,
    setup: String,
    arguments: Vec<String>,
    dockerfile: Vec<u8>,
}

/// Reads all trials of a directory, in order.
pub fn read_dir(dir: &Path) -> Result<Vec<Trial>> {
    let files = cases::read_dir(dir)?;
    let trials: Vec<Trial> = files.iter().flat_map(|file| &file.cases).map(Trial::new).collect();
    let mut names = BTreeSet::new();
    if let Some(twice) = trials.iter().find(|trial| !names.insert(&trial.name)) {
        bail!("two trials are called {}", twice.name);
    }
    Ok(trials)
}

impl Trial {
    fn new(case: &Case) -> Trial {
        let (mut setup, mut arguments, mut file) = (String::new(), Vec::new(), String::new());
        for line in case.text.split_inclusive('\n') {
            if let Some(command) = line.strip_prefix("$ ") {
                setup.push_str(command);
            } else if let Some(words) = line.strip_prefix("& ") {
                arguments.extend(words.split_whitespace().map(str::to_owned));
            } else {
                file.push_str(line);
            }
        }
        let dockerfile = Case { text: file, ..case.clone() }.bytes();
        Trial { name: case.name.clone(), rule: case.rule.clone(), setup, arguments, dockerfile }
    }

    /// Creates the context in an empty directory.
    pub fn lay_out(&self, dir: &Path) -> Result<()> {
        let script = format!("umask 022\n{}", self.setup);
        let mut shell = Command::new("sh");
        let output = shell.args(["-euc", &script]).current_dir(dir).stdin(Stdio::null()).output()?;
        if !output.status.success() {
            bail!("{}: laying out the context: {}", self.name, String::from_utf8_lossy(&output.stderr));
        }
        if !dir.join("Dockerfile").exists() {
            fs::write(dir.join("Dockerfile"), &self.dockerfile)?;
        }
        make_old(dir)
    }

    /// Builds the context in `dir` and describes the image. `builder` returns a command with Docker's arguments; `more`
    /// are arguments for its `build`.
    pub fn build(
        &self,
        builder: &dyn Fn() -> Command,
        more: &[&str],
        dir: &Path,
        base: &Base,
    ) -> Result<String> {
        let place = dir.display().to_string();
        let tag = format!("trial-{}", self.name);
        let mut build = builder();
        build.args(["build", "-q", "-t", &tag]).args(more);
        build.args(self.arguments.iter().map(|argument| argument.replace("{}", &place)));
        let output = build.arg(dir).stdin(Stdio::null()).output().context("running the builder")?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            let message = text.lines().rfind(|line| line.starts_with("ERROR:")).unwrap_or_default();
            return Ok(format!("fails {}\n", without_reference(&message.replace(&place, "{}"))));
        }
        let archive = tempfile::NamedTempFile::new()?;
        let saved = builder().arg("save").arg("-o").arg(archive.path()).arg(&tag).output()?;
        let removed = builder().args(["rmi", "-f", &tag]).output()?;
        if !saved.status.success() || !removed.status.success() {
            bail!("{}: {}", self.name, String::from_utf8_lossy(&saved.stderr));
        }
        describe(archive.path(), base)
    }
}

/// Message without the ids of file trees, which differ in each build of the engine.
fn without_reference(message: &str) -> String {
    let dir = message.find("/overlay2/").zip(message.find("/merged"));
    if let Some((start, end)) = dir.filter(|(start, end)| start < end) {
        let start = message[..start].rfind([' ', '"']).map_or(0, |blank| blank + 1);
        return format!("{}{}", &message[..start], &message[end + "/merged".len()..]);
    }
    match message.split_once(" of ref ") {
        Some((before, rest)) => {
            format!("{before}: {}", rest.split_once(": ").map_or("", |(_, after)| after))
        }
        None => message.to_owned(),
    }
}

/// Sets one old time on all new files of a directory.
fn make_old(path: &Path) -> Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            make_old(&entry?.path())?;
        }
    }
    if metadata.mtime() > NOW.cast_signed() {
        let mut touch = Command::new("touch");
        let status = touch.arg("-hd").arg(format!("@{CONTEXT_TIME}")).arg(path).status()?;
        if !status.success() {
            bail!("touching {}", path.display());
        }
    }
    Ok(())
}

/// Base image of the trials; its layers are not described.
#[derive(Clone, Debug, Default)]
pub struct Base {
    diff_ids: BTreeSet<String>,
}

impl Base {
    /// Reads the OCI layout of a base image.
    pub fn read(layout: &Path) -> Result<Base> {
        let blob = |descriptor: &Value| -> Result<Value> {
            let digest = descriptor["digest"].as_str().unwrap_or_default().replace(':', "/");
            Ok(serde_json::from_slice(&fs::read(layout.join("blobs").join(digest))?)?)
        };
        let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json"))?)?;
        let manifest = blob(&index["manifests"][0])?;
        let config = blob(&manifest["config"])?;
        Ok(Base { diff_ids: texts(&config["rootfs"]["diff_ids"]).into_iter().collect() })
    }
}

/// Loads the base image `busybox` into the engine, from its OCI layout.
///
/// # Errors
///
/// Fails when `skopeo` or `docker` does.
pub fn load_base(layout: &Path) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let archive = dir.path().join("busybox.tar");
    let target = format!("docker-archive:{}:busybox:latest", archive.display());
    let source = format!("oci:{}", layout.display());
    let copied = Command::new("skopeo").args(["copy", "-q", &source, &target]).status()?;
    let loaded = Command::new("docker").arg("load").arg("-qi").arg(&archive).status()?;
    if !copied.success() || !loaded.success() {
        bail!("loading the base image into the engine");
    }
    Ok(())
}

fn texts(list: &Value) -> Vec<String> {
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

/// Describes config, history and the entries of each layer above the base image.
fn describe(archive: &Path, base: &Base) -> Result<String> {
    let dir = tempfile::tempdir()?;
    tar::Archive::new(File::open(archive)?).unpack(dir.path())?;
    let manifest: Value = serde_json::from_slice(&fs::read(dir.path().join("manifest.json"))?)?;
    let path = |value: &Value| dir.path().join(value.as_str().unwrap_or_default());
    let config: Value = serde_json::from_slice(&fs::read(path(&manifest[0]["Config"]))?)?;
    let mut text = describe_config(&config);
    let layers = manifest[0]["Layers"].as_array().cloned().unwrap_or_default();
    let diff_ids = texts(&config["rootfs"]["diff_ids"]);
    if layers.len() != diff_ids.len() {
        bail!("{} layers and {} diff ids", layers.len(), diff_ids.len());
    }
    for (layer, diff_id) in layers.iter().zip(diff_ids) {
        if base.diff_ids.contains(&diff_id) {
            continue;
        }
        text.push_str("layer\n");
        text.push_str(&describe_layer(&path(layer))?);
    }
    Ok(text)
}

fn describe_config(config: &Value) -> String {
    let mut text = String::new();
    for (key, value) in config.as_object().into_iter().flatten() {
        match key.as_str() {
            "created" | "history" | "rootfs" => {}
            "config" => {
                for (key, value) in value.as_object().into_iter().flatten() {
                    text.push_str(&format!("config {key} {value}\n"));
                }
            }
            _ => text.push_str(&format!("{key} {value}\n")),
        }
    }
    for entry in config["history"].as_array().into_iter().flatten() {
        let kind = if entry["empty_layer"].as_bool() == Some(true) { "setting" } else { "layer" };
        let by = entry["created_by"].as_str().unwrap_or_default().escape_debug().to_string();
        let comment = entry["comment"].as_str().unwrap_or_default();
        text.push_str(&format!(
            "history {kind} {} | {comment}\n",
            by.replace("\\\"", "\"").replace("\\'", "'")
        ));
    }
    text
}

/// Describes each entry of a layer's tar in a line: type, mode, owner, time, size or link, content, attributes.
fn describe_layer(path: &Path) -> Result<String> {
    let mut text = String::new();
    let mut archive = tar::Archive::new(File::open(path)?);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let attributes = attributes(&mut entry)?;
        let header = entry.header();
        let kind = match header.entry_type() {
            tar::EntryType::Regular => "file",
            tar::EntryType::Directory => "dir",
            tar::EntryType::Symlink => "symlink",
            tar::EntryType::Link => "hardlink",
            tar::EntryType::Char => "char",
            tar::EntryType::Block => "block",
            tar::EntryType::Fifo => "fifo",
            other => bail!("an entry of the kind {other:?}"),
        };
        let mode = header.mode()? & 0o7777;
        let (uid, gid, time) = (header.uid()?, header.gid()?, header.mtime()?);
        let name = shown(&entry.path_bytes());
        let time = if time > NOW { "now".to_owned() } else { time.to_string() };
        let mut line = format!("{kind} {mode:o} {uid}:{gid} {time} {name}");
        if let Some(target) = entry.link_name_bytes() {
            line.push_str(&format!(" -> {}", shown(&target)));
        }
        if matches!(kind, "char" | "block") {
            let number = |number: Option<u32>| number.unwrap_or_default();
            line.push_str(&format!(" {},{}", number(header.device_major()?), number(header.device_minor()?)));
        }
        if kind == "file" {
            let (size, digest) = digest(&mut entry)?;
            line.push_str(&format!(" {size} {digest}"));
        }
        text.push_str(&format!("{line}{attributes}\n"));
    }
    Ok(text)
}

fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn attributes<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<String> {
    let mut found = BTreeMap::new();
    for extension in entry.pax_extensions()?.into_iter().flatten() {
        let extension = extension?;
        if let Some(name) = extension.key()?.strip_prefix("SCHILY.xattr.") {
            found.insert(name.to_owned(), shown(extension.value_bytes()));
        }
    }
    Ok(found.into_iter().map(|(name, value)| format!(" {name}={value}")).collect())
}

fn digest(file: &mut impl Read) -> Result<(u64, String)> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut size = 0;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
        size += count as u64;
    }
    Ok((size, hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()))
}

/// Arguments for Kiln in addition to those of a trial: trials put secrets into images, which Kiln refuses by default.
pub const KILN_ARGUMENTS: [&str; 2] = ["--allow", "secret-leak"];

/// Path of the recording of a trial.
pub fn recording(dir: &Path, name: &str) -> PathBuf {
    dir.join("recorded").join(name)
}

/// Differences between two descriptions, in lines; empty when they agree. All failures agree.
///
/// Files with the time of the build in the reference's image may be older in Kiln's.
pub fn differences(reference: &str, own: &str) -> Vec<String> {
    if reference.starts_with("fails ") && own.starts_with("fails ") {
        return Vec::new();
    }
    // If the base image lacks /etc/hosts, its creation and removal leave an entry for the directory.
    let lines = |text: &'_ str| -> Vec<String> {
        text.lines().filter(|line| *line != "dir 755 0:0 now etc/").map(str::to_owned).collect()
    };
    let (reference, own) = (lines(reference), lines(own));
    let agree = |(reference, own): &(&String, &String)| reference == own || is_older(reference, own);
    let start = reference.iter().zip(&own).take_while(agree).count();
    let end = reference[start..].iter().rev().zip(own[start..].iter().rev()).take_while(agree).count();
    let reference = reference[start..reference.len() - end].iter().map(|line| format!("  reference  {line}"));
    let own = own[start..own.len() - end].iter().map(|line| format!("  kiln       {line}"));
    reference.chain(own).collect()
}

/// True for lines that differ only in the time, if that of the first is the time of the build.
fn is_older(reference: &str, own: &str) -> bool {
    let split = |line: &str| -> Option<(Vec<String>, String)> {
        let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        if words.len() < 5 || !matches!(words[0].as_str(), "dir" | "file" | "hardlink") {
            return None;
        }
        let time = std::mem::take(&mut words[3]);
        Some((words, time))
    };
    match (split(reference), split(own)) {
        (Some((reference, time)), Some((own, _))) => reference == own && time == "now",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_differences_are_shown() {
        assert_eq!(differences("a\nb\nc\n", "a\nb\nc\n"), Vec::<String>::new());
        assert_eq!(differences("a\nb\nc\n", "a\nx\nc\n"), ["  reference  b", "  kiln       x"]);
        assert_eq!(differences("fails a\n", "fails b\n"), Vec::<String>::new());
        assert_eq!(differences("dir 755 0:0 now d/\n", "dir 755 0:0 5 d/\n"), Vec::<String>::new());
        assert_eq!(differences("dir 755 0:0 5 d/\n", "dir 755 0:0 now d/\n").len(), 2);
        assert_eq!(differences("fails a\n", "a\n"), ["  reference  fails a", "  kiln       a"]);
    }
}
