//! Says whether each partition is sealed that should be, and how old the newest landed event is.

fn main() -> anyhow::Result<()> {
    monitoring_lambdas::functions::check_recency()
}
