#!/usr/bin/env bash
# What launch.tpu does on each worker of a resource, through ssh. A work is a process of its own that outlives the connection:
# its words, what it says and its code lie in ~/tandem/jobs/LABEL, so that a launcher may come back and go on listening.
#   worker.sh setup LINE | start LABEL [NAME=VALUE ...] python -m ... | follow LABEL LINES | stop LABEL
# Every line begins with [number of the worker]; launch/tpu/pod.py reads `ready`, `refused` and `ended with code N`.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH="$HOME/.local/bin:$PATH" TANDEM_VENV="$HOME/tandem/venv"
jobs="$HOME/tandem/jobs"
attributes="http://metadata.google.internal/computeMetadata/v1/instance/attributes"
[ -s "$HOME/tandem/index" ] || curl -sf -H "Metadata-Flavor: Google" "$attributes/agent-worker-number" > "$HOME/tandem/index"
me="[$(cat "$HOME/tandem/index")]"

say() { echo "$me $*"; }
prefixed() { sed -u -E "s/^(\\$me )?/$me /"; }
alive() { [ -s "$1/holder" ] && kill -0 "$(cat "$1/holder")" 2> /dev/null; }

case "$1" in
  setup)
    # A subshell of its own: `set -e` does not hold inside a condition.
    set +e
    (set -e; eval "$2"; . launch/environment.sh; make_environment requirements-tpu.txt; echo "$PYTHON" > "$HOME/tandem/python") 2>&1 | prefixed
    code="${PIPESTATUS[0]}"
    [ "$code" = 0 ] || { say "refused: the set-up ended with code $code"; exit 3; }
    say ready
    ;;
  start)
    job="$jobs/$2"
    shift 2
    if alive "$job"; then
      [ "$(cat "$job/words")" = "$*" ] && exit 0
      say "refused: this worker runs another command: $(cat "$job/words")"
      exit 3
    fi
    rm -rf "$job"
    mkdir -p "$job"
    echo "$*" > "$job/words"
    : > "$job/log"
    variables=()
    while [ "$1" != python ]; do variables+=("$1"); shift; done
    shift
    # The holder waits for the process and writes its code; both live on when the connection goes.
    setsid nohup bash -c '
      job="$1"; shift
      env "$@" > "$job/log" 2>&1 &
      echo $! > "$job/process"
      echo $$ > "$job/holder"
      wait $!
      echo $? > "$job/code.part"
      mv "$job/code.part" "$job/code"
    ' holder "$job" "${variables[@]}" "$(cat "$HOME/tandem/python")" "$@" > /dev/null 2>&1 < /dev/null &
    until [ -s "$job/holder" ]; do sleep 0.05; done
    ;;
  follow)
    job="$jobs/$2"
    tail -n "$3" -s 0.2 --pid="$(cat "$job/holder")" -f "$job/log" | prefixed
    # A holder that was killed wrote no code.
    say "ended with code $(cat "$job/code" 2> /dev/null || echo 137)"
    ;;
  stop)
    if alive "$jobs/$2"; then kill -TERM "$(cat "$jobs/$2/process")"; fi
    ;;
esac
