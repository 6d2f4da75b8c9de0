# The end of every job, after its settings: runs `words` in each task, again after a crash, and requeues the job after a stop.
# Codes are those of launch.train. The last one is left in $folder/$job.code, for whoever waits for the job.
# $job is N, or N_I of a task of an array: the last task's SLURM_JOB_ID is that of the array, and would mean all of them.

# Without it no step starts, so a stop is asked for here: by SLURM before the time is up (--signal=B:), or with scancel --batch.
# A job that is being cancelled is told by SLURM in all its steps, and must not come back.
running() { [ "$(squeue --noheader --jobs="$job" --format=%T)" = RUNNING ]; }
stop() {
  stopping=1
  if running; then scancel --signal=TERM "$job"; fi # all steps; srun itself would kill them
}
forsaken() { # what this job follows has ended and will write nothing more
  requeue=0
  stop
}
stopping=0
trap stop TERM
trap forsaken USR1

# What each task does. srun tells the highest code of its tasks, so those that decide become the highest (253 it tells as 1).
task='
trap : TERM # the program hears it too
port=$1 gpus=$2 share=$3
shift 3
if [ "$SLURM_NTASKS" -gt 1 ]; then
  host=$SLURM_LAUNCH_NODE_IPADDR # of the first node, as the others reach it
  case $host in *:*) host="[$host]" ;; esac
  export TANDEM_COORDINATOR="$host:$port" TANDEM_PROCESSES="$SLURM_NTASKS" TANDEM_PROCESS="$SLURM_PROCID"
fi
IFS=, read -ra devices <<< "${CUDA_VISIBLE_DEVICES:-}"
if [ "${#devices[@]}" = "$gpus" ] && [ "$share" -lt "$gpus" ]; then # tasks of one node have its GPUs in equal parts
  CUDA_VISIBLE_DEVICES=$(IFS=, && echo "${devices[*]:SLURM_LOCALID*share:share}")
fi
case ${JAX_PLATFORMS:-} in
  cuda*) # JAX would take the CPU in silence
    if ! compgen -G "/dev/nvidia[0-9]*" > /dev/null; then
      echo "$(hostname) shows this task none of the $gpus GPUs of its node; look at the cluster, or set cluster.variables.JAX_PLATFORMS" >&2
      exit 203
    fi
    ;;
esac
"$@"
code=$?
case $code in 3) exit 203 ;; 4) exit 202 ;; 75 | 143) exit 201 ;; *) exit $code ;; esac
'

queued() { # a controller that does not answer ends nothing
  local jobs
  jobs=$(squeue --noheader --user="$(id -u)" --format=%A) || return 0
  grep --quiet --line-regexp "$1" <<< "$jobs"
}
if [ -n "$follows" ]; then # 0 and 4 close a run, and its follower ends by itself
  (
    while queued "$follows"; do sleep "$look_seconds"; done
    sleep "$look_seconds" # what the run wrote last may be on its way
    case "$(cat "$folder/$follows.code")" in 0 | 4) ;; *) kill -USR1 $$ ;; esac
  ) &
fi

for ((attempt = 0; ; attempt++)); do
  code=75
  if [ "$stopping" = 1 ]; then break; fi
  # Those that are left after one has ended may take a minute to say so.
  srun --kill-on-bad-exit=0 --wait=60 --cpus-per-task="$cpus" bash -c "$task" task "$port" "$gpus" "$share" "${words[@]}" &
  step=$!
  while
    wait "$step" # a signal ends it too
    code=$?
    kill -0 "$step" 2> /dev/null
  do :; done
  case $code in 203) code=3 ;; 202) code=4 ;; 201 | 143) code=75 ;; esac
  case $code in 0 | 3 | 4 | 75) break ;; esac
  if [ "$stopping" = 1 ] || [ "$attempt" -ge "$restarts" ]; then break; fi
  echo "ended with code $code; starting again from the last checkpoint, $((attempt + 1)) of $restarts" >&2
done
if [ "$stopping" = 1 ] && [ "$code" != 0 ] && [ "$code" != 3 ] && [ "$code" != 4 ]; then code=75; fi # its time came first

if [ "$code" = 75 ] && [ "$requeue" = 1 ] && running; then
  trap - EXIT
  if scontrol requeue "$job"; then exit 75; fi # it comes back, or scontrol says why it does not
  trap leave EXIT
fi
exit "$code"
