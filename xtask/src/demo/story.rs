//! The narrator: chapters, sentences, commands with what they print.

use std::process::Command;

use anyhow::Result;
use lightship_lab::Lab;

/// Tells on standard output; chapters are numbered.
pub(super) struct Story {
    chapter: usize,
}

impl Story {
    pub(super) fn new() -> Self {
        Self { chapter: 0 }
    }

    pub(super) fn title(&self, text: &str) {
        println!("{text}");
    }

    pub(super) fn chapter(&mut self, title: &str) {
        self.chapter += 1;
        println!("\n{}. {title}", self.chapter);
    }

    /// Plain sentences.
    pub(super) fn say(&self, text: &str) {
        for line in text.lines() {
            println!("   {line}");
        }
    }

    /// A command as a person would type it, and what it printed.
    pub(super) fn shown(&self, command: &str, printed: &str) {
        println!("\n   $ {command}");
        for line in printed.lines() {
            println!("   {line}");
        }
        println!();
    }

    /// Runs kubectl and shows both.
    pub(super) fn kubectl(&self, lab: &Lab, arguments: &[&str]) -> Result<()> {
        let printed = lab.kubectl(arguments)?;
        self.shown(&format!("kubectl {}", arguments.join(" ")), &printed);
        Ok(())
    }

    /// Runs a command on the client and gives what it printed.
    pub(super) fn on_client(&self, lab: &Lab, argv: &[&str]) -> Result<String> {
        let command: Command = lab.client_command(argv);
        lightship_lab::sh::run(command)
    }
}
