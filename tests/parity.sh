#!/usr/bin/env bash
# Sets up the reference libraries (PyTorch and others: gigabytes) and runs the tests that compare with them. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/environment.sh
export TANDEM_VENV="${TANDEM_PARITY_VENV:-.venv-parity}"
make_environment requirements-parity.txt requirements-parity-no-deps.txt
exec "$PYTHON" -m pytest -n 2 --dist loadfile -m parity "$@"
