//! Writes a sealed hour as Parquet.

fn main() -> anyhow::Result<()> {
    loader_lambdas::compact_partition::run()
}
