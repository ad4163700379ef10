//! Flags for privileges, confinement, devices and namespaces.

use super::refused;
use crate::error::CliError;
use clap::Args;
use kiln_engine::settings::{
    DeviceError, Devices, NamespaceMode, Namespaces, Privileges, devices, privileges, user_mode,
};
use kiln_engine::{RunOptions, SecurityOptions};

/// Privileges and confinement of the container.
#[derive(Debug, Default, Args)]
pub(super) struct SecurityFlags {
    /// Grant all capabilities and devices, and hide no paths
    #[arg(long)]
    privileged: bool,
    /// Add a capability, such as NET_ADMIN, or ALL; may be repeated
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Drop a capability, or ALL; may be repeated
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// Set a security option, NAME=VALUE: apparmor, label, mask, no-new-privileges, seccomp, systempaths, unmask; may be
    /// repeated
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// Add a supplementary group of the container's user by name or gid, or keep-groups for the caller's; may be repeated
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// Mount the root file system read-only
    #[arg(long)]
    read_only: bool,
    /// Set a kernel parameter of the container's namespaces; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    sysctl: Vec<String>,
    /// Add a device of this host, HOST[:CONTAINER][:rwm], or one that it describes for containers (CDI),
    /// vendor.com/class=name; may be repeated
    #[arg(long, value_name = "DEVICE")]
    device: Vec<String>,
    /// Add a rule about devices, such as 'c 1:3 rwm'; may be repeated
    #[arg(long, value_name = "RULE")]
    device_cgroup_rule: Vec<String>,
    /// Add GPUs that the host describes for containers (CDI): all, or device=0,1
    #[arg(long, value_name = "GPUS")]
    gpus: Option<String>,
    /// Share a pid namespace: host or container:NAME
    #[arg(long, value_name = "MODE", default_value = "", hide_default_value = true)]
    pid: String,
    /// Share an IPC namespace: private, shareable, none, host or container:NAME
    #[arg(long, value_name = "MODE", default_value = "", hide_default_value = true)]
    ipc: String,
    /// Share a host name: host or container:NAME
    #[arg(long, value_name = "MODE", default_value = "", hide_default_value = true)]
    uts: String,
    /// Choose the user namespace; only host is supported
    #[arg(long, value_name = "MODE", default_value = "", hide_default_value = true)]
    userns: String,
    /// Choose the view of cgroups: private or host
    #[arg(long, value_name = "MODE", default_value = "", hide_default_value = true)]
    cgroupns: String,
}

impl SecurityFlags {
    /// Adds the settings to the options.
    pub(super) fn add_to(&self, options: &mut RunOptions) -> Result<(), CliError> {
        let read = |path: &str| std::fs::read_to_string(path);
        options.security = SecurityOptions::parse(&self.security_opt, read)
            .map_err(|error| refused(crate::error::chain(&error)))?;
        options.privileges = Privileges {
            privileged: self.privileged,
            cap_add: self.cap_add.clone(),
            cap_drop: self.cap_drop.clone(),
            group_add: self.group_add.clone(),
            read_only: self.read_only,
            sysctls: self
                .sysctl
                .iter()
                .map(|text| privileges::sysctl(text))
                .collect::<Result<_, _>>()
                .map_err(refused)?,
        };
        options.devices = self.devices().map_err(refused)?;
        user_mode(&self.userns).map_err(refused)?;
        let mode = |kind, text: &str| NamespaceMode::parse(kind, text).map_err(refused);
        options.namespaces = Namespaces {
            pid: mode("PID", &self.pid)?,
            ipc: mode("IPC", &self.ipc)?,
            uts: mode("UTS", &self.uts)?,
            cgroup: mode("CGROUP", &self.cgroupns)?,
        };
        Ok(())
    }

    fn devices(&self) -> Result<Devices, DeviceError> {
        let (cdi, nodes): (Vec<&String>, Vec<&String>) =
            self.device.iter().partition(|text| devices::is_cdi_name(text));
        let mut cdi: Vec<String> = cdi.into_iter().cloned().collect();
        cdi.extend(self.gpus.as_deref().map(devices::gpus).transpose()?.into_iter().flatten());
        Ok(Devices {
            nodes: nodes.into_iter().map(|text| devices::device(text)).collect::<Result<_, _>>()?,
            rules: self
                .device_cgroup_rule
                .iter()
                .map(|text| devices::device_rule(text))
                .collect::<Result<_, _>>()?,
            cdi,
        })
    }
}
