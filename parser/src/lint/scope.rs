//! Values of variables at each instruction, as far as the file and the facts determine them.

use super::View;
use crate::ast::{ArgItem, Instruction, KeyValues, Kind};
use crate::expand::{self, Budget, BudgetedVariables, Environment, Rules};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Depth of stages that are followed; the limit bounds the time for hostile files.
const MAX_DEPTH: usize = 32;

/// Variables of a stage: those it sets, then those of the stage that it starts from.
#[derive(Default)]
pub(super) struct Scope {
    /// Variables set in the stage; `None` for an ARG without a value.
    own: BTreeMap<String, Option<String>>,
    below: Option<Rc<Scope>>,
    depth: usize,
    /// Whether the base image may set further variables.
    is_open: bool,
    /// Budget of the expansions in all stages.
    budget: Budget,
}

impl Scope {
    /// True when variables may be set that neither file nor facts contain.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Names of all variables.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let scopes = std::iter::successors(Some(self), |scope| scope.below.as_deref());
        scopes.flat_map(|scope| scope.own.keys().map(String::as_str))
    }

    /// True when an ENV, an ARG or the base image declares the variable.
    pub(super) fn is_declared(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    fn find(&self, name: &str) -> Option<&Option<String>> {
        let mut scopes = std::iter::successors(Some(self), |scope| scope.below.as_deref());
        scopes.find_map(|scope| scope.own.get(name))
    }

    fn declare(&mut self, name: &str, value: Option<String>) {
        // The value is copied, and a file can request that in every stage.
        let value = value.filter(|value| self.budget.spend(value.len()).is_ok());
        // An ARG without a value keeps the previous value.
        if value.is_some() || !self.is_declared(name) {
            self.own.insert(name.to_owned(), value);
        }
    }
}

impl Environment for Scope {
    fn get(&self, name: &str) -> Option<&str> {
        self.find(name)?.as_deref()
    }

    fn budget(&self) -> Option<&Budget> {
        Some(&self.budget)
    }
}

/// Calls `visit` for each instruction of each stage, with the variables as they are before it.
pub(super) fn walk(view: &View<'_>, visit: &mut dyn FnMut(&Instruction, &Scope)) {
    let globals = view.global_arguments();
    let rules = Rules::value(view.file.directives.escape);
    let budget = Budget::default();
    let limited = BudgetedVariables { variables: &globals, budget: &budget };
    let mut named: BTreeMap<&str, Rc<Scope>> = BTreeMap::new();
    for (index, stage) in view.stages.iter().enumerate() {
        let base = match stage.from.image.as_str().contains('$') {
            true => expand::expand(stage.from.image.as_str(), &limited, rules).unwrap_or_default().value,
            false => stage.base.clone(),
        };
        let mut scope = begin(view, index, named.get(base.as_str()), base == "scratch", &budget);
        for instruction in stage.body {
            visit(instruction, &scope);
            match &instruction.kind {
                Kind::Arg(items) => {
                    items.iter().for_each(|item| declare_argument(view, &mut scope, item, &globals, rules));
                }
                Kind::Env(values) => set_variables(&mut scope, values, rules),
                _ => {}
            }
        }
        if let Some(name) = &stage.name {
            named.insert(name, Rc::new(scope));
        }
    }
}

fn begin(
    view: &View<'_>,
    index: usize,
    base: Option<&Rc<Scope>>,
    is_scratch: bool,
    budget: &Budget,
) -> Scope {
    let budget = budget.clone();
    if let Some(base) = base.filter(|base| base.depth < MAX_DEPTH) {
        let (depth, is_open) = (base.depth + 1, base.is_open);
        return Scope { below: Some(Rc::clone(base)), depth, is_open, budget, ..Scope::default() };
    }
    let facts = view.facts.bases.get(&index);
    let mut scope = Scope { is_open: facts.is_none() && !is_scratch, budget, ..Scope::default() };
    // The builder sets PATH for every image.
    scope.declare("PATH", Some("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()));
    for (name, value) in facts.into_iter().flat_map(|facts| &facts.environment) {
        scope.declare(name, Some(value.clone()));
    }
    scope
}

fn declare_argument(
    view: &View<'_>,
    scope: &mut Scope,
    item: &ArgItem,
    globals: &BTreeMap<String, String>,
    rules: Rules,
) {
    let name = item.key.as_str();
    let given = view.facts.build_args.get(name).cloned();
    let default = || {
        let default = item.value.as_ref()?;
        expand::expand(default.as_str(), scope, rules).ok().map(|expansion| expansion.value)
    };
    let value = given.or_else(default).or_else(|| globals.get(name).cloned());
    scope.declare(name, value);
}

/// Sets the variables of an ENV; its values refer to the variables before it.
fn set_variables(scope: &mut Scope, values: &KeyValues, rules: Rules) {
    let expanded = |text: &str| match text.contains(['$', '"', '\'', rules.escape]) {
        true => expand::expand(text, scope, rules).map(|expansion| expansion.value).unwrap_or_default(),
        false => text.to_owned(),
    };
    let pairs = values.pairs.iter();
    let set: Vec<_> =
        pairs.map(|pair| (expanded(pair.key.as_str()), expanded(pair.value.as_str()))).collect();
    set.into_iter().for_each(|(name, value)| scope.declare(&name, Some(value)));
}

#[cfg(test)]
mod tests {
    use super::super::{Choice, Facts, lint};
    use crate::{Source, outline, parse};
    use std::collections::BTreeMap;

    /// Lints and outline of a file whose variables double need little memory and time.
    #[test]
    fn doubling_variables_are_bounded() {
        let doubled = |instruction: &str| format!("{instruction} A=$A$A\n").repeat(40);
        let copies = "FROM a AS b\nARG A\nENV B=$A C=${A//x/yy}\nRUN echo $A\n".repeat(100);
        for text in [
            format!("FROM a\nENV A=xx\n{}", doubled("ENV")),
            format!("FROM a\nARG A=xx\n{}", doubled("ARG")),
            format!("ARG A=xx\n{}{copies}", doubled("ARG")),
            format!("FROM a\nENV A=xx\n{}COPY <<E /x\n{}\nE\n", doubled("ENV"), "$A".repeat(1000)),
            format!("FROM a\nENV A=xx\n{}", "ENV A=${A//x/xx}\n".repeat(40)),
        ] {
            let source = Source::new("Dockerfile", text.as_str());
            let parsed = parse(&source);
            lint(&parsed, &source, &Facts::default(), &Choice::default());
            let outline = outline::outline(&parsed.file, None, &BTreeMap::new()).unwrap();
            let length: usize =
                outline.arguments.iter().filter_map(|it| it.value.as_ref()).map(String::len).sum();
            assert!(length <= 2 << 20, "{length}");
        }
    }
}
