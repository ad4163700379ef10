//! Names of containers in networks of users, which the name server of these networks knows (`kiln_network::dns`).

use crate::endpoints::Endpoints;
use crate::error::EngineError;
use crate::network::DEFAULT;
use crate::record::Container;
use crate::settings::attachment::Attachment;
use kiln_network::dns::{Member, Membership, Names};
use kiln_runtime::cgroup::Groups;
use rustix::fd::BorrowedFd;
use std::net::IpAddr;

impl Container {
    /// True when it is in a network of users: a name server knows the other containers there.
    pub(crate) fn has_names(&self) -> bool {
        self.named_attachments().next().is_some()
    }

    fn named_attachments(&self) -> impl Iterator<Item = &Attachment> {
        let has_networks = self.settings.network.has_networks();
        let attachments = self.settings.attachments.iter().flatten().filter(move |_| has_networks);
        attachments.filter(|attachment| attachment.name != DEFAULT)
    }

    /// What the name server needs to know about the container.
    pub(crate) fn member(&self) -> Member {
        let membership = |attachment: &Attachment| {
            let endpoint = self.endpoints.iter().find(|endpoint| endpoint.network == attachment.network);
            let addresses = endpoint.map(|endpoint| {
                let ipv6 = endpoint.ipv6.as_ref().map(|ipv6| IpAddr::V6(ipv6.address));
                [Some(IpAddr::V4(endpoint.address)), ipv6].into_iter().flatten().collect()
            });
            Membership {
                network: attachment.name.clone(),
                addresses: addresses.unwrap_or_default(),
                names: self.names_in(attachment),
            }
        };
        let servers = &self.settings.resolution.servers;
        Member {
            id: self.id.clone(),
            networks: self.named_attachments().map(membership).collect(),
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
        let names = Names::join(&self.state, &member, namespace)?;
        self.names = Some(names);
        Ok(())
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
