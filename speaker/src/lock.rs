//! One speaker per node: a lock beside the state file, which the kernel gives back when the
//! process ends, however that happens.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use anyhow::{Context, bail};

/// Takes the lock; it is held until the file is dropped.
///
/// # Errors
/// When another process holds it, or the file cannot be made.
pub fn take(state_file: &Path) -> anyhow::Result<File> {
    let path = state_file.with_extension("lock");
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "a speaker runs on this node already: it holds {}; stop it first",
            path.display()
        ),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_at_a_time_and_the_other_is_told_why() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("deep/state.json");
        let held = take(&state).unwrap();
        let refused = take(&state).unwrap_err().to_string();
        assert!(refused.contains("state.lock"), "{refused}");
        drop(held);
        take(&state).unwrap();
    }
}
