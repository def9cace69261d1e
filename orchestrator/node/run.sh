# Runs this generation's training once: preflight, stage data, setup, run. Its output goes to the terminal and to
# logs/run.log, where it is and how it ended into the files that the agent reads. Argument: words, of which `preflight`
# says that the gang is checked first, `stage` that there is data to fetch.
gen=${0%/*}
root=${gen%/*}
set -C
if ! { echo $$ >"$gen/run.pid"; } 2>/dev/null; then
  echo "orch: this training was started before; it runs once"
  exit 0
fi
set +C

exec > >(
  trap '' HUP INT QUIT TERM
  exec tee -a "$gen/logs/run.log"
) 2>&1
writer=$!

stage=starting
ended=0
# When tmux itself goes, the training goes on: the agent still sees it, and the log still has its output.
trap : HUP
trap 'ended=130' INT
trap 'ended=131' QUIT
trap 'ended=143' TERM

enter() {
  [ "$ended" = 0 ] || finish "$ended"
  stage=$1
  echo "$stage" >"$gen/stage"
  echo "${gen##*-} $stage ${EPOCHREALTIME/,/.}" >>"$root/times"
}

finish() {
  # When it ended, not when the last of its output was written: of a gang the rank that failed first is named.
  local moment=${EPOCHREALTIME/,/.} stager=
  # Data that are still on their way are for nobody now.
  { read -r stager <"$gen/stager.pid"; } 2>/dev/null &&
    grep -qsaF orchestrator.agent.stage "/proc/$stager/cmdline" && kill "$stager"
  echo "orch: ${stage/#running/run} ended with code $1"
  rm -f "$gen/reserve"
  exec >&- 2>&-
  # Whatever the training left behind in the background may hold the log open; it is not waited for long.
  for ((i = 0; i < 40; i++)); do
    kill -0 "$writer" || break
    sleep 0.05
  done 2>/dev/null
  echo "$1 $stage" >"$gen/exit.new"
  touch -d "@$moment" "$gen/exit.new"
  mv -f "$gen/exit.new" "$gen/exit"
  exit "$1"
}

# Kept free for the last words: what a training on a full disk died of is to be written down all the same.
head -c 1048576 /dev/zero >"$gen/reserve" || true

enter starting
. "$gen/env.sh"
. "$gen/secrets.sh"
export PYTHONUNBUFFERED=1

if [[ " $1 " = *" preflight "* ]]; then
  enter preflight
  PYTHONPATH="$root/bundle/agent" python3 -P -m orchestrator.agent.preflight "$gen/node.json" || finish $?
fi

if [ "$ORCH_DEVICE" = cuda ]; then
  gpus=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU')
  if [ "$gpus" -lt "$ORCH_PROCS_PER_NODE" ]; then
    echo "orch: device: cuda wants $ORCH_PROCS_PER_NODE GPUs on each node, nvidia-smi shows $gpus here"
    finish 1
  fi
fi

if [[ " $1 " = *" stage "* ]]; then
  enter staging
  PYTHONPATH="$root/bundle/agent" python3 -P -m orchestrator.agent.stage "$gen/node.json" || finish $?
fi

cd "$root/bundle/workdir" || finish 1
if [ -s "$gen/setup.sh" ]; then
  enter setup
  bash -eo pipefail "$gen/setup.sh" || finish $?
fi

enter running
echo "${EPOCHREALTIME/,/.}" >"$gen/started"
bash -eo pipefail "$gen/command.sh"
finish $?
