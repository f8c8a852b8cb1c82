# Every target sets up what it needs in .venv. README.md has the same commands for machines without make.
PYTHON ?= python3
RUN := .venv/bin/python

.PHONY: help setup test lint book chapters clean

help:  ## say what the targets do
	@sed -n 's/^\([a-z-]*\):.*##/\1:/p' Makefile | awk -F: '{printf "make %-10s %s\n", $$1, $$2}'

setup:  ## install the package and everything that tests and book need into .venv
	@$(PYTHON) tools/environment.py

test: lint  ## check style and types, run the tests, run every chapter and compare its outputs
	$(RUN) -m pytest
	$(RUN) -m pytest --nbval --nbval-current-env -p no:cacheprovider book/*.ipynb

lint: setup  ## check style and types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

book: setup  ## build the published book from the verified chapters into book/_build/html
	$(RUN) tools/build_book.py

chapters: setup  ## execute every chapter again and rewrite it
	$(RUN) tools/chapters.py run

clean:  ## remove what the other targets made, but for .venv
	rm -rf book/_build book/_live book/_vendor .pytest_cache .mypy_cache .ruff_cache
