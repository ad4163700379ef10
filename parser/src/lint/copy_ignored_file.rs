//! CopyIgnoredFile: files that the ignore file excludes cannot be copied.

use super::{Findings, Rule, View, scope};
use crate::ast::{CopySource, Kind};
use crate::expand::{self, Rules};
use crate::ignore::Patterns;

pub(super) static RULE: Rule = Rule {
    name: "CopyIgnoredFile",
    summary: "Attempting to Copy file that is excluded by .dockerignore",
    page: Some("copy-ignored-file"),
    check,
};

fn check(view: &View<'_>, findings: &mut Findings) {
    // With exceptions, files below a directory may be included again.
    let Some(ignore) = view.facts.ignore.as_ref().filter(|ignore| !ignore.has_exceptions()) else { return };
    let rules = Rules::value(view.file.directives.escape);
    scope::walk(view, &mut |instruction, scope| {
        let (name, sources) = match &instruction.kind {
            Kind::Copy(copy) if copy.from.is_none() => ("Copy", &copy.sources),
            Kind::Add(add) => ("Add", &add.sources),
            _ => return,
        };
        for source in sources {
            let CopySource::Path(text) = source else { continue };
            let Ok(path) = expand::expand(text.as_str(), scope, rules) else { continue };
            let is_remote = name == "Add" && (path.value.contains("://") || path.value.starts_with("git@"));
            // The base image may set a variable that is unset here.
            if is_remote || !path.missed.is_empty() {
                continue;
            }
            let path = cleaned(&path.value);
            if is_ignored(ignore, &path) {
                let message = format!("Attempting to {name} file {path:?} that is excluded by .dockerignore");
                findings.add(text.span(), message);
            }
        }
    });
}

/// True when the context has nothing at the path. The root is excluded only by patterns that match every name.
fn is_ignored(ignore: &Patterns, path: &str) -> bool {
    match path.strip_prefix('/') {
        None if path != "." => ignore.decide_without_parent(path).is_ignored(),
        // The reference builder matches such a path with its slash.
        _ => ignore.decide_without_parent("\u{1}-\u{1}").is_ignored(),
    }
}

/// Shortest equivalent path, as Go's `filepath.Clean` returns it.
fn cleaned(path: &str) -> String {
    let root = if path.starts_with('/') { "/" } else { "" };
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').filter(|part| !matches!(*part, "" | ".")) {
        match (part, parts.last()) {
            ("..", Some(&last)) if last != ".." => {
                parts.pop();
            }
            ("..", None) if !root.is_empty() => {}
            _ => parts.push(part),
        }
    }
    match format!("{root}{}", parts.join("/")) {
        empty if empty.is_empty() => ".".to_owned(),
        path => path,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, check_with};
    use super::RULE;

    #[test]
    fn problems_are_found() {
        let message = "2:6 Attempting to Copy file \"b.log\" that is excluded by .dockerignore";
        check_with(&RULE, "FROM a\nCOPY b.log c /\n", &["*.log"], &[message]);
        check_with(&RULE, "FROM a\nCOPY b.log c /\n", &["*.log", "!b.log"], &[]);
        check(&RULE, "FROM a\nCOPY b.log c /\n", &[]);
    }

    #[test]
    fn paths_in_findings_are_those_that_are_copied() {
        let of = |file: &str| format!("Attempting to Copy file {file:?} that is excluded by .dockerignore");
        let text = "FROM a\nARG V=x.log\nCOPY *.log ./y.log z/../x.log $V x.log/ /z.log $W /\nADD http://h/x.log /\n";
        let found = [
            format!("3:6 {}", of("*.log")),
            format!("3:12 {}", of("y.log")),
            format!("3:20 {}", of("x.log")),
            format!("3:31 {}", of("x.log")),
            format!("3:34 {}", of("x.log")),
        ];
        check_with(&RULE, text, &["*.log"], &found.each_ref().map(String::as_str));
        let all = [format!("2:6 {}", of(".")), format!("2:8 {}", of("/")), format!("2:10 {}", of("."))];
        for pattern in ["*", "**", "**/*"] {
            check_with(&RULE, "FROM a\nCOPY . / ./ /\n", &[pattern], &all.each_ref().map(String::as_str));
        }
        check_with(&RULE, "FROM a\nCOPY . / ./ /\n", &["a", ".*", "?"], &[]);
    }
}
