//! Stages of a file: names, bases, dependencies, and which of them the targets need. Pure.

mod origin;
mod platform;

use crate::context::{ContextSource, NamedContext};
use crate::mistake::Mistake;
use crate::variables::Variables;
use kiln_image::platform::Platform;
use kiln_image::reference::Reference;
use kiln_parser::ast::{self, Dockerfile, Instruction, Kind};
use kiln_parser::expand::{self, Budget, BudgetedVariables, Environment, Expansion, Rules};
use kiln_parser::span::Span;
use kiln_parser::suggest;
use kiln_parser::{Source, Text, parse_trigger};
use platform::{near_variable, platform, platform_variables};
use std::collections::BTreeMap;

/// Name of the empty image in FROM and `--from`.
pub(crate) const SCRATCH: &str = "scratch";

/// Options that the stages depend on, besides the file.
#[derive(Clone, Debug)]
pub struct StageOptions<'a> {
    /// `--build-arg` values by name.
    pub build_args: &'a BTreeMap<String, String>,
    /// Names of the stages to build; empty for the last one.
    pub targets: &'a [String],
    /// Target platform of the build.
    pub platform: &'a Platform,
    /// Named contexts, by number.
    pub contexts: &'a [NamedContext],
    /// True when all stages count as reachable, not only those that the targets need.
    pub all: bool,
}

/// All stages of a file.
#[derive(Clone, Debug)]
pub struct Stages {
    /// Stages in the order of the file.
    pub list: Vec<Stage>,
    /// Indices of the targets, in the order of the options.
    pub targets: Vec<usize>,
    /// True when all stages count as reachable, not only those that the targets need.
    pub all: bool,
    /// Global ARGs and variables of the platforms: the scope of FROM, and of a bare `ARG name` in a stage.
    pub globals: Variables,
    /// Named contexts of the build.
    contexts: Contexts,
    /// Escape character of the file.
    escape: char,
}

/// Named contexts, and the platform that selects among them.
#[derive(Clone, Debug, Default)]
struct Contexts {
    list: Vec<NamedContext>,
    platform: String,
}

impl Contexts {
    /// Base for the context of a name; `None` when there is no such context. Names of images are compared in full.
    fn find(&self, name: &str, stages: &[Stage]) -> Option<Base> {
        let normal = |name: &str| match name.parse::<Reference>() {
            Ok(reference) => reference.or_latest().to_string(),
            Err(_) => name.to_owned(),
        };
        let wanted = normal(name);
        let is_meant = |known: &str| known.eq_ignore_ascii_case(name) || normal(known) == wanted;
        let with_platform = self.list.iter().position(|context| match context.name.split_once("::") {
            Some((known, platform)) => is_meant(known) && platform == self.platform,
            None => false,
        });
        let index = with_platform.or_else(|| self.list.iter().position(|context| is_meant(&context.name)))?;
        Some(match &self.list[index].source {
            ContextSource::Dir(_) => Base::Context(index),
            ContextSource::Stage(name) => Base::Stage(position(stages, name)?),
            ContextSource::Image(image) if image == SCRATCH => Base::Scratch,
            ContextSource::Image(image) => Base::Image(image.clone()),
        })
    }
}

/// One stage of the file.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Name of `AS name` as written; `None` without one.
    pub name: Option<String>,
    /// Title in the progress; empty for the only stage.
    pub title: String,
    /// Image, stage or context that the stage starts from.
    pub base: Base,
    /// Value of `--platform`; `None` when it is the target's platform.
    pub platform: Option<Platform>,
    /// Instructions without FROM, preceded by triggers of the base.
    pub steps: Vec<Step>,
    /// Position of the FROM instruction.
    pub span: Span,
    /// Position of the name of its image or stage.
    pub image: Span,
    /// Name of the image as written in FROM.
    pub written: String,
}

/// Base of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// The empty image, `scratch`.
    Scratch,
    /// An earlier stage, by its index.
    Stage(usize),
    /// An image, by its name in FROM.
    Image(String),
    /// Files of a named context, by its number.
    Context(usize),
}

/// Source of `COPY --from` and `--mount from=`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// An earlier stage, by its index.
    Stage(usize),
    /// An image, by its name in the file.
    Image(String),
    /// A named context, by its number.
    Context(usize),
}

/// An instruction of a stage.
#[derive(Clone, Debug)]
pub struct Step {
    /// Syntax tree of the instruction.
    pub instruction: Instruction,
    /// Position for messages: the instruction, or the FROM whose base has the trigger.
    pub span: Span,
    /// True for a trigger of the base.
    pub is_trigger: bool,
    /// Escape character of the file.
    pub escape: char,
    /// Sources of `--from`, or of each mount in order; `None` for the build context.
    pub origins: Vec<Option<Origin>>,
}

impl Step {
    /// Position of a text for messages. Texts of triggers are not in this file: they have the position of FROM.
    pub fn span_of(&self, text: &Text) -> Span {
        if self.is_trigger { self.span } else { text.span() }
    }
}

/// Splits a file into stages, and resolves the base and the dependencies of each.
///
/// # Errors
/// Fails when a base or `--from` is invalid, stages depend on each other, or a target does not exist.
pub fn stages(file: &Dockerfile, options: &StageOptions<'_>) -> Result<Stages, Mistake> {
    check_syntax(file, options)?;
    let escape = file.directives.escape;
    let mut globals = platform_variables(file, options);
    let contexts = Contexts { list: options.contexts.to_vec(), platform: options.platform.to_string() };
    let mut list: Vec<Stage> = Vec::new();
    let budget = Budget::default();
    // A context with the name of a stage replaces the whole stage.
    let mut is_replaced = false;
    for instruction in &file.instructions {
        match &instruction.kind {
            Kind::From(from) => {
                let mut stage = begin(from, instruction, &list, &contexts, (&globals, &budget), escape)?;
                let own = stage.name.as_ref().and_then(|name| contexts.find(&name.to_lowercase(), &list));
                is_replaced = own.is_some();
                stage.base = own.unwrap_or(stage.base);
                list.push(stage);
            }
            Kind::Arg(items) if list.is_empty() => {
                set_globals(&mut globals, items, options, &budget, escape)?
            }
            _ => {
                if let Some(stage) = list.last_mut().filter(|_| !is_replaced) {
                    stage.steps.push(own_step(instruction.clone(), escape));
                }
            }
        }
    }
    if list.is_empty() {
        return Err(Mistake::Option {
            message: "dockerfile contains no stages to build".to_owned(),
            hints: vec!["begin the file with FROM".to_owned()],
        });
    }
    if let [only] = list.as_mut_slice() {
        only.title.clear();
    }
    let mut stages = Stages { targets: Vec::new(), all: options.all, globals, list, contexts, escape };
    stages.targets = match options.targets {
        [] => vec![stages.list.len() - 1],
        names => names.iter().map(|name| stages.find_target(name)).collect::<Result<_, _>>()?,
    };
    let mut mistakes = Vec::new();
    for index in 0..stages.list.len() {
        match stages.resolve_origins(index) {
            Ok(()) => {}
            Err(mistake) if is_about_order(&mistake) => mistakes.push((index, mistake)),
            Err(mistake) => return Err(mistake),
        }
    }
    // As in the reference, the order of stages that no target needs is not checked.
    let reachable = stages.reachable();
    match mistakes.into_iter().find(|(index, _)| reachable.contains(index)) {
        Some((_, mistake)) => Err(mistake),
        None => Ok(stages),
    }
}

fn is_about_order(mistake: &Mistake) -> bool {
    matches!(mistake, Mistake::Meaning(it) if matches!(it.code, "stage-order" | "circular-dependency"))
}

/// Rejects a `# syntax` that names another frontend.
fn check_syntax(file: &Dockerfile, options: &StageOptions<'_>) -> Result<(), Mistake> {
    let refused = |image: &str| format!("the frontend {image} is not built in, and others cannot be loaded");
    let hint = || {
        "the language of docker/dockerfile is built in: to read the file as that, remove the line or pass --build-arg BUILDKIT_SYNTAX=docker/dockerfile".to_owned()
    };
    if let Some(given) = options.build_args.get("BUILDKIT_SYNTAX") {
        return match is_built_in(given) {
            true => Ok(()),
            false => Err(Mistake::Option { message: refused(given), hints: vec![hint()] }),
        };
    }
    let Some(syntax) = &file.directives.syntax else { return Ok(()) };
    let image = syntax.value.split(' ').next().unwrap_or_default();
    if is_built_in(image) {
        return Ok(());
    }
    Err(Mistake::at("frontend", syntax.span, refused(image)).hint(Some(hint())))
}

/// True for all versions of the reference frontend.
fn is_built_in(image: &str) -> bool {
    let reference = image.parse::<Reference>().map(|reference| reference.repository());
    reference.is_ok_and(|repository| {
        matches!(repository.as_str(), "docker.io/docker/dockerfile" | "docker.io/docker/dockerfile-upstream")
    })
}

fn own_step(instruction: Instruction, escape: char) -> Step {
    Step { span: instruction.span, instruction, is_trigger: false, escape, origins: Vec::new() }
}

/// Expands a text of FROM or a global ARG; a failure has its position.
fn expand_at(text: &Text, env: &dyn Environment, escape: char) -> Result<Expansion<String>, Mistake> {
    expand::expand(text.as_str(), env, Rules::value(escape))
        .map_err(|error| Mistake::at("expansion", text.span_of(error.at..error.at + 1), error.message))
}

fn set_globals(
    globals: &mut Variables,
    items: &[ast::ArgItem],
    options: &StageOptions<'_>,
    budget: &Budget,
    escape: char,
) -> Result<(), Mistake> {
    for item in items {
        let name = item.key.as_str();
        let value = match (options.build_args.get(name), &item.value) {
            (Some(value), _) => Some(value.clone()),
            (None, Some(default)) => {
                Some(expand_at(default, &BudgetedVariables { variables: globals, budget }, escape)?.value)
            }
            (None, None) => None,
        };
        if let Some(value) = value {
            globals.set(name, value);
        }
    }
    Ok(())
}

fn begin(
    from: &ast::From,
    instruction: &Instruction,
    earlier: &[Stage],
    contexts: &Contexts,
    (globals, budget): (&Variables, &Budget),
    escape: char,
) -> Result<Stage, Mistake> {
    let limited = BudgetedVariables { variables: globals, budget };
    let image = expand_at(&from.image, &limited, escape)?;
    if image.value.is_empty() {
        let message = format!("base name ({}) should not be blank", from.image.as_str());
        let near = near_variable(&image, globals);
        return Err(Mistake::at("blank-base-name", from.image.span(), message).hint(near));
    }
    let platform = match &from.platform {
        Some(text) => Some(platform(text, globals, &limited, escape)?),
        None => None,
    };
    let name = from.name.as_ref().map(|name| name.as_str().to_owned());
    // The text as written is compared with names in lower case: `FROM Base` does not find `AS Base`.
    let named = position(earlier, &image.value);
    let base = match named {
        Some(index) => Base::Stage(index),
        None if image.value == SCRATCH => Base::Scratch,
        None => contexts.find(&image.value, earlier).unwrap_or(Base::Image(image.value)),
    };
    let title = name.clone().unwrap_or_else(|| format!("stage-{}", earlier.len()));
    let written = from.image.as_str().to_owned();
    Ok(Stage {
        name,
        title,
        base,
        platform,
        steps: Vec::new(),
        span: instruction.span,
        image: from.image.span(),
        written,
    })
}

/// Index of the last stage whose name, in lower case, is `name`; `None` when there is none.
fn position(stages: &[Stage], name: &str) -> Option<usize> {
    stages.iter().rposition(|stage| stage.name.as_ref().is_some_and(|own| own.to_lowercase() == name))
}

/// Names of all ARGs of a file.
pub fn declared_arguments(file: &Dockerfile) -> impl Iterator<Item = &str> {
    let items = file.instructions.iter().filter_map(|instruction| match &instruction.kind {
        Kind::Arg(items) => Some(items),
        _ => None,
    });
    items.flatten().map(|item| item.key.as_str())
}

/// True for names that need no declaration: proxies, platforms, and the builder's own settings.
pub fn is_predefined(name: &str) -> bool {
    let upper = name.to_uppercase();
    matches!(upper.as_str(), "HTTP_PROXY" | "HTTPS_PROXY" | "FTP_PROXY" | "NO_PROXY" | "ALL_PROXY")
        || ["BUILDPLATFORM", "BUILDOS", "BUILDOSVERSION", "BUILDARCH", "BUILDVARIANT"].contains(&name)
        || ["TARGETPLATFORM", "TARGETOS", "TARGETOSVERSION", "TARGETARCH", "TARGETVARIANT"].contains(&name)
        || name == "SOURCE_DATE_EPOCH"
        || name.starts_with("BUILDKIT_")
}

impl Stages {
    /// Name of a named context.
    pub fn context_name(&self, index: usize) -> &str {
        &self.contexts.list[index].name
    }

    fn find_target(&self, name: &str) -> Result<usize, Mistake> {
        self.find(name).ok_or_else(|| {
            let titles = self.list.iter().filter_map(|stage| stage.name.as_deref());
            let near = suggest::nearest(name, titles).map(|near| format!(" (did you mean {near}?)"));
            let names: Vec<&str> = self.list.iter().filter_map(|stage| stage.name.as_deref()).collect();
            let hint = if names.is_empty() {
                "no stage of this Dockerfile has a name: give it one with FROM … AS name".to_owned()
            } else {
                format!("the stages of this Dockerfile are: {}", names.join(", "))
            };
            Mistake::Option {
                message: format!(
                    "target stage {name:?} could not be found{}",
                    near.as_deref().unwrap_or_default()
                ),
                hints: vec![hint],
            }
        })
    }

    /// Index of the last stage with that name, compared without case; `None` when there is none.
    fn find(&self, name: &str) -> Option<usize> {
        position(&self.list, &name.to_lowercase())
    }

    /// Indices of the stages that building the targets needs, in order.
    pub fn reachable(&self) -> Vec<usize> {
        let mut needed = vec![false; self.list.len()];
        let mut open = self.targets.clone();
        while let Some(index) = open.pop() {
            if std::mem::replace(&mut needed[index], true) {
                continue;
            }
            open.extend(self.list[index].stages_needed());
        }
        (0..self.list.len()).filter(|index| self.all || needed[*index]).collect()
    }

    /// Inserts the triggers of a stage's base before its instructions.
    ///
    /// # Errors
    /// Fails when a trigger is not an instruction, or names a stage that is not an earlier one.
    pub fn add_triggers(&mut self, index: usize, triggers: &[String]) -> Result<(), Mistake> {
        let span = self.list[index].span;
        let mut steps = Vec::new();
        for trigger in triggers {
            let source = Source::new("ONBUILD", trigger.as_bytes());
            let parse = parse_trigger(&source);
            let fail = |message: String| {
                Err(Mistake::at("onbuild", span, message)
                    .hint(Some(format!("the base image has the trigger `ONBUILD {trigger}`"))))
            };
            if let Some(error) = parse.errors().next() {
                return fail(error.message.clone());
            }
            let mut instructions = parse.file.instructions;
            match (instructions.pop(), instructions.is_empty()) {
                (Some(instruction), true) => {
                    // The trigger is parsed with the default escape; its variables are expanded with that of the file.
                    let escape = self.escape;
                    let mut step = Step { instruction, span, is_trigger: true, escape, origins: Vec::new() };
                    step.origins = self.origins(index, &step)?;
                    steps.push(step);
                }
                _ => return fail("onbuild trigger should be a single expression".to_owned()),
            }
        }
        self.list[index].steps.splice(0..0, steps);
        Ok(())
    }
}

impl Stage {
    /// Platform of the stage, when the target platform is `target`.
    pub fn platform_or<'a>(&'a self, target: &'a Platform) -> &'a Platform {
        self.platform.as_ref().unwrap_or(target)
    }

    /// Stages that this one depends on directly.
    pub fn stages_needed(&self) -> impl Iterator<Item = usize> {
        let base = match self.base {
            Base::Stage(index) => Some(index),
            _ => None,
        };
        let origins = self.steps.iter().flat_map(|step| &step.origins).flatten();
        base.into_iter().chain(origins.filter_map(|origin| match origin {
            Origin::Stage(index) => Some(*index),
            Origin::Image(_) | Origin::Context(_) => None,
        }))
    }

    /// Images that this stage names, each with its platform and its position. `--platform` applies to the base alone:
    /// images of `--from` are for `target`.
    pub fn images_needed<'a>(
        &'a self,
        target: &'a Platform,
    ) -> impl Iterator<Item = (&'a str, &'a Platform, Span)> {
        let base = match &self.base {
            Base::Image(name) => Some((name.as_str(), self.platform_or(target), self.image)),
            _ => None,
        };
        let origins =
            self.steps.iter().flat_map(|step| step.origins.iter().flatten().map(|o| (o, step.span)));
        base.into_iter().chain(origins.filter_map(move |(origin, span)| match origin {
            Origin::Image(name) if name == SCRATCH => None,
            Origin::Image(name) => Some((name.as_str(), target, span)),
            Origin::Stage(_) | Origin::Context(_) => None,
        }))
    }

    /// Triggers that stages based on this one inherit.
    pub fn own_triggers(&self) -> Vec<String> {
        let triggers = self.steps.iter().filter_map(|step| match &step.instruction.kind {
            Kind::Onbuild(onbuild) => Some(onbuild.trigger.clone()),
            _ => None,
        });
        triggers.collect()
    }
}
