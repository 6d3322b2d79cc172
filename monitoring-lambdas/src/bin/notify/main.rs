//! Turns alarms into messages that a person can act on.

mod ssm_parameter;

use ssm_parameter::SsmParameter;

fn main() -> anyhow::Result<()> {
    monitoring_lambdas::functions::notify(SsmParameter::new)
}
