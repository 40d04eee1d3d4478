#!/usr/bin/env bash
# Unpacks the archives of pack.py, and offers their packages and the checkout's triform to Python. Source it on the GPU
# machine, in the checkout:
#     . benchmarks/gpu/unpack.sh PARTS FOLDER
# PARTS holds any of the archives, each with all of its parts. FOLDER gets site/ (packages) and files/. A later call may
# add archives to the same folder; triform is copied again each time.

unpack_archives() {
  local name pid pids=()
  mkdir -p "$2"
  for name in runtime genai files; do
    compgen -G "$1/$name.tar.?z*" >/dev/null || continue
    cat "$1/$name".tar.?z* | python3 -c "
import sys, tarfile
tarfile.open(fileobj=sys.stdin.buffer, mode='r|*').extractall(sys.argv[1], filter='data')" "$2" &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do
    wait "$pid" || echo "FAILED to unpack an archive of $1" >&2
  done
}

# Copied, because the checkout has the package's folders side by side.
copy_triform() {
  local package=$1/site/triform version
  version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
  rm -rf "$package" "$package"-*.dist-info
  mkdir -p "$package" "$package-$version.dist-info"
  cp src/triform/*.py "$package"
  cp -r cli export models runtime "$package"
  printf 'Metadata-Version: 2.1\nName: triform\nVersion: %s\n' "$version" >"$package-$version.dist-info/METADATA"
}

# onnxruntime looks for NVIDIA's libraries in packages beside its own, where pip would have put it.
link_nvidia() {
  local packages
  [ ! -e "$1/site/nvidia" ] || return 0
  packages=$(python3 -c "
import importlib.util
spec = importlib.util.find_spec('nvidia')
print(*list(spec.submodule_search_locations)[-1:] if spec else [])")
  [ -z "$packages" ] || ln -sfn "$packages" "$1/site/nvidia"
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
copy_triform "$2"
link_nvidia "$2"
export PYTHONPATH=$(realpath "$2")/site PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
