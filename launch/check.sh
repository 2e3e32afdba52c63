#!/usr/bin/env bash
# What every change has to pass: lint, format and the tests; with the exact packages of the lock, where it is
# for this machine (its own virtual environment fits the other scripts, too).
case "$("${PYTHON:-python3}" -c 'import platform as p; print(p.system(), p.machine(), p.python_version())')" in
  "Linux x86_64 3.11."*) LOCK=requirements.lock ;;
esac
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
ruff check .
ruff format --check .
python -m pytest -n auto --dist loadfile
