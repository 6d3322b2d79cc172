//! Turns alarms into messages that a person can act on.

fn main() -> anyhow::Result<()> {
    monitoring_lambdas::functions::notify()
}
