//! Names of containers in networks of users, which the name server of these networks knows (`kiln_network::dns`).

use crate::endpoints::Endpoints;
use crate::error::EngineError;
use crate::network::DEFAULT;
use crate::record::{Container, Endpoint};
use crate::settings::attachment::Attachment;
use kiln_image::digest::Digest;
use kiln_network::dns::{Member, Membership, Names};
use kiln_runtime::cgroup::Groups;
use rustix::fd::BorrowedFd;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

impl Container {
    /// True while it runs in a network of users: a name server knows the other containers there.
    pub(crate) fn has_names(&self) -> bool {
        self.named().next().is_some()
    }

    /// Its endpoints in networks of users, with what it asks for there.
    fn named(&self) -> impl Iterator<Item = (&Attachment, &Endpoint)> {
        let attachments = self.settings.attachments.iter().flatten();
        let of_users = attachments.filter(|attachment| attachment.name != DEFAULT);
        of_users.filter_map(|attachment| {
            let endpoint = self.endpoints.iter().find(|endpoint| endpoint.network == attachment.network)?;
            Some((attachment, endpoint))
        })
    }

    /// What the name server needs to know about the container.
    pub(crate) fn member(&self) -> Member {
        let membership = |(attachment, endpoint): (&Attachment, &Endpoint)| {
            let ipv6 = endpoint.ipv6.as_ref().map(|ipv6| IpAddr::V6(ipv6.address));
            Membership {
                network: attachment.name.clone(),
                addresses: [Some(IpAddr::V4(endpoint.address)), ipv6].into_iter().flatten().collect(),
                names: self.names_in(attachment),
            }
        };
        let servers = &self.settings.resolution.servers;
        Member {
            id: self.id.clone(),
            networks: self.named().map(membership).collect(),
            servers: servers.iter().filter_map(|server| server.parse().ok()).collect(),
            forwards: self.endpoints.iter().any(|endpoint| !endpoint.internal),
        }
    }
}

impl Endpoints {
    /// Has the names of the container served as its record has them now. In no network of users it has none.
    ///
    /// # Errors
    /// Fails when the name server cannot be started, or its sockets in the container cannot be made.
    pub(crate) fn serve_names(&mut self, container: &Container) -> Result<(), EngineError> {
        if !container.has_names() {
            self.names = None;
            return Ok(());
        }
        let member = container.member();
        if let Some(names) = &mut self.names {
            return Ok(names.update(&member)?);
        }
        let Some(namespace) = self.namespace() else { return Ok(()) };
        let names = Names::join(&self.state_of_names(), &member, namespace)?;
        self.names = Some(names);
        Ok(())
    }

    /// Directory for the name server of this store: networks of other stores have other containers under the same names.
    fn state_of_names(&self) -> PathBuf {
        let digest = Digest::of(self.store.as_os_str().as_bytes());
        self.state.join("stores").join(&digest.hex()[..16])
    }

    /// Descriptor that can be read when [`Endpoints::revive_names`] is to be called; `None` without names.
    pub(crate) fn watched_names(&self) -> Option<BorrowedFd<'_>> {
        self.names.as_ref().map(Names::watched)
    }

    /// Starts the name server again, after its end. An attempt that fails is repeated.
    pub(crate) fn revive_names(&mut self) {
        if let Some(names) = &mut self.names {
            // The descriptor is that of a timer after a failure.
            let _ = names.revive();
        }
    }

    /// Notes the container's first process, whose names are served while it runs.
    pub(crate) fn note_user_of_names(&mut self, pid: i32) {
        let ticks = Groups::start_time(pid).unwrap_or_default();
        if let Some(names) = &mut self.names {
            // Without the note they end with the monitor.
            let _ = names.note_user(pid, &ticks);
        }
    }
}
