//! Command `kiln up`: builds the project in a directory and runs it.

mod attended;
mod interrupt;
mod life;
mod ports;
mod project;
mod serve;
mod sync;
mod watching;

pub use life::{BEGIN, begin_here};
pub(super) use project::{LABEL, Project};

use super::build::flags::{Build, RecipeFlags};
use super::build::{self, Stopper, Workshop};
use super::run::Flags;
use crate::arguments::{self, Globals};
use crate::error::{CliError, code};
use crate::progress::Style;
use crate::signals::Signals;
use crate::ui;
use attended::Attended;
use clap::Parser;
use interrupt::Interrupt;
use kiln_builder::{BuildOptions, Inputs};
use kiln_engine::{Container, Containers, RunOptions};
use kiln_image::digest::ImageId;
use life::{Before, Life, Replaced};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;
use sync::SyncRule;

/// Time in which the end of a container in the background is still reported.
const MOMENT: Duration = Duration::from_millis(500);
/// Number of lines of output that are shown of a container that has ended in the background.
const LAST_LINES: u64 = 10;

/// Build the project in a directory and run it. The container gets the name of the directory, and the ports that the image exposes
/// are published on 127.0.0.1, under the same numbers where they are free, unless -p or -P names others. Its output is shown;
/// Ctrl-C stops and removes it with its anonymous volumes. A container that an earlier `kiln up` of the directory has left is
/// replaced when the build has succeeded; its anonymous volumes go over to the new one.
#[derive(Debug, Parser)]
#[command(disable_help_flag = true)]
#[command(mut_arg("rm", |arg| arg.hide(true)), mut_arg("replace", |arg| arg.hide(true)), mut_arg("cidfile", |arg| arg.hide(true)))]
#[command(mut_arg("file", |arg| arg.help("Read the Dockerfile from FILE [default: DIR/Dockerfile]")))]
struct Up {
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Let the container run in the background, and print its name and addresses
    #[arg(short, long, conflicts_with = "watch")]
    detach: bool,
    /// Build again when a file changes that the build copies, and restart the container when the image has changed; it is
    /// killed after a second, or the time of --stop-timeout
    #[arg(long)]
    watch: bool,
    /// Copy changed files below SRC, a path in DIR, to DST in the running container instead of building; may be repeated
    #[arg(long, value_name = "SRC:DST", requires = "watch")]
    sync: Vec<String>,
    /// Pass a secret to RUN --mount=type=secret: id=NAME,src=FILE or id=NAME,env=VARIABLE; may be repeated
    #[arg(long, value_name = "SECRET")]
    build_secret: Vec<String>,
    #[command(flatten)]
    recipe: RecipeFlags,
    #[command(flatten)]
    flags: Flags,
    /// Directory of the project
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Program, or arguments for the image's program
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Describes the command's arguments for help and completion.
pub fn describe() -> clap::Command {
    <Up as clap::CommandFactory>::command()
}

/// Builds the project and starts its container. In the foreground, returns the container's exit code.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let up: Up = arguments::parse("up", arguments)?;
    up.refuse()?;
    let project = Project::open(&up.dir, up.flags.name.as_deref())?;
    project.check_kind(up.recipe.file.as_deref())?;
    let syncs = up.sync.iter().map(|text| SyncRule::parse(text, &project.dir));
    let syncs = syncs.collect::<Result<Vec<_>, _>>()?;
    let options = up.options(&project)?;
    let Up { recipe, flags, build_secret, dir, watch, detach, .. } = up;
    let build = Build::of_project(&dir, recipe, project.image(), build_secret);
    let style = Style::choose(&build.progress())?;
    let (build_options, _) = build.read()?;
    let interrupt = Interrupt::new()?;
    let listen = |signals: Signals, stopper: Stopper| interrupt.listen(signals, stopper);
    let workshop = Workshop::listening(globals, listen)?;
    let containers = Containers::open(&workshop.session.store)?;
    let session = &workshop.session;
    let tag = project.image();
    let maker =
        Maker { workshop: &workshop, build, options: build_options, style, tag, interrupt: &interrupt };
    let (containers, interrupt) = (&containers, &interrupt);
    let life = Life { session, containers, project: &project, flags: &flags, options, interrupt };
    let ended = match detach {
        true => in_background(&maker, &life),
        false => Attended::new(&maker, &life, &syncs, watch).run(),
    };
    build::finish();
    ended
}

impl Up {
    /// Refuses flags of `kiln run` that have no meaning here.
    fn refuse(&self) -> Result<(), CliError> {
        if self.recipe.file.as_deref() == Some(Path::new("-")) {
            return Err(CliError::failed("kiln up reads no Dockerfile from standard input")
                .hint("name a file with -f, or build the image with kiln build and run it with kiln run")
                .with_code(code::USAGE));
        }
        for (is_given, flag, reason) in [
            (self.flags.rm, "--rm", "without -d the container is removed at its end, with -d by `kiln down`"),
            (self.flags.replace, "--replace", "a container of an earlier `kiln up` is always replaced"),
            (self.flags.cidfile.is_some(), "--cidfile", "the container has a new id whenever it is replaced"),
            (
                self.flags.interactive,
                "-i",
                "it sends no input; `kiln attach` does, and `kiln run -it` for an image",
            ),
        ] {
            if is_given {
                let error = CliError::failed(format!("kiln up has no {flag}: {reason}"));
                return Err(error.hint(format!("leave {flag} out")).with_code(code::USAGE));
            }
        }
        Ok(())
    }

    fn options(&self, project: &Project) -> Result<RunOptions, CliError> {
        let options = self.flags.options(&self.command).map_err(|error| error.with_code(code::USAGE))?;
        let mut options = RunOptions { name: Some(project.name.clone()), ..options };
        options.labels.insert(LABEL.to_owned(), project.label());
        Ok(options)
    }
}

/// Builds the images of a project.
struct Maker<'a> {
    workshop: &'a Workshop,
    build: Build,
    options: BuildOptions,
    style: Style,
    /// Name of the images that are built, one after the other.
    tag: String,
    interrupt: &'a Interrupt,
}

impl Maker<'_> {
    /// Builds the project; returns the image and what it was built from.
    fn make(&self) -> Result<(ImageId, Inputs), CliError> {
        let store = &self.workshop.session.store;
        let before = store.resolve(&self.tag).ok().map(|image| image.id);
        self.interrupt.set_building(true);
        let made = match self.interrupt.signal() {
            Some(_) => Err(CliError::failed(crate::error::CANCELLED).with_code(code::INTERRUPTED)),
            None => build::carry_out(self.workshop, &self.build, &self.options, self.style, |made| {
                Ok((made.outcome.main().id.clone(), made.outcome.inputs.clone()))
            }),
        };
        self.interrupt.set_building(false);
        if let (Ok((image, _)), Some(before)) = (&made, before)
            && *image != before
        {
            // One that the project's container still uses is forgotten when that one is replaced.
            life::forget(store, &before);
        }
        made
    }

    /// Builds the project for the first time. `None` after a failure, which was reported with the container that goes on.
    fn make_first(&self, life: &Life<'_>) -> Result<Result<(ImageId, Inputs), u8>, CliError> {
        // Before the build, which would be in vain.
        let before = life.current()?;
        Ok(self.make().map_err(|error| {
            let code = error.report();
            if let Some(before) = before.filter(|before| before.state.is_live()) {
                let urls = ports::urls(&before).join(", ");
                let urls = if urls.is_empty() { urls } else { format!(" at {urls}") };
                ui::tell_line(&format!("{} goes on with its old image{urls}", before.name));
            }
            code
        }))
    }
}

/// Leaves the container in the background, and prints its name and addresses.
fn in_background(maker: &Maker<'_>, life: &Life<'_>) -> Result<u8, CliError> {
    let image = match maker.make_first(life)? {
        Ok((image, _)) => image,
        Err(code) => return Ok(code),
    };
    let container = match life.replace(&image, Before::Any, &ports::Chosen::new(), &mut || {})? {
        Replaced::Started(container) => *container,
        Replaced::NotStarted(code) => return Ok(code),
        Replaced::Taken => return Err(taken(life.project)),
        Replaced::Interrupted(signal) => return Ok(128 + signal as u8),
    };
    if let Some(signal) = maker.interrupt.signal() {
        life.end(&container, &mut || {})?;
        return Ok(128 + signal as u8);
    }
    let connection = life.containers.connect(&container)?;
    let connection = connection.filter(|connection| connection.ask_for_end().is_ok());
    let ended = connection.map_or(Some(None), |connection| connection.wait_for(MOMENT));
    // An end before the connection is in the record.
    let ended = ended.and_then(|code| code.or_else(|| serve::code_of(life.containers, &container)));
    if let Some(code) = ended {
        super::logs::tell_last(life.containers, &container, LAST_LINES)?;
        ui::tell_line(&ended_text(&container, code));
        ui::tell_line(&format!("hint: `kiln logs {}` shows what it wrote", container.name));
        return Ok(code as u8);
    }
    ui::line(&container.name);
    ports::urls(&container).iter().for_each(|url| ui::line(url));
    super::ports::tell_of_exposure(&container);
    Ok(0)
}

fn ended_text(container: &Container, code: i32) -> String {
    format!("{} has ended with exit code {code}", container.name)
}

fn taken(project: &Project) -> CliError {
    CliError::failed(format!("container {} was replaced or removed by another command", project.name))
}
