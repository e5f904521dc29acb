#!/usr/bin/env bash
# launch/check-includes accepts a right tree and names the file, line and rooms of each violation.
set -euo pipefail
check="$(cd "$(dirname "$0")/../.." && pwd)/launch/check-includes"
root="$(mktemp -d)"
trap 'rm -rf "$root"' EXIT
mkdir -p "$root"/src/{camera,models} "$root"/include/minwm/{camera,models}
echo '#include "minwm/camera/pose.h"' >"$root/src/models/a.cpp"
echo '#pragma once' >"$root/include/minwm/camera/pose.h"
"$check" "$root" || { echo "a right tree was refused"; exit 1; }

expect() { # expect TEXT: the check fails and prints TEXT
  if output="$("$check" "$root")"; then echo "not refused: $1"; exit 1; fi
  [[ "$output" == *"$1"* ]] || { echo "expected '$1', got: $output"; exit 1; }
}
printf '#pragma once\n#include "minwm/models/net.h"\n' >"$root/include/minwm/camera/pose.h"
expect 'include/minwm/camera/pose.h:2: room camera must not include models'
printf '#include "../camera/secret.h"\n' >"$root/src/models/a.cpp"
expect 'src/models/a.cpp:1: the code behind another room is private'
printf '#include "minwm/kitchen/net.h"\n' >"$root/src/models/a.cpp"
expect 'src/models/a.cpp:1: unknown room kitchen'
