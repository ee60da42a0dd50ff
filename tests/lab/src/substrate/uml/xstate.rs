//! Builds `xstate.c`, the library that User Mode Linux is started with; that file says why.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::sh;

const SOURCE: &str = include_str!("xstate.c");

/// Compiles the library into `folder`, unless it is there already, and returns its path.
///
/// # Errors
/// When the C compiler is missing or refuses it.
pub(super) fn build(folder: &Path) -> Result<PathBuf> {
    let source = folder.join("xstate.c");
    let library = folder.join("xstate.so");
    let same = fs::read(&source).is_ok_and(|text| text == SOURCE.as_bytes());
    if same && library.exists() {
        return Ok(library);
    }
    fs::write(&source, SOURCE).with_context(|| format!("cannot write {}", source.display()))?;
    let unfinished = folder.join("xstate.so.new");
    let mut compiler = Command::new("cc");
    compiler
        .args(["-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o"])
        .arg(&unfinished)
        .arg(&source);
    sh::run(compiler)?;
    // A running node has the old one mapped: it must keep its file.
    fs::rename(&unfinished, &library)?;
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
