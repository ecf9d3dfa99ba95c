#!/usr/bin/env bash
# Names what is missing for an installation, with the command that installs it.
set -u
python=${PYTHON:-python3}
missing=()
command -v "$python" >/dev/null || { echo "Missing: $python. Install it: sudo apt-get install python3 python3-venv python3-dev"; exit 1; }
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
case "$version" in
  3.11 | 3.12 | 3.13) ;;
  *) echo "Python 3.11, 3.12 or 3.13 is needed, $python is $version. Name another one: make setup PYTHON=python3.12"; exit 1 ;;
esac
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
header=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h
[ -f "$header" ] || missing+=(python3-dev)
command -v g++ >/dev/null || missing+=(g++)
if [ "${WORKER:-cpu}" = gpu ]; then
  driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1)
  [ "${driver%%.*}" -ge 580 ] 2>/dev/null || {
    echo "The GPU build needs NVIDIA's driver 580 or later, for CUDA 13; found: ${driver:-none}. Update it, or install the CPU build: make setup WORKER=cpu"
    exit 1
  }
fi
if [ ${#missing[@]} -gt 0 ]; then
  echo "Missing: ${missing[*]}. Install with: sudo apt-get update && sudo apt-get install ${missing[*]}"
  exit 1
fi
