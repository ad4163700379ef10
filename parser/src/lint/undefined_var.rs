//! UndefinedVar: a variable that is never set is empty, and the build continues.

use super::{Findings, Rule, View, scope};
use crate::Text;
use crate::ast::{Instruction, Kind};
use crate::expand::{self, Rules};
use crate::span::Span;
use crate::suggest;
use std::collections::BTreeMap;

pub(super) static RULE: Rule = Rule {
    name: "UndefinedVar",
    summary: "Variables should be defined before their use",
    page: Some("undefined-var"),
    check,
};

/// Number of names that a misspelt one is compared with; bounds the time for hostile files.
const MAX_NAMES: usize = 300;

fn check(view: &View<'_>, findings: &mut Findings) {
    let escape = view.file.directives.escape;
    scope::walk(view, &mut |instruction, scope| {
        let missed = missed(instruction, scope, escape);
        for (name, span) in missed {
            if scope.is_declared(&name) || is_builder_setting(&name) {
                continue;
            }
            let near = suggest::nearest_variable(&name, scope.names().take(MAX_NAMES));
            if scope.is_open() && near.is_none() {
                // The base image may set it.
                continue;
            }
            let near = near.map(|near| format!(" (did you mean ${near}?)")).unwrap_or_default();
            findings.add(span, format!("Usage of undefined variable '${name}'{near}"));
        }
    });
}

/// True for settings of the builder, which files may name without declaring them.
fn is_builder_setting(name: &str) -> bool {
    matches!(name, "BUILDKIT_SBOM_SCAN_CONTEXT" | "BUILDKIT_SBOM_SCAN_STAGE")
}

/// Unset variables that an instruction reads, each with its first span.
fn missed(instruction: &Instruction, scope: &scope::Scope, escape: char) -> BTreeMap<String, Span> {
    let mut missed = BTreeMap::new();
    for (number, text) in instruction.kind.expanded().into_iter().enumerate() {
        let Some(expansion) = text
            .as_str()
            .contains('$')
            .then(|| expand::expand(text.as_str(), scope, Rules::value(escape)).ok())
            .flatten()
        else {
            continue;
        };
        for name in expansion.missed {
            let span = name_span(text, &name);
            if !is_set_before(&instruction.kind, number, &name) {
                missed.entry(name).or_insert(span);
            }
        }
    }
    let takes_bodies = matches!(instruction.kind, Kind::Copy(_) | Kind::Add(_));
    let bodies = instruction.heredocs.iter().filter(|heredoc| takes_bodies && heredoc.expand);
    for heredoc in bodies.filter(|heredoc| heredoc.content.contains('$')) {
        let Ok(expansion) = expand::expand(&heredoc.content, scope, Rules::heredoc_body()) else { continue };
        expansion.missed.into_iter().for_each(|name| {
            missed.entry(name).or_insert(heredoc.word);
        });
    }
    missed
}

/// True when an ARG sets the variable further to the left; `number` counts its defaults.
fn is_set_before(kind: &Kind, number: usize, name: &str) -> bool {
    let Kind::Arg(items) = kind else { return false };
    let current = items.iter().enumerate().filter(|(_, item)| item.value.is_some()).nth(number);
    let before = current.map_or(&items[..0], |(index, _)| &items[..index]);
    before.iter().any(|item| item.key.as_str() == name)
}

/// Span of a variable's name in a text.
fn name_span(text: &Text, name: &str) -> Span {
    let forms = [format!("${{{name}"), format!("${name}")];
    let found = forms.iter().find_map(|form| Some((text.as_str().find(form.as_str())?, form.len())));
    found.map_or(text.span(), |(at, length)| text.span_of(at..at + length))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, check_facts};
    use super::super::{BaseFacts, Facts};
    use super::RULE;
    use std::collections::BTreeMap;

    #[test]
    fn problems_are_found() {
        check(
            &RULE,
            "FROM scratch\nENV A=${X:-1} B=$A\n",
            &["2:17 Usage of undefined variable '$A'", "2:7 Usage of undefined variable '$X'"],
        );
        check(
            &RULE,
            "FROM scratch\nENV V=1\nUSER x$W\n",
            &["3:7 Usage of undefined variable '$W' (did you mean $V?)"],
        );
        check(&RULE, "ARG V=1\nFROM scratch AS a\nARG U V=$U\nFROM a\nENV X=$U$V$PATH\nRUN echo $Y\n", &[]);
        check(
            &RULE,
            "FROM scratch\nCOPY <<E <<'F' /\n$X\nE\n$Y\nF\n",
            &["2:6 Usage of undefined variable '$X'"],
        );
        check(
            &RULE,
            "FROM scratch\nRUN --mount=type=cache,target=/$X,id=a true\n",
            &["2:32 Usage of undefined variable '$X'"],
        );
    }

    #[test]
    fn variables_of_unknown_base_images_are_no_findings() {
        check(
            &RULE,
            "FROM a\nENV X=$UNKNOWN\nENV VERSION=1\nUSER $VERSON\n",
            &["4:6 Usage of undefined variable '$VERSON' (did you mean $VERSION?)"],
        );
        let base = BaseFacts {
            environment: BTreeMap::from([("HOME_DIR".into(), "/".into())]),
            ..BaseFacts::default()
        };
        let facts = Facts { bases: BTreeMap::from([(0, base)]), ..Facts::default() };
        check_facts(
            &RULE,
            "FROM a\nENV X=$UNKNOWN Y=$HOME_DIR\n",
            &facts,
            &["2:7 Usage of undefined variable '$UNKNOWN'"],
        );
    }
}
