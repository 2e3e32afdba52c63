#!/usr/bin/env bash
# What every change has to pass: lint, format and the tests.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
ruff check .
ruff format --check .
python -m pytest
