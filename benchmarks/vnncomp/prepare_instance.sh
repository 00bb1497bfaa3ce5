#!/bin/bash
# VNN-COMP, protocol v1: check the files of an instance. Nothing is converted or cached: reading is part of the run.
# usage: prepare_instance.sh v1 CATEGORY ONNX VNNLIB    (several networks: ONNX is "[('f', 'a.onnx'), ('g', 'b.onnx')]")
if [ "$1" != v1 ] || [ $# -lt 4 ]; then
  echo "prepare_instance.sh: usage: prepare_instance.sh v1 CATEGORY ONNX VNNLIB" >&2
  exit 1
fi
for file in "$3" "$4"; do
  if [[ "$file" != \[* ]] && [ ! -r "$file" ]; then
    echo "prepare_instance.sh: $file cannot be read" >&2
    exit 1
  fi
done
