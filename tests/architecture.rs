//! The direction of the house, checked: which workspace crate may depend on which, which crate may name a heavy
//! dependency, and that no detector file is left out of the registry. `ARCHITECTURE.md` says why.

use std::{collections::BTreeMap, path::Path, process::Command};

/// For each crate, the workspace crates it may depend on (normal, build and dev dependencies alike).
const ALLOWED: &[(&str, &[&str])] = &[
    ("faultline-core", &[]),
    ("faultline-ingest", &["faultline-core"]),
    ("faultline-parsers", &["faultline-core"]),
    ("faultline-detectors", &["faultline-core"]),
    ("faultline-rca", &["faultline-core"]),
    ("faultline-store", &["faultline-core"]),
    ("faultline-datasets", &["faultline-core"]),
    ("faultline-simulator", &["faultline-core"]),
    ("faultline-api", &["faultline-core", "faultline-store"]),
];

/// Dependencies that only one crate may name, so that they are built, updated and replaced in one place.
const ONE_HOME: &[(&str, &str)] = &[
    ("datafusion", "faultline-store"),
    ("parquet", "faultline-store"),
    ("rusqlite", "faultline-store"),
    ("burn", "faultline-detectors"),
    ("faer", "faultline-detectors"),
    ("utoipa", "faultline-api"),
];

/// Nothing below the edge talks to the network, the disk or an async runtime.
const COMPUTE: &[&str] =
    &["faultline-core", "faultline-parsers", "faultline-detectors", "faultline-rca", "faultline-simulator"];
const NOT_IN_COMPUTE: &[&str] = &["tokio", "tonic", "axum", "ureq", "datafusion", "rusqlite", "tracing"];

/// Crate name to (dependency name, is it a development dependency).
fn dependencies() -> BTreeMap<String, Vec<(String, bool)>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|package| {
            let edges = package["dependencies"].as_array().expect("dependencies");
            let edges = edges
                .iter()
                .map(|edge| (edge["name"].as_str().expect("a name").to_owned(), edge["kind"].as_str() == Some("dev")));
            (package["name"].as_str().expect("a name").to_owned(), edges.collect())
        })
        .collect()
}

#[test]
fn every_dependency_edge_points_the_way_the_design_allows() {
    let graph = dependencies();
    for name in graph.keys().filter(|name| *name != "faultline") {
        assert!(ALLOWED.iter().any(|(allowed, _)| allowed == name), "{name} is not in ALLOWED: say what it may use");
    }
    for (name, allowed) in ALLOWED {
        let edges = graph.get(*name).unwrap_or_else(|| panic!("{name} is gone from the workspace"));
        for (dependency, _) in edges.iter().filter(|(dependency, _)| dependency.starts_with("faultline")) {
            assert!(allowed.contains(&dependency.as_str()), "{name} must not depend on {dependency}");
        }
    }
}

#[test]
fn heavy_dependencies_have_one_home() {
    for (name, edges) in dependencies() {
        for (dependency, home) in ONE_HOME {
            let uses = edges.iter().any(|(edge, _)| edge == dependency);
            assert!(!uses || name == *home, "{dependency} belongs to {home}, but {name} names it too");
        }
    }
}

#[test]
fn compute_crates_do_no_io() {
    let graph = dependencies();
    for name in COMPUTE {
        for (dependency, is_dev) in &graph[*name] {
            let forbidden = NOT_IN_COMPUTE.contains(&dependency.as_str()) && !is_dev;
            assert!(!forbidden, "{name} is a compute crate and must not depend on {dependency}");
        }
    }
}

#[test]
fn every_detector_file_is_in_the_registry() {
    let folder = Path::new("detectors/src/algorithms");
    let registered: Vec<&str> = faultline_detectors::REGISTRY.iter().map(|entry| entry.name).collect();
    // A detector may have a folder of its own beside its file.
    let mut files = std::collections::BTreeSet::new();
    for entry in std::fs::read_dir(folder).expect("the folder of detectors") {
        let path = entry.expect("readable").path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).expect("a UTF-8 file name");
        if stem == "mod" || stem == "tests" {
            continue;
        }
        let name = stem.replace('_', "-");
        assert!(registered.contains(&name.as_str()), "{} is not in REGISTRY as `{name}`", path.display());
        files.insert(name);
    }
    assert_eq!(files.len(), registered.len(), "REGISTRY names a detector that has no file of its own");
}
