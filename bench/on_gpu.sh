#!/usr/bin/env bash
# Everything that an NVIDIA GPU is asked, in some five minutes: the tests that only it can run, while the compiler works
# ahead, and the measurements.   bash bench/on_gpu.sh [PYTHON [OUTPUT.json]]
set -euo pipefail
cd "$(dirname "$0")/.."
python="${1:-python3}" log="$(mktemp)"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
"$python" bench/gpu.py --tests "$log" ${2:+--output "$2"}
cat "$log"
