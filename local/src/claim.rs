//! A data folder belongs to one stack at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use anyhow::{Context, bail};

/// Held as long as the stack runs.
pub(crate) struct Claim {
    _locked: File,
}

impl Claim {
    pub(crate) fn of(data_dir: &Path) -> anyhow::Result<Self> {
        let path = data_dir.join("claim");
        let place = || format!("DATA_DIR: {}", path.display());
        std::fs::create_dir_all(data_dir).with_context(place)?;
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).with_context(place)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _locked: file }),
            Err(TryLockError::WouldBlock) => bail!("DATA_DIR: {} is in use by another stack", data_dir.display()),
            Err(TryLockError::Error(problem)) => Err(problem).with_context(place),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_claimed_by_one_at_a_time() {
        let folder = std::env::temp_dir().join(format!("claim-{}", std::process::id()));
        let claim = Claim::of(&folder).unwrap();
        assert!(Claim::of(&folder).is_err());
        drop(claim);
        Claim::of(&folder).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
