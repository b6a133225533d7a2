#!/usr/bin/env bash
# Run everything of repvgg_mm that only a GPU runs, in less than 10 minutes, and print a table to paste.
# The same as repvgg-mm check-gpu; PYTHON names the interpreter.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python}" -m repvgg_mm check-gpu "$@"
