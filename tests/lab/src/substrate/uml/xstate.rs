//! Builds `xstate.c`, the library that User Mode Linux is started with; that file says why.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::sh;

const SOURCE: &str = include_str!("xstate.c");

/// Compiles the library into `folder` and returns its path.
///
/// # Errors
/// When the C compiler is missing or refuses it.
pub(super) fn build(folder: &Path) -> Result<PathBuf> {
    let source = folder.join("xstate.c");
    let library = folder.join("xstate.so");
    fs::write(&source, SOURCE).with_context(|| format!("cannot write {}", source.display()))?;
    let mut compiler = Command::new("cc");
    compiler
        .args(["-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(&source);
    sh::run(compiler)?;
    Ok(library)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_compiles_and_loads() {
        let folder = tempfile::tempdir().unwrap();
        let library = build(folder.path()).unwrap();
        let mut echo = sh::command(&["sh", "-c", "grep -c xstate.so /proc/self/maps"]);
        echo.env("LD_PRELOAD", &library);
        let mapped: usize = sh::run(echo).unwrap().trim().parse().unwrap();
        assert!(mapped > 0);
    }
}
