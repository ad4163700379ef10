//! Errors of commands: message, hints and exit code.

use crate::ui;
use kiln_builder::source::SourceError;
use kiln_builder::{AnnotationError, BuildError, FailedStep, Mistake, StageNames, StepError};
use kiln_engine::EngineError;
use kiln_image::archive::ArchiveError;
use kiln_image::store::StoreError;
use kiln_parser::Source;
use kiln_parser::diagnostic::{Severity, render, render_position};
use kiln_registry::{ProxyError, ProxyFault, RegistryError};
use std::error::Error;

/// Exit codes that Docker's users know.
pub mod code {
    /// Failure of the command itself.
    pub const FAILURE: u8 = 1;
    /// The command line cannot be parsed, or a container could not be created.
    pub const USAGE: u8 = 125;
    /// The program of a container is not executable.
    pub const NOT_EXECUTABLE: u8 = 126;
    /// The program of a container does not exist.
    pub const NOT_FOUND: u8 = 127;
    /// The user pressed Ctrl-C.
    pub const INTERRUPTED: u8 = 130;
}

/// Why a command ends early.
#[derive(Debug)]
pub enum CliError {
    /// No error: the text is the output, and the exit code is 0.
    Done(String),
    /// The command line cannot be parsed: a flag is unknown, lacks its value, or its value is no number, size or boolean.
    Flags(String, Vec<String>),
    /// The command line is parsed, but invalid: arguments are missing or too many, or a flag does not accept the value.
    Usage(String, Vec<String>),
    /// Failure other than a build's.
    Failed {
        /// Description of the failure.
        message: String,
        /// Advice, a line each.
        hints: Vec<String>,
        /// Exit code of the program.
        code: u8,
    },
    /// Failure of a build.
    Build(Box<BuildFailure>),
}

/// A failed build with its Dockerfile.
#[derive(Debug)]
pub struct BuildFailure {
    /// Reason of the failure.
    pub error: BuildError,
    /// The Dockerfile; `None` when it could not be read.
    pub source: Option<Source>,
    /// True when a terminal has shown the failed step and its output.
    pub is_shown: bool,
}

impl CliError {
    /// A failure with one message.
    pub fn failed(message: impl Into<String>) -> CliError {
        CliError::Failed { message: message.into(), hints: Vec::new(), code: code::FAILURE }
    }

    /// Adds advice for the user.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> CliError {
        if let CliError::Failed { hints, .. } | CliError::Flags(_, hints) | CliError::Usage(_, hints) =
            &mut self
        {
            hints.push(hint.into());
        }
        self
    }

    /// True when there are hints.
    pub fn has_hints(&self) -> bool {
        matches!(self, CliError::Failed { hints, .. } | CliError::Flags(_, hints) | CliError::Usage(_, hints)
            if !hints.is_empty())
    }

    /// Sets the exit code of a failure; other errors keep theirs.
    #[must_use]
    pub fn with_code(mut self, new: u8) -> CliError {
        if let CliError::Failed { code, .. } = &mut self {
            *code = new;
        }
        self
    }

    /// Prints the error and returns the exit code.
    pub fn report(&self) -> u8 {
        match self {
            CliError::Done(text) => {
                ui::print(text);
                0
            }
            CliError::Flags(message, hints) => {
                tell(message, hints);
                code::USAGE
            }
            CliError::Usage(message, hints) => {
                tell(message, hints);
                code::FAILURE
            }
            CliError::Failed { message, hints, code } => {
                tell(message, hints);
                *code
            }
            CliError::Build(failure) => failure.report(),
        }
    }
}

fn tell(message: &str, hints: &[String]) {
    ui::tell_line(&format!("ERROR: {message}"));
    tell_hints(hints);
}

fn tell_hints(hints: &[String]) {
    hints.iter().for_each(|hint| ui::tell_line(&format!("hint: {hint}")));
}

/// Joins the messages of an error and of its causes, each once.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        next = cause.source();
    }
    text
}

/// A mistake in one sentence, with the line of a syntax error, and with the near name if one was meant.
pub fn mistake_message(mistake: &Mistake, source: Option<&Source>) -> String {
    let message = chain(mistake);
    let (message, hints) = match (mistake, source) {
        (Mistake::Syntax(diagnostics), Some(source)) => {
            let line = diagnostics.first().map_or(1, |d| source.position(d.span.start as usize).line);
            let hints = diagnostics.first().map_or(&[][..], |d| d.hints.as_slice());
            (format!("dockerfile parse error on line {line}: {message}"), hints)
        }
        (Mistake::Image { hints, .. }, _) => (message, hints.as_slice()),
        _ => (message, &[][..]),
    };
    match hints.iter().find(|hint| hint.starts_with("did you mean") && !message.contains(hint.as_str())) {
        Some(near) => format!("{message} ({near})"),
        None => message,
    }
}

/// Hint for a full disk.
pub const FULL: &str = "the disk is full: free some space, for example with `kiln builder prune -a`";

/// Message after the user has cancelled a build.
pub const CANCELLED: &str = "Build cancelled.";

/// `stage 2/5` of `[stage 2/5] RUN make`; the whole name where there is no number.
fn step_number(name: &str) -> &str {
    let number = name.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    number.map_or(name, |(number, _)| number)
}

impl BuildFailure {
    fn report(&self) -> u8 {
        if matches!(self.error, BuildError::Interrupted) {
            if !self.is_shown {
                // The reference's message, for tools that read logs.
                ui::tell_line("ERROR: failed to build: failed to solve: canceled: context canceled");
            }
            ui::tell_line(CANCELLED);
            return code::INTERRUPTED;
        }
        if let (BuildError::Step(step), true) = (&self.error, self.is_shown) {
            return self.report_step(step);
        }
        self.show_places();
        let message = match &self.error {
            BuildError::Mistake(mistake) => mistake_message(mistake, self.source.as_ref()),
            error => chain(error),
        };
        // The context is looked at before anything is solved.
        let solving = if message.starts_with("unable to prepare context") { "" } else { "failed to solve: " };
        ui::tell_line(&format!("ERROR: failed to build: {solving}{message}"));
        let told = |hint: &String| message.ends_with(&format!("({hint})"));
        tell_hints(&self.hints().into_iter().filter(|hint| !told(hint)).collect::<Vec<_>>());
        code::FAILURE
    }

    /// Reports a step that a terminal has shown: its line and the reason, without repeating the command.
    fn report_step(&self, step: &FailedStep) -> u8 {
        let is_exit = matches!(step.error, StepError::Exit { .. });
        if !is_exit {
            // The caret marks the word of the instruction that caused the failure.
            self.show_places();
        }
        let place = match (&self.source, step.span) {
            (Some(source), Some(span)) => {
                format!(" ({}:{})", source.name(), source.position(span.start as usize).line)
            }
            _ => String::new(),
        };
        let reason = match &step.error {
            StepError::Exit { code, .. } => format!("exit code {code}"),
            error => chain(error),
        };
        ui::tell_line(&format!("ERROR: step {}{place} failed: {reason}", step_number(&step.name)));
        tell_hints(&self.hints());
        code::FAILURE
    }

    /// Shows the lines of the Dockerfile that caused the failure.
    fn show_places(&self) {
        let Some(source) = &self.source else { return };
        let color = ui::color();
        let show = |text: String| ui::tell_rendered(&format!("{text}\n\n"), color);
        match &self.error {
            BuildError::Mistake(Mistake::Syntax(diagnostics)) => {
                for diagnostic in diagnostics.iter().filter(|d| d.severity == Severity::Error) {
                    show(render(source, diagnostic, color));
                }
            }
            BuildError::Mistake(Mistake::Meaning(diagnostic)) => show(render(source, diagnostic, color)),
            BuildError::Mistake(Mistake::Image { span, .. }) => {
                show(render_position(source, *span, "cannot get this image", color))
            }
            BuildError::Step(step) => {
                if let Some(span) = step.span {
                    let label = step.error.label();
                    show(render_position(source, span, &label, color));
                }
            }
            _ => {}
        }
    }

    fn hints(&self) -> Vec<String> {
        let mut hints = match &self.error {
            BuildError::Mistake(Mistake::Option { hints, .. }) => hints.clone(),
            BuildError::Mistake(Mistake::Image { reference, hints, source, stages, .. }) => {
                let mut hints = hints.clone();
                // A misspelt name is the likelier reason than the network.
                if hints.is_empty() && stages.near.is_none() {
                    hints.extend(no_stage(reference, stages));
                    hints.extend(source.downcast_ref::<RegistryError>().and_then(registry_hint));
                }
                hints
            }
            BuildError::Step(step) => {
                let mut hints = step.error.hints();
                let word = |source: &Source| step.span.map(|span| source.slice(span).starts_with(".."));
                if self.source.as_ref().and_then(word) == Some(true) {
                    let place = step.error.searched().unwrap_or("the build context");
                    hints.push(format!("`..` does not leave {place}: paths begin at its root"));
                }
                hints
            }
            BuildError::Leak { .. } => vec![
                "mount the secret in the steps that need it: RUN --mount=type=secret; or pass --allow secret-leak if the image may hold it".to_owned(),
            ],
            _ => Vec::new(),
        };
        if self.error.is_full() {
            hints.push(FULL.to_owned());
        }
        hints
    }
}

/// Hint that a name is no stage's either, with the names of the stages; `None` when there are none.
fn no_stage(name: &str, stages: &StageNames) -> Option<String> {
    let all = &stages.all;
    (!all.is_empty())
        .then(|| format!("there is no stage {name} either; the stages above are: {}", all.join(", ")))
}

/// Hint for an error of a registry; `None` where there is no advice.
pub fn registry_hint(error: &RegistryError) -> Option<String> {
    if let RegistryError::Insecure { .. } = error {
        return Some(
            "the server must name https addresses: behind a proxy that ends TLS, it needs X-Forwarded-Proto or \
             relative addresses"
                .to_owned(),
        );
    }
    match error {
        RegistryError::Proxy { source, .. } => return Some(proxy_hint(source)),
        RegistryError::Busy { status: 429, .. } | RegistryError::Status { status: 429, .. } => {
            return Some(
                "try again later, log in for a higher limit (`kiln login`), or name a mirror: \
                 KILN_REGISTRY_MIRROR=HOST:PORT"
                    .to_owned(),
            );
        }
        RegistryError::Artifact { .. } => {
            return Some(
                "only images can be pulled and built on: check the name, or use the tool that made it"
                    .to_owned(),
            );
        }
        RegistryError::Archive(ArchiveError::Store(StoreError::Damaged(_))) => {
            return Some(DAMAGED.to_owned());
        }
        RegistryError::BlobMissing { .. } | RegistryError::ManifestMissing { .. } => {
            return Some("the image is incomplete there: push it again, or use another tag".to_owned());
        }
        _ => {}
    }
    if error.is_timeout() {
        return Some(
            "try again, check the network, or allow longer silence: KILN_NETWORK_TIMEOUT=SECONDS".to_owned(),
        );
    }
    if let RegistryError::Incomplete { .. } = error {
        return Some("try again, and check the network and proxies on the way to the server".to_owned());
    }
    match error {
        RegistryError::ManifestUnknown(_) => {
            return Some("check the spelling of the name and the tag".to_owned());
        }
        RegistryError::Denied(_) => {
            return Some(
                "check the spelling of the name; for a private image log in with `kiln login`".to_owned(),
            );
        }
        _ => {}
    }
    error.is_unreachable().then(|| {
        "check the network, name a mirror that can be reached (KILN_REGISTRY_MIRROR=HOST:PORT), or read the image from a \
         file that `docker save` or `kiln save` wrote: kiln load -i FILE"
            .to_owned()
    })
}

/// Hint for an error of a proxy.
fn proxy_hint(error: &ProxyError) -> String {
    let variable = error.variable;
    let except = "or except the host: NO_PROXY=HOST";
    match &error.fault {
        ProxyFault::Invalid(_) => format!("write {variable}=http://[USER:PASSWORD@]HOST:PORT"),
        ProxyFault::Authentication(_) => {
            format!("name its user and password: {variable}=http://USER:PASSWORD@HOST:PORT, {except}")
        }
        ProxyFault::Refused { .. } => format!("ask the operator of the proxy to allow the host, {except}"),
        _ => format!("correct {variable}, {except}"),
    }
}

/// Hint for a damaged store.
const DAMAGED: &str = "run `kiln system check --repair`, then pull or build the image again";

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> CliError {
        let failed = CliError::failed(chain(&error));
        match error {
            StoreError::Damaged(_) => failed.hint(DAMAGED),
            _ if error.is_full() => failed.hint(FULL),
            _ => failed,
        }
    }
}

impl From<Mistake> for CliError {
    fn from(mistake: Mistake) -> CliError {
        CliError::Build(Box::new(BuildFailure { error: mistake.into(), source: None, is_shown: false }))
    }
}

impl From<SourceError> for CliError {
    fn from(error: SourceError) -> CliError {
        let hint = error.hint();
        let failed = match error {
            SourceError::Mistake(mistake) => return mistake.into(),
            SourceError::Store(error) => return error.into(),
            SourceError::Layout(error) => return error.into(),
            error => chain(&error),
        };
        // As the reference prints what ends a build before it is solved.
        let is_early =
            ["unable to prepare context", "invalid argument"].iter().any(|begin| failed.starts_with(begin));
        let failed = CliError::failed(if is_early { format!("failed to build: {failed}") } else { failed });
        match hint {
            Some(hint) => failed.hint(hint),
            None => failed,
        }
    }
}

impl From<AnnotationError> for CliError {
    fn from(error: AnnotationError) -> CliError {
        CliError::failed(error.to_string())
            .hint("write KEY=VALUE, manifest:KEY=VALUE, index:KEY=VALUE or manifest[linux/amd64]:KEY=VALUE")
    }
}

impl From<RegistryError> for CliError {
    fn from(error: RegistryError) -> CliError {
        let failed = CliError::failed(chain(&error));
        match registry_hint(&error) {
            Some(hint) => failed.hint(hint),
            None => failed,
        }
    }
}

impl From<EngineError> for CliError {
    fn from(error: EngineError) -> CliError {
        let failed = CliError::failed(chain(&error));
        if error.is_full() { failed.hint(FULL) } else { failed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_have_numbers() {
        for (name, number) in [
            ("[2/5] RUN make", "2/5"),
            ("[linux/arm64 build 2/5] RUN [ -e x ]", "linux/arm64 build 2/5"),
            ("exporting to image", "exporting to image"),
        ] {
            assert_eq!(step_number(name), number);
        }
    }
}
