//! Files of a container for /etc: names of hosts, name servers, the time zone.

use crate::container::{Owned, Records};
use crate::error::EngineError;
use crate::record::{Container, Endpoint, Listed};
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
/// Largest /etc/hosts of a running container that is changed, in bytes.
const LARGEST: u64 = 1 << 20;
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
        let endpoints = &self.container.endpoints;
        let out = endpoints.iter().find(|endpoint| endpoint.is_way_out).or(endpoints.first());
        let gateway = out.map_or_else(|| "127.0.0.1".to_owned(), |endpoint| endpoint.gateway.to_string());
        let resolver = match settings.network {
            NetworkMode::Host => Resolver::OfHost,
            _ if self.container.has_names() => Resolver::Names,
            _ => Resolver::ForContainer,
        };
        let resolution = &settings.resolution;
        let mut hosts = resolv::container_hosts(None, "", &resolution.entries(&gateway));
        hosts.push_str(&self.links()?);
        hosts.push_str(&own_lines(&self.container, endpoints));
        let files = [
            ("hosts", hosts),
            ("hostname", format!("{}\n", settings.hostname)),
            ("resolv.conf", resolution.resolv_conf(resolver)),
        ];
        for (name, text) in files {
            let path = dirs.etc.join(name);
            fs::write(&path, text).call("write", &path)?;
        }
        Ok(())
    }

    /// Lines of /etc/hosts for the containers that links name, as far as these run.
    ///
    /// # Errors
    /// [`EngineError::LinkNotRunning`] in the default network, where no name server knows them later.
    fn links(&self) -> Result<String, EngineError> {
        let default = self.records.networks()?.default_network();
        let mut lines = String::new();
        for attachment in self.container.attachments(&default) {
            for link in &attachment.links {
                let other = self.records.read(&link.container).ok().flatten();
                let ends = other.iter().flat_map(|other| &other.endpoints);
                let mut ends = ends.filter(|end| end.network == attachment.network);
                match (ends.next(), other.as_ref()) {
                    (Some(end), Some(other)) => {
                        let short: String = other.id.chars().take(12).collect();
                        let mut names = vec![link.alias.as_str(), short.as_str()];
                        names.extend(Some(other.name.as_str()).filter(|name| *name != link.alias));
                        lines.push_str(&format!("{}\t{}\n", end.address, names.join(" ")));
                    }
                    (None, _) | (_, None) if attachment.network == default.id => {
                        let (own, alias) = (self.container.name.clone(), link.alias.clone());
                        return Err(EngineError::LinkNotRunning(link.name.clone(), own, alias));
                    }
                    _ => {}
                }
            }
        }
        Ok(lines)
    }

    /// Changes the own addresses in the container's /etc/hosts, which had those of the endpoints `old`. Other lines, which the
    /// program may have added, stay.
    pub(crate) fn update_hosts(&self, old: &[Endpoint]) -> Result<(), EngineError> {
        let path = self.dir().join("etc").join("hosts");
        // The program may have made it larger than what this process should hold.
        if fs::metadata(&path).call("stat", &path)?.len() > LARGEST {
            return Ok(());
        }
        let bytes = fs::read(&path).call("read", &path)?;
        let text = String::from_utf8_lossy(&bytes);
        let (before, after) =
            (own_lines(&self.container, old), own_lines(&self.container, &self.container.endpoints));
        let kept = text.lines().filter(|line| !before.lines().any(|own| own == *line));
        let text: String = kept.map(|line| format!("{line}\n")).collect();
        // Written in place: the container has this file, and not its path.
        Ok(fs::write(&path, text + &after).call("write", &path)?)
    }

    /// Writes the container's /etc/resolv.conf when the first network of users was added to it, or the last one removed. One that the
    /// program has changed stays.
    pub(crate) fn update_resolver(&self, had_names: bool) -> Result<(), EngineError> {
        let has_names = self.container.has_names();
        if has_names == had_names {
            return Ok(());
        }
        let resolution = &self.container.settings.resolution;
        let text =
            |names| resolution.resolv_conf(if names { Resolver::Names } else { Resolver::ForContainer });
        let path = self.dir().join("etc").join("resolv.conf");
        let present = fs::read(&path).call("read", &path)?;
        if present != text(had_names).into_bytes() {
            return Ok(());
        }
        // Written in place: the container has this file, and not its path.
        Ok(fs::write(&path, text(has_names)).call("write", &path)?)
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

/// Lines of /etc/hosts with the addresses of a container.
fn own_lines(container: &Container, endpoints: &[Endpoint]) -> String {
    let settings = &container.settings;
    let name = settings.resolution.full_name(&settings.hostname);
    let default = settings.network == NetworkMode::Bridge && endpoints.len() < 2;
    let addresses = endpoints.iter().flat_map(|endpoint| {
        // As in the reference, the default network is one of version 4 for programs that ask for their own name.
        let ipv6 = endpoint.ipv6.as_ref().filter(|_| !default).map(|ipv6| ipv6.address.to_string());
        [Some(endpoint.address.to_string()), ipv6]
    });
    addresses.flatten().map(|address| resolv::own_hosts(&address, &name)).collect()
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
