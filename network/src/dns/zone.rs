//! Answers to queries. Pure: the bytes of a query and the members of networks lead to the bytes of an answer, or to the
//! decision that another server is asked.

use super::member::Member;
use domain::base::iana::{Class, Opcode, OptRcode, Rcode, Rtype};
use domain::base::message_builder::{AnswerBuilder, PushError, StaticCompressor};
use domain::base::opt::Opt;
use domain::base::{Header, Message, MessageBuilder, Name, ParsedName, Question, Ttl};
use domain::rdata::{A, Aaaa, Ptr};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Time for which a client may keep an answer, in seconds; that of the reference engine.
const TTL: u32 = 600;
/// Longest answer in a datagram to a client without EDNS (RFC 1035, section 2.3.4).
const LEAST_LIMIT: usize = 512;
/// Longest answer in a datagram to any client. Loopback takes more, but the forwarded ones come from afar.
const MOST_LIMIT: usize = 4096;
/// Longest datagram that this server asks for, in bytes: none of this length is fragmented on its way.
const OWN_SIZE: u16 = 1232;
/// Longest stream answer in bytes: its length has 16 bits.
const STREAM_LIMIT: usize = 65_535;

type Names<'a> = ParsedName<&'a [u8]>;
type Answers = AnswerBuilder<StaticCompressor<Vec<u8>>>;

/// Protocol of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Datagram,
    Stream,
}

/// What happens with a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// This answer is sent.
    Answer(Vec<u8>),
    /// Another server is asked; its answer may be as long as this.
    Forward { limit: usize },
    /// It is no query.
    Ignore,
}

/// Names and addresses of all members, by network.
#[derive(Debug, Default)]
pub(super) struct Zone {
    networks: HashMap<String, Directory>,
}

/// Names and addresses of a network.
#[derive(Debug, Default)]
struct Directory {
    /// Names in lower case.
    addresses: HashMap<Vec<u8>, Vec<IpAddr>>,
    names: HashMap<IpAddr, String>,
}

/// A query that is understood.
struct Query<'a> {
    question: Question<Names<'a>>,
    edns: Option<Edns>,
}

/// The client's part of EDNS (RFC 6891).
#[derive(Clone, Copy)]
struct Edns {
    size: u16,
    version: u8,
}

/// What is known of a name.
enum Known {
    Addresses(Vec<IpAddr>),
    Name(String),
    /// The name exists, and has no such records.
    Nothing,
}

impl Zone {
    /// Names of the members; of an address that several have, the name of the first.
    pub(super) fn new<'a>(members: impl Iterator<Item = &'a Member>) -> Zone {
        let mut zone = Zone::default();
        for member in members {
            for membership in &member.networks {
                let directory = zone.networks.entry(membership.network.clone()).or_default();
                for name in &membership.names {
                    for name in [name.clone(), format!("{name}.{}", membership.network)] {
                        let known = directory.addresses.entry(name.to_ascii_lowercase().into()).or_default();
                        let new = membership.addresses.iter().filter(|address| !known.contains(address));
                        let new: Vec<IpAddr> = new.copied().collect();
                        known.extend(new);
                    }
                }
                let Some(first) = membership.names.first() else { continue };
                for address in &membership.addresses {
                    let name = || format!("{first}.{}", membership.network);
                    directory.names.entry(*address).or_insert_with(name);
                }
            }
        }
        zone
    }

    /// Decides about a query of a member. `turn` rotates the addresses of a name that has several.
    pub(super) fn answer(&self, asker: &Member, query: &[u8], transport: Transport, turn: usize) -> Verdict {
        let Ok(message) = Message::from_octets(query) else { return Verdict::Ignore };
        let header = message.header();
        if header.qr() {
            return Verdict::Ignore;
        }
        if header.opcode() != Opcode::QUERY {
            return Verdict::Answer(bare(header, Rcode::NOTIMP));
        }
        let Some(query) = read(&message) else { return Verdict::Answer(bare(header, Rcode::FORMERR)) };
        let limit = limit(query.edns, transport);
        let respond = |rcode, fill: &dyn Fn(&mut Answers) -> Result<(), PushError>| {
            Verdict::Answer(respond(&message, query.edns, rcode, limit, fill))
        };
        if query.edns.is_some_and(|edns| edns.version > 0) {
            return respond(OptRcode::BADVERS, &|_| Ok(()));
        }
        // Transfers of zones have answers of many messages.
        if matches!(query.question.qtype(), Rtype::AXFR | Rtype::IXFR) {
            return respond(OptRcode::REFUSED, &|_| Ok(()));
        }
        match self.look_up(asker, &query.question) {
            Some(known) => respond(OptRcode::NOERROR, &|answers| known.push(answers, &query.question, turn)),
            None if asker.forwards => Verdict::Forward { limit },
            None => respond(OptRcode::SERVFAIL, &|_| Ok(())),
        }
    }

    /// What the networks of `asker` know of the question's name. `None` when they do not know it.
    fn look_up(&self, asker: &Member, question: &Question<Names<'_>>) -> Option<Known> {
        if !matches!(question.qclass(), Class::IN | Class::ANY) {
            return None;
        }
        let name = text(question.qname())?;
        let directories = || asker.networks.iter().filter_map(|of| self.networks.get(&of.network));
        if matches!(question.qtype(), Rtype::PTR | Rtype::ANY)
            && let Some(address) = reverse(&name)
            && let Some(name) = directories().find_map(|directory| directory.names.get(&address))
        {
            return Some(Known::Name(name.clone()));
        }
        let addresses = directories().find_map(|directory| directory.addresses.get(&name))?;
        let is_asked_for = |address: &&IpAddr| match question.qtype() {
            Rtype::A => address.is_ipv4(),
            Rtype::AAAA => address.is_ipv6(),
            Rtype::ANY => true,
            _ => false,
        };
        let addresses: Vec<IpAddr> = addresses.iter().filter(is_asked_for).copied().collect();
        Some(if addresses.is_empty() { Known::Nothing } else { Known::Addresses(addresses) })
    }
}

impl Known {
    fn push(
        &self,
        answers: &mut Answers,
        question: &Question<Names<'_>>,
        turn: usize,
    ) -> Result<(), PushError> {
        let (owner, ttl) = (question.qname(), Ttl::from_secs(TTL));
        match self {
            Known::Nothing => {}
            Known::Name(name) => {
                // A name that cannot be written is none.
                if let Ok(name) = Name::<Vec<u8>>::vec_from_str(name) {
                    answers.push((owner, Class::IN, ttl, Ptr::new(name)))?;
                }
            }
            Known::Addresses(addresses) => {
                let start = turn % addresses.len();
                for address in addresses[start..].iter().chain(&addresses[..start]) {
                    match *address {
                        IpAddr::V4(address) => answers.push((owner, Class::IN, ttl, A::new(address)))?,
                        IpAddr::V6(address) => answers.push((owner, Class::IN, ttl, Aaaa::new(address)))?,
                    }
                }
            }
        }
        Ok(())
    }
}

/// Reads all of a query. `None` when it is malformed, or has another number of questions than one.
fn read<'a>(message: &Message<&'a [u8]>) -> Option<Query<'a>> {
    let question = message.sole_question().ok()?;
    let (_, answers, authority, additional) = message.sections().ok()?;
    for record in answers.chain(authority) {
        record.ok()?;
    }
    let mut edns = None;
    for record in additional {
        let record = record.ok()?;
        if record.rtype() != Rtype::OPT {
            continue;
        }
        let opt = record.to_record::<Opt<_>>().ok()??;
        if edns.is_some() || !opt.owner().is_root() {
            return None;
        }
        let [_, version, _, _] = opt.ttl().as_secs().to_be_bytes();
        edns = Some(Edns { size: opt.class().to_int(), version });
    }
    Some(Query { question, edns })
}

/// Longest answer that the client takes.
fn limit(edns: Option<Edns>, transport: Transport) -> usize {
    match transport {
        Transport::Stream => STREAM_LIMIT,
        Transport::Datagram => {
            edns.map_or(LEAST_LIMIT, |edns| usize::from(edns.size).clamp(LEAST_LIMIT, MOST_LIMIT))
        }
    }
}

/// An answer to a query that is understood. Records that are more than `limit` are left out, which a flag reports.
fn respond(
    message: &Message<&[u8]>,
    edns: Option<Edns>,
    rcode: OptRcode,
    limit: usize,
    fill: &dyn Fn(&mut Answers) -> Result<(), PushError>,
) -> Vec<u8> {
    /// Length of an OPT record without options.
    const OPT: usize = 11;
    let target = StaticCompressor::new(Vec::with_capacity(LEAST_LIMIT));
    let Ok(builder) = MessageBuilder::from_target(target);
    let mut answers = builder.start_error(message, rcode.rcode());
    answers.header_mut().set_ra(true);
    answers.set_push_limit(limit - OPT);
    if fill(&mut answers).is_err() {
        answers.header_mut().set_tc(true);
    }
    answers.clear_push_limit();
    let mut additional = answers.additional();
    if edns.is_some() {
        // A vector takes any length.
        let _ = additional.opt(|opt| {
            opt.set_udp_payload_size(OWN_SIZE);
            opt.set_rcode(rcode);
            Ok(())
        });
    }
    additional.finish().into_target()
}

/// An answer without a question: that of the query cannot be repeated.
fn bare(header: Header, rcode: Rcode) -> Vec<u8> {
    let mut builder = MessageBuilder::new_vec();
    let own = builder.header_mut();
    own.set_id(header.id());
    own.set_opcode(header.opcode());
    own.set_qr(true);
    own.set_rd(header.rd());
    own.set_ra(true);
    own.set_rcode(rcode);
    builder.finish()
}

/// Answer to a query that was to be forwarded and that no server answers.
pub(super) fn failure(query: &[u8]) -> Vec<u8> {
    without_records(query, OptRcode::SERVFAIL, false)
}

/// Answer that leads the client to ask again by a stream.
pub(super) fn truncated(query: &[u8], answer: &[u8]) -> Vec<u8> {
    let rcode = Message::from_octets(answer).map_or(Rcode::NOERROR, |message| message.header().rcode());
    without_records(query, OptRcode::from_rcode(rcode), true)
}

fn without_records(query: &[u8], rcode: OptRcode, is_truncated: bool) -> Vec<u8> {
    let Ok(message) = Message::from_octets(query) else { return Vec::new() };
    let edns = read(&message).and_then(|query| query.edns);
    respond(&message, edns, rcode, LEAST_LIMIT, &|answers| {
        answers.header_mut().set_tc(is_truncated);
        Ok(())
    })
}

/// True when a message is the answer of a server to a query that has this id. The question must be the same, unless the
/// server reports an error without it.
pub(super) fn is_answer(answer: &[u8], id: u16, query: &[u8]) -> bool {
    let (Ok(answer), Ok(query)) = (Message::from_octets(answer), Message::from_octets(query)) else {
        return false;
    };
    let header = answer.header();
    if header.id() != id || !header.qr() || header.opcode() != Opcode::QUERY {
        return false;
    }
    if answer.header_counts().qdcount() == 0 {
        return header.rcode() != Rcode::NOERROR;
    }
    matches!((answer.sole_question(), query.sole_question()), (Ok(theirs), Ok(ours)) if theirs == ours)
}

/// True for an answer of a server that does not know: another one may.
pub(super) fn is_refusal(answer: &[u8]) -> bool {
    let rcode = Message::from_octets(answer).map(|message| message.header().rcode());
    rcode
        .is_ok_and(|rcode| matches!(rcode, Rcode::SERVFAIL | Rcode::REFUSED | Rcode::NOTIMP | Rcode::NOTAUTH))
}

/// Name in lower case with dots. `None` for one that no container can have.
fn text(name: &Names<'_>) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    for label in name.iter().filter(|label| !label.is_root()) {
        if !text.is_empty() {
            text.push(b'.');
        }
        if label.as_slice().contains(&b'.') {
            return None;
        }
        text.extend(label.as_slice().to_ascii_lowercase());
    }
    Some(text)
}

/// Address of a name below `in-addr.arpa` or `ip6.arpa`. `None` for other names.
fn reverse(name: &[u8]) -> Option<IpAddr> {
    let name = std::str::from_utf8(name).ok()?;
    if let Some(labels) = name.strip_suffix(".in-addr.arpa") {
        let labels: Vec<&str> = labels.split('.').rev().collect();
        return labels.join(".").parse::<Ipv4Addr>().ok().map(IpAddr::V4);
    }
    let labels: Vec<&str> = name.strip_suffix(".ip6.arpa")?.split('.').collect();
    if labels.len() != 32 || labels.iter().any(|label| label.len() != 1) {
        return None;
    }
    let digits: String = labels.iter().rev().copied().collect();
    u128::from_str_radix(&digits, 16).ok().map(|bits| Ipv6Addr::from(bits).into())
}

#[cfg(test)]
mod tests;
