//! Command `kiln commit`.

use super::each;
use crate::arguments::{self, Globals};
use crate::error::{CliError, mistake_message};
use crate::image_events;
use crate::missing;
use crate::session::Session;
use crate::signals::Signals;
use crate::ui;
use clap::Parser;
use kiln_builder::Mistake;
use kiln_builder::change::change;
use kiln_engine::{CommitOptions, Container, Containers, EngineError, State};
use kiln_image::reference::Reference;
use kiln_image::store::{Store, StoreError};
use std::ffi::OsString;

/// Create an image from a container's changes.
#[derive(Debug, Parser)]
struct Commit {
    /// Set the author of the image
    #[arg(short, long, value_name = "NAME", default_value = "", hide_default_value = true)]
    author: String,
    /// Apply an instruction such as 'CMD ["app"]' to the image; may be repeated
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Set the comment in the image's history
    #[arg(short, long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    message: String,
    /// Freeze the container while its files are read [default: true]
    #[arg(short, long, action = clap::ArgAction::Set, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", hide_default_value = true)]
    pause: bool,
    /// Let the container go on while its files are read
    #[arg(long, conflicts_with = "pause")]
    no_pause: bool,
    /// Container whose changes become a layer: name or id
    container: String,
    /// Name of the image
    #[arg(value_name = "REPOSITORY[:TAG]")]
    image: Option<String>,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Commit as clap::CommandFactory>::command()
}

/// Creates the image and prints its id.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let commit: Commit = arguments::parse("commit", arguments)?;
    let name = commit.image.as_deref().map(reference).transpose()?;
    let signals = Signals::catch()?;
    let session = Session::open(globals)?;
    let containers = Containers::open(&session.store)?;
    let container = each::find(&containers, &commit.container)?;
    let mut config = containers.config(&container).map_err(|error| image_error(error, &container))?;
    config.config = change(&config, &commit.change).map_err(|mistake| change_error(&mistake))?;
    let options = CommitOptions {
        config: config.config,
        author: commit.author.clone(),
        comment: commit.message.clone(),
    };
    let pauses = commit.pause && !commit.no_pause && is_active(&container);
    let (root, own) = (session.config.root.clone(), container.clone());
    // Otherwise an interrupted command would leave the container paused.
    on_interrupt(signals, move || {
        if pauses
            && let Ok(store) = Store::open(&root)
            && let Ok(containers) = Containers::open(&store)
        {
            let _ = containers.unpause(&own);
        }
    });
    let paused = pauses.then(|| Paused::new(&containers, &container)).transpose()?;
    let image = containers.commit(&container, &options).map_err(|error| image_error(error, &container));
    drop(paused);
    let image = image?;
    if let Some(name) = &name {
        session.store.tag(name, &image)?;
        image_events::tagged(&session.store, &image, name);
    }
    let reference = name.as_ref().map_or_else(String::new, Reference::familiar);
    let more =
        [("comment", options.comment.clone()), ("imageID", image.to_string()), ("imageRef", reference)];
    containers.event(&container, "commit", &more);
    ui::line(&image.to_string());
    Ok(0)
}

/// The name of an image without a digest.
pub(super) fn reference(name: &str) -> Result<Reference, CliError> {
    let reference: Reference =
        name.parse().map_err(|error| CliError::failed(format!("{error}")).hint(missing::NAME))?;
    match reference.digest() {
        None => Ok(reference),
        Some(_) => Err(CliError::failed(format!("refusing to create a tag with a digest reference: {name}"))
            .hint(missing::NAME)),
    }
}

/// True for a container whose processes run and are not paused.
fn is_active(container: &Container) -> bool {
    matches!(container.state, State::Running { paused: false, .. })
}

fn image_error(error: EngineError, container: &Container) -> CliError {
    match error {
        EngineError::Store(StoreError::NoSuchImage(_)) => {
            CliError::failed(format!("the image {} of the container was removed", container.image_name))
                .hint(format!("its files can be exported: kiln export -o FILE {}", container.name))
        }
        EngineError::Store(StoreError::Diff(_)) => {
            CliError::from(error).hint("a file changed while it was read: leave --no-pause out")
        }
        error => error.into(),
    }
}

/// Ends the program at an interrupt, after a last action.
fn on_interrupt(signals: Signals, last: impl Fn() + Send + 'static) {
    signals.listen(move |signal| {
        if matches!(signal, 1 | 2 | 3 | 15) {
            last();
            std::process::exit(128 + signal);
        }
    });
}

/// Describes a mistake in an instruction of --change.
pub(super) fn change_error(mistake: &Mistake) -> CliError {
    let failed = CliError::failed(format!("invalid --change: {}", mistake_message(mistake, None)));
    match mistake {
        Mistake::Option { hints, .. } => hints.iter().fold(failed, |failed, hint| failed.hint(hint)),
        _ => failed.hint("write an instruction of a Dockerfile, such as 'ENV NAME=value'"),
    }
}

/// A container that is paused by this command, until the value is dropped.
struct Paused<'a> {
    containers: &'a Containers<'a>,
    container: &'a Container,
}

impl<'a> Paused<'a> {
    fn new(containers: &'a Containers<'a>, container: &'a Container) -> Result<Paused<'a>, CliError> {
        match containers.pause(container) {
            // One that has ended in the meantime cannot change its files either.
            Ok(()) | Err(EngineError::NotRunning(_) | EngineError::AlreadyPaused(_)) => {}
            Err(error) => {
                return Err(
                    CliError::from(error).hint("the container can be committed while it runs: --no-pause")
                );
            }
        }
        Ok(Paused { containers, container })
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        // One that has ended, or that another command lets go on, needs no help.
        let _ = self.containers.unpause(self.container);
    }
}
