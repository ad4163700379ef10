//! InvalidDefaultArgInFrom: without a --build-arg the file builds from nothing.

use super::{Findings, Rule, View};
use crate::expand::{self, Budget, Limited, Rules};

pub(super) static RULE: Rule = Rule {
    name: "InvalidDefaultArgInFrom",
    summary: "Default value for global ARG results in an empty or invalid base image name",
    page: Some("invalid-default-arg-in-from"),
    check,
};

fn check(view: &View<'_>, findings: &mut Findings) {
    let defaults = view.global_arguments();
    let budget = Budget::default();
    let limited = Limited { variables: &defaults, budget: &budget };
    for stage in &view.stages {
        let image = &stage.from.image;
        let expansion = expand::expand(image.as_str(), &limited, Rules::value(view.file.directives.escape));
        let Ok(expansion) = expansion else { continue };
        let has_variables = !expansion.read.is_empty() || !expansion.missed.is_empty();
        let name = expansion.value.as_str();
        let is_wrong =
            name.is_empty() || name.ends_with([':', '@', '/']) || name.starts_with([':', '@', '/']);
        if has_variables && is_wrong {
            let message = format!(
                "Default value for ARG {} results in empty or invalid base image name",
                image.as_str()
            );
            findings.add(image.span(), message);
            findings.hint("give the ARG a default: ARG NAME=value");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::RULE;

    #[test]
    fn findings() {
        let message = "2:6 Default value for ARG a:${V} results in empty or invalid base image name";
        check(&RULE, "ARG V\nFROM a:${V}\n", &[message]);
        check(&RULE, "ARG V=1\nFROM a:${V}\nFROM a${W}\nFROM b:\n", &[]);
    }
}
