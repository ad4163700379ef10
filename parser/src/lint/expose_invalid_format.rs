//! ExposeInvalidFormat: EXPOSE names ports of the container; they are published by options of `run`.

use super::{Findings, Rule, View};
use crate::ast::Kind;

pub(super) static RULE: Rule = Rule {
    name: "ExposeInvalidFormat",
    summary: "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release",
    page: Some("expose-invalid-format"),
    check,
};

fn check(view: &View<'_>, findings: &mut Findings) {
    for instruction in view.in_stages() {
        let Kind::Expose(ports) = &instruction.kind else { continue };
        for port in ports.iter().filter(|port| has_mapping(port.as_str())) {
            let message = format!(
                "EXPOSE instruction should not define an IP address or host-port mapping, found '{}'",
                port.as_str()
            );
            findings.add(port.span(), message);
        }
    }
}

/// True when the port contains a colon outside of `${…}`.
fn has_mapping(port: &str) -> bool {
    let mut depth = 0usize;
    port.chars().any(|c| {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ':' && depth == 0
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::RULE;

    #[test]
    fn problems_are_found() {
        let message =
            "2:8 EXPOSE instruction should not define an IP address or host-port mapping, found '8080:80'";
        check(&RULE, "FROM a\nEXPOSE 8080:80 ${P:-81}\n", &[message]);
    }
}
