# Goes before every command that the scheduler sends to a node. Needs: run, generation, epoch.
set -eu
umask 077
root="$HOME/orch/$run"
gen="$root/gen-$generation"

refuse() {
  echo "orch: $2" >&2
  exit "$1"
}

[ -d "$root/bundle" ] || refuse 69 "this node has not booted: no $root/bundle"
exec 9>"$root/lock"
flock 9
seen=
{ read -r seen <"$root/epoch"; } 2>/dev/null || true
[ "${seen:-0}" -le "$epoch" ] || refuse 75 "refused: scheduler epoch $epoch, but this node has seen $seen"
echo "$epoch" >"$root/epoch"

# Sets pids to all processes that were started with $1 in their environment, whatever session and group they are in.
find_started_with() {
  pids=$(grep -lzsxF "$1" /proc/[0-9]*/environ || true)
  pids=${pids//[!0-9$'\n']/}
}

# Sets pids to all processes of the training in generation folder $1.
find_training() {
  find_started_with "ORCH_STOP_FILE=$1/stop"
}

# Ends the agent of generation folder $1.
end_agent() {
  find_started_with "ORCH_AGENT_OF=$1"
  [ -z "$pids" ] || kill -KILL $pids 2>/dev/null || true
}

# Tells whether process $2 is the run.sh of generation folder $1 (a process id may be used again by another program).
is_runner() {
  local words=()
  { mapfile -d '' -t words <"/proc/$2/cmdline"; } 2>/dev/null || return 1
  [ "${words[1]:-}" = "$1/run.sh" ]
}

# Ends the training in generation folder $1: asks, and after $2 tenths of a second makes it.
end_training() {
  local runner='' tenths
  { read -r runner <"$1/run.pid"; } 2>/dev/null || true
  if [ -n "$runner" ] && is_runner "$1" "$runner"; then kill -TERM -- "-$runner" 2>/dev/null || true; fi
  find_training "$1"
  [ -z "$pids" ] || kill -TERM $pids 2>/dev/null || true
  for ((tenths = 0; tenths < $2 + 50; tenths++)); do
    find_training "$1"
    if [ -z "$pids" ] && { [ -z "$runner" ] || ! is_runner "$1" "$runner"; }; then return 0; fi
    # The runner itself is left to write down how it ended, and made to go only when it does not.
    if [ "$tenths" -ge "$2" ] && [ -n "$pids" ]; then kill -KILL $pids 2>/dev/null || true; fi
    if [ "$tenths" -ge $(($2 + 40)) ] && [ -n "$runner" ]; then kill -KILL -- "-$runner" 2>/dev/null || true; fi
    sleep 0.1
  done
  refuse 70 "the training in $1 does not end"
}
