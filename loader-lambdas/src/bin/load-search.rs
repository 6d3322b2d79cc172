//! Loads each object that landed into OpenSearch or Elasticsearch.

fn main() -> anyhow::Result<()> {
    loader_lambdas::load_search::run()
}
