# Sourced by the two commands: makes .venv from pinned requirements, with uv where it is installed, else venv and pip.
# Needs Python 3.11 or newer and a package index; TANDEM_VENV puts the environment elsewhere.

make_environment() { # requirements file, and optionally one whose packages come without dependencies
  local wanted venv="${TANDEM_VENV:-.venv}" python
  for python in python3.11 python3.12 python3; do
    if command -v "$python" > /dev/null && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then break; fi
    python=""
  done
  if [ -z "$python" ] && ! command -v uv > /dev/null; then
    echo "Tandem needs Python 3.11 or newer; none was found on PATH." >&2
    exit 3
  fi
  wanted="$(cat requirements.txt "$@" | cksum) ${python:-uv}"
  if [ "$(cat "$venv/tandem-$(basename "$1")" 2> /dev/null)" != "$wanted" ]; then
    echo "installing $1 into $venv"
    if command -v uv > /dev/null; then
      [ -x "$venv/bin/python" ] || uv venv --quiet --python "${python:-3.11}" "$venv"
      uv pip install --quiet --python "$venv/bin/python" -r "$1"
      if [ -n "${2:-}" ]; then uv pip install --quiet --no-deps --python "$venv/bin/python" -r "$2"; fi
    else
      [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
      "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$1"
      if [ -n "${2:-}" ]; then "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -r "$2"; fi
    fi
    echo "$wanted" > "$venv/tandem-$(basename "$1")"
  fi
  PYTHON="$venv/bin/python"
}
