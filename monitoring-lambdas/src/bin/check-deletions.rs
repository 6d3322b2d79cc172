//! Says which objects are gone since their hour was sealed.

fn main() -> anyhow::Result<()> {
    monitoring_lambdas::functions::check_deletions()
}
