# The two commands of a newcomer: `make demo`, `make test`.
VENV := .venv
PYTHON := $(VENV)/bin/python
RUNS := runs
SITE := site
INSTALLED := $(VENV)/.installed

.PHONY: install demo test test-all coverage lint format docs package benchmark clean

install: $(INSTALLED)

# Without byte code, which takes a minute: Python makes it for what is imported, when it is.
$(INSTALLED): setup.py constraints.txt
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --upgrade pip
	$(PYTHON) -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[test,bench,docs]'
	touch $@

# Trains NuAT and an undefended network on scikit-learn's handwritten digits, and judges both.
demo: $(INSTALLED)
	$(PYTHON) -m recipes.demo --out $(RUNS)/demo

test: $(INSTALLED)
	$(PYTHON) -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m "not repeated"

# With those that repeat, for one more defense or attack, what a quicker test has checked.
test-all: $(INSTALLED)
	$(PYTHON) -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# The same, slower: then which lines no test has run.
coverage: $(INSTALLED)
	$(PYTHON) -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --cov

lint: $(INSTALLED)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

# The pages and the reference, with every warning an error; then its links, places and images. The notebook leaves its
# pictures beside the site, which has them by then.
docs: $(INSTALLED)
	rm -rf $(SITE)
	$(PYTHON) -m sphinx --quiet --fail-on-warning --keep-going -c docs -b html $(SPHINXOPTS) . $(SITE)
	rm -rf $(dir $(SITE))jupyter_execute
	$(PYTHON) -m docs.check_site $(SITE)

# In an empty environment, from the built wheel, word for word: what the pages show. Needs a package index.
package: $(INSTALLED)
	rm -rf build/package
	$(PYTHON) -m docs.check_package --work build/package

format: $(INSTALLED)
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

benchmark: $(INSTALLED)
	$(PYTHON) -m benchmarks.training
	$(PYTHON) -m benchmarks.attacks

clean:
	rm -rf $(VENV) $(RUNS) $(SITE) build *.egg-info
