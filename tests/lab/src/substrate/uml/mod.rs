//! Nodes with a kernel of their own: User Mode Linux processes.

use std::process::Command;

use anyhow::{Result, bail};

use super::{NodeSpec, Substrate};
use crate::deps::{Need, need};

/// Nodes as User Mode Linux processes.
#[derive(Clone, Copy, Debug)]
pub struct Uml;

impl Substrate for Uml {
    fn name(&self) -> &'static str {
        "uml"
    }
    fn needs(&self) -> &'static [Need] {
        const NEEDS: &[Need] = &[need("linux.uml", "user-mode-linux")];
        NEEDS
    }
    fn has_management(&self) -> bool {
        true
    }
    fn prepare(&self, _: &NodeSpec) -> Result<Command> {
        bail!("not joined yet")
    }
    fn crash(&self, _: &NodeSpec, _: u32) -> Result<()> {
        bail!("not joined yet")
    }
    fn pause(&self, _: &NodeSpec, _: u32) -> Result<()> {
        bail!("not joined yet")
    }
    fn resume(&self, _: &NodeSpec, _: u32) -> Result<()> {
        bail!("not joined yet")
    }
    fn clear(&self, _: &NodeSpec) -> Result<()> {
        Ok(())
    }
    fn exec(&self, _: &NodeSpec, _: u32, _: &[String]) -> Result<Command> {
        bail!("not joined yet")
    }
}
