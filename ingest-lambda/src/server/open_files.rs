//! The files that this process may have open: one a connection.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// For everything that is no connection.
const OTHERS: u64 = 100;

/// Raises the limit of open files to what so many connections need.
///
/// # Errors
///
/// When the system allows fewer.
pub(super) fn raise_limit(connections: usize) -> io::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = connections as u64 + OTHERS;
    if wanted > hard {
        let problem = format!(
            "MAX_CONNECTIONS: {connections} connections need {wanted} open files, and the system allows {hard}; \
             lower it, or raise the limit (ulimit -n; in ECS: ulimits of the container)"
        );
        return Err(io::Error::other(problem));
    }
    if soft < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)?;
    }
    Ok(())
}
