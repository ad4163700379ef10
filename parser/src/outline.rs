//! Inputs of a stage: its ARGs, secrets and ssh sockets, with those of the stages that it depends on.
//!
//! Rules follow moby/buildkit `frontend/dockerfile/dockerfile2llb/outline.go`. Only the file is read, which keeps it
//! fast enough for shell completion.

use crate::ast::{ArgItem, Dockerfile, From, Instruction, KeyValues, Kind, MountFlag};
use crate::expand::{self, Budget, BudgetedVariables, ExpandError, Expansion, Rules};
use crate::mount::{self, MountKind};
use crate::span::Span;
use crate::stages::{StageSlice, split};
use crate::text::Text;
use std::collections::{BTreeMap, BTreeSet};

/// Variables that are defined in every build.
const PLATFORM: [&str; 11] = [
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDOSVERSION",
    "BUILDARCH",
    "BUILDVARIANT",
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETOSVERSION",
    "TARGETARCH",
    "TARGETVARIANT",
    "TARGETSTAGE",
];

/// Depth of stages that are followed; the limit bounds the time for hostile files.
const MAX_DEPTH: usize = 32;

/// A stage and its inputs, each list in file order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// Stage name; empty when it has none.
    pub name: String,
    /// Description from the comment above the stage.
    pub description: Option<String>,
    /// ARGs of the stage, with the global ARGs that they depend on.
    pub arguments: Vec<Argument>,
    /// Secrets of the stage's mounts, by id.
    pub secrets: Vec<Resource>,
    /// Ssh sockets of the stage's mounts, by id.
    pub ssh: Vec<Resource>,
}

/// An ARG of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Name of the variable.
    pub name: String,
    /// Value from the build arguments or the default; `None` when it has neither.
    pub value: Option<String>,
    /// Description from the comment above the instruction.
    pub description: Option<String>,
    /// Span of the instruction.
    pub span: Span,
    /// Span of the name within the instruction.
    pub name_span: Span,
}

/// A secret or an ssh socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Id of the secret or socket.
    pub name: String,
    /// Whether a step fails without it.
    pub required: bool,
    /// Span of the first instruction that mounts it.
    pub span: Span,
}

/// A stage's name and its description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageName {
    /// Stage name as written; empty when it has none.
    pub name: String,
    /// Description from the comment above the stage.
    pub description: Option<String>,
}

/// All stages of a file in file order.
pub fn stages(file: &Dockerfile) -> Vec<StageName> {
    let stages = split(file).into_iter().map(|stage| (stage.instruction, stage.from));
    let named = stages.map(|(instruction, from)| StageName {
        name: from.name.as_ref().map(|name| name.as_str().to_owned()).unwrap_or_default(),
        description: description(instruction, from),
    });
    named.collect()
}

fn description(instruction: &Instruction, from: &From) -> Option<String> {
    instruction.description(&from.stage_name()?).map(str::to_owned)
}

/// Outline of the stage `target`, or of the last stage; `None` when there is no such stage.
pub fn outline(
    file: &Dockerfile,
    target: Option<&str>,
    build_args: &BTreeMap<String, String>,
) -> Option<Outline> {
    let mut reader = Reader {
        file,
        build_args,
        rules: Rules::value(file.directives.escape),
        globals: BTreeMap::new(),
        made_of: BTreeMap::new(),
        values: BTreeMap::new(),
        budget: Budget::default(),
        stages: split(file),
        outline: Outline::default(),
        listed: BTreeSet::new(),
        seen: BTreeSet::new(),
    };
    let target = match target {
        None => reader.stages.len().checked_sub(1)?,
        Some(name) => reader.find(name, reader.stages.len())?,
    };
    reader.read_globals();
    reader.stage(target);
    let mut outline = reader.outline;
    outline.arguments.sort_by_key(|argument| argument.name_span);
    outline.secrets.sort_by_key(|secret| secret.span);
    outline.ssh.sort_by_key(|ssh| ssh.span);
    let stage = &reader.stages[target];
    outline.name = stage.from.stage_name().unwrap_or_default();
    outline.description = description(stage.instruction, stage.from);
    Some(outline)
}

struct Reader<'a> {
    file: &'a Dockerfile,
    build_args: &'a BTreeMap<String, String>,
    rules: Rules,
    /// ARGs above the first FROM, by name.
    globals: BTreeMap<String, Argument>,
    /// For each global ARG, the ARGs that its value depends on.
    made_of: BTreeMap<String, BTreeSet<String>>,
    /// Values of the global ARGs.
    values: BTreeMap<String, String>,
    /// Budget of all expansions of the file.
    budget: Budget,
    stages: Vec<StageSlice<'a>>,
    outline: Outline,
    /// Names of the arguments in `outline`.
    listed: BTreeSet<String>,
    seen: BTreeSet<usize>,
}

/// ARGs of one stage.
#[derive(Default)]
struct StageArguments {
    /// ARGs declared in the stage, as of the last instruction.
    own: BTreeMap<String, Argument>,
    /// Names of the ARGs that the stage uses.
    used: BTreeSet<String>,
}

impl Reader<'_> {
    fn read_globals(&mut self) {
        let above = self.file.instructions.iter().take_while(|it| !matches!(it.kind, Kind::From(_)));
        for instruction in above {
            let Kind::Arg(items) = &instruction.kind else { continue };
            for item in items {
                let (argument, mut made_of) = self.argument(instruction, item, &self.values);
                if made_of.remove(&argument.name) {
                    // An ARG that is set again depends on its previous inputs, too.
                    made_of.extend(self.made_of.remove(&argument.name).unwrap_or_default());
                }
                self.made_of.insert(argument.name.clone(), made_of);
                match &argument.value {
                    Some(value) => self.values.insert(argument.name.clone(), value.clone()),
                    None => self.values.remove(&argument.name),
                };
                self.globals.insert(argument.name.clone(), argument);
            }
        }
    }

    /// Value of a text; empty when its expansion fails.
    fn expand(&self, text: &Text, env: &BTreeMap<String, String>) -> Expansion<String> {
        self.try_expand(text, env).unwrap_or_default()
    }

    fn try_expand(
        &self,
        text: &Text,
        env: &BTreeMap<String, String>,
    ) -> Result<Expansion<String>, ExpandError> {
        let limited = BudgetedVariables { variables: env, budget: &self.budget };
        expand::expand(text.as_str(), &limited, self.rules)
    }

    fn argument(
        &self,
        instruction: &Instruction,
        item: &ArgItem,
        env: &BTreeMap<String, String>,
    ) -> (Argument, BTreeSet<String>) {
        let name = item.key.as_str();
        let given = self.build_args.get(name).cloned();
        let default = || item.value.as_ref().and_then(|value| self.try_expand(value, env).ok());
        let (value, made_of) = match given {
            Some(given) => (Some(given), BTreeSet::new()),
            None => match default() {
                Some(expansion) => (Some(expansion.value), expansion.read.into_iter().collect()),
                None => (None, BTreeSet::new()),
            },
        };
        let description = instruction.description(name).map(str::to_owned);
        let (span, name_span) = (instruction.span, item.key.span());
        (Argument { name: name.to_owned(), value, description, span, name_span }, made_of)
    }

    /// Index of the stage of that name, whatever its case, among the first `before`.
    fn find(&self, name: &str, before: usize) -> Option<usize> {
        let is_named = |index: &usize| {
            self.stages[*index].from.name.as_ref().is_some_and(|it| it.as_str().eq_ignore_ascii_case(name))
        };
        (0..before.min(self.stages.len())).rev().find(is_named)
    }

    /// Adds the inputs of a stage and of its dependencies. Not recursive, since files may be hostile.
    fn stage(&mut self, target: usize) {
        let mut open = vec![target];
        while let Some(index) = open.pop() {
            if self.seen.insert(index) {
                let needed = self.one_stage(index);
                // The base image's stage comes first.
                open.extend(needed.into_iter().rev());
            }
        }
    }

    fn one_stage(&mut self, index: usize) -> Vec<usize> {
        let globals = std::mem::take(&mut self.values);
        let needed = self.needed_by(index, &globals);
        self.values = globals;
        needed
    }

    /// Adds the inputs of one stage; returns the indexes of its dependencies.
    fn needed_by(&mut self, index: usize, globals: &BTreeMap<String, String>) -> Vec<usize> {
        let (from, body) = (self.stages[index].from, self.stages[index].body);
        let mut needed = Vec::new();
        let mut arguments = StageArguments::default();
        for text in std::iter::once(&from.image).chain(&from.platform) {
            arguments.used.extend(self.expand(text, globals).read);
        }
        needed.extend(self.base_of(index, globals));
        let mut env = self.inherited(index, globals);
        for instruction in body {
            match &instruction.kind {
                Kind::Arg(items) => {
                    for item in items {
                        self.stage_argument(instruction, item, &mut arguments, &mut env, globals);
                    }
                }
                Kind::Env(values) => self.set(values, &mut env),
                Kind::Run(run) => {
                    for mount in &run.mounts {
                        self.mount(instruction, mount, &env);
                        let from = mount.fields.iter().find_map(|field| field.as_str().strip_prefix("from="));
                        needed.extend(from.and_then(|name| self.find(name, index)));
                    }
                }
                Kind::Copy(copy) => needed.extend(copy.from.as_ref().and_then(|from| {
                    let number = from.as_str().parse().ok().filter(|number| *number < index);
                    number.or_else(|| self.find(from.as_str(), index))
                })),
                _ => {}
            }
        }
        self.list(arguments);
        needed
    }

    /// Index of the stage that a stage starts from; `None` for an image.
    fn base_of(&self, index: usize, globals: &BTreeMap<String, String>) -> Option<usize> {
        self.find(&self.expand(&self.stages[index].from.image, globals).value, index)
    }

    /// Variables that a stage inherits from its base stages.
    fn inherited(&self, index: usize, globals: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let below = std::iter::successors(self.base_of(index, globals), |base| self.base_of(*base, globals));
        let below: Vec<usize> = below.take(MAX_DEPTH).collect();
        let mut env = BTreeMap::new();
        for stage in below.into_iter().rev() {
            for instruction in self.stages[stage].body {
                match &instruction.kind {
                    Kind::Arg(items) => {
                        for item in items {
                            self.stage_argument(
                                instruction,
                                item,
                                &mut StageArguments::default(),
                                &mut env,
                                globals,
                            );
                        }
                    }
                    Kind::Env(values) => self.set(values, &mut env),
                    _ => {}
                }
            }
        }
        env
    }

    /// Sets the variables of an ENV; its values refer to the variables before it.
    fn set(&self, values: &KeyValues, env: &mut BTreeMap<String, String>) {
        let value = |text: &Text| self.expand(text, env).value;
        let pairs: Vec<_> = values.pairs.iter().map(|pair| (value(&pair.key), value(&pair.value))).collect();
        env.extend(pairs);
    }

    /// Adds the ARGs that a stage uses, and the global ARGs that they depend on.
    fn list(&mut self, mut arguments: StageArguments) {
        let mut open: Vec<String> = arguments.used.into_iter().collect();
        while let Some(name) = open.pop() {
            if self.listed.contains(&name) {
                continue;
            }
            let argument = match (arguments.own.remove(&name), self.globals.get(&name)) {
                (Some(own), _) => own,
                (None, Some(global)) => {
                    open.extend(self.made_of.get(&name).into_iter().flatten().cloned());
                    global.clone()
                }
                (None, None) => continue,
            };
            self.listed.insert(name);
            self.outline.arguments.push(argument);
        }
    }

    fn stage_argument(
        &self,
        instruction: &Instruction,
        item: &ArgItem,
        arguments: &mut StageArguments,
        env: &mut BTreeMap<String, String>,
        globals: &BTreeMap<String, String>,
    ) {
        let name = item.key.as_str();
        arguments.used.insert(name.to_owned());
        let is_bare = item.value.is_none() && !self.build_args.contains_key(name);
        if is_bare && (globals.contains_key(name) || PLATFORM.contains(&name)) {
            env.extend(globals.get(name).map(|value| (name.to_owned(), value.clone())));
            return;
        }
        let (argument, _) = self.argument(instruction, item, env);
        env.extend(argument.value.clone().map(|value| (name.to_owned(), value)));
        arguments.own.insert(name.to_owned(), argument);
    }

    fn mount(&mut self, instruction: &Instruction, flag: &MountFlag, env: &BTreeMap<String, String>) {
        let mut expanded = |text: &Text| self.try_expand(text, env).map(|expansion| expansion.value);
        let Ok(mount) = mount::resolve(flag, &mut expanded) else { return };
        let (list, name) = match mount.kind {
            MountKind::Secret => (&mut self.outline.secrets, mount.secret_id()),
            MountKind::Ssh => (&mut self.outline.ssh, mount.ssh_id()),
            _ => return,
        };
        if !list.iter().any(|known| known.name == name) {
            list.push(Resource { name, required: mount.required, span: instruction.span });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Source;

    fn read(text: &str, target: Option<&str>) -> Outline {
        let parse = crate::parse(&Source::new("Dockerfile", text));
        outline(&parse.file, target, &BTreeMap::from([("GIVEN".to_owned(), "g".to_owned())])).unwrap()
    }

    fn arguments(outline: &Outline) -> Vec<(&str, &str)> {
        outline.arguments.iter().map(|it| (it.name.as_str(), it.value.as_deref().unwrap_or("-"))).collect()
    }

    #[test]
    fn dependencies_of_the_target_are_listed() {
        let text = "# V says which\nARG V=1\nARG UNUSED\nFROM a:$V AS b\nARG V\nARG N GIVEN TARGETARCH\n\
            RUN --mount=type=secret,id=s --mount=type=ssh true\nFROM x AS other\nARG O\n# last is it\nFROM b AS last\n\
            ARG D=$V.1\nRUN --mount=type=secret,target=/run/s,required true\n";
        let last = read(text, None);
        assert_eq!((last.name.as_str(), last.description.as_deref()), ("last", Some("is it")));
        assert_eq!(arguments(&last), [("V", "1"), ("N", "-"), ("GIVEN", "g"), ("D", "1.1")]);
        assert_eq!(last.arguments[0].description.as_deref(), Some("says which"));
        assert_eq!((last.secrets.len(), last.secrets[0].required), (1, true));
        assert_eq!(last.ssh[0].name, "default");
        assert_eq!(arguments(&read(text, Some("OTHER"))), [("O", "-")]);
    }

    /// Expected values come from BuildKit 0.25.
    #[test]
    fn arguments_depend_on_others_and_are_set_again() {
        let text = "# A is first\nARG A=1\nARG B=$A.2\nARG C=${B}.3 UNUSED=x\nARG D=4\nARG D=5\n\
            FROM busybox:${C:+latest} AS base\nARG D\nARG E=1\nARG E=2\nENV F=$D\nARG G=$F$E\nARG G=again\n\
            FROM base AS last\nARG A\nARG C\nARG H=$A$E\nARG E=3\nARG TARGETARCH\nRUN true\n";
        let expected =
            [("A", "1"), ("B", "1.2"), ("C", "1.2.3"), ("D", "5"), ("G", "again"), ("H", "12"), ("E", "3")];
        assert_eq!(arguments(&read(text, None)), expected);
        let text = "ARG GIVEN=$X X=1\nARG Y=$X\nARG Y=$Y$GIVEN\nFROM a\nARG Y\n";
        assert_eq!(arguments(&read(text, None)), [("GIVEN", "g"), ("X", "1"), ("Y", "1g")]);
    }
}
