//! Errors of a whole build. Only [`crate::build`] returns them: all modules below have their own.

use crate::export::ExportError;
use crate::mistake::Mistake;
use crate::step::StepError;
use kiln_image::store::StoreError;
use kiln_image::sys::CallError;
use kiln_parser::span::Span;

/// Failure of a whole build.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The Dockerfile, the ignore file or an option is wrong: no step has run.
    #[error(transparent)]
    Mistake(#[from] Mistake),
    /// A step of the graph failed.
    #[error(transparent)]
    Step(Box<FailedStep>),
    /// The build context cannot be read.
    #[error("cannot read the build context")]
    Context(#[from] CallError),
    /// The image cannot be created from the results of the steps.
    #[error("cannot make the image")]
    Export(#[from] ExportError),
    /// The image contains a secret.
    #[error("the secret {id} is in the image: {place}")]
    Leak {
        /// Id of the secret.
        id: String,
        /// Path and step, or key of the config.
        place: String,
    },
    /// Reading or writing the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The user interrupted the build.
    #[error("canceled")]
    Interrupted,
}

/// A step that failed, and its position.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct FailedStep {
    /// Name of the step in the progress.
    pub name: String,
    /// Position of the instruction or of the faulty word; `None` for steps of no instruction.
    pub span: Option<Span>,
    /// Error of the step.
    #[source]
    pub error: StepError,
}

impl BuildError {
    /// Position in the Dockerfile; `None` for errors without one.
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
