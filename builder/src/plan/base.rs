//! Beginning of stages: the tree and the config of their base, and the nodes of other trees.

use super::{Counter, DEFAULT_PATH, Planner, StageState, WINDOWS};
use crate::graph::{self, CopyFrom, CopySource, ImageSource, Node, Operation};
use crate::mistake::Mistake;
use crate::path;
use crate::solve::NodeId;
use crate::stage::{Base, Origin, SCRATCH, Stage};
use crate::variables::Variables;
use kiln_image::config::{ImageConfig, RunConfig};
use kiln_image::platform::Platform;
use kiln_parser::ast::Kind;
use kiln_parser::span::Span;

/// Default `PATH` of images for Windows.
const WINDOWS_PATH: &str = "c:\\Windows\\System32;c:\\Windows;C:\\Windows\\System32\\WindowsPowerShell\\v1.0";

impl Planner<'_> {
    /// State of a stage before its first instruction.
    pub(super) fn begin(&mut self, index: usize, stage: &Stage) -> Result<StageState, Mistake> {
        // As in the reference, a stage based on another stage has that stage's platform; its own flag has no effect.
        let platform = match &stage.base {
            Base::Stage(base) => self.done[base].platform.clone(),
            _ => stage.platform_or(self.options.platform).clone(),
        };
        let counter = self.counter(index, stage, &platform);
        let mut state = self.on_base(stage, &platform, counter)?;
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

    fn counter(&self, index: usize, stage: &Stage, platform: &Platform) -> Counter {
        let steps = stage.steps.iter().filter(|step| {
            matches!(step.instruction.kind, Kind::Run(_) | Kind::Copy(_) | Kind::Add(_) | Kind::Workdir(_))
        });
        let has_source = matches!(stage.base, Base::Image(_) | Base::Context(_));
        let title = match self.options.names_platform {
            true => format!("{platform} {}", stage.title).trim_end().to_owned(),
            false => stage.title.clone(),
        };
        let is_named = |name: &String| self.options.no_cache_stages.contains(&name.to_lowercase());
        Counter {
            title,
            total: steps.count() + usize::from(has_source),
            place: format!("{}#{index}.0", self.options.name),
            no_cache: stage.name.as_ref().is_some_and(is_named),
            ..Counter::default()
        }
    }

    /// State with the tree and the config of the stage's base.
    fn on_base(
        &mut self,
        stage: &Stage,
        platform: &Platform,
        mut counter: Counter,
    ) -> Result<StageState, Mistake> {
        let (node, config, layers) = match &stage.base {
            Base::Stage(base) => {
                let base = self.done.get(base).expect("stages come after those they start from");
                base.pay_for_environment(base.described, stage.span)?;
                return Ok(StageState { has_own_command: false, counter, ..base.clone() });
            }
            Base::Scratch => {
                let shown = "FROM scratch".to_owned();
                let node = self.add(&mut counter, stage.span, Operation::Scratch, Vec::new(), shown);
                // The empty image is for the platform of the target: it contains no files that could be for another.
                (node, empty_config(self.options.platform), Vec::new())
            }
            Base::Context(context) => {
                let shown = format!("local source for {}", self.stages.context_name(*context));
                let node = self.context_tree(&mut counter, stage.span, *context, shown);
                (node, empty_config(platform), Vec::new())
            }
            Base::Image(name) => {
                let image = &self.images[&(name.clone(), platform.clone())];
                let shown = counter.name(&format!("FROM {}", image.reference));
                let node = self.image_node(name, platform, shown, Some(stage.span));
                let config = ImageConfig { created: None, ..image.config.clone() };
                (node, config, image.layers.clone())
            }
        };
        Ok(StageState {
            budget: self.budget.clone(),
            described: 0,
            node,
            config,
            environment: Variables::default(),
            arguments: Vec::new(),
            base_layers: layers,
            has_own_command: false,
            platform: platform.clone(),
            counter,
        })
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
    pub(super) fn origin_node(&mut self, origin: &Origin, span: Span) -> NodeId {
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
    pub(super) fn origin_name(&self, origin: Option<&Origin>) -> String {
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
