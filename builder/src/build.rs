//! A build from end to end.

use crate::cancel::Cancel;
use crate::check::{facts, file_facts};
use crate::content::{Content, ContentError, StatCache};
use crate::context::{Context, LocalDir};
use crate::epoch::{self, Clock, RemoteClock};
use crate::error::{BuildError, FailedStep, ImageError};
use crate::event::{Event, Finding, Listener, Reporter, Row};
use crate::explain::History;
use crate::export::{Annotations, Exported, Exporter};
use crate::graph::{CopySource, HostMount, Operation, RunLimits};
use crate::known::Known;
use crate::plan::{self, BaseImage, BaseImages, Plan, PlanOptions, Planned, Rights};
use crate::remote::Remote;
use crate::resolve::{Bases, resolve};
use crate::sandbox::{Names, Sandbox};
use crate::secret::Needles;
use crate::solve::{NodeId, SolveError, solve};
use crate::stage::{self, StageOptions, Stages};
use crate::step::{Built, Executor, StepError, Tools};
use kiln_image::config::ImageConfig;
use kiln_image::digest::{DiffId, Digest, ImageId};
use kiln_image::layer::WALK_STACK;
use kiln_image::manifest::Descriptor;
use kiln_image::platform::Platform;
use kiln_image::reference::Reference;
use kiln_image::store::{ImageRecord, LayerId, Store, StoreError};
use kiln_image::tree::Tree;
use kiln_parser::ast::NetworkMode;
use kiln_parser::diagnostic::Diagnostic;
use kiln_parser::lint::{self, Choice};
use kiln_parser::{Parse, parse, suggest};
use kiln_runtime::Spawner;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, mpsc};

/// Steps that run at once at least, however few processors there are: many only wait.
const MIN_PARALLEL: usize = 16;

/// What is to be built, and how.
#[derive(Clone, Debug)]
pub struct BuildOptions {
    /// The stages to build; the last one when there are none.
    pub targets: Vec<Target>,
    /// Stages that no target needs are built, too.
    pub all_stages: bool,
    /// `--build-arg` values by name.
    pub build_args: BTreeMap<String, String>,
    /// Labels to set on the result.
    pub labels: BTreeMap<String, String>,
    /// Notes on manifests and indexes.
    pub annotations: Annotations,
    /// What the images are for; this host when there are none.
    pub platforms: Vec<Platform>,
    /// Results of earlier builds do not count.
    pub no_cache: bool,
    /// Say why steps run.
    pub explain: bool,
    /// Names for the result of the last target.
    pub tags: Vec<Reference>,
    /// Stages whose earlier results do not count, by their names in lower case.
    pub no_cache_stages: BTreeSet<String>,
    /// What RUN can reach when it says nothing.
    pub network: NetworkMode,
    /// What the file may ask for.
    pub rights: Rights,
    /// What programs may have.
    pub limits: RunLimits,
    /// Files in new layers that are younger than `SOURCE_DATE_EPOCH` get its time.
    pub rewrites_times: bool,
    /// Which layers become one.
    pub squash: Squash,
    /// What the reference builder lets pass is an error.
    pub strict: bool,
    /// Steps that run at once at most.
    pub jobs: Option<usize>,
    /// What all RUN steps see of this host.
    pub volumes: Vec<HostMount>,
    /// Docker's media types instead of OCI's.
    pub docker_types: bool,
    /// The files of the result are all that is wanted: no image is kept.
    pub only_files: bool,
    /// Names and addresses for the hosts file of steps.
    pub hosts: Vec<(String, String)>,
    /// What steps may be shown without its becoming part of anything.
    pub given: Given,
}

/// A stage to build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub stage: String,
    /// Names for its image.
    pub tags: Vec<Reference>,
}

/// Which layers become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Squash {
    /// None.
    #[default]
    No,
    /// Those that the build made.
    New,
    /// All of them.
    All,
}

/// Secrets and sockets by their ids.
#[derive(Clone, Default)]
pub struct Given {
    /// What secrets hold.
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// Sockets of ssh agents.
    pub ssh: BTreeMap<String, PathBuf>,
}

impl Given {
    /// True when `text` holds the value of a secret that is not so simple that it stands there by chance.
    pub fn holds_secret(&self, text: &[u8]) -> bool {
        Needles::new(&self.secrets).stand_in(text)
    }
}

impl std::fmt::Debug for Given {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Given").field("secrets", &self.secrets.keys()).field("ssh", &self.ssh).finish()
    }
}

/// What a build works with.
pub struct Machine<'a> {
    /// Where images, layers and results are.
    pub store: &'a Store,
    /// Makes containers.
    pub spawner: &'a Spawner,
    /// Finds images.
    pub images: &'a dyn Images,
    /// Fetches what is on other machines.
    pub remote: &'a dyn Remote,
    /// A directory that is emptied at boot, for what running networks need.
    pub state: &'a Path,
    /// Hears what happens.
    pub listener: &'a Listener<'a>,
    /// Stops the build.
    pub cancel: &'a Cancel,
}

/// Finds images by name: in the store, or wherever else they are.
pub trait Images: Sync {
    /// Brings an image into the store. `progress` hears of parts of it that come.
    fn resolve(
        &self,
        name: &Reference,
        platform: &Platform,
        progress: &(dyn Fn(Part) + Sync),
    ) -> Result<ResolvedImage, ImageError>;
}

/// A part of an image on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its digest.
    pub digest: Digest,
    /// How much has come, in bytes.
    pub current: u64,
    /// How much there is, in bytes.
    pub total: u64,
}

/// An image in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedImage {
    /// The store's record.
    pub record: ImageRecord,
    /// The digest that the registry knows it by, if it came from one.
    pub digest: Option<Digest>,
}

/// What came of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The images: of each target in order, one for each platform in order.
    pub images: Vec<BuiltImage>,
    /// The index over the images of the last target, when there are several platforms: its bytes.
    pub index: Option<Vec<u8>>,
    /// The time of all that the build made, in seconds since 1970, if it was given one.
    pub epoch: Option<i64>,
}

/// An image that was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltImage {
    /// Its id.
    pub id: ImageId,
    /// Its manifest.
    pub manifest: Descriptor,
    /// What it is for.
    pub platform: Platform,
    /// The number of its stage in the file.
    pub stage: usize,
    /// The names that it got.
    pub tags: Vec<Reference>,
    /// Its layers.
    pub diff_ids: Vec<DiffId>,
}

impl Outcome {
    /// The images of the last target, one for each platform.
    pub fn last(&self) -> &[BuiltImage] {
        let last = self.images.last().map(|image| image.stage);
        let first = self.images.iter().rposition(|image| Some(image.stage) != last).map_or(0, |at| at + 1);
        &self.images[first..]
    }

    /// The image that stands for all: that for this host, or the first of the last target.
    pub fn main(&self) -> &BuiltImage {
        let own = Platform::host();
        let last = self.last();
        last.iter().find(|image| image.platform == own).unwrap_or(&last[0])
    }
}

/// Builds an image.
pub fn build(
    context: &Context,
    options: &BuildOptions,
    machine: &Machine<'_>,
) -> Result<Outcome, BuildError> {
    // Once in a process; a pool that is there already stays as it is.
    let _ = rayon::ThreadPoolBuilder::new().stack_size(WALK_STACK).build_global();
    let build = Build { context, options, machine, reporter: Reporter::new(machine.listener) };
    build.run().map_err(|error| if machine.cancel.is_interrupted() { BuildError::Interrupted } else { error })
}

/// The part of the options that plans depend on.
pub(crate) fn plan_options<'a>(
    context: &'a Context,
    options: &'a BuildOptions,
    platform: &'a Platform,
    stages: &Stages,
    clock: Clock<'_>,
) -> Result<PlanOptions<'a>, BuildError> {
    Ok(PlanOptions {
        build_args: &options.build_args,
        platform,
        platform_given: !options.platforms.is_empty(),
        no_cache: options.no_cache,
        labels: &options.labels,
        name: &context.name,
        looks_only: false,
        no_cache_stages: &options.no_cache_stages,
        network: options.network,
        rights: &options.rights,
        hosts: &options.hosts,
        limits: &options.limits,
        volumes: &options.volumes,
        epoch: epoch::planned(context, options, stages, clock)?,
        names_platform: options.platforms.len() > 1,
    })
}

impl Bases for Build<'_> {
    fn base(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Result<BaseImage, ImageError>, BuildError> {
        let row = self.reporter.start(format!("[internal] load metadata for {reference}"));
        let progress = |part: Part| {
            self.reporter.send(Event::Progress {
                row,
                part: part.digest.to_string(),
                current: part.current,
                total: part.total,
            });
        };
        let result = self.machine.images.resolve(reference, platform, &progress);
        self.reporter.end(row, &result);
        match result {
            Ok(resolved) => Ok(Ok(self.base_image(reference, resolved)?)),
            Err(error) => Ok(Err(error)),
        }
    }
}

struct Build<'a> {
    context: &'a Context,
    options: &'a BuildOptions,
    machine: &'a Machine<'a>,
    reporter: Reporter<'a>,
}

impl Build<'_> {
    fn run(&self) -> Result<Outcome, BuildError> {
        let platforms = platforms(self.options);
        let parsed = self.parse(&platforms[0])?;
        // Nothing that the build finds or makes may be removed before the image names it.
        let _using = self.machine.store.use_layers()?;
        let mut plan = Plan::default();
        let mut epoch = None;
        let mut configs = Vec::new();
        let remote_clock = RemoteClock::default();
        let clock = |operation: &Operation| remote_clock.time(operation, self.machine);
        for (number, platform) in platforms.iter().enumerate() {
            let mut stages = look(self.context, self.options, &parsed, platform, self.options.all_stages)?;
            let images = resolve(&mut stages, platform, self)?;
            let options = plan_options(self.context, self.options, platform, &stages, &clock)?;
            epoch = options.epoch;
            let planned = plan::plan(&mut plan, &stages, &images, &options);
            configs.extend(images.values().map(|image| image.config.clone()));
            let linted = if number == 0 { self.lint(&parsed, &stages, &images) } else { Ok(()) };
            planned?;
            linted?;
        }
        group_by_target(&mut plan.results, platforms.len());
        self.execute(&plan, epoch, &configs)
    }

    fn parse(&self, platform: &Platform) -> Result<Parse, BuildError> {
        let name = self.context.source.name();
        let row = self.reporter.start(format!("[internal] load build definition from {name}"));
        let parsed = parse(&self.context.source);
        let errors: Vec<_> = parsed.errors().cloned().collect();
        let result = match errors.is_empty() {
            true => look(self.context, self.options, &parsed, platform, self.options.all_stages).map(|_| ()),
            false => {
                // As far as the file can be read.
                self.tell_findings(&parsed, &file_facts(self.context, self.options));
                Err(BuildError::Syntax(errors))
            }
        };
        self.reporter.end(row, &result);
        result?;
        self.warn_of_unused_arguments(&parsed.file)?;
        Ok(parsed)
    }

    /// Tells what could be better, and stops when the file asks for that.
    fn lint(&self, parsed: &Parse, stages: &Stages, images: &BaseImages) -> Result<(), BuildError> {
        let facts = facts(self.context, self.options, stages, images);
        let violations = self.tell_findings(parsed, &facts);
        if violations.is_empty() { Ok(()) } else { Err(BuildError::Violations(violations)) }
    }

    /// Reports what lints find; returns the names of those that must not be.
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

    /// A misspelt `--build-arg` changes nothing, and nobody notices.
    fn warn_of_unused_arguments(&self, file: &kiln_parser::ast::Dockerfile) -> Result<(), BuildError> {
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
                return Err(BuildError::option(message, hint));
            }
            let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            let message = format!("[Warning] One or more build-args [{name}] were not consumed{near}");
            self.reporter.send(Event::Warning { message });
        }
        Ok(())
    }

    fn base_image(&self, reference: &Reference, resolved: ResolvedImage) -> Result<BaseImage, StoreError> {
        let reference = match resolved.digest {
            Some(digest) => reference.with_digest(digest),
            None => reference.clone(),
        };
        let manifest = self.machine.store.read_manifest(&resolved.record)?;
        let image = self.machine.store.read_image(resolved.record)?;
        let layers = manifest.layers.into_iter().map(plan::as_oci).collect();
        Ok(BaseImage { reference: reference.to_string(), config: image.config, layers })
    }

    /// Looks for secrets in configs and annotations, before any step has seen what the file says.
    fn check_configs(&self, plan: &Plan, needles: &Needles<'_>) -> Result<(), BuildError> {
        if self.options.rights.secret_leak {
            return Ok(());
        }
        let found = |planned: &Planned| needles.find_in_image(&planned.config, &self.options.annotations);
        match plan.results.iter().find_map(found) {
            Some((id, place)) => Err(BuildError::Leak { id, place }),
            None => Ok(()),
        }
    }

    /// Looks for secrets in layers of the images that this build has found, not made. Their records go, so that no
    /// later build ships what this one must not.
    fn check_found_layers(
        &self,
        plan: &Plan,
        built: &[Built],
        needles: &Needles<'_>,
        clean: &BTreeSet<String>,
    ) -> Result<(), BuildError> {
        if self.options.rights.secret_leak || needles.is_empty() {
            return Ok(());
        }
        let store = self.machine.store;
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
                    needles.find_in_tree(&root, None, self.machine.cancel).map_err(StoreError::from)?;
                if let Some(leak) = leak {
                    store.forget_steps_of(layer)?;
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
        let Machine { store, spawner, state, cancel, remote, .. } = *self.machine;
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
        let needles = Needles::new(&self.options.given.secrets);
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
            given: &self.options.given,
            needles: &needles,
            allows_leaks: self.options.rights.secret_leak,
            in_images: &in_images,
        };
        let history = History::open(store, &self.context.name, graph, |text| needles.masked(text));
        let explainer = self.options.explain.then(|| history.explainer(graph));
        let executor = Executor::new(tools, made, explainer);
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let parallel = self.options.jobs.unwrap_or(processors.max(MIN_PARALLEL));
        let steps = graph.needed(&plan.targets());
        let is_shown = |step: &&NodeId| !matches!(graph.node(**step).operation, Operation::Scratch);
        // One more for the export.
        reporter.send(Event::Planned { rows: steps.iter().filter(is_shown).count() + 1 });
        let result = std::thread::scope(|scope| {
            let digester = scope.spawn(move || digest_layers(store, &layers, cancel));
            let solved = solve(&executor, &graph.edges(), &plan.targets(), parallel);
            executor.close();
            match solved {
                Ok(built) => {
                    store.touch_steps(&executor.used())?;
                    self.check_found_layers(plan, &built, &needles, &executor.clean_layers())?;
                    self.export(plan, &built, epoch, digester)
                }
                Err(error) => Err(self.failed(plan, error)),
            }
        });
        let settled = executor.settle(result.is_ok());
        self.tell_of_secrets(&needles, &known);
        history.keep(|node| executor.shown_inputs(node));
        if let Some(bytes) = stat_cache.to_bytes() {
            // What is not remembered is read again.
            let _ = store.put_cache(&cache_name, &bytes);
        }
        let outcome = result?;
        settled?;
        Ok(outcome)
    }

    /// Warns of values that are found by chance and may have leaked all the same, and of copied files that are a secret.
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
        let store = self.machine.store;
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
        let mut outcome = Outcome { images, index: None, epoch };
        if platforms(self.options).len() > 1
            || self.options.build_args.contains_key("BUILDKIT_MULTI_PLATFORM")
        {
            outcome.index = Some(exporter.index(outcome.last()));
        }
        self.tag(&mut outcome, note)?;
        Ok(outcome)
    }

    /// Names the images; of those for several platforms, the one for this host.
    fn tag(&self, outcome: &mut Outcome, note: impl Fn(String)) -> Result<(), BuildError> {
        let count = outcome.images.len() / self.options.targets.len().max(1);
        let mut named: Vec<(usize, &Reference)> = Vec::new();
        for (number, target) in self.options.targets.iter().enumerate() {
            let images = number * count..(number + 1) * count;
            named.extend(target.tags.iter().map(|tag| (host_image(outcome, images.clone()), tag)));
        }
        let last = outcome.images.len() - count..outcome.images.len();
        let main = host_image(outcome, last);
        named.extend(self.options.tags.iter().map(|tag| (main, tag)));
        for (index, tag) in named {
            self.machine.store.tag(tag, &outcome.images[index].id)?;
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
                let is_it = |source: &&CopySource| plan::path::join("/", &source.path) == *path;
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

fn as_json(config: &ImageConfig) -> String {
    serde_json::to_string(config).unwrap_or_default()
}

/// The platforms to build for.
fn platforms(options: &BuildOptions) -> Vec<Platform> {
    if options.platforms.is_empty() { vec![Platform::host()] } else { options.platforms.clone() }
}

/// The stages of a file for a platform.
pub(crate) fn look(
    context: &Context,
    options: &BuildOptions,
    parsed: &Parse,
    platform: &Platform,
    all: bool,
) -> Result<Stages, BuildError> {
    let targets: Vec<String> = options.targets.iter().map(|target| target.stage.clone()).collect();
    let options = StageOptions {
        build_args: &options.build_args,
        targets: &targets,
        platform,
        contexts: &context.named,
        all,
    };
    stage::stages(&parsed.file, &options)
}

/// From the results of one platform after the other to those of one target after the other.
fn group_by_target(results: &mut Vec<Planned>, platforms: usize) {
    let targets = results.len() / platforms;
    let order =
        (0..targets).flat_map(|target| (0..platforms).map(move |platform| platform * targets + target));
    *results = order.map(|index| results[index].clone()).collect();
}

/// Of images for several platforms, the number of that for this host, or of the first.
fn host_image(outcome: &Outcome, images: std::ops::Range<usize>) -> usize {
    let own = Platform::host();
    images.clone().find(|index| outcome.images[*index].platform == own).unwrap_or(images.start)
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

/// Computes diff ids while later steps run.
fn digest_layers(store: &Store, layers: &mpsc::Receiver<LayerId>, cancel: &Cancel) -> Result<(), StoreError> {
    for layer in layers {
        if !cancel.is_stopped() {
            store.diff_id(&layer)?;
        }
    }
    Ok(())
}
