//! SecretsUsedInArgOrEnv: values of ARG and ENV stay readable in the image and its history.

use super::{Findings, Rule, View};
use crate::Text;
use crate::ast::Kind;

pub(super) static RULE: Rule = Rule {
    name: "SecretsUsedInArgOrEnv",
    summary: "Sensitive data should not be used in the ARG or ENV commands",
    page: Some("secrets-used-in-arg-or-env"),
    check,
};

/// Parts of a name that indicate a secret.
const SECRET: [&str; 10] =
    ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
/// Parts of a name that indicate public data.
const OPEN: [&str; 3] = ["public", "file", "version"];

fn check(view: &View<'_>, findings: &mut Findings) {
    for instruction in view.in_stages() {
        let (name, keys): (&str, Vec<&Text>) = match &instruction.kind {
            Kind::Arg(items) => ("ARG", items.iter().map(|item| &item.key).collect()),
            Kind::Env(values) => ("ENV", values.pairs.iter().map(|pair| &pair.key).collect()),
            _ => continue,
        };
        for key in keys.into_iter().filter(|key| is_secret(key.as_str())) {
            let message =
                format!("Do not use ARG or ENV instructions for sensitive data ({name} {:?})", key.as_str());
            findings.add(key.span(), message);
            findings.hint("mount it into the step that needs it: RUN --mount=type=secret");
        }
    }
}

fn is_secret(name: &str) -> bool {
    let has =
        |words: &[&str]| name.split('_').any(|part| words.iter().any(|word| word.eq_ignore_ascii_case(part)));
    has(&SECRET) && !has(&OPEN)
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::RULE;

    #[test]
    fn problems_are_found() {
        let message = "2:5 Do not use ARG or ENV instructions for sensitive data (ENV \"API_KEY\")";
        check(&RULE, "FROM a\nENV API_KEY=x\nARG KEYBOARD PUBLIC_KEY\n", &[message]);
        let message = "3:5 Do not use ARG or ENV instructions for sensitive data (ARG \"token\")";
        check(&RULE, "ARG key\nFROM a\nARG token\n", &[message]);
    }
}
