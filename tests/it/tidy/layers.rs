//! The layers are `api` → `domain` → `engine` → `adapters` → application: a file may name what is left of it and
//! nothing else.
//!
//! One package cannot lean on Cargo for that, so this test reads every path a file names, grouped imports included, and
//! compares it with the tables below.

use std::sync::LazyLock;

use super::source::{Named, Source};
use super::{assert_none, breaches_of_all};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Layer {
    Api,
    Domain,
    Engine,
    Adapters,
    Application,
}

use Layer::{Adapters, Api, Application, Domain, Engine};

/// The layer of a module right below the crate's root.
fn layer_of_module(module: &str) -> Option<Layer> {
    Some(match module {
        "api" => Api,
        "domain" => Domain,
        "engine" => Engine,
        "adapters" => Adapters,
        "app" | "bin" | "cli" | "lib" | "main" | "telemetry" => Application,
        _ => return None,
    })
}

/// Which layers may name a dependency of Cargo.toml. `None`: the dependency is missing in this table.
fn may_use(dependency: &str, layer: Layer, path: &str) -> Option<bool> {
    Some(match dependency {
        "jiff" | "serde" | "serde_json" => true,
        "k8s_openapi" | "kube" | "schemars" => layer == Api || layer >= Adapters,
        "base64" | "bytes" | "cel" | "crc32fast" | "flate2" | "hex" | "hmac" | "http" | "ipnet"
        | "jsonschema" | "ring" | "sha1" | "sha2" | "strum" | "subtle" | "thiserror" | "url" | "uuid"
        | "zeroize" => layer >= Domain,
        "async_trait" | "futures" | "parking_lot" | "prometheus_client" | "rand" | "rustix" | "tokio"
        | "tokio_util" | "tracing" => layer >= Engine,
        "rusqlite" => {
            path.starts_with("src/engine/queue/sqlite") || path.starts_with("src/engine/deliveries/sqlite")
        }
        "rustls" => layer >= Adapters || path == "src/domain/tls.rs",
        "async_nats" => path.starts_with("src/engine/queue/nats"),
        "h2"
        | "http_body_util"
        | "hyper"
        | "hyper_util"
        | "lettre"
        | "rustls_native_certs"
        | "tokio_rustls"
        | "tower"
        | "tower_service"
        | "webpki_roots" => layer >= Adapters,
        "anyhow" | "clap" | "clap_complete" | "indicatif" | "mimalloc" | "serde_saphyr"
        | "tracing_appender" | "tracing_subscriber" => layer == Application,
        _ => return None,
    })
}

/// What the two pure layers must not name, as beginnings of paths.
const IMPURE: &[&str] = &[
    "std::env",
    "std::fs",
    "std::net",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "jiff::Timestamp::now",
    "jiff::Zoned::now",
    "uuid::Uuid::new_v4",
    "uuid::Uuid::new_v7",
    "uuid::Uuid::now_v6",
    "uuid::Uuid::now_v7",
    "uuid::Timestamp::now",
];

/// Modules that hold something impure and go by another name once they are imported as a whole.
const HIDING: &[&str] = &["std", "std::*", "std::time", "std::time::*"];

/// Plain values that live in a module of [`IMPURE`].
const PURE: &[&str] = &[
    "std::net::AddrParseError",
    "std::net::IpAddr",
    "std::net::Ipv4Addr",
    "std::net::Ipv6Addr",
    "std::net::SocketAddr",
];

/// Functions that read the clock or a source of randomness, by the end of their path.
const IMPURE_CALLS: &[&str] = &[
    "Timestamp::now",
    "Zoned::now",
    "SystemTime::now",
    "Instant::now",
    "Uuid::new_v4",
    "Uuid::new_v7",
    "Uuid::now_v7",
];

/// Kubernetes types are data to the `api` layer; these are not.
const CLIENT: &[&str] = &[
    "kube::Api",
    "kube::Client",
    "kube::Config",
    "kube::client",
    "kube::config",
    "kube::runtime",
];

static DEPENDENCIES: LazyLock<Vec<String>> = LazyLock::new(|| dependencies("[dependencies]"));
static DEV_DEPENDENCIES: LazyLock<Vec<String>> = LazyLock::new(|| dependencies("[dev-dependencies]"));

/// The crate names in one table of Cargo.toml.
fn dependencies(table: &str) -> Vec<String> {
    include_str!("../../../Cargo.toml")
        .lines()
        .skip_while(|line| line.trim() != table)
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name.trim().replace('-', "_"))
        .collect()
}

fn begins_with(path: &str, beginning: &str) -> bool {
    path.strip_prefix(beginning)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Every breach of the layer rule in one file; `path` is relative to the repository's root.
fn layer_breaches(path: &str, text: &str, for_tests: bool) -> Vec<String> {
    let below_root = path.strip_prefix("src/").unwrap_or(path);
    let module = below_root
        .split('/')
        .next()
        .unwrap_or_default()
        .trim_end_matches(".rs");
    let Some(layer) = layer_of_module(module) else {
        return vec![format!("{path}: `{module}` belongs to no layer")];
    };
    let is_layer_root = !below_root.contains('/');
    let source = Source::read(text, for_tests);
    let mut breaches = Vec::new();
    for Named {
        path: named,
        line,
        in_test,
        inline_depth,
    } in source.names()
    {
        let mut breach = |text: String| breaches.push(format!("{path}:{line}: {text}"));
        if named.contains("super::super") {
            breach("`super::super` is banned; name it from `crate`".to_owned());
        }
        let mut words = named.split("::");
        let head = words.next().unwrap_or_default();
        let at_root = head == "super" && is_layer_root && *inline_depth == 0;
        if head == "crate" || head == "postrider" || at_root {
            let Some(other) = words.next() else { continue };
            match layer_of_module(other) {
                Some(other_layer) if other_layer > layer => {
                    breach(format!("{layer:?} must not name `{named}` of {other_layer:?}"));
                }
                None if layer < Application => breach(format!("`{named}` hides its layer")),
                _ => {}
            }
        } else if DEPENDENCIES.iter().any(|dependency| dependency == head) {
            match may_use(head, layer, path) {
                Some(true) => {}
                Some(false) => breach(format!("{layer:?} must not use the crate `{head}` (`{named}`)")),
                None => breach(format!("the crate `{head}` is in no row of the layer table")),
            }
        } else if !in_test && DEV_DEPENDENCIES.iter().any(|dependency| dependency == head) {
            breach(format!("`{head}` is for tests only (`{named}`)"));
        }
        if layer <= Domain && !in_test {
            let impure = IMPURE.iter().any(|impure| begins_with(named, impure))
                || IMPURE_CALLS
                    .iter()
                    .any(|call| named == call || named.ends_with(&format!("::{call}")))
                || HIDING.contains(&named.as_str());
            if impure && !PURE.iter().any(|pure| begins_with(named, pure)) {
                breach(format!("{layer:?} is pure and must not name `{named}`"));
            }
        }
        if layer == Api && CLIENT.iter().any(|client| begins_with(named, client)) {
            breach(format!("Api describes objects and must not name `{named}`"));
        }
    }
    if layer <= Domain {
        for line in source.lines_of_word("async") {
            breaches.push(format!("{path}:{line}: {layer:?} must not be async"));
        }
    }
    breaches
}

#[test]
fn each_layer_names_only_what_is_left_of_it() {
    assert_none(&breaches_of_all(layer_breaches));
}

#[test]
fn each_dependency_has_its_layer() {
    let missing = DEPENDENCIES
        .iter()
        .filter(|name| may_use(name, Application, "src/app.rs").is_none());
    assert_none(
        &missing
            .map(|name| format!("`{name}` is in no row of `may_use`"))
            .collect::<Vec<_>>(),
    );
    assert!(
        DEPENDENCIES.iter().any(|name| name == "tokio"),
        "Cargo.toml is not read right"
    );
    assert!(
        DEV_DEPENDENCIES.iter().any(|name| name == "proptest"),
        "Cargo.toml is not read right"
    );
}

/// Checks that the text breaks the layer rule and that the message names the word.
#[track_caller]
fn breaks(path: &str, text: &str, word: &str) {
    let breaches = layer_breaches(path, text, false);
    assert!(
        breaches.iter().any(|breach| breach.contains(word)),
        "{path}: `{text}` passes: {breaches:?}"
    );
}

#[track_caller]
fn passes(path: &str, text: &str) {
    assert_none(&layer_breaches(path, text, false));
}

#[test]
fn naming_a_layer_to_the_right_is_a_breach() {
    breaks(
        "src/api/v1alpha1.rs",
        "use crate::domain::event::Event;",
        "crate::domain",
    );
    breaks(
        "src/domain/event.rs",
        "use crate::engine::Engine;",
        "crate::engine",
    );
    breaks(
        "src/engine/queue.rs",
        "use crate::adapters::http;",
        "crate::adapters",
    );
    breaks("src/adapters/http.rs", "use crate::app::App;", "crate::app");
    breaks("src/adapters/http.rs", "use crate::cli::Settings;", "crate::cli");
    passes("src/domain/event.rs", "use crate::api::v1alpha1::EventProject;");
    passes(
        "src/adapters/http.rs",
        "use crate::{api::Group, domain::event::Event, engine::Engine};",
    );
    passes("src/app.rs", "use crate::{adapters::http, cli::Settings};");
}

#[test]
fn a_layer_is_seen_in_every_way_to_name_it() {
    breaks(
        "src/domain/a.rs",
        "use crate::{api::A, engine::g};",
        "crate::engine::g",
    );
    breaks(
        "src/domain/a.rs",
        "use crate::{\n    api::{A, B},\n    // why\n    engine::{self, queue::{Queue, Lease}},\n};",
        ":4:",
    );
    breaks(
        "src/domain/a.rs",
        "fn f() -> crate::engine::Engine { panic!() }",
        "crate::engine::Engine",
    );
    breaks(
        "src/domain/a.rs",
        "pub(crate) use crate::engine as machine;",
        "crate::engine",
    );
    breaks(
        "src/domain/a.rs",
        "macro_rules! m { () => { $crate::engine::start() } }",
        "crate::engine",
    );
    breaks(
        "src/domain/a.rs",
        "#[serde(with = \"crate::engine::text\")] struct S;",
        "crate::engine",
    );
    breaks(
        "src/domain/a.rs",
        "use postrider::engine::Engine;",
        "postrider::engine",
    );
    breaks("src/domain/a.rs", "use crate::*;", "crate::*");
    breaks("src/domain/a.rs", "use crate::Engine;", "hides");
    breaks("src/domain.rs", "use super::engine::Engine;", "super::engine");
    breaks(
        "src/domain/a.rs",
        "#[cfg(test)] mod tests { use crate::engine::Engine; }",
        "crate::engine",
    );
    breaks(
        "src/domain/a.rs",
        "use super::super::engine::Engine;",
        "super::super",
    );
    breaks(
        "src/domain/a.rs",
        "use super::{super::engine, b};",
        "super::super",
    );
    passes("src/domain.rs", "mod tests { use super::Event; }");
    passes(
        "src/domain/a.rs",
        "// crate::engine\n/* crate::engine /* nested */ */ const S: &str = \"see crate::engine\";",
    );
    passes(
        "src/domain/a.rs",
        "const S: &str = r#\"\"crate::engine\"#; const C: char = '\"'; fn f<'a>(x: &'a str) {}",
    );
}

#[test]
fn a_file_outside_the_layers_is_a_breach() {
    breaks("src/util.rs", "", "no layer");
    breaks("src/helpers/text.rs", "", "no layer");
    passes("src/bin/kubectl-postrider.rs", "use clap::Parser;");
}

#[test]
fn a_crate_beyond_the_layer_is_a_breach() {
    breaks("src/domain/a.rs", "use tokio::time::sleep;", "tokio");
    breaks(
        "src/domain/a.rs",
        "use {bytes::Bytes, tokio::time::sleep};",
        "tokio",
    );
    breaks("src/domain/a.rs", "fn f() { tracing::info!(\"x\") }", "tracing");
    breaks("src/domain/a.rs", "use ::rand::Rng;", "rand");
    breaks("src/domain/a.rs", "extern crate hyper;", "hyper");
    breaks("src/domain/a.rs", "use kube::ResourceExt;", "kube");
    breaks("src/domain/a.rs", "use rand as dice;", "rand");
    breaks("src/domain/a.rs", "use proptest::prelude::*;", "tests only");
    breaks("src/api/a.rs", "use thiserror::Error;", "thiserror");
    breaks(
        "src/api/a.rs",
        "use kube::{CustomResource, Client};",
        "kube::Client",
    );
    breaks("src/engine/a.rs", "use kube::Client;", "kube");
    breaks("src/adapters/a.rs", "use reqwest::Client;", "tests only");
    breaks("src/engine/a.rs", "use hyper::Request;", "hyper");
    breaks("src/engine/worker.rs", "use rusqlite::Connection;", "rusqlite");
    breaks("src/adapters/a.rs", "use rusqlite::Connection;", "rusqlite");
    breaks("src/adapters/a.rs", "use anyhow::Context;", "anyhow");
    passes(
        "src/domain/a.rs",
        "use {hmac::Mac, sha2::Sha256, url::Url, uuid::Uuid}; fn f(x: X) { x.tokio() }",
    );
    passes(
        "src/domain/a.rs",
        "#[cfg(test)]\nmod tests { use proptest::prelude::*; }",
    );
    assert_none(&layer_breaches(
        "src/domain/a/tests.rs",
        "use proptest::prelude::*;",
        true,
    ));
    passes(
        "src/api/a.rs",
        "use kube::CustomResource; use schemars::JsonSchema;",
    );
    passes("src/engine/queue/sqlite.rs", "use rusqlite::Connection;");
    passes("src/engine/queue/sqlite/writer.rs", "use rusqlite::Connection;");
    passes(
        "src/engine/deliveries/sqlite/store.rs",
        "use rusqlite::Connection;",
    );
    passes(
        "src/adapters/a.rs",
        "use kube::Client; use tokio::time::sleep; use hyper::Request;",
    );
}

#[test]
fn the_pure_layers_see_no_clock_file_or_network() {
    breaks("src/domain/a.rs", "use std::time::SystemTime;", "SystemTime");
    breaks(
        "src/domain/a.rs",
        "use std::{fmt, time::{Duration, Instant}};",
        "Instant",
    );
    breaks("src/domain/a.rs", "use std::time;", "std::time");
    breaks("src/domain/a.rs", "use std::time::{self, Duration};", "std::time");
    breaks("src/domain/a.rs", "use std::net::TcpStream;", "TcpStream");
    breaks("src/domain/a.rs", "use std::net;", "std::net");
    breaks("src/domain/a.rs", "use std::net::*;", "std::net");
    breaks("src/domain/a.rs", "use std::fs;", "std::fs");
    breaks("src/domain/a.rs", "fn f() { std::env::var(\"X\"); }", "std::env");
    breaks(
        "src/domain/a.rs",
        "fn f() { std::thread::sleep(d) }",
        "std::thread",
    );
    breaks(
        "src/domain/a.rs",
        "use jiff::Timestamp; fn f() { Timestamp::now(); }",
        "Timestamp::now",
    );
    breaks(
        "src/domain/a.rs",
        "fn f() { jiff::Timestamp::now(); }",
        "Timestamp::now",
    );
    breaks("src/domain/a.rs", "fn f() { uuid::Uuid::now_v7() }", "now_v7");
    breaks("src/domain/a.rs", "async fn f() {}", "async");
    breaks("src/api/a.rs", "use std::env;", "std::env");
    passes(
        "src/domain/a.rs",
        "use std::time::Duration; use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};",
    );
    passes(
        "src/domain/a.rs",
        "#[cfg(test)] mod tests { fn f() { std::fs::read(\"x\"); } }",
    );
    passes("src/domain/a.rs", "fn f(now: jiff::Timestamp) {}");
    passes(
        "src/engine/a.rs",
        "use std::time::{Instant, SystemTime}; async fn f() {}",
    );
}

#[test]
fn a_file_behind_cfg_test_is_for_tests() {
    let text = "#[cfg(test)]\nmod sample;\nmod parse;\n#[cfg(test)] mod tests { mod inner; }";
    assert_eq!(
        Source::read(text, false).test_modules().collect::<Vec<_>>(),
        ["sample", "inner"]
    );
    breaks(
        "src/domain/a.rs",
        "#[cfg(test)] mod tests; use proptest::prelude::*;",
        "tests only",
    );
}
