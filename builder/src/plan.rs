//! Translates stages into the step graph and the image's config. Pure: base images come in as data.
//!
//! One file for each family of instructions. Their effects on config, environment and history follow the reference
//! frontend (moby/buildkit `dockerfile2llb/convert.go`).

mod arg;
mod config;
mod copy;
mod display;
mod expose;
mod go;
mod mount;
mod run;

pub use copy::checkout;
pub(crate) use copy::only_remote;
pub(crate) use run::hostname;

use crate::graph::{self, CopyFrom, CopySource, Graph, HostMount, ImageSource, Node, Operation, RunLimits};
use crate::images::BaseImages;
use crate::mistake::Mistake;
use crate::path;
use crate::solve::{Input, NodeId, Use};
use crate::stage::{Base, Origin, SCRATCH, Stage, Stages, Step};
use crate::variables::Variables;
use kiln_image::config::{History, ImageConfig, RunConfig};
use kiln_image::manifest::Descriptor;
use kiln_image::platform::Platform;
use kiln_image::store::MAX_METADATA;
use kiln_parser::Text;
use kiln_parser::ast::{Kind, NetworkMode};
use kiln_parser::expand::{self, Budget, BudgetedVariables, ExpandError, Quotes, Rules};
use kiln_parser::span::Span;
use std::collections::{BTreeMap, BTreeSet};

/// Default `PATH` of images that set none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Default `PATH` of images for Windows.
const WINDOWS_PATH: &str = "c:\\Windows\\System32;c:\\Windows;C:\\Windows\\System32\\WindowsPowerShell\\v1.0";
const WINDOWS: &str = "windows";
/// Comment of history entries, as the reference writes it.
const HISTORY_COMMENT: &str = "buildkit.dockerfile.v0";

/// Options that a plan depends on, besides stages and images.
#[derive(Clone, Debug)]
pub struct PlanOptions<'a> {
    /// `--build-arg` values by name.
    pub build_args: &'a BTreeMap<String, String>,
    /// Target platform of the build.
    pub platform: &'a Platform,
    /// True when the user named the platform.
    pub platform_given: bool,
    /// Run all steps, even if the cache has their results.
    pub no_cache: bool,
    /// `--label` values, which override those of the file.
    pub labels: &'a BTreeMap<String, String>,
    /// Identity of the Dockerfile across builds.
    pub name: &'a str,
    /// Plan for a check: entitlements are not required.
    pub looks_only: bool,
    /// Names of stages, in lower case, whose steps run even if the cache has their results.
    pub no_cache_stages: &'a BTreeSet<String>,
    /// Network of RUN steps that do not choose one.
    pub network: NetworkMode,
    /// Entitlements that the caller granted to the file.
    pub entitlements: &'a Entitlements,
    /// Names and addresses of `--add-host`.
    pub hosts: &'a [(String, String)],
    /// Resource limits of RUN steps.
    pub limits: &'a RunLimits,
    /// Host directories to mount into all RUN steps.
    pub volumes: &'a [HostMount],
    /// `SOURCE_DATE_EPOCH` in seconds since 1970.
    pub epoch: Option<i64>,
    /// Include the platform in names of steps, because there are several.
    pub names_platform: bool,
}

/// Entitlements that `--allow` grants to a Dockerfile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entitlements {
    /// RUN steps may use the host network.
    pub host_network: bool,
    /// RUN steps may use `--security=insecure`.
    pub insecure: bool,
    /// Devices by name; an empty set allows all, `None` allows none.
    pub devices: Option<BTreeSet<String>>,
    /// Images may contain secrets: `--allow secret-leak`.
    pub secret_leak: bool,
}

impl Entitlements {
    fn allows_device(&self, name: &str) -> bool {
        self.devices.as_ref().is_some_and(|names| names.is_empty() || names.contains(name))
    }
}

/// Steps of a build, and the images to create from them.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The graph of all steps.
    pub graph: Graph,
    /// Images in the order of the targets.
    pub results: Vec<Planned>,
    /// Steps to run although no image contains them: those of `--all-stages`.
    pub others: Vec<NodeId>,
}

/// An image to create from the tree of a step.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Index of the stage in the file.
    pub stage: usize,
    /// Target platform of the image.
    pub platform: Platform,
    /// Step whose tree becomes the image's root file system.
    pub target: NodeId,
    /// Config without times and without diff ids of new layers.
    pub config: ImageConfig,
    /// Layers of the base image, as in its manifest.
    pub base_layers: Vec<Descriptor>,
    /// Names of the steps that create layers, lowest first.
    pub layer_names: Vec<String>,
}

impl Plan {
    /// Steps whose layers become layers of the images.
    pub(crate) fn steps_in_images(&self) -> BTreeSet<NodeId> {
        let mut steps = BTreeSet::new();
        let mut open: Vec<NodeId> = self.results.iter().map(|result| result.target).collect();
        while let Some(node) = open.pop() {
            if steps.insert(node) {
                let base = self.graph.node(node).inputs.iter().filter(|input| input.usage == Use::Base);
                open.extend(base.map(|input| input.node));
            }
        }
        steps
    }

    /// Reorders the results from platform by platform to target by target.
    pub(crate) fn group_by_target(&mut self, platforms: usize) {
        let targets = self.results.len() / platforms;
        let order =
            (0..targets).flat_map(|target| (0..platforms).map(move |platform| platform * targets + target));
        self.results = order.map(|index| self.results[index].clone()).collect();
    }

    /// All steps to run: those of the images, then the others.
    pub fn targets(&self) -> Vec<NodeId> {
        self.results.iter().map(|result| result.target).chain(self.others.iter().copied()).collect()
    }
}

/// Adds the targets of `stages` to a plan. `images` must contain all images that reachable stages name.
///
/// # Errors
/// Fails when an instruction is invalid after expansion, or needs an entitlement that was not granted.
pub fn plan(
    plan: &mut Plan,
    stages: &Stages,
    images: &BaseImages,
    options: &PlanOptions<'_>,
) -> Result<(), Mistake> {
    let mut planner = Planner {
        stages,
        images,
        options,
        graph: std::mem::take(&mut plan.graph),
        done: BTreeMap::new(),
        sources: BTreeMap::new(),
        budget: Budget::default(),
    };
    for index in stages.reachable() {
        let state = planner.stage(index)?;
        planner.done.insert(index, state);
    }
    for target in &stages.targets {
        let state = planner.done[target].clone();
        plan.results.push(planner.finish(*target, state)?);
    }
    if stages.all {
        plan.others.extend(planner.done.values().map(|state| state.node));
    }
    plan.graph = planner.graph;
    Ok(())
}

struct Planner<'a> {
    stages: &'a Stages,
    images: &'a BaseImages,
    options: &'a PlanOptions<'a>,
    graph: Graph,
    done: BTreeMap<usize, StageState>,
    /// Nodes of images by name and platform: each image has one node.
    sources: BTreeMap<(String, Platform), NodeId>,
    /// Budget for expansions, shared by all stages of the file.
    budget: Budget,
}

/// State of a stage during and after planning of its instructions.
#[derive(Clone, Debug)]
struct StageState {
    /// Step whose tree is the current tree of the stage.
    node: NodeId,
    config: ImageConfig,
    /// Environment for RUN and for expansion: the image's variables, and the ARGs.
    environment: Variables,
    /// Budget for expansions, shared by all stages of the file.
    budget: Budget,
    /// Bytes of history that this stage has added.
    described: usize,
    /// ARGs in the order of declaration.
    arguments: Vec<(String, Option<String>)>,
    base_layers: Vec<Descriptor>,
    /// True when this stage set CMD itself.
    has_own_command: bool,
    /// Platform of the stage.
    platform: Platform,
    counter: Counter,
}

impl StageState {
    /// The environment with its budget, for expansion.
    fn limited(&self) -> BudgetedVariables<'_> {
        BudgetedVariables { variables: &self.environment, budget: &self.budget }
    }

    /// Charges the budget for a copy of the environment and `more` bytes: a file can request one in every step.
    fn pay_for_environment(&self, more: usize, span: Span) -> Result<(), Mistake> {
        let length: usize = self.environment.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.budget.spend(length + more).map_err(|spent| Mistake::at("expansion", span, spent.to_string()))
    }
}

/// Counter of a stage's steps, for their names in the progress.
#[derive(Clone, Debug, Default)]
struct Counter {
    title: String,
    current: usize,
    total: usize,
    place: String,
    is_trigger: bool,
    no_cache: bool,
}

impl Counter {
    /// Next name, such as `[title 2/4] text`.
    fn name(&mut self, text: &str) -> String {
        if self.total == 0 {
            return text.to_owned();
        }
        self.current += 1;
        let width = self.total.to_string().len();
        let title = if self.title.is_empty() { String::new() } else { format!("{} ", self.title) };
        let trigger = if self.is_trigger { "ONBUILD " } else { "" };
        format!("[{title}{:>width$}/{}] {trigger}{text}", self.current, self.total)
    }
}

impl Planner<'_> {
    fn stage(&mut self, index: usize) -> Result<StageState, Mistake> {
        let stage = &self.stages.list[index];
        let mut state = self.begin(index, stage)?;
        for (number, step) in stage.steps.iter().enumerate() {
            state.counter.place = format!("{}#{index}.{}", self.options.name, number + 1);
            state.counter.is_trigger = step.is_trigger;
            self.instruction(&mut state, step)?;
            if state.described as u64 > MAX_METADATA {
                return Err(config_too_large(step.span));
            }
        }
        Ok(state)
    }

    fn begin(&mut self, index: usize, stage: &Stage) -> Result<StageState, Mistake> {
        let steps = stage.steps.iter().filter(|step| {
            matches!(step.instruction.kind, Kind::Run(_) | Kind::Copy(_) | Kind::Add(_) | Kind::Workdir(_))
        });
        let has_source = matches!(stage.base, Base::Image(_) | Base::Context(_));
        // As in the reference, a stage based on another stage has that stage's platform; its own flag has no effect.
        let platform = match &stage.base {
            Base::Stage(base) => self.done[base].platform.clone(),
            _ => stage.platform_or(self.options.platform).clone(),
        };
        let title = match self.options.names_platform {
            true => format!("{platform} {}", stage.title).trim_end().to_owned(),
            false => stage.title.clone(),
        };
        let mut counter = Counter {
            title,
            total: steps.count() + usize::from(has_source),
            place: format!("{}#{index}.0", self.options.name),
            no_cache: stage
                .name
                .as_ref()
                .is_some_and(|name| self.options.no_cache_stages.contains(&name.to_lowercase())),
            ..Counter::default()
        };
        let mut state = match &stage.base {
            Base::Stage(base) => {
                let base = self.done.get(base).expect("stages come after those they start from");
                base.pay_for_environment(base.described, stage.span)?;
                let base = base.clone();
                StageState { has_own_command: false, counter, ..base }
            }
            Base::Scratch => {
                let node = self.add(
                    &mut counter,
                    stage.span,
                    Operation::Scratch,
                    Vec::new(),
                    "FROM scratch".to_owned(),
                );
                // The empty image is for the platform of the target: it contains no files that could be for another.
                fresh_state(
                    node,
                    empty_config(self.options.platform),
                    Vec::new(),
                    platform.clone(),
                    counter,
                    &self.budget,
                )
            }
            Base::Context(context) => {
                let shown = format!("local source for {}", self.stages.context_name(*context));
                let node = self.context_tree(&mut counter, stage.span, *context, shown);
                fresh_state(
                    node,
                    empty_config(&platform),
                    Vec::new(),
                    platform.clone(),
                    counter,
                    &self.budget,
                )
            }
            Base::Image(name) => {
                let image = &self.images[&(name.clone(), platform.clone())];
                let shown = counter.name(&format!("FROM {}", image.reference));
                let node = self.image_node(name, &platform, shown, Some(stage.span));
                let config = ImageConfig { created: None, ..image.config.clone() };
                fresh_state(node, config, image.layers.clone(), platform.clone(), counter, &self.budget)
            }
        };
        // Triggers were inserted before the instructions, and are not inherited.
        state.config.config.on_build.clear();
        let is_windows = platform.os == WINDOWS;
        let is_empty = matches!(stage.base, Base::Scratch);
        if state.config.config.env_value("PATH").is_none() && !(is_windows && is_empty) {
            let path = if is_windows { WINDOWS_PATH } else { DEFAULT_PATH };
            state.config.config.env.push(format!("PATH={path}"));
        }
        for entry in &state.config.config.env {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            state.environment.set(name, value);
        }
        let dir = state.config.config.working_dir.clone();
        if !dir.is_empty() && !is_windows {
            state.config.config.working_dir = path::working_dir(&dir, &dir);
        }
        Ok(state)
    }

    /// All files of a named context, as a tree.
    fn context_tree(&mut self, counter: &mut Counter, span: Span, context: usize, shown: String) -> NodeId {
        let empty = self.add(counter, span, Operation::Scratch, Vec::new(), "FROM scratch".to_owned());
        let source = CopySource {
            from: CopyFrom::Context(context + 1),
            path: "/".to_owned(),
            place: span,
            unpack: false,
            origin: self.origin_name(Some(&Origin::Context(context))),
        };
        let copy = graph::Copy::of(vec![source], "/".to_owned());
        self.add(counter, span, Operation::Copy(Box::new(copy)), vec![graph::base(empty)], shown)
    }

    /// Node of an image, created at its first use.
    fn image_node(&mut self, name: &str, platform: &Platform, shown: String, span: Option<Span>) -> NodeId {
        let key = (name.to_owned(), platform.clone());
        if let Some(node) = self.sources.get(&key) {
            return *node;
        }
        let image = &self.images[&key];
        let source = ImageSource { reference: image.reference.clone(), diff_ids: image.diff_ids().to_vec() };
        let node = self.graph.add(Node {
            operation: Operation::Image(source),
            inputs: Vec::new(),
            name: shown,
            span,
            place: format!("image {name}"),
            no_cache: false,
        });
        self.sources.insert(key, node);
        node
    }

    /// Node with the tree that `--from` names. Images are for the target platform, whatever the platform of the stage.
    fn origin_node(&mut self, origin: &Origin, span: Span) -> NodeId {
        let platform = self.options.platform;
        match origin {
            Origin::Stage(index) => {
                self.done.get(index).expect("stages come after those they copy from").node
            }
            Origin::Image(name) if name == SCRATCH => self.graph.add(Node {
                operation: Operation::Scratch,
                inputs: Vec::new(),
                name: "FROM scratch".to_owned(),
                span: Some(span),
                place: "scratch".to_owned(),
                no_cache: false,
            }),
            Origin::Image(name) => {
                let key = (name.clone(), platform.clone());
                let shown = format!("FROM {}", self.images[&key].reference);
                self.image_node(name, platform, shown, Some(span))
            }
            Origin::Context(context) => {
                let shown = format!("FROM {}", self.stages.context_name(*context));
                let place = format!("context {}", self.stages.context_name(*context));
                let mut counter = Counter { place, ..Counter::default() };
                self.context_tree(&mut counter, span, *context, shown)
            }
        }
    }

    /// Description of the source that `--from` names; without a source, of the build context.
    fn origin_name(&self, origin: Option<&Origin>) -> String {
        match origin {
            None => "the build context".to_owned(),
            Some(Origin::Context(context)) => {
                format!("the named context {}", self.stages.context_name(*context))
            }
            Some(Origin::Stage(index)) => {
                let name = self.stages.list[*index].name.clone();
                format!("the stage {}", name.unwrap_or_else(|| index.to_string()))
            }
            Some(Origin::Image(name)) => format!("the image {name}"),
        }
    }

    fn add(
        &mut self,
        counter: &mut Counter,
        span: Span,
        operation: Operation,
        inputs: Vec<Input>,
        name: String,
    ) -> NodeId {
        let no_cache = self.options.no_cache || counter.no_cache;
        let place = counter.place.clone();
        self.graph.add(Node { operation, inputs, name, span: Some(span), place, no_cache })
    }

    fn instruction(&mut self, state: &mut StageState, step: &Step) -> Result<(), Mistake> {
        match &step.instruction.kind {
            Kind::Run(run) => self.run(state, step, run),
            Kind::Copy(copy) => self.copy(state, step, copy),
            Kind::Add(add) => self.add_files(state, step, add),
            Kind::Workdir(dir) => self.workdir(state, step, dir),
            Kind::Arg(items) => self.arg(state, step, items),
            other => config::apply(state, step, other),
        }
    }

    /// Adds a step on top of the stage's tree.
    fn push(
        &mut self,
        state: &mut StageState,
        step: &Step,
        operation: Operation,
        more: Vec<Input>,
        text: &str,
    ) {
        let name = state.counter.name(text);
        let inputs = std::iter::once(graph::base(state.node)).chain(more).collect();
        state.node = self.add(&mut state.counter, step.span, operation, inputs, name);
    }

    fn workdir(&mut self, state: &mut StageState, step: &Step, text: &Text) -> Result<(), Mistake> {
        let value = expand_value(state, step, text)?;
        if state.platform.os == WINDOWS {
            return self.windows_workdir(state, step, &value);
        }
        let dir = path::working_dir(&state.config.config.working_dir, &value);
        state.config.config.working_dir.clone_from(&dir);
        let is_root = dir == "/";
        if !is_root {
            let make = graph::MakeDir {
                path: dir.clone(),
                owner: state.config.config.user.clone(),
                epoch: self.options.epoch,
            };
            let shown = shown_expanded(state, step, Quotes::Remove, false);
            self.push(state, step, Operation::MakeDir(make), Vec::new(), &shown);
        }
        commit(state, format!("WORKDIR {dir}"), !is_root);
        Ok(())
    }

    /// WORKDIR of an image for Windows: paths of files have slashes and no drive, the config has backslashes.
    fn windows_workdir(&mut self, state: &mut StageState, step: &Step, value: &str) -> Result<(), Mistake> {
        let value = path::of_windows(value);
        let dir = path::working_dir(&path::of_windows(&state.config.config.working_dir), &value);
        let dir = path::join("/", &dir);
        let shown = dir.replace('/', "\\");
        state.config.config.working_dir.clone_from(&shown);
        let is_root = dir == "/";
        if !is_root {
            let make = graph::MakeDir { path: dir, owner: String::new(), epoch: self.options.epoch };
            let name = shown_expanded(state, step, Quotes::Remove, false);
            self.push(state, step, Operation::MakeDir(make), Vec::new(), &name);
        }
        commit(state, format!("WORKDIR {shown}"), !is_root);
        Ok(())
    }

    fn finish(&self, stage: usize, target: StageState) -> Result<Planned, Mistake> {
        let mut config = target.config;
        for (name, value) in self.options.labels {
            config.config.labels.insert(name.clone(), value.clone());
        }
        let platform = self.options.platform;
        if self.options.platform_given {
            let is_same = config.os == platform.os && config.architecture == platform.architecture;
            config.os.clone_from(&platform.os);
            config.architecture.clone_from(&platform.architecture);
            if platform.variant.is_some() || !is_same {
                config.variant.clone_from(&platform.variant);
            }
            if platform.os_version.is_some() || !is_same {
                config.os_version.clone_from(&platform.os_version);
            }
        }
        if config.encode().0.len() as u64 > MAX_METADATA {
            return Err(config_too_large(self.stages.list[stage].span));
        }
        Ok(Planned {
            stage,
            platform: platform.clone(),
            target: target.node,
            config,
            base_layers: target.base_layers,
            layer_names: self.layer_names(target.node),
        })
    }

    /// Names of the steps that create the layers of a tree.
    fn layer_names(&self, target: NodeId) -> Vec<String> {
        let mut names = Vec::new();
        let mut next = Some(target);
        while let Some(node) = next.map(|id| self.graph.node(id)) {
            if !matches!(node.operation, Operation::Scratch | Operation::Image(_)) {
                names.push(node.name.clone());
            }
            let base = node.inputs.iter().find(|input| input.usage == crate::solve::Use::Base);
            next = base.map(|input| input.node);
        }
        names.reverse();
        names
    }
}

/// Mistake for a config that is larger than the store reads.
fn config_too_large(span: Span) -> Mistake {
    let message = format!("the image's config becomes larger than {} MiB", MAX_METADATA >> 20);
    let hint =
        "variables, labels and the history of all instructions count; copy long texts into files instead";
    Mistake::at("config-size", span, message).hint(Some(hint.to_owned()))
}

fn fresh_state(
    node: NodeId,
    config: ImageConfig,
    base_layers: Vec<Descriptor>,
    platform: Platform,
    counter: Counter,
    budget: &Budget,
) -> StageState {
    StageState {
        budget: budget.clone(),
        described: 0,
        node,
        config,
        environment: Variables::default(),
        arguments: Vec::new(),
        base_layers,
        has_own_command: false,
        platform,
        counter,
    }
}

/// Config of an image that starts from the empty image.
fn empty_config(platform: &Platform) -> ImageConfig {
    if platform.os == WINDOWS {
        return ImageConfig {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            os_version: platform.os_version.clone(),
            config: RunConfig { working_dir: "\\".to_owned(), ..RunConfig::default() },
            ..ImageConfig::default()
        };
    }
    ImageConfig {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        config: RunConfig {
            env: vec![format!("PATH={DEFAULT_PATH}")],
            working_dir: "/".to_owned(),
            ..RunConfig::default()
        },
        ..ImageConfig::default()
    }
}

/// Adds an entry to the history.
fn commit(state: &mut StageState, created_by: String, has_layer: bool) {
    state.described += created_by.len();
    state.config.history.push(History {
        created_by,
        comment: HISTORY_COMMENT.to_owned(),
        empty_layer: !has_layer,
        ..History::default()
    });
}

/// Value of a text in the environment of the stage.
fn expand_value(state: &StageState, step: &Step, text: &Text) -> Result<String, Mistake> {
    expand::expand(text.as_str(), &state.limited(), Rules::value(step.escape))
        .map(|expansion| expansion.value)
        .map_err(|error| expansion_error(step, text, &error))
}

fn expansion_error(step: &Step, text: &Text, error: &ExpandError) -> Mistake {
    let span = if step.is_trigger { step.span } else { text.span_of(error.at..error.at + 1) };
    unprocessed(span, text.as_str(), &error.message)
}

/// Mistake for a text whose variables cannot be replaced.
fn unprocessed(span: Span, text: &str, reason: &str) -> Mistake {
    Mistake::at("expansion", span, format!("failed to process {}: {reason}", go::quote(text)))
}

/// Instruction for the progress: keyword in capitals, variables replaced.
fn shown_expanded(state: &StageState, step: &Step, quotes: Quotes, keep_unset: bool) -> String {
    let line = step.instruction.line.as_str();
    let rules = Rules { quotes, keep_unset, ..Rules::value(step.escape) };
    let text = expand::expand(line, &state.limited(), rules).map_or_else(|_| line.to_owned(), |e| e.value);
    match text.split_once(' ') {
        Some((keyword, rest)) => format!("{} {rest}", keyword.to_uppercase()),
        None => text.to_uppercase(),
    }
}

/// Quotes like Go's `strconv.Quote`, for commands in messages.
pub(crate) fn quote(text: &str) -> String {
    go::quote(text)
}

/// Shell of the shell form: that of SHELL, or `/bin/sh -c`.
fn shell(config: &RunConfig) -> Vec<String> {
    if config.shell.is_empty() { vec!["/bin/sh".to_owned(), "-c".to_owned()] } else { config.shell.clone() }
}
