#!/usr/bin/env bash
# Installs SLURM and munge from the system's packages where they are missing (Debian and its kin; as root, else with sudo).
# tests/launch/slurm_cluster.sh starts what tests need of them; no service of the system is touched.
set -uo pipefail
PATH="$PATH:/usr/sbin:/sbin"
if command -v slurmctld > /dev/null && command -v slurmd > /dev/null && command -v munged > /dev/null; then exit 0; fi
as_root=()
if [ "$(id -u)" != 0 ]; then as_root=(sudo --non-interactive); fi
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update --quiet=2 || true # an older index may do
if ! "${as_root[@]}" apt-get install --quiet=2 --yes --no-install-recommends slurm-wlm munge; then
  echo "slurm-wlm and munge could not be installed: the tests that need them will fail" >&2
fi
