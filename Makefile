# Everything lives in .venv; the first use of any target makes it. `make help` lists the targets.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.ready
# Hundreds of tests start a program: each would compile everything again where the environment forbids to keep it.
export PYTHONDONTWRITEBYTECODE :=
# pytest workers: more than the smallest supported machine has cores, because tests of processes and sockets wait; each
# takes five seconds of processor time to collect the tests
JOBS   ?= 5

.DEFAULT_GOAL := help
.PHONY: help setup run test test-long test-page lint fix bench examples soak campaign recorded hazards mutants stories clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# A set-up that broke off leaves no stamp and is made anew: half an environment is worse than none.
$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "sim-sled needs Python 3.11 or newer: there is no '$(PYTHON)' here; make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "sim-sled needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) -c 'import platform; print(platform.python_version())'). Say which: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { rm -rf $(VENV); $(PYTHON) -m venv $(VENV); } || { rm -rf $(VENV); echo "'$(PYTHON) -m venv' failed: on Debian, apt install python3-venv" >&2; exit 2; }
	@echo "installing into $(VENV) (half a minute, once) ..." >&2
	@PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install -q -c constraints.txt -e '.[fast,dev]' || { rm -rf $(VENV); echo "the installation failed (see above); nothing was kept, try again" >&2; exit 2; }
	@echo "compiling the tests (some seconds, once) ..." >&2
	@$(BIN)/python -m pytest -q -k test_json >/dev/null 2>&1 || true  # else each worker of the first run compiles them all
	@touch $@

setup: $(STAMP)  ## make .venv with everything in it

run: $(STAMP)  ## watch the tour: two sled daemons, the Nexus stub, three instances
	@$(BIN)/sim-sled tour

test: $(STAMP)  ## the tests of every day: less than two minutes on two cores
	@$(BIN)/python -m compileall -q -j 0 nexus_client propolis_stub sim_sled
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not long"

test-long: $(STAMP)  ## the others: campaigns, whole racks, every example of the documents as a program; CI plays both
	@$(BIN)/python -m compileall -q -j 0 nexus_client propolis_stub sim_sled
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m long

test-page: $(STAMP)  ## the page in a real headless Chromium (CHROMIUM=/path/to/one, else the one that is there)
	@$(BIN)/python -c 'import playwright' 2>/dev/null || PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install -q -c constraints.txt -e '.[fast,dev,page-test]'
	$(BIN)/python -m pytest -n 2 --dist worksteal tests/page

lint: $(STAMP)  ## ruff, mypy --strict, import contracts, citations of docs/spec, reading order
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m tests.lint

fix: $(STAMP)  ## let ruff and the lint repair what they can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python -m tests.lint --fix

bench: $(STAMP)  ## ours against the floors, side by side in one run
	$(BIN)/python -m tests.bench

examples: $(STAMP)  ## the tests of examples/pytest, fifty times under -n 4
	for i in $$(seq 50); do $(BIN)/python -m pytest -q -n 4 -p no:schemathesis -p no:cacheprovider examples/pytest || exit 1; done

soak: $(STAMP)  ## three minutes of random requests to 500 Propolis VMs; SOAK="--seconds 600" for longer
	$(BIN)/python -m tests.bench.soak_propolis $(SOAK)

stories: $(STAMP)  ## the twelve stories of users, each by commands; STORIES="1 7" for some
	@$(BIN)/python -m tests.stories $(STORIES)

recorded: $(STAMP)  ## three minutes of a recorded `up` under load, by commands, and its replay; RECORDED="--seconds 600 --workers 2"
	$(BIN)/python -m tests.campaign.recorded $(RECORDED)

campaign: $(STAMP)  ## the long outage (OUTAGE="--seconds 600") and property-test campaigns (minutes to hours; SIM_SLED_PROFILE=nightly)
	$(BIN)/python -m tests.campaign.outage $(OUTAGE)
	SIM_SLED_PROFILE=$${SIM_SLED_PROFILE:-nightly} $(BIN)/python -m pytest -n $(JOBS) -o faulthandler_timeout=3600 tests/model
	SIM_SLED_PROFILE=$${SIM_SLED_PROFILE:-nightly} $(BIN)/python -m pytest -n $(JOBS) -o faulthandler_timeout=3600 -m nightly

hazards: $(STAMP)  ## find each known wrong of Nexus and of the agent in a general churn, and reduce it (minutes); HAZARDS=--live: on sockets
	$(BIN)/python -m tests.campaign.hazards $(HAZARDS)

# Each part goes on whatever the one before it found; NIGHT="--runs 1000 --only happy" plays some of the library.
campaign-night: $(STAMP)  ## days of work: 10^5 seeds of each library scenario (NIGHT="--runs 1000"), 10^6 property steps, outage, soak
	-nice -n 15 $(BIN)/python -m tests.campaign.night $(NIGHT)
	-nice -n 15 $(BIN)/python -m tests.campaign.steps
	-nice -n 15 $(BIN)/python -m tests.campaign.outage --seconds 3600
	-nice -n 15 $(BIN)/python -m tests.bench.soak_propolis --seconds 3600

mutants: $(STAMP)  ## plant each known bug and see a test notice it; MUTANTS="--only CD1,H3" for some
	$(BIN)/python -m tests.mutation $(MUTANTS)

clean:  ## remove .venv and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
