#!/usr/bin/env bash
# Sets itself up like launch/quickstart.sh and runs the whole suite. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/environment.sh
make_environment requirements-test.txt
exec "$PYTHON" -m pytest -n 2 --dist loadfile "$@"
