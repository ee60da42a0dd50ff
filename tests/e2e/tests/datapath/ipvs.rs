//! The crate `lightship-ipvs` by itself, against the kernel of a node, checked by `ipvsadm`.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use lightship_lab::Lab;
use lightship_lab::binaries::{self, checkout};

/// A namespace of its own: its IPVS table is empty, and nobody else's.
const NETNS: &str = "ipvs-live";

/// It needs more memory than a node of the lab has; `cargo xtask bench director` measures tables of that size.
const TOO_LARGE: &str = "two_thousand_services_of_a_hundred_nodes_in_bulk";

/// Runs the crate's live tests on a node.
pub(crate) fn live(lab: &mut Lab) -> Result<()> {
    let program = build()?.display().to_string();
    let node = lab.node_names().into_iter().next().context("no node")?;
    let line = format!(
        "ip netns add {NETNS} && ip -n {NETNS} link set lo up || exit 1; \
         ip netns exec {NETNS} {program} --ignored --test-threads=1 --skip {TOO_LARGE} 2>&1; \
         status=$?; ip netns delete {NETNS}; exit $status"
    );
    let output = lab.exec(&node, &["sh", "-c", &line])?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "on {node}: {said}");
    let result = said.lines().find(|line| line.starts_with("test result"));
    let result = result.with_context(|| format!("no result: {said}"))?;
    eprintln!("    {result}");
    ensure!(!result.contains(" 0 passed"), "nothing was tested: {said}");
    Ok(())
}

/// Builds the test program and gives its path.
fn build() -> Result<PathBuf> {
    let mut command = binaries::cargo();
    command.current_dir(checkout()).args([
        "test",
        "--quiet",
        "--package=lightship-ipvs",
        "--test=live",
        "--no-run",
    ]);
    let mut programs = binaries::built(command)?;
    programs
        .remove("live")
        .context("cargo built no test program")
}
