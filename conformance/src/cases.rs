//! Files of test cases.
//!
//! ```text
//! === name: the rule in a sentence
//! FROM busybox
//! RUN true
//! → from "busybox"
//! → run shell "true"
//! → reference: accepted
//! ```
//!
//! Lines that begin with `→ ` are expectations, those above them the Dockerfile. Characters that cannot be seen have
//! names: `⟨CR⟩`, `⟨TAB⟩`, `⟨SP⟩`, `⟨BOM⟩`, `⟨NUL⟩`, `⟨VT⟩`, `⟨NBSP⟩`, `⟨FF⟩` (the byte 0xff), `⟨100*x⟩` (a hundred
//! times x), and `⟨END⟩` for a file that does not end in a line feed.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// Prefix of lines with expectations.
const ARROW: &str = "→ ";
/// Prefix of the expectation about the reference builder.
pub const REFERENCE: &str = "reference: ";

/// A file of cases.
#[derive(Clone, Debug)]
pub struct CaseFile {
    /// Path of the file.
    pub path: PathBuf,
    /// Text before the first case.
    pub head: String,
    /// Cases in file order.
    pub cases: Vec<Case>,
}

/// A small Dockerfile and its expected results.
#[derive(Clone, Debug)]
pub struct Case {
    /// Name of the case.
    pub name: String,
    /// Rule that the case shows, in one sentence.
    pub rule: String,
    /// Dockerfile with names for invisible characters.
    pub text: String,
    /// Expected dump of Kiln's tree, in lines.
    pub expected: Vec<String>,
    /// Answer of the reference builder; `None` when it is not recorded.
    pub reference: Option<String>,
}

/// Reads all files of a directory, in the order of their names.
pub fn read_dir(dir: &Path) -> Result<Vec<CaseFile>> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "cases"));
    paths.sort();
    paths.iter().map(|path| CaseFile::read(path)).collect()
}

impl CaseFile {
    /// Reads one file of cases.
    pub fn read(path: &Path) -> Result<CaseFile> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let mut file = CaseFile { path: path.to_owned(), head: String::new(), cases: Vec::new() };
        for line in text.split_inclusive('\n') {
            if let Some(title) = line.strip_prefix("=== ") {
                let Some((name, rule)) = title.trim_end().split_once(": ") else {
                    bail!("{}: a case without a rule: {title}", path.display());
                };
                file.cases.push(Case::new(name, rule));
                continue;
            }
            match file.cases.last_mut() {
                None => file.head.push_str(line),
                Some(case) => case.add_line(line),
            }
        }
        for case in &mut file.cases {
            // The blank line before the next case.
            if case.expected.is_empty() && case.reference.is_none() && case.text.ends_with("\n\n") {
                case.text.pop();
            }
        }
        Ok(file)
    }

    /// Writes the file with its current cases.
    pub fn write(&self) -> Result<()> {
        let mut text = self.head.clone();
        for (number, case) in self.cases.iter().enumerate() {
            if number > 0 {
                text.push('\n');
            }
            text.push_str(&format!("=== {}: {}\n{}", case.name, case.rule, case.text));
            let reference = case.reference.iter().map(|reference| format!("{REFERENCE}{reference}"));
            for line in case.expected.iter().cloned().chain(reference) {
                text.push_str(&format!("{ARROW}{line}\n"));
            }
        }
        std::fs::write(&self.path, text).with_context(|| format!("writing {}", self.path.display()))
    }
}

impl Case {
    fn new(name: &str, rule: &str) -> Case {
        let (name, rule) = (name.to_owned(), rule.to_owned());
        Case { name, rule, text: String::new(), expected: Vec::new(), reference: None }
    }

    fn add_line(&mut self, line: &str) {
        match line.strip_prefix(ARROW).map(str::trim_end) {
            Some(expected) => match expected.strip_prefix(REFERENCE) {
                Some(reference) => self.reference = Some(reference.to_owned()),
                None => self.expected.push(expected.to_owned()),
            },
            None if self.expected.is_empty() && self.reference.is_none() => self.text.push_str(line),
            // The blank line before the next case.
            None => {}
        }
    }

    /// Bytes of the Dockerfile.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut rest = match self.text.find("⟨END⟩") {
            Some(end) => &self.text[..end],
            None => self.text.as_str(),
        };
        while let Some(start) = rest.find('⟨') {
            bytes.extend_from_slice(&rest.as_bytes()[..start]);
            let inner = &rest[start + '⟨'.len_utf8()..];
            let end = inner.find('⟩').unwrap_or(inner.len());
            bytes.extend(named(&inner[..end]));
            rest = inner.get(end + '⟩'.len_utf8()..).unwrap_or_default();
        }
        bytes.extend_from_slice(rest.as_bytes());
        bytes
    }
}

/// Bytes of a name between `⟨` and `⟩`.
fn named(name: &str) -> Vec<u8> {
    match name {
        "CR" => b"\r".to_vec(),
        "TAB" => b"\t".to_vec(),
        "SP" => b" ".to_vec(),
        "BOM" => "\u{feff}".as_bytes().to_vec(),
        "NUL" => b"\0".to_vec(),
        "VT" => b"\x0b".to_vec(),
        "NBSP" => "\u{a0}".as_bytes().to_vec(),
        "FF" => vec![0xff],
        other => match other.split_once('*') {
            Some((count, text)) => text.repeat(count.parse().unwrap_or(0)).into_bytes(),
            None => format!("⟨{other}⟩").into_bytes(),
        },
    }
}
