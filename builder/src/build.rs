//! A build from the Dockerfile to the tagged images.

use crate::cancel::Cancel;
use crate::content::{Content, ContentError, StatCache};
use crate::context::{Context, LocalDir};
use crate::error::{BuildError, FailedStep};
use crate::event::{Event, Finding, Listener, Reporter, Row};
use crate::explain::History;
use crate::export::{Exported, Exporter};
use crate::facts::{facts, file_facts};
use crate::front::epoch::{self, Epoch};
use crate::front::{self, BuildOptions};
use crate::graph::{CopySource, Operation};
use crate::images::{BaseImages, Images};
use crate::inputs::Inputs;
use crate::known::Known;
use crate::mistake::Mistake;
use crate::outcome::{BuiltImage, Outcome};
use crate::path;
use crate::plan::{self, Plan, Planned};
use crate::remote::Remote;
use crate::resolve::resolve;
use crate::sandbox::{Names, Sandbox};
use crate::secret::Needles;
use crate::solve::{NodeId, SolveError, solve};
use crate::stage::{self, Stages};
use crate::step::{Built, Executor, StepError, Tools};
use kiln_image::config::ImageConfig;
use kiln_image::digest::Digest;
use kiln_image::layer::WALK_STACK;
use kiln_image::platform::Platform;
use kiln_image::reference::Reference;
use kiln_image::store::{LayerId, Store, StoreError};
use kiln_image::tree::Tree;
use kiln_parser::diagnostic::Diagnostic;
use kiln_parser::lint::{self, Choice};
use kiln_parser::{Parse, parse, suggest};
use kiln_runtime::Spawner;
use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, mpsc};
use tracing::debug;

/// Lower limit of concurrent steps, however few processors the host has: many steps only wait.
const MIN_PARALLEL: usize = 16;

/// Effects that a build needs: store, containers, network, events.
pub struct Effects<'a> {
    /// Store of images, layers and results.
    pub store: &'a Store,
    /// Starts containers of RUN steps.
    pub spawner: &'a Spawner,
    /// Resolves base images and fetches them into the store.
    pub images: &'a dyn Images,
    /// Fetches remote files and repositories.
    pub remote: &'a dyn Remote,
    /// Directory that is emptied at boot, for the state of networks.
    pub state: &'a Path,
    /// Receives events of the build.
    pub listener: &'a Listener<'a>,
    /// Stops the build when it is triggered.
    pub cancel: &'a Cancel,
}

/// Builds the images of all targets and platforms.
///
/// # Errors
/// [`BuildError::Mistake`] before any step has run; [`BuildError::Step`], [`BuildError::Leak`] and the others while steps
/// run or images are written.
pub fn build(
    context: &Context,
    options: &BuildOptions,
    effects: &Effects<'_>,
) -> Result<Outcome, BuildError> {
    // At most once in each process: a pool that exists already stays unchanged.
    let _ = rayon::ThreadPoolBuilder::new().stack_size(WALK_STACK).build_global();
    let build = Build { context, options, effects, reporter: Reporter::new(effects.listener) };
    build.run().map_err(|error| if effects.cancel.is_interrupted() { BuildError::Interrupted } else { error })
}

struct Build<'a> {
    context: &'a Context,
    options: &'a BuildOptions,
    effects: &'a Effects<'a>,
    reporter: Reporter<'a>,
}

impl Build<'_> {
    fn run(&self) -> Result<Outcome, BuildError> {
        let platforms = front::platforms(self.options);
        let (parsed, first) = self.parse(&platforms[0])?;
        // Layers that the build finds or creates must not be removed before an image refers to them.
        let _using = self.effects.store.use_layers()?;
        let mut plan = Plan::default();
        let mut epoch = RemoteEpoch::default();
        let mut time = None;
        let mut configs = Vec::new();
        let mut first = Some(first);
        for platform in &platforms {
            let is_first = first.is_some();
            let mut stages = match first.take() {
                Some(stages) => stages,
                None => self.stages(&parsed, platform)?,
            };
            let images = resolve(&mut stages, platform, self.effects.images, &self.reporter)?;
            time = epoch.time(epoch::read(self.context, self.options, &stages)?, self.effects)?;
            let options = front::plan_options(self.context, self.options, platform, time);
            let planned = plan::plan(&mut plan, &stages, &images, &options);
            configs.extend(images.values().map(|image| image.config.clone()));
            let linted = if is_first { self.lint(&parsed, &stages, &images) } else { Ok(()) };
            planned?;
            linted?;
        }
        plan.group_by_target(platforms.len());
        self.execute(&plan, time, &configs)
    }

    fn stages(&self, parsed: &Parse, platform: &Platform) -> Result<Stages, Mistake> {
        front::stages(self.context, self.options, parsed, platform, self.options.all_stages)
    }

    /// Parses the file, and resolves its stages for the first platform.
    fn parse(&self, platform: &Platform) -> Result<(Parse, Stages), Mistake> {
        let name = self.context.source.name();
        let row = self.reporter.start(format!("[internal] load build definition from {name}"));
        let parsed = parse(&self.context.source);
        let errors: Vec<_> = parsed.errors().cloned().collect();
        let result = match errors.is_empty() {
            true => self.stages(&parsed, platform),
            false => {
                // The tree is incomplete: lints see only what could be parsed.
                self.tell_findings(&parsed, &file_facts(self.context, self.options));
                Err(Mistake::Syntax(errors))
            }
        };
        self.reporter.end(row, &result);
        let stages = result?;
        self.warn_of_unused_arguments(&parsed.file)?;
        Ok((parsed, stages))
    }

    /// Reports findings, and fails when the file requests that (`# check=error=true`).
    fn lint(&self, parsed: &Parse, stages: &Stages, images: &BaseImages) -> Result<(), Mistake> {
        let facts = facts(self.context, self.options, stages, images);
        let violations = self.tell_findings(parsed, &facts);
        if violations.is_empty() { Ok(()) } else { Err(Mistake::Violations(violations)) }
    }

    /// Reports findings. Returns the rules whose findings are errors.
    fn tell_findings(&self, parsed: &Parse, facts: &lint::Facts) -> Vec<&'static str> {
        let source = &self.context.source;
        let report = lint::lint(parsed, source, facts, &Choice::default());
        let found = |finding: &Diagnostic| {
            let rule = lint::rule(finding.code);
            let (line, last_line) = finding.lines(&parsed.file, source);
            Finding {
                rule: finding.code,
                message: finding.message.clone(),
                line,
                last_line,
                description: rule.map_or("", |rule| rule.summary),
                url: rule.and_then(lint::Rule::url),
            }
        };
        if !report.findings.is_empty() {
            let list = report.findings.iter().map(found).collect();
            let (name, bytes) = (source.name().to_owned(), source.bytes().to_vec());
            self.reporter.send(Event::Findings { list, name, bytes });
        }
        report.violations()
    }

    /// Warns about build arguments that the file does not declare: misspelt ones would be ignored silently.
    fn warn_of_unused_arguments(&self, file: &kiln_parser::ast::Dockerfile) -> Result<(), Mistake> {
        let declared: Vec<&str> = stage::declared_arguments(file).collect();
        for name in self.options.build_args.keys() {
            let is_known = declared.contains(&name.as_str()) || stage::is_predefined(name);
            if is_known {
                continue;
            }
            let near = suggest::nearest(name, declared.iter().copied());
            if self.options.strict {
                let message = format!("no ARG of the Dockerfile takes --build-arg {name}");
                let hint = match near {
                    Some(near) => format!("did you mean {near}?"),
                    None => format!("declare `ARG {name}`, or leave the option out"),
                };
                return Err(Mistake::option(message, hint));
            }
            let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            let message = format!("[Warning] One or more build-args [{name}] were not consumed{near}");
            self.reporter.send(Event::Warning { message });
        }
        Ok(())
    }

    /// Searches configs and annotations for secrets before any step runs.
    fn check_configs(&self, plan: &Plan, needles: &Needles<'_>) -> Result<(), BuildError> {
        if self.options.entitlements.secret_leak {
            return Ok(());
        }
        let found = |planned: &Planned| needles.find_in_image(&planned.config, &self.options.annotations);
        match plan.results.iter().find_map(found) {
            Some((id, place)) => Err(BuildError::Leak { id, place }),
            None => Ok(()),
        }
    }

    /// Searches layers from the cache for secrets. Cache records of layers that contain one are removed, so that no
    /// later build uses them.
    fn check_found_layers(
        &self,
        plan: &Plan,
        built: &[Built],
        needles: &Needles<'_>,
        clean: &BTreeSet<String>,
    ) -> Result<(), BuildError> {
        if self.options.entitlements.secret_leak || needles.is_empty() {
            return Ok(());
        }
        let store = self.effects.store;
        let mut checked = clean.clone();
        for (planned, built) in plan.results.iter().zip(built) {
            let names: Vec<&String> = planned.layer_names.iter().collect();
            let first = names.len().saturating_sub(built.layers.len());
            for (number, (layer, _)) in built.layers.iter().enumerate() {
                if !checked.insert(layer.as_str().to_owned()) {
                    continue;
                }
                let root = store.layer_dir(layer);
                let leak =
                    needles.find_in_tree(&root, None, self.effects.cancel).map_err(StoreError::from)?;
                if let Some(leak) = leak {
                    store.evict_steps_of(layer)?;
                    let step = names.get(first + number).map(|name| name.as_str()).unwrap_or_default();
                    let place = format!("`{}`, in the layer of `{step}`", leak.path.display());
                    return Err(BuildError::Leak { id: leak.id, place });
                }
            }
        }
        Ok(())
    }

    fn execute(
        &self,
        plan: &Plan,
        epoch: Option<i64>,
        configs: &[ImageConfig],
    ) -> Result<Outcome, BuildError> {
        let Effects { store, spawner, state, cancel, remote, .. } = *self.effects;
        let dirs = self.context.dirs().into_iter().enumerate();
        let contexts = dirs.map(|(number, dir)| open_content(dir, &plan.graph.sources_of(number)));
        let contexts = contexts.collect::<Result<Vec<_>, _>>()?;
        let cache_name = self.stat_cache_name();
        let stat_cache = StatCache::from_bytes(&store.read_cache(&cache_name).unwrap_or_default());
        let names = Names { hostname: plan::hostname(&self.options.build_args), hosts: &self.options.hosts };
        let sandbox = Sandbox::new(store, spawner, state, names);
        let (made, layers) = mpsc::channel();
        let reporter = &self.reporter;
        let graph = &plan.graph;
        let needles = Needles::new(&self.options.credentials.secrets);
        let is_searched = !needles.is_empty();
        let known = Known {
            dockerfile: self.context.source.text(),
            configs: configs.iter().filter(|_| is_searched).map(as_json).collect(),
            graph,
            contexts: &contexts,
            store,
            cancel,
            bare: Mutex::default(),
        };
        let needles = needles.but_known(Box::new(|finder| known.holds(finder)));
        let checked = self.check_configs(plan, &needles);
        self.tell_of_secrets(&needles, &known);
        checked?;
        let in_images = plan.steps_in_images();
        let tools = Tools {
            graph,
            store,
            contexts: &contexts,
            remote,
            strict: self.options.strict,
            stat_cache: &stat_cache,
            sandbox: &sandbox,
            reporter,
            cancel,
            credentials: &self.options.credentials,
            needles: &needles,
            allows_leaks: self.options.entitlements.secret_leak,
            in_images: &in_images,
        };
        let history = History::open(store, &self.context.name, graph, |text| needles.masked(text));
        let explainer = self.options.explain.then(|| history.explainer(graph));
        let executor = Executor::new(tools, made, explainer);
        let result = self.solve_and_export(plan, epoch, &executor, layers, &needles);
        let settled = executor.settle(result.is_ok());
        self.tell_of_secrets(&needles, &known);
        history.keep(|node| executor.shown_inputs(node));
        if let Some(bytes) = stat_cache.to_bytes() {
            // Failure is harmless: the next build reads the files again.
            let _ = store.put_cache(&cache_name, &bytes);
        }
        let outcome = result?;
        settled?;
        Ok(outcome)
    }

    /// Runs the steps of a plan, hashes their layers meanwhile, and exports the images.
    fn solve_and_export(
        &self,
        plan: &Plan,
        epoch: Option<i64>,
        executor: &Executor<'_>,
        layers: mpsc::Receiver<LayerId>,
        needles: &Needles<'_>,
    ) -> Result<Outcome, BuildError> {
        let Effects { store, cancel, .. } = *self.effects;
        let graph = &plan.graph;
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let parallel = self.options.jobs.unwrap_or(processors.max(MIN_PARALLEL));
        let steps = graph.needed(&plan.targets());
        let is_shown = |step: &&NodeId| !matches!(graph.node(**step).operation, Operation::Scratch);
        debug!(steps = steps.len(), parallel, "begins to execute the plan");
        // One more row for the export.
        self.reporter.send(Event::Planned { rows: steps.iter().filter(is_shown).count() + 1 });
        std::thread::scope(|scope| {
            let digester = scope.spawn(move || digest_layers(store, &layers, cancel));
            let solved = solve(executor, &graph.edges(), &plan.targets(), parallel);
            executor.close();
            match solved {
                Ok(built) => {
                    store.touch_steps(&executor.used())?;
                    self.check_found_layers(plan, &built, needles, &executor.clean_layers())?;
                    self.export(plan, &built, epoch, digester)
                }
                Err(error) => Err(self.failed(plan, error)),
            }
        })
    }

    /// Warns about weak values that were found, and about copied files that contain nothing but a secret.
    fn tell_of_secrets(&self, needles: &Needles<'_>, known: &Known<'_>) {
        for (id, place) in needles.take_weak() {
            let message = format!(
                "[Warning] {place} holds the value of the secret {id}, which is so short or simple that it may be there by chance"
            );
            self.reporter.send(Event::Warning { message });
        }
        for path in known.take_bare() {
            let message = format!(
                "[Warning] the file {path} of the build context is copied, and holds a secret and nothing else: leave it out with .dockerignore"
            );
            self.reporter.send(Event::Warning { message });
        }
    }

    fn stat_cache_name(&self) -> String {
        let path = std::fs::canonicalize(&self.context.dir).unwrap_or_default();
        format!("stat-{}", &Digest::of(path.as_os_str().as_bytes()).hex()[..32])
    }

    fn export(
        &self,
        plan: &Plan,
        built: &[Built],
        epoch: Option<i64>,
        digester: std::thread::ScopedJoinHandle<'_, Result<(), StoreError>>,
    ) -> Result<Outcome, BuildError> {
        let row = self.reporter.start(match self.options.only_files {
            true => "exporting files",
            false => "exporting to image",
        });
        let result = self.export_in(row, plan, built, epoch, digester);
        self.reporter.end(row, &result);
        result
    }

    fn export_in(
        &self,
        row: Row,
        plan: &Plan,
        built: &[Built],
        epoch: Option<i64>,
        digester: std::thread::ScopedJoinHandle<'_, Result<(), StoreError>>,
    ) -> Result<Outcome, BuildError> {
        let note = |text: String| self.reporter.send(Event::Note { row, text });
        digester.join().expect("digesting does not panic")?;
        if self.options.rewrites_times && epoch.is_none() {
            let message = "[Warning] times are not rewritten: there is no SOURCE_DATE_EPOCH".to_owned();
            self.reporter.send(Event::Warning { message });
        }
        let store = self.effects.store;
        let exporter = Exporter {
            store,
            epoch,
            rewrites_times: self.options.rewrites_times,
            squash: self.options.squash,
            annotations: &self.options.annotations,
            docker_types: self.options.docker_types,
            only_files: self.options.only_files,
        };
        note("exporting layers done".to_owned());
        let mut images = Vec::new();
        for (planned, built) in plan.results.iter().zip(built) {
            let Exported { id, manifest, diff_ids } = exporter.export(planned, built)?;
            if !self.options.only_files {
                note(format!("writing image {id} done"));
            }
            let (platform, stage) = (planned.platform.clone(), planned.stage);
            images.push(BuiltImage { id, manifest, platform, stage, tags: Vec::new(), diff_ids });
        }
        let inputs = Inputs::of(self.context, &plan.graph);
        let mut outcome = Outcome { images, index: None, epoch, inputs };
        if front::platforms(self.options).len() > 1
            || self.options.build_args.contains_key("BUILDKIT_MULTI_PLATFORM")
        {
            outcome.index = Some(exporter.index(outcome.last()));
        }
        self.tag(&mut outcome, note)?;
        Ok(outcome)
    }

    /// Tags the images; of a target for several platforms, the image for the host.
    fn tag(&self, outcome: &mut Outcome, note: impl Fn(String)) -> Result<(), BuildError> {
        let count = outcome.images.len() / self.options.targets.len().max(1);
        let mut named: Vec<(usize, &Reference)> = Vec::new();
        for (number, target) in self.options.targets.iter().enumerate() {
            let images = number * count..(number + 1) * count;
            named.extend(target.tags.iter().map(|tag| (outcome.host_image(images.clone()), tag)));
        }
        let last = outcome.images.len() - count..outcome.images.len();
        let main = outcome.host_image(last);
        named.extend(self.options.tags.iter().map(|tag| (main, tag)));
        for (index, tag) in named {
            self.effects.store.tag(tag, &outcome.images[index].id)?;
            outcome.images[index].tags.push(tag.clone());
            let name = tag.clone().or_latest();
            let shown = if name.tag() == Some("latest") { name.repository() } else { name.to_string() };
            note(format!("naming to {shown} done"));
        }
        Ok(())
    }

    fn failed(&self, plan: &Plan, error: SolveError<StepError>) -> BuildError {
        let SolveError { node, error } = error;
        if let StepError::Leak { id, place } = error {
            return BuildError::Leak { id, place };
        }
        let error = SolveError { node, error };
        let node = plan.graph.node(error.node);
        let missing = match (&node.operation, &error.error) {
            (Operation::Copy(copy), StepError::Content(ContentError::NotFound { path, .. })) => {
                let is_it = |source: &&CopySource| path::join("/", &source.path) == *path;
                copy.sources.iter().find(is_it).map(|source| source.place)
            }
            (Operation::Copy(copy), StepError::Content(ContentError::NoDirectory { path, .. })) => {
                let is_it = |source: &&CopySource| source.path.starts_with(&format!("{path}/"));
                copy.sources.iter().find(is_it).map(|source| source.place)
            }
            _ => None,
        };
        BuildError::Step(Box::new(FailedStep {
            name: node.name.clone(),
            span: missing.or(node.span),
            error: error.error,
        }))
    }
}

/// Time of a remote file or repository, fetched once in each build.
#[derive(Default)]
struct RemoteEpoch {
    fetched: Option<Option<i64>>,
}

impl RemoteEpoch {
    fn time(&mut self, epoch: Epoch, effects: &Effects<'_>) -> Result<Option<i64>, BuildError> {
        let operation = match epoch {
            Epoch::Known(time) => return Ok(time),
            Epoch::Of(operation) => operation,
        };
        if let Some(time) = self.fetched {
            return Ok(time);
        }
        let dir = effects.store.scratch_dir()?;
        let time = epoch::fetch(&operation, effects.remote, dir.path())?;
        self.fetched = Some(time);
        Ok(time)
    }
}

fn as_json(config: &ImageConfig) -> String {
    serde_json::to_string(config).unwrap_or_default()
}

fn open_content(dir: Option<LocalDir>, sources: &[String]) -> Result<Option<Content>, BuildError> {
    let Some(dir) = dir else { return Ok(None) };
    let tree = Tree::open(&dir.dir)?;
    let real = std::fs::canonicalize(&dir.dir).unwrap_or_else(|_| dir.dir.clone());
    let shown = format!("the directory `{}`", real.display());
    let content = Content::context(tree, dir.ignore, dir.ignore_name, shown);
    let content = content.with_sources(sources.to_vec());
    Ok(Some(if dir.is_archive { content.of_archive() } else { content }))
}

/// Computes diff ids of layers while later steps run.
fn digest_layers(store: &Store, layers: &mpsc::Receiver<LayerId>, cancel: &Cancel) -> Result<(), StoreError> {
    for layer in layers {
        if !cancel.is_stopped() {
            store.diff_id(&layer)?;
        }
    }
    Ok(())
}
