#!/usr/bin/env bash
# Kills the program at random moments, lets it go on, and compares what it comes to with what it comes to uninterrupted: models,
# pseudo-labels, adversarial examples, results and summaries bit for bit, but for the seconds in them, and nothing left beside them.
# A network of width 1 is trained by every method; `run`, `compare`, `evaluate --attack` and `evaluate --measure` take turns.
#
#   scripts/kill.sh [--kills N] [--seed S]        default: 20 kills, seed 1
#
# The seed decides what is killed and after how long; where a process is by then differs from one machine to another.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/tiny_runs.sh
kills=20 seed=1
while [ $# -gt 0 ]; do
    case "$1" in
        --kills) kills="$2" ;;
        --seed) seed="$2" ;;
        *) echo "error: unknown option $1" >&2; exit 2 ;;
    esac
    shift 2
done
enter_work_folder
write_recipe recipe.toml
RANDOM=$seed

# What a job does in a folder, and from which other job's folder it begins.
declare -A command=(
    [run]='run recipe.toml --run'
    [compare]='compare recipe.toml --run'
    [attack]='evaluate --mode slf --attack autoattack --set threat.radius="0.02" --set evaluate.attack_limit=10 --run'
    [measure]='evaluate --measure all --run'
)
declare -A before=([attack]=run [measure]=run)
jobs=(run compare attack measure)

begin() { # JOB FOLDER
    rm -rf "$2"
    if [ -n "${before[$1]:-}" ]; then cp -r "whole-${before[$1]}" "$2"; fi
}
milliseconds() { echo $(($(date +%s%N) / 1000000)); }

# Uninterrupted first, with the time that it takes.
declare -A takes
for job in "${jobs[@]}"; do
    begin "$job" "whole-$job"
    start=$(milliseconds)
    # shellcheck disable=SC2086
    ./advcl ${command[$job]} "whole-$job" --quiet >/dev/null 2>errors || { cat errors; exit 1; }
    takes[$job]=$(($(milliseconds) - start))
    content "whole-$job" >"content-$job"
done
echo "uninterrupted: $(for job in "${jobs[@]}"; do printf '%s %s ms  ' "$job" "${takes[$job]}"; done)"

wrong() { # JOB TEXT
    local kept
    kept="$OLDPWD/target/kill/wrong-$seed-$killed"
    rm -rf "$kept"
    mkdir -p "$kept"
    cp -r killed "whole-$1" recipe.toml errors "$kept"
    echo "WRONG after $killed kills: $1: $2; kept in target/kill/wrong-$seed-$killed"
    exit 1
}

killed=0 turns=0
while [ "$killed" -lt "$kills" ]; do
    job=${jobs[$((RANDOM % ${#jobs[@]}))]}
    begin "$job" killed
    # Short sittings at first, then longer ones, so that every turn comes to an end.
    most=$((takes[$job] / 4 + 20))
    while :; do
        # shellcheck disable=SC2086
        ./advcl ${command[$job]} killed --quiet >/dev/null 2>errors &
        process=$!
        if [ "$killed" -lt "$kills" ]; then
            delay=$((RANDOM % most))
            sleep "$(printf '%d.%03d' $((delay / 1000)) $((delay % 1000)))"
            kill -KILL "$process" 2>/dev/null || true
        fi
        code=0
        wait "$process" 2>/dev/null || code=$?
        if grep -q panicked errors; then wrong "$job" "a panic"; fi
        if [ "$code" -ne 137 ]; then break; fi
        # A folder that was not begun yet is none to be checked.
        if [ "$job" != compare ] && [ -e killed/run.json ] && ! ./advcl check killed >output 2>errors; then
            wrong "$job" "advcl check finds something: $(grep -vE ' holds|unfinished' output | head -n 5; cat errors)"
        fi
        killed=$((killed + 1))
        most=$((most + takes[$job] / 20 + 5))
    done
    if [ "$code" -ne 0 ]; then wrong "$job" "exit code $code"; fi
    if ! content killed | diff "content-$job" - >difference; then wrong "$job" "$(head -c 2000 difference)"; fi
    turns=$((turns + 1))
done
echo "$killed kills in $turns turns of ${#jobs[@]} commands (seed $seed, $SECONDS s): every result as without"
