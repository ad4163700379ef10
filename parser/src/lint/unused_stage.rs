//! UnusedStage: a stage before the last one that no FROM, COPY or mount refers to.

use super::{Findings, Rule, View};
use crate::ast::Kind;
use std::borrow::Cow;
use std::collections::HashSet;

pub(super) static RULE: Rule =
    Rule { name: "UnusedStage", summary: "A stage that nothing uses is never built", page: None, check };

fn check(view: &View<'_>, findings: &mut Findings) {
    let Some((last, earlier)) = view.stages.split_last() else { return };
    let mut used: HashSet<Cow<'_, str>> = HashSet::new();
    for stage in earlier.iter().chain([last]) {
        used.insert(Cow::Borrowed(stage.base.as_str()));
        for instruction in stage.body {
            match &instruction.kind {
                Kind::Copy(copy) => used.extend(copy.from.iter().map(|from| lower(from.as_str()))),
                Kind::Run(run) => {
                    let fields = run.mounts.iter().flat_map(|mount| &mount.fields);
                    let from = fields.filter_map(|field| field.as_str().strip_prefix("from="));
                    used.extend(from.map(lower));
                }
                _ => {}
            }
        }
    }
    // The value of a variable may be any stage.
    if used.iter().any(|name| name.contains('$')) {
        return;
    }
    for (index, stage) in earlier.iter().enumerate() {
        let name = stage.name.as_deref();
        let is_used =
            name.is_some_and(|name| used.contains(name)) || used.contains(index.to_string().as_str());
        if !is_used && name.is_none() {
            findings.add(stage.instruction.span, "This stage has no name and nothing uses it");
        } else if !is_used {
            let name = name.unwrap_or_default();
            findings.add(stage.instruction.span, format!("Nothing uses the stage {name:?}"));
            findings.hint("it is built only by --target");
        }
    }
}

fn lower(name: &str) -> Cow<'_, str> {
    match name.contains(char::is_uppercase) {
        true => Cow::Owned(name.to_lowercase()),
        false => Cow::Borrowed(name),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::RULE;

    #[test]
    fn problems_are_found() {
        check(&RULE, "FROM a AS b\nFROM c\n", &["1:1 Nothing uses the stage \"b\""]);
        check(&RULE, "FROM a\nFROM c\n", &["1:1 This stage has no name and nothing uses it"]);
        check(&RULE, "FROM a AS b\nFROM c AS d\nFROM B\nCOPY --from=1 / /\n", &[]);
    }
}
