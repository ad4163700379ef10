//! Finds images for builds and containers, in the store or in a registry.

use crate::error::CliError;
use crate::image_events;
use kiln_builder::{BaseImage, BlobProgress, ImageError, Images};
use kiln_image::digest::{Digest, ImageId};
use kiln_image::platform::Platform;
use kiln_image::reference::Reference;
use kiln_image::store::{ImageRecord, Store, StoreError};
use kiln_registry::{PullEvent, Pulled, Registry, RegistryError, Settings};
use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;
use tracing::debug;

/// Finds images: in the store first, then in a registry.
pub struct ImageFinder<'a> {
    /// `None` when there is no store: then only registries are asked.
    store: Option<&'a Store>,
    settings: &'a Settings,
    /// Ignores images of the store.
    asks: bool,
    /// Images of the store under additional names, which only this finder knows.
    aliases: BTreeMap<String, ImageId>,
    registry: OnceLock<Registry>,
    making: Mutex<()>,
}

impl<'a> ImageFinder<'a> {
    /// Asks registries only for images that the store lacks.
    pub fn new(store: &'a Store, settings: &'a Settings) -> ImageFinder<'a> {
        ImageFinder {
            store: Some(store),
            settings,
            asks: false,
            aliases: BTreeMap::new(),
            registry: OnceLock::new(),
            making: Mutex::new(()),
        }
    }

    /// Adds names of images of the store.
    #[must_use]
    pub fn with_aliases(self, aliases: BTreeMap<String, ImageId>) -> ImageFinder<'a> {
        ImageFinder { aliases, ..self }
    }

    /// Asks registries also for images of the store, if `asks` is true.
    #[must_use]
    pub fn asking_registries(self, asks: bool) -> ImageFinder<'a> {
        ImageFinder { asks, ..self }
    }

    /// Creates a finder without a store, for commands that read configs only.
    pub fn without_store(settings: &'a Settings) -> ImageFinder<'a> {
        ImageFinder {
            store: None,
            settings,
            asks: false,
            aliases: BTreeMap::new(),
            registry: OnceLock::new(),
            making: Mutex::new(()),
        }
    }

    fn store(&self) -> Result<&'a Store, StoreError> {
        self.store.ok_or_else(|| StoreError::NoSuchImage("the store is not open".to_owned()))
    }

    /// Longest silence of a server; `None` for the default.
    pub fn patience(&self) -> Option<Duration> {
        self.settings.patience
    }

    /// Returns the registry client, and creates it on the first call.
    ///
    /// # Errors
    ///
    /// Fails when the client cannot be set up.
    pub fn registry(&self) -> Result<&Registry, RegistryError> {
        let _making = self.making.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if self.registry.get().is_none() {
            let _ = self.registry.set(Registry::new(self.settings.clone())?);
        }
        Ok(self.registry.get().expect("it was set just now"))
    }

    /// Pulls an image, whether the store has it or not.
    ///
    /// # Errors
    ///
    /// Fails when the registry cannot be reached or lacks the image, and when the store cannot be written.
    pub fn pull(
        &self,
        name: &Reference,
        platform: &Platform,
        progress: &(dyn Fn(PullEvent) + Sync),
    ) -> Result<Pulled, CliError> {
        let pulled = self.registry()?.pull(self.store()?, name, platform, progress)?;
        image_events::moved(self.store()?, "pull", name);
        Ok(pulled)
    }

    /// The image in the store, if it has one for the platform.
    fn find(&self, name: &Reference, platform: &Platform) -> Result<Option<Found>, StoreError> {
        if let (Some(store), Some(alias)) = (self.store, self.aliases.get(&name.to_string())) {
            let record = store.resolve(&alias.to_string())?;
            return Ok(Some(Found { digest: None, record }));
        }
        let Some(store) = self.store.filter(|_| !self.asks) else { return Ok(None) };
        let Some(record) = store.find(name)? else { return Ok(None) };
        let image = store.read_image(record.clone())?;
        if image.config.platform().distance(platform).is_none() {
            return Ok(None);
        }
        Ok(Some(Found { digest: digest(store, name, &record)?, record }))
    }
}

/// An image in the store.
struct Found {
    record: ImageRecord,
    /// The digest that the registry knows it by, if it came from one.
    digest: Option<Digest>,
}

fn digest(store: &Store, name: &Reference, record: &ImageRecord) -> Result<Option<Digest>, StoreError> {
    let repository = name.repository();
    let known = store.repo_digests(&record.id)?;
    Ok(known.into_iter().find(|(known, _)| *known == repository).map(|(_, digest)| digest))
}

/// Finds the configs of images, for checks: nothing is brought into the store.
pub struct ConfigFinder<'a>(pub &'a ImageFinder<'a>);

impl Images for ConfigFinder<'_> {
    fn resolve(
        &self,
        name: &Reference,
        platform: &Platform,
        _progress: &(dyn Fn(BlobProgress) + Sync),
    ) -> Result<BaseImage, ImageError> {
        let finder = self.0;
        if let (Some(store), Some(found)) = (finder.store, finder.find(name, platform)?) {
            let config = store.read_image(found.record)?.config;
            return Ok(BaseImage::new(name, found.digest, config, Vec::new()));
        }
        let (config, digest) = finder.registry()?.config(name, platform)?;
        Ok(BaseImage::new(name, Some(digest), config, Vec::new()))
    }
}

impl Images for ImageFinder<'_> {
    fn resolve(
        &self,
        name: &Reference,
        platform: &Platform,
        progress: &(dyn Fn(BlobProgress) + Sync),
    ) -> Result<BaseImage, ImageError> {
        let found = match self.find(name, platform)? {
            Some(found) => {
                debug!(image = %name, %platform, id = %found.record.id, "image is in the store");
                found
            }
            None => {
                debug!(image = %name, %platform, "image is fetched from a registry");
                self.fetch(name, platform, progress)?
            }
        };
        let store = self.store()?;
        let manifest = store.read_manifest(&found.record)?;
        let config = store.read_image(found.record)?.config;
        Ok(BaseImage::new(name, found.digest, config, manifest.layers))
    }
}

impl ImageFinder<'_> {
    /// Brings an image into the store, with progress for builds.
    fn fetch(
        &self,
        name: &Reference,
        platform: &Platform,
        progress: &(dyn Fn(BlobProgress) + Sync),
    ) -> Result<Found, ImageError> {
        let sizes: Mutex<BTreeMap<Digest, u64>> = Mutex::default();
        let total = |digest: &Digest| {
            let sizes = sizes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            sizes.get(digest).copied().unwrap_or(0)
        };
        let part = |digest: Digest, current: Option<u64>| {
            let total = total(&digest);
            progress(BlobProgress { digest, current: current.unwrap_or(total), total });
        };
        let hear = |event: PullEvent| match event {
            PullEvent::Resolved(_, layers) => {
                let mut sizes = sizes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                sizes.extend(layers.into_iter().map(|layer| (layer.digest, layer.size)));
            }
            PullEvent::Exists(digest) | PullEvent::Complete(digest) => part(digest, None),
            PullEvent::Downloading(digest, current) => part(digest, Some(current)),
        };
        let pulled = self.registry()?.pull(self.store()?, name, platform, &hear)?;
        let record = self.store()?.image(&pulled.image)?;
        let record = record.ok_or_else(|| StoreError::NoSuchImage(name.familiar()))?;
        Ok(Found { record, digest: Some(pulled.digest) })
    }
}
