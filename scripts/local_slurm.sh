#!/usr/bin/env bash
# A real SLURM with two nodes on one machine: for a first try, for the tests, for continuous integration.
#   eval "$(bash scripts/local_slurm.sh start)"   installs it where it is missing, starts it, waits until both nodes are up;
#                                                 prints what the shell needs: export SLURM_CONF=... and
#                                                 MASTER_ADDR, as the two nodes' names are no machine's
#   bash scripts/local_slurm.sh status            the nodes, as sinfo shows them; exit code 1 where they do not answer
#   bash scripts/local_slurm.sh stop              ends it and removes its folder
# Two partitions over the same nodes: `all`, the default, and `urgent`, whose jobs push those of `all` out and back into
# the queue. A job that is pushed out hears SIGTERM and has a minute to save.
# All of it lies in DINOV2_SLURM_DIR (default /tmp/dinov2-slurm), apart from any SLURM that the machine already has; ports
# from DINOV2_SLURM_PORT (default 16817) on. Each node claims 8 processors and 32 GB, whatever there is: nothing is enforced.
# Exit codes: 3 it cannot be installed or does not start here; 2 a wrong word or folder. Tried with SLURM 22.05, Debian 12.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/debian_packages.sh"
STATE="$(realpath -m -- "${DINOV2_SLURM_DIR:-/tmp/dinov2-slurm}")"
PORT="${DINOV2_SLURM_PORT:-16817}"
PACKAGES=(slurmctld slurmd slurm-client munge)
WAIT_SECONDS=60
export SLURM_CONF="$STATE/slurm.conf"
export PATH="$PATH:/usr/sbin:/sbin" # the daemons lie there, and a user's PATH may not name it

say() { echo "local_slurm: $*" >&2; }

give_up() {
    say "$*"
    exit 3
}

write_configuration() {
    local host && host="$(hostname -s)"
    mkdir -p "$STATE/ctld" "$STATE/log"
    touch "$STATE/.local_slurm"
    (umask 077 && head -c 128 /dev/urandom >"$STATE/munge.key")
    cat >"$SLURM_CONF" <<CONF
ClusterName=local
SlurmctldHost=$host(127.0.0.1)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
SlurmctldPort=$PORT
AuthInfo=socket=$STATE/munge.socket
StateSaveLocation=$STATE/ctld
SlurmdSpoolDir=$STATE/%n.spool
SlurmctldPidFile=$STATE/slurmctld.pid
SlurmdPidFile=$STATE/%n.pid
SlurmctldLogFile=$STATE/log/slurmctld.log
SlurmdLogFile=$STATE/log/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
KillWait=10
ReturnToService=2
NodeName=node1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((PORT + 1)) CPUs=8 RealMemory=32000
NodeName=node2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((PORT + 2)) CPUs=8 RealMemory=32000
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=60
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
CONF
}

is_up() {
    [ -f "$STATE/.local_slurm" ] || return 1
    [ "$(timeout 20 sinfo -h -N -r -t idle,mixed,allocated -o %N 2>/dev/null | sort -u | wc -l)" -eq 2 ]
}

start() {
    local node deadline=$((SECONDS + WAIT_SECONDS))
    if ! is_up; then
        stop
        if [ "$(command -v slurmctld slurmd sinfo munged | wc -l)" -ne 4 ]; then
            install_debian_packages SLURM "${PACKAGES[@]}"
        fi
        write_configuration
        munged --force --key-file="$STATE/munge.key" --socket="$STATE/munge.socket" --pid-file="$STATE/munged.pid" \
            --log-file="$STATE/log/munged.log" --seed-file="$STATE/munged.seed" 2>"$STATE/log/munged.err" ||
            give_up "munged does not start; see $STATE/log"
        slurmctld 2>"$STATE/log/slurmctld.err" || give_up "slurmctld does not start; see $STATE/log"
        for node in node1 node2; do
            slurmd -N "$node" 2>"$STATE/log/$node.err" || give_up "slurmd of $node does not start; see $STATE/log"
        done
        until is_up; do
            [ "$SECONDS" -lt "$deadline" ] || give_up "the nodes are not up after $WAIT_SECONDS s; see $STATE/log"
            sleep 0.5
        done
    fi
    say "two nodes are up; logs in $STATE/log"
    printf 'export SLURM_CONF=%q MASTER_ADDR=127.0.0.1\n' "$SLURM_CONF"
}

stop() {
    local file pid
    if [ ! -e "$STATE/.local_slurm" ]; then
        [ -z "$(ls -A "$STATE" 2>/dev/null)" ] && return
        say "$STATE is not ours; left as it is"
        exit 2
    fi
    timeout 20 scancel --user="$(id -un)" 2>/dev/null || true
    for file in "$STATE"/node?.pid "$STATE"/slurmctld.pid "$STATE"/munged.pid; do
        pid="$(cat "$file" 2>/dev/null)" || continue
        kill "$pid" 2>/dev/null || continue
        timeout 15 tail --pid="$pid" -f /dev/null || kill -9 "$pid" 2>/dev/null || true
    done
    rm -rf -- "$STATE"
}

case "${1:-}" in
start | stop) "$1" ;;
status) is_up && sinfo -N ;;
*) say "one of: start, stop, status" && exit 2 ;;
esac
