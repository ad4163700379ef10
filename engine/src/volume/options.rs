//! Options of the driver `local`: what is mounted as a volume (moby `volume/local/local_unix.go`).
//!
//! A volume with options is a mount, made in the mount namespace of each container that uses it: nothing of it is ever
//! mounted on the host, so a killed process leaves nothing behind.

use crate::quantity;
use kiln_runtime::spec;
use oci_spec::runtime::Mount;
use std::collections::BTreeMap;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

/// File systems that can be a volume. All but `tmpfs` are the same one in every mount of their device.
const TYPES: [&str; 17] = [
    "tmpfs", "nfs", "nfs4", "cifs", "smb3", "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "vfat", "exfat",
    "ntfs3", "iso9660", "squashfs", "erofs",
];

/// An option of a volume that cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VolumeOptionError {
    /// An option that does not exist.
    #[error("invalid option: {0:?}")]
    Unknown(String),
    /// An option that another one needs.
    #[error("missing required option: {0:?}")]
    Missing(&'static str),
    /// A size that is none.
    #[error(transparent)]
    Size(#[from] quantity::SizeError),
    /// A size of a volume that is a directory, or a mount of something with a size.
    #[error("quota size requested but no quota support")]
    Quota,
    /// A file system that cannot be a volume.
    #[error("type {0:?} is not supported: it is none with o=bind, or one of {types}", types = TYPES.join(", "))]
    Type(String),
    /// A host directory without `o=bind`.
    #[error("type {0:?} is a directory of the host: it needs o=bind")]
    NotBind(String),
    /// A host directory whose path is not absolute.
    #[error("device {0:?} is not an absolute path")]
    Relative(String),
    /// A port in the address of a CIFS share.
    #[error("port not allowed in CIFS device URL, include 'port' in 'o='")]
    Port,
    /// A mount option that a volume cannot have.
    #[error("mount option {0:?} is not supported for volumes")]
    Mount(String),
    /// A control character in a value.
    #[error("option {0:?} has a control character in its value")]
    Control(String),
    /// An owner or mode of what others own.
    #[error("an owner or mode can be set for volumes of the store and in memory, not for a mounted {0:?}")]
    Owner(String),
}

/// What a volume is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Local {
    /// A directory of the store.
    Directory,
    /// A directory of the host, with mount options.
    Host { path: PathBuf, options: Vec<String> },
    /// A file system, with mount options.
    FileSystem { kind: String, device: String, options: Vec<String> },
}

/// Reads the options of a volume.
///
/// # Errors
/// Fails for options that do not exist, contradict each other, or lack another one.
pub(crate) fn read(options: &BTreeMap<String, String>) -> Result<Local, VolumeOptionError> {
    check(options)?;
    let get = |key: &str| options.get(key).map(String::as_str).unwrap_or_default();
    let (kind, device) = (get("type"), get("device"));
    let size = options.get("size").map(|size| quantity::bytes(size)).transpose()?.filter(|size| *size > 0);
    if size.is_some() && kind != "tmpfs" {
        return Err(VolumeOptionError::Quota);
    }
    if kind.is_empty() {
        return Ok(Local::Directory);
    }
    let mut mount = mount_options(get("o"))?;
    let is_bind = |option: &String| matches!(option.as_str(), "bind" | "rbind");
    if mount.iter().any(is_bind) {
        let known = |option: &&String| !is_bind(option) && !is_flag(option);
        return match mount.iter().find(known) {
            Some(other) => Err(VolumeOptionError::Mount(other.clone())),
            None if !device.starts_with('/') => Err(VolumeOptionError::Relative(device.to_owned())),
            None => Ok(Local::Host { path: device.into(), options: mount }),
        };
    }
    if matches!(kind, "none" | "bind") {
        return Err(VolumeOptionError::NotBind(kind.to_owned()));
    }
    if !TYPES.contains(&kind) {
        return Err(VolumeOptionError::Type(kind.to_owned()));
    }
    mount.extend(size.map(|size| format!("size={size}")));
    Ok(Local::FileSystem { kind: kind.to_owned(), device: device.to_owned(), options: mount })
}

fn check(options: &BTreeMap<String, String>) -> Result<(), VolumeOptionError> {
    const NEEDS: [(&str, &[&str]); 3] =
        [("type", &["device"]), ("device", &["type"]), ("o", &["device", "type"])];
    for (key, value) in options {
        if !["type", "o", "device", "size"].contains(&key.as_str()) {
            return Err(VolumeOptionError::Unknown(key.clone()));
        }
        if value.chars().any(char::is_control) {
            return Err(VolumeOptionError::Control(key.clone()));
        }
    }
    for (key, needed) in NEEDS.iter().filter(|(key, _)| options.contains_key(*key)) {
        let has = |other: &&&str| options.get(**other).is_some_and(|value| !value.is_empty());
        match needed.iter().find(|other| !has(other)) {
            Some(missing) => return Err(VolumeOptionError::Missing(missing)),
            None if options[*key].is_empty() && *key != "o" => return Err(VolumeOptionError::Missing(key)),
            None => {}
        }
    }
    check_server(options)
}

/// Options in one text with commas.
fn mount_options(text: &str) -> Result<Vec<String>, VolumeOptionError> {
    let options = text.split(',').filter(|option| !option.is_empty());
    options
        .map(|option| match option {
            "remount" | "move" | "shared" | "rshared" | "slave" | "rslave" | "unbindable" | "runbindable" => {
                Err(VolumeOptionError::Mount(option.to_owned()))
            }
            _ => Ok(option.to_owned()),
        })
        .collect()
}

/// True for options of a mount of any file system.
fn is_flag(option: &str) -> bool {
    matches!(
        option,
        "ro" | "rw"
            | "suid"
            | "nosuid"
            | "dev"
            | "nodev"
            | "exec"
            | "noexec"
            | "atime"
            | "noatime"
            | "diratime"
            | "nodiratime"
            | "relatime"
            | "norelatime"
            | "strictatime"
            | "nostrictatime"
            | "private"
            | "rprivate"
            | "defaults"
    )
}

impl Local {
    /// True for a file system that each mount creates anew.
    pub(crate) fn is_memory(&self) -> bool {
        matches!(self, Local::FileSystem { kind, .. } if kind == "tmpfs")
    }

    /// True when programs cannot write to it.
    pub(crate) fn is_read_only(&self) -> bool {
        match self {
            Local::Directory => false,
            Local::Host { options, .. } | Local::FileSystem { options, .. } => {
                let last = options.iter().rev().find(|option| matches!(option.as_str(), "ro" | "rw"));
                last.is_some_and(|option| option == "ro")
            }
        }
    }
}

/// Mount of a file system, whose server is looked up where the kernel needs its address. Messages name `target`.
///
/// # Errors
/// Fails with the reason when the server has no address.
pub(crate) fn mount(
    kind: &str,
    (device, target): (&str, &Path),
    options: &[String],
) -> Result<Mount, String> {
    let mut options = options.to_vec();
    if matches!(kind, "nfs" | "nfs4" | "cifs" | "smb3") {
        let address =
            options.iter().position(|option| option.starts_with("addr=") || option.starts_with("ip="));
        match address {
            Some(at) => {
                let (key, host) = options[at].split_once('=').unwrap_or_default();
                options[at] = format!("{key}={}", look_up(host)?);
            }
            None => {
                if let Some(host) = server(kind, device) {
                    options.push(format!("addr={}", look_up(host)?));
                }
            }
        }
    }
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    Ok(spec::mount(kind, &target.to_string_lossy(), device, &options))
}

/// Server in `HOST:/PATH` of NFS, and in `//HOST/SHARE` of CIFS; `None` without one.
fn server<'a>(kind: &str, device: &'a str) -> Option<&'a str> {
    let host = match kind {
        "cifs" | "smb3" => device.strip_prefix("//")?.split('/').next()?,
        _ => device.split_once(":/")?.0.trim_start_matches('[').trim_end_matches(']'),
    };
    (!host.is_empty()).then_some(host)
}

fn look_up(host: &str) -> Result<IpAddr, String> {
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    let failed =
        |reason: String| format!("error resolving passed in network volume address: {host}: {reason}");
    let mut found = (host, 0).to_socket_addrs().map_err(|error| failed(error.to_string()))?;
    found.next().map(|address| address.ip()).ok_or_else(|| failed("it has no address".to_owned()))
}

/// Checks the address of a CIFS share.
fn check_server(options: &BTreeMap<String, String>) -> Result<(), VolumeOptionError> {
    let (kind, device) = (options.get("type"), options.get("device"));
    let (Some(kind), Some(device)) = (kind, device) else { return Ok(()) };
    let is_cifs = matches!(kind.as_str(), "cifs" | "smb3");
    match server(kind, device) {
        Some(host) if is_cifs && host.parse::<IpAddr>().is_err() && host.contains(':') => {
            Err(VolumeOptionError::Port)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(text: &str) -> Result<Local, String> {
        let pairs = text.split(' ').filter(|pair| !pair.is_empty());
        let options: BTreeMap<String, String> = pairs
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        read(&options).map_err(|error| error.to_string())
    }

    fn words(text: &str) -> Vec<String> {
        text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }

    #[test]
    fn options_name_what_is_mounted() {
        let host = |path: &str, options: &str| Local::Host { path: path.into(), options: words(options) };
        let file_system = |kind: &str, device: &str, options: &str| Local::FileSystem {
            kind: kind.to_owned(),
            device: device.to_owned(),
            options: words(options),
        };
        for (text, expected) in [
            ("", Local::Directory),
            ("size=0", Local::Directory),
            ("type=none device=/srv o=bind", host("/srv", "bind")),
            ("type=bind device=/srv o=rbind,ro,nodev", host("/srv", "rbind ro nodev")),
            ("type=tmpfs device=tmpfs", file_system("tmpfs", "tmpfs", "")),
            (
                "type=tmpfs device=x o=size=1m,uid=5 size=2m",
                file_system("tmpfs", "x", "size=1m uid=5 size=2097152"),
            ),
            (
                "type=nfs device=:/export o=addr=10.0.0.1,rw",
                file_system("nfs", ":/export", "addr=10.0.0.1 rw"),
            ),
            ("type=cifs device=//host/share o=vers=3.0", file_system("cifs", "//host/share", "vers=3.0")),
        ] {
            assert_eq!(local(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn options_that_cannot_be_carried_out() {
        for (text, expected) in [
            ("nosuch=1", "invalid option: \"nosuch\""),
            ("type=tmpfs", "missing required option: \"device\""),
            ("device=/x", "missing required option: \"type\""),
            ("o=bind", "missing required option: \"device\""),
            ("type= device=/x", "missing required option: \"type\""),
            ("type=none device=/x", "type \"none\" is a directory of the host: it needs o=bind"),
            ("type=none device=x o=bind", "device \"x\" is not an absolute path"),
            ("type=none device=/x o=bind,size=1", "mount option \"size=1\" is not supported for volumes"),
            ("type=none device=/x o=bind,rshared", "mount option \"rshared\" is not supported for volumes"),
            ("size=1g", "quota size requested but no quota support"),
            ("size=much", "invalid size: 'much'"),
            ("type=ext4 device=/dev/x size=1g", "quota size requested but no quota support"),
            (
                "type=cifs device=//host:445/share",
                "port not allowed in CIFS device URL, include 'port' in 'o='",
            ),
            ("type=tmpfs device=a\u{7}b", "option \"device\" has a control character in its value"),
        ] {
            assert_eq!(local(text), Err(expected.to_owned()), "{text}");
        }
        assert!(local("type=proc device=proc").unwrap_err().starts_with("type \"proc\" is not supported"));
    }

    #[test]
    fn servers_get_an_address() {
        let shown = |kind, device, options| {
            let mount = mount(kind, (device, Path::new("/m")), &words(options)).unwrap();
            mount.options().clone().unwrap_or_default().join(",")
        };
        assert_eq!(shown("nfs", "10.1.2.3:/x", "rw"), "rw,addr=10.1.2.3");
        assert_eq!(shown("nfs", "[fd00::1]:/x", ""), "addr=fd00::1");
        assert_eq!(shown("nfs", ":/x", "addr=10.0.0.1 vers=4"), "addr=10.0.0.1,vers=4");
        assert_eq!(shown("cifs", "//10.1.2.3/share", "vers=3.0"), "vers=3.0,addr=10.1.2.3");
        assert_eq!(shown("tmpfs", "host:/x", ""), "");
        let failed = mount("nfs", ("no-such-host.invalid:/x", Path::new("/m")), &[]).unwrap_err();
        assert!(failed.starts_with("error resolving passed in network volume address: no-such-host.invalid"));
    }
}
