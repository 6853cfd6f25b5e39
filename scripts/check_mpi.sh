#!/usr/bin/env bash
# Several ranks of MPI on this machine: the same bits on any number of them, whatever stops them in between, and errors that are told
# once. Debian or Ubuntu; packages are installed where they lack, which needs root.
#
#   scripts/check_mpi.sh [PROGRAM]        a program with the feature mpi; built where none is named
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/tiny_runs.sh
scripts/install_mpi.sh
ADVCL="${1:+$(realpath "$1")}"
if [ -z "$ADVCL" ]; then
    cargo build --release --features mpi
    ADVCL="$PWD/target/release/advcl"
fi
golden="$PWD/golden/rgb20"
enter_work_folder
strip advcl
write_recipe recipe.toml
started=$SECONDS
say() { echo "check_mpi: $((SECONDS - started)) s: $*"; }
fail() { say "FAILED: $*"; tail -n 20 errors 2>/dev/null; exit 1; }

# As root in a container, and more ranks than cores.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_btl_vader_single_copy_mechanism=none OMPI_MCA_mpi_yield_when_idle=1
ranks() { # NUMBER ARGUMENTS
    timeout 300 mpirun -n "$1" ./advcl "${@:2}" 2>errors
}
same() { # FOLDER WHAT
    content "$1" >found
    cmp -s expected found || { diff expected found | head; fail "$2 differs"; }
}

# Golden vectors of batches in shards.
mkdir vectors
cp "$golden/shards.safetensors" vectors
for number in 2 4; do ranks "$number" selftest vectors || fail "golden vectors on $number ranks"; done
say "golden vectors, on 2 and 4 ranks"

# Every method, pseudo-labels, both ways to finetune, evaluation: on one rank, and on more.
whole=(run recipe.toml --set shards=8 --quiet --run)
./advcl "${whole[@]}" one >table 2>errors || fail "one rank"
cp -r one plain
content one >expected
for number in 2 4 8; do
    ranks "$number" "${whole[@]}" "on-$number" >"table-$number" || fail "$number ranks"
    same "on-$number" "a run on $number ranks"
done
say "a run on 1, 2, 4 and 8 ranks"

attack=(evaluate --mode slf --attack autoattack --set 'threat.radius="0.02"' --set evaluate.attack_limit=8 --set evaluate.batch_size=3)
measure=(evaluate --measure all --measure-limit 8 --set evaluate.batch_size=3 --quiet --run)
./advcl "${attack[@]}" --quiet --run one >table 2>errors || fail "attacks on one rank"
./advcl "${measure[@]}" one >>table 2>errors || fail "measures on one rank"
content one >expected
for number in 2 4; do
    ranks "$number" "${attack[@]}" --quiet --run "on-$number" >/dev/null || fail "attacks on $number ranks"
    ranks "$number" "${measure[@]}" "on-$number" >/dev/null || fail "measures on $number ranks"
    same "on-$number" "AutoAttack or a measure on $number ranks"
done
say "AutoAttack and measures on 1, 2 and 4 ranks"

./advcl embed one/simclr/model.safetensors fashion-mnist-12k -o one.npy --quiet >/dev/null 2>errors || fail "embed"
ranks 2 embed one/simclr/model.safetensors fashion-mnist-12k -o two.npy --quiet >/dev/null || fail "embed on 2 ranks"
cmp one.npy two.npy || fail "features differ"

# Seeds of a comparison by turns where batches have no shards, and all ranks together where they have.
./advcl compare recipe.toml --quiet --run seeds >/dev/null 2>errors || fail "comparison on one rank"
content seeds >expected
ranks 2 compare recipe.toml --quiet --run seeds-2 >/dev/null || fail "comparison on 2 ranks"
same seeds-2 "a comparison on 2 ranks"
say "features and a comparison"

# BatchNorm over all shards: one process has a thread for each, four have two.
whole=(pretrain recipe.toml --set shards=8 --set 'batchnorm="global"' --quiet --run)
./advcl "${whole[@]}" global >/dev/null 2>errors || fail "BatchNorm over all shards on one rank"
content global >expected
for number in 2 4 8; do
    ranks "$number" "${whole[@]}" "global-$number" >/dev/null || fail "BatchNorm over all shards on $number ranks"
    same "global-$number" "BatchNorm over all shards on $number ranks"
done
say "BatchNorm over all shards on 1, 2, 4 and 8 ranks"

# Stopped on 4 ranks by the launcher's signal, gone on with on 2.
content plain >expected
for signal in INT TERM USR1 KILL; do
    mpirun -n 4 ./advcl run recipe.toml --set shards=8 --run "stopped-$signal" >/dev/null 2>errors &
    launcher=$!
    until grep -q 'rocl.*epoch 1/' errors || ! kill -0 "$launcher" 2>/dev/null; do sleep 0.05; done
    if [ "$signal" = KILL ]; then
        # One rank of the four: the launcher ends the others.
        pkill -KILL -n -f "stopped-KILL" || fail "no rank to kill"
    else
        kill -"$signal" "$launcher"
    fi
    code=0
    timeout 60 tail --pid="$launcher" -f /dev/null || fail "ranks that hang after SIG$signal"
    wait "$launcher" || code=$?
    [ "$code" != 0 ] || fail "exit code 0 after SIG$signal"
    ranks 2 run recipe.toml --set shards=8 --quiet --run "stopped-$signal" >/dev/null || fail "going on after SIG$signal"
    same "stopped-$signal" "a run that was stopped by SIG$signal on 4 ranks and went on on 2"
done
say "stopped on 4 ranks, gone on with on 2"

# What cannot be is told once, with exit code 2, within seconds.
refused() { # RANKS WORDS ARGUMENTS
    local code=0 told
    timeout 60 mpirun -n "$1" ./advcl "${@:3}" >/dev/null 2>errors || code=$?
    [ "$code" = 2 ] || fail "exit code $code of: ${*:3}"
    told=$(grep -c '^error:' errors || true)
    [ "$told" = 1 ] || fail "$told errors told by: ${*:3}"
    grep -q "$2" errors || fail "no \"$2\" in what is said by: ${*:3}"
}
refused 3 'batches of 8 shards: expected as many for each' run recipe.toml --set shards=8 --run refused
refused 4 'batches of 2 shards' run recipe.toml --set shards=2 --run refused
refused 2 'batches that are not cut into shards' run recipe.toml --run refused
refused 2 '16 shards of 16 images' run recipe.toml --set shards=16 --run refused
refused 2 'unknown field' run recipe.toml --set sharts=16 --run refused
code=0
timeout 60 mpirun -n 1 ./advcl run recipe.toml --set shards=2 --run refused : -n 1 ./advcl run recipe.toml --set shards=2 --set seed=4 --run refused \
    >/dev/null 2>errors || code=$?
[ "$code" = 2 ] && grep -q 'rank 1 has another recipe than rank 0' errors || fail "two recipes: exit code $code"
code=0
timeout 60 mpirun -n 1 ./advcl run recipe.toml --set shards=2 --run refused : -n 1 ./advcl run recipe.toml --set shards=2 --run elsewhere \
    >/dev/null 2>errors || code=$?
[ "$code" = 2 ] && grep -q 'rank 1 does not see what rank 0 writes' errors || fail "two folders: exit code $code"
# An error of one rank alone: told by it, and the end of the other, which waits for it.
code=0
timeout 60 mpirun -n 1 ./advcl run recipe.toml --set shards=2 --run alone : -n 1 ./advcl run recipe.toml --set shards=2 --run alone --device tpu \
    >/dev/null 2>errors || code=$?
[ "$code" = 2 ] && grep -q '^rank 1:' errors && [ "$(grep -c '^error: device' errors)" = 1 ] || fail "an error of rank 1: exit code $code"
say "what cannot be is refused"

# Ranks that compute in different ways: told and kept, also by a second command in their folder.
mixed=(pretrain recipe.toml --method simclr --set shards=2 --run mixed)
for turn in first second; do
    timeout 300 mpirun -n 1 ./advcl "${mixed[@]}" : -n 1 ./advcl "${mixed[@]}" --cpu-kernels portable >/dev/null 2>errors \
        || fail "the $turn command of unlike ranks"
    grep -q 'rank 1 computes by cpu, portable, winograd, f32, rank 0 by cpu, ' errors || fail "unlike ranks that the $turn command does not tell"
done
grep -q ' beside cpu, portable, winograd, f32"' mixed/run.json || fail "run.json does not know of unlike ranks"
say "ranks that compute in different ways"
