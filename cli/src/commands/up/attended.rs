//! `kiln up` in the foreground: one loop waits for signals, the container's end, and edits.

use super::life::{Before, Life, Replaced};
use super::ports::{self, Chosen};
use super::serve::{Followed, Gate};
use super::sync::SyncRule;
use super::watching::Watching;
use super::{Maker, ended_text, taken};
use crate::commands::ports::tell_of_exposure;
use crate::commands::run::Trouble;
use crate::error::CliError;
use crate::ui;
use kiln_builder::Change;
use kiln_engine::{Container, Listed};
use kiln_image::digest::ImageId;
use rustix::event::{PollFd, PollFlags, poll};
use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::time::{Instant, SystemTime};

/// A project that is run in the foreground.
pub(super) struct Attended<'a> {
    maker: &'a Maker<'a>,
    life: &'a Life<'a>,
    syncs: &'a [SyncRule],
    watches: bool,
    gate: Gate,
    /// The last container that this command has started, unless it was removed.
    last: Option<Container>,
    followed: Option<Followed>,
    /// Image of the last container.
    image: Option<ImageId>,
    /// Ports of the last container.
    ports: Chosen,
    watching: Option<Watching>,
    /// Files that were copied into the running container and may not be in the image.
    synced: BTreeSet<Change>,
    /// Files whose copy has failed.
    unsynced: BTreeSet<Change>,
}

/// What the command waits for.
enum News {
    /// A signal asks for the end.
    Signal(i32),
    /// The container has ended.
    Ended,
    /// Files have changed, and nothing has changed for a moment.
    Edited,
}

impl<'a> Attended<'a> {
    pub(super) fn new(
        maker: &'a Maker<'a>,
        life: &'a Life<'a>,
        syncs: &'a [SyncRule],
        watches: bool,
    ) -> Attended<'a> {
        Attended {
            maker,
            life,
            syncs,
            watches,
            gate: Gate::default(),
            last: None,
            followed: None,
            image: None,
            ports: Chosen::new(),
            watching: None,
            synced: BTreeSet::new(),
            unsynced: BTreeSet::new(),
        }
    }

    /// Runs the project until its container ends, or a signal comes; returns the exit code.
    ///
    /// # Errors
    ///
    /// Fails when the container cannot be made.
    pub(super) fn run(mut self) -> Result<u8, CliError> {
        let began = SystemTime::now();
        let (image, inputs) = match self.maker.make_first(self.life)? {
            Ok(made) => made,
            Err(code) => return Ok(code),
        };
        if self.watches {
            self.watching = Some(Watching::begin(inputs, self.syncs, began)?);
        }
        match self.life.replace(&image, Before::Any, &self.ports, &mut || {})? {
            Replaced::Started(container) => self.follow(*container, &image, "runs")?,
            Replaced::NotStarted(code) if !self.watches => return Ok(code),
            Replaced::NotStarted(_) => self.did_not_start(image),
            Replaced::Taken => return Err(taken(self.life.project)),
            Replaced::Interrupted(signal) => return Ok(128 + signal as u8),
        }
        let ended = self.attend();
        if ended.is_err() {
            // The error is reported; the container must not stay because of it.
            let _ = self.end();
        }
        ended
    }

    fn attend(&mut self) -> Result<u8, CliError> {
        loop {
            match self.wait()? {
                News::Signal(signal) => {
                    self.end()?;
                    return Ok(128 + signal as u8);
                }
                News::Ended => {
                    if let Some(code) = self.ended()? {
                        return Ok(code);
                    }
                }
                News::Edited => {
                    if !self.edited()? {
                        return Err(taken(self.life.project));
                    }
                }
            }
        }
    }

    fn wait(&mut self) -> Result<News, CliError> {
        loop {
            if let Some(signal) = self.maker.interrupt.signal() {
                return Ok(News::Signal(signal));
            }
            // It may have ended before it could be followed.
            if self.followed.as_ref().is_some_and(|followed| followed.end().is_none()) {
                return Ok(News::Ended);
            }
            let end = self.followed.as_ref().and_then(Followed::end);
            let limit = self.watching.as_ref().and_then(Watching::limit);
            let mut polled = vec![PollFd::new(self.maker.interrupt, PollFlags::IN)];
            polled.extend(end.map(|end| PollFd::from_borrowed_fd(end, PollFlags::IN)));
            let watch = self.watching.as_ref().and_then(Watching::queue);
            polled.extend(watch.map(|watch| PollFd::from_borrowed_fd(watch, PollFlags::IN)));
            // An interrupted wait is repeated.
            let _ = poll(&mut polled, limit.as_ref());
            let is_ready = |at: usize| polled.get(at).is_some_and(|fd| !fd.revents().is_empty());
            let (has_end_news, has_edits) =
                (end.is_some() && is_ready(1), watch.is_some() && is_ready(1 + usize::from(end.is_some())));
            if has_edits && let Some(watching) = &mut self.watching {
                watching.read();
            }
            let (containers, interrupt) = (self.life.containers, self.maker.interrupt);
            let has_ended = |followed: &mut Followed| followed.has_ended(containers, interrupt);
            if has_end_news && self.followed.as_mut().is_some_and(has_ended) {
                return Ok(News::Ended);
            }
            if self.watching.as_ref().is_some_and(Watching::is_due) {
                return Ok(News::Edited);
            }
        }
    }

    /// Shows a container that has started.
    fn follow(&mut self, container: Container, image: &ImageId, what: &str) -> Result<(), CliError> {
        let urls = ports::urls(&container);
        let urls = if urls.is_empty() { String::new() } else { format!(" at {}", urls.join(", ")) };
        ui::tell_line(&format!("{} {what}{urls}", container.name));
        tell_of_exposure(&container);
        self.ports.extend(ports::chosen(&container));
        self.last = Some(container.clone());
        self.image = Some(image.clone());
        let interrupt = self.maker.interrupt;
        self.followed = Some(Followed::begin(self.life.containers, container, &self.gate, interrupt)?);
        Ok(())
    }

    fn did_not_start(&mut self, image: ImageId) {
        (self.last, self.image) = (None, Some(image));
        self.maker.interrupt.set_process(None);
        ui::tell_line(&format!("{} did not start; the next edit tries again", self.life.project.name));
    }

    /// Stops and removes the container.
    fn end(&mut self) -> Result<(), CliError> {
        let mut followed = self.followed.take();
        if let Some(followed) = &followed {
            ui::tell_line(&format!("stopping {} (Ctrl-C kills it)", followed.container.name));
        }
        let mut stopped = || followed.iter_mut().for_each(Followed::finish);
        self.last.take().map_or(Ok(()), |last| self.life.end(&last, &mut stopped))
    }

    /// Reports the end of the container; returns the exit code of the command if that ends as well.
    fn ended(&mut self) -> Result<Option<u8>, CliError> {
        let Some(mut followed) = self.followed.take() else { return Ok(None) };
        followed.finish();
        self.maker.interrupt.set_process(None);
        let container = &followed.container;
        let (code, is_out_of_memory) = followed.outcome(self.life.containers);
        // A command that replaces or removes the container holds the lock until it is gone.
        drop(self.life.project.lock());
        if !matches!(self.life.containers.find(&container.id), Ok(Listed::Sound(_))) {
            ui::tell_line(&format!("{} was replaced or removed by another command", container.name));
            return Ok(Some(code as u8));
        }
        ui::tell_line(&ended_text(container, code));
        if self.watches {
            ui::tell_line("the next edit starts it again");
            return Ok(None);
        }
        Trouble::expect(self.life.containers, container, true).explain(code, is_out_of_memory);
        self.end()?;
        Ok(Some(code as u8))
    }

    /// Reacts to edits; false when another command has replaced the container.
    fn edited(&mut self) -> Result<bool, CliError> {
        let Some(watching) = &mut self.watching else { return Ok(true) };
        let edits = watching.take();
        if !edits.synced.is_empty() {
            // Those that have failed are tried again.
            let mut synced = std::mem::take(&mut self.unsynced);
            synced.extend(edits.synced);
            self.sync(&synced);
            self.synced.extend(synced);
        }
        if edits.built.is_empty() {
            return Ok(true);
        }
        ui::tell_line(&format!("{}: building again", edits.built.describe(&self.life.project.dir)));
        self.build_again()
    }

    fn build_again(&mut self) -> Result<bool, CliError> {
        let began = SystemTime::now();
        let made = {
            // Lines of the container would break the progress on a terminal.
            let gate = std::sync::Arc::clone(&self.gate);
            let _held = gate.lock().unwrap_or_else(PoisonError::into_inner);
            self.maker.make()
        };
        let (image, inputs) = match made {
            Ok(made) => made,
            // The signal is handled where all are waited for.
            Err(_) if self.maker.interrupt.signal().is_some() => return Ok(true),
            Err(error) => {
                error.report();
                let goes_on = if self.followed.is_some() { "goes on with its old image" } else { "waits" };
                let name = &self.life.project.name;
                ui::tell_line(&format!("{name} {goes_on}; the next edit builds again"));
                if let Some(watching) = &mut self.watching {
                    watching.failed(began);
                }
                return Ok(true);
            }
        };
        if let Some(watching) = &mut self.watching {
            watching.succeeded(inputs, began);
        }
        if self.followed.is_some() && self.image.as_ref() == Some(&image) {
            ui::tell_line("the image has not changed");
            return Ok(true);
        }
        self.restart(image)
    }

    fn restart(&mut self, image: ImageId) -> Result<bool, CliError> {
        let began = Instant::now();
        // A container that did not start was removed, and leaves the name free.
        let before = Before::Only(self.last.as_ref().map(|last| last.id.as_str()));
        let mut old = self.followed.take();
        let mut stopped = || old.iter_mut().for_each(Followed::finish);
        let replaced = self.life.replace(&image, before, &self.ports, &mut stopped)?;
        match replaced {
            Replaced::Started(container) => {
                let what = format!("restarted in {:.1} s", began.elapsed().as_secs_f64());
                self.follow(*container, &image, &what)?;
                let again = std::mem::take(&mut self.synced);
                if !again.is_empty() {
                    self.sync(&again);
                    self.synced = again;
                }
            }
            Replaced::NotStarted(_) => self.did_not_start(image),
            Replaced::Taken => return Ok(false),
            // The signal is handled where all are waited for.
            Replaced::Interrupted(_) => self.last = None,
        }
        Ok(true)
    }

    /// Copies changed files into the running container.
    fn sync(&mut self, changes: &BTreeSet<Change>) {
        let Some(followed) = &self.followed else { return };
        let done = super::sync::apply(self.life.containers, &followed.container, self.syncs, changes);
        match done {
            Ok((text, failed)) => {
                if !text.is_empty() {
                    ui::tell_line(&text);
                }
                for (change, error) in failed {
                    error.report();
                    self.unsynced.insert(change);
                }
            }
            Err(error) => {
                error.report();
                self.unsynced.extend(changes.iter().cloned());
            }
        }
    }
}
