//! Events about images, which commands add to the events of the store.

use kiln_engine::events::Events;
use kiln_image::digest::ImageId;
use kiln_image::reference::Reference;
use kiln_image::store::{Removed, Store};
use std::collections::BTreeMap;

/// Adds an event about an image: what happened, its id or reference, and its name.
pub fn add(store: &Store, action: &str, id: &str, name: &str) {
    let attributes = BTreeMap::from([("name".to_owned(), name.to_owned())]);
    Events::of(store.root()).add("image", id, action, attributes);
}

/// Adds an event about the transfer of an image between the store and a registry.
pub fn moved(store: &Store, action: &str, reference: &Reference) {
    add(store, action, &reference.familiar(), &reference.familiar_repository());
}

/// Adds an event about an image that received a name.
pub fn tagged(store: &Store, image: &ImageId, name: &Reference) {
    add(store, "tag", &image.to_string(), &name.clone().or_latest().familiar());
}

/// Adds events about the removal of an image, or of some of its names.
pub fn removed(store: &Store, image: &ImageId, removed: &[Removed]) {
    let id = image.to_string();
    for one in removed {
        match one {
            Removed::Untagged(name) => {
                let name = name.parse::<Reference>().map_or_else(|_| name.clone(), |name| name.familiar());
                add(store, "untag", &id, &name);
            }
            // Layers have no events.
            Removed::Deleted(deleted) if *deleted == id => add(store, "delete", &id, &id),
            Removed::Deleted(_) => {}
        }
    }
}
