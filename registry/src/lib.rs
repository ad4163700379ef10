//! The network: resolving, pulling and pushing images over the OCI distribution protocol 1.1, files from web servers,
//! and git repositories.
//!
//! Content of a registry is not used before its digest has been verified. Mirrors are tried before the registry itself;
//! since content is addressed by digest, any of them may deliver it.

#![forbid(unsafe_code)]

mod auth;
mod client;
mod endpoint;
mod error;
mod fetch;
mod git;
mod keychain;
mod login;
mod origin;
mod patience;
mod proxy;
mod pull;
mod push;
mod retry;
#[cfg(feature = "testing")]
pub mod testing;

pub use auth::AuthError;
pub use client::Client;
pub use endpoint::{Endpoint, MirrorError, Mirrors};
pub use error::RegistryError;
pub use fetch::{FetchRequest, FetchedFile};
pub use git::{GitError, GitRequest, Identity, check_out, commit};
pub use keychain::{Credentials, HUB_KEY, Keychain, Place, host_of};
pub use patience::DEFAULT_PATIENCE;
pub use proxy::{InvalidProxy, Proxies, ProxyError, ProxyFault};
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

/// Settings of the connections to registries.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Mirrors that are tried first for images of Docker Hub.
    pub mirrors: Mirrors,
    /// Credentials for registries, by host.
    pub keychain: Keychain,
    /// Value of the `User-Agent` header.
    pub user_agent: String,
    /// Longest silence of a server; `None` for [`DEFAULT_PATIENCE`].
    pub patience: Option<Duration>,
    /// Proxies of the environment.
    pub proxies: Proxies,
    /// Listener for waits that servers ask for.
    pub waits: WaitListener,
}

/// Client of registries; connections are opened on demand.
pub struct Registry {
    runtime: tokio::runtime::Runtime,
    client: Client,
    settings: Settings,
}

impl Registry {
    /// Starts the runtime for network requests.
    ///
    /// # Errors
    /// [`RegistryError::Runtime`] when its threads cannot be started.
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

    /// Pulls an image into the store and tags it.
    ///
    /// # Errors
    /// [`RegistryError::ManifestUnknown`] and [`RegistryError::Denied`] when there is no such image for these
    /// credentials, [`RegistryError::Artifact`] when it is not an image; [`RegistryError::is_transient`] is true when a
    /// later attempt may succeed.
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

    /// Downloads a file of a web server to `output`; `None` when it has not changed.
    ///
    /// # Errors
    /// [`RegistryError::Http`] for an error status, [`RegistryError::Incomplete`] when resuming failed, too.
    pub fn fetch(
        &self,
        request: &FetchRequest<'_>,
        output: &mut File,
    ) -> Result<Option<FetchedFile>, RegistryError> {
        self.runtime.block_on(fetch::fetch(&self.client, request, output))
    }

    /// Pushes images and points a tag to them; returns the digest under which the registry stores them.
    ///
    /// # Errors
    /// [`RegistryError::PushDenied`] when the repository cannot be written to, [`RegistryError::Digest`] when the
    /// registry stored other bytes.
    pub fn push(
        &self,
        store: &Store,
        request: &PushRequest<'_>,
        progress: &(dyn Fn(PushEvent) + Sync),
    ) -> Result<Digest, RegistryError> {
        let endpoint = Endpoint::of(request.reference);
        self.runtime.block_on(push::push(&self.client, &endpoint, store, request, progress))
    }

    /// Checks a user's password at a registry; returns the credentials to keep: the identity token of a token server that
    /// has them, or else the password.
    ///
    /// # Errors
    /// [`RegistryError::Unauthorized`] when the registry does not accept them.
    pub fn log_in(&self, host: &str, user: &str, password: &str) -> Result<Credentials, RegistryError> {
        let endpoint = Endpoint::of_host(host);
        self.runtime.block_on(login::log_in(&self.client, &endpoint, user, password))
    }

    /// Config of an image, and the digest under which the registry stores the image.
    ///
    /// # Errors
    /// Fails in the cases of [`Registry::pull`] before layers are fetched.
    pub fn config(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<(ImageConfig, Digest), RegistryError> {
        let endpoints = self.settings.mirrors.endpoints(reference);
        pull::config(self.runtime.handle(), &self.client, &endpoints, reference, platform)
    }
}
