//! A build from end to end.

use crate::cancel::Cancel;
use crate::check::facts;
use crate::content::{Content, ContentError, StatCache};
use crate::context::Context;
use crate::error::{BuildError, FailedStep, ImageError};
use crate::event::{Event, Finding, Listener, Reporter, Row};
use crate::export;
use crate::graph::Operation;
use crate::plan::{self, BaseImage, Plan, PlanOptions};
use crate::resolve::{Bases, resolve};
use crate::sandbox::Sandbox;
use crate::solve::{SolveError, solve};
use crate::stage::{self, StageOptions, Stages};
use crate::step::{Built, Executor, StepError, Tools};
use kiln_image::digest::{Digest, ImageId};
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
use std::sync::mpsc;

/// Steps that run at once at least, however few processors there are: many only wait.
const MIN_PARALLEL: usize = 4;

/// What is to be built, and how.
#[derive(Clone, Debug)]
pub struct BuildOptions {
    /// The stage to build; the last one when there is none.
    pub target: Option<String>,
    /// `--build-arg` values by name.
    pub build_args: BTreeMap<String, String>,
    /// Labels to set on the result.
    pub labels: BTreeMap<String, String>,
    /// What the image is for; this machine when there is none.
    pub platform: Option<Platform>,
    /// Results of earlier builds do not count.
    pub no_cache: bool,
    /// Say why steps run.
    pub explain: bool,
    /// Names for the result.
    pub tags: Vec<Reference>,
    /// Stages whose earlier results do not count, by their names in lower case.
    pub no_cache_stages: BTreeSet<String>,
    /// What RUN can reach when it says nothing.
    pub network: NetworkMode,
    /// RUN may ask for the machine's own network.
    pub allows_host_network: bool,
    /// Names and addresses for the hosts file of steps.
    pub hosts: Vec<(String, String)>,
    /// What steps may be shown without its becoming part of anything.
    pub given: Given,
}

/// Secrets and sockets by their ids.
#[derive(Clone, Default)]
pub struct Given {
    /// What secrets hold.
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// Sockets of ssh agents.
    pub ssh: BTreeMap<String, PathBuf>,
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
    /// A folder that is emptied at boot, for what running networks need.
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
    /// The image.
    pub image: ImageId,
}

/// Builds an image.
pub fn build(
    context: &Context,
    options: &BuildOptions,
    machine: &Machine<'_>,
) -> Result<Outcome, BuildError> {
    let build = Build { context, options, machine, reporter: Reporter::new(machine.listener) };
    build.run().map_err(|error| if machine.cancel.is_interrupted() { BuildError::Interrupted } else { error })
}

/// The part of the options that plans depend on.
pub(crate) fn plan_options<'a>(
    context: &'a Context,
    options: &'a BuildOptions,
    platform: &'a Platform,
) -> PlanOptions<'a> {
    PlanOptions {
        build_args: &options.build_args,
        platform,
        platform_given: options.platform.is_some(),
        no_cache: options.no_cache,
        labels: &options.labels,
        name: &context.name,
        looks_only: false,
        no_cache_stages: &options.no_cache_stages,
        network: options.network,
        allows_host_network: options.allows_host_network,
        hosts: &options.hosts,
    }
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
        let platform = self.options.platform.clone().unwrap_or_else(Platform::host);
        let (parsed, mut stages) = self.stages(&platform)?;
        // Nothing that the build finds or makes may be removed before the image names it.
        let _using = self.machine.store.use_layers()?;
        let images = resolve(&mut stages, &platform, self)?;
        let plan = plan::plan(&stages, &images, &plan_options(self.context, self.options, &platform));
        let linted = self.lint(&parsed, &stages, &images);
        let plan = plan?;
        linted?;
        let image = self.execute(&plan)?;
        Ok(Outcome { image })
    }

    fn stages(&self, platform: &Platform) -> Result<(Parse, Stages), BuildError> {
        let name = self.context.source.name();
        let row = self.reporter.start(format!("[internal] load build definition from {name}"));
        let parsed = parse(&self.context.source);
        let errors: Vec<_> = parsed.errors().cloned().collect();
        let result = if errors.is_empty() {
            let options = StageOptions {
                build_args: &self.options.build_args,
                target: self.options.target.as_deref(),
                platform,
            };
            stage::stages(&parsed.file, &options)
        } else {
            Err(BuildError::Syntax(errors))
        };
        self.reporter.end(row, &result);
        if result.is_ok() {
            self.warn_of_unused_arguments(&parsed.file);
        }
        result.map(|stages| (parsed, stages))
    }

    /// Tells what could be better, and stops when the file asks for that.
    fn lint(
        &self,
        parsed: &Parse,
        stages: &Stages,
        images: &BTreeMap<String, BaseImage>,
    ) -> Result<(), BuildError> {
        let facts = facts(self.context, self.options, stages, images);
        let report = lint::lint(parsed, &self.context.source, &facts, &Choice::default());
        let violations = report.violations();
        if !report.findings.is_empty() {
            let line = |finding: &Diagnostic| self.context.source.position(finding.span.start as usize).line;
            let list = report.findings.iter().map(|finding| Finding {
                rule: finding.code,
                message: finding.message.clone(),
                line: line(finding),
            });
            self.reporter.send(Event::Findings { list: list.collect() });
        }
        if violations.is_empty() { Ok(()) } else { Err(BuildError::Violations(violations)) }
    }

    /// A misspelt `--build-arg` changes nothing, and nobody notices.
    fn warn_of_unused_arguments(&self, file: &kiln_parser::ast::Dockerfile) {
        let declared: Vec<&str> = stage::declared_arguments(file).collect();
        for name in self.options.build_args.keys() {
            let is_known = declared.contains(&name.as_str()) || stage::is_predefined(name);
            if is_known {
                continue;
            }
            let near = suggest::nearest(name, declared.iter().copied());
            let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            let message = format!("[Warning] One or more build-args [{name}] were not consumed{near}");
            self.reporter.send(Event::Warning { message });
        }
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

    fn execute(&self, plan: &Plan) -> Result<ImageId, BuildError> {
        let Machine { store, spawner, state, cancel, .. } = *self.machine;
        let tree = Tree::open(&self.context.folder)?;
        let content = Content::context(tree, self.context.ignore.clone(), self.context.ignore_name.clone());
        let cache_name = self.stat_cache_name();
        let stat_cache = StatCache::from_bytes(&store.read_cache(&cache_name).unwrap_or_default());
        let sandbox = Sandbox::new(store, spawner, state, &self.options.hosts);
        let (made, layers) = mpsc::channel();
        let reporter = &self.reporter;
        let graph = &plan.graph;
        let tools = Tools {
            graph,
            store,
            context: &content,
            stat_cache: &stat_cache,
            sandbox: &sandbox,
            reporter,
            cancel,
            given: &self.options.given,
        };
        let executor = Executor::new(tools, made, self.options.explain);
        let parallel = std::thread::available_parallelism().map_or(1, usize::from).max(MIN_PARALLEL);
        let result = std::thread::scope(|scope| {
            let digester = scope.spawn(move || digest_layers(store, &layers));
            let solved = solve(&executor, &graph.edges(), plan.target, parallel);
            let used = executor.used();

            match solved {
                Ok(built) => {
                    store.touch_steps(&used)?;
                    self.export(plan, &built, digester)
                }
                Err(error) => Err(self.failed(plan, error)),
            }
        });
        if let Some(bytes) = stat_cache.to_bytes() {
            // What is not remembered is read again.
            let _ = store.put_cache(&cache_name, &bytes);
        }
        result
    }

    fn stat_cache_name(&self) -> String {
        let path = std::fs::canonicalize(&self.context.folder).unwrap_or_default();
        format!("stat-{}", &Digest::of(path.as_os_str().as_bytes()).hex()[..32])
    }

    fn export(
        &self,
        plan: &Plan,
        built: &Built,
        digester: std::thread::ScopedJoinHandle<'_, Result<(), StoreError>>,
    ) -> Result<ImageId, BuildError> {
        let row = self.reporter.start("exporting to image");
        let result = self.export_in(row, plan, built, digester);
        self.reporter.end(row, &result);
        Ok(result?)
    }

    fn export_in(
        &self,
        row: Row,
        plan: &Plan,
        built: &Built,
        digester: std::thread::ScopedJoinHandle<'_, Result<(), StoreError>>,
    ) -> Result<ImageId, StoreError> {
        let note = |text: String| self.reporter.send(Event::Note { row, text });
        digester.join().expect("digesting does not panic")?;
        let store = self.machine.store;
        let image = export::export(store, plan, built)?;
        note(format!("writing image {image} done"));
        for tag in &self.options.tags {
            store.tag(tag, &image)?;
            note(format!("naming to {} done", tag.clone().or_latest()));
        }
        Ok(image)
    }

    fn failed(&self, plan: &Plan, error: SolveError<StepError>) -> BuildError {
        let node = plan.graph.node(error.node);
        let missing = match (&node.operation, &error.error) {
            (Operation::Copy(copy), StepError::Content(ContentError::NotFound { path, .. })) => {
                let at = copy.sources.iter().position(|source| source == path);
                at.and_then(|at| copy.places.get(at)).copied()
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

/// Computes diff ids while later steps run.
fn digest_layers(store: &Store, layers: &mpsc::Receiver<LayerId>) -> Result<(), StoreError> {
    for layer in layers {
        store.diff_id(&layer)?;
    }
    Ok(())
}
