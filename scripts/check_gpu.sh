#!/usr/bin/env bash
# What GPUs run, without a GPU: on Mesa's software driver (lavapipe), which plays one on the CPU. Golden vectors, every method with
# AutoAttack, runs that go from the CPU to the GPU and back. Debian or Ubuntu; packages are installed where they lack, which needs
# root.
#
#   scripts/check_gpu.sh [--tuned | --all]
#
# Without an option: names of devices, the golden vectors inside the program, and the recipe smoke, whose checks of soundness must
# hold. --all goes on with vectors of another size, every method with AutoAttack, and runs across devices.
# The usual build measures which kernels are the fastest when they are first used. That takes the software driver minutes for a
# few shapes, and what is fast there says nothing about GPUs, so this check does without; --tuned builds with it and runs the
# golden vectors alone.
set -euo pipefail
cd "$(dirname "$0")/.."
driver() { find /usr/share/vulkan/icd.d -name 'lvp_icd*.json' 2>/dev/null | head -n 1; }
if [ -z "$(driver)" ] || ! ldconfig -p | grep -q libvulkan.so.1; then
    apt-get update -q
    apt-get install -qy --no-install-recommends libvulkan1 mesa-vulkan-drivers
fi
work=target/gpu
rm -rf "$work"
mkdir -p "$work/home"
# The software driver alone, also where there is a GPU. Two names: loaders before 1.3.207 know the first.
VK_ICD_FILENAMES="$(driver)"
export VK_ICD_FILENAMES VK_DRIVER_FILES="$VK_ICD_FILENAMES" XDG_RUNTIME_DIR="$PWD/$work/home" ADVCL_CACHE="$PWD/$work/cache"

started=$SECONDS
say() { echo "check_gpu: $((SECONDS - started)) s: $*"; }
fail() { say "FAILED: $*" && exit 1; }
# In the usual folder: half of what it needs is compiled already. With MPI, so that scripts/check_mpi.sh needs no build of its own.
feature=_wgpu
[ "${1:-}" != --tuned ] || feature=wgpu
scripts/install_mpi.sh
cargo build --release --features "$feature,mpi"
cp target/release/advcl "$work/advcl"
advcl="$work/advcl"
say "built"

"$advcl" info
# A driver that plays a GPU is never taken unasked.
code=0
"$advcl" selftest --device gpu 2>"$work/refused" || code=$?
cat "$work/refused"
[ "$code" = 2 ] && grep -q 'no GPU was found' "$work/refused" || fail "--device gpu, exit code $code"
say "device names"

"$advcl" selftest --device gpu:0
say "golden vectors inside the program"
[ "${1:-}" != --tuned ] || exit 0
# Images of one channel, trained and attacked: every adversarial example is in its ball.
"$advcl" run smoke --run "$work/smoke" --device gpu:0 --quiet
"$advcl" evaluate "$work/smoke" --method simclr --mode slf --attack pgd --device gpu:0 --quiet >"$work/log"
cat "$work/log"
grep -q '^soundness: \([0-9]*\) of \1 hold$' "$work/log" || fail "soundness checks that do not hold"
say "smoke, with its checks of soundness"

# Two ranks on it, against one that has both shards.
shards=(pretrain smoke --method simclr --shards 2 --set pretrain.simclr.plan.epochs=1 --device gpu:0 --quiet --run)
"$advcl" "${shards[@]}" "$work/one"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
timeout 300 mpirun --oversubscribe -n 2 "$advcl" "${shards[@]}" "$work/two" || fail "two ranks"
cmp "$work"/{one,two}/simclr/model.safetensors || fail "two ranks compute something else than one"
say "two ranks"
[ "${1:-}" = --all ] || exit 0
source scripts/outside_python.sh
source scripts/tiny_runs.sh
"$advcl" selftest --device gpu:0 golden/gray28
say "golden vectors of another size"

write_recipe "$work/every.toml"
"$advcl" run "$work/every.toml" --run "$work/every" --device gpu:0 --quiet
for method in simclr advcl rocl acl dynacl dynacl++ advcl+ deacl supervised adversarial-training trades; do
    [ -f "$work/every/$method/model.safetensors" ] || fail "no model of $method"
done
"$advcl" evaluate "$work/every" --method advcl --mode slf --attack autoattack --limit 10 --device gpu:0
say "every method, and AutoAttack"

# Stops a run when this epoch is logged.
until_epoch() { # EPOCH PROGRAM…
    "${@:2}" pretrain smoke --method simclr "${plan[@]}" --run "$work/across" 2>"$work/log" &
    local pid=$!
    until grep -q "epoch $1/" "$work/log" || ! kill -0 "$pid" 2>/dev/null; do sleep 0.02; done
    kill -INT "$pid" 2>/dev/null || true
    wait "$pid" || true
}
plan=(--set data.train_limit=512 --set pretrain.simclr.plan.epochs=6)
"$advcl" pretrain smoke --method simclr "${plan[@]}" --run "$work/alone" --quiet
until_epoch 1 "$advcl"
until_epoch 3 "$advcl" --device gpu:0
"$advcl" pretrain smoke --method simclr "${plan[@]}" --run "$work/across" 2>"$work/log"
cat "$work/log"
grep -q 'not bit for bit' "$work/log" || fail "the run was not on both devices"
"$venv/bin/python" scripts/compare_weights.py "$work"/{alone,across}/simclr/model.safetensors 1e-2
say "from the CPU to the GPU and back"
