//! Command lines that the reference engine has answered, and the comparison with Kiln's answers.
//!
//! `testdata/commands/*.cases` holds command lines that run one after the other in a shell, in one directory:
//!
//! ```text
//! $ docker kill done
//! ! Error response from daemon: cannot kill container: done: container <id> is not running
//! → 1
//! ~! ERROR: cannot kill container: done: it has ended
//! ```
//!
//! Lines with `| `, `! ` and `→ ` are the engine's standard output, standard error and exit code. Kiln's standard output
//! and exit code are the same; where they are not, `≠ ` has the reason, and `~| ` and `~→ ` are Kiln's. Messages may be worded
//! in another way: `~! ` records Kiln's when it is not that of the engine. The text above the first command describes
//! the file. Parts that differ from run to run have names: see [`VOLATILE`].

use anyhow::{Context, Result, bail};
use regex::Regex;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

/// Patterns of what differs from run to run, and the names that stand for it.
const VOLATILE: [(&str, &str); 11] = [
    ("[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}([.][0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})", "<time>"),
    ("[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8}([.][0-9]+)? [+-][0-9]{4} [A-Z]{3}", "<date>"),
    (r"(?-u:\b)[0-9a-f]{64}(?-u:\b)", "<id>"),
    (r"(?-u:\b)[0-9a-f]{12}(?-u:\b)", "<short id>"),
    (r"(About an?|Less than a|[0-9]+) (second|minute|hour|day|week|month|year)s?( ago)?(?-u:\b)", "<age>"),
    (r"(?-u:\b)[0-9]+([.][0-9]+)?[kMG]B(?-u:\b)", "<size>"),
    (r"(?-u:\b)[0-9]+([.][0-9]+)?[KMGT]iB(?-u:\b)", "<memory>"),
    (r"(?-u:\b)[0-9]+[.][0-9]+%", "<percent>"),
    (r"(?-u:\b)172[.]1[78][.][0-9]+[.][0-9]+(?-u:\b)", "<ip>"),
    (r"(?-u:\b)([0-9a-f]{2}:){5}[0-9a-f]{2}(?-u:\b)", "<mac>"),
    (", build [0-9a-f]+", ", build <commit>"),
];

/// Answer to a command line, with names for what differs from run to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Lines of standard output.
    pub out: Vec<String>,
    /// Lines of standard error.
    pub err: Vec<String>,
    /// Exit code; -1 after a signal.
    pub code: i32,
}

/// Command line with both answers.
#[derive(Clone, Debug, Default)]
pub struct Line {
    /// Text for the shell.
    pub command: String,
    /// Answer of the reference engine.
    pub reference: Answer,
    /// Reason of a difference in standard output or exit code.
    pub reason: Option<String>,
    /// Kiln's standard output where it differs.
    pub out: Option<Vec<String>>,
    /// Kiln's standard error where its message differs.
    pub err: Option<Vec<String>>,
    /// Kiln's exit code where it differs.
    pub code: Option<i32>,
}

/// File of command lines.
#[derive(Clone, Debug)]
pub struct File {
    /// Path of the file.
    pub path: PathBuf,
    /// Text above the first command line.
    pub head: String,
    /// Command lines in order.
    pub lines: Vec<Line>,
}

/// Reads all files of a directory, in the order of their names.
///
/// # Errors
///
/// Fails for files that cannot be read.
pub fn read_dir(dir: &Path) -> Result<Vec<File>> {
    let entries = fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "cases"));
    paths.sort();
    paths.into_iter().map(File::read).collect()
}

impl File {
    /// Reads one file.
    ///
    /// # Errors
    ///
    /// Fails for files that cannot be read, and for lines of no kind.
    pub fn read(path: PathBuf) -> Result<File> {
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let mut file = File { path, head: String::new(), lines: Vec::new() };
        for line in text.lines() {
            if let Some(command) = line.strip_prefix("$ ") {
                file.lines.push(Line { command: command.to_owned(), ..Line::default() });
            } else if let Some(last) = file.lines.last_mut() {
                last.add(line).with_context(|| format!("{}: {line}", file.path.display()))?;
            } else {
                file.head.push_str(&format!("{line}\n"));
            }
        }
        Ok(file)
    }

    /// Writes the file with its current answers.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be written.
    pub fn write(&self) -> Result<()> {
        let lines: Vec<String> = self.lines.iter().map(Line::text).collect();
        fs::write(&self.path, format!("{}{}", self.head, lines.join("\n")))
            .with_context(|| format!("writing {}", self.path.display()))
    }
}

impl Line {
    fn add(&mut self, line: &str) -> Result<()> {
        let (mark, text) = line.split_once(' ').unwrap_or((line, ""));
        let text = text.to_owned();
        match mark {
            "" => {}
            "|" => self.reference.out.push(text),
            "!" => self.reference.err.push(text),
            "→" => self.reference.code = text.parse()?,
            "≠" => self.reason = Some(text),
            "~|" => self.out.get_or_insert_default().push(text),
            "~!" => self.err.get_or_insert_default().push(text),
            "~→" => self.code = Some(text.parse()?),
            _ => bail!("a line of no kind"),
        }
        Ok(())
    }

    fn text(&self) -> String {
        let mut text = format!("$ {}\n", self.command);
        let mut add = |mark: &str, lines: &[String]| {
            lines
                .iter()
                .for_each(|line| text.push_str(&format!("{}\n", format!("{mark} {line}").trim_end())));
        };
        add("|", &self.reference.out);
        add("!", &self.reference.err);
        add("→", &[self.reference.code.to_string()]);
        add("≠", self.reason.as_slice());
        let empty = |lines: &Option<Vec<String>>| match lines {
            Some(lines) if lines.is_empty() => vec![String::new()],
            lines => lines.clone().unwrap_or_default(),
        };
        add("~|", &empty(&self.out));
        add("~!", &empty(&self.err));
        add("~→", self.code.map(|code| code.to_string()).as_slice());
        text
    }

    /// Describes what is wrong with Kiln's answer; `None` when it is as recorded, and each difference has a reason.
    pub fn problem(&self, kiln: &Answer) -> Option<String> {
        let mut expected = self.clone();
        expected.bless(kiln);
        let same = |left: &Option<Vec<String>>, right: &Option<Vec<String>>| {
            left.as_ref().map(|lines| trimmed(lines)) == right.as_ref().map(|lines| trimmed(lines))
        };
        let differs = expected.out.is_some() || expected.code.is_some();
        let is_known =
            same(&expected.out, &self.out) && same(&expected.err, &self.err) && expected.code == self.code;
        match (is_known, differs, &self.reason) {
            (true, true, Some(_)) | (true, false, None) => None,
            (true, true, None) => Some(format!("no reason for the difference:\n{}", expected.text())),
            (true, false, Some(_)) => Some(format!("it no longer differs:\n{}", expected.text())),
            (false, ..) => Some(format!("{}--- instead of\n{}", expected.text(), self.text())),
        }
    }

    /// Takes Kiln's answer as the right one; reasons remain to be written.
    pub fn bless(&mut self, kiln: &Answer) {
        let reference = &self.reference;
        self.out = (kiln.out != reference.out).then(|| kiln.out.clone());
        self.code = (kiln.code != reference.code).then_some(kiln.code);
        self.err = (gist(&kiln.err) != gist(&reference.err)).then(|| kiln.err.clone());
    }
}

/// Lines without the empty ones at the end.
fn trimmed(lines: &[String]) -> &[String] {
    let end = lines.iter().rposition(|line| !line.is_empty()).map_or(0, |last| last + 1);
    &lines[..end]
}

/// The message of an error: without prefixes, advice and usage, in lower case.
fn gist(lines: &[String]) -> Vec<String> {
    let advice = ["hint: ", "Run 'docker", "See 'docker", "Usage:", "Aliases:"];
    let is_message = |line: &&String| !line.is_empty() && !advice.iter().any(|start| line.starts_with(start));
    let message = |line: &String| {
        let mut rest = line.as_str();
        for prefix in ["ERROR: ", "docker: ", "Error response from daemon: ", "Error: "] {
            rest = rest.strip_prefix(prefix).unwrap_or(rest);
        }
        rest.replace(['"', '`'], "'").trim_end_matches('.').to_lowercase()
    };
    lines.iter().filter(is_message).map(message).collect()
}

/// Names instead of what differs from run to run. Columns of tables move with it, so their gaps get one width.
fn stable(text: &str) -> String {
    static PATTERNS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        VOLATILE.map(|(pattern, name)| (Regex::new(pattern).expect("a pattern"), name)).into()
    });
    static GAPS: LazyLock<Regex> = LazyLock::new(|| Regex::new("([^ \n]) {3,}").expect("a pattern"));
    let mut stable = text.to_owned();
    for (pattern, name) in PATTERNS.iter() {
        stable = pattern.replace_all(&stable, *name).into_owned();
    }
    if stable == text { stable } else { GAPS.replace_all(&stable, "$1   ").into_owned() }
}

/// Lines of an output; the working directory has the name `<dir>`.
fn lines_of(bytes: &[u8], dir: &Path) -> Vec<String> {
    let text = stable(&String::from_utf8_lossy(bytes).replace(&dir.display().to_string(), "<dir>"));
    let unended = (!text.is_empty() && !text.ends_with('\n')).then_some("⟨no line end⟩");
    text.lines().chain(unended).map(|line| line.trim_end().replace('\r', "⟨CR⟩")).collect()
}

/// Runs a command line in a shell that finds the engine's client as `docker` in the directory `programs`.
///
/// # Errors
///
/// Fails when the shell cannot be started.
pub fn ask(line: &str, dir: &Path, programs: &Path, prepare: &dyn Fn(&mut Command)) -> Result<Answer> {
    let mut shell = Command::new("timeout");
    shell.args(["60", "sh", "-c", line]).current_dir(dir).stdin(Stdio::null()).env_clear();
    prepare(&mut shell);
    shell.env("PATH", format!("{}:/usr/bin:/bin", programs.display())).env("HOME", dir).env("TZ", "UTC");
    let output = shell.output().context("running a shell")?;
    let code = output.status.code().unwrap_or(-1);
    Ok(Answer { out: lines_of(&output.stdout, dir), err: lines_of(&output.stderr, dir), code })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(out: &str, err: &str, code: i32) -> Answer {
        Answer {
            out: lines_of(out.as_bytes(), Path::new("/w")),
            err: lines_of(err.as_bytes(), Path::new("/w")),
            code,
        }
    }

    fn line(reference: Answer, reason: Option<&str>) -> Line {
        Line {
            command: "docker x".to_owned(),
            reference,
            reason: reason.map(str::to_owned),
            ..Line::default()
        }
    }

    #[test]
    fn what_is_volatile_has_names() {
        let id = "0123456789abcdef".repeat(4);
        let table = format!("{id}    \"sleep 5\"    Up 3 seconds      2.07MB (virtual 4.5MB)\n");
        assert_eq!(
            lines_of(table.as_bytes(), Path::new("/w")),
            ["<id>   \"sleep 5\"   Up <age>   <size> (virtual <size>)"]
        );
        assert_eq!(lines_of(b"a    b /w/x\n0B", Path::new("/w")), ["a    b <dir>/x", "0B", "⟨no line end⟩"]);
    }

    #[test]
    fn equal_answers_have_no_problem() {
        let reference =
            answer("x\n", "docker: Error response from daemon: No such image: x\n\nRun 'docker\n", 125);
        let case = line(reference, None);
        assert_eq!(case.problem(&answer("x\n", "ERROR: no such image: x\nhint: pull it\n", 125)), None);
    }

    #[test]
    fn differences_need_a_reason_and_a_record() {
        let reference = answer("x\n", "", 0);
        let other = answer("y\n", "", 1);
        assert!(line(reference.clone(), None).problem(&other).is_some());
        let mut known = line(reference.clone(), None);
        known.bless(&other);
        assert!(known.problem(&other).expect("a problem").starts_with("no reason"));
        known.reason = Some("on purpose".to_owned());
        assert_eq!(known.problem(&other), None);
        assert!(known.problem(&reference).is_some());
    }

    #[test]
    fn files_are_written_as_they_were_read() {
        let text = "What it is about.\n\n$ docker x\n| out\n! err\n→ 1\n≠ a reason\n~|\n~! other\n~→ 0\n\n$ docker y\n→ 0\n";
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x.cases");
        fs::write(&path, text).expect("a file");
        File::read(path.clone()).expect("a file").write().expect("a file");
        assert_eq!(fs::read_to_string(&path).expect("a file"), text);
    }
}
