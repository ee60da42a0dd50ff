//! `docs/performance.md`: one part for each thing measured. A run replaces the parts that
//! it measured and leaves the others.

use std::fs;

use anyhow::{Context, Result};
use lightship_lab::{Lab, binaries, sh};

/// One part of the report.
pub(super) struct Section {
    /// Names the part, also to find it again.
    pub(super) id: String,
    pub(super) title: String,
    /// The command that measures it.
    pub(super) command: String,
    pub(super) text: String,
}

const HEAD: &str = "# Performance

What Lightship costs and gains, measured on the lab ([lab.md](lab.md)): real kube-apiserver, real
kube-proxy, real IPVS, three nodes and a client on one LAN, default settings. Each part is
written by the command that it names, with every run and not the best alone. All nodes share the
processors of one machine here, so on separate machines the figures are better rather than worse.
";

/// Prints the parts and writes them into the file; `place` says when and on what they were measured.
pub(super) fn publish(place: &str, sections: &[Section], dry_run: bool) -> Result<()> {
    let path = binaries::checkout().join("docs/performance.md");
    let mut file = fs::read_to_string(&path).unwrap_or_else(|_| HEAD.to_owned());
    for section in sections {
        let part = format!(
            "## {}\n\n{}\n`{}`, {place}\n",
            section.title, section.text, section.command
        );
        println!("\n{part}");
        file = replace(&file, &section.id, &part);
    }
    if dry_run || sections.is_empty() {
        return Ok(());
    }
    fs::write(&path, file).context("cannot write docs/performance.md")?;
    println!("docs/performance.md is written.");
    Ok(())
}

/// Puts a part in the place that its marks enclose, or at the end.
fn replace(file: &str, id: &str, part: &str) -> String {
    let (begin, end) = (
        format!("<!-- begin {id} -->\n"),
        format!("<!-- end {id} -->\n"),
    );
    let part = format!("{begin}{part}{end}");
    match (file.find(&begin), file.find(&end)) {
        (Some(from), Some(to)) if from < to => {
            format!("{}{part}{}", &file[..from], &file[to + end.len()..])
        }
        _ => format!("{}\n\n{part}", file.trim_end()),
    }
}

/// The date and this machine.
pub(super) fn machine() -> Result<String> {
    let run =
        |words: &[&str]| Ok::<_, anyhow::Error>(sh::run(sh::command(words))?.trim().to_owned());
    let date = run(&["date", "-u", "+%Y-%m-%d"])?;
    let processors = run(&["nproc"])?;
    let host = run(&["uname", "-r"])?;
    let information = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = information
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown processor", |(_, model)| model.trim());
    Ok(format!("{date}; {processors} × {model}, Linux {host}"))
}

/// The same with the lab's nodes.
pub(super) fn place(lab: &Lab) -> Result<String> {
    let nodes = lab.node_names();
    let node = lab.exec(&nodes[0], &["uname", "-r"])?.stdout;
    Ok(format!(
        "{}; {} nodes of kind {}, Linux {}, kube-proxy {}.",
        machine()?,
        nodes.len(),
        lab.substrate().name(),
        String::from_utf8_lossy(&node).trim(),
        lab.state().options.proxy_mode,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_replaces_its_former_self_and_nothing_else() {
        let file = replace(&replace("head\n", "a", "one\n"), "b", "two\n");
        let again = replace(&file, "a", "three\n");
        assert_eq!(
            again,
            "head\n\n<!-- begin a -->\nthree\n<!-- end a -->\n\n<!-- begin b -->\ntwo\n<!-- end b -->\n"
        );
    }
}
