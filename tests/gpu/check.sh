#!/usr/bin/env bash
# Every check on a GPU machine, each under its own limit: `make gpu-check`. Its parts took four to five minutes on one
# H200, most of it what the processor does: unpacking, random weights, and the same bundle on the CPU.
#     tests/gpu/check.sh PARTS FOLDER [peers]
# PARTS holds the archives of pack.py and material.sh; FOLDER gets what they unpack to, and results.jsonl. With `peers`,
# onnxruntime-genai and transformers are measured too, which takes five minutes more.
cd "$(dirname "$0")/../.." || exit 1
scripts=tests/gpu peers=benchmarks/gpu
. $peers/unpack.sh "$1" "$2"
folder=$2 files=$2/files
checks() {
  nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
  python3 $scripts/coded_weights.py decode "$files/smollm2" "$folder/smollm2" & local first=$!
  python3 $scripts/coded_weights.py decode "$files/minilm" "$folder/minilm" & local second=$!
  python3 $scripts/coded_weights.py decode "$files/whisper" "$folder/whisper" & local third=$!
  # By their ids: a bare `wait` would wait for whatever reads this output, too.
  wait $first $second $third
  python3 $scripts/random_bundle.py "$folder/smollm2" "$folder/llama-8b" --size 8b & first=$!
  python3 $scripts/to_int4.py "$folder/smollm2" "$folder/smollm2-int4" & second=$!
  limited 60 python3 $scripts/check_decoder.py answers "$folder/smollm2" "$files/answers.json"
  limited 60 python3 $scripts/check_decoder.py features "$folder/smollm2"
  wait $second
  limited 30 python3 $scripts/check_decoder.py answers "$folder/smollm2-int4" "$files/answers.json"
  wait $first
  limited 20 python3 $peers/bandwidth.py
  for bundle in smollm2 smollm2-int4 llama-8b; do
    limited 60 python3 $scripts/check_decoder.py speed "$folder/$bundle"
  done
  # The products of 4 bits that multiply while they unpack.
  limited 60 env ORT_FPA_INTB_GEMM=1 python3 $scripts/check_decoder.py speed "$folder/smollm2-int4" --label fused
  limited 60 python3 $scripts/check_encoder.py "$folder/minilm" --reference "$files/vectors.json"
  limited 60 python3 $scripts/check_speech.py "$folder/whisper" "$files/recordings"
}
measure_peers() {
  limited 90 python3 $peers/peer_torch.py encoder
  limited 90 python3 $peers/peer_torch.py decoder
  limited 150 python3 $peers/peer_torch.py decoder-compiled
  limited 240 python3 $peers/peer_genai.py all "$folder/genai"
}
{ checks; [ "${3:-}" != peers ] || measure_peers; } 2>&1 | tee "$folder/log"
grep '^{' "$folder/log" >"$folder/results.jsonl"
python3 $scripts/table.py "$folder/results.jsonl"
