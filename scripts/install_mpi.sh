#!/usr/bin/env bash
# Installs what the feature `mpi` needs, where it lacks: MPI with its launcher, and libclang. Debian or Ubuntu, as root.
set -euo pipefail
command -v mpirun >/dev/null && command -v mpicc >/dev/null && ls /usr/lib/llvm-*/lib/libclang*.so* >/dev/null 2>&1 && exit 0
apt-get update -q
apt-get install -qy --no-install-recommends openmpi-bin libopenmpi-dev libclang-dev
