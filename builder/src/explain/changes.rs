//! Descriptions of the differences between the fields of two keys.

use crate::key::{InputChange, KeyInputs};
use std::collections::BTreeMap;

/// Maximum length of a value in characters; longer ones are cut.
const LONGEST: usize = 60;

/// Context of input names, for their descriptions.
#[derive(Clone, Copy, Default)]
pub(super) struct Names<'a> {
    /// ARGs in the environment of a RUN; true when `--build-arg` set the value.
    pub(super) arguments: &'a [(String, bool)],
}

impl Names<'_> {
    /// Description of the instruction or option that set a variable of RUN.
    fn variable(&self, name: &str) -> String {
        match self.arguments.iter().find(|(known, _)| known == name) {
            Some((_, true)) => format!("the build argument {name}"),
            Some((_, false)) => format!("ARG {name}"),
            None => format!("ENV {name}"),
        }
    }
}

/// Causes in a step's own inputs.
pub(super) fn of_step(kind: &str, now: &KeyInputs, before: &KeyInputs, names: &Names<'_>) -> Vec<String> {
    let mut causes = Vec::new();
    if kind == "run" {
        causes.extend(command(now, before));
    }
    let changes = now.changes_since(before);
    let is_file = |change: &&InputChange| change.name.starts_with("file ");
    let own = changes.iter().filter(|change| !is_file(change));
    causes.extend(own.filter_map(|change| describe(kind, change, names)));
    // The content of a step that was found by its definition is unknown.
    let files: Vec<&InputChange> = changes.iter().filter(is_file).collect();
    let has_both = now.value("content").is_some() && before.value("content").is_some();
    let content_changed = has_both && now.value("content") != before.value("content");
    if content_changed {
        let named = if before.has_files() && now.has_files() { of_files(&files) } else { Vec::new() };
        match (named.is_empty(), kind) {
            (false, _) => causes.extend(named),
            (true, "download") => causes.push("the downloaded file changed".to_owned()),
            (true, _) if causes.is_empty() => causes.push("the copied files changed".to_owned()),
            (true, _) => {}
        }
    }
    causes
}

/// Causes in the reference or layers of an image.
pub(super) fn of_image(now: &str, before: &str, inputs: &KeyInputs, others: &KeyInputs) -> Vec<String> {
    if inputs.changes_since(others).is_empty() {
        return Vec::new();
    }
    let name = |text: &str| text.strip_prefix("FROM ").unwrap_or(text).to_owned();
    let (now, before) = (name(now), name(before));
    if now == before {
        return vec![format!("the base image {} changed", short_image(&now))];
    }
    vec![format!("the base image changed: {} → {}", short_image(&before), short_image(&now))]
}

/// Reference of an image with the first digits of its digest.
fn short_image(name: &str) -> String {
    match name.split_once("@sha256:") {
        Some((name, digest)) => format!("{name}@sha256:{}", digest.chars().take(12).collect::<String>()),
        None => name.to_owned(),
    }
}

/// Mounts of files from other steps: mount targets, and the numbers of the inputs.
pub(super) fn mounted(inputs: &KeyInputs) -> Vec<(String, usize)> {
    let mounts = inputs.iter().filter_map(|(name, value)| {
        let target = name.strip_prefix("mount ")?;
        let (_, files) = value.split_once(" files ")?;
        let number = files.split_once(' ')?.1.parse().ok()?;
        Some((target.to_owned(), number))
    });
    mounts.collect()
}

/// Description of a changed command or shell of a RUN; `None` when neither has changed.
fn command(now: &KeyInputs, before: &KeyInputs) -> Option<String> {
    let words = |inputs: &KeyInputs| -> Vec<String> {
        let words = inputs.iter().filter(|(name, _)| name.starts_with("argument "));
        words.map(|(_, value)| value.to_owned()).collect()
    };
    let (now, before) = (words(now), words(before));
    if now == before {
        return None;
    }
    let shell = |words: &[String]| words.split_last().map(|(_, shell)| shell.to_vec()).unwrap_or_default();
    if shell(&now) == shell(&before) && now.len() > 1 {
        return Some(change("the command", before.last(), now.last()));
    }
    if now.last() == before.last() && now.len() > 1 && before.len() > 1 {
        return Some(change("SHELL", Some(&shell(&before).join(" ")), Some(&shell(&now).join(" "))));
    }
    Some(change("the command", Some(&before.join(" ")), Some(&now.join(" "))))
}

/// Description of the difference in one input; `None` for inputs that are described elsewhere.
fn describe(kind: &str, input: &InputChange, names: &Names<'_>) -> Option<String> {
    let (word, rest) = input.name.split_once(' ').unwrap_or((&input.name, ""));
    let told = |name: &str| Some(change(name, input.before.as_ref(), input.now.as_ref()));
    let root =
        |user: &Option<String>| user.clone().map(|user| if user.is_empty() { "root".into() } else { user });
    match (kind, word) {
        (_, "base" | "tree" | "argument" | "content" | "step" | "file" | "layer" | "warning") => None,
        ("run", "variable") => told(&names.variable(rest)),
        ("run", "directory") => told("the working directory"),
        ("run", "user") => Some(change("USER", root(&input.before).as_ref(), root(&input.now).as_ref())),
        ("run", "mount") => told(&format!("the mount {rest}")),
        ("run", "script") => Some(format!("the script {rest} changed")),
        ("run", "add-host") => told("--add-host"),
        ("run", "hostname") => told("the host name"),
        ("run", "shm-size") => told("--shm-size"),
        ("run", "cgroup-parent") => told("--cgroup-parent"),
        ("run", "ulimit") => told(&format!("--ulimit {rest}")),
        ("copy", "source") => {
            let path = |value: &Option<String>| value.as_ref().map(|value| shown_source(value));
            let (before, now) = (path(&input.before), path(&input.now));
            Some(change("the source", before.as_ref(), now.as_ref()))
        }
        ("copy", "destination") => told("the destination"),
        ("copy", "owner") => told("--chown"),
        ("copy", "mode") => told("--chmod"),
        ("copy", "exclude") => told("--exclude"),
        ("copy", "inline") => Some(format!("the heredoc {rest} changed")),
        ("copy", "parents") => Some("--parents was added or removed".to_owned()),
        ("directory", "path") => told("the directory"),
        ("directory", "owner") => {
            Some(change("USER", root(&input.before).as_ref(), root(&input.now).as_ref()))
        }
        (_, "epoch") => told("SOURCE_DATE_EPOCH"),
        ("download", "time") => told("the time of the downloaded file"),
        _ => told(&format!("the {}", input.name)),
    }
}

/// Extracts the path from a source, such as `/a` from `context /a unpacked`.
fn shown_source(value: &str) -> String {
    let path = value.split_once(' ').map_or(value, |(_, path)| path);
    path.strip_suffix(" unpacked").unwrap_or(path).to_owned()
}

/// Formats `NAME changed from A to B`, or that the value is new or was removed.
fn change(name: &str, before: Option<&String>, now: Option<&String>) -> String {
    match (before, now) {
        (Some(before), Some(now)) => {
            let (before, now) = excerpts(before, now);
            format!("{name} changed from `{before}` to `{now}`")
        }
        (None, Some(now)) => format!("{name} is new: `{}`", excerpts(now, now).0),
        (_, None) => format!("{name} is gone"),
    }
}

/// Two values, cut around their first difference when they are long.
fn excerpts(before: &str, now: &str) -> (String, String) {
    let (before, now): (Vec<char>, Vec<char>) = (before.chars().collect(), now.chars().collect());
    let common = before.iter().zip(&now).take_while(|(a, b)| a == b).count();
    let is_long = before.len().max(now.len()) > LONGEST;
    // Some equal text before the difference shows its location.
    let start = if is_long && before != now { common.saturating_sub(LONGEST / 4) } else { 0 };
    let cut = |text: &[char]| -> String {
        let rest = &text[start.min(text.len())..];
        let shown: String = rest.iter().take(LONGEST).map(|c| if *c == '\n' { ' ' } else { *c }).collect();
        let (front, back) = (if start > 0 { "…" } else { "" }, if rest.len() > LONGEST { "…" } else { "" });
        format!("{front}{shown}{back}")
    };
    (cut(&before), cut(&now))
}

/// Facts about a copied file, in the format of [`crate::content::FilesDigest`]: kind, mode, owner and digest.
struct Facts<'a> {
    kind: &'a str,
    mode: &'a str,
    owner: &'a str,
    digest: &'a str,
}

impl Facts<'_> {
    fn read(text: &str) -> Option<Facts<'_>> {
        let mut words = text.split(' ');
        let mut word = || words.next();
        Some(Facts { kind: word()?, mode: word()?, owner: word()?, digest: word()? })
    }
}

/// Descriptions of the files that differ; a removed file and a new one with the same content are a renamed file.
fn of_files(changes: &[&InputChange]) -> Vec<String> {
    let mut gone: BTreeMap<&str, Vec<&InputChange>> = BTreeMap::new();
    for change in changes.iter().filter(|change| change.now.is_none()) {
        gone.entry(change.before.as_deref().unwrap_or_default()).or_default().push(change);
    }
    let path = |change: &InputChange| change.name["file ".len()..].to_owned();
    let mut causes = Vec::new();
    for input in changes.iter().filter(|change| change.now.is_some()) {
        let (before, now) = (input.before.as_deref(), input.now.as_deref().unwrap_or_default());
        let path_now = path(input);
        match before {
            Some(before) => causes.extend(of_file(&path_now, before, now)),
            None => match gone.get_mut(now).and_then(Vec::pop) {
                Some(old) => causes.push(format!("{} was renamed to {path_now}", noun(now, &path(old)))),
                None => causes.push(format!("{} is new", noun(now, &path_now))),
            },
        }
    }
    let mut left: Vec<&InputChange> = gone.into_values().flatten().collect();
    left.sort_by_key(|change| change.name.clone());
    let text = |change: &&InputChange| change.before.clone().unwrap_or_default();
    causes.extend(left.iter().map(|change| format!("{} is gone", noun(&text(change), &path(change)))));
    causes
}

fn noun(facts: &str, path: &str) -> String {
    let kind = match Facts::read(facts).map(|facts| facts.kind) {
        Some("d") => "directory",
        Some("l") => "link",
        _ => "file",
    };
    format!("{kind} {path}")
}

fn of_file(path: &str, before: &str, now: &str) -> Vec<String> {
    let (Some(old), Some(new)) = (Facts::read(before), Facts::read(now)) else {
        return vec![format!("file {path} changed")];
    };
    if old.kind != new.kind {
        let (old, new) = (noun(before, ""), noun(now, ""));
        return vec![format!(
            "{path} changed from {}to {}",
            with_article(&old),
            with_article(&new).trim_end()
        )];
    }
    let name = noun(now, path);
    let mut causes = Vec::new();
    if old.digest != new.digest {
        causes.push(format!("{name} changed"));
    }
    if old.mode != new.mode {
        causes.push(format!("{name}: mode {} → {}", old.mode, new.mode));
    }
    if old.owner != new.owner {
        causes.push(format!("{name}: owner {} → {}", old.owner, new.owner));
    }
    causes
}

fn with_article(noun: &str) -> String {
    format!("a {noun}")
}
