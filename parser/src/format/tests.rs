use super::*;
use proptest::prelude::*;

fn formatted(text: &str) -> String {
    let source = Source::new("Dockerfile", text);
    format(&crate::parse(&source), &source)
}

#[track_caller]
fn check(text: &str, expected: &str) {
    assert_eq!(formatted(text), expected, "{text:?}");
    assert_eq!(formatted(expected), expected, "again: {text:?}");
}

#[test]
fn words_are_one_blank_apart() {
    check("from   a  as  b\ncopy\t--chown=1   x   y\n", "FROM a AS b\nCOPY --chown=1 x y\n");
    check("ENV  A=\"x  y\"   B=2\nENV old  x  y\n", "ENV A=\"x  y\" B=2\nENV old  x  y\n");
    check("RUN   echo  'a  b'   c  \n", "RUN echo  'a  b'   c\n");
    check("CMD [ \"a\",\"b , c\" ]\n", "CMD [\"a\", \"b , c\"]\n");
    check(
        "run  --network=none   --mount=type=cache,target=/x  make\n",
        "RUN --network=none --mount=type=cache,target=/x make\n",
    );
    check("WORKDIR  /a  b\n", "WORKDIR /a  b\n");
}

#[test]
fn continued_lines_are_indented() {
    check(
        "RUN a   \\\n  && b \\\n\n      || c\\\n && d\n",
        "RUN a \\\n     && b \\\n         || c \\\n    && d\n",
    );
    check("RUN a \\\n# why\n\tb\n", "RUN a \\\n    # why\n    b\n");
    check("RUN a\\\nb\n", "RUN a\\\nb\n");
    check("RUN 'a \\\n  b'\n", "RUN 'a \\\n  b'\n");
    check("RUN a # it's \\\n  b\n", "RUN a # it's \\\n  b\n");
    check("RUN a \\\n  \\\n  b\n", "RUN a \\\n    b\n");
    check("RUN a \\\n", "RUN a\n");
    check("RUN a \\\n# tail\n", "RUN a\n# tail\n");
    check("LABEL a=1 \\\n      b=2   c=3\n", "LABEL a=1 \\\n    b=2 c=3\n");
}

#[test]
fn blanks_in_values_are_kept() {
    for text in [
        "ENV DEPS \\\n\t\tautoconf \\\n  file\n",
        "LABEL name \\\n\t\tvalue\n",
        "WORKDIR /a \\\n  b\n",
        "USER a \\\n  b\n",
        "MAINTAINER a \\\n\tb\n",
        "STOPSIGNAL SIG \\\n  TERM\n",
        "CMD a \\\n  b\n",
        "ENTRYPOINT a \\\n      b\n",
        "ONBUILD RUN a \\\n  b\n",
        "SHELL [\"pwsh\", \"-c\"]\nRUN a \\\n  b\n",
        "ONBUILD SHELL [\"python\"]\nRUN a \\\n  b\n",
        "RUN \"$(a \"b \\\n  c\")\"\n",
    ] {
        check(text, text);
    }
    check(
        "HEALTHCHECK --interval=1s \\\n  CMD a \\\n  b\n",
        "HEALTHCHECK --interval=1s \\\n    CMD a \\\n  b\n",
    );
    check(
        "SHELL [\"/bin/bash\", \"-c\"]\nRUN a \\\n  b\n",
        "SHELL [\"/bin/bash\", \"-c\"]\nRUN a \\\n    b\n",
    );
    check("RUN \"$(a \\\n  c)\"\n", "RUN \"$(a \\\n    c)\"\n");
    check("ENV A=b \\\n  C=d\n", "ENV A=b \\\n    C=d\n");
}

#[test]
fn lines_between_instructions_are_normalised() {
    check(
        "\n\n\nFROM a\n\n\n\nRUN b\n#c\n\nFROM d\n# e\nFROM f\n\n\n",
        "FROM a\n\nRUN b\n# c\n\nFROM d\n\n# e\nFROM f\n",
    );
    check("ARG V\nFROM a:$V\n  # indented\n  RUN b", "ARG V\nFROM a:$V\n# indented\nRUN b\n");
    check("#syntax=x\n#escape=`\nFROM a\nRUN b `\n  c\n", "# syntax=x\n# escape=`\nFROM a\nRUN b `\n  c\n");
    check("\n# escape=`\nFROM a\n", "\n# escape=`\nFROM a\n");
    check("\u{feff}FROM a\r\nRUN b \\\r\n  c\r\n", "FROM a\nRUN b \\\n    c\n");
    check("LABEL a\rb=c\r\n", "LABEL a\rb=c\n");
    check("####\n#!x\n#- y\nFROM a\n# end", "####\n#!x\n#- y\nFROM a\n# end\n");
    check("", "");
}

#[test]
fn heredocs_are_kept() {
    check(
        "FROM a\nrun   <<EOF  cat\n  x  \\\n\tEOF\nEOF\nRUN <<-E\n\ty\n\tE\nUSER b\n",
        "FROM a\nRUN <<EOF  cat\n  x  \\\n\tEOF\nEOF\nRUN <<-E\n\ty\n\tE\nUSER b\n",
    );
    check("COPY <<A  <<B   /x/\r\na  b\r\nA\r\nB\r\n", "COPY <<A <<B /x/\na  b\nA\nB\n");
    check("RUN <<EOF\nnever", "RUN <<EOF\nnever\n");
}

/// Meaning of a file without spans; runs of blanks in commands of RUN are reduced to one.
fn meaning(text: &str) -> Vec<String> {
    let parse = crate::parse(&Source::new("Dockerfile", text));
    let shown = |instruction: &Instruction| {
        let bodies: Vec<&str> = instruction.heredocs.iter().map(|heredoc| heredoc.content.as_str()).collect();
        let kind = format!("{:?} {bodies:?}", instruction.kind);
        let mut out = String::new();
        let mut rest = kind.as_str();
        while let Some(at) = [rest.find("\"@"), rest.find("span: ")].into_iter().flatten().min() {
            out.push_str(&rest[..at]);
            rest = rest[at..].trim_start_matches(|c: char| !c.is_ascii_digit());
            rest = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        }
        out.push_str(rest);
        let out = out.replace("Some(\"as)", "Some(\"AS)");
        if !matches!(instruction.kind, Kind::Run(_)) {
            return out;
        }
        out.replace("\\t", " ").split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
    };
    let directives = &parse.file.directives;
    let head = format!("{} {:?}", directives.escape, directives.check.as_ref().map(|check| &check.value));
    std::iter::once(head).chain(parse.file.instructions.iter().map(shown)).collect()
}

fn fragments() -> impl Strategy<Value = String> {
    let fragment = prop::sample::select(vec![
        "FROM a",
        "from  b  as c",
        "RUN x",
        "run\t--network=none  y",
        "COPY  a  b /c",
        "ENV A=1  B='x  y'",
        "ENV a  b",
        "LABEL \"k  k\"=v",
        "CMD [ \"a\" , \"b\" ]",
        "EXPOSE 80  81",
        "ARG  X=1",
        "ONBUILD  run z",
        "WORKDIR /a  b",
        "USER a \\\n  b",
        "STOPSIGNAL  c",
        "MAINTAINER a \\\n\tb",
        "CMD a \\\n  b",
        "HEALTHCHECK --interval=1s \\\n  CMD a",
        "SHELL [\"pwsh\"]",
        "\\\n",
        " \\\n",
        " \\ \n  ",
        "\\\n\t\t",
        "\n",
        "\n\n",
        "\r\n",
        "\r",
        "# c\n",
        "#c=d\n",
        "  # e\n",
        " && f",
        "'",
        "\"",
        "\\",
        "`",
        "  ",
        "\t",
        "<<EOF",
        "\nEOF\n",
        "\u{feff}",
        "# escape=`\n",
        "#!x\n",
        " # it's",
        "é",
        "--flag=x",
        "[",
        "#",
    ]);
    prop::collection::vec(fragment, 0..14).prop_map(|list| list.concat())
}

proptest! {
    #[test]
    fn formatting_keeps_the_meaning_and_is_stable(text in fragments()) {
        // A body without its terminator extends to the end of the file, to the last byte.
        let parse = crate::parse(&Source::new("Dockerfile", text.as_str()));
        prop_assume!(!parse.errors().any(|error| error.code == "unterminated-heredoc"));
        let once = formatted(&text);
        prop_assert_eq!(meaning(&once), meaning(&text), "{:?} became {:?}", text, once);
        prop_assert_eq!(formatted(&once), once.clone(), "{:?} became {:?}", text, once);
    }

    #[test]
    fn printing_restores_the_file(bytes in prop::collection::vec(any::<u8>(), 0..200), text in fragments()) {
        for bytes in [bytes, text.into_bytes()] {
            let source = Source::new("Dockerfile", bytes.clone());
            prop_assert_eq!(crate::parse(&source).file.print(&source), bytes);
        }
    }
}
