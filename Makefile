PYTHON := .venv/bin/python
DATA := .cache/ml-100k

.DEFAULT_GOAL := help
.PHONY: help env lint format test demo bench quality soak test-adapters clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' Makefile

env:  ## make .venv with everything for development, or bring it up to date
	@tools/env.sh

lint: env  ## check style and types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

format: env  ## mend what ruff can mend
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

test: lint  ## lint, then every test, then those of the store on icechunk 2
	@other=$$(tools/two_libraries.sh python) && export EMBSTORE_OTHER_PYTHON="$$other" && $(PYTHON) -m pytest -n 2
	@tools/two_libraries.sh test

demo: env  ## a recommender retrained month after month on MovieLens-100k, in .cache/demo
	$(PYTHON) tools/movielens.py $(DATA)
	rm -rf .cache/demo
	.venv/bin/embstore demo .cache/demo --data $(DATA)/ml-100k.inter --titles $(DATA)/ml-100k.item

bench: env  ## measure time and bytes
	$(PYTHON) -m tools.bench

quality: env  ## measure how good recommendations stay; needs EMBSTORE_DATA
	$(PYTHON) -m tools.quality

soak: env  ## the long tests
	$(PYTHON) -m pytest tests -m soak

test-adapters:  ## the adapters for RecBole and Lightning against the real libraries, in an environment of their own
	tools/adapters.sh -m ''

clean:  ## remove caches, build products and downloaded data; the environments stay
	rm -rf .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	find embstore trainers tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
