//! Says whether a sealed hour or date is as large as it should be.

fn main() -> anyhow::Result<()> {
    monitoring_lambdas::functions::check_size()
}
