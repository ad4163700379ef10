//! Tests of the flags for mounts.

use super::*;

fn base() -> &'static Path {
    Path::new("/work")
}

fn host(path: &str, create: bool) -> Wanted {
    Wanted::Host { path: path.to_owned(), create }
}

fn named(name: &str) -> Wanted {
    Wanted::volume(Some(name.to_owned()))
}

#[test]
fn sources_of_volumes_are_told_apart() {
    let source = |text: &str| volume(text, base()).unwrap().source;
    assert_eq!(source("/a/../b:/c"), host("/b", true));
    assert_eq!(source("./x:/c"), host("/work/x", true));
    assert_eq!(source("..:/c"), host("/", true));
    assert_eq!(source("data:/c"), named("data"));
    assert_eq!(source("/c"), Wanted::volume(None));
    assert_eq!(volume("data:/a//b/../c/", base()).unwrap().target, "/a/c");
}

#[test]
fn options_of_volumes() {
    let read = volume("/a:/b:ro,z,rslave", base()).unwrap();
    assert!(read.read_only && read.mode == "ro,z,rslave" && read.propagation.as_deref() == Some("rslave"));
    let read = volume("data:/b:nocopy,U", base()).unwrap();
    assert!(matches!(read.source, Wanted::Volume { copy: false, .. }) && read.chown);
    for mode in ["zz", "ro,rw", "ro,ro", "", "z,Z", "nocopy,shared"] {
        let text = format!("/a:/b:{mode}");
        assert!(volume(&text, base()).is_err(), "{text}");
    }
    assert_eq!(
        volume("/a:/b:zz", base()).unwrap_err().to_string(),
        "invalid volume specification: '/a:/b:zz': invalid mode: zz"
    );
    for wrong in [
        "data:/b:shared",
        "/a:/b:nocopy",
        "a b:/c",
        "d:/c",
        "/a:b",
        "x",
        "/",
        "/a:/",
        ":/a",
        "/a::",
        "a:b:c:d",
    ] {
        assert!(volume(wrong, base()).is_err(), "{wrong}");
    }
}

#[test]
fn mounts_of_each_type() {
    let read =
        mount("type=bind,src=./s,dst=/d,readonly,bind-propagation=rslave,bind-nonrecursive", base()).unwrap();
    assert_eq!((read.source, read.target.as_str(), read.read_only), (host("/work/s", false), "/d", true));
    assert_eq!((read.propagation.as_deref(), read.below), (Some("rslave"), Below::Omitted));
    let read = mount("source=data,target=/d,volume-subpath=a/b,ro=false", base()).unwrap();
    assert!(matches!(&read.source, Wanted::Volume { name: Some(name), copy: false, .. } if name == "data"));
    assert_eq!((read.subpath.as_str(), read.read_only), ("a/b", false));
    let read = mount("type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770", base()).unwrap();
    assert_eq!(read.source, Wanted::Tmpfs(vec!["size=1048576".into(), "mode=1770".into()]));
    let read = mount("type=image,src=alpine:3,dst=/i,image-subpath=etc", base()).unwrap();
    assert_eq!((read.source, read.read_only), (Wanted::Image("alpine:3".into()), true));
    let options = "volume-opt=type=nfs,volume-opt=device=:/x,\"volume-opt=o=addr=10.0.0.1,rw\"";
    let read = mount(&format!("src=data,dst=/d,{options}"), base()).unwrap();
    let Wanted::Volume { options, .. } = read.source else { panic!("{:?}", read.source) };
    let options: Vec<String> = options.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(options, ["device=:/x", "o=addr=10.0.0.1,rw", "type=nfs"]);
    let read = mount("type=bind,\"src=/a,b\",dst=/d", base()).unwrap();
    assert_eq!(read.source, host("/a,b", false));
}

#[test]
fn wrong_mounts_are_explained() {
    let fault = |text: &str| match mount(text, base()) {
        Err(MountError::Mount(_, fault)) => fault.to_string(),
        other => panic!("{text}: {other:?}"),
    };
    for (text, expected) in [
        ("type=bind,src=/a", "target is required"),
        ("type=bind,dst=/a", "invalid mount config for type \"bind\": field Source must not be empty"),
        ("type=tmpfs,src=x,dst=/a", "invalid mount config for type \"tmpfs\": field Source must be empty"),
        ("type=bind,src=a,dst=/a", "invalid mount path: 'a' mount path must be absolute"),
        ("type=x,src=a,dst=/a", "mount type unknown: \"x\": it is bind, volume, tmpfs or image"),
        ("foo=bar,dst=/a", "unknown option 'foo' in 'foo=bar'"),
        ("type,dst=/a", "invalid field 'type' must be a key=value pair"),
        ("dst=/a,ro=maybe", "invalid value for readonly: maybe"),
        ("type=bind,src=/a,dst=/b,volume-nocopy", "cannot mix 'volume-*' options with mount type 'bind'"),
        ("src=vol,dst=/b,bind-propagation=shared", "cannot mix 'bind-*' options with mount type 'volume'"),
        ("type=bind,src=/a,dst=/b,bind-propagation=ro,x", "invalid value for bind-propagation: ro"),
        ("src=vol,dst=/", "invalid specification: destination can't be '/'"),
        (
            "src=vol,dst=/a,volume-subpath=../x",
            "invalid value for subpath: ../x: it must be a relative path within the source",
        ),
    ] {
        assert_eq!(fault(text), expected, "{text}");
    }
    assert!(fault("src=vol,dst=/a,volume-driver=nfs").contains("is not supported"));
    assert_eq!(fault("src=vol,dst=/a,volume-opt=type=nfs"), "missing required option: \"device\"");
    assert_eq!(fault("src=vol,dst=/a,volume-opt=nosuch"), "invalid option: \"nosuch\"");
}

#[test]
fn options_of_tmpfs() {
    let read = tmpfs("/run:size=1m,exec").unwrap();
    assert_eq!(
        (read.source, read.target.as_str()),
        (Wanted::Tmpfs(vec!["size=1m".into(), "exec".into()]), "/run")
    );
    for wrong in ["run", "/", "/a:foo", "/a:size", "/a:source=x"] {
        assert!(tmpfs(wrong).is_err(), "{wrong}");
    }
}
