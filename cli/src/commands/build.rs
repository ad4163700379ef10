//! Command `kiln build`: sets up and runs builds.

mod agent;
mod call;
mod credentials;
pub(super) mod flags;
mod limits;
mod metadata;
pub(super) mod output;

use crate::arguments::{self, Globals};
use crate::config::STATE;
use crate::error::{BuildFailure, CANCELLED, CliError, code};
use crate::image_events;
use crate::images::ImageFinder;
use crate::progress::{Progress, Style};
use crate::remote::Fetcher;
use crate::session::{self, Session};
use crate::signals::Signals;
use crate::ui;
use call::Call;
use flags::Build;
use kiln_builder::source::{ContextOpener, load_layouts};
use kiln_builder::{BuildOptions, Cancel, Effects, recipe};
use kiln_engine::Containers;
use kiln_image::digest::ImageId;
use kiln_image::platform::Platform;
use kiln_image::store::{Store, StoreError};
use kiln_registry::{Keychain, WaitListener};
use kiln_runtime::Spawner;
use output::{Made, Output};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// Describes the command's arguments for help and completion.
pub fn describe() -> clap::Command {
    flags::describe()
}

/// Runs a build; prints the image's id with `-q`.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let words = arguments.clone();
    let build: Build = arguments::parse("build", arguments)?;
    let style = if build.quiet { Style::Quiet } else { Style::choose(&build.progress())? };
    if let Some(path) = &build.iidfile {
        output::remove_id(path)?;
    }
    let (options, outputs) = build.read()?;
    if let Some(call) = build.question()? {
        return answer(globals, &build, &options, call);
    }
    let workshop = Workshop::open(globals)?;
    let has_name = !options.tags.is_empty() || options.targets.iter().any(|target| !target.tags.is_empty());
    let is_kept = has_name || outputs.is_empty() || !outputs.iter().all(Output::keeps_no_image);
    let before = if is_kept { BTreeSet::new() } else { image_ids(&workshop.session.store)? };
    let result = carry_out(&workshop, &build, &options, style, |made| {
        for output in &outputs {
            output.write(made)?;
        }
        tell_of(&build, made, &outputs)?;
        if options.only_files {
            return Ok(());
        }
        if !is_kept {
            let images: BTreeSet<ImageId> =
                made.outcome.images.iter().map(|image| image.id.clone()).collect();
            return remove_unused(made.store, &images.difference(&before).cloned().collect());
        }
        let dir = std::env::current_dir().unwrap_or_default();
        Ok(recipe::record(made.store, &made.outcome.images, &dir, &words, &options)?)
    });
    finish();
    result.map(|()| 0)
}

/// Ends the ssh agents of the process's builds.
pub(super) fn finish() {
    agent::finish();
}

/// Ids of all images in a store.
pub(super) fn image_ids(store: &Store) -> Result<BTreeSet<ImageId>, CliError> {
    Ok(store.images()?.into_iter().map(|image| image.id).collect())
}

/// Removes images that were built only to be delivered or compared, except those that another command has named or uses in
/// the meantime. Their layers stay in the cache.
pub(super) fn remove_unused(store: &Store, images: &BTreeSet<ImageId>) -> Result<(), CliError> {
    let named: BTreeSet<ImageId> = store.tags()?.into_iter().map(|tag| tag.image).collect();
    let containers = Containers::open(store)?;
    for id in images.difference(&named) {
        if containers.of_image(id)?.is_empty() {
            match store.remove_image(&store.resolve(&id.to_string())?, 0) {
                Err(StoreError::ManyTags(_)) => {}
                other => drop(other?),
            }
        }
    }
    Ok(())
}

/// Resources of builds, opened once for each process.
pub(super) struct Workshop {
    spawner: Spawner,
    pub(super) session: Session,
    stopper: Stopper,
}

/// Stops the current build of a process, from the thread that handles signals.
#[derive(Clone, Default)]
pub(super) struct Stopper {
    current: Arc<Mutex<Current>>,
}

/// The current build.
#[derive(Default)]
struct Current {
    cancel: Cancel,
    progress: Weak<Progress>,
    /// True when the process builds nothing any more.
    is_stopped: bool,
}

impl Stopper {
    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn progress(&self) -> Option<Arc<Progress>> {
        self.lock().progress.upgrade()
    }

    /// Begins a build; returns what cancels it.
    fn begin(&self, progress: &Arc<Progress>) -> Cancel {
        let mut current = self.lock();
        // A build that has failed has canceled what else it had begun.
        current.cancel = Cancel::default();
        current.progress = Arc::downgrade(progress);
        if current.is_stopped {
            current.cancel.interrupt();
        }
        current.cancel.clone()
    }

    /// Fits the progress to the new size of the terminal's window.
    pub(super) fn redraw(&self) {
        self.progress().iter().for_each(|progress| progress.redraw());
    }

    /// Stops the build in order; this process builds nothing afterwards.
    pub(super) fn stop(&self) {
        self.progress().iter().for_each(|progress| progress.interrupt());
        let mut current = self.lock();
        current.is_stopped = true;
        current.cancel.interrupt();
    }

    fn is_stopped(&self) -> bool {
        self.lock().is_stopped
    }

    /// Ends the process in the middle of a build.
    pub(super) fn end_at_once(&self) -> ! {
        self.progress().iter().for_each(|progress| progress.finish(false));
        ui::tell_line(CANCELLED);
        std::process::exit(i32::from(code::INTERRUPTED));
    }
}

impl Workshop {
    /// Opens the resources; signals stop builds. Must be called before the process creates threads.
    pub(super) fn open(globals: &Globals) -> Result<Workshop, CliError> {
        Workshop::listening(globals, end_on_signal)
    }

    /// Opens the resources; `listen` gets the signals. Must be called before the process creates threads.
    pub(super) fn listening(
        globals: &Globals,
        listen: impl FnOnce(Signals, Stopper),
    ) -> Result<Workshop, CliError> {
        let spawner = session::start_helper()?;
        let signals = Signals::catch()?;
        let session = Session::open(globals)?;
        let stopper = Stopper::default();
        listen(signals, stopper.clone());
        Ok(Workshop { spawner, session, stopper })
    }
}

/// Runs a build, and passes its result to `then`.
pub(super) fn carry_out<T>(
    workshop: &Workshop,
    build: &Build,
    options: &BuildOptions,
    style: Style,
    then: impl FnOnce(&Made<'_>) -> Result<T, CliError>,
) -> Result<T, CliError> {
    let session = &workshop.session;
    let is_shown = style == Style::Terminal;
    let failure = |error, source| CliError::Build(Box::new(BuildFailure { error, source, is_shown }));
    let contexts = build.contexts()?;
    let platform = options.platforms.first().cloned().unwrap_or_else(Platform::host);
    let aliases = load_layouts(&session.store, &contexts, &platform)?;
    let mut registry = session.config.registry.clone();
    if let Some(file) = &build.authfile {
        registry.keychain = Keychain { files: vec![file.clone()], ..Keychain::default() };
    }
    let progress = Arc::new(Progress::new(style));
    let cancel = workshop.stopper.begin(&progress);
    let shown = Arc::clone(&progress);
    registry.waits = WaitListener::new(move |waiting| shown.wait(waiting));
    let images = ImageFinder::new(&session.store, &registry)
        .asking_registries(build.recipe.pull)
        .with_aliases(aliases);
    let fetcher = Fetcher::new(&images, &options.credentials);
    let remote = fetcher.named_by_user();
    let opener = ContextOpener { store: Some(&session.store), remote: &remote, keeps_git: build.keeps_git() };
    let opened = opener.open(&build.source(&contexts), &mut std::io::stdin());
    let opened = opened.inspect_err(|_| progress.finish(false))?;
    let context = &opened.context;

    build.accepted().iter().for_each(|warning| progress.warn(warning));
    let effects = Effects {
        store: &session.store,
        spawner: &workshop.spawner,
        images: &images,
        remote: &fetcher,
        state: Path::new(STATE),
        listener: &|event| progress.show(&event),
        cancel: &cancel,
    };
    let result = kiln_builder::build(context, options, &effects);
    progress.finish(result.is_ok());
    let outcome = result.map_err(|error| failure(error, Some(context.source.clone())))?;
    for image in &outcome.images {
        image.tags.iter().for_each(|tag| image_events::tagged(&session.store, &image.id, tag));
    }
    let made = Made {
        store: &session.store,
        images: &images,
        outcome: &outcome,
        annotations: &options.annotations,
        // Exported files get the epoch of the command line, not the epoch of the Dockerfile.
        epoch: outcome.epoch.filter(|_| options.build_args.contains_key("SOURCE_DATE_EPOCH")),
        is_quiet: build.quiet,
        pushed: RefCell::default(),
    };
    then(&made)
}

/// Writes and prints the ids of the result.
fn tell_of(build: &Build, made: &Made<'_>, outputs: &[Output]) -> Result<(), CliError> {
    let has_image = !outputs.iter().any(Output::is_tree);
    if let Some(path) = &build.iidfile {
        output::write_id(path, &made.id())?;
    }
    if let Some(path) = &build.metadata_file {
        metadata::write(path, made, has_image)?;
    }
    if build.quiet && has_image {
        ui::line(&made.id());
    }
    Ok(())
}

/// Answers a question about a Dockerfile; nothing is built, and no store is needed.
fn answer(globals: &Globals, build: &Build, options: &BuildOptions, call: Call) -> Result<u8, CliError> {
    let config = crate::config::Config::read(globals)?;
    let images = ImageFinder::without_store(&config.registry);
    let fetcher = Fetcher::new(&images, &options.credentials);
    let opener = ContextOpener { store: None, remote: &fetcher.named_by_user(), keeps_git: false };
    let opened = opener.open(&build.source(&build.contexts()?), &mut std::io::stdin())?;
    call.answer(globals, &opened.context, options, &build.shown_path())
}

/// Time for an orderly end of a build after a signal.
const GRACE: Duration = Duration::from_secs(5);

/// Stops the build on signals: the first stops it in order, the second at once. So does the end of a grace period,
/// because packing or unpacking a huge file does not check for the interrupt. The remaining scratch directories of the
/// dead process are removed by the next command.
fn end_on_signal(signals: Signals, stopper: Stopper) {
    signals.listen(move |signal| {
        if signal == SIGWINCH {
            stopper.redraw();
        }
        if !matches!(signal, 1 | 2 | 3 | 15) {
            return;
        }
        if stopper.is_stopped() {
            stopper.end_at_once();
        }
        stopper.stop();
        let stopper = stopper.clone();
        std::thread::spawn(move || {
            std::thread::sleep(GRACE);
            stopper.end_at_once();
        });
    });
}

/// Signal for a new size of the terminal's window.
pub(super) const SIGWINCH: i32 = 28;
