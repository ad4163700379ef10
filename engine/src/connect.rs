//! Connections of containers to networks: at their creation, and later, while they run or not.

use crate::attached::Attached;
use crate::container::{PATIENCE, PAUSE, Records};
use crate::directory::Lock;
use crate::error::EngineError;
use crate::network::Network;
use crate::record::{Container, State};
use crate::settings::attachment::{Attachment, AttachmentError, Link};
use crate::settings::{NetworkMode, RunOptions, Settings};
use std::time::Instant;

impl Records {
    /// Looks up the networks that a new container asks for, and checks what it asks for in them.
    ///
    /// # Errors
    /// [`EngineError::NoSuchNetwork`], [`EngineError::NoSuchContainer`] for a link, and [`EngineError::Attachment`].
    pub(crate) fn settle_networks(
        &self,
        settings: &mut Settings,
        asked: &[Attachment],
    ) -> Result<(), EngineError> {
        settings.attachments = Some(self.settled(&settings.network, asked)?);
        Ok(())
    }

    /// Checks that the networks of a new container exist, and have what it asks for.
    ///
    /// # Errors
    /// Those of a creation of the container that are about networks.
    pub fn check_networks(&self, options: &RunOptions) -> Result<(), EngineError> {
        self.settled(&options.network, &options.attachments).map(drop)
    }

    fn settled(&self, mode: &NetworkMode, asked: &[Attachment]) -> Result<Vec<Attachment>, EngineError> {
        if !mode.has_networks() {
            return Ok(Vec::new());
        }
        let networks = self.networks()?;
        if asked.is_empty() {
            return Ok(vec![Attachment::to(&networks.default_network())]);
        }
        let mut settled: Vec<Attachment> = Vec::new();
        for attachment in asked {
            let network = networks.find(&attachment.network)?;
            if !network.driver.connects() {
                // The name of such a network is a mode, its id is not.
                return Err(AttachmentError::Modes(network.name).into());
            }
            if settled.iter().any(|other| other.network == network.id) {
                return Err(AttachmentError::Twice(network.name).into());
            }
            settled.push(self.settle(attachment, &network)?);
        }
        Ok(settled)
    }

    /// Checks a connection, and replaces names in it by ids.
    fn settle(&self, attachment: &Attachment, network: &Network) -> Result<Attachment, EngineError> {
        attachment.check(network)?;
        let links = attachment.links.iter().map(|link| {
            let other = self.sound(&link.container)?;
            Ok(Link { container: other.id, name: other.name, alias: link.alias.clone() })
        });
        Ok(Attachment {
            network: network.id.clone(),
            name: network.name.clone(),
            links: links.collect::<Result<_, EngineError>>()?,
            ..attachment.clone()
        })
    }

    /// Connects a container to a further network: at once when it runs, and at each start.
    ///
    /// # Errors
    /// [`EngineError::NoSuchNetwork`], [`EngineError::Attachment`] when it is connected or cannot be, and the errors of
    /// a start when an address is in use.
    pub fn connect_network(&self, container: &Container, asked: &Attachment) -> Result<(), EngineError> {
        let networks = self.networks()?;
        let network = networks.find(&asked.network)?;
        if !network.driver.connects() {
            return Err(AttachmentError::Mode(network.name).into());
        }
        match container.settings.network {
            NetworkMode::Host | NetworkMode::Container(_) => return Err(AttachmentError::Shared.into()),
            NetworkMode::None => return Err(AttachmentError::Private.into()),
            NetworkMode::Bridge | NetworkMode::User(_) => {}
        }
        let attachment = self.settle(asked, &network)?;
        let default = networks.default_network();
        let (mut is_new, mut is_half) = (false, false);
        let changed = self.change(&container.id, |record| {
            let mut all = record.attachments(&default);
            is_new = !all.iter().any(|other| other.network == network.id);
            // A command that was killed has recorded it, and not connected it.
            let has_endpoint = record.endpoints.iter().any(|endpoint| endpoint.network == network.id);
            is_half = record.state.is_running() && !has_endpoint;
            if is_new {
                all.push(attachment.clone());
                record.settings.attachments = Some(all);
            }
        })?;
        let changed = changed.ok_or_else(|| EngineError::NoSuchContainer(container.name.clone()))?;
        if !is_new && !is_half {
            let (container, network) = (changed.name, network.name);
            return Err(AttachmentError::Connected { container, network }.into());
        }
        let connected = match self.monitor_of(&changed)? {
            Some(monitor) => monitor.connect_network(attachment),
            None => Ok(()),
        };
        if connected.is_err() && is_new {
            self.change(&container.id, |record| forget(record, &default, &network.id))?;
        }
        connected
    }

    /// Disconnects a container from a network, also from one that has been removed: at once when it runs, and for each
    /// start. With `force`, for each start also when it cannot be done at once.
    ///
    /// # Errors
    /// [`EngineError::NoSuchNetwork`], and [`EngineError::Attachment`] when it is not connected.
    pub fn disconnect_network(
        &self,
        container: &Container,
        text: &str,
        force: bool,
    ) -> Result<(), EngineError> {
        let networks = self.networks()?;
        let default = networks.default_network();
        let all = container.attachments(&default);
        let (id, name) = match networks.find(text) {
            Ok(network) if !network.driver.connects() => {
                return Err(AttachmentError::Mode(network.name).into());
            }
            Ok(network) => (network.id, network.name),
            Err(error) => match all.iter().find(|one| one.name == text || one.network == text) {
                Some(gone) => (gone.network.clone(), gone.name.clone()),
                None => return Err(error),
            },
        };
        if !all.iter().any(|attachment| attachment.network == id) {
            let container = container.id.clone();
            return Err(AttachmentError::NotConnected { container, network: name }.into());
        }
        if let Some(monitor) = self.monitor_of(container)? {
            monitor.disconnect_network(&id).or_else(|error| if force { Ok(()) } else { Err(error) })?;
        }
        self.change(&container.id, |record| forget(record, &default, &id))?;
        Ok(())
    }
}

impl Records {
    /// Connection to the monitor of a container whose program runs, or is being started. `None` when it reads the record
    /// before the next start.
    fn monitor_of(&self, container: &Container) -> Result<Option<Attached>, EngineError> {
        let began = Instant::now();
        while let Some(now) = self.read(&container.id)? {
            let is_starting = || -> Result<bool, EngineError> {
                let is_busy = matches!(self.lock(&now.id)?, Lock::Busy);
                Ok(is_busy && !matches!(now.state, State::Restarting { .. }))
            };
            if now.state.is_running() {
                return self.connect(&now);
            }
            if !is_starting()? || began.elapsed() > PATIENCE {
                break;
            }
            std::thread::sleep(PAUSE);
        }
        Ok(None)
    }
}

pub(crate) fn forget(record: &mut Container, default: &Network, id: &str) {
    let mut all = record.attachments(default);
    all.retain(|attachment| attachment.network != id);
    record.settings.attachments = Some(all);
}
