//! MissingCacheMount: a changed RUN starts with an empty cache; a cache mount persists, and is not part of a layer.

use super::shell;
use super::{Findings, Rule, View};
use crate::ast::Kind;

pub(super) static RULE: Rule = Rule {
    name: "MissingCacheMount",
    summary: "A package manager without a cache mount fetches everything again",
    page: None,
    check,
};

/// Package managers: program, words that make it fetch, and its cache directory.
const MANAGERS: [(&str, &[&str], &str); 9] = [
    ("pip", &["install"], "/root/.cache/pip"),
    ("pip3", &["install"], "/root/.cache/pip"),
    ("npm", &["ci", "install"], "/root/.npm"),
    ("yarn", &["install"], "/usr/local/share/.cache/yarn"),
    ("cargo", &["build", "install", "fetch"], "/usr/local/cargo/registry"),
    ("go", &["build", "install", "mod"], "/root/.cache/go-build"),
    ("bundle", &["install"], "/usr/local/bundle/cache"),
    ("composer", &["install"], "/root/.composer/cache"),
    ("mvn", &["package", "install"], "/root/.m2"),
];

/// Options that prevent downloads.
const FETCHES_NOTHING: [&str; 4] = ["--no-index", "--no-deps", "--offline", "--prefer-offline"];

fn check(view: &View<'_>, findings: &mut Findings) {
    for instruction in view.in_stages() {
        let Kind::Run(run) = &instruction.kind else { continue };
        let has_cache = run.mounts.iter().any(|mount| mount.text.as_str().contains("type=cache"));
        let Some(script) = shell::script(instruction).filter(|script| !has_cache && names_one(script)) else {
            continue;
        };
        let found = shell::commands(script).find_map(|words| {
            if words.iter().any(|word| FETCHES_NOTHING.contains(word)) {
                return None;
            }
            let second = words.iter().skip(1).find(|word| !word.starts_with('-'))?;
            MANAGERS.iter().find(|(program, verbs, _)| words[0] == *program && verbs.contains(second))
        });
        if let Some((program, _, dir)) = found {
            findings.add(
                instruction.keyword.span(),
                format!("{program} fetches everything again when this step runs"),
            );
            findings.hint(format!("add --mount=type=cache,target={dir}"));
        }
    }
}

/// False when no package manager can be among the commands; saves the closer look at most scripts.
fn names_one(script: &str) -> bool {
    MANAGERS.iter().any(|(program, _, _)| script.contains(program))
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::RULE;

    #[test]
    fn problems_are_found() {
        let message = "2:1 pip fetches everything again when this step runs";
        check(&RULE, "FROM a\nRUN b && pip --quiet install c\n", &[message]);
        check(&RULE, "FROM a\nRUN --mount=type=cache,target=/x pip install c\nRUN pip list\n", &[]);
    }
}
