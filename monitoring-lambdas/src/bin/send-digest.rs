//! Sends the digest of the day before to the people who asked for it.

fn main() -> anyhow::Result<()> {
    monitoring_lambdas::functions::send_digest()
}
