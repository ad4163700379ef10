//! Image references, ports, and addresses of repositories: accepted texts are printed as texts that parse to the same
//! value.
#![no_main]

use kiln_image::platform::Platform;
use kiln_image::reference::Reference;
use kiln_parser::git::GitReference;
use kiln_parser::port;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(reference) = text.parse::<Reference>() {
        let shown = reference.to_string();
        assert_eq!(shown.parse::<Reference>().as_ref(), Ok(&reference), "{shown}");
        let familiar = reference.familiar();
        assert_eq!(familiar.parse::<Reference>().as_ref(), Ok(&reference), "{familiar}");
    }
    if let Ok(platform) = text.parse::<Platform>() {
        assert!(!platform.to_string().is_empty());
    }
    if let Some(Ok(git)) = GitReference::parse(text) {
        assert!(!git.remote.contains('#'), "{git:?}");
        git.fragment_form(true);
    }
    if let Ok(ports) = port::container_ports(text) {
        assert!(!ports.is_empty());
    }
});
