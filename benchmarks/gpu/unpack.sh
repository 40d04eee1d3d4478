#!/usr/bin/env bash
# Unpacks the archives of pack.py and offers their packages to Python. Source it on the GPU machine, in the checkout:
#     . benchmarks/gpu/unpack.sh PARTS FOLDER
# PARTS holds one or more archives, each with all of its parts. FOLDER gets site/ (packages) and files/.

unpack_archives() {
  local name pid pids=()
  mkdir -p "$2"
  for name in runtime genai files; do
    compgen -G "$1/$name.tar.xz*" >/dev/null || continue
    cat "$1/$name".tar.xz* | python3 -c "
import sys, tarfile
tarfile.open(fileobj=sys.stdin.buffer, mode='r|xz').extractall(sys.argv[1], filter='data')" "$2" &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do
    wait "$pid" || echo "FAILED to unpack an archive of $1" >&2
  done
}

# limited SECONDS COMMAND ...: runs a check under a limit of its own and says how it ended and how long it took.
limited() {
  local limit=$1 start=$SECONDS status
  shift
  echo "== $*"
  timeout -k 5 "$limit" "$@"
  status=$?
  echo "-- status $status, $((SECONDS - start)) s"
}

unpack_archives "$1" "$2"
export PYTHONPATH=$(realpath "$2")/site PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
