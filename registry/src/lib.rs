//! The network: finding, pulling and pushing images over the OCI distribution protocol 1.1, files of the web, and git
//! repositories.
//!
//! Nothing that a registry says is believed before its digest has been checked. Mirrors are asked before
//! the registry itself; since content is addressed by digest, it does not matter who delivers it.

#![forbid(unsafe_code)]

mod auth;
mod client;
mod endpoint;
mod error;
mod fetch;
mod git;
mod origin;
mod patience;
mod proxy;
mod pull;
mod push;
mod retry;
#[cfg(feature = "testing")]
pub mod testing;

pub use auth::{AuthError, Credentials, Keychain};
pub use client::Client;
pub use endpoint::{Endpoint, MirrorError, Mirrors};
pub use error::RegistryError;
pub use fetch::{FetchRequest, FetchedFile};
pub use git::{GitError, GitRequest, Identity, check_out, commit};
pub use patience::DEFAULT_PATIENCE;
pub use proxy::{Proxies, ProxyError, ProxyFault};
pub use pull::{Progress, PullEvent, Pulled};
pub use push::{PushEvent, PushRequest};
pub use retry::{WaitListener, Waiting};

use kiln_image::config::ImageConfig;
use kiln_image::digest::Digest;
use kiln_image::platform::Platform;
use kiln_image::reference::Reference;
use kiln_image::store::Store;
use std::fs::File;
use std::time::Duration;

/// What is needed to reach registries.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Where images of Docker Hub are looked for first.
    pub mirrors: Mirrors,
    /// Who we are to whom.
    pub keychain: Keychain,
    /// Sent as `User-Agent`.
    pub user_agent: String,
    /// How long a server may be silent; `None` for [`DEFAULT_PATIENCE`].
    pub patience: Option<Duration>,
    /// Servers that requests go through.
    pub proxies: Proxies,
    /// Receives waits that servers ask for.
    pub waits: WaitListener,
}

/// A connection to registries; made when one is needed.
pub struct Registry {
    runtime: tokio::runtime::Runtime,
    client: Client,
    settings: Settings,
}

impl Registry {
    /// Starts what waits for the network.
    pub fn new(settings: Settings) -> Result<Registry, RegistryError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("kiln-network")
            .enable_all()
            .build()
            .map_err(RegistryError::Runtime)?;
        let client = Client::new(&settings)?;
        Ok(Registry { runtime, client, settings })
    }

    /// Brings an image into the store and tags it.
    pub fn pull(
        &self,
        store: &Store,
        reference: &Reference,
        platform: &Platform,
        progress: &Progress<'_>,
    ) -> Result<Pulled, RegistryError> {
        let endpoints = self.settings.mirrors.endpoints(reference);
        pull::pull(self.runtime.handle(), &self.client, &endpoints, store, reference, platform, progress)
    }

    /// Writes a file of the web to `output`; `None` when it has not changed.
    pub fn fetch(
        &self,
        request: &FetchRequest<'_>,
        output: &mut File,
    ) -> Result<Option<FetchedFile>, RegistryError> {
        self.runtime.block_on(fetch::fetch(&self.client, request, output))
    }

    /// Uploads images and makes a name mean them; gives the digest that the registry knows them by.
    pub fn push(
        &self,
        store: &Store,
        request: &PushRequest<'_>,
        progress: &(dyn Fn(PushEvent) + Sync),
    ) -> Result<Digest, RegistryError> {
        let endpoint = Endpoint::of(request.reference);
        self.runtime.block_on(push::push(&self.client, &endpoint, store, request, progress))
    }

    /// The config of an image, and the digest that the registry knows it by.
    pub fn config(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<(ImageConfig, Digest), RegistryError> {
        let endpoints = self.settings.mirrors.endpoints(reference);
        pull::config(self.runtime.handle(), &self.client, &endpoints, reference, platform)
    }
}
