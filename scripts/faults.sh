#!/usr/bin/env bash
# Lets system calls of a small run fail, one at a time: every write, sync, rename, every file and folder that is made, opened for
# writing or removed. The program must say so and end with exit code 3, or do without and end with 0; it must not panic, must be able
# to go on with the same command, and come to the same bits.
#
#   scripts/faults.sh [--sample N] [--seed S]      default: every call; N of them, drawn by the seed
#
# strace counts the calls, of the thread that does all work on files, and lets them fail.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/tiny_runs.sh
sample=0 seed=1
while [ $# -gt 0 ]; do
    case "$1" in
        --sample) sample="$2" ;;
        --seed) seed="$2" ;;
        *) echo "error: unknown option $1" >&2; exit 2 ;;
    esac
    shift 2
done
if ! command -v strace >/dev/null && ! { apt-get update -q && apt-get install -qy --no-install-recommends strace; } >/dev/null 2>&1; then
    echo "skipped: strace is not installed, and cannot be"
    exit 0
fi
enter_work_folder
write_recipe all.toml
# One encoder and what it needs: pseudo-labels too.
awk '/^\[/ {skip = $0 ~ /^\[pretrain/ && $0 !~ /"(simclr|advcl)"/ || $0 ~ /^\[(compare|finetune.aff)/} !skip' all.toml >recipe.toml
command=(./advcl run recipe.toml --set 'evaluate.attack = "fgsm"' --run)

if ! strace -f -o trace -e trace=write,openat "${command[@]}" whole >/dev/null 2>errors; then
    if grep -q ptrace errors; then echo "skipped: processes cannot be traced here"; exit 0; fi
    cat errors
    exit 1
fi
content whole >content-whole
rm -rf whole
calls='write,pwrite64,writev,fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat,ftruncate,flock,openat'
strace -f -o trace -e "trace=$calls" "${command[@]}" whole >/dev/null 2>errors

# Which call, the how manieth of its name, and how it fails. strace counts for each thread, and another thread's call of the same number
# fails too; of the loader's calls, which are the main thread's, it does not matter.
worker=$(awk '{lines[$1]++} END {for (thread in lines) if (lines[thread] > lines[most]) most = thread; print most}' trace)
awk -v worker="$worker" '$1 == worker && $2 ~ /^[a-z0-9_]+\(/ {
    name = $2; sub(/\(.*/, "", name); number = ++count[name]
    if (name == "openat" && $0 !~ /O_WRONLY|O_RDWR|O_CREAT|O_DIRECTORY/) next
    kinds = name ~ /write|sync|truncate/ ? "ENOSPC EIO" : name == "flock" ? "EIO" : "EACCES ENOSPC"
    split(kinds, kind, " ")
    for (which in kind) print name, number, kind[which]
}' trace | LC_ALL=C sort -u >faults
total=$(wc -l <faults)
if [ "$sample" -gt 0 ]; then
    awk -v seed="$seed" 'BEGIN {srand(seed)} {print rand(), $0}' faults | sort -g | sed -n "1,${sample}p" | cut -d' ' -f2- >chosen
else
    cp faults chosen
fi

wrong() { # TEXT
    local kept="$OLDPWD/target/faults/wrong-${name}-${number}-${kind}"
    rm -rf "$kept"
    mkdir -p "$kept"
    cp -r errors recipe.toml "$kept"
    if [ -e struck ]; then cp -r struck "$kept"; fi
    echo "WRONG: $name number $number, $kind: $1; kept in target/faults/${kept##*/}"
    failed=$((failed + 1))
}

failed=0
declare -A codes
while read -r name number kind; do
    rm -rf struck
    code=0
    timeout 60 strace -f -o /dev/null -e "trace=$name" -e "inject=$name:error=$kind:when=$number" "${command[@]}" struck >output 2>errors ||
        code=$?
    codes[$code]=$((${codes[$code]:-0} + 1))
    if grep -q panicked errors; then wrong "a panic"; continue; fi
    case "$code" in
        0) ;;
        127) continue ;; # the loader
        # The first write of the main thread may be the error's own first line: then its hint is there.
        3) if ! grep -qE '^(error|hint): ' errors; then wrong "exit code 3 without a word"; continue; fi ;;
        *) wrong "exit code $code: $(tail -n 2 errors)"; continue ;;
    esac
    if [ -e struck/run.json ] && ! ./advcl check struck >output 2>errors; then
        wrong "advcl check finds something: $(grep -vE ' holds|unfinished' output | head -n 5; cat errors)"
        continue
    fi
    if ! "${command[@]}" struck >/dev/null 2>errors; then wrong "it does not go on: $(tail -n 2 errors)"; continue; fi
    if ! content struck | diff content-whole - >difference; then wrong "$(head -c 1000 difference)"; fi
done <chosen
summary="$(wc -l <chosen) of $total faults ($SECONDS s), exit codes:$(for code in "${!codes[@]}"; do printf ' %s × %s' "${codes[$code]}" "$code"; done)"
if [ "$failed" -gt 0 ]; then echo "$summary; $failed wrong"; exit 1; fi
echo "$summary; no panic, no loss"
