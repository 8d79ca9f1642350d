# Everything runs inside .venv, which `install` makes from the lock file.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
SEED ?= 0
# Without bytecode each of some fifty processes that the tests start would compile torch and torchvision anew, in 5 s.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo test pytest lint soak fuzz mutation matrix gpu-check tables pictures docs lock clean

install: $(STAMP)

$(STAMP): requirements.lock pyproject.toml hatch_build.py mosaicaug/backends/cpu/kernel.c
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'make: Python 3.11 or newer is needed; name one with PYTHON=/path/to/python3'; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo 'make: this Python cannot make virtual environments; on Debian: apt-get install python3-venv'; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# Huge pages: 3 % of a step on a CPU.
demo: export GLIBC_TUNABLES := glibc.malloc.hugetlb=1
demo: install  ## the main job on the embedded data: six augmentations on few images, one table, one page
	$(BIN)/pmsi compare --recipe few-shot --train-per-class 10 --jobs 2 --seeds $(SEED)

test: install  ## the tests, and lint beside them: mypy keeps one core busy
	@$(MAKE) --no-print-directory --jobs=2 lint pytest

pytest: install  ## a process for each core, with one thread each: threads of many processes get in each other's way
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m "not slow"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

soak: install  ## slow tests, then random cases for MINUTES on all cores; what fails goes to tests/properties/failures, which `make test` tries
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m slow
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.properties.soak --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED))

fuzz: install  ## random changes of valid files of every format for MINUTES; counts go to bench/results, files that fail to build/fuzz
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.hostile.fuzz --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED))

mutation: install  ## faults planted one at a time, SAMPLE in each module (0: all): the tests must catch them; MODULES=parts of paths
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$($(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["mutation"])')"
	$(BIN)/python -m bench.mutation $(MODULES) --sample $(or $(SAMPLE),60)

matrix: install  ## the tests with the oldest and the newest versions, on every Python found: bench/results/matrix.json
	$(BIN)/python -m bench.matrix

gpu-check: install  ## tests on CUDA, kernel times with launch settings, the star of the benchmark and training, in under 8 minutes; ends at once without a GPU
	$(BIN)/python -m bench.gpu_check

tables: install  ## tables of README and docs/, and docs/images/{scaling,regimes*}.png, from bench/results and the code
	$(BIN)/python -m bench.pages

pictures: install  ## docs/images/*.png, by the examples that make them
	cd docs/images && for file in $(filter $(patsubst docs/images/%.png,examples/%.py,$(wildcard docs/images/*.png)),$(wildcard examples/*.py)); do $(CURDIR)/$(BIN)/python $(CURDIR)/$$file || exit 1; done

docs: install  ## the site in build/site; warnings are errors
	$(BIN)/mkdocs build --strict

lock:  ## needs uv; run after a change of dependencies in pyproject.toml
	uv pip compile --universal --generate-hashes --no-annotate --no-header --python-version 3.11 --extra dev pyproject.toml -o requirements.lock

clean:
	rm -rf .venv build dist
