//! A data folder belongs to one stack at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use anyhow::{Context, bail};

/// Claims a folder until the file is dropped.
pub(crate) fn claim(data_dir: &Path) -> anyhow::Result<File> {
    let path = data_dir.join("claim");
    let place = || format!("DATA_DIR: {}", path.display());
    std::fs::create_dir_all(data_dir).with_context(place)?;
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).with_context(place)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!("DATA_DIR: {} is in use by another stack", data_dir.display()),
        Err(TryLockError::Error(problem)) => Err(problem).with_context(place),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_claim_at_a_time() {
        let folder = std::env::temp_dir().join(format!("claim-{}", std::process::id()));
        let held = claim(&folder).unwrap();
        assert!(claim(&folder).is_err());
        drop(held);
        claim(&folder).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
