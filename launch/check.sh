#!/usr/bin/env bash
# Every change has to pass this: lint, format and the tests. It installs the exact packages of the lock on the
# machines that the lock is for; the other scripts can use the same virtual environment.
case "$("${PYTHON:-python3}" -c 'import platform as p; print(p.system(), p.machine(), p.python_version())')" in
  "Linux x86_64 3.11."*) LOCK=requirements.lock ;;
esac
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
ruff check .
ruff format --check .
pyright
python -m pytest -n auto --dist loadfile --no-loadscope-reorder
