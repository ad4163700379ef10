//! Endpoints of a running container: its interfaces in networks, the way out, and published ports.
//!
//! The monitor holds them, and changes them on request while the program runs. The record of the container has what it asks
//! for ([`Attachment`]) and what it has ([`Endpoint`]).

use crate::container::Owned;
use crate::error::EngineError;
use crate::network::{Driver, Network, Networks};
use crate::record::{Container, Endpoint, Endpoint6};
use crate::settings::NetworkMode;
use crate::settings::attachment::{Attachment, mac_text, way_out};
use kiln_image::digest::hex;
use kiln_network::dns::Names;
use kiln_network::{Binding, Bridge, Connection, Place, Proxy, PublishError, Published};
use kiln_runtime::OneThread;
use kiln_runtime::cgroup::Groups;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::path::{Path, PathBuf};

/// Most interfaces that are looked at for a free name.
const INTERFACES: usize = 1000;

/// Endpoints of a container that runs, or that starts.
#[derive(Default)]
pub(crate) struct Endpoints {
    /// Published ports, and the id of the network whose endpoint they lead to. Released before the connections.
    published: Option<(Published, String)>,
    ends: Vec<End>,
    /// Network namespace without connections, until the container's process has entered it.
    isolated: Option<OwnedFd>,
    pub(crate) store: PathBuf,
    pub(crate) state: PathBuf,
    /// Names in networks of users.
    pub(crate) names: Option<Names>,
}

/// Endpoint of the container in a network.
struct End {
    attachment: Attachment,
    network: Network,
    bridge: Bridge,
    connection: Connection,
    id: String,
    is_way_out: bool,
    mac: String,
}

impl Endpoints {
    /// Connects a container that starts to its networks, and publishes its ports.
    ///
    /// # Errors
    /// Fails when a network is gone, an address is in use, or a port is.
    pub(crate) fn make(owned: &Owned, state: &Path, proxy: Option<Proxy>) -> Result<Endpoints, EngineError> {
        let store = owned.records.root.clone();
        let mut own = Endpoints { store, state: state.to_owned(), ..Endpoints::default() };
        let settings = &owned.container.settings;
        match settings.network {
            NetworkMode::Host | NetworkMode::Container(_) => return Ok(own),
            NetworkMode::None => own.isolated = Some(kiln_network::isolated(&OneThread)?),
            NetworkMode::Bridge | NetworkMode::User(_) => own.connect_all(&owned.container)?,
        }
        if let Some(proxy) = proxy {
            own.publish(&owned.container, &proxy)?;
        }
        Ok(own)
    }

    fn connect_all(&mut self, container: &Container) -> Result<(), EngineError> {
        let networks = Networks::open(&self.store)?;
        let attachments = container.attachments(&networks.default_network());
        if attachments.is_empty() {
            self.isolated = Some(kiln_network::isolated(&OneThread)?);
            return Ok(());
        }
        // A network that is being removed is not there any more, or stays.
        let _lock = networks.lock(FlockOperation::LockShared)?;
        let found: Vec<(Attachment, Network)> = attachments
            .into_iter()
            .map(|attachment| {
                let network = networks.with_id(&attachment.network);
                let network = network.ok_or_else(|| EngineError::NetworkGone(attachment.name.clone()))?;
                Ok((attachment, network))
            })
            .collect::<Result<_, EngineError>>()?;
        let out = way_out(found.iter().map(|(attachment, network)| (attachment, network)));
        let out = out.map(|attachment| attachment.network.clone());
        for (number, (attachment, mut network)) in found.into_iter().enumerate() {
            let is_way_out = out.as_ref() == Some(&attachment.network);
            let bridge = networks.open_bridge(&mut network, &self.state)?;
            let place = Place { without_route: !is_way_out, ..place(&attachment) };
            let connection = match self.ends.first() {
                None => bridge.connect_at(&OneThread, &place),
                Some(first) => bridge.join(first.connection.namespace(), &format!("eth{number}"), &place),
            };
            let connection = connection
                .map_err(|source| EngineError::Connect { network: network.name.clone(), source })?;
            if is_way_out && number > 0 {
                connection.lead_out()?;
            }
            self.ends.push(End::new((attachment, network), bridge, connection, is_way_out));
        }
        Ok(())
    }

    /// Endpoints of a container that runs and whose monitor was killed. An address that another container has got meanwhile
    /// stays with that one, and so does a port.
    pub(crate) fn of_orphan(
        container: &Container,
        pid: i32,
        (store, state): (&Path, &Path),
        proxy: Option<&Proxy>,
    ) -> Endpoints {
        let mut own = Endpoints { store: store.to_owned(), state: state.to_owned(), ..Endpoints::default() };
        let mut holder = None;
        let Ok(networks) = Networks::open(store) else { return own };
        let attachments = container.attachments(&networks.default_network());
        for endpoint in &container.endpoints {
            let Some(mut network) = networks.with_id(&endpoint.network) else { continue };
            let attachment = attachments.iter().find(|attachment| attachment.network == network.id);
            let attachment = attachment.cloned().unwrap_or_else(|| Attachment::to(&network));
            let opened = networks.open_bridge(&mut network, state);
            let (Ok(bridge), Ok(namespace)) = (opened, namespace_of(pid)) else { continue };
            let addresses = (endpoint.address, endpoint.ipv6.as_ref().map(|ipv6| ipv6.address));
            if let Ok(Some(connection)) = bridge.retake(namespace, endpoint.interface(), addresses) {
                if !endpoint.ports.is_empty() {
                    holder = Some(network.id.clone());
                }
                let mut end = End::new((attachment, network), bridge, connection, endpoint.is_way_out);
                end.mac.clone_from(&endpoint.mac);
                if !endpoint.id.is_empty() {
                    end.id.clone_from(&endpoint.id);
                }
                own.ends.push(end);
            }
        }
        if let Some((holder, proxy)) = holder.zip(proxy) {
            own.publish_again(&holder, container, proxy);
        }
        // Without its names the container is served as well.
        let _ = own.serve_names(container);
        own.note_user_of_names(pid);
        own
    }

    /// Publishes the ports of an orphan again.
    fn publish_again(&mut self, holder: &str, container: &Container, proxy: &Proxy) {
        // The proxy of the killed monitor may hold the ports for a moment.
        for _ in 0..200 {
            match self.publish_at(holder, container.bindings(), &container.name, proxy) {
                Err(PublishError::Allocated { .. }) => std::thread::sleep(crate::container::PAUSE),
                _ => return,
            }
        }
    }

    /// Publishes known bindings at the endpoint in a network.
    fn publish_at(
        &mut self,
        network: &str,
        bindings: &[Binding],
        owner: &str,
        proxy: &Proxy,
    ) -> Result<(), PublishError> {
        let Some(end) = self.ends.iter().find(|end| end.network.id == network) else { return Ok(()) };
        let published = end.bridge.publish_again(&end.connection, bindings, owner, proxy)?;
        self.published = Some((published, network.to_owned()));
        Ok(())
    }

    /// Publishes the ports of the container at its way out. Where a range is a choice, the first free port is taken.
    fn publish(&mut self, container: &Container, proxy: &Proxy) -> Result<(), EngineError> {
        let failed = |source| EngineError::Publish {
            name: container.name.clone(),
            id: container.id.clone(),
            source: Box::new(source),
        };
        let is_bridge = |end: &&End| end.network.driver == Driver::Bridge && !end.network.internal;
        let out = self.ends.iter().find(|end| end.is_way_out);
        let other = self.ends.iter().find(is_bridge).or(self.ends.first());
        let Some(end) = out.filter(is_bridge).or(other) else { return Ok(()) };
        let settings = &container.settings;
        let mut chosen = vec![0; settings.published.ports.len()];
        loop {
            let mappings = settings.published.mappings(&settings.exposed, &chosen);
            match end.bridge.publish(&end.connection, &mappings, &container.name, proxy) {
                Err(PublishError::Allocated { address, .. })
                    if settings.published.choose_next(&mut chosen, address.port()) => {}
                Err(error) => return Err(failed(error)),
                Ok(published) => {
                    self.published = Some((published, end.network.id.clone()));
                    return Ok(());
                }
            }
        }
    }

    /// Connects the running container to a further network. On failure all is as before.
    ///
    /// # Errors
    /// Fails when the network is gone, or an address is in use.
    pub(crate) fn connect(
        &mut self,
        container: &Container,
        pid: i32,
        attachment: &Attachment,
    ) -> Result<(), EngineError> {
        let networks = Networks::open(&self.store)?;
        let _lock = networks.lock(FlockOperation::LockShared)?;
        let network = networks.with_id(&attachment.network);
        let mut network = network.ok_or_else(|| EngineError::NoSuchNetwork(attachment.name.clone()))?;
        // The start has read the record after the command had changed it.
        if self.ends.iter().any(|end| end.network.id == network.id) {
            return Ok(());
        }
        let failed = |name: &str| {
            let network = name.to_owned();
            move |source| EngineError::Connect { network, source }
        };
        let bridge = networks.open_bridge(&mut network, &self.state)?;
        // A process with privileges may have left the container's network namespace: that of an endpoint is certain.
        let namespace = match self.ends.first().map(|end| end.connection.namespace().try_clone_to_owned()) {
            Some(Ok(namespace)) => namespace,
            Some(Err(_)) | None => namespace_of(pid)?,
        };
        let connection = bridge
            .join(namespace.as_fd(), &self.free_interface(), &place(attachment))
            .map_err(failed(&network.name))?;
        note_user(&connection, pid);
        self.ends.push(End::new((attachment.clone(), network), bridge, connection, false));
        let settled = self.settle_way_out().and_then(|()| self.publish_late(container));
        if settled.is_err() {
            if let Some(end) = self.ends.pop() {
                end.connection.unplug()?;
            }
            self.settle_way_out()?;
        }
        settled
    }

    /// Disconnects the running container from a network. One that it is not connected to is a success.
    ///
    /// # Errors
    /// Fails when the kernel refuses it, or ports cannot be published elsewhere.
    pub(crate) fn disconnect(&mut self, container: &Container, network: &str) -> Result<(), EngineError> {
        let Some(at) = self.ends.iter().position(|end| end.network.id == network) else { return Ok(()) };
        let holds_ports = self.published.as_ref().is_some_and(|(_, holder)| holder == network);
        let bindings = holds_ports.then(|| self.published.take()).flatten();
        let bindings = bindings.map(|(published, _)| published.bindings().to_vec());
        self.ends[at].connection.unplug()?;
        let end = self.ends.remove(at);
        drop(end);
        self.settle_way_out()?;
        let next = self.ends.iter().find(|end| end.is_way_out).map(|end| end.network.id.clone());
        if let Some((bindings, next)) = bindings.zip(next) {
            let proxy = Proxy::fork()?;
            self.publish_at(&next, &bindings, &container.name, &proxy).map_err(|source| {
                let (name, id) = (container.name.clone(), container.id.clone());
                EngineError::Publish { name, id, source: Box::new(source) }
            })?;
        }
        Ok(())
    }

    /// Publishes ports that had no way in until now.
    fn publish_late(&mut self, container: &Container) -> Result<(), EngineError> {
        let has_way = self.ends.iter().any(|end| end.is_way_out);
        if self.published.is_some() || !has_way || !container.settings.publishes() {
            return Ok(());
        }
        let proxy = Proxy::fork()?;
        self.publish(container, &proxy)
    }

    /// Sets the default route to the endpoint that should have it now.
    fn settle_way_out(&mut self) -> Result<(), EngineError> {
        let out = way_out(self.ends.iter().map(|end| (&end.attachment, &end.network)));
        let out = out.map(|attachment| attachment.network.clone());
        for end in &mut self.ends {
            let should = out.as_ref() == Some(&end.network.id);
            if should && !end.is_way_out {
                end.connection.lead_out()?;
            }
            end.is_way_out = should;
        }
        Ok(())
    }

    fn free_interface(&self) -> String {
        let is_free = |name: &String| !self.ends.iter().any(|end| end.connection.interface == *name);
        let mut names = (0..INTERFACES).map(|number| format!("eth{number}"));
        names.find(is_free).unwrap_or_else(|| format!("eth{INTERFACES}"))
    }

    /// Notes the container's first process, so that it keeps its addresses when the monitor is killed.
    pub(crate) fn note_user(&mut self, pid: i32) {
        // The container's process has entered the namespace by now.
        self.isolated = None;
        self.ends.iter().for_each(|end| note_user(&end.connection, pid));
        self.note_user_of_names(pid);
    }

    /// Network namespace to start the container in; `None` for that of another container or of the host.
    pub(crate) fn namespace(&self) -> Option<BorrowedFd<'_>> {
        let first = self.ends.first().map(|end| end.connection.namespace());
        first.or_else(|| self.isolated.as_ref().map(AsFd::as_fd))
    }

    /// The endpoints for the record.
    pub(crate) fn records(&self) -> Vec<Endpoint> {
        self.ends.iter().map(|end| end.record(self.published.as_ref())).collect()
    }

    /// Networks of the endpoints.
    pub(crate) fn networks(&self) -> Vec<Network> {
        self.ends.iter().map(|end| end.network.clone()).collect()
    }
}

impl End {
    fn new(
        (attachment, network): (Attachment, Network),
        bridge: Bridge,
        connection: Connection,
        is_way_out: bool,
    ) -> End {
        let id = hex(&crate::container::random::<32>());
        let mac = mac_text(&connection.mac);
        End { attachment, network, bridge, connection, id, is_way_out, mac }
    }

    fn record(&self, published: Option<&(Published, String)>) -> Endpoint {
        let connection = &self.connection;
        let own = published.filter(|(_, holder)| *holder == self.network.id);
        Endpoint {
            network: self.network.id.clone(),
            id: self.id.clone(),
            interface: connection.interface.clone(),
            address: connection.address,
            prefix: connection.subnet.prefix(),
            gateway: connection.gateway,
            ipv6: connection.ipv6.map(|ipv6| Endpoint6 {
                address: ipv6.address,
                prefix: ipv6.subnet.prefix(),
                gateway: ipv6.gateway,
            }),
            mac: self.mac.clone(),
            is_way_out: self.is_way_out,
            internal: self.network.internal,
            ports: own.map_or_else(Vec::new, |(published, _)| published.bindings().to_vec()),
        }
    }
}

/// What a container asks for, for the network.
fn place(attachment: &Attachment) -> Place {
    Place { ipv4: attachment.ipv4, ipv6: attachment.ipv6, mac: attachment.mac, without_route: false }
}

fn note_user(connection: &Connection, pid: i32) {
    let ticks = Groups::start_time(pid).unwrap_or_default();
    // Without the note a later monitor may not get the address again.
    let _ = connection.note_user(pid, &ticks);
}

/// Network namespace of a process.
fn namespace_of(pid: i32) -> Result<OwnedFd, EngineError> {
    let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(&path, flags, Mode::empty());
    opened.map_err(|errno| kiln_image::sys::CallError { call: "open", path, errno }.into())
}
