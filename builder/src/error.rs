//! Why a build fails.

use crate::export::ExportError;
use crate::step::StepError;
use kiln_image::store::StoreError;
use kiln_image::sys::CallError;
use kiln_parser::diagnostic::Diagnostic;
use kiln_parser::span::Span;

/// A failed build. Places are spans of the Dockerfile.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The Dockerfile cannot be read.
    #[error("{}", summary(.0))]
    Syntax(Vec<Diagnostic>),
    /// The Dockerfile reads well but makes no sense.
    #[error("{}", .0.message)]
    Meaning(Box<Diagnostic>),
    /// What stands in no line of the file is wrong: an option.
    #[error("{message}")]
    Option {
        /// One sentence.
        message: String,
        /// What to do.
        hints: Vec<String>,
    },
    /// An image that the build starts from cannot be had.
    #[error("{reference}: failed to resolve source metadata for {whole}: {source}")]
    Image {
        /// The image as it was written.
        reference: String,
        /// Its whole name.
        whole: String,
        /// Where it was written.
        span: Span,
        /// Why.
        source: ImageError,
        /// What to do.
        hints: Vec<String>,
    },
    /// A step failed.
    #[error(transparent)]
    Step(Box<FailedStep>),
    /// The build context cannot be read.
    #[error("cannot read the build context")]
    Context(#[from] CallError),
    /// The image cannot be made of what the steps left.
    #[error("cannot make the image")]
    Export(#[from] ExportError),
    /// The ignore file is malformed.
    #[error("cannot use `{file}`: {message}")]
    Ignore {
        /// The file.
        file: String,
        /// What is wrong with it.
        message: String,
    },
    /// A secret is in the image.
    #[error("the secret {id} is in the image: {place}")]
    Leak {
        /// Its id.
        id: String,
        /// Where.
        place: String,
    },
    /// Lints found what the file says must not be.
    #[error("lint violation found for rules: {}", .0.join(", "))]
    Violations(Vec<&'static str>),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The user wants no more of it.
    #[error("canceled")]
    Interrupted,
}

/// What an [`Images`](crate::build::Images) says when it cannot deliver.
pub type ImageError = Box<dyn std::error::Error + Send + Sync>;

/// A step that failed, and where it stands.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct FailedStep {
    /// How progress names it.
    pub name: String,
    /// Its instruction.
    pub span: Option<Span>,
    /// Why.
    #[source]
    pub error: StepError,
}

impl BuildError {
    /// A wrong option.
    pub(crate) fn option(message: impl Into<String>, hint: impl Into<String>) -> BuildError {
        BuildError::Option { message: message.into(), hints: vec![hint.into()] }
    }

    /// A mistake at a place.
    pub(crate) fn at(code: &'static str, span: Span, message: impl Into<String>) -> BuildError {
        BuildError::Meaning(Box::new(Diagnostic::error(code, span, message)))
    }

    /// Adds advice.
    #[must_use]
    pub(crate) fn hint(mut self, hint: Option<String>) -> BuildError {
        if let BuildError::Meaning(diagnostic) = &mut self {
            diagnostic.hints.extend(hint);
        }
        self
    }

    /// The place in the Dockerfile that is to blame.
    pub fn span(&self) -> Option<Span> {
        match self {
            BuildError::Syntax(list) => list.first().map(|first| first.span),
            BuildError::Meaning(diagnostic) => Some(diagnostic.span),
            BuildError::Image { span, .. } => Some(*span),
            BuildError::Step(step) => step.span,
            _ => None,
        }
    }

    /// True when the disk is full.
    pub fn is_full(&self) -> bool {
        match self {
            BuildError::Store(error) | BuildError::Export(ExportError::Store(error)) => error.is_full(),
            BuildError::Step(step) => step.error.is_full(),
            BuildError::Image { source, .. } => is_full(source.as_ref()),
            _ => false,
        }
    }
}

fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.downcast_ref::<StoreError>().is_some_and(StoreError::is_full) {
            return true;
        }
        next = error.source();
    }
    false
}

/// The first error, as the reference words it; how many more there are.
fn summary(diagnostics: &[Diagnostic]) -> String {
    diagnostics.first().map_or_else(String::new, |first| first.message.clone())
}
