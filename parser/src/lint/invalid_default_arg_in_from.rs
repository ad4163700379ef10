//! InvalidDefaultArgInFrom: without a --build-arg the name of the base image is empty or invalid.

use super::{Findings, Rule, View, reference_name};
use crate::expand::{self, Budget, BudgetedVariables, Rules};
use std::collections::BTreeMap;

pub(super) static RULE: Rule = Rule {
    name: "InvalidDefaultArgInFrom",
    summary: "Default value for global ARG results in an empty or invalid base image name",
    page: Some("invalid-default-arg-in-from"),
    check,
};

fn check(view: &View<'_>, findings: &mut Findings) {
    // The rule is about defaults, so build arguments are ignored.
    let defaults = view.global_arguments_with(&BTreeMap::new());
    let budget = Budget::default();
    let limited = BudgetedVariables { variables: &defaults, budget: &budget };
    for stage in &view.stages {
        let image = &stage.from.image;
        let expansion = expand::expand(image.as_str(), &limited, Rules::value(view.file.directives.escape));
        let Ok(expansion) = expansion else { return };
        if !reference_name::is_valid(&expansion.value) {
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
    use super::super::Facts;
    use super::super::testing::{check, check_facts};
    use super::RULE;
    use std::collections::BTreeMap;

    #[test]
    fn problems_are_found() {
        let message = "2:6 Default value for ARG a:${V} results in empty or invalid base image name";
        check(&RULE, "ARG V\nFROM a:${V}\n", &[message]);
        check(&RULE, "ARG V=1\nFROM a:${V}\nFROM a${W}\n", &[]);
        let given = BTreeMap::from([("V".to_owned(), "1".to_owned())]);
        let facts = Facts { build_args: given, ..Facts::default() };
        check_facts(&RULE, "ARG V\nFROM a:${V}\n", &facts, &[message]);
        let message = "2:6 Default value for ARG busy$V results in empty or invalid base image name";
        check(&RULE, "ARG V=\"box:\"\nFROM busy$V\n", &[message]);
    }
}
