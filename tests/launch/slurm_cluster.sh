#!/usr/bin/env bash
# A SLURM of its own on this machine: a controller and two nodes on loopback, everything in one folder.
#   tests/launch/slurm_cluster.sh start FOLDER   (then: export SLURM_CONF=FOLDER/slurm.conf)
#   tests/launch/slurm_cluster.sh stop FOLDER
set -euo pipefail
PATH="$PATH:/usr/sbin:/sbin"
folder="$(realpath -m "$2")"

start() {
  mkdir -p "$folder/state" "$folder/log"
  chmod 755 "$folder" # munge wants nobody else to write there
  head -c 1024 /dev/urandom > "$folder/munge.key"
  chmod 600 "$folder/munge.key"
  munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
    --log-file="$folder/log/munged" --seed-file="$folder/munge.seed"
  local ports
  read -r -a ports < <(python3 -c '
import socket
probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
print(*(probe.getsockname()[1] for probe in probes))')
  # cred_expire: a requeued job waits as long before it may run again, two minutes by default.
  cat > "$folder/slurm.conf" << CONF
ClusterName=tandem
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=${ports[0]}
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool_%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd_%n.pid
SlurmctldLogFile=$folder/log/slurmctld
SlurmdLogFile=$folder/log/slurmd_%n
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=1
MailProg=/bin/true
GresTypes=gpu
NodeName=n1 NodeAddr=127.0.0.1 NodeHostname=$(hostname -s) Port=${ports[1]} CPUs=8 Gres=gpu:4
NodeName=n2 NodeAddr=127.0.0.1 NodeHostname=$(hostname -s) Port=${ports[2]} CPUs=8 Gres=gpu:4
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=all Nodes=n1,n2 Default=YES PriorityTier=1 GraceTime=30
PartitionName=urgent Nodes=n1,n2 PriorityTier=2
CONF
  touch "$folder"/gpu{0,1,2,3} # what jobs ask for is counted; there is no such device
  echo "NodeName=n[1-2] Name=gpu File=$folder/gpu[0-3]" > "$folder/gres.conf"
  export SLURM_CONF="$folder/slurm.conf"
  slurmctld
  slurmd -N n1
  slurmd -N n2
  for _ in $(seq 100); do
    if [ "$(sinfo --noheader --Node --partition=all --states=idle --format=%N 2> /dev/null | wc -l)" = 2 ]; then return; fi
    sleep 0.1
  done
  sinfo --Node --long >&2
  tail -n 20 "$folder"/log/* >&2
  return 1
}

stop() {
  local name
  export SLURM_CONF="$folder/slurm.conf"
  timeout 10 scancel --signal=KILL --full --user="$(id -un)" || true
  timeout 10 scancel --user="$(id -un)" || true
  for _ in $(seq 50); do
    if [ -z "$(timeout 10 squeue --noheader)" ]; then break; fi
    sleep 0.1
  done
  for name in slurmctld slurmd_n1 slurmd_n2 munged; do
    if [ -s "$folder/$name.pid" ]; then kill "$(cat "$folder/$name.pid")" || true; fi
  done
}

"$1"
