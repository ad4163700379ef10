//! Secrets and ssh sockets that the caller passes to steps.

use crate::secret::Needles;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Secrets and ssh sockets by id. Steps mount them; they must not become part of any image.
#[derive(Clone, Default)]
pub struct Credentials {
    /// Contents of secrets by id.
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// Socket paths of ssh agents by id.
    pub ssh: BTreeMap<String, PathBuf>,
}

impl Credentials {
    /// True when `text` contains the value of a secret, except one so simple that it may be there by chance.
    pub fn holds_secret(&self, text: &[u8]) -> bool {
        Needles::new(&self.secrets).stand_in(text)
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("secrets", &self.secrets.keys()).field("ssh", &self.ssh).finish()
    }
}
