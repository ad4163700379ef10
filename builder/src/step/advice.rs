//! Advice about a failed RUN, from its command and the files that the command names.

use crate::graph::{Exec, MountSource};
use kiln_image::tree::Tree;
use std::collections::BTreeSet;

/// Number of bytes read of a file.
const HEAD: u64 = 64 << 10;
/// Number of words of a command that are looked up as files.
const MAX_WORDS: usize = 200;

/// Advice about a command that ended with `code`; `missing` is advice about secrets and sockets that were not passed.
pub(super) fn advice(exec: &Exec, tree: &Tree, code: i32, missing: &[String]) -> Vec<String> {
    let mut advice = missing.to_vec();
    advice.extend(of_files(exec, tree));
    advice.extend(of_text(exec, code));
    if advice.is_empty() {
        advice.extend(of_code(code, exec.limits.memory.filter(|limit| *limit > 0)));
    }
    advice
}

/// Advice about a program that could not be started for `reason`.
pub(super) fn start_advice(exec: &Exec, tree: &Tree, reason: &str) -> Vec<String> {
    let found: Vec<String> = of_files(exec, tree).into_iter().collect();
    if !found.is_empty() {
        return found;
    }
    let program = exec.arguments.first().map_or("", String::as_str);
    if reason.contains("unable to find user") || reason.contains("unable to find group") {
        return vec![
            "create the user in an earlier RUN, for example with adduser, or write its number".to_owned(),
        ];
    }
    let Some(bytes) = find(exec, tree, program) else {
        return vec![format!(
            "the image has no {program}: install it in an earlier step, check its name, or name another shell with SHELL"
        )];
    };
    match bytes.starts_with(b"#!") || bytes.starts_with(b"\x7fELF") {
        true => vec![format!("make {program} executable: chmod +x, or copy it with --chmod=755")],
        false => {
            vec![format!("{program} is no program, and a script must begin with #! and its interpreter")]
        }
    }
}

/// Problem of the first faulty file that the command names; `None` when there is no faulty file.
fn of_files(exec: &Exec, tree: &Tree) -> Option<String> {
    let words = words(exec);
    words.iter().take(MAX_WORDS).find_map(|word| {
        let bytes = find(exec, tree, word)?;
        of_file(exec, tree, word, &bytes)
    })
}

fn of_file(exec: &Exec, tree: &Tree, name: &str, bytes: &[u8]) -> Option<String> {
    if let Some(loader) = loader(bytes) {
        return tree.read_file(loader.as_bytes(), 1).ok()?.is_none().then(|| {
            format!(
                "{name} needs the loader {loader}, which the image lacks: it was built for another C library"
            )
        });
    }
    let text = std::str::from_utf8(bytes)
        .or_else(|error| std::str::from_utf8(&bytes[..error.valid_up_to()]))
        .ok()?;
    let is_script = text.starts_with("#!");
    let line = text.lines().next().unwrap_or_default();
    let has_cr = text.split_inclusive('\n').next().is_some_and(|line| line.ends_with("\r\n"));
    if has_cr && (is_script || text.lines().count() > 1) {
        return Some(format!(
            "{name} has Windows line ends (CR LF), which the shell takes for a part of names: convert it with \
             `sed -i 's/\\r$//' {name}` or dos2unix, or have git keep LF with `*.sh eol=lf` in .gitattributes"
        ));
    }
    if !is_script {
        return None;
    }
    let mut interpreter = line[2..].split_whitespace();
    let program = interpreter.next()?;
    if find(exec, tree, program).is_none() {
        return Some(format!(
            "{name} needs the interpreter {program}, which the image lacks: install it in an earlier step, or change its first line"
        ));
    }
    let is_env = program.ends_with("/env");
    let named = interpreter.find(|word| is_env && !word.starts_with('-') && !word.contains('='))?;
    find(exec, tree, named).is_none().then(|| {
        format!("{name} needs the interpreter {named}, which the image lacks: install it in an earlier step, or change its first line")
    })
}

/// First bytes of the file that a word names, as a path or as a program in PATH; `None` when there is none.
fn find(exec: &Exec, tree: &Tree, word: &str) -> Option<Vec<u8>> {
    let read = |path: String| tree.read_file(path.as_bytes(), HEAD).ok().flatten();
    if word.starts_with('/') {
        return read(word.to_owned());
    }
    if word.contains('/') {
        return read(format!("{}/{word}", exec.dir));
    }
    let path = exec.environment.iter().find_map(|variable| variable.strip_prefix("PATH="));
    path.unwrap_or_default().split(':').find_map(|directory| read(format!("{directory}/{word}")))
}

/// Words of a command that may name programs and scripts: paths first, then the rest.
fn words(exec: &Exec) -> Vec<&str> {
    let separators = [' ', '\t', '\n', ';', '&', '|', '(', ')', '"', '\'', '<', '>', '`', '$', '{', '}', '='];
    let texts =
        exec.arguments.iter().map(String::as_str).chain(exec.script.iter().map(|(_, text)| text.as_str()));
    let words = texts
        .flat_map(|text| text.split(separators))
        .filter(|word| !word.is_empty() && !word.starts_with('-'));
    let words: BTreeSet<&str> = words.collect();
    let (mut paths, others): (Vec<&str>, Vec<&str>) = words.into_iter().partition(|word| word.contains('/'));
    paths.extend(others);
    paths
}

/// Loader of a 64-bit ELF file (`PT_INTERP`); `None` for static programs and other files.
fn loader(bytes: &[u8]) -> Option<&str> {
    const INTERPRETER: u64 = 3;
    let number = |at: usize, length: usize| -> Option<u64> {
        let part = bytes.get(at..at.checked_add(length)?)?;
        Some(part.iter().rev().fold(0, |number, byte| (number << 8) | u64::from(*byte)))
    };
    if !bytes.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for index in 0..count {
        let at = usize::try_from(table.checked_add(index * size)?).ok()?;
        if number(at, 4)? == INTERPRETER {
            let start = usize::try_from(number(at + 8, 8)?).ok()?;
            let length = usize::try_from(number(at + 32, 8)?).ok()?;
            let text = bytes.get(start..start.checked_add(length)?)?;
            return std::str::from_utf8(text).ok().map(|text| text.trim_end_matches('\0'));
        }
    }
    None
}

/// Advice from the text of the command; `None` when it shows no known problem.
fn of_text(exec: &Exec, code: i32) -> Option<String> {
    /// Exit code of apt-get for any error.
    const APT: i32 = 100;
    let text = exec.arguments.last().map(|text| text.trim())?;
    let is_shell = exec.arguments.iter().rev().nth(1).is_some_and(|flag| flag == "-c");
    let is_test = text.starts_with("[ ") || text.starts_with("[[");
    if is_shell && text.starts_with('[') && text.ends_with(']') && !is_test {
        return Some(format!(
            "{text} is not read as JSON, but run by the shell: a JSON array has its strings in double quotes, commas \
             between them, and none behind the last"
        ));
    }
    let script = exec.script.as_ref().map_or(text, |(_, script)| script.as_str());
    let uses_apt = ["apt-get", "apt "].iter().any(|name| script.contains(name)) && script.contains("install");
    if code == APT && uses_apt {
        return Some(match script.contains("update") {
            true => "check the names of the packages for this release, or whether the mirror can be reached"
                .to_owned(),
            false => {
                "the image has no package lists: write apt-get update && apt-get install -y … in one RUN"
                    .to_owned()
            }
        });
    }
    None
}

fn of_code(code: i32, memory: Option<i64>) -> Option<String> {
    match (code, memory) {
        (127, _) => {
            Some("a command was not found: install it in an earlier step, or check its name".to_owned())
        }
        (126, _) => Some(
            "a file was found but is not executable: chmod +x it, or copy it with --chmod=755".to_owned(),
        ),
        (137, Some(limit)) => Some(format!(
            "the program was killed (SIGKILL): the step may use {} MiB of memory; raise the limit with --memory",
            limit >> 20
        )),
        (137, None) => Some("the program was killed (SIGKILL): often the host had no memory left".to_owned()),
        _ => None,
    }
}

/// Options for the secrets and sockets of a step that were not passed; `has` is true for those that were.
pub(super) fn not_passed(exec: &Exec, has: impl Fn(&'static str, &str) -> bool) -> Vec<String> {
    let missing = exec.mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::Secret { id, .. } if !has("secret", id) => Some(format!(
            "the secret {id} was not passed to this build: use --secret id={id},src=FILE or --secret id={id},env=NAME"
        )),
        MountSource::Ssh { id, .. } if !has("ssh", id) => {
            Some(format!("no ssh agent was passed to this build: use --ssh {id}"))
        }
        _ => None,
    });
    missing.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Network, RunLimits};
    use std::os::unix::fs::PermissionsExt;

    fn exec(arguments: &[&str]) -> Exec {
        Exec {
            arguments: arguments.iter().map(|&it| it.to_owned()).collect(),
            environment: vec!["PATH=/usr/bin:/bin".to_owned()],
            declared: Vec::new(),
            proxies: Vec::new(),
            dir: "/work".to_owned(),
            user: String::new(),
            network: Network::None,
            script: None,
            hosts: Vec::new(),
            hostname: String::new(),
            is_insecure: false,
            devices: Vec::new(),
            limits: RunLimits::default(),
            platform: None,
            mounts: Vec::new(),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "files of a test")]
    fn tree() -> (tempfile::TempDir, Tree) {
        let root = tempfile::tempdir().unwrap();
        let elf = {
            let mut elf = vec![0; 64 + 56];
            elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
            (elf[32], elf[54], elf[56]) = (64, 56, 1);
            (elf[64], elf[64 + 8], elf[64 + 32]) = (3, 120, 10);
            elf.extend(b"/lib/ld.so");
            elf
        };
        let files: [(&str, &[u8]); 9] = [
            ("bin/sh", b"\x7fELF"),
            ("crlf.sh", b"#!/bin/sh\r\necho\r\n"),
            ("work/plain", b"echo a\r\necho b\r\n"),
            ("bin/tool", b"#!/usr/bin/python3\n"),
            ("env.sh", b"#!/usr/bin/env -S node --x\n"),
            ("usr/bin/env", b"\x7fELF"),
            ("fine.sh", b"#!/bin/sh -e\n"),
            ("glibc", &elf),
            ("text", b"words"),
        ];
        for (path, bytes) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, bytes).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        let tree = Tree::open(root.path()).unwrap();
        (root, tree)
    }

    #[test]
    fn causes_are_named() {
        let (_root, tree) = tree();
        for (command, code, expected) in [
            ("/crlf.sh", 127, "/crlf.sh has Windows line ends"),
            ("echo x && sh ./plain", 2, "./plain has Windows line ends"),
            ("tool --flag", 127, "tool needs the interpreter /usr/bin/python3, which the image lacks"),
            ("/env.sh", 127, "/env.sh needs the interpreter node"),
            ("/fine.sh; nothing", 127, "a command was not found"),
            ("/glibc", 127, "/glibc needs the loader /lib/ld.so, which the image lacks"),
            ("['echo', 'a']", 127, "is not read as JSON"),
            ("[\"echo\",]", 127, "none behind the last"),
            ("[ -f x ]", 1, ""),
            ("apt-get install -y curl", 100, "the image has no package lists"),
            ("apt-get update && apt-get install -y crul", 100, "check the names of the packages"),
            ("exit 3", 3, ""),
        ] {
            let found = advice(&exec(&["/bin/sh", "-c", command]), &tree, code, &[]).join("\n");
            assert!(
                found.contains(expected) && found.is_empty() == expected.is_empty(),
                "{command}: {found}"
            );
        }
        let mut limited = exec(&["/bin/sh", "-c", "x"]);
        limited.limits.memory = Some(16 << 20);
        assert!(
            advice(&limited, &tree, 137, &[])[0].contains("16 MiB of memory; raise the limit with --memory")
        );
    }

    #[test]
    fn programs_that_do_not_start_are_explained() {
        let (_root, tree) = tree();
        for (program, reason, expected) in [
            ("/bin/bash", "no such file", "the image has no /bin/bash"),
            ("/crlf.sh", "no such file", "Windows line ends"),
            ("/text", "exec format error", "must begin with #!"),
            ("/fine.sh", "permission denied", "make /fine.sh executable"),
            ("/bin/sh", "unable to find user x", "create the user in an earlier RUN"),
        ] {
            let found = start_advice(&exec(&[program]), &tree, reason);
            assert!(found.iter().any(|it| it.contains(expected)), "{program}: {found:?}");
        }
    }
}
