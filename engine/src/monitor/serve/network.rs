//! Networks of a container that the monitor runs: changes on request, and events.

use super::{Program, Serving, failure};
use crate::connect::forget;
use crate::container::Owned;
use crate::endpoints::Endpoints;
use crate::error::EngineError;
use crate::network::{DEFAULT, Network};
use crate::record::Container;
use crate::wire::{self, Answer};
use std::path::Path;

impl Serving {
    /// Changes the endpoints of the program, records them, and answers the command.
    pub(super) fn change_network(
        &mut self,
        number: usize,
        program: Option<&mut Program>,
        change: impl FnOnce(&mut Endpoints, &Container, i32) -> Result<(), EngineError>,
    ) {
        let changed = match program.filter(|program| program.code.is_none()) {
            Some(program) => self.change_endpoints(program, change),
            None => Err(EngineError::NotRunning(self.owned.container.id.clone())),
        };
        let answer = match changed {
            Ok(()) => Answer::Done,
            Err(error) => Answer::Failed(failure(&error)),
        };
        self.clients.get(number).send(wire::json(&answer));
    }

    /// Has the names served that the record has now.
    pub(super) fn change_names(&mut self, program: Option<&mut Program>) {
        if let Ok(Some(record)) = self.owned.records.read(&self.request.id) {
            self.owned.container.name = record.name;
        }
        if let Some(program) = program {
            // The name server has the old ones after a failure.
            let _ = program.resources.endpoints.serve_names(&self.owned.container);
        }
    }

    fn change_endpoints(
        &mut self,
        program: &mut Program,
        change: impl FnOnce(&mut Endpoints, &Container, i32) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let endpoints = &mut program.resources.endpoints;
        let before = endpoints.networks();
        let changed = change(endpoints, &self.owned.container, program.process.pid);
        let (after, records) = (endpoints.networks(), endpoints.records());
        let had_names = self.owned.container.has_names();
        let old = std::mem::replace(&mut self.owned.container.endpoints, records.clone());
        // What it asks for is recorded with what it has: a command that is killed leaves no half of it.
        let default = self.owned.records.networks()?.default_network();
        let recorded = self.owned.records.change(&self.request.id, |record| {
            for network in before.iter().filter(|network| !after.iter().any(|other| other.id == network.id)) {
                forget(record, &default, &network.id);
            }
            record.endpoints.clone_from(&records);
        })?;
        if let Some(record) = recorded {
            self.owned.container = record;
        }
        let named = endpoints.serve_names(&self.owned.container);
        endpoints.note_user_of_names(program.process.pid);
        let lacks = |all: &[Network], network: &Network| !all.iter().any(|other| other.id == network.id);
        let new: Vec<Network> = after.iter().filter(|one| lacks(&before, one)).cloned().collect();
        let gone: Vec<Network> = before.iter().filter(|one| lacks(&after, one)).cloned().collect();
        report(&self.owned, &new, "connect");
        report(&self.owned, &gone, "disconnect");
        rest(&self.owned, &gone, &self.request.state);
        self.owned.update_hosts(&old)?;
        self.owned.update_resolver(had_names)?;
        changed.and(named)
    }
}

/// Adds events about the networks of users that a container was connected to, or disconnected from.
pub(super) fn report(owned: &Owned, networks: &[Network], action: &str) {
    let of_users: Vec<&Network> = networks.iter().filter(|network| !network.is_default()).collect();
    if of_users.is_empty() {
        return;
    }
    let Ok(all) = owned.records.networks() else { return };
    let container = [("container", owned.container.id.as_str())];
    of_users.iter().for_each(|network| all.event(network, action, &container));
}

/// Removes the rules of networks that no container uses any more.
pub(super) fn rest(owned: &Owned, networks: &[Network], state: &Path) {
    let of_users = networks.iter().filter(|network| !network.is_default());
    of_users.for_each(|network| owned.records.rest_network(&network.id, state));
}

/// Removes the rules of networks that a container which did not start was to be connected to.
pub(super) fn rest_all(owned: &Owned, state: &Path) {
    let attachments = owned.container.settings.attachments.iter().flatten();
    let of_users = attachments.filter(|attachment| attachment.name != DEFAULT);
    of_users.for_each(|attachment| owned.records.rest_network(&attachment.network, state));
}
