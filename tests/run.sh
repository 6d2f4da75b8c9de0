#!/usr/bin/env bash
# Sets itself up like launch/quickstart.sh and runs the suite; -m many_processes runs what starts several real processes;
# tests/parity.sh compares with other libraries.
# Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/environment.sh
make_environment requirements-test.txt
exec "$PYTHON" -m pytest -n 2 --dist loadfile -m "not many_processes and not parity and not notebooks" "$@"
