//! One table of packet rules, made in one transaction (nf_tables, Linux 3.13).
//!
//! ```text
//! table inet kiln {
//!     chain postrouting {
//!         type nat hook postrouting priority srcnat; policy accept;
//!         meta nfproto ipv4 ip saddr 10.87.0.0/16 oifname != "kiln0" masquerade
//!     }
//! }
//! ```
//!
//! The rules accept nothing that the machine's own firewall drops, and drop nothing that it accepts.

use super::address::Subnet;
use super::netlink::{ACK, Answer, CREATE, Netlink, NetlinkError};

const TABLE: &str = "kiln";
const CHAIN: &str = "postrouting";

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// Subsystem number of nf_tables, as the high byte of message types.
const SUBSYSTEM: u16 = 10;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const DELETE_TABLE: u16 = SUBSYSTEM << 8 | 2;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const GET_CHAIN: u16 = SUBSYSTEM << 8 | 4;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
/// Append rather than put in front.
const APPEND: u16 = 0x800;

const FAMILY_INET: u8 = 1;
const HOOK_POSTROUTING: u32 = 4;
const PRIORITY_SRCNAT: u32 = 100;
const POLICY_ACCEPT: u32 = 1;
const NFPROTO_IPV4: u8 = 2;
const REGISTER: u32 = 1;

const META_OIFNAME: u32 = 7;
const META_NFPROTO: u32 = 15;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const NETWORK_HEADER: u32 = 1;
/// Offset of the source address in a version 4 header.
const SOURCE_ADDRESS: u32 = 12;
/// Longest interface name, with its NUL.
const NAME_LENGTH: usize = 16;

/// Makes the table for a bridge, unless it is there.
pub(super) fn ensure(bridge: &str, subnet: Subnet) -> Answer {
    let mut netlink = Netlink::open_netfilter()?;
    let mut question = header(FAMILY_INET, 0);
    question.extend(text(1, TABLE));
    question.extend(text(3, CHAIN));
    match netlink.request(GET_CHAIN, 0, &question) {
        Ok(()) => return Ok(()),
        Err(NetlinkError(libc::ENOENT)) => {}
        Err(error) => return Err(error),
    }
    netlink.batch(&transaction(bridge, subnet))
}

fn transaction(bridge: &str, subnet: Subnet) -> Vec<(u16, u16, Vec<u8>)> {
    let named = |attributes: Vec<Vec<u8>>| {
        let mut body = header(FAMILY_INET, 0);
        body.extend(attributes.concat());
        body
    };
    let table = || named(vec![text(1, TABLE)]);
    let hook = nested(4, &[number(1, HOOK_POSTROUTING), number(2, PRIORITY_SRCNAT)]);
    let chain = named(vec![text(1, TABLE), text(3, CHAIN), hook, number(5, POLICY_ACCEPT), text(7, "nat")]);
    let rule = named(vec![text(1, TABLE), text(2, CHAIN), nested(4, &masquerade(bridge, subnet))]);
    vec![
        (BATCH_BEGIN, 0, header(0, SUBSYSTEM)),
        // Made, removed and made again: empty now, whatever an earlier version left.
        (NEW_TABLE, CREATE | ACK, table()),
        (DELETE_TABLE, ACK, table()),
        (NEW_TABLE, CREATE | ACK, table()),
        (NEW_CHAIN, CREATE | ACK, chain),
        (NEW_RULE, CREATE | APPEND | ACK, rule),
        (BATCH_END, 0, header(0, SUBSYSTEM)),
    ]
}

/// `struct nfgenmsg`.
fn header(family: u8, resource: u16) -> Vec<u8> {
    let [high, low] = resource.to_be_bytes();
    vec![family, 0, high, low]
}

fn masquerade(bridge: &str, subnet: Subnet) -> Vec<Vec<u8>> {
    let mut name = bridge.as_bytes().to_vec();
    name.resize(NAME_LENGTH, 0);
    vec![
        meta(META_NFPROTO),
        compare(EQUAL, &[NFPROTO_IPV4]),
        expression(
            "payload",
            &[number(1, REGISTER), number(2, NETWORK_HEADER), number(3, SOURCE_ADDRESS), number(4, 4)],
        ),
        expression(
            "bitwise",
            &[
                number(1, REGISTER),
                number(2, REGISTER),
                number(3, 4),
                nested(4, &[attribute(1, &subnet.mask().to_be_bytes())]),
                nested(5, &[attribute(1, &[0; 4])]),
            ],
        ),
        compare(EQUAL, &subnet.network().octets()),
        meta(META_OIFNAME),
        compare(NOT_EQUAL, &name),
        expression("masq", &[]),
    ]
}

fn meta(key: u32) -> Vec<u8> {
    expression("meta", &[number(1, REGISTER), number(2, key)])
}

fn compare(operator: u32, value: &[u8]) -> Vec<u8> {
    expression("cmp", &[number(1, REGISTER), number(2, operator), nested(3, &[attribute(1, value)])])
}

/// A list element with an expression's name and data.
fn expression(name: &str, data: &[Vec<u8>]) -> Vec<u8> {
    nested(1, &[text(1, name), nested(2, data)])
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + value.len());
    bytes.extend(((4 + value.len()) as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn nested(kind: u16, parts: &[Vec<u8>]) -> Vec<u8> {
    const NESTED: u16 = 0x8000;
    attribute(kind | NESTED, &parts.concat())
}

fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}
