use super::super::member::Membership;
use super::*;
use domain::base::ParsedRecord;
use domain::base::name::ToName;
use domain::rdata::AllRecordData;
use proptest::prelude::*;

fn member(id: &str, memberships: &[(&str, &[&str], &[&str])]) -> Member {
    let membership = |(network, addresses, names): &(&str, &[&str], &[&str])| Membership {
        network: (*network).to_owned(),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
    };
    let networks = memberships.iter().map(membership).collect();
    Member { id: id.to_owned(), networks, servers: Vec::new(), forwards: true }
}

/// Three containers in two networks; the second one is in both.
fn members() -> Vec<Member> {
    vec![
        member("a1", &[("front", &["10.0.0.2", "fd00::2"], &["web", "a1", "pool"])]),
        member(
            "b2",
            &[
                ("front", &["10.0.0.3"], &["Proxy", "b2", "pool"]),
                ("back", &["10.1.0.3"], &["proxy", "gate"]),
            ],
        ),
        member("c3", &[("back", &["10.1.0.2"], &["my.db", "c3"])]),
    ]
}

fn query(name: &str, rtype: Rtype, edns: Option<(u16, u8)>) -> Vec<u8> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(0x1234);
    builder.header_mut().set_rd(true);
    let mut question = builder.question();
    question.push((Name::<Vec<u8>>::vec_from_str(name).unwrap(), rtype)).unwrap();
    let mut additional = question.additional();
    if let Some((size, version)) = edns {
        let fill = |opt: &mut domain::base::message_builder::OptBuilder<'_, Vec<u8>>| {
            opt.set_udp_payload_size(size);
            opt.set_version(version);
            Ok(())
        };
        additional.opt(fill).unwrap();
    }
    additional.finish()
}

/// An answer as text: code, flags, answers, OPT.
fn shown(answer: &[u8]) -> String {
    let message = Message::from_octets(answer).unwrap();
    let header = message.header();
    assert!(header.qr() && header.ra() && header.rd() && header.id() == 0x1234, "{header:?}");
    let mut shown = vec![message.opt_rcode().to_string()];
    shown.extend(header.tc().then(|| "TC".to_owned()));
    for record in message.answer().unwrap() {
        let record: ParsedRecord<'_, _> = record.unwrap();
        assert_eq!(record.ttl().as_secs(), TTL);
        assert_eq!(record.owner().to_vec(), message.sole_question().unwrap().qname().to_vec());
        let record = record.to_record::<AllRecordData<_, _>>().unwrap().unwrap();
        shown.push(format!("{} {}", record.rtype(), record.data()));
    }
    shown.extend(message.opt().map(|opt| format!("OPT {}", opt.udp_payload_size())));
    shown.join(", ")
}

fn verdict(asker: usize, query: &[u8], turn: usize) -> String {
    let members = members();
    let zone = Zone::new(members.iter());
    match zone.answer(&members[asker], query, Transport::Datagram, turn) {
        Verdict::Answer(answer) => shown(&answer),
        Verdict::Forward { limit } => format!("forward {limit}"),
        Verdict::Ignore => "ignore".to_owned(),
    }
}

#[track_caller]
fn check(asker: usize, name: &str, rtype: Rtype, expected: &str) {
    assert_eq!(verdict(asker, &query(name, rtype, None), 0), expected, "{name} {rtype}");
}

#[test]
fn names_of_the_own_networks_are_known() {
    check(0, "web", Rtype::A, "NOERROR, A 10.0.0.2");
    check(0, "WeB.Front", Rtype::AAAA, "NOERROR, AAAA fd00::2");
    check(0, "proxy", Rtype::A, "NOERROR, A 10.0.0.3");
    check(2, "proxy.back", Rtype::A, "NOERROR, A 10.1.0.3");
    check(2, "my.db", Rtype::A, "NOERROR, A 10.1.0.2");
    check(2, "my.db.back", Rtype::A, "NOERROR, A 10.1.0.2");
    // The first network of the container has the word.
    check(1, "proxy", Rtype::A, "NOERROR, A 10.0.0.3");
    check(1, "gate", Rtype::A, "NOERROR, A 10.1.0.3");
    check(0, "web", Rtype::ANY, "NOERROR, A 10.0.0.2, AAAA fd00::2");
}

#[test]
fn names_of_other_networks_are_unknown() {
    for name in ["my.db", "c3", "proxy.back", "gate", "example.org", "web.other", "nothing", "."] {
        check(0, name, Rtype::A, "forward 512");
    }
    check(2, "web", Rtype::A, "forward 512");
}

#[test]
fn known_names_without_such_records_have_none() {
    check(0, "proxy", Rtype::AAAA, "NOERROR");
    for rtype in [Rtype::MX, Rtype::SRV, Rtype::TXT, Rtype::PTR, Rtype::HTTPS] {
        check(0, "web", rtype, "NOERROR");
    }
    check(0, "example.org", Rtype::MX, "forward 512");
}

#[test]
fn addresses_have_names() {
    check(0, "2.0.0.10.in-addr.arpa", Rtype::PTR, "NOERROR, PTR web.front.");
    check(0, "3.0.0.10.IN-ADDR.arpa", Rtype::PTR, "NOERROR, PTR Proxy.front.");
    let six = format!("2.{}d.f.ip6.arpa", "0.".repeat(29));
    check(0, &six, Rtype::PTR, "NOERROR, PTR web.front.");
    for name in ["2.0.1.10.in-addr.arpa", "2.0.0.in-addr.arpa", "02.0.0.10.in-addr.arpa", "x.ip6.arpa"] {
        check(0, name, Rtype::PTR, "forward 512");
    }
}

#[test]
fn addresses_of_an_alias_are_rotated() {
    let ask = |turn| verdict(0, &query("pool", Rtype::A, None), turn);
    assert_eq!(ask(0), "NOERROR, A 10.0.0.2, A 10.0.0.3");
    assert_eq!(ask(1), "NOERROR, A 10.0.0.3, A 10.0.0.2");
    assert_eq!(ask(2), ask(0));
}

#[test]
fn clients_with_edns_get_edns() {
    let ask = |name, size, version| verdict(0, &query(name, Rtype::A, Some((size, version))), 0);
    assert_eq!(ask("web", 4096, 0), "NOERROR, A 10.0.0.2, OPT 1232");
    assert_eq!(ask("web", 4096, 1), "BADVERS, OPT 1232");
    assert_eq!(ask("example.org", 1232, 0), "forward 1232");
    assert_eq!(ask("example.org", 100, 0), "forward 512");
    assert_eq!(ask("example.org", 65_535, 0), "forward 4096");
}

#[test]
fn long_answers_are_truncated() {
    let many: Vec<String> = (0..200).map(|last| format!("10.0.2.{last}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let members = [member("a", &[("n", &many, &["all"])])];
    let zone = Zone::new(members.iter());
    let ask = |transport, edns| match zone.answer(&members[0], &query("all", Rtype::A, edns), transport, 0) {
        Verdict::Answer(answer) => (answer.len(), shown(&answer)),
        other => panic!("{other:?}"),
    };
    let (length, text) = ask(Transport::Datagram, None);
    assert!(length <= 512 && text.starts_with("NOERROR, TC, A 10.0.2.0"), "{length} {text}");
    let (length, text) = ask(Transport::Datagram, Some((1232, 0)));
    assert!((1200..=1232).contains(&length) && text.ends_with("OPT 1232"), "{length} {text}");
    let (_, text) = ask(Transport::Stream, None);
    assert!(!text.contains("TC") && text.matches(", A ").count() == 200, "{text}");
}

#[test]
fn internal_networks_know_their_own_names_only() {
    let mut members = members();
    members[0].forwards = false;
    let zone = Zone::new(members.iter());
    let ask = |name| match zone.answer(&members[0], &query(name, Rtype::A, None), Transport::Datagram, 0) {
        Verdict::Answer(answer) => shown(&answer),
        other => panic!("{other:?}"),
    };
    assert_eq!(ask("web"), "NOERROR, A 10.0.0.2");
    assert_eq!(ask("example.org"), "SERVFAIL");
}

#[test]
fn what_is_no_query_is_not_answered_as_one() {
    let good = query("web", Rtype::A, None);
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        verdict(0, &bytes, 0)
    };
    assert_eq!(changed(&|bytes| bytes.truncate(11)), "ignore");
    assert_eq!(changed(&|bytes| bytes[2] |= 0x80), "ignore");
    assert_eq!(changed(&|bytes| bytes[2] |= 0x20), "NOTIMP");
    assert_eq!(changed(&|bytes| bytes[5] = 0), "FORMERR");
    assert_eq!(changed(&|bytes| bytes[5] = 2), "FORMERR");
    assert_eq!(changed(&|bytes| bytes.truncate(good.len() - 1)), "FORMERR");
    assert_eq!(changed(&|bytes| bytes[11] = 1), "FORMERR");
    // A name that points to itself, and one to what follows.
    assert_eq!(changed(&|bytes| bytes[12..14].copy_from_slice(&[0xc0, 12])), "FORMERR");
    assert_eq!(changed(&|bytes| bytes[12..14].copy_from_slice(&[0xc0, 14])), "FORMERR");
    // Another class, a transfer.
    assert_eq!(changed(&|bytes| bytes[20] = 3), "forward 512");
    assert_eq!(verdict(0, &query("web", Rtype::AXFR, None), 0), "REFUSED");
}

#[test]
fn answers_belong_to_their_query() {
    let ours = query("example.org", Rtype::A, None);
    let answer = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = ours.clone();
        bytes[2] |= 0x80;
        change(&mut bytes);
        is_answer(&bytes, 0x1234, &ours)
    };
    assert!(answer(&|_| ()));
    assert!(answer(&|bytes| bytes[13] = b'E'));
    assert!(!answer(&|bytes| bytes[2] &= 0x7f));
    assert!(!answer(&|bytes| bytes[0] = 0));
    assert!(!answer(&|bytes| bytes[14] = b'y'));
    assert!(!answer(&|bytes| bytes.truncate(5)));
    // Without its question an answer can only be an error.
    let bare = |rcode: u8| {
        answer(&|bytes| {
            bytes.truncate(12);
            (bytes[3], bytes[5]) = (rcode, 0);
        })
    };
    assert!(bare(1) && !bare(0));
    let failure = failure(&query("example.org", Rtype::A, Some((1232, 0))));
    assert_eq!(shown(&failure), "SERVFAIL, OPT 1232");
    assert!(is_refusal(&failure) && !is_refusal(&ours));
    assert_eq!(shown(&truncated(&ours, &[0; 4096])), "NOERROR, TC");
}

proptest! {
    /// Random bytes, and queries with random changes, never panic, and answers are no longer than the client takes.
    #[test]
    fn malformed_queries_do_no_harm(
        noise in proptest::collection::vec(any::<u8>(), 0..600),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<proptest::sample::Index>(),
    ) {
        let members = members();
        let zone = Zone::new(members.iter());
        let mut changed = query("pool.front", Rtype::ANY, Some((600, 0)));
        for (index, byte) in changes {
            let length = changed.len();
            changed[index.index(length)] = byte;
        }
        changed.truncate(cut.index(changed.len() + 64));
        let header = [&[0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1], noise.as_slice()].concat();
        for bytes in [&noise, &changed, &header] {
            for transport in [Transport::Datagram, Transport::Stream] {
                if let Verdict::Answer(answer) = zone.answer(&members[0], bytes, transport, 7) {
                    prop_assert!(answer.len() >= 12 && answer.len() <= 600, "{} bytes", answer.len());
                    prop_assert_eq!(&answer[..2], &bytes[..2]);
                }
            }
            let _ = (failure(bytes), truncated(bytes, &noise), is_answer(&noise, 0x1234, bytes), is_refusal(bytes));
        }
    }
}
