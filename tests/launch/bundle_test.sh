#!/usr/bin/env bash
# A bundle runs where nothing of ours is installed: in a root folder that holds libc, bash, coreutils, tar and LibTorch's
# CPU libraries alone. Usage: bundle_test.sh BINARY_DIR TORCH_DIR. Exit 77 = skipped.
set -euo pipefail
source=$(cd "$(dirname "$0")/../.." && pwd)
binaries=$1 torch=$2
skip() { echo "skipped: $1"; exit 77; }
bad() { echo "FAIL: $1"; exit 1; }
command -v zstd >/dev/null || skip "zstd, which launch/bundle packs with, is not installed"
chroot=$(command -v chroot) || skip "there is no chroot here"
enter=("$chroot")
"$chroot" / /bin/true 2>/dev/null || enter=("$(command -v unshare || true)" --map-root-user "$chroot")
"${enter[@]}" / /bin/true 2>/dev/null || skip "neither chroot nor unshare is permitted here"

# In the build folder: LibTorch's 450 MB can be linked there, not copied.
work=$(mktemp -d "$binaries/bundle-test.XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root"/{bin,tmp,dev/shm,root,torch/lib,nvidia/all/lib,cases}
for folder in usr/bin lib64 lib/x86_64-linux-gnu; do mkdir -p "$root/$folder"; done

put() { # put FILE FOLDER: into the root, by hard link where that works
  mkdir -p "$root/$2"
  ln -L "$1" "$root/$2/" 2>/dev/null || cp -L "$1" "$root/$2/"
}
libraries_of() { ldd "$1" | awk '$2 == "=>" && $3 ~ /^\// { print $3 }'; }
for tool in bash dirname mktemp mv rm chmod sed tar cat; do
  file=$(realpath "$(command -v "$tool")")
  put "$file" bin
  [ "$(basename "$file")" = "$tool" ] || ln -s "$(basename "$file")" "$root/bin/$tool"
  for library in $(libraries_of "$file"); do [ -e "$root$library" ] || put "$library" "$(dirname "$library")"; done
done
ln -s ../../bin/bash "$root/usr/bin/bash"
ln -s bash "$root/bin/sh"
cp "$(command -v env)" "$root/usr/bin/env"
put /lib64/ld-linux-x86-64.so.2 lib64
for name in libc.so.6 libm.so.6 libdl.so.2 librt.so.1 libpthread.so.0 libutil.so.1 libresolv.so.2 libstdc++.so.6 libgcc_s.so.1; do
  file=$(ldconfig -p | awk -v name="$name" '$1 == name && /x86-64/ && !found++ { print $NF }')
  [ -e "$root/lib/x86_64-linux-gnu/$name" ] || put "$file" lib/x86_64-linux-gnu
  [ -e "$root/lib/x86_64-linux-gnu/$name" ] || mv "$root/lib/x86_64-linux-gnu/$(basename "$file")" "$root/lib/x86_64-linux-gnu/$name"
done
for library in $(libraries_of "$torch/lib/libtorch_cpu.so") "$torch/lib/libtorch_cpu.so"; do
  case $library in
    */torch/lib/*) put "$library" torch/lib ;;
    */nvidia/*) put "$library" nvidia/all/lib ;;
  esac
done
# The nodes that any machine has; where they cannot be made, files stand for them.
mknod "$root/dev/null" c 1 3 2>/dev/null || : >"$root/dev/null"
mknod "$root/dev/urandom" c 1 9 2>/dev/null || head -c 4096 /dev/urandom >"$root/dev/urandom"
chmod 666 "$root/dev/null"
# What LibTorch asks the kernel about its processors.
for file in /proc/cpuinfo /sys/devices/system/cpu/{possible,present,online,kernel_max}; do
  mkdir -p "$root$(dirname "$file")"
  cat "$file" >"$root$file"
done

"$source/launch/bundle" "$work/bundle" minwm minwm-verify core_test
[ "$(du -sm "$work/bundle" | cut -f1)" -le 60 ] || bad "the bundle is larger than 60 MiB"
mv "$work/bundle" "$root/bundle"
cp "$source"/tests/data/golden/wan/{block_rope,stream_cam_b4}.safetensors "$root/cases/"
cp -r "$source/recipes/wan-tiny" "$root/recipe"

inside() { # inside COMMAND…: in the bare root, with a bare environment
  env -i PATH=/bin HOME=/root MINWM_TORCH=/torch OMP_NUM_THREADS=1 OMPI_MCA_btl_vader_single_copy_mechanism=none \
    ${LD_DEBUG:+LD_DEBUG=$LD_DEBUG} "${enter[@]}" "$root" "$@" 2>&1
}
expect() { # expect TEXT COMMAND…: succeeds and prints TEXT
  local text=$1 output
  shift
  output=$(inside "$@") || bad "$* ended with $?: $output"
  [[ $output == *"$text"* ]] || bad "$*: expected '$text', got: $output"
  echo "ok: ${*:2}"
}
version=$(inside /bundle/start minwm --version & inside /bundle/start minwm --version; wait)
[ "$version" = "$(printf 'minwm %s\nminwm %s' "${version##* }" "${version##* }")" ] || bad "two first starts at once: $version"
[ "$(find "$root/bundle" -maxdepth 1 -name 'unpack*' | wc -l)" = 1 ] || bad "unpacked more than once, or not cleaned up"
expect 'ok block_rope' /bundle/start minwm-verify /cases/block_rope.safetensors /cases/stream_cam_b4.safetensors
expect 'PASSED' /bundle/start core_test --gtest_filter='Hdf5*:Random*:Options*'
small=(--width 32 --height 32 --samples 1)
expect '' /bundle/start minwm data fit-codec --worlds 4 --check_worlds 1 "${small[@]}" --output /tmp/codec.safetensors
expect '' /bundle/start mpirun -n 2 minwm data synth --worlds 2 --latent_frames 8 "${small[@]}" \
  --codec /tmp/codec.safetensors --store /tmp/worlds.h5
expect '' /bundle/start mpirun -n 2 minwm train --config /recipe/bidirectional.ini --data.stores /tmp/worlds.h5 \
  --data.codec /tmp/codec.safetensors --train.global_batch 2 --train.steps 2 --eval.every 0 --output.dir /tmp/run
[ "$(wc -l <"$root/tmp/run/metrics.jsonl")" -ge 2 ] || bad "two steps of training left $(wc -l <"$root/tmp/run/metrics.jsonl") lines"
[ -d "$root/tmp/run/checkpoints/step-000002" ] || bad "training left no checkpoint"
expect '' /bundle/start minwm data synth --worlds 1 --paths_per_world 1 --latent_frames 2 "${small[@]}" --output /tmp/clips
[ -n "$(find "$root/tmp/clips" -name '*.mp4' -size +0)" ] || bad "no video was written"

# Every library comes from the bundle, LibTorch, or what the root has for libc and the C++ run time.
strangers=$(LD_DEBUG=files inside /bundle/start minwm-verify /cases/block_rope.safetensors | sed -n 's/.*calling init: //p' |
  sort -u | grep -vE '^/(bundle/unpacked-[0-9a-f]+/(lib|bin)|torch/lib|nvidia/all/lib)/|/(libc|libm|libdl|librt|libpthread|libresolv|libutil|libstdc\+\+|libgcc_s|libtinfo|ld-linux[^/]*)\.so' || true)
[ -z "$strangers" ] || bad "libraries from outside: $strangers"

# And on this machine, whatever it has installed: its libraries and plugins do not get in.
output=$(cd / && MINWM_TORCH=$torch "$root/bundle/start" mpirun -n 2 minwm plan --gpus 8 2>&1) || bad "minwm plan on this machine: $output"
[[ $output == *"bytes per rank"* ]] || bad "minwm plan on this machine: $output"
output=$(MINWM_TORCH=$torch "$root/bundle/start" minwm plan --gpus 8 2>&1) || bad "minwm plan on this machine, alone: $output"

# One line where something is missing.
if output=$(env -i PATH=/bin MINWM_TORCH=/nowhere "${enter[@]}" "$root" /bundle/start minwm --version 2>&1); then
  bad "started without LibTorch"
fi
[ "$output" = "start: /nowhere/lib/libtorch_cpu.so does not exist: set MINWM_TORCH to the folder of LibTorch" ] || bad "$output"
output=$(inside /bundle/start minwm-serv) && bad "started a program that is not there"
[[ $output == "start: no program 'minwm-serv' in this bundle; it holds: "*minwm-verify* ]] || bad "$output"
output=$("$source/launch/bundle" "$work/other" no_such_program 2>&1) && bad "bundled a program that does not exist"
[ ! -e "$work/other" ] && [ -z "$(find "$work" -maxdepth 1 -name 'other*')" ] || bad "a refused bundle left files"
echo "bundle: ok"
