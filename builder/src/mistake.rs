//! Mistakes in a Dockerfile, an ignore file or an option: all errors that end a build before its first step.

use crate::images::ImageError;
use kiln_image::store::StoreError;
use kiln_parser::diagnostic::Diagnostic;
use kiln_parser::span::Span;

/// A mistake in a file or an option. Positions are spans of the Dockerfile.
#[derive(Debug, thiserror::Error)]
pub enum Mistake {
    /// The Dockerfile has syntax errors.
    #[error("{}", summary(.0))]
    Syntax(Vec<Diagnostic>),
    /// A well-formed instruction is invalid: an unknown stage, an invalid mode, a value that does not expand.
    #[error("{}", .0.message)]
    Meaning(Box<Diagnostic>),
    /// An option is wrong, or the file as a whole: there is no position to show.
    #[error("{message}")]
    Option {
        /// Message as one sentence.
        message: String,
        /// Possible remedies, one sentence each.
        hints: Vec<String>,
    },
    /// An image that the file names cannot be resolved.
    #[error("{reference}: {}failed to resolve source metadata for {whole}: {source}", stages.question())]
    Image {
        /// Name of the image as written in the file.
        reference: String,
        /// Full reference of the image.
        whole: String,
        /// Position of the name.
        span: Span,
        /// Error of the registry or the store.
        source: ImageError,
        /// Possible remedies, one sentence each.
        hints: Vec<String>,
        /// Stages that the name could have meant; empty for a name that can only be an image's.
        stages: Box<StageNames>,
    },
    /// The ignore file is malformed or cannot be read.
    #[error("cannot use `{file}`: {message}")]
    Ignore {
        /// Name of the ignore file.
        file: String,
        /// Message as one sentence.
        message: String,
    },
    /// Lints found violations that the file declares to be errors (`# check=error=true`).
    #[error("lint violation found for rules: {}", .0.join(", "))]
    Violations(Vec<&'static str>),
}

/// Names of the earlier stages, for a name that is neither a stage nor an image that can be fetched.
#[derive(Debug, Default)]
pub struct StageNames {
    /// Stage with the most similar name; `None` when no name is similar.
    pub near: Option<String>,
    /// Names of all earlier stages, in the order of the file.
    pub all: Vec<String>,
}

impl StageNames {
    /// Question whether the most similar stage was meant; precedes the error.
    fn question(&self) -> String {
        self.near.as_ref().map_or_else(String::new, |near| format!("did you mean stage {near}? "))
    }
}

impl Mistake {
    /// Mistake in an option.
    pub(crate) fn option(message: impl Into<String>, hint: impl Into<String>) -> Mistake {
        Mistake::Option { message: message.into(), hints: vec![hint.into()] }
    }

    /// Mistake at a position.
    pub(crate) fn at(code: &'static str, span: Span, message: impl Into<String>) -> Mistake {
        Mistake::Meaning(Box::new(Diagnostic::error(code, span, message)))
    }

    /// Adds a hint to the mistake.
    #[must_use]
    pub(crate) fn hint(mut self, hint: Option<String>) -> Mistake {
        if let Mistake::Meaning(diagnostic) = &mut self {
            diagnostic.hints.extend(hint);
        }
        self
    }

    /// Position in the Dockerfile; `None` for options and other files.
    pub fn span(&self) -> Option<Span> {
        match self {
            Mistake::Syntax(list) => list.first().map(|first| first.span),
            Mistake::Meaning(diagnostic) => Some(diagnostic.span),
            Mistake::Image { span, .. } => Some(*span),
            Mistake::Option { .. } | Mistake::Ignore { .. } | Mistake::Violations(_) => None,
        }
    }

    /// True when an image could not be stored because the disk is full.
    pub fn is_full(&self) -> bool {
        let Mistake::Image { source, .. } = self else { return false };
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(source.as_ref());
        while let Some(error) = next {
            if error.downcast_ref::<StoreError>().is_some_and(StoreError::is_full) {
                return true;
            }
            next = error.source();
        }
        false
    }
}

/// Message of the first error, as the reference prints it.
fn summary(diagnostics: &[Diagnostic]) -> String {
    diagnostics.first().map_or_else(String::new, |first| first.message.clone())
}
