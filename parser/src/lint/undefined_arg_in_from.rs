//! UndefinedArgInFrom: in FROM, a variable without an ARG above the first FROM is empty.

use super::{Findings, Rule, View};
use crate::expand::{self, Budget, BudgetedVariables, Rules};
use crate::suggest;

pub(super) static RULE: Rule = Rule {
    name: "UndefinedArgInFrom",
    summary: "FROM command must use declared ARGs",
    page: Some("undefined-arg-in-from"),
    check,
};

fn check(view: &View<'_>, findings: &mut Findings) {
    let declared = view.global_arguments();
    let budget = Budget::default();
    let limited = BudgetedVariables { variables: &declared, budget: &budget };
    for stage in &view.stages {
        for text in std::iter::once(&stage.from.image).chain(&stage.from.platform) {
            let Ok(expansion) =
                expand::expand(text.as_str(), &limited, Rules::value(view.file.directives.escape))
            else {
                continue;
            };
            for name in expansion.missed.iter().filter(|name| !declared.contains_key(*name)) {
                let near = suggest::nearest_variable(name, declared.keys().map(String::as_str));
                let near = near.map(|near| format!(" (did you mean {near}?)")).unwrap_or_default();
                findings.add(text.span(), format!("FROM argument '{name}' is not declared{near}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::RULE;

    #[test]
    fn problems_are_found() {
        let message = "2:6 FROM argument 'VERSON' is not declared (did you mean VERSION?)";
        check(&RULE, "ARG VERSION=1\nFROM a:$VERSON\n", &[message]);
        check(&RULE, "ARG V\nFROM --platform=$BUILDPLATFORM a:${V:-1}\n", &[]);
    }
}
