//! Mistakes in a Dockerfile, an ignore file or an option: everything that ends a build before its first step.

use crate::images::ImageError;
use kiln_image::store::StoreError;
use kiln_parser::diagnostic::Diagnostic;
use kiln_parser::span::Span;

/// What is wrong with a file or an option. Places are spans of the Dockerfile.
#[derive(Debug, thiserror::Error)]
pub enum Mistake {
    /// The Dockerfile has syntax errors.
    #[error("{}", summary(.0))]
    Syntax(Vec<Diagnostic>),
    /// An instruction is well-formed and has no meaning: an unknown stage, an invalid mode, a value that does not expand.
    #[error("{}", .0.message)]
    Meaning(Box<Diagnostic>),
    /// An option is wrong, or the file as a whole: there is no place to show.
    #[error("{message}")]
    Option {
        /// One sentence.
        message: String,
        /// What to do.
        hints: Vec<String>,
    },
    /// An image that the file names cannot be resolved.
    #[error("{reference}: {}failed to resolve source metadata for {whole}: {source}", stages.question())]
    Image {
        /// The image as written in the file.
        reference: String,
        /// Full name.
        whole: String,
        /// Place of the name.
        span: Span,
        /// Error of the registry or the store.
        source: ImageError,
        /// What to do.
        hints: Vec<String>,
        /// The stages that the name could have meant; empty for a name that can only be an image's.
        stages: Box<StageNames>,
    },
    /// The ignore file is malformed or cannot be read.
    #[error("cannot use `{file}`: {message}")]
    Ignore {
        /// Name of the file.
        file: String,
        /// One sentence.
        message: String,
    },
    /// Lints found what the file declares to be errors (`# check=error=true`).
    #[error("lint violation found for rules: {}", .0.join(", "))]
    Violations(Vec<&'static str>),
}

/// Names of the earlier stages beside a name that is neither a stage nor an image that can be fetched.
#[derive(Debug, Default)]
pub struct StageNames {
    /// The stage whose name is nearest; `None` when none is near.
    pub near: Option<String>,
    /// All of them, in the order of the file.
    pub all: Vec<String>,
}

impl StageNames {
    /// Asks whether the nearest stage was meant, in front of what went wrong.
    fn question(&self) -> String {
        self.near.as_ref().map_or_else(String::new, |near| format!("did you mean stage {near}? "))
    }
}

impl Mistake {
    /// A wrong option.
    pub(crate) fn option(message: impl Into<String>, hint: impl Into<String>) -> Mistake {
        Mistake::Option { message: message.into(), hints: vec![hint.into()] }
    }

    /// A mistake at a place.
    pub(crate) fn at(code: &'static str, span: Span, message: impl Into<String>) -> Mistake {
        Mistake::Meaning(Box::new(Diagnostic::error(code, span, message)))
    }

    /// Adds advice.
    #[must_use]
    pub(crate) fn hint(mut self, hint: Option<String>) -> Mistake {
        if let Mistake::Meaning(diagnostic) = &mut self {
            diagnostic.hints.extend(hint);
        }
        self
    }

    /// The place in the Dockerfile; `None` for options and other files.
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

/// The message of the first error, as the reference prints it.
fn summary(diagnostics: &[Diagnostic]) -> String {
    diagnostics.first().map_or_else(String::new, |first| first.message.clone())
}
