//! Text form of a plan, for people and for goldens: a line for each node of the graph, then the images.
//!
//! ```text
//! 0 image docker.io/library/busybox:latest
//! 1 directory /src ← 0
//! 2 copy /a to /src/ ← 1
//! 3 run "/bin/sh" "-c" "make" in /src ← 2
//! image of stage 0 for linux/amd64 ← 3
//!   Env ["PATH=…"]
//!   history WORKDIR /src
//! ```
//!
//! The inputs of a node follow the arrow: first the node whose tree it is based on, then `files of` those from which it
//! only copies or mounts files. No program reads this form, so it may change.

use super::{DEFAULT_PATH, Plan, Planned, go};
use crate::graph::{
    Checkout, Copy, CopyFrom, CopySource, Download, Exec, Files, ImageSource, MakeDir, MountSource, Network,
    Node, Operation, RunLimits, StepMount,
};
use crate::solve::Use;
use kiln_parser::mount::Sharing;
use std::fmt::{self, Display, Formatter, Write};

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (number, node) in self.graph.nodes.iter().enumerate() {
            writeln!(f, "{number} {node}")?;
        }
        self.results.iter().try_for_each(|result| write_image(f, result))?;
        self.others.iter().try_for_each(|node| writeln!(f, "wanted without an image ← {}", node.0))
    }
}

/// Writes an image: its config without what the nodes show, and its history.
fn write_image(f: &mut Formatter<'_>, image: &Planned) -> fmt::Result {
    writeln!(f, "image of stage {} for {} ← {}", image.stage, image.platform, image.target.0)?;
    let config = &image.config;
    if config.platform() != image.platform {
        writeln!(f, "  platform {}", config.platform())?;
    }
    if !config.author.is_empty() {
        writeln!(f, "  author {}", one_line(&config.author))?;
    }
    if let Ok(serde_json::Value::Object(keys)) = serde_json::to_value(&config.config) {
        keys.iter().try_for_each(|(key, value)| writeln!(f, "  {key} {value}"))?;
    }
    for entry in &config.history {
        let layer = if entry.empty_layer { " (no layer)" } else { "" };
        writeln!(f, "  history {}{layer}", one_line(&entry.created_by))?;
    }
    Ok(())
}

impl Display for Node {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.operation)?;
        if self.no_cache {
            f.write_str(" without cache")?;
        }
        for (number, input) in self.inputs.iter().enumerate() {
            f.write_str(if number == 0 { " ← " } else { ", " })?;
            if input.usage == Use::Content {
                f.write_str("files of ")?;
            }
            write!(f, "{}", input.node.0)?;
        }
        Ok(())
    }
}

impl Display for Operation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Operation::Scratch => f.write_str("scratch"),
            Operation::Image(image) => write_source(f, image),
            Operation::Exec(exec) => write_exec(f, exec),
            Operation::Copy(copy) => write_copy(f, copy),
            Operation::MakeDir(dir) => write_dir(f, dir),
            Operation::Merge => f.write_str("merge"),
            Operation::Download(download) => write_download(f, download),
            Operation::Checkout(checkout) => write_checkout(f, checkout),
        }
    }
}

fn write_source(f: &mut Formatter<'_>, image: &ImageSource) -> fmt::Result {
    write!(f, "image {}", image.reference)
}

fn write_exec(f: &mut Formatter<'_>, exec: &Exec) -> fmt::Result {
    f.write_str("run")?;
    exec.arguments.iter().try_for_each(|argument| write!(f, " {}", go::quote(argument)))?;
    if exec.dir != "/" {
        write!(f, " in {}", one_line(&exec.dir))?;
    }
    if !exec.user.is_empty() {
        write!(f, " as {}", one_line(&exec.user))?;
    }
    write_environment(f, exec)?;
    match exec.network {
        Network::Bridge => {}
        Network::None => f.write_str(" network none")?,
        Network::Host => f.write_str(" network host")?,
    }
    exec.hosts.iter().try_for_each(|name| write!(f, " add-host {name}"))?;
    if exec.hostname != super::run::HOSTNAME {
        write!(f, " hostname {}", one_line(&exec.hostname))?;
    }
    if exec.is_insecure {
        f.write_str(" insecure")?;
    }
    for (name, required) in &exec.devices {
        write!(f, " device {name}{}", when(*required, " required"))?;
    }
    write_limits(f, &exec.limits)?;
    if let Some(platform) = &exec.platform {
        write!(f, " for {platform}")?;
    }
    if let Some((name, content)) = &exec.script {
        write!(f, " script {name} {}", go::quote(content))?;
    }
    exec.mounts.iter().try_for_each(|mount| write!(f, " {mount}"))
}

/// Writes the variables except the default `PATH`; proxies are in the program's environment but not in the key.
fn write_environment(f: &mut Formatter<'_>, exec: &Exec) -> fmt::Result {
    for entry in &exec.environment {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        if (name, value) != ("PATH", DEFAULT_PATH) {
            write!(f, " env {name}={}", go::quote(value))?;
        }
    }
    exec.proxies.iter().try_for_each(|entry| write!(f, " proxy {}", one_line(entry)))
}

fn write_limits(f: &mut Formatter<'_>, limits: &RunLimits) -> fmt::Result {
    let RunLimits { shm_size, ulimits, memory, memory_swap, cpu_shares, cpu_quota, cpu_period, .. } = limits;
    write_field(f, "shm-size", shm_size.as_ref())?;
    for (name, soft, hard) in ulimits {
        write!(f, " ulimit {name}={soft}:{hard}")?;
    }
    write_field(f, "memory", memory.as_ref())?;
    write_field(f, "memory-swap", memory_swap.as_ref())?;
    write_field(f, "cpu-shares", cpu_shares.as_ref())?;
    write_field(f, "cpu-quota", cpu_quota.as_ref())?;
    write_field(f, "cpu-period", cpu_period.as_ref())?;
    write_field(f, "cpuset-cpus", limits.cpus.as_ref())?;
    write_field(f, "cpuset-mems", limits.memory_nodes.as_ref())?;
    write_field(f, "cgroup-parent", limits.cgroup_parent.as_ref())
}

impl Display for StepMount {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let access = if self.readonly { "ro" } else { "rw" };
        write!(f, "mount {} {access} ", one_line(&self.target))?;
        match &self.source {
            MountSource::Files(files) => write!(f, "bind {files}"),
            MountSource::Host(path) => write!(f, "host {}", path.display()),
            MountSource::Tmpfs { size: 0 } => f.write_str("tmpfs"),
            MountSource::Tmpfs { size } => write!(f, "tmpfs of {size} bytes"),
            MountSource::Cache { .. } => write_cache(f, &self.source),
            MountSource::Secret { id, required, file, variable } => {
                write!(f, "secret {}{}", go::quote(id), when(*required, " required"))?;
                if let Some(file) = file {
                    write!(f, " file {}", mode_and_owner(*file))?;
                }
                write_field(f, "variable", variable.as_ref())
            }
            MountSource::Ssh { id, required, socket } => {
                let socket = mode_and_owner(*socket);
                write!(f, "ssh {}{} socket {socket}", go::quote(id), when(*required, " required"))
            }
        }
    }
}

fn write_cache(f: &mut Formatter<'_>, source: &MountSource) -> fmt::Result {
    let MountSource::Cache { id, given, sharing, mode, owner, seed } = source else { return Ok(()) };
    let sharing = match sharing {
        Sharing::Shared => "shared",
        Sharing::Private => "private",
        Sharing::Locked => "locked",
    };
    write!(f, "cache {} {sharing} {}", go::quote(id), mode_and_owner((*mode, *owner)))?;
    f.write_str(when(given.is_some(), " separate"))?;
    match seed {
        Some(files) => write!(f, " begins as {files}"),
        None => Ok(()),
    }
}

/// Numbers inputs from 0: input 0 is the step's own tree.
impl Display for Files {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Files::Tree(number) => write!(f, "tree of input {number}"),
            Files::Copy(number) => write!(f, "copy in input {number}"),
        }
    }
}

fn write_copy(f: &mut Formatter<'_>, copy: &Copy) -> fmt::Result {
    f.write_str("copy")?;
    copy.sources.iter().try_for_each(|source| write_copy_source(f, source))?;
    for (name, content) in &copy.inline {
        write!(f, " file {} {}", one_line(name), go::quote(content))?;
    }
    write!(f, " to {}", one_line(&copy.destination))?;
    write_field(f, "chown", copy.owner.as_ref())?;
    write_field(f, "chmod", copy.mode.as_ref().map(|mode| mode.text()))?;
    copy.exclude.iter().try_for_each(|pattern| write!(f, " exclude {}", one_line(pattern)))?;
    f.write_str(when(copy.parents, " with parents"))?;
    f.write_str(when(copy.whole, " whole"))?;
    write_field(f, "epoch", copy.epoch.as_ref())
}

fn write_copy_source(f: &mut Formatter<'_>, source: &CopySource) -> fmt::Result {
    let path = one_line(&source.path);
    match source.from {
        CopyFrom::Context(0) => write!(f, " {path}")?,
        CopyFrom::Context(number) => write!(f, " {path} of context {number}")?,
        CopyFrom::Input(number) => write!(f, " {path} of input {number}")?,
    }
    f.write_str(when(source.unpack, " unpacked"))
}

fn write_dir(f: &mut Formatter<'_>, dir: &MakeDir) -> fmt::Result {
    write!(f, "directory {}", one_line(&dir.path))?;
    if !dir.owner.is_empty() {
        write!(f, " of {}", one_line(&dir.owner))?;
    }
    write_field(f, "epoch", dir.epoch.as_ref())
}

fn write_download(f: &mut Formatter<'_>, download: &Download) -> fmt::Result {
    write!(f, "download {} as {}", one_line(&download.url), one_line(&download.name))?;
    write_field(f, "checksum", download.checksum.as_ref())
}

fn write_checkout(f: &mut Formatter<'_>, checkout: &Checkout) -> fmt::Result {
    let Checkout { remote, reference, commit, dir, .. } = checkout;
    write!(f, "checkout {}", one_line(remote))?;
    let given = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    write_field(f, "reference", given(reference))?;
    write_field(f, "commit", given(commit))?;
    write_field(f, "directory", given(dir))?;
    f.write_str(when(checkout.keeps_git, " with .git"))?;
    f.write_str(when(!checkout.submodules, " without submodules"))?;
    f.write_str(when(checkout.commit_times, " with times of the commit"))
}

fn write_field(f: &mut Formatter<'_>, name: &str, value: Option<impl Display>) -> fmt::Result {
    match value {
        Some(value) => write!(f, " {name} {}", one_line(&value.to_string())),
        None => Ok(()),
    }
}

fn when(condition: bool, text: &'static str) -> &'static str {
    if condition { text } else { "" }
}

/// Mode and owner as `0644 1000:1000`.
fn mode_and_owner((mode, (uid, gid)): (u32, (u32, u32))) -> String {
    format!("{mode:04o} {uid}:{gid}")
}

/// Escapes the control characters of a text.
fn one_line(text: &str) -> String {
    text.chars().fold(String::new(), |mut line, character| {
        let _ = match character.is_control() {
            true => write!(line, "{}", character.escape_default()),
            false => line.write_char(character),
        };
        line
    })
}
