//! Command `kiln network create`.

use crate::arguments::{self, Globals};
use crate::error::CliError;
use crate::session::Session;
use crate::ui;
use clap::Parser;
use kiln_engine::network::NetworkOptionError;
use kiln_engine::{EngineError, NetworkOptions, Networks};
use std::collections::BTreeMap;
use std::ffi::OsString;

/// Create a network for containers.
#[derive(Debug, Parser)]
struct Create {
    /// Mark the network as attachable, which all networks of one host are
    #[arg(long)]
    attachable: bool,
    /// Keep an address of the subnet from containers; may be repeated
    #[arg(long, value_name = "NAME=ADDRESS")]
    aux_address: Vec<String>,
    /// Choose the driver: bridge, or macvlan on -o parent=DEVICE
    #[arg(short, long, value_name = "DRIVER", default_value = "bridge")]
    driver: String,
    /// Set the address of this host in the subnet [default: its first]; may be repeated, once for each IP version
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    gateway: Vec<String>,
    /// Cut the network off from all other networks, and from the outside
    #[arg(long)]
    internal: bool,
    /// Give containers addresses from this part of the subnet
    #[arg(long, value_name = "SUBNET", value_delimiter = ',')]
    ip_range: Vec<String>,
    #[arg(long, value_name = "DRIVER", hide = true)]
    ipam_driver: Option<String>,
    #[arg(long, value_name = "NAME=VALUE", hide = true)]
    ipam_opt: Vec<String>,
    #[arg(long, value_name = "BOOL", hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ipv4: Option<bool>,
    /// Give containers IPv6 addresses, too [default: where this host has IPv6]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ipv6: Option<bool>,
    /// Set a label of the network; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Set an option of the driver, such as com.docker.network.driver.mtu=1400; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE")]
    opt: Vec<String>,
    /// Use this subnet, such as 10.20.0.0/24 [default: a free one]; may be repeated, once for each IP version
    #[arg(long, value_name = "SUBNET", value_delimiter = ',')]
    subnet: Vec<String>,
    #[arg(long, hide = true)]
    ingress: bool,
    #[arg(long, value_name = "SCOPE", hide = true)]
    scope: Option<String>,
    #[arg(long, hide = true)]
    config_only: bool,
    #[arg(long, value_name = "NETWORK", hide = true)]
    config_from: Option<String>,
    /// Name of the network
    #[arg(value_name = "NETWORK")]
    name: String,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Create as clap::CommandFactory>::command()
}

/// Creates a network and prints its id.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let create: Create = arguments::parse("network create", arguments)?;
    create.refuse()?;
    let options = create.options();
    let session = Session::open(globals)?;
    let networks = Networks::open(session.store.root())?;
    let network = networks.create(&options).map_err(explained)?;
    ui::line(&network.id);
    Ok(0)
}

/// Adds what to do to an error.
fn explained(error: EngineError) -> CliError {
    let hint = match &error {
        EngineError::NetworkExists(name) => {
            Some(format!("`kiln network inspect {name}` shows it, `kiln network rm {name}` removes it"))
        }
        EngineError::NetworkOption(NetworkOptionError::Overlap { .. }) => {
            Some("choose another subnet, or leave --subnet out: a free one is found then".to_owned())
        }
        EngineError::NetworkSetup(
            kiln_network::NetworkError::Overlap(_) | kiln_network::NetworkError::Overlap6(_),
        ) => Some(
            "`ip route` lists the networks of this host; without --subnet a free one is found".to_owned(),
        ),
        EngineError::NetworkSetup(kiln_network::NetworkError::NoSubnet(_)) => Some(
            "`kiln network prune` removes networks that are not used; or choose one by --subnet".to_owned(),
        ),
        _ => None,
    };
    match hint {
        Some(hint) => CliError::from(error).hint(hint),
        None => error.into(),
    }
}

impl Create {
    /// Refuses flags of swarms and of other address management.
    fn refuse(&self) -> Result<(), CliError> {
        let is_other =
            |value: &Option<String>, usual: &str| value.as_ref().is_some_and(|value| value != usual);
        for (is_given, flag, reason) in [
            (self.ingress, "--ingress", "there are no swarms"),
            (is_other(&self.scope, "local"), "--scope", "there are no swarms"),
            (self.config_only, "--config-only", "there are no swarms"),
            (self.config_from.is_some(), "--config-from", "there are no swarms"),
            (is_other(&self.ipam_driver, "default"), "--ipam-driver", "addresses are assigned by kiln"),
            (!self.ipam_opt.is_empty(), "--ipam-opt", "addresses are assigned by kiln"),
            (self.ipv4 == Some(false), "--ipv4=false", "each container of a network has an IPv4 address"),
        ] {
            if is_given {
                let message = format!("{flag} is not supported: {reason}");
                return Err(CliError::failed(message).hint(format!("leave {flag} out")));
            }
        }
        Ok(())
    }

    fn options(&self) -> NetworkOptions {
        let pairs = |texts: &[String]| -> BTreeMap<String, String> {
            let pairs = texts.iter().map(|text| text.split_once('=').unwrap_or((text, "")));
            pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
        };
        NetworkOptions {
            name: self.name.clone(),
            driver: self.driver.clone(),
            subnets: self.subnet.clone(),
            gateways: self.gateway.clone(),
            ranges: self.ip_range.clone(),
            auxiliary: self.aux_address.clone(),
            internal: self.internal,
            attachable: self.attachable,
            ipv6: self.ipv6,
            options: pairs(&self.opt),
            labels: pairs(&self.label),
        }
    }
}
