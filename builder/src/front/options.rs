//! Options of a build, as its caller sets them.

use crate::annotation::Annotations;
use crate::credentials::Credentials;
use crate::graph::{HostMount, RunLimits};
use crate::plan::Entitlements;
use kiln_image::platform::Platform;
use kiln_image::reference::Reference;
use kiln_parser::ast::NetworkMode;
use std::collections::{BTreeMap, BTreeSet};

/// Options of a build.
#[derive(Clone, Debug)]
pub struct BuildOptions {
    /// Stages to build, in order; empty for the last one.
    pub targets: Vec<Target>,
    /// Build the stages that no target needs as well.
    pub all_stages: bool,
    /// `--build-arg` values by name.
    pub build_args: BTreeMap<String, String>,
    /// `--label` values by name.
    pub labels: BTreeMap<String, String>,
    /// Annotations of manifests and indexes.
    pub annotations: Annotations,
    /// Target platforms; empty for the host's.
    pub platforms: Vec<Platform>,
    /// Run all steps, even if the cache has their results.
    pub no_cache: bool,
    /// Report the reasons for running steps.
    pub explain: bool,
    /// References for the image of the last target.
    pub tags: Vec<Reference>,
    /// Names of stages, in lower case, whose steps run even if the cache has their results.
    pub no_cache_stages: BTreeSet<String>,
    /// Network of RUN steps that do not choose one.
    pub network: NetworkMode,
    /// Entitlements that the Dockerfile may use.
    pub entitlements: Entitlements,
    /// Resource limits of RUN steps.
    pub limits: RunLimits,
    /// Set the times of files in new layers that are younger than `SOURCE_DATE_EPOCH` to it.
    pub rewrites_times: bool,
    /// Layers to merge into one.
    pub squash: Squash,
    /// Fail on what the reference builder only warns about.
    pub strict: bool,
    /// Upper limit of concurrent steps; `None` for the number of processors, at least 16.
    pub jobs: Option<usize>,
    /// Host directories to mount into all RUN steps.
    pub volumes: Vec<HostMount>,
    /// Use Docker's media types instead of OCI's.
    pub docker_types: bool,
    /// Create no image: only the files of the result are needed.
    pub only_files: bool,
    /// Names and addresses for /etc/hosts of RUN steps.
    pub hosts: Vec<(String, String)>,
    /// Secrets and ssh sockets for steps to mount.
    pub credentials: Credentials,
}

/// Options of `kiln build` without flags.
impl Default for BuildOptions {
    fn default() -> BuildOptions {
        BuildOptions {
            targets: Vec::new(),
            all_stages: false,
            build_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            annotations: Annotations::default(),
            platforms: Vec::new(),
            no_cache: false,
            explain: false,
            tags: Vec::new(),
            no_cache_stages: BTreeSet::new(),
            network: NetworkMode::Default,
            entitlements: Entitlements::default(),
            limits: RunLimits::default(),
            rewrites_times: false,
            squash: Squash::No,
            strict: false,
            jobs: None,
            volumes: Vec::new(),
            docker_types: false,
            only_files: false,
            hosts: Vec::new(),
            credentials: Credentials::default(),
        }
    }
}

/// A stage to build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Name of the stage, compared without case.
    pub stage: String,
    /// References for its image.
    pub tags: Vec<Reference>,
}

/// Layers to merge into one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Squash {
    /// No layers are merged.
    #[default]
    No,
    /// The layers of this build.
    New,
    /// All layers, those of the base image included.
    All,
}
