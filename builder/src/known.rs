//! Search in the input of the build: the Dockerfile, the base images, and the files of contexts that are copied.
//!
//! A secret's value in the input has not been leaked by this build, wherever the build copies it. The search takes time
//! in proportion to images and contexts, and runs only for values that were found somewhere.

use crate::cancel::Cancel;
use crate::content::{self, Content, ContentError};
use crate::graph::{Copy, CopyFrom, Graph, Operation};
use crate::secret;
use kiln_image::store::{Store, StoreError};
use kiln_parser::ignore::Patterns;
use memchr::memmem::Finder;
use std::sync::{Mutex, PoisonError};

/// Input of a build.
pub(crate) struct Known<'a> {
    /// Text of the Dockerfile.
    pub(crate) dockerfile: &'a str,
    /// Configs of the base images, as JSON.
    pub(crate) configs: Vec<String>,
    pub(crate) graph: &'a Graph,
    pub(crate) contexts: &'a [Option<Content>],
    pub(crate) store: &'a Store,
    pub(crate) cancel: &'a Cancel,
    /// Paths of copied files that contain nothing but a value.
    pub(crate) bare: Mutex<Vec<String>>,
}

impl Known<'_> {
    /// True when the input contains the text of `finder`. Files that cannot be read are skipped.
    pub(crate) fn holds(&self, finder: &Finder<'_>) -> bool {
        let is_written = |text: &str| finder.find(text.as_bytes()).is_some();
        is_written(self.dockerfile)
            || self.configs.iter().any(|config| is_written(config))
            || self.is_copied(finder)
            || self.is_in_images(finder).unwrap_or(false)
    }

    /// Paths of copied files that contain nothing but a value, since the last call.
    pub(crate) fn take_bare(&self) -> Vec<String> {
        std::mem::take(&mut *self.bare.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_in_images(&self, finder: &Finder<'_>) -> Result<bool, StoreError> {
        for node in &self.graph.nodes {
            let Operation::Image(image) = &node.operation else { continue };
            let stack = self.store.stack(&image.diff_ids)?;
            for dir in stack.dirs() {
                if secret::is_in_tree(finder.needle(), dir, self.cancel)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn is_copied(&self, finder: &Finder<'_>) -> bool {
        let copies = self.graph.nodes.iter().filter_map(|node| match &node.operation {
            Operation::Copy(copy) => Some(copy),
            _ => None,
        });
        copies.into_iter().any(|copy| self.is_taken_by(copy, finder).unwrap_or(false))
    }

    fn is_taken_by(&self, copy: &Copy, finder: &Finder<'_>) -> Result<bool, ContentError> {
        let exclude = Patterns::compile(copy.exclude.iter().map(String::as_str)).unwrap_or_default();
        let mut found = false;
        for source in &copy.sources {
            let CopyFrom::Context(number) = source.from else { continue };
            let Some(content) = &self.contexts[number] else { continue };
            let sources = match copy.parents {
                true => content.find_with_parents(&source.path)?,
                false => content.find(&source.path)?,
            };
            for source in &sources {
                content::each_file(content, source, &exclude, &mut |path, file| {
                    found |= finder.find(path).is_some();
                    let Some(file) = file else { return };
                    found |= match secret::holds(finder, file) {
                        Ok(secret::Holds::Nothing) | Err(_) => false,
                        Ok(secret::Holds::Among) => true,
                        Ok(secret::Holds::Alone) => {
                            let path = String::from_utf8_lossy(path).into_owned();
                            self.bare.lock().unwrap_or_else(PoisonError::into_inner).push(path);
                            true
                        }
                    };
                })?;
            }
        }
        Ok(found)
    }
}
