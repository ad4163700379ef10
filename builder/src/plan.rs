//! Translates stages into the step graph and the image's config. Pure: base images come in as data.
//!
//! One file for each family of instructions. Their effects on config, environment and history follow the reference
//! frontend (moby/buildkit `dockerfile2llb/convert.go`).

mod arg;
mod base;
mod config;
mod copy;
mod display;
mod expose;
mod go;
mod mount;
mod run;
mod workdir;

pub use copy::checkout;
pub(crate) use copy::only_remote;
pub(crate) use run::hostname;

use crate::graph::{self, Graph, HostMount, Node, Operation, RunLimits};
use crate::images::BaseImages;
use crate::mistake::Mistake;
use crate::solve::{Input, NodeId, Use};
use crate::stage::{Stages, Step};
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
