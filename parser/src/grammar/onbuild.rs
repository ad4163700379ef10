//! Grammar of ONBUILD.

use super::{Context, Head, Rule, tokens};
use crate::ast::{Kind, Onbuild};
use crate::diagnostic::{Diagnostic, Severity};

/// Codes of errors that the reference builder reports when it parses the trigger; others surface in the child image's
/// build.
const SYNTAX: [&str; 4] = ["json-not-strings", "missing-equals", "two-arguments", "unterminated-heredoc"];

/// Parses `ONBUILD instruction` and its trigger.
pub(super) fn onbuild(mut rule: Rule<'_, '_>) -> Option<Kind> {
    if rule.args.is_empty() {
        return rule.need_one();
    }
    rule.no_flags()?;
    let (_, keyword) = tokens::keyword(rule.args.as_str()).ok()?;
    let span = rule.args.span_of(0..keyword.len());
    match keyword.to_ascii_uppercase().as_str() {
        "ONBUILD" => {
            let message = "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed";
            return rule.fail("onbuild-trigger", span, message);
        }
        forbidden @ ("FROM" | "MAINTAINER") => {
            let message = format!("{forbidden} isn't allowed as an ONBUILD trigger");
            return rule.fail("onbuild-trigger", span, message);
        }
        _ => {}
    }
    let mut trigger = rule.args.as_str().to_owned();
    for heredoc in rule.context.heredocs {
        trigger.push('\n');
        trigger.push_str(&heredoc.content);
        trigger.push_str(&heredoc.name);
    }
    let instruction = Box::new(inner(&mut rule)?);
    Some(Kind::Onbuild(Onbuild { trigger, instruction }))
}

/// Parses the trigger already now, so that its errors show before a child image runs it.
fn inner(rule: &mut Rule<'_, '_>) -> Option<Kind> {
    let mut diagnostics = Vec::new();
    let mut context = Context {
        line: &rule.args,
        escape: rule.context.escape,
        heredocs: rule.context.heredocs,
        diagnostics: &mut diagnostics,
    };
    let kind = Head::split(&rule.args).kind(&mut context);
    let fatal = diagnostics.iter().any(|diagnostic| SYNTAX.contains(&diagnostic.code));
    rule.context.diagnostics.extend(diagnostics.into_iter().map(soften));
    if fatal { None } else { Some(kind.unwrap_or(Kind::Invalid)) }
}

fn soften(diagnostic: Diagnostic) -> Diagnostic {
    if SYNTAX.contains(&diagnostic.code) {
        return diagnostic;
    }
    let is_error = diagnostic.severity == Severity::Error;
    let softened = Diagnostic { severity: Severity::Warning, ..diagnostic };
    if is_error { softened.hint("builds from this image will fail at this trigger") } else { softened }
}
