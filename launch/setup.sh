# Sourced by the other scripts: goes to the project's root, and makes .venv with all requirements in it
# unless they are there already. VENV=DIR chooses another folder, PYTHON another interpreter, LOCK a file of
# exact versions within the requirements' ranges.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
VENV=${VENV:-.venv}
wanted=$(cat requirements-minimal.txt requirements.txt | sha256sum)
if [ -n "${LOCK:-}" ]; then wanted="$wanted $(sha256sum < "$LOCK")"; fi
# What a lock has installed is within the ranges: the stamp begins with theirs.
if [[ "$(cat "$VENV/requirements.sha256" 2>/dev/null)" != "$wanted"* ]]; then
  echo "Installing the requirements into $VENV (about 2.5 GB) ..."
  "${PYTHON:-python3}" -m venv "$VENV"
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -r "${LOCK:-requirements.txt}"
  echo "$wanted" > "$VENV/requirements.sha256"
fi
export PATH="$(cd "$VENV/bin" && pwd):$PATH"
