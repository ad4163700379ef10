//! `--annotation`: annotations of manifests, of indexes, and of the descriptors that point to them.

use kiln_image::platform::Platform;

/// Annotations by the object that carries them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations {
    /// Of manifests: for one platform, or for all.
    pub manifest: Vec<(Option<Platform>, String, String)>,
    /// Of descriptors of manifests in an index.
    pub manifest_descriptor: Vec<(Option<Platform>, String, String)>,
    /// Of the index.
    pub index: Vec<(String, String)>,
    /// Of the descriptor of the index.
    pub index_descriptor: Vec<(String, String)>,
}

impl Annotations {
    /// All names and values, for the search for secrets.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        let on_manifests = self.manifest.iter().chain(&self.manifest_descriptor);
        let on_manifests = on_manifests.map(|(_, name, value)| (name, value));
        let on_index = self.index.iter().chain(&self.index_descriptor).map(|(name, value)| (name, value));
        on_manifests.chain(on_index).flat_map(|(name, value)| [name.as_str(), value.as_str()])
    }
}
