//! Looks into each object that landed.

fn main() -> anyhow::Result<()> {
    monitoring_lambdas::functions::check_object()
}
