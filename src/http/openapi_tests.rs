//! The description holds every route, and nothing that is none.

use serde_json::Value;

use super::tests::{Got, Rig, rig_of, token};
use super::*;

fn rig() -> Rig {
    rig_of(Inside::Admins, OriginPolicy::default(), Console::default())
}

fn described() -> Value {
    rig().open("/openapi.json").json()
}

/// Each path with an id put into it, and its methods in capitals.
fn operations(document: &Value) -> Vec<(String, Vec<String>)> {
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().map(|(path, operations)| {
        let path = path
            .replace("{id}", "x")
            .replace("{name}", "x")
            .replace("{file}", "console.css");
        let methods = operations.as_object().unwrap().keys();
        (path, methods.map(|method| method.to_uppercase()).collect())
    });
    operations.collect()
}

fn ask(rig: &Rig, method: &str, path: &str) -> Got {
    let bearer = format!("Bearer {}", token("demo", &["admin"]));
    rig.request(method, path, &[("authorization", &bearer)], "")
}

/// C-01 to C-11: what is described answers, and with another method it says which are right.
#[test]
fn every_described_route_is_there() {
    let rig = rig();
    let operations = operations(&described());
    assert!(15 < operations.len());
    for (path, methods) in operations.iter().filter(|(path, _)| path != "/") {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let got = ask(&rig, method, path);
            let is_described = methods.iter().any(|described| described == method);
            assert_eq!(got.status != 405, is_described, "{method} {path}");
        }
    }
}

/// A route is added by its description; one that is added by its path alone would have none.
#[test]
fn no_route_is_added_without_a_description() {
    let source = include_str!("mod.rs");
    let by_path: Vec<_> = source
        .lines()
        .filter(|line| line.contains(".route("))
        .map(str::trim)
        .collect();
    let root = ".route(\"/\", any(console::root).layer(Extension(behind)))";
    // The listener for operators has some of the described routes, and the console at `/`.
    let operators = [
        ".route(\"/healthz\", get(health::healthz))",
        ".route(\"/readyz\", get(health::readyz))",
        ".route(\"/metrics\", get(health::metrics))",
        ".route(\"/v1/admin/config\", get(admin::config_for_operators))",
        ".route(\"/\", get(console::page))",
    ];
    assert_eq!(by_path[0], root);
    assert_eq!(by_path[1..], operators);
}

/// The document is what programs expect of OpenAPI 3.1.
#[test]
fn the_document_is_complete_in_itself() {
    let document = described();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let mut names = std::collections::BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let name = operation["operationId"].as_str().unwrap();
            assert!(
                names.insert(name),
                "{method} {path}: `{name}` is there twice"
            );
        }
    }
    let text = document.to_string();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let referred = text.split("\"#/components/schemas/").skip(1);
    for name in referred.filter_map(|rest| rest.split('"').next()) {
        assert!(schemas.contains_key(name), "no schema `{name}`");
    }
}
