//! The examples in `docs/`, applied as they are printed there.
//!
//! Every block fenced as `yaml` is applied, in order; a heading of the second level starts anew
//! with an empty cluster. Comments in a block say what has to come of it:
//!
//! - `# gives: NAME ADDRESS…`: the Service (`NAMESPACE/NAME` outside of `default`) has exactly these
//!   addresses in this order; with `nothing` instead of addresses it has none.
//! - `# says: NAME REASON`: its condition `lightship.dev/AddressAssigned` has this reason.
//! - `# refused: TEXT`: the API server refuses the block with a message that contains the text.
//! - `# holds: NAME ADDRESS…`: the Service had these addresses from MetalLB already. Such a section
//!   is applied while no controller runs; one is started when everything is there.
//!
//! Blocks fenced as `yaml metallb` are MetalLB's own kinds, which are not installed here, and are
//! passed over.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lightship_lab::binaries;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::kube::Kubectl;

/// How long anything may take to come about.
const PATIENCE: Duration = Duration::from_secs(10);

/// `docs/pools.md`
pub(crate) fn pools(cluster: &mut Cluster) -> Result<()> {
    examples(cluster, "docs/pools.md", &[])
}

/// `docs/services.md`
pub(crate) fn services(cluster: &mut Cluster) -> Result<()> {
    examples(cluster, "docs/services.md", &[])
}

/// `docs/migrate-from-metallb.md`, with the switch that it tells to set.
pub(crate) fn migration(cluster: &mut Cluster) -> Result<()> {
    let done = examples(
        cluster,
        "docs/migrate-from-metallb.md",
        &["--metallb-annotations"],
    );
    // The next test starts one without the switch.
    cluster.kill_controller();
    done
}

/// The blocks of `README.md` and `docs/configuration.md` are accepted.
pub(crate) fn others(cluster: &mut Cluster) -> Result<()> {
    for file in ["README.md", "docs/configuration.md"] {
        for section in sections(file)? {
            for block in &section.blocks {
                let accepted = cluster.kubectl.apply_text(&block.text);
                accepted.with_context(|| format!("{file}:{}", block.line))?;
            }
        }
    }
    Ok(())
}

/// A block of a file, and what it is to bring about.
struct Block {
    /// Where it begins.
    line: usize,
    text: String,
}

/// The blocks under one heading.
#[derive(Default)]
struct Section {
    heading: String,
    blocks: Vec<Block>,
}

impl Section {
    /// What follows this word in the comments of all blocks.
    fn notes<'a>(&'a self, word: &'a str) -> impl Iterator<Item = &'a str> {
        self.blocks.iter().flat_map(move |block| block.notes(word))
    }
}

impl Block {
    fn notes<'a>(&'a self, word: &'a str) -> impl Iterator<Item = &'a str> {
        self.text.lines().filter_map(move |line| {
            let note = line.trim().strip_prefix("# ")?.strip_prefix(word)?;
            note.strip_prefix(": ").map(str::trim)
        })
    }
}

fn sections(file: &str) -> Result<Vec<Section>> {
    let text = fs::read_to_string(binaries::checkout().join(file)).context(file.to_owned())?;
    let mut sections = vec![Section::default()];
    let mut open: Option<(Block, bool)> = None;
    let mut indent = 0;
    for (number, line) in text.lines().enumerate() {
        let trimmed = line.trim_start();
        if let Some((block, skipped)) = &mut open {
            if trimmed != "```" {
                block.text.push_str(line.get(indent..).unwrap_or_default());
                block.text.push('\n');
                continue;
            }
            let foreign = block.text.contains("apiVersion: metallb.io/");
            ensure!(
                *skipped == foreign,
                "{file}:{}: fence MetalLB's kinds as `yaml metallb`, and nothing else",
                block.line
            );
            if let (Some((block, false)), Some(section)) = (open.take(), sections.last_mut()) {
                section.blocks.push(block);
            }
            continue;
        }
        if let Some(heading) = line.strip_prefix("## ") {
            sections.push(Section {
                heading: heading.to_owned(),
                blocks: Vec::new(),
            });
        }
        if let Some(kind) = trimmed.strip_prefix("```yaml") {
            ensure!(
                ["", " metallb"].contains(&kind),
                "{file}:{}: ```yaml{kind}",
                number + 1
            );
            indent = line.len() - trimmed.len();
            let block = Block {
                line: number + 1,
                text: String::new(),
            };
            open = Some((block, !kind.is_empty()));
        }
    }
    ensure!(open.is_none(), "{file}: a block has no end");
    sections.retain(|section| !section.blocks.is_empty());
    Ok(sections)
}

fn examples(cluster: &mut Cluster, file: &str, flags: &[&str]) -> Result<()> {
    let sections = sections(file)?;
    let checked: usize = sections.iter().map(|s| s.notes("gives").count()).sum();
    ensure!(
        checked > 2,
        "{file} says of {checked} Services what they get"
    );
    for section in &sections {
        cluster.clear()?;
        let held = section.notes("holds").next().is_some();
        // A new controller also because addresses rest, even when their pool is gone.
        cluster.kill_controller();
        if !held {
            cluster.start_controller_with(flags)?;
        }
        for block in &section.blocks {
            let place = || format!("{file}:{} ({})", block.line, section.heading);
            apply(&cluster.kubectl, block).with_context(place)?;
            if !held {
                check(&cluster.kubectl, block).with_context(place)?;
            }
        }
        if held {
            cluster.start_controller_with(flags)?;
            for block in &section.blocks {
                let place = || format!("{file}:{} ({})", block.line, section.heading);
                check(&cluster.kubectl, block).with_context(place)?;
            }
        }
    }
    Ok(())
}

fn apply(kubectl: &Kubectl, block: &Block) -> Result<()> {
    let applied = kubectl.apply_text(&block.text);
    if let Some(text) = block.notes("refused").next() {
        let Err(error) = applied else {
            bail!("accepted, but should be refused");
        };
        let error = format!("{error:#}");
        ensure!(error.contains(text), "{error}");
        return Ok(());
    }
    applied?;
    for note in block.notes("holds") {
        let (namespace, name, addresses) = service(note)?;
        let ingress: Vec<_> = addresses.iter().map(|ip| json!({ "ip": ip })).collect();
        let patch = json!({ "status": { "loadBalancer": { "ingress": ingress } } }).to_string();
        let status = ["--subresource=status", "--type=merge", "-p", &patch];
        kubectl.run(&[&["patch", "service", name, "-n", namespace], &status[..]].concat())?;
    }
    Ok(())
}

fn check(kubectl: &Kubectl, block: &Block) -> Result<()> {
    for note in block.notes("gives") {
        let (namespace, name, addresses) = service(note)?;
        let addresses = match addresses[..] {
            ["nothing"] => Vec::new(),
            _ => addresses,
        };
        // A verdict comes with it, so that "nothing" is not merely too early.
        comes_about(kubectl, namespace, name, |status| {
            let entries = status["loadBalancer"]["ingress"].as_array();
            let entries = entries.into_iter().flatten();
            let found: Vec<_> = entries.filter_map(|entry| entry["ip"].as_str()).collect();
            found == addresses && verdict(status).is_some()
        })
        .with_context(|| note.to_owned())?;
    }
    for note in block.notes("says") {
        let (namespace, name, words) = service(note)?;
        comes_about(kubectl, namespace, name, |status| {
            verdict(status).is_some_and(|condition| condition["reason"] == words[0])
        })
        .with_context(|| note.to_owned())?;
    }
    Ok(())
}

/// Namespace, name and the words after them.
fn service(note: &str) -> Result<(&str, &str, Vec<&str>)> {
    let mut words = note.split_whitespace();
    let name = words.next().context("no Service is named")?;
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    let rest: Vec<_> = words.collect();
    ensure!(!rest.is_empty(), "{note}: nothing is said of the Service");
    Ok((namespace, name, rest))
}

fn verdict(status: &Value) -> Option<&Value> {
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    conditions.find(|condition| condition["type"] == "lightship.dev/AddressAssigned")
}

fn comes_about(
    kubectl: &Kubectl,
    namespace: &str,
    name: &str,
    holds: impl Fn(&Value) -> bool,
) -> Result<()> {
    let start = Instant::now();
    loop {
        let object = kubectl.json(&["get", "service", name, "-n", namespace])?;
        let status = &object["status"];
        if holds(status) {
            return Ok(());
        }
        ensure!(start.elapsed() < PATIENCE, "the status is {status}");
        std::thread::sleep(Duration::from_millis(30));
    }
}
