//! Files of a container for /etc: names of hosts, name servers, the time zone.

use crate::container::{Owned, Records};
use crate::error::EngineError;
use crate::record::{Container, Listed};
use crate::settings::{NamespaceMode, NetworkMode, Settings};
use crate::spec::Dirs;
use kiln_image::sys::Named;
use kiln_network::etc::Resolver;
use kiln_network::resolv;
use kiln_runtime::spec;
use oci_spec::runtime::Mount;
use std::fs;
use std::path::{Path, PathBuf};

/// Time zones of the host.
const ZONES: &str = "/usr/share/zoneinfo";
/// File with the time zone of a system.
const LOCAL_TIME: &str = "/etc/localtime";

impl Records {
    /// Replaces names of other containers by their ids, and takes over the host name of the host or of a container whose
    /// network is shared.
    ///
    /// # Errors
    /// [`EngineError::NoSuchContainer`], and [`EngineError::TimeZone`] for a time zone that the host lacks.
    pub(crate) fn settle_names(
        &self,
        settings: &mut Settings,
        has_hostname: bool,
    ) -> Result<(), EngineError> {
        let of_host = settings.namespaces.uts == NamespaceMode::Host || settings.network == NetworkMode::Host;
        if of_host && !has_hostname {
            const PATH: &str = "/proc/sys/kernel/hostname";
            settings.hostname = fs::read_to_string(PATH).call("read", PATH)?.trim().to_owned();
        }
        for (_, mode) in settings.namespaces.all_mut() {
            if let NamespaceMode::Container(name) = mode {
                *name = self.sound(name)?.id;
            }
        }
        if let NetworkMode::Container(name) = &settings.network {
            let other = self.sound(name)?;
            settings.network = NetworkMode::Container(other.id);
            settings.hostname = other.settings.hostname;
        }
        settings.time_zone.as_deref().map(zone_file).transpose()?;
        Ok(())
    }

    /// Container with a readable record, by its name or id.
    pub(crate) fn sound(&self, name: &str) -> Result<Container, EngineError> {
        match self.find(name)? {
            Listed::Sound(container) => Ok(*container),
            Listed::Damaged(damaged) => Err(damaged.reason.into()),
        }
    }
}

impl Owned {
    /// Writes the container's files for /etc, unless it uses those of the container whose network it shares.
    pub(crate) fn write_etc(&self, dirs: &Dirs) -> Result<(), EngineError> {
        let settings = &self.container.settings;
        if matches!(settings.network, NetworkMode::Container(_)) {
            return Ok(());
        }
        let endpoint = self.container.endpoint.as_ref();
        let address = endpoint.map(|endpoint| endpoint.address.to_string());
        let gateway =
            endpoint.map_or_else(|| "127.0.0.1".to_owned(), |endpoint| endpoint.gateway.to_string());
        let resolver = match settings.network {
            NetworkMode::Host => Resolver::OfHost,
            _ => Resolver::ForContainer,
        };
        let resolution = &settings.resolution;
        let name = resolution.full_name(&settings.hostname);
        let files = [
            ("hosts", resolv::container_hosts(address.as_deref(), &name, &resolution.entries(&gateway))),
            ("hostname", format!("{}\n", settings.hostname)),
            ("resolv.conf", resolution.resolv_conf(resolver)),
        ];
        for (name, text) in files {
            let path = dirs.etc.join(name);
            fs::write(&path, text).call("write", &path)?;
        }
        Ok(())
    }

    /// Mounts of these files, except those that the user replaces.
    pub(crate) fn etc_mounts(&self, dirs: &Dirs) -> Vec<Mount> {
        let settings = &self.container.settings;
        let dir = match &settings.network {
            NetworkMode::Container(id) => self.records.path(id).join("etc"),
            _ => dirs.etc.clone(),
        };
        let is_free = |path: &str| !settings.mounts.iter().any(|mount| mount.target == path);
        let names = ["resolv.conf", "hostname", "hosts"].into_iter();
        let files = names.map(|name| (dir.join(name), format!("/etc/{name}")));
        let mut mounts: Vec<Mount> = files
            .filter(|(_, path)| is_free(path))
            .map(|(file, path)| spec::bind(file, &path, &[]))
            .collect();
        let zone = settings.time_zone.as_deref().filter(|_| is_free(LOCAL_TIME)).map(zone_file);
        if let Some(Ok(file)) = zone {
            // Images have a link there: it is covered, and not the file of another zone that it leads to.
            mounts.push(spec::bind(file, LOCAL_TIME, &["ro", "dest-nofollow"]));
        }
        mounts
    }
}

/// File of a time zone on the host.
fn zone_file(name: &str) -> Result<PathBuf, EngineError> {
    let unknown = || EngineError::TimeZone(name.to_owned());
    let path = match name {
        "local" => PathBuf::from(LOCAL_TIME),
        name if name.starts_with('/') || name.split('/').any(|part| matches!(part, "" | "." | "..")) => {
            return Err(unknown());
        }
        name => Path::new(ZONES).join(name),
    };
    let file = fs::canonicalize(path).map_err(|_| unknown())?;
    if file.is_file() { Ok(file) } else { Err(unknown()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_zones_are_files_of_the_hosts_database() {
        for wrong in ["", "/etc/passwd", "../../../etc/passwd", "Nowhere/Land", "."] {
            assert!(matches!(zone_file(wrong), Err(EngineError::TimeZone(_))), "{wrong}");
        }
    }
}
