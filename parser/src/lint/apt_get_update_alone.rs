//! AptGetUpdateAlone: a cached `apt-get update` leaves later installations with old package lists.

use super::shell;
use super::{Findings, Rule, View};
use crate::ast::Kind;

pub(super) static RULE: Rule = Rule {
    name: "AptGetUpdateAlone",
    summary: "Package lists and installation belong in one RUN",
    page: None,
    check,
};

fn check(view: &View<'_>, findings: &mut Findings) {
    const ADVICE: &str = "write apt-get update && apt-get install -y … in one RUN";
    let scripts = view.in_stages().map(|instruction| (instruction, shell::script(instruction)));
    let scripts: Vec<_> = scripts.filter_map(|(it, script)| Some((it, script?))).collect();
    let mut is_installed_later = false;
    let mut found = Vec::new();
    for (instruction, script) in scripts.into_iter().rev().filter(|(_, script)| script.contains("apt")) {
        let has_mounts = matches!(&instruction.kind, Kind::Run(run) if !run.mounts.is_empty());
        // The effect of other programs is unknown.
        let is_plain = !has_mounts && shell::commands(script).all(|words| PLAIN.contains(&words[0]));
        let has = |verbs: &[&str]| shell::commands(script).any(|words| verb(&words, verbs).is_some());
        if is_plain
            && is_installed_later
            && has(&["update"])
            && !INSTALLING.iter().any(|it| script.contains(it))
        {
            found.push((
                instruction.span,
                "apt-get update alone is cached: later installations get old packages",
            ));
        }
        if is_plain && !script.contains("update") && shell::commands(script).any(|words| needs_lists(&words))
        {
            found.push((instruction.span, "apt-get install without apt-get update in the same RUN"));
        }
        is_installed_later |= has(&INSTALLING);
    }
    for (span, message) in found.into_iter().rev() {
        findings.add(span, message);
        findings.hint(ADVICE);
    }
}

/// Verbs that need fresh package lists.
const INSTALLING: [&str; 7] =
    ["install", "upgrade", "dist-upgrade", "full-upgrade", "build-dep", "satisfy", "source"];
/// Options that take a value.
const WITH_VALUE: [&str; 6] = ["-o", "-c", "-t", "--option", "--config-file", "--target-release"];
/// Programs that neither fetch package lists nor install anything, and apt-get.
const PLAIN: &[&str] = &[
    ":", "apt", "apt-get", "apt-mark", "cat", "cd", "chmod", "chown", "cp", "date", "dpkg", "echo", "export",
    "find", "ln", "ls", "mkdir", "mv", "printf", "rm", "sed", "set", "sleep", "test", "touch", "true",
];

/// Arguments after one of `verbs` in a command of apt-get; `None` for other commands.
fn verb<'a>(words: &'a [&'a str], verbs: &[&str]) -> Option<&'a [&'a str]> {
    if !matches!(words.first(), Some(&"apt-get" | &"apt")) {
        return None;
    }
    let mut before = "";
    let verb = words.iter().skip(1).position(|word| {
        let takes = WITH_VALUE.contains(&std::mem::replace(&mut before, word));
        !takes && !word.starts_with('-')
    })?;
    verbs.contains(&words[verb + 1]).then(|| &words[verb + 2..])
}

/// True when packages are installed by name, and no option fetches the lists.
fn needs_lists(words: &[&str]) -> bool {
    let Some(packages) = verb(words, &["install"]) else { return false };
    let updates = words.iter().any(|it| it.starts_with('-') && !it.starts_with("--") && it.contains('U'));
    let is_name = |word: &str| !word.starts_with(['-', '$', '.', '/']) && !word.ends_with(".deb");
    !updates && packages.iter().any(|word| is_name(word))
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::RULE;

    #[test]
    fn problems_are_found() {
        check(&RULE, "FROM a\nRUN apt-get -o A=b update && apt-get -y upgrade\n", &[]);
        check(&RULE, "FROM a\nRUN apt-get update && rosdep install x\nRUN apt-get upgrade\n", &[]);
        let alone = "2:1 apt-get update alone is cached: later installations get old packages";
        let without = "3:1 apt-get install without apt-get update in the same RUN";
        check(&RULE, "FROM a\nRUN apt-get update\nRUN apt-get -y install b\n", &[alone, without]);
        check(&RULE, "FROM a\nRUN apt-get update && \\\n apt-get install -y b\n", &[]);
    }

    #[test]
    fn commands_with_unknown_effect_are_no_findings() {
        for script in [
            "apt install -y --update curl",
            "apt-get install -yU curl",
            "case \"$A\" in \"x\") apt-get update && apt install -y gcc ;; esac",
            "if true; then apt-get update; fi && apt-get install -y curl",
            "for i in 1 2; do apt-get update && break; done; apt-get install -y curl",
            "while ! apt-get update; do sleep 1; done; apt-get install -y curl",
            "timeout 60 apt-get update && apt-get install -y curl",
            "curl -fsSL https://deb.nodesource.com/setup_20.x | bash - && apt-get install -y nodejs",
            "./lists.sh && apt-get install -y curl",
            "add-apt-repository -y ppa:a/b && apt-get install -y curl",
            "apt-get install -y ./a.deb",
            "apt-get install -y -f",
            "apt-get update && rosdep install x",
            "apt-get update && if true; then apt-get install -y curl; fi",
        ] {
            check(&RULE, &format!("FROM a\nRUN {script}\n"), &[]);
        }
        check(&RULE, "FROM a\nRUN apt-get update\nCMD b\n", &[]);
    }
}
