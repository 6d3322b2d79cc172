//! Says how many events were lost or doubled in an hour.

fn main() -> anyhow::Result<()> {
    monitoring_lambdas::functions::check_completeness()
}
