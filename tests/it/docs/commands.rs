//! The commands that pages and the demo show: their targets, files, flags and variables exist.

use std::collections::BTreeSet;

use super::{flags_of_the_binary, pages, prose, read, words};
use crate::support::{repository, repository_file};

/// The code blocks of a page.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks: Vec<String> = Vec::new();
    let mut inside = false;
    for line in text.lines().map(str::trim_start) {
        if line.starts_with("```") {
            inside = !inside;
            if inside {
                blocks.push(String::new());
            }
        } else if inside {
            let block = blocks.last_mut().expect("a block was begun");
            block.push_str(line);
            block.push('\n');
        }
    }
    assert!(!inside, "a code block does not end:\n{text}");
    blocks
}

/// The code blocks and code spans of a page.
fn code(text: &str) -> Vec<String> {
    let prose = prose(text);
    let spans = prose.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    blocks(text)
        .into_iter()
        .chain(spans.map(ToOwned::to_owned))
        .collect()
}

/// Every page with its name.
fn named_pages() -> Vec<(String, String)> {
    let pages = pages().into_iter().map(|path| {
        let name = path.strip_prefix(repository()).unwrap().display().to_string();
        (name, read(path))
    });
    pages.collect()
}

fn targets(makefile: &str) -> BTreeSet<&str> {
    let phony = makefile.lines().filter_map(|line| line.strip_prefix(".PHONY: "));
    phony.flat_map(str::split_whitespace).collect()
}

/// What `make` is asked for in a piece of code.
fn made(code: &str) -> BTreeSet<&str> {
    code.lines()
        .filter_map(|line| line.strip_prefix("make "))
        .filter_map(|words| words.split_whitespace().next())
        .collect()
}

/// The paths in a piece of code that begin with a folder of the repository.
fn paths(code: &str) -> BTreeSet<&str> {
    const FOLDERS: [&str; 8] = [
        ".ci/",
        "benches/",
        "charts/",
        "docs/",
        "examples/",
        "src/",
        "tests/",
        "tools/",
    ];
    code.split(|c: char| {
        c.is_whitespace() || matches!(c, '@' | '=' | '"' | '\'' | '`' | '(' | ')' | ';' | ',')
    })
    .filter(|word| FOLDERS.iter().any(|folder| word.starts_with(folder)))
    .filter(|word| !word.contains(['*', '$', '<']))
    .map(|word| word.trim_end_matches(['.', ':']))
    .collect()
}

/// The variables in capitals that a script reads and does not set itself.
fn free_variables(script: &str) -> BTreeSet<&str> {
    let is_name = |c: char| c.is_ascii_uppercase() || c == '_';
    let read = script.match_indices('$').filter_map(|(at, _)| {
        let rest = script[at + 1..].trim_start_matches('{');
        let name = &rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())];
        (!name.is_empty()).then_some(name)
    });
    read.filter(|name| !script.contains(&format!("{name}=")))
        .collect()
}

/// The variables that the demo writes for scripts.
fn exported(demo: &str) -> BTreeSet<&str> {
    let lines = demo
        .lines()
        .filter_map(|line| line.trim().strip_prefix("printf 'export "));
    lines.filter_map(|line| line.split('=').next()).collect()
}

#[test]
fn each_make_target_that_is_shown_exists() {
    let makefile = read(repository_file("Makefile"));
    let targets = targets(&makefile);
    let mut shown = 0;
    for (page, text) in named_pages() {
        for code in code(&text) {
            for target in made(&code) {
                assert!(
                    targets.contains(target),
                    "{page}: make {target} is none of {targets:?}"
                );
                shown += 1;
            }
        }
    }
    assert!(shown > 5, "only {shown} calls of make are seen");
}

#[test]
fn each_file_of_the_repository_that_is_shown_exists() {
    let mut missing = Vec::new();
    let mut shown = BTreeSet::new();
    let mut look = |place: &str, code: &str| {
        for path in paths(code) {
            shown.insert(path.to_owned());
            if !repository_file(path).exists() {
                missing.push(format!("{place}: {path}"));
            }
        }
    };
    for (page, text) in named_pages() {
        for code in code(&text) {
            look(&page, &code);
        }
    }
    for script in ["Makefile", "tools/demo.sh"] {
        look(script, &read(repository_file(script)));
    }
    assert!(missing.is_empty(), "not in the repository: {missing:#?}");
    assert!(
        shown.contains("examples/quickstart/destination.yaml"),
        "{shown:#?}"
    );
}

#[test]
fn commands_beside_the_demo_use_what_its_environment_exports() {
    let demo = read(repository_file("tools/demo.sh"));
    let exported = exported(&demo);
    let (_, told) = demo
        .split_once("cat <<TEXT\n")
        .expect("what the demo tells at last");
    let (told, _) = told.split_once("\nTEXT\n").expect("the end of it");
    let mut scripts = vec![("what the demo tells".to_owned(), told.replace("\\$", "$"))];
    for (page, text) in named_pages() {
        scripts.extend(blocks(&text).into_iter().map(|block| (page.clone(), block)));
    }
    scripts.retain(|(_, script)| script.contains(". target/demo/env"));
    assert!(scripts.len() > 4, "only {} scripts are seen", scripts.len());
    for (place, script) in scripts {
        for variable in free_variables(&script) {
            assert!(
                exported.contains(variable),
                "{place}: ${variable} is none of {exported:?}:\n{script}"
            );
        }
    }
}

#[test]
fn the_demo_starts_the_operator_with_flags_it_has() {
    let demo = read(repository_file("tools/demo.sh"));
    let (_, call) = demo.split_once("postrider run ").expect("a call of the operator");
    let (call, _) = call.split_once("</dev/null").expect("the end of the call");
    let (given, known) = (words(call, "--", '-'), flags_of_the_binary());
    assert!(given.len() > 3, "only {given:?} are seen");
    for flag in given {
        assert!(known.contains(flag), "{flag} is none of {known:?}");
    }
}

#[test]
fn what_is_not_there_is_found() {
    let page = "Run `make chaos`:\n\n```sh\n. target/demo/env\nmake demo # all\nA=1 curl $A ${HOST} --data @docs/none.json\n```\n";
    let code = code(page);
    assert_eq!(code.len(), 2, "{code:?}");
    let (block, span) = (&code[0], &code[1]);
    assert_eq!((made(span), made(block)), (["chaos"].into(), ["demo"].into()));
    assert_eq!(paths(block), ["docs/none.json"].into());
    assert_eq!(free_variables(block), ["HOST"].into());
    assert_eq!(targets("x: y\n.PHONY: demo\ndemo:\n"), ["demo"].into());
    assert_eq!(
        exported("    printf 'export HOST=%q\\n' \"$host\"\n"),
        ["HOST"].into()
    );
}
