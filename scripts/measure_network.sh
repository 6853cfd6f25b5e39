#!/usr/bin/env bash
# A training step on two ranks with a network between them: two network namespaces of this machine, joined by a link that is slowed
# down to what a network of one gigabit has. Linux, as root, with iproute2 and Open MPI.
#
#   scripts/measure_network.sh [--rate 1gbit] [--delay 1ms] PROGRAM BENCH_ARGUMENTS…
#
# For example: scripts/measure_network.sh target/release/advcl bench step --width 16 --batch 64
set -euo pipefail
rate=1gbit delay=1ms
while :; do
    case "${1:-}" in
        --rate) rate="$2" && shift 2 ;;
        --delay) delay="$2" && shift 2 ;;
        *) break ;;
    esac
done
program="$(realpath "$1")"
shift
work="$(mktemp -d)"
remove() {
    ip netns del advcl-a 2>/dev/null || true
    ip netns del advcl-b 2>/dev/null || true
    rm -rf "$work"
}
trap remove EXIT
ip netns add advcl-a
ip netns add advcl-b
ip link add link-a netns advcl-a type veth peer name link-b netns advcl-b
for side in a b; do
    number=$([ "$side" = a ] && echo 1 || echo 2)
    ip -n "advcl-$side" address add "10.77.0.$number/24" dev "link-$side"
    ip -n "advcl-$side" link set "link-$side" up
    ip -n "advcl-$side" link set lo up
    if ! ip netns exec "advcl-$side" tc qdisc add dev "link-$side" root netem rate "$rate" delay "$delay" 2>/dev/null; then
        # A kernel without netem: the rate alone.
        delay=none
        ip netns exec "advcl-$side" tc qdisc add dev "link-$side" root tbf rate "$rate" burst 256kb latency 50ms
    fi
done
# In the place of ssh: a command in the namespace of that address.
cat >"$work/agent" <<'AGENT'
#!/bin/sh
case "$1" in *.1) side=a ;; *) side=b ;; esac
shift
exec ip netns exec "advcl-$side" /bin/sh -c "$*"
AGENT
chmod +x "$work/agent"
printf '10.77.0.1 slots=1\n10.77.0.2 slots=1\n' >"$work/hosts"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 RAYON_NUM_THREADS=1
echo "two ranks of one thread; the link: $rate, delay each way: $delay"
ip netns exec advcl-a mpirun --hostfile "$work/hosts" -n 2 --map-by node --bind-to none \
    --mca plm_rsh_agent "$work/agent" --mca btl tcp,self --mca btl_tcp_if_include 10.77.0.0/24 --mca oob_tcp_if_include 10.77.0.0/24 \
    --mca pml ob1 "$program" "$@"
