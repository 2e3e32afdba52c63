# The other scripts source this one. It changes to the project's root and makes .venv with all requirements, and the
# command `hourglass`, unless they are there already. VENV=DIR chooses another folder, PYTHON another interpreter,
# LOCK a file of exact versions of all packages within the ranges of the requirements.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
VENV=${VENV:-.venv}
wanted=$(cat requirements-minimal.txt requirements.txt | sha256sum)
if [ -n "${LOCK:-}" ]; then wanted="$wanted $(sha256sum < "$LOCK")"; fi
# The stamp of a lock begins with that of the ranges: its versions lie within them.
if [[ "$(cat "$VENV/requirements.sha256" 2>/dev/null)" != "$wanted"* ]]; then
  echo "Installing the requirements into $VENV (about 3 GB) ..."
  "${PYTHON:-python3}" -m venv "$VENV"
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check ${LOCK:+--no-deps} -r "${LOCK:-requirements.txt}"
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --editable .
  echo "$wanted" > "$VENV/requirements.sha256"
fi
export PATH="$(cd "$VENV/bin" && pwd):$PATH"
