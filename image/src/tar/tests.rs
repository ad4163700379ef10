use super::*;
use std::io::Read;

/// All entries of an archive with their contents.
fn read_all(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
    let mut reader = Reader::new(bytes);
    let mut found = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut content = Vec::new();
        reader.content().read_to_end(&mut content).map_err(|error| TarError::Io("read", error))?;
        found.push((entry, content));
    }
    Ok(found)
}

fn write_all(entries: &[(Entry, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, content) in entries {
        writer.begin(entry).unwrap();
        writer.content(content).unwrap();
    }
    writer.finish().unwrap()
}

fn file(name: &str, content: &[u8]) -> Entry {
    Entry {
        size: content.len() as u64,
        mode: 0o644,
        mtime: 1_700_000_000,
        ..Entry::new(EntryKind::File, name)
    }
}

fn names(bytes: &[u8]) -> Vec<String> {
    let entries = read_all(bytes).unwrap();
    entries.into_iter().map(|(entry, _)| String::from_utf8(entry.name).unwrap()).collect()
}

/// A bare header block for cases that ordinary writers do not produce.
fn raw_header(name: &str, flag: u8, size: u64, link: &str) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..107].copy_from_slice(b"0000755");
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[136..147].copy_from_slice(b"00000000000");
    block[156] = flag;
    block[157..157 + link.len()].copy_from_slice(link.as_bytes());
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn padded(data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    data.resize(data.len().div_ceil(BLOCK) * BLOCK, 0);
    data
}

#[test]
fn written_entries_are_read_back() {
    let long = format!("{}/{}", "d".repeat(90), "n".repeat(90));
    let unsplittable = "n".repeat(200);
    let mut special = file("ünïcode", b"abc");
    special.xattrs.insert(b"security.capability".to_vec(), vec![1, 0, 10, 255]);
    special.uid = 3_000_000;
    let mut link = Entry::new(EntryKind::Symlink, "link");
    link.link = "t".repeat(150).into_bytes();
    let mut device = Entry::new(EntryKind::CharDevice, "dev");
    (device.major, device.minor, device.mtime) = (1, 3, -5);
    let mut dir = Entry::new(EntryKind::Directory, "directory");
    dir.mode = 0o1777;
    let entries = vec![
        (dir, vec![]),
        (file(&long, b"x"), b"x".to_vec()),
        (file(&unsplittable, b""), vec![]),
        (special, b"abc".to_vec()),
        (link, vec![]),
        (device, vec![]),
    ];
    let borrowed: Vec<(Entry, &[u8])> = entries.iter().map(|(e, c)| (e.clone(), c.as_slice())).collect();
    let mut read = read_all(&write_all(&borrowed)).unwrap();
    assert_eq!(read[0].0.name, b"directory/");
    read[0].0.name.pop();
    assert_eq!(read, entries);
}

#[test]
fn the_tar_crate_reads_written_archives() {
    let long = format!("{}/{}", "d".repeat(120), "n".repeat(99));
    let bytes = write_all(&[(file("a", b"hello"), b"hello"), (file(&long, b"x"), b"x")]);
    let mut archive = ::tar::Archive::new(bytes.as_slice());
    let mut seen = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = String::new();
        entry.read_to_string(&mut content).unwrap();
        seen.push((entry.path().unwrap().to_string_lossy().into_owned(), content));
    }
    assert_eq!(seen, [("a".into(), "hello".into()), (long, "x".into())]);
}

#[test]
fn archives_of_the_tar_crate_are_read() {
    let mut builder = ::tar::Builder::new(Vec::new());
    let name = format!("{}/{}", "long".repeat(60), "x");
    let mut header = ::tar::Header::new_gnu();
    header.set_size(2);
    header.set_mode(0o600);
    header.set_cksum();
    builder.append_data(&mut header, &name, &b"hi"[..]).unwrap();
    let entries = read_all(&builder.into_inner().unwrap()).unwrap();
    assert_eq!((entries[0].0.name.as_slice(), entries[0].1.as_slice()), (name.as_bytes(), &b"hi"[..]));
}

/// Archives on which readers have disagreed; the expectation is the result of Go's reader.
#[test]
fn sizes_of_entries_without_content_are_ignored() {
    let tail = [raw_header("f", b'0', 0, ""), vec![0; 1024]].concat();
    let with = |head: Vec<u8>| [head, tail.clone()].concat();
    assert_eq!(names(&with(raw_header("d/", b'5', 4096, ""))), ["d/", "f"]);
    assert_eq!(names(&with(raw_header("l", b'1', 10, "x"))), ["l", "f"]);
    assert_eq!(names(&with(raw_header("l", b'2', 10, "x"))), ["l", "f"]);
    assert_eq!(names(&with(raw_header("old/", 0, 0, ""))), ["old/", "f"]);
}

#[test]
fn ends_of_archives_are_found_as_in_go() {
    let one = raw_header("f", b'0', 0, "");
    assert_eq!(names(&one), ["f"]);
    assert_eq!(names(&[one.clone(), vec![0; 512]].concat()), ["f"]);
    assert_eq!(names(&[one.clone(), vec![0; 1024], one.clone()].concat()), ["f"]);
    assert!(read_all(&[vec![0; 512], one.clone()].concat()).is_err());
    assert!(matches!(read_all(&one[..100]), Err(TarError::Truncated)));
    assert!(read_all(&[raw_header("f", b'0', 10, ""), vec![1; 5]].concat()).is_err());
    assert!(names(b"").is_empty());
}

#[test]
fn pax_records_override_headers_unless_empty() {
    let pax = |data: &[u8]| [raw_header("x", b'x', data.len() as u64, ""), padded(data)].concat();
    let case = |data: &[u8]| [pax(data), raw_header("short", b'0', 0, ""), vec![0; 1024]].concat();
    assert_eq!(names(&case(&pax::record("path", b"long"))), ["long"]);
    assert_eq!(names(&case(b"8 path=\n")), ["short"]);
    let global =
        [raw_header("g", b'g', 13, ""), padded(b"13 path=glob\n"), raw_header("f", b'0', 0, "")].concat();
    assert_eq!(names(&global), ["f"]);
    let sized = [
        pax(&pax::record("size", b"3")),
        raw_header("f", b'0', 0, ""),
        padded(b"abc"),
        raw_header("g", b'0', 0, ""),
    ]
    .concat();
    assert_eq!(names(&sized), ["f", "g"]);
    let time = read_all(&case(&pax::record("mtime", b"-5.5"))).unwrap();
    assert_eq!((time[0].0.mtime, time[0].0.mtime_nanos), (-6, 500_000_000));
    assert!(read_all(&case(b"8 path=x\n")).is_err());
    let huge = raw_header("x", b'x', (1 << 20) + 1, "");
    assert!(matches!(read_all(&huge), Err(TarError::Header { .. })));
}

#[test]
fn sparse_files_are_filled() {
    let map = padded(b"2\n0\n2\n6\n2\n");
    let data = [
        pax::record("GNU.sparse.major", b"1"),
        pax::record("GNU.sparse.minor", b"0"),
        pax::record("GNU.sparse.name", b"real"),
        pax::record("GNU.sparse.realsize", b"10"),
    ]
    .concat();
    let bytes = [
        raw_header("x", b'x', data.len() as u64, ""),
        padded(&data),
        raw_header("GNUSparseFile.0/real", b'0', map.len() as u64 + 4, ""),
        map,
        padded(b"abcd"),
        vec![0; 1024],
    ]
    .concat();
    let entries = read_all(&bytes).unwrap();
    assert_eq!((entries[0].0.name.as_slice(), entries[0].0.size), (&b"real"[..], 10));
    assert_eq!(entries[0].1, b"ab\0\0\0\0cd\0\0");
}

#[test]
fn base_256_numbers_are_parsed() {
    assert_eq!(reader::number(&[0x80, 0, 0, 0, 0, 0, 1, 0]), Some(256));
    assert_eq!(reader::number(&[0xff; 8]), Some(-1));
    assert_eq!(reader::number(b"0000017\0"), Some(15));
    assert_eq!(reader::number(b"   17 \0\0"), Some(15));
    assert_eq!(reader::number(b"00x0017\0"), None);
    assert_eq!(reader::number(&[0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), None);
}

/// Truncated to 32 bits, a larger uid would be another one: 2^32 would be 0.
#[test]
fn ids_out_of_range_are_refused() {
    let pax = |key: &str, value: &str| {
        let data = pax::record(key, value.as_bytes());
        [raw_header("x", b'x', data.len() as u64, ""), padded(&data), raw_header("f", b'0', 0, "")].concat()
    };
    assert_eq!(read_all(&pax("uid", "4294967294")).unwrap()[0].0.uid, 4_294_967_294);
    for value in ["4294967295", "4294967296", "-1", "9223372036854775807"] {
        assert!(matches!(read_all(&pax("uid", value)), Err(TarError::Header { .. })), "{value}");
        assert!(matches!(read_all(&pax("gid", value)), Err(TarError::Header { .. })), "{value}");
    }
    // 2^32 in base 256, in the fields of uid and of gid.
    for at in [108, 116] {
        let mut block = raw_header("f", b'0', 0, "");
        block[at..at + 8].copy_from_slice(&[0x80, 0, 0, 1, 0, 0, 0, 0]);
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        assert!(matches!(read_all(&block), Err(TarError::Header { .. })), "{at}");
    }
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(0u8..255, 0..3000)) {
        let _ = read_all(&bytes);
    }

    #[test]
    fn any_entry_is_preserved_by_a_round_trip(
        name in "[a-zé/]{1,300}",
        mode in 0u32..0o10000,
        uid in 0u32..u32::MAX,
        mtime in -10_000i64..20_000_000_000,
        content in proptest::collection::vec(0u8..255, 0..2000),
    ) {
        let entry = Entry { mode, uid, mtime, size: content.len() as u64, ..Entry::new(EntryKind::File, name) };
        let read = read_all(&write_all(&[(entry.clone(), &content)])).unwrap();
        proptest::prop_assert_eq!(read, vec![(entry, content)]);
    }
}

/// Archive of one sparse file of `size` bytes, with `data` at each of `offsets`.
fn sparse(size: u64, data: &[u8], offsets: &[u64]) -> Vec<u8> {
    let map: Vec<String> = offsets.iter().map(|offset| format!("{offset},{}", data.len())).collect();
    let records: Vec<u8> = [
        pax::record("GNU.sparse.map", map.join(",").as_bytes()),
        pax::record("GNU.sparse.name", b"big"),
        pax::record("GNU.sparse.numblocks", offsets.len().to_string().as_bytes()),
        pax::record("GNU.sparse.size", size.to_string().as_bytes()),
    ]
    .concat();
    let padded = |bytes: &[u8]| [bytes, &vec![0; bytes.len().next_multiple_of(BLOCK) - bytes.len()]].concat();
    let content = data.repeat(offsets.len());
    [
        raw_header("pax", b'x', records.len() as u64, ""),
        padded(&records),
        raw_header("GNUSparseFile.0/big", b'0', content.len() as u64, ""),
        padded(&content),
        vec![0; 2 * BLOCK],
    ]
    .concat()
}

#[test]
fn holes_can_be_skipped() {
    let bytes = sparse(1 << 29, b"data", &[1 << 20, 1 << 28]);
    let mut reader = Reader::new(&bytes[..]);
    assert_eq!(reader.next_entry().unwrap().unwrap().size, 1 << 29);
    let mut content = reader.content();
    let mut four = [0; 4];
    assert_eq!(content.skip_hole(), 1 << 20);
    assert_eq!(content.skip_hole(), 0);
    content.read_exact(&mut four).unwrap();
    assert_eq!(&four, b"data");
    assert_eq!(content.skip_hole(), (1 << 28) - (1 << 20) - 4);
    content.read_exact(&mut four).unwrap();
    assert_eq!(content.skip_hole(), (1 << 28) - 4);
    assert_eq!(content.read(&mut four).unwrap(), 0);
    assert_eq!(content.skip_hole(), 0);
}

#[test]
fn excessive_holes_are_refused() {
    for (bytes, is_refused) in [
        (sparse(1 << 29, b"", &[]), false),
        (sparse(64 << 30, b"", &[]), true),
        (sparse(i64::MAX as u64, b"x", &[5]), true),
        (sparse(u64::MAX, b"", &[]), true),
        // Many small ones count together.
        (sparse(1 << 29, b"", &[])[..1536].repeat(3), true),
    ] {
        let mut reader = Reader::new(&bytes[..]);
        let result = loop {
            match reader.next_entry() {
                Ok(Some(_)) => {}
                Ok(None) => break Ok(()),
                Err(error) => break Err(error.to_string()),
            }
        };
        assert_eq!(result.is_err(), is_refused, "{result:?}");
        assert!(result.is_ok() || result.as_ref().unwrap_err().contains("250 times"), "{result:?}");
    }
}

/// GNU archives with a label (`tar --label`), and incremental ones (`tar -g`), which list the members of a directory as
/// its content.
#[test]
fn labels_are_skipped_and_listed_directories_are_directories() {
    let mut archive = raw_header("the label", b'V', 0, "");
    archive.extend(raw_header("d/", b'D', 5, ""));
    archive.extend(padded(b"Yf\0\0\0"));
    archive.extend(raw_header("d/f", b'0', 1, ""));
    archive.extend(padded(b"x"));
    archive.extend([0; 2 * BLOCK]);
    let found = read_all(&archive).unwrap();
    let shown: Vec<_> = found
        .iter()
        .map(|(entry, content)| {
            (entry.kind, String::from_utf8_lossy(&entry.name).into_owned(), content.len())
        })
        .collect();
    assert_eq!(shown, [(EntryKind::Directory, "d/".to_owned(), 0), (EntryKind::File, "d/f".to_owned(), 1)]);
}
