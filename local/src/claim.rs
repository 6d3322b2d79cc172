//! A data folder belongs to one stack at a time, and to one a second.
//!
//! The embedded Kinesis numbers its records from the second in which their stream was made. Two streams of one second
//! would give equal names to different objects, and the later would replace what the earlier had landed.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};

/// Held as long as the stack runs.
pub(crate) struct Claim {
    _locked: File,
}

impl Claim {
    /// Claims a folder, in a second that no earlier stack had it.
    ///
    /// # Errors
    ///
    /// When another stack has the folder, or it can't be written to.
    pub(crate) async fn of(data_dir: &Path) -> anyhow::Result<Self> {
        let path = data_dir.join("started-at");
        let place = || format!("DATA_DIR: {}", path.display());
        std::fs::create_dir_all(data_dir).with_context(place)?;
        let options = OpenOptions::new().create(true).truncate(false).read(true).write(true).clone();
        let mut file = options.open(&path).with_context(place)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!("DATA_DIR: {} is in use by another stack", data_dir.display()),
            Err(TryLockError::Error(problem)) => return Err(problem).with_context(place),
        }
        let mut last = String::new();
        file.read_to_string(&mut last).with_context(place)?;
        let last: i64 = last.parse().unwrap_or(0);
        // The streams of a stack are made within a second of its claim. A clock that was set back is not waited for.
        while (0..=1).contains(&(now_seconds() - last)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let stamp = now_seconds().to_string();
        let written = file.rewind().and_then(|()| file.set_len(0)).and_then(|()| file.write_all(stamp.as_bytes()));
        written.with_context(place)?;
        Ok(Self { _locked: file })
    }
}

fn now_seconds() -> i64 {
    lambda_setup::now().0 / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_is_claimed_by_one_at_a_time_and_never_twice_a_second() {
        let folder = std::env::temp_dir().join(format!("claim-{}", std::process::id()));
        let mut seconds = Vec::new();
        for _ in 0..3 {
            let claim = Claim::of(&folder).await.unwrap();
            assert!(Claim::of(&folder).await.is_err());
            seconds.push(std::fs::read_to_string(folder.join("started-at")).unwrap());
            drop(claim);
        }
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(seconds.is_sorted_by(|earlier, later| earlier < later), "{seconds:?}");
    }
}
