//! Errors of a whole build. Only [`crate::build`] returns them: everything below has its own.

use crate::export::ExportError;
use crate::mistake::Mistake;
use crate::step::StepError;
use kiln_image::store::StoreError;
use kiln_image::sys::CallError;
use kiln_parser::span::Span;

/// A failed build.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The Dockerfile, the ignore file or an option is wrong: no step has run.
    #[error(transparent)]
    Mistake(#[from] Mistake),
    /// A step failed.
    #[error(transparent)]
    Step(Box<FailedStep>),
    /// The build context cannot be read.
    #[error("cannot read the build context")]
    Context(#[from] CallError),
    /// The image cannot be made of what the steps left.
    #[error("cannot make the image")]
    Export(#[from] ExportError),
    /// The image contains a secret.
    #[error("the secret {id} is in the image: {place}")]
    Leak {
        /// Id of the secret.
        id: String,
        /// File and step, or key of the config.
        place: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The user interrupted the build.
    #[error("canceled")]
    Interrupted,
}

/// A step that failed, and its place.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct FailedStep {
    /// Name in the progress.
    pub name: String,
    /// Place of the instruction, or of the word that is to blame.
    pub span: Option<Span>,
    /// Error of the step.
    #[source]
    pub error: StepError,
}

impl BuildError {
    /// The place in the Dockerfile that is to blame.
    pub fn span(&self) -> Option<Span> {
        match self {
            BuildError::Mistake(mistake) => mistake.span(),
            BuildError::Step(step) => step.span,
            _ => None,
        }
    }

    /// True when the disk is full.
    pub fn is_full(&self) -> bool {
        match self {
            BuildError::Store(error) | BuildError::Export(ExportError::Store(error)) => error.is_full(),
            BuildError::Step(step) => step.error.is_full(),
            BuildError::Mistake(mistake) => mistake.is_full(),
            _ => false,
        }
    }
}
