# Every target sets up what it needs in .venv. README.md has the same commands for machines without make.
PYTHON ?= python3
RUN := .venv/bin/python
# A worker for each core, with one thread; the tests of a file or a chapter stay together.
WORKERS := -n logical --dist loadscope --durations 20
PYTEST := $(RUN) -m pytest $(WORKERS) --nbval --nbval-current-env -p no:cacheprovider --ignore tests/browser
ONE_THREAD := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
# PyTorch, oneDNN and MKL each choose their own instructions.
WITHOUT_AVX512 := ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2

.PHONY: help setup test test-code test-pages test-variants test-cluster bench bench-gpu lint book kit chapters reproduce clean

help:  ## say what the targets do
	@sed -n 's/^\([a-z-]*\):.*## */\1\t/p' Makefile | awk -F'\t' '{printf "make %-13s %s\n", $$1, $$2}'

setup:  ## install the package and everything that tests and book need into .venv
	@$(PYTHON) tools/environment.py

test: lint  ## check style and types, then both of the next two at once: a browser mostly waits
	@$(MAKE) --no-print-directory --jobs 2 test-code test-pages

test-code: setup  ## run the tests, run every chapter and compare its outputs
	$(ONE_THREAD) $(PYTEST) book/*.ipynb tests

test-pages: setup  ## build the book and try it in Chromium
	$(ONE_THREAD) $(RUN) -m pytest $(WORKERS) tests/browser

test-variants: setup  ## the tests and the chapters with as many threads as there are cores, and without AVX-512
	OMP_WAIT_POLICY=PASSIVE $(PYTEST) -n 1 book/*.ipynb tests --ignore tests/live
	$(ONE_THREAD) $(WITHOUT_AVX512) $(PYTEST) book/*.ipynb tests --ignore tests/live

test-cluster: setup  ## runs on simulated clusters whose nodes, workers and drivers die, some ten minutes
	$(ONE_THREAD) $(RUN) -m pytest tests/clusters

bench: setup  ## measure speed against the network's arithmetic and against peers, into bench/results
	$(RUN) bench/speed.py

bench-gpu: setup  ## the tests that need an NVIDIA GPU and its measurements, some five minutes
	bash bench/on_gpu.sh $(RUN)

lint: setup  ## check style and types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

book: setup  ## build the published book from the verified chapters into book/_build/html
	$(RUN) tools/build_book.py

chapters: setup  ## execute every chapter again and rewrite it
	$(RUN) tools/chapters.py run

reproduce: setup  ## make the stored sweeps that are missing, execute every chapter again and rewrite it
	$(RUN) studies/sweeps.py
	$(RUN) tools/chapters.py run

kit: book  ## write kit/, a folder for a class without internet: wheels, site, notebooks, students' copies
	$(RUN) tools/kit.py kit $(KIT_OPTIONS)

clean:  ## remove what the other targets made, but for .venv
	rm -rf book/_build book/_front book/_live book/_vendor .pytest_cache .mypy_cache .ruff_cache
