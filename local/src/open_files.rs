//! The files that this process may have open, and how the ports share them.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// As many as the stack has a use for. Many systems give a process 1,024 (macOS: 256) and let it ask for more.
const WANTED: u64 = 8_192;

/// Raises the limit of open files as far as the system allows and is useful, and returns how many this process may open.
pub(crate) fn raise_limit() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let raised = WANTED.min(hard);
    if soft < raised {
        setrlimit(Resource::RLIMIT_NOFILE, raised, hard)?;
    }
    Ok(raised)
}

/// The connections of ingest-server, which has open files of its own: as many as it takes by default, unless the system allows
/// fewer.
pub(crate) fn connections_of_ingest_server() -> io::Result<usize> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(usize::try_from(hard.saturating_sub(200)).map_or(16_000, |most| most.clamp(1, 16_000)))
}

/// The most connections that each port serves at once. All together leave a fifth of the open files to the functions' pipes and
/// Runtime APIs, to landed files and to logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectionLimits {
    /// `loadtest` opens up to 1,000.
    pub(crate) events: usize,
    /// Of people and their tools, to the AWS services.
    pub(crate) aws: usize,
    /// Of the functions, to the same services. A seal alone has 64 requests under way.
    pub(crate) functions: usize,
}

impl ConnectionLimits {
    pub(crate) fn of(open_files: u64) -> Self {
        let share = |percent: u64, most: usize| {
            let share = open_files.saturating_mul(percent) / 100;
            usize::try_from(share).map_or(most, |share| share.clamp(1, most))
        };
        Self { events: share(45, 2_000), aws: share(10, 200), functions: share(25, 800) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(256, 115, 25, 64)]
    #[case(1_024, 460, 102, 256)]
    #[case(8_192, 2_000, 200, 800)]
    #[case(u64::MAX, 2_000, 200, 800)]
    #[case(1, 1, 1, 1)]
    fn the_ports_share_the_open_files(
        #[case] open_files: u64,
        #[case] events: usize,
        #[case] aws: usize,
        #[case] functions: usize,
    ) {
        assert_eq!(ConnectionLimits::of(open_files), ConnectionLimits { events, aws, functions });
    }

    #[test]
    fn the_limit_is_raised_to_what_the_system_allows() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let lowered = WANTED.min(hard) / 2;
        setrlimit(Resource::RLIMIT_NOFILE, lowered, hard).unwrap();
        assert_eq!(raise_limit().unwrap(), WANTED.min(hard));
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap().0, WANTED.min(hard));
    }
}
