//! `kiln build --call`: questions about a Dockerfile that need no build, answered in the reference builder's format.

mod check;
mod describe;
mod outline;
mod plan;
mod targets;

use crate::arguments::Globals;
use crate::config::Config;
use crate::error::{BuildFailure, CliError};
use crate::images::ImageFinder;
use crate::session::Session;
use crate::ui;
use kiln_builder::context::Context;
use kiln_builder::{BuildOptions, Mistake};
use kiln_image::json;
use kiln_parser::diagnostic::Diagnostic;
use kiln_parser::span::Span;
use kiln_parser::{Parse, Source, suggest};
use serde::Serialize;

const QUESTIONS: [&str; 5] = ["check", "outline", "targets", "plan", "subrequests.describe"];

/// Question about a Dockerfile, with its options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    question: Question,
    json: bool,
    /// True when findings do not make the command fail.
    ignore_status: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    Check,
    Outline,
    Targets,
    Plan,
    Describe,
}

/// Subject of a question: a context, its Dockerfile and the build options.
struct Subject<'a> {
    globals: &'a Globals,
    context: &'a Context,
    options: &'a BuildOptions,
    /// Path of the Dockerfile as the user wrote it.
    path: &'a str,
}

impl Call {
    /// Parses `check[,format=json][,ignorestatus=true]`. `None` for `build`, which is no question.
    pub fn parse(text: &str) -> Result<Option<Call>, CliError> {
        let mut parts = text.split(',');
        let question = match parts.next().unwrap_or_default() {
            "build" | "" => return Ok(None),
            "check" | "lint" => Question::Check,
            "outline" => Question::Outline,
            "targets" => Question::Targets,
            "plan" => Question::Plan,
            "subrequests.describe" => Question::Describe,
            other => {
                let near = suggest::nearest(other, QUESTIONS).map(|near| format!("did you mean {near}?"));
                let failed = CliError::failed(format!(
                    "failed to build: failed to solve: unsupported request frontend.{other}"
                ));
                return Err(failed.hint(near.unwrap_or_else(|| format!("one of {}", QUESTIONS.join(", ")))));
            }
        };
        let mut call = Call { question, json: false, ignore_status: false };
        for part in parts {
            match part.split_once('=') {
                Some(("format", "json")) => call.json = true,
                Some(("format", "text")) => call.json = false,
                Some(("ignorestatus", value)) => call.ignore_status = value == "true",
                _ => {
                    return Err(CliError::Usage(
                        format!("invalid value {part:?} for --call"),
                        vec!["write format=json, format=text or ignorestatus=true".to_owned()],
                    ));
                }
            }
        }
        Ok(Some(call))
    }

    /// Prints the answer; `path` is the Dockerfile's as the user wrote it.
    pub fn answer(
        self,
        globals: &Globals,
        context: &Context,
        options: &BuildOptions,
        path: &str,
    ) -> Result<u8, CliError> {
        let subject = Subject { globals, context, options, path };
        match self.question {
            Question::Check => check::answer(self, &subject),
            Question::Outline => outline::answer(self, &subject),
            Question::Targets => targets::answer(self, &subject),
            Question::Plan => plan::answer(self, &subject),
            Question::Describe => describe::answer(self),
        }
    }
}

impl Subject<'_> {
    /// Syntax tree of a Dockerfile without mistakes.
    fn parse(&self) -> Result<Parse, CliError> {
        let parse = kiln_parser::parse(&self.context.source);
        let errors: Vec<Diagnostic> = parse.errors().cloned().collect();
        if errors.is_empty() { Ok(parse) } else { Err(self.failure(Mistake::Syntax(errors))) }
    }

    fn failure(&self, mistake: Mistake) -> CliError {
        let source = Some(self.context.source.clone());
        CliError::Build(Box::new(BuildFailure { error: mistake.into(), source, is_shown: false }))
    }
}

/// Source of image configs that does not create a store.
struct ConfigSource {
    config: Config,
    session: Option<Session>,
}

impl ConfigSource {
    fn open(globals: &Globals) -> Result<ConfigSource, CliError> {
        let config = Config::read(globals)?;
        // An image in the store needs no request to a registry.
        let session = match config.root.exists() {
            true => Session::open(globals).ok(),
            false => None,
        };
        Ok(ConfigSource { config, session })
    }

    fn finder(&self) -> ImageFinder<'_> {
        match &self.session {
            Some(session) => ImageFinder::new(&session.store, &session.config.registry),
            None => ImageFinder::without_store(&self.config.registry),
        }
    }
}

fn print_json(answer: &impl Serialize) {
    ui::data(&(String::from_utf8_lossy(&json::to_vec_narrow(answer)) + "\n"));
}

fn base64_of(source: &Source) -> String {
    base64::Engine::encode(&base64::engine::general_purpose::STANDARD, source.bytes())
}

/// First and last line of a span, counted from 1.
fn place(source: &Source, span: Span) -> (usize, usize) {
    let line = |offset: u32| source.position(offset as usize).line;
    (line(span.start), line(span.end.saturating_sub(1).max(span.start)))
}

/// Position in the Dockerfile as line ranges, for tools.
#[derive(Serialize)]
struct Location {
    ranges: Vec<Range>,
}

#[derive(Serialize)]
struct Range {
    start: Line,
    end: Line,
}

#[derive(Serialize)]
struct Line {
    line: usize,
}

impl Location {
    fn of(source: &Source, span: Span) -> Location {
        Location::between(place(source, span))
    }

    fn between((first, last): (usize, usize)) -> Location {
        Location { ranges: vec![Range { start: Line { line: first }, end: Line { line: last } }] }
    }
}
