//! Images made of containers: `commit`.

use crate::container::Containers;
use crate::error::EngineError;
use crate::record::{Container, now};
use kiln_image::config::{Extra, History, ImageConfig, RunConfig};
use kiln_image::digest::ImageId;
use kiln_image::json;
use kiln_image::manifest::{Descriptor, Manifest, media_type};
use kiln_image::store::{Image, LayerId, StoreError};

/// Options of a new image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CommitOptions {
    /// Defaults for containers of the image.
    pub config: RunConfig,
    /// Author of the image; empty for none.
    pub author: String,
    /// Comment in its history; empty for none.
    pub comment: String,
}

impl Containers<'_> {
    /// Config of the container's image, with the container's settings as defaults.
    ///
    /// # Errors
    /// [`StoreError::NoSuchImage`] when the image was removed.
    pub fn config(&self, container: &Container) -> Result<ImageConfig, EngineError> {
        let settings = &container.settings;
        let mut config = self.image_of(container)?.config;
        config.config = RunConfig {
            user: settings.user.clone(),
            env: settings.environment.iter().filter(|entry| entry.contains('=')).cloned().collect(),
            entrypoint: settings.entrypoint.clone(),
            cmd: settings.command.clone(),
            working_dir: settings.dir.clone(),
            labels: settings.labels.clone(),
            stop_signal: settings.stop_signal.clone(),
            ..config.config
        };
        Ok(config)
    }

    fn image_of(&self, container: &Container) -> Result<Image, EngineError> {
        let missing = || StoreError::NoSuchImage(container.image.to_string());
        let record = self.store.image(&container.image)?.ok_or_else(missing)?;
        Ok(self.store.read_image(record)?)
    }

    /// Creates an image whose last layer has the container's changes. The layer depends on the files alone: equal changes
    /// result in equal layers. Without changes there is no new layer.
    ///
    /// # Errors
    /// [`StoreError::NoSuchImage`] when the container's image was removed; a file that changes meanwhile, when the
    /// container runs and is not paused; failures to write the store.
    pub fn commit(&self, container: &Container, options: &CommitOptions) -> Result<ImageId, EngineError> {
        // Layers of the image must not be collected before the new image names them.
        let _using = self.store.use_layers()?;
        let image = self.image_of(container)?;
        let mut layers: Vec<Descriptor> =
            self.store.read_manifest(&image.record)?.layers.into_iter().map(Descriptor::as_oci).collect();
        let upper = self.upper(&container.id);
        let layer = if upper.is_dir() { self.store.pack_layer(&upper)? } else { None };
        let mut config = ImageConfig { extra: Extra::default(), ..image.config };
        config.config = options.config.clone();
        config.author.clone_from(&options.author);
        config.created = Some(now());
        config.history.push(History {
            created: config.created.clone(),
            created_by: container.settings.command.clone().unwrap_or_default().join(" "),
            author: options.author.clone(),
            comment: options.comment.clone(),
            empty_layer: layer.is_none(),
            ..History::default()
        });
        if let Some(layer) = &layer {
            let (diff_id, size) = self.store.diff_id(&LayerId::from(layer))?;
            layers.push(Descriptor::new(media_type::OCI_LAYER, diff_id.0.clone(), size));
            config.rootfs.diff_ids.push(diff_id);
        }
        let (bytes, _) = config.encode();
        let mut manifest = Manifest::oci(Descriptor::of(media_type::OCI_CONFIG, &bytes), layers);
        manifest.media_type = Some(media_type::OCI_MANIFEST.to_owned());
        Ok(self.store.put_image(&json::to_vec(&manifest), media_type::OCI_MANIFEST, &bytes)?)
    }
}
