# Asks whether an agent or a training of this run lives on the node, of whichever generation. Needs: run.
root="$HOME/orch/$run"
lives() {
  grep -qzsF -e "ORCH_AGENT_OF=$root/gen-" -e "ORCH_STOP_FILE=$root/gen-" /proc/[0-9]*/environ
}
# A command that begins a generation ends the agent before it starts the next: what is under way is waited for.
lives || { flock "$root/lock" true; lives; } || exit 71
echo alive
