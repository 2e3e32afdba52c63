# Sourced by the other scripts: goes to the project's root, and makes .venv with all requirements in it
# unless they are there already. VENV=DIR chooses another folder, PYTHON another interpreter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
VENV=${VENV:-.venv}
wanted=$(cat requirements-minimal.txt requirements.txt | sha256sum)
if [ "$(cat "$VENV/requirements.sha256" 2>/dev/null)" != "$wanted" ]; then
  echo "Installing the requirements into $VENV (about 2.5 GB) ..."
  "${PYTHON:-python3}" -m venv "$VENV"
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -r requirements.txt
  echo "$wanted" > "$VENV/requirements.sha256"
fi
export PATH="$(cd "$VENV/bin" && pwd):$PATH"
