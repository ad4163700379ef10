//! Packet rules as messages to the kernel (nf_tables, Linux 3.13; `inet` address translation, 5.2).
//!
//! Encodes tables, chains, rules, sets and their elements; which ones Kiln has is in [`super::rules`]. All changes are
//! made in one transaction, all or nothing.

pub(super) mod expression;

use super::netlink::{Answer, CREATE, EXCLUSIVE, Netlink, NetlinkError, Request};
use expression::{attribute, nested, number, text};

const BATCH_BEGIN: u16 = 0x10;
/// Not acknowledged before Linux 6.10.
const BATCH_END: u16 = 0x11;
/// Subsystem number of nf_tables, as the high byte of message types.
const SUBSYSTEM: u16 = 10;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const DELETE_TABLE: u16 = SUBSYSTEM << 8 | 2;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const GET_CHAIN: u16 = SUBSYSTEM << 8 | 4;
const DELETE_CHAIN: u16 = SUBSYSTEM << 8 | 5;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
const GET_RULE: u16 = SUBSYSTEM << 8 | 7;
const DELETE_RULE: u16 = SUBSYSTEM << 8 | 8;
const NEW_SET: u16 = SUBSYSTEM << 8 | 9;
const NEW_ELEMENTS: u16 = SUBSYSTEM << 8 | 12;
const DELETE_ELEMENTS: u16 = SUBSYSTEM << 8 | 14;
/// Append the rule rather than insert it at the front.
const APPEND: u16 = 0x800;

const FAMILY_INET: u8 = 1;
const POLICY_ACCEPT: u32 = 1;
/// Largest size of the elements in one message, in bytes: its length, and that of the error message about it, has 16
/// bits.
const ELEMENTS_LENGTH: usize = 24 * 1024;

/// Hook from which the kernel calls a chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hook {
    pub(super) kind: &'static str,
    pub(super) number: u32,
    pub(super) priority: i32,
}

/// Type of a key, or of a map's data: one field or several.
#[derive(Clone, Copy, Debug)]
pub(super) struct Type {
    /// Numbers of the fields' types, which only `nft list` reads.
    fields: &'static [u32],
    length: u32,
    is_text: bool,
}

impl Type {
    /// Type of joined fields, each of which is padded to 4 bytes.
    pub(super) const fn new(fields: &'static [u32], length: u32) -> Type {
        Type { fields, length, is_text: false }
    }

    /// Type of one field with text.
    pub(super) const fn text(fields: &'static [u32], length: u32) -> Type {
        Type { fields, length, is_text: true }
    }

    fn number(self) -> u32 {
        self.fields.iter().fold(0, |joined, field| joined << 6 | field)
    }
}

/// Set, or a map when its keys have data.
#[derive(Clone, Copy, Debug)]
pub(super) struct Set {
    pub(super) name: &'static str,
    pub(super) key: Type,
    pub(super) leads_to: LeadsTo,
    pub(super) ranges: bool,
}

/// Data of a set's keys.
#[derive(Clone, Copy, Debug)]
pub(super) enum LeadsTo {
    Nothing,
    Data(Type),
    Verdict,
}

/// Element of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) key: Vec<u8>,
    pub(super) value: Value,
}

/// Data of an element's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Nothing,
    Data(Vec<u8>),
    Jump(String),
    /// No data: this key is the first after a range.
    RangeEnd,
}

/// Changes to one table of family `inet`.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    table: &'static str,
    sets: u32,
    requests: Vec<Request>,
}

impl Transaction {
    pub(super) fn new(table: &'static str) -> Transaction {
        Transaction { table, ..Transaction::default() }
    }

    fn push(&mut self, kind: u16, flags: u16, attributes: &[Vec<u8>]) {
        let mut body = header(FAMILY_INET, 0);
        body.extend(text(1, self.table));
        for attribute in attributes {
            body.extend(attribute);
        }
        self.requests.push(Request { kind, flags, body, accepts: None });
    }

    /// Creates the table, which must not exist.
    pub(super) fn new_table(&mut self) {
        self.push(NEW_TABLE, CREATE | EXCLUSIVE, &[]);
    }

    /// Creates the table empty, whatever an earlier version left in it.
    pub(super) fn fresh_table(&mut self) {
        self.push(NEW_TABLE, CREATE, &[]);
        self.push(DELETE_TABLE, 0, &[]);
        self.push(NEW_TABLE, CREATE, &[]);
    }

    pub(super) fn chain(&mut self, name: &str) {
        self.push(NEW_CHAIN, CREATE, &[text(3, name)]);
    }

    pub(super) fn hooked_chain(&mut self, name: &str, hook: Hook) {
        let place = nested(4, &[number(1, hook.number), number(2, hook.priority as u32)]);
        let attributes = [text(3, name), place, number(5, POLICY_ACCEPT), text(7, hook.kind)];
        self.push(NEW_CHAIN, CREATE, &attributes);
    }

    pub(super) fn delete_chain(&mut self, name: &str) {
        self.push(DELETE_CHAIN, 0, &[text(3, name)]);
    }

    /// Appends a rule to a chain.
    pub(super) fn rule(&mut self, chain: &str, expressions: &[Vec<u8>]) {
        self.push(NEW_RULE, CREATE | APPEND, &[text(2, chain), nested(4, expressions)]);
    }

    /// Removes all rules of a chain.
    pub(super) fn empty_chain(&mut self, chain: &str) {
        self.push(DELETE_RULE, 0, &[text(2, chain)]);
    }

    pub(super) fn set(&mut self, set: Set) {
        const IS_RANGES: u32 = 0x4;
        const IS_MAP: u32 = 0x8;
        const VERDICT: u32 = 0xffff_ff00;
        self.sets += 1;
        let ranges = if set.ranges { IS_RANGES } else { 0 };
        let mut attributes = vec![text(2, set.name), number(4, set.key.number()), number(5, set.key.length)];
        match set.leads_to {
            LeadsTo::Nothing => attributes.push(number(3, ranges)),
            LeadsTo::Data(data) => attributes.extend([
                number(3, ranges | IS_MAP),
                number(6, data.number()),
                number(7, data.length),
            ]),
            LeadsTo::Verdict => {
                attributes.extend([number(3, ranges | IS_MAP), number(6, VERDICT), number(7, 0)]);
            }
        }
        attributes.push(number(10, self.sets));
        if set.key.is_text {
            // Byte order of the key for `nft list`: type 0, length 4, the host's.
            attributes.push(attribute(13, &[&[0, 4][..], &1u32.to_ne_bytes()].concat()));
        }
        self.push(NEW_SET, CREATE, &attributes);
    }

    /// Adds elements; an existing one must have the same data.
    pub(super) fn add(&mut self, set: &str, elements: &[Element]) {
        self.elements(NEW_ELEMENTS, CREATE, set, elements);
    }

    /// Adds elements that must not exist.
    pub(super) fn add_new(&mut self, set: &str, elements: &[Element]) {
        self.elements(NEW_ELEMENTS, CREATE | EXCLUSIVE, set, elements);
    }

    /// Removes elements, all of which must exist.
    pub(super) fn remove(&mut self, set: &str, elements: &[Element]) {
        self.elements(DELETE_ELEMENTS, 0, set, elements);
    }

    fn elements(&mut self, kind: u16, flags: u16, set: &str, elements: &[Element]) {
        let mut list = Vec::new();
        for (place, element) in elements.iter().enumerate() {
            list.extend(element.encoded());
            // Both ends of a range stay in one message.
            let whole = elements.get(place + 1).is_none_or(|next| next.value != Value::RangeEnd);
            if whole && (list.len() > ELEMENTS_LENGTH || place + 1 == elements.len()) {
                self.push(kind, flags, &[text(2, set), nested(3, &[std::mem::take(&mut list)])]);
            }
        }
    }

    /// Carries out all changes, or none.
    pub(super) fn commit(self) -> Answer {
        if self.requests.is_empty() {
            return Ok(());
        }
        let mark = |kind| Request { kind, flags: 0, body: header(0, SUBSYSTEM), accepts: None };
        let mut requests = vec![mark(BATCH_BEGIN)];
        requests.extend(self.requests);
        let done = Netlink::open_netfilter()?.exchange(&requests, Some(&mark(BATCH_END)));
        done.map_err(|(_, error)| error)
    }
}

impl Element {
    fn encoded(&self) -> Vec<u8> {
        let mut parts = nested(1, &[attribute(1, &self.key)]);
        match &self.value {
            Value::Nothing => {}
            Value::Data(data) => parts.extend(nested(2, &[attribute(1, data)])),
            Value::Jump(chain) => parts.extend(nested(2, &[expression::jump_data(chain)])),
            Value::RangeEnd => parts.extend(number(3, 1)),
        }
        nested(1, &[parts])
    }
}

/// A chain that the kernel calls from a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HookedChain {
    /// Number of the family.
    pub(super) family: u8,
    pub(super) table: String,
    pub(super) name: String,
    /// True when packets that its rules let through are dropped.
    pub(super) drops: bool,
    /// True when its last rule drops or rejects every packet.
    pub(super) ends_in_drop: bool,
    /// Encoded rules of its table.
    pub(super) rules: Vec<Vec<u8>>,
}

/// Chains of all tables at the hook for forwarded packets.
pub(super) fn forward_chains() -> Answer<Vec<HookedChain>> {
    let mut netlink = Netlink::open_netfilter()?;
    let answers = netlink.dump(GET_CHAIN, &header(0, 0))?;
    let mut chains: Vec<HookedChain> =
        answers.iter().filter_map(|answer| forward_chain(&answer.body)).collect();
    for chain in &mut chains {
        let mut question = header(chain.family, 0);
        question.extend(text(1, &chain.table));
        // A table that has gone in the meantime has no rules.
        let rules = netlink.dump(GET_RULE, &question).unwrap_or_default();
        chain.rules = rules.into_iter().map(|rule| rule.body).collect();
        let own = chain.rules.iter().rev().find(|rule| {
            let all = attributes(rule.get(HEADER_LENGTH..).unwrap_or_default());
            text_of(&all, 2) == chain.name
        });
        chain.ends_in_drop = own.is_some_and(|rule| drops_all(rule));
    }
    Ok(chains)
}

/// Length of the header of a message, in bytes.
const HEADER_LENGTH: usize = 4;

/// Parses a chain; `None` for those at other hooks.
fn forward_chain(body: &[u8]) -> Option<HookedChain> {
    const FORWARD: u32 = 2;
    const POLICY_DROP: u32 = 0;
    // The families inet, ip and ip6 have the same hooks.
    const FAMILIES: [u8; 3] = [FAMILY_INET, 2, 10];
    let family = *body.first().filter(|family| FAMILIES.contains(family))?;
    let all = attributes(body.get(HEADER_LENGTH..)?);
    let hook = attributes(all.iter().find(|(kind, _)| *kind == 4)?.1);
    if number_of(&hook, 1) != Some(FORWARD) {
        return None;
    }
    let drops = number_of(&all, 5) == Some(POLICY_DROP);
    let (table, name) = (text_of(&all, 1), text_of(&all, 3));
    Some(HookedChain { family, table, name, drops, ends_in_drop: false, rules: Vec::new() })
}

/// True for a rule without conditions that drops or rejects.
fn drops_all(rule: &[u8]) -> bool {
    const VERDICT_DROP: u32 = 0;
    let all = attributes(rule.get(HEADER_LENGTH..).unwrap_or_default());
    let list = all.iter().find(|(kind, _)| *kind == 4).map_or(&[][..], |(_, list)| list);
    let mut ends = false;
    for (_, element) in attributes(list) {
        let element = attributes(element);
        match text_of(&element, 1).as_str() {
            "counter" | "log" => {}
            "reject" => ends = true,
            "immediate" => {
                // The data of the expression, its value, its verdict, and the code of that.
                let inner = [2, 2, 2].iter().try_fold(element, |outer, kind| {
                    let found = outer.iter().find(|(known, _)| known == kind);
                    found.map(|(_, bytes)| attributes(bytes))
                });
                ends = inner.is_some_and(|verdict| number_of(&verdict, 1) == Some(VERDICT_DROP));
            }
            _ => return false,
        }
    }
    ends
}

/// Splits encoded attributes into types and values.
fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    /// Marks of nested values and of values in network byte order.
    const FLAGS: u16 = 0xc000;
    let mut found = Vec::new();
    while let [l0, l1, k0, k1, ..] = *bytes {
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let Some(value) = bytes.get(4..length) else { break };
        found.push((u16::from_ne_bytes([k0, k1]) & !FLAGS, value));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

fn text_of(attributes: &[(u16, &[u8])], kind: u16) -> String {
    let found = attributes.iter().find(|(known, _)| *known == kind).map_or(&[][..], |(_, bytes)| bytes);
    String::from_utf8_lossy(found).trim_end_matches('\0').to_owned()
}

fn number_of(attributes: &[(u16, &[u8])], kind: u16) -> Option<u32> {
    let (_, bytes) = attributes.iter().find(|(known, _)| *known == kind)?;
    Some(u32::from_be_bytes((*bytes).try_into().ok()?))
}

/// True when a table has the chain.
pub(super) fn has_chain(table: &str, chain: &str) -> Answer<bool> {
    let mut question = header(FAMILY_INET, 0);
    question.extend(text(1, table));
    question.extend(text(3, chain));
    match Netlink::open_netfilter()?.get(GET_CHAIN, &question) {
        Ok(_) => Ok(true),
        Err(NetlinkError(libc::ENOENT)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Header of a message (`struct nfgenmsg`).
fn header(family: u8, resource: u16) -> Vec<u8> {
    let [high, low] = resource.to_be_bytes();
    vec![family, 0, high, low]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(family: u8, hook: u32, policy: u32) -> Vec<u8> {
        let mut body = header(family, 0);
        body.extend(text(1, "filter"));
        body.extend(text(3, "FORWARD"));
        body.extend(nested(4, &[number(1, hook), number(2, 0)]));
        body.extend(number(5, policy));
        body
    }

    fn rule(expressions: &[Vec<u8>]) -> Vec<u8> {
        let list: Vec<Vec<u8>> = expressions.iter().map(|one| nested(1, std::slice::from_ref(one))).collect();
        let mut body = header(FAMILY_INET, 0);
        body.extend(text(2, "FORWARD"));
        body.extend(nested(4, &list));
        body
    }

    #[test]
    fn chains_for_forwarded_packets_are_read_with_their_policy() {
        let found = forward_chain(&chain(2, 2, 0)).unwrap();
        assert_eq!((found.family, found.table.as_str(), found.name.as_str()), (2, "filter", "FORWARD"));
        assert!(found.drops && !forward_chain(&chain(10, 2, 1)).unwrap().drops);
        // Another hook, and a family with other hooks.
        assert_eq!(forward_chain(&chain(2, 1, 0)), None);
        assert_eq!(forward_chain(&chain(7, 2, 0)), None);
        for length in 0..chain(2, 2, 0).len() {
            let _ = forward_chain(&chain(2, 2, 0)[..length]);
        }
    }

    #[test]
    fn a_rule_that_drops_everything_is_recognised() {
        let verdict = |code: u32| {
            let data = nested(2, &[nested(2, &[number(1, code)])]);
            [text(1, "immediate"), nested(2, &[number(1, 0), data])].concat()
        };
        let named = |name: &str| text(1, name);
        assert!(drops_all(&rule(&[named("counter"), verdict(0)])));
        assert!(drops_all(&rule(&[named("log"), named("reject")])));
        assert!(!drops_all(&rule(&[verdict(1)])));
        assert!(!drops_all(&rule(&[named("meta"), named("cmp"), verdict(0)])));
        assert!(!drops_all(&rule(&[])) && !drops_all(&[]));
    }
}
