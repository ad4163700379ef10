use super::*;
use crate::graph::{Checkout, CopySource, Download, ImageSource, MakeDir, RunLimits};
use crate::mode::ModeChange;
use kiln_image::digest::DiffId;
use std::collections::BTreeSet;

fn exec() -> Exec {
    Exec {
        arguments: vec!["a".into(), "b".into()],
        environment: vec!["X=1".into(), "Y=2".into()],
        proxies: Vec::new(),
        dir: "/".into(),
        user: String::new(),
        network: Network::Bridge,
        script: None,
        hosts: Vec::new(),
        hostname: "sandbox".into(),
        is_insecure: false,
        devices: Vec::new(),
        limits: RunLimits::default(),
        platform: None,
        mounts: Vec::new(),
        declared: Vec::new(),
    }
}

fn source(path: &str) -> CopySource {
    let place = kiln_parser::span::Span::default();
    CopySource { from: CopyFrom::Context(0), path: path.into(), place, unpack: false, origin: String::new() }
}

fn copy() -> Copy {
    Copy {
        sources: vec![source("/a")],
        inline: vec![("f".into(), "text".into())],
        destination: "/d/".into(),
        owner: None,
        mode: None,
        exclude: Vec::new(),
        parents: false,
        whole: false,
        epoch: None,
    }
}

fn tmpfs(target: &str, size: u64) -> StepMount {
    StepMount { target: target.into(), source: MountSource::Tmpfs { size }, readonly: false }
}

fn key(operation: Operation, base: &[&str]) -> Key {
    let base: Vec<Key> = base.iter().map(|key| Key((*key).to_owned())).collect();
    definition(&operation, &base, &[]).key()
}

/// An example of each operation with every field of its key and every recorded field.
fn whole_records() -> Vec<KeyInputs> {
    let digest = || Digest::of(b"x");
    let key = |text: &str| Key(text.to_owned());
    let whole_exec = Exec {
        script: Some(("EOF".into(), "#!x".into())),
        hosts: vec!["a".into()],
        is_insecure: true,
        devices: vec![("a.b/c=d".into(), true)],
        limits: RunLimits {
            shm_size: Some(1),
            ulimits: vec![("nofile".into(), 1, 2)],
            cgroup_parent: Some("x".into()),
            ..RunLimits::default()
        },
        platform: "linux/arm64".parse().ok(),
        mounts: vec![tmpfs("/a", 1)],
        ..exec()
    };
    let whole_copy = Copy {
        owner: Some("app".into()),
        mode: ModeChange::parse("644").ok(),
        exclude: vec!["x".into()],
        parents: true,
        whole: true,
        epoch: Some(1),
        ..copy()
    };
    let dir = MakeDir { path: "/a".into(), owner: String::new(), epoch: Some(1) };
    let download = |checksum| Download { url: "u".into(), name: "n".into(), checksum };
    let checkout = Checkout {
        remote: "r".into(),
        reference: String::new(),
        commit: String::new(),
        dir: String::new(),
        keeps_git: false,
        submodules: true,
        commit_times: false,
    };
    let image = ImageSource { reference: "i".into(), diff_ids: vec![DiffId(digest())] };
    let of = |operation: &Operation| definition(operation, &[key("b")], &[key("t")]);
    let mut copied = of(&Operation::Copy(Box::new(whole_copy.clone())));
    add_content(&mut copied, FilesDigest { digest: "d".into(), files: vec![("/f".into(), "e".into())] });
    let mut copied_by_definition = of(&Operation::Copy(Box::new(whole_copy)));
    add_trees(&mut copied_by_definition, &[key("t")]);
    let mut downloaded = of(&Operation::Download(download(None)));
    add_download(&mut downloaded, &digest(), 1);
    let mut checked_out = of(&Operation::Checkout(checkout));
    add_commit(&mut checked_out, "c");
    let mut records = vec![
        of(&Operation::Scratch),
        of(&Operation::Image(image)),
        of(&Operation::Exec(Box::new(whole_exec))),
        copied,
        copied_by_definition,
        of(&Operation::MakeDir(dir)),
        of(&Operation::Merge),
        downloaded,
        of(&Operation::Download(download(Some(digest())))),
        checked_out,
    ];
    records.iter_mut().for_each(|record| add_warning(record, "w"));
    records
}

/// Texts between backticks in a cell.
fn field_names(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).filter(|word| !word.starts_with('.')).map(str::to_owned).collect()
}

/// Table at the top of this file: for each kind of step the fields in the key, and those recorded with it.
fn table() -> BTreeMap<String, [BTreeSet<String>; 2]> {
    let rows = include_str!("../key.rs").lines().filter_map(|line| line.strip_prefix("//! | "));
    let rows = rows.filter(|row| !row.starts_with("Step"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').collect();
        (cells[0].trim().to_owned(), [field_names(cells[1]), field_names(cells[2])])
    })
    .collect()
}

#[test]
fn table_names_the_fields_of_each_key() {
    let mut table = table();
    let [every, every_record] = table.remove("every").unwrap();
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for record in whole_records() {
        let names = record.iter().map(|(name, _)| name.split(' ').next().unwrap_or_default().to_owned());
        found.entry(record.value("step").unwrap().to_owned()).or_default().extend(names);
    }
    let expected: BTreeMap<String, BTreeSet<String>> = table
        .into_iter()
        .map(|(kind, [in_key, recorded])| {
            let all = [&in_key, &recorded, &every, &every_record];
            (kind, all.into_iter().flatten().cloned().collect())
        })
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn recorded_fields_are_in_no_key() {
    let mut inputs = definition(&Operation::Copy(Box::new(copy())), &[], &[]);
    let content = |files| FilesDigest { digest: "d".into(), files };
    let key = add_content(&mut inputs.clone(), content(Vec::new()));
    assert_eq!(add_content(&mut inputs, content(vec![("/f".into(), "e".into())])), key);
}

/// Keys outlive the program that wrote them: a change of their bytes needs a change of [`VERSION`].
#[test]
fn bytes_are_fixed() {
    let mount = |source| StepMount { target: "/m".into(), source, readonly: false };
    let mounts = vec![
        mount(MountSource::Files(Files::Copy(1))),
        mount(MountSource::Cache {
            id: "a b".into(),
            given: Some("1:2 0700".into()),
            sharing: kiln_parser::mount::Sharing::Shared,
            mode: 0o700,
            owner: (1, 2),
            seed: None,
        }),
        mount(MountSource::Secret {
            id: "s".into(),
            required: true,
            file: Some((0o400, (0, 0))),
            variable: Some("V".into()),
        }),
        mount(MountSource::Ssh { id: "default".into(), required: false, socket: (0o600, (1, 1)) }),
    ];
    let texts: Vec<String> = mounts.iter().map(KeyText::key_text).collect();
    assert_eq!(
        texts,
        [
            "rw files copy 1",
            r#"rw cache "a b" of 1:2 0700"#,
            r#"rw secret "s" required file 0400 0:0 variable "V""#,
            r#"rw ssh "default" socket 0600 1:1"#,
        ]
    );
    let inputs = definition(&Operation::Exec(Box::new(Exec { mounts, ..exec() })), &[], &[]);
    assert_eq!(inputs.key().0, "28c8e0d71f15264a802625b8ce8cc124ff608dfad1893cc0d5e7232615da836a");
}

#[test]
fn every_listed_input_counts() {
    let run = |change: &dyn Fn(&mut Exec)| {
        let mut exec = exec();
        change(&mut exec);
        key(Operation::Exec(Box::new(exec)), &["base"])
    };
    let files = |change: &dyn Fn(&mut Copy)| {
        let mut copy = copy();
        change(&mut copy);
        key(Operation::Copy(Box::new(copy)), &["base"])
    };
    let dir = |path: &str, owner: &str| {
        let dir = MakeDir { path: path.into(), owner: owner.into(), epoch: None };
        key(Operation::MakeDir(dir), &["base"])
    };
    let keys = vec![
        run(&|_| {}),
        run(&|exec| exec.arguments = vec!["ab".into()]),
        run(&|exec| exec.environment.push("Z=3".into())),
        run(&|exec| exec.environment[0] = "X=2".into()),
        run(&|exec| exec.dir = "/x".into()),
        run(&|exec| exec.user = "app".into()),
        run(&|exec| exec.network = Network::None),
        run(&|exec| exec.network = Network::Host),
        run(&|exec| exec.hosts.push("a".into())),
        run(&|exec| exec.script = Some(("EOF".into(), "#!x".into()))),
        run(&|exec| exec.mounts.push(tmpfs("/a", 1))),
        run(&|exec| exec.mounts.push(tmpfs("/b", 1))),
        run(&|exec| exec.mounts.push(tmpfs("/a", 2))),
        key(Operation::Exec(Box::new(exec())), &["other"]),
        files(&|_| {}),
        run(&|exec| exec.hostname = "other".into()),
        run(&|exec| exec.is_insecure = true),
        run(&|exec| exec.devices.push(("a.b/c=d".into(), false))),
        run(&|exec| exec.limits.shm_size = Some(1)),
        run(&|exec| exec.limits.ulimits.push(("nofile".into(), 1, 2))),
        run(&|exec| exec.platform = "linux/arm64".parse().ok()),
        files(&|copy| copy.sources[0].from = CopyFrom::Input(1)),
        files(&|copy| copy.sources[0].unpack = true),
        files(&|copy| copy.parents = true),
        files(&|copy| copy.whole = true),
        files(&|copy| copy.epoch = Some(1)),
        files(&|copy| copy.sources.push(source("/b"))),
        files(&|copy| copy.inline[0].1 = "other".into()),
        files(&|copy| copy.inline[0].0 = "g".into()),
        files(&|copy| copy.destination = "/d".into()),
        files(&|copy| copy.owner = Some("app".into())),
        files(&|copy| copy.mode = ModeChange::parse("644").ok()),
        files(&|copy| copy.exclude.push("x".into())),
        dir("/a", ""),
        dir("/b", ""),
        dir("/a", "app"),
        key(Operation::Scratch, &[]),
        key(Operation::Merge, &["a", "b"]),
        key(Operation::Merge, &["b", "a"]),
    ];
    let distinct: BTreeSet<&Key> = keys.iter().collect();
    assert_eq!(distinct.len(), keys.len());
}

#[test]
fn nothing_else_counts() {
    let mut other = exec();
    other.proxies.push("HTTP_PROXY=x".into());
    other.environment.reverse();
    let same = key(Operation::Exec(Box::new(exec())), &["base"]);
    assert_eq!(key(Operation::Exec(Box::new(other)), &["base"]), same);
}

#[test]
fn differences_are_named() {
    let inputs = |entries: &[(&str, &str)]| {
        let mut inputs = KeyInputs::default();
        entries.iter().for_each(|(name, value)| inputs.add(*name, *value));
        inputs
    };
    let before = inputs(&[("a", "1"), ("b", "2"), ("c", "3")]);
    let now = inputs(&[("a", "1"), ("b", "4"), ("d", "5")]);
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        now.changes_since(&before),
        [
            InputChange { name: "b".into(), before: text("2"), now: text("4") },
            InputChange { name: "d".into(), before: None, now: text("5") },
            InputChange { name: "c".into(), before: text("3"), now: None },
        ]
    );
}
