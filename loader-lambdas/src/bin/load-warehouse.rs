//! Loads each hour that is Parquet into Redshift.

fn main() -> anyhow::Result<()> {
    loader_lambdas::load_warehouse::run()
}
