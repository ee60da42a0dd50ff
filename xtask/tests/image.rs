//! `deploy/Containerfile` against the workspace: cargo loads the manifests of all members, even
//! of those that it does not build, so the image can only be built if all of them are copied.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use lightship_lab::binaries::checkout;
use serde_json::Value;

#[test]
fn the_image_gets_every_member_of_the_workspace() {
    let root = checkout();
    let file = fs::read_to_string(root.join("deploy/Containerfile")).unwrap();
    let copied: Vec<&Path> = file
        .lines()
        .filter_map(|line| line.strip_prefix("COPY "))
        .filter(|rest| !rest.starts_with("--from"))
        .flat_map(|rest| {
            let words: Vec<_> = rest.split_whitespace().collect();
            words[..words.len().saturating_sub(1)].to_vec()
        })
        .map(Path::new)
        .collect();
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let answer = Command::new(cargo)
        .current_dir(&root)
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&answer.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 10, "{} members", packages.len());
    for package in packages {
        let manifest = Path::new(package["manifest_path"].as_str().unwrap());
        let manifest = manifest.strip_prefix(&root).unwrap();
        assert!(
            copied.iter().any(|folder| manifest.starts_with(folder)),
            "deploy/Containerfile copies nothing that contains {}",
            manifest.display()
        );
    }
}
