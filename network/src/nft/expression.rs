//! Expressions of packet rules, encoded as bytes. They read packet fields into registers, compare them, look them up,
//! and act.

/// Number of the first 4-byte register; three more follow it, and so on.
pub(in super::super) const WORDS: u32 = 8;
/// Register with the verdict on the packet.
const VERDICT: u32 = 0;
/// First 16-byte register; it consists of the first four 4-byte registers.
pub(in super::super) const FIRST: u32 = 1;

pub(in super::super) const META_IIFNAME: u32 = 6;
pub(in super::super) const META_OIFNAME: u32 = 7;
pub(in super::super) const META_NFPROTO: u32 = 15;
pub(in super::super) const META_L4PROTO: u32 = 16;
pub(in super::super) const CT_STATE: u32 = 0;
pub(in super::super) const CT_STATUS: u32 = 2;

/// Longest interface name, with its NUL, in bytes.
const NAME_LENGTH: usize = 16;

pub(in super::super) type Expression = Vec<u8>;

/// Reads metadata of the packet.
pub(in super::super) fn meta(key: u32, register: u32) -> Expression {
    expression("meta", &[number(1, register), number(2, key)])
}

/// Reads state of the packet's connection.
pub(in super::super) fn connection(key: u32) -> Expression {
    expression("ct", &[number(1, FIRST), number(2, key)])
}

/// Reads from the network header.
pub(in super::super) fn network_header(offset: u32, length: u32, register: u32) -> Expression {
    payload(1, offset, length, register)
}

/// Reads from the transport header.
pub(in super::super) fn transport_header(offset: u32, length: u32, register: u32) -> Expression {
    payload(2, offset, length, register)
}

fn payload(base: u32, offset: u32, length: u32, register: u32) -> Expression {
    expression("payload", &[number(1, register), number(2, base), number(3, offset), number(4, length)])
}

/// Writes the first register to the transport header, and corrects the checksum at another offset.
pub(in super::super) fn write_transport_header(offset: u32, length: u32, checksum: u32) -> Expression {
    const INTERNET_CHECKSUM: u32 = 1;
    expression(
        "payload",
        &[
            number(5, FIRST),
            number(2, 2),
            number(3, offset),
            number(4, length),
            number(6, INTERNET_CHECKSUM),
            number(7, checksum),
        ],
    )
}

/// Sets the first register.
pub(in super::super) fn set(value: &[u8]) -> Expression {
    expression("immediate", &[number(1, FIRST), nested(2, &[attribute(1, value)])])
}

/// Exempts the packet from the tracking of connections.
pub(in super::super) fn untracked() -> Expression {
    expression("notrack", &[])
}

/// Continues only if the packet's destination is an address of this host.
pub(in super::super) fn destination_is_local() -> Vec<Expression> {
    const TYPE_OF_ADDRESS: u32 = 3;
    const OF_DESTINATION: u32 = 2;
    const LOCAL: u32 = 2;
    let read = expression("fib", &[number(1, FIRST), number(2, TYPE_OF_ADDRESS), number(3, OF_DESTINATION)]);
    vec![read, equal(&LOCAL.to_ne_bytes())]
}

/// Continues only if the first register holds this value.
pub(in super::super) fn equal(value: &[u8]) -> Expression {
    compare(0, value)
}

fn differs(value: &[u8]) -> Expression {
    compare(1, value)
}

fn compare(operator: u32, value: &[u8]) -> Expression {
    expression("cmp", &[number(1, FIRST), number(2, operator), nested(3, &[attribute(1, value)])])
}

/// Continues only if the first register has one of these bits.
pub(in super::super) fn has_any(bits: u32) -> Vec<Expression> {
    vec![masked(&bits.to_ne_bytes()), differs(&[0; 4])]
}

/// Masks the bits of the first register.
pub(in super::super) fn masked(mask: &[u8]) -> Expression {
    let nothing = vec![0; mask.len()];
    expression(
        "bitwise",
        &[
            number(1, FIRST),
            number(2, FIRST),
            number(3, mask.len() as u32),
            nested(4, &[attribute(1, mask)]),
            nested(5, &[attribute(1, &nothing)]),
        ],
    )
}

/// Continues only if the first register's content is in a set.
pub(in super::super) fn is_in(set: &str) -> Expression {
    expression("lookup", &[text(1, set), number(2, FIRST)])
}

/// Continues only if the first register's content is a key of a map, and replaces it with the data of the key.
pub(in super::super) fn mapped(map: &str) -> Expression {
    expression("lookup", &[text(1, map), number(2, FIRST), number(3, FIRST)])
}

/// Takes the verdict of a map for the first register's content.
pub(in super::super) fn decided_by(map: &str) -> Expression {
    expression("lookup", &[text(1, map), number(2, FIRST), number(3, VERDICT)])
}

/// Redirects the packet's connection to the address in one register and the port in another.
pub(in super::super) fn translate_destination(family: u8, address: u32, port: u32) -> Expression {
    const DESTINATION: u32 = 1;
    expression(
        "nat",
        &[
            number(1, DESTINATION),
            number(2, u32::from(family)),
            number(3, address),
            number(4, address),
            number(5, port),
            number(6, port),
        ],
    )
}

/// Translates the source address of the packet's connection to the address of the outgoing interface.
pub(in super::super) fn masquerade() -> Expression {
    expression("masq", &[])
}

pub(in super::super) fn accept() -> Expression {
    verdict(attribute_of_code(1))
}

pub(in super::super) fn drop_packet() -> Expression {
    verdict(attribute_of_code(0))
}

/// Returns to the calling chain.
pub(in super::super) fn back() -> Expression {
    verdict(attribute_of_code(-5))
}

/// Jumps to another chain.
pub(in super::super) fn jump(chain: &str) -> Expression {
    verdict(jump_data(chain))
}

fn verdict(data: Vec<u8>) -> Expression {
    expression("immediate", &[number(1, VERDICT), nested(2, &[data])])
}

fn attribute_of_code(code: i32) -> Vec<u8> {
    nested(2, &[number(1, code as u32)])
}

/// Jump as data of a map.
pub(in super::super) fn jump_data(chain: &str) -> Vec<u8> {
    const JUMP: i32 = -3;
    nested(2, &[number(1, JUMP as u32), text(2, chain)])
}

/// Interface name in the form of comparisons and look-ups.
pub(in super::super) fn interface(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(NAME_LENGTH, 0);
    bytes
}

/// List element with an expression's name and data.
fn expression(name: &str, data: &[Vec<u8>]) -> Expression {
    nested(1, &[text(1, name), nested(2, data)])
}

pub(in super::super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + value.len());
    bytes.extend(((4 + value.len()) as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

pub(in super::super) fn nested(kind: u16, parts: &[Vec<u8>]) -> Vec<u8> {
    const NESTED: u16 = 0x8000;
    attribute(kind | NESTED, &parts.concat())
}

pub(in super::super) fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}

pub(in super::super) fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_nested_attributes() {
        let expected: Vec<u8> = [
            &[36, 0, 1, 0x80][..],
            &[9, 0, 1, 0],
            b"meta\0\0\0\0",
            &[20, 0, 2, 0x80, 8, 0, 1, 0, 0, 0, 0, 1, 8, 0, 2, 0, 0, 0, 0, 7],
        ]
        .concat();
        assert_eq!(meta(META_OIFNAME, FIRST), expected);
        assert_eq!(text(3, "abc"), [8, 0, 3, 0, b'a', b'b', b'c', 0]);
    }
}
