# Makes this machine fit to become an image: what the run left goes, and every key that opens the machine. Needs: run.
root="$HOME/orch/$run"
pids=$(grep -lzsF -e "ORCH_AGENT_OF=$root/gen-" -e "ORCH_STOP_FILE=$root/gen-" /proc/[0-9]*/environ || true)
pids=${pids//[!0-9$'\n']/}
[ -z "$pids" ] || kill -KILL $pids 2>/dev/null || true
tmux kill-session -t "=orch-$run" 2>/dev/null || true
rm -rf "$HOME/orch" "$HOME/.ssh/authorized_keys"
sync
echo left
