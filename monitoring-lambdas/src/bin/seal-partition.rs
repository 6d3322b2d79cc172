//! Seals the hours and dates that are complete.

fn main() -> anyhow::Result<()> {
    monitoring_lambdas::functions::seal_partition()
}
