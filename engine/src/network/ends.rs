//! Use and removal of networks.

use super::{Driver, Network, Networks};
use crate::container::Records;
use crate::error::EngineError;
use crate::record::{Container, Listed};
use kiln_network::{Bridge, NetworkError};
use rustix::fs::FlockOperation;
use std::path::Path;

impl Records {
    /// Networks of the store.
    ///
    /// # Errors
    /// Fails when their directory cannot be created.
    pub fn networks(&self) -> Result<Networks, EngineError> {
        Networks::open(&self.root)
    }

    /// Removes a network, with its bridge on this host. `state` is the directory that is emptied at boot. Concurrent
    /// removal by another process is a success.
    ///
    /// # Errors
    /// [`EngineError::PredefinedNetwork`], and [`EngineError::NetworkInUse`] while containers that run are connected.
    pub fn remove_network(&self, network: &Network, state: &Path) -> Result<(), EngineError> {
        if network.is_predefined() {
            let name = network.name.clone();
            return Err(EngineError::PredefinedNetwork(name, "cannot be removed"));
        }
        let networks = self.networks()?;
        let _lock = networks.lock(FlockOperation::LockExclusive)?;
        let containers = self.list()?;
        let connected: Vec<String> = containers
            .iter()
            .filter_map(sound)
            .filter(|container| container.endpoints.iter().any(|end| end.network == network.id))
            .map(|container| {
                format!(
                    "name:{:?} id:{:?}",
                    container.name,
                    container.id.chars().take(12).collect::<String>()
                )
            })
            .collect();
        let in_use = |endpoints| EngineError::NetworkInUse { name: network.name.clone(), endpoints };
        if !connected.is_empty() {
            return Err(in_use(connected.join(", ")));
        }
        let subnet = network.ipv4.as_ref().map(|pool| pool.subnet);
        let removed = match (network.driver, subnet) {
            (Driver::Bridge, _) => Bridge::remove(state, &network.bridge()),
            (_, Some(subnet)) if Bridge::is_used(state, subnet).map_err(EngineError::NetworkSetup)? => {
                Err(NetworkError::InUse(network.name.clone()))
            }
            _ => Ok(()),
        };
        match removed {
            Err(NetworkError::InUse(_)) => {
                return Err(in_use("of a container that starts or ends".to_owned()));
            }
            removed => removed.map_err(EngineError::NetworkSetup)?,
        }
        let was_there = networks.with_id(&network.id).is_some();
        networks.erase(&network.id)?;
        if was_there {
            networks.event(network, "destroy", &[]);
        }
        Ok(())
    }

    /// Removes the rules of a network's bridge when no container uses it. They come back with the next one.
    pub(crate) fn rest_network(&self, id: &str, state: &Path) {
        let rest = || -> Result<(), EngineError> {
            let networks = self.networks()?;
            let _lock = networks.lock(FlockOperation::LockExclusive)?;
            let of_bridge = |network: &Network| network.driver == Driver::Bridge && !network.is_default();
            match networks.with_id(id).filter(of_bridge) {
                Some(network) => Ok(Bridge::rest(state, &network.bridge())?),
                None => Ok(()),
            }
        };
        // Rules that stay are removed with the network.
        let _ = rest();
    }

    /// Containers that are to be connected to a network when they run.
    ///
    /// # Errors
    /// Fails when the containers cannot be listed.
    pub fn members_of(&self, network: &Network) -> Result<Vec<Container>, EngineError> {
        let networks = self.networks()?;
        let default = networks.default_network();
        let all = self.list()?;
        let uses = |container: &&Container| {
            container.attachments(&default).iter().any(|attachment| attachment.network == network.id)
        };
        Ok(all.iter().filter_map(sound).filter(uses).cloned().collect())
    }
}

fn sound(listed: &Listed) -> Option<&Container> {
    match listed {
        Listed::Sound(container) => Some(container),
        Listed::Damaged(_) => None,
    }
}
