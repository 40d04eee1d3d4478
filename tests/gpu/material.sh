#!/usr/bin/env bash
# Makes what the checks on a GPU machine need, in parts that travel: `make gpu-material`.
#     tests/gpu/material.sh FOLDER SMOLLM2_CHECKPOINT MINILM_CHECKPOINT WHISPER_CHECKPOINT RECORDINGS
# FOLDER gets parts/files.tar.gz.NN. Takes about ten minutes; what is there already is kept.
set -euo pipefail
scripts=$(cd "$(dirname "$0")" && pwd) folder=$1
mkdir -p "$folder/files" "$folder/parts"

# A bundle of a checkpoint whose weights are rounded so that they travel in 4 bits.
coded() {
  local name=$1 source=$2
  [ -e "$folder/$name-rounded" ] || python "$scripts/coded_weights.py" round "$source" "$folder/$name-rounded"
  [ -e "$folder/$name" ] || triform export "$folder/$name-rounded" "$folder/$name" --target gpu
  [ -e "$folder/files/$name" ] || python "$scripts/coded_weights.py" encode "$folder/$name" "$folder/files/$name"
}

coded smollm2 "$2"
coded minilm "$3"
coded whisper "$4"
[ -e "$folder/files/answers.json" ] ||
  python "$scripts/reference.py" answers "$folder/smollm2-rounded" "$folder/files/answers.json"
[ -e "$folder/files/vectors.json" ] ||
  python "$scripts/reference.py" vectors "$folder/minilm-rounded" "$folder/files/vectors.json"
cp -r "$5" "$folder/files/recordings"
rm -f "$folder"/parts/files.tar.*
# Coded weights hardly compress, and xz would unpack them at a tenth of the speed.
tar -C "$folder" -cf - files | gzip -1 | split -b 50M -d - "$folder/parts/files.tar.gz."
ls -l "$folder/parts"
