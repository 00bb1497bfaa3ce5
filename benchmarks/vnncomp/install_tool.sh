#!/bin/bash
# VNN-COMP, protocol v1: install formalgr from the repository that holds this script.
# usage: install_tool.sh v1
set -e
if [ "$1" != v1 ]; then
  echo "install_tool.sh: expected version v1 as first argument, got '$1'" >&2
  exit 1
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
"${PYTHON:-python3}" -m pip install -c "$root/constraints.txt" "$root"
