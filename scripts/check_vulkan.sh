#!/usr/bin/env bash
# The GPU's operations without a GPU: builds with Vulkan and runs the self-test on Mesa's software driver (lavapipe).
# What GPUs run are the bodies of `EngineOps`, which no CPU build ever calls. Slow: a heavy build, then a GPU played by
# the CPU. Mesa 22.3 and 25.0 crash in it when they make a pipeline, so what GPUs run is not covered yet. Debian or
# Ubuntu; packages are installed where they lack, which needs root.
#
#   scripts/check_vulkan.sh [FURTHER ARGUMENTS OF advcl selftest]
set -euo pipefail
cd "$(dirname "$0")/.."

driver() { find /usr/share/vulkan/icd.d -name 'lvp_icd*.json' 2>/dev/null | head -n 1; }
if [ -z "$(driver)" ] || ! ldconfig -p | grep -q libvulkan.so.1; then
    apt-get update
    apt-get install --yes --no-install-recommends libvulkan1 mesa-vulkan-drivers
fi
# The software driver alone, also where there is a GPU. Two names: loaders before 1.3.207 know the first.
VK_ICD_FILENAMES="$(driver)"
export VK_ICD_FILENAMES VK_DRIVER_FILES="$VK_ICD_FILENAMES"

start=$SECONDS
cargo build --release --features vulkan --target-dir target/vulkan
echo "built in $((SECONDS - start)) s; driver: $VK_ICD_FILENAMES"
start=$SECONDS
code=0
target/vulkan/release/advcl selftest --device vulkan --verbose "$@" || code=$?
echo "self-test on the software driver: $((SECONDS - start)) s, exit code $code"
exit "$code"
