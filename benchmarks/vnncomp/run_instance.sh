#!/bin/bash
# VNN-COMP, protocol v1: decide one instance. The result file holds sat (with the witness below it), unsat, unknown,
# timeout or error; the exit code is 0 whenever it was written.
# usage: run_instance.sh v1 CATEGORY ONNX VNNLIB RESULTS TIMEOUT
# (several networks: ONNX is "[('f', 'a.onnx'), ('g', 'b.onnx')]")
if [ "$1" != v1 ] || [ $# -lt 6 ]; then
  echo "run_instance.sh: usage: run_instance.sh v1 CATEGORY ONNX VNNLIB RESULTS TIMEOUT" >&2
  exit 1
fi
rm -f "$5"
timeout --kill-after=1 "$6" "${PYTHON:-python3}" -m formalgr \
  verify "$3" "$4" --competition --timeout "$6" --result-file "$5" --quiet > /dev/null
code=$?
if [ ! -s "$5" ]; then
  if [ $code = 124 ] || [ $code = 137 ]; then echo timeout > "$5"; else echo error > "$5"; fi
fi
