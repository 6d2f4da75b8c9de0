#!/usr/bin/env bash
# Fresh clone to report: environment, training with the eval job beside it, report page. Run again, it skips what is done.
# Arguments go to the trainer: ./launch/quickstart.sh --config.train.steps=100
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/environment.sh
make_environment requirements.txt

workdir="${TANDEM_WORKDIR:-runs/glyphs}"
config="${TANDEM_CONFIG:-configs/glyphs.py}"

# The eval job shares the cores with training, so it runs at the lowest priority.
"$PYTHON" -m launch.evaluate --workdir="$workdir" --follow --nice=19 &
evaluating=$!
trap 'kill "$evaluating" 2> /dev/null || true' EXIT

code=0
"$PYTHON" -m launch.train --config="$config" --workdir="$workdir" "$@" || code=$?
case "$code" in
  0) ;;
  75) echo "stopped after saving; the same command goes on from there" >&2; exit 75 ;;
  *) echo "training ended with code $code" >&2; exit "$code" ;;
esac
wait "$evaluating"
trap - EXIT
"$PYTHON" -m launch.report --workdir="$workdir"
