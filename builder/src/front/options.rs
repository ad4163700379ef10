//! Options of a build, as a caller sets them.

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
    /// The stages to build, in order; when empty, the last one.
    pub targets: Vec<Target>,
    /// Also build the stages that no target needs.
    pub all_stages: bool,
    /// `--build-arg` values by name.
    pub build_args: BTreeMap<String, String>,
    /// `--label` values by name.
    pub labels: BTreeMap<String, String>,
    /// Annotations of manifests and indexes.
    pub annotations: Annotations,
    /// Target platforms; when empty, the host's.
    pub platforms: Vec<Platform>,
    /// Run all steps, whatever the cache holds.
    pub no_cache: bool,
    /// Report why steps run.
    pub explain: bool,
    /// Names for the image of the last target.
    pub tags: Vec<Reference>,
    /// Names of stages, in lower case, whose steps run whatever the cache holds.
    pub no_cache_stages: BTreeSet<String>,
    /// Network of RUN steps that do not choose one.
    pub network: NetworkMode,
    /// Privileges that the Dockerfile may use.
    pub entitlements: Entitlements,
    /// Resource limits of RUN steps.
    pub limits: RunLimits,
    /// Set the times of files in new layers that are younger than `SOURCE_DATE_EPOCH` to it.
    pub rewrites_times: bool,
    /// The layers to merge into one.
    pub squash: Squash,
    /// Fail on what the reference builder only warns about.
    pub strict: bool,
    /// Upper limit of concurrent steps; `None` for the number of processors, at least 16.
    pub jobs: Option<usize>,
    /// Host directories for all RUN steps.
    pub volumes: Vec<HostMount>,
    /// Use Docker's media types instead of OCI's.
    pub docker_types: bool,
    /// Keep no image: only the files of the result are wanted.
    pub only_files: bool,
    /// Names and addresses for /etc/hosts of RUN steps.
    pub hosts: Vec<(String, String)>,
    /// Secrets and ssh sockets.
    pub credentials: Credentials,
}

/// The options of `kiln build` without flags.
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
    /// Name of the stage.
    pub stage: String,
    /// Names for its image.
    pub tags: Vec<Reference>,
}

/// The layers to merge into one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Squash {
    /// None.
    #[default]
    No,
    /// The layers of this build.
    New,
    /// All layers, those of the base image included.
    All,
}
