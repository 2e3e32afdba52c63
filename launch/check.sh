#!/usr/bin/env bash
# Every change has to pass this: lint, format and the tests. It installs the exact packages of the lock on the
# machines that the lock is for; the other scripts can use the same virtual environment.
case "$("${PYTHON:-python3}" -c 'import platform as p; print(p.system(), p.machine(), p.python_version())')" in
  "Linux x86_64 3.11."*) LOCK=requirements.lock ;;
esac
# Of a fresh environment only the modules that are imported are compiled, and once for all processes.
export PIP_COMPILE=0
unset PYTHONDONTWRITEBYTECODE
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
ruff check .
ruff format --check .
# The type checker uses the time in which tests wait.
types=$(mktemp)
pyright > "$types" 2>&1 &
checker=$!
trap 'kill "$checker" 2> /dev/null || true; rm -f "$types"' EXIT
failed=0
# One worker more than processors, because tests also wait for processes and disks.
python -m pytest -n $(($(nproc 2> /dev/null || getconf _NPROCESSORS_ONLN) + 1)) --dist loadfile --no-loadscope-reorder || failed=$?
wait "$checker" || failed=$?
cat "$types"
exit "$failed"
