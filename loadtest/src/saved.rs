//! Results in files, as `--result` writes them.

use crate::find_max::FindMaxResult;
use crate::result::RunResult;

#[derive(Debug)]
pub(crate) enum Saved {
    Run(Box<RunResult>),
    FindMax(FindMaxResult),
}

impl Saved {
    /// Of a search, the run at the highest rate that passed.
    pub(crate) fn run(&self) -> Option<&RunResult> {
        match self {
            Self::Run(result) => Some(result),
            Self::FindMax(result) => result.best(),
        }
    }

    pub(crate) fn parse(json: &[u8]) -> serde_json::Result<Self> {
        let value: serde_json::Value = serde_json::from_slice(json)?;
        if value.get("steps").is_some() {
            return serde_json::from_value(value).map(Self::FindMax);
        }
        serde_json::from_value(value).map(Self::Run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::tests::sample;

    #[test]
    fn a_saved_result_is_known_by_its_content() {
        let run = serde_json::to_vec(&sample()).unwrap();
        assert!(matches!(Saved::parse(&run), Ok(Saved::Run(_))));
        let search = serde_json::json!({
            "version": 1, "from": 1.0, "to": 2.0, "step_seconds": 1.0, "highest_passing": 1.0, "lowest_not_passing": null,
            "limit": "none", "steps": [{"rate": 1.0, "result": sample()}],
        });
        assert!(
            matches!(Saved::parse(search.to_string().as_bytes()), Ok(Saved::FindMax(found)) if found.best().is_some())
        );
        for other in ["{}", "[]", "1", "{\"steps\":[]}", ""] {
            assert!(Saved::parse(other.as_bytes()).is_err(), "{other}");
        }
    }
}
