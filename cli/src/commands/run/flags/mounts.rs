//! Flags for mounts and volumes.

use crate::error::{CliError, code};
use clap::Args;
use kiln_engine::mount;
use kiln_engine::{RunOptions, SecretRequest};
use std::os::unix::ffi::OsStringExt;

/// Mounts of the container.
#[derive(Debug, Default, Args)]
pub(super) struct MountFlags {
    /// Mount a host directory or a volume, [SOURCE:]TARGET[:OPTIONS]; may be repeated
    #[arg(short, long, value_name = "SOURCE:TARGET")]
    volume: Vec<String>,
    /// Mount a bind, volume, tmpfs or image, type=TYPE,source=SOURCE,target=TARGET; may be repeated
    #[arg(long, value_name = "KEY=VALUE,…")]
    mount: Vec<String>,
    /// Mount a file system in memory, TARGET[:OPTIONS]; may be repeated
    #[arg(long, value_name = "TARGET")]
    tmpfs: Vec<String>,
    /// Mount the volumes and host directories of another container, CONTAINER[:ro]; may be repeated
    #[arg(long, value_name = "CONTAINER")]
    volumes_from: Vec<String>,
    /// Create volumes with this driver; only local is supported
    #[arg(long, value_name = "DRIVER")]
    volume_driver: Option<String>,
    /// Pass a secret as a file below /run/secrets, or with type=env as a variable: id=ID,src=FILE or id=ID,env=VARIABLE, and
    /// target, mode, uid, gid; may be repeated
    #[arg(long, value_name = "KEY=VALUE,…")]
    secret: Vec<String>,
}

impl MountFlags {
    /// Adds the mounts to the options.
    pub(super) fn add_to(&self, options: &mut RunOptions) -> Result<(), CliError> {
        if let Some(driver) = self.volume_driver.as_deref().filter(|driver| !matches!(*driver, "" | "local"))
        {
            return Err(CliError::failed(format!(
                "plugin {driver:?} not found: volume drivers are not supported"
            ))
            .hint("volumes are directories of the store: leave the option out")
            .with_code(code::USAGE));
        }
        let base = std::env::current_dir()
            .map_err(|error| CliError::failed(format!("cannot find the working directory: {error}")))?;
        let volumes = self.volume.iter().map(|text| mount::volume(text, &base));
        let mounts = self.mount.iter().map(|text| mount::mount(text, &base));
        let tmpfs = self.tmpfs.iter().map(|text| mount::tmpfs(text));
        let read = volumes.chain(mounts).chain(tmpfs).collect::<Result<Vec<_>, _>>();
        options.mounts = read.map_err(super::refused)?;
        options.volumes_from.clone_from(&self.volumes_from);
        let variable = |name: &str| std::env::var_os(name).map(OsStringExt::into_vec);
        let secrets = self.secret.iter().map(|text| SecretRequest::parse(text, variable));
        let secrets = secrets.collect::<Result<Vec<_>, _>>();
        options.secrets = secrets.map_err(|error| super::refused(crate::error::chain(&error)))?;
        Ok(())
    }
}
