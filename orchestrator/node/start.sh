# Starts a generation on this node, once. Needs what guard.sh needs, and: session, stages, pause, and the texts of files.
answer=started
older=
for folder in "$root"/gen-*; do
  [ -e "$folder/node.json" ] || continue
  number=${folder##*-}
  # The scheduler itself has overtaken this command (an older one is refused by its epoch): there is nothing to do.
  if [ "$number" -gt "$generation" ]; then
    echo already
    exit 0
  fi
  [ "$number" -eq "$generation" ] || older="$older $number"
done

mkdir -p "$gen/logs" "$root/checkpoints" "$HOME/data"
train=(new-session -d -s "$session" -x 200 -y 50 -c "$root/bundle/workdir" -n train bash "$gen/run.sh" "$stages")
if [ -e "$gen/node.json" ]; then
  if tmux has-session -t "=$session" 2>/dev/null; then
    echo already
    exit 0
  fi
  # The tmux server is gone. A training that began is not begun again: it goes on, or its agent says that it is lost.
  if [ -e "$gen/run.pid" ]; then
    answer=already
    train=(new-session -d -s "$session" -x 200 -y 50 -n train tail -n 1000 -F "$gen/logs/run.log")
  fi
fi
for number in $older; do
  end_training "$root/gen-$number" 50
  end_agent "$root/gen-$number"
done
[ -z "$older" ] || tmux kill-session -t "=$session" 2>/dev/null || true

# Written once, node.json last: a scheduler that came later may not know the secrets any more.
if [ ! -e "$gen/node.json" ]; then
  printf %s "$env_text" >"$gen/env.sh"
  printf %s "$secrets_text" >"$gen/secrets.sh"
  printf %s "$setup_text" >"$gen/setup.sh"
  printf %s "$command_text" >"$gen/command.sh"
  printf %s "$agent_text" >"$gen/agent.sh"
  printf %s "$run_text" >"$gen/run.sh"
  printf %s "$node_text" >"$gen/node.json"
fi

umask 022
# One tmux command, so that there is a whole session or none. Options first: windows take them when they are made.
# No configuration of the image's: one that destroys unattached sessions would end the training.
begin() {
  tmux -f /dev/null start-server \; \
    set-option -g history-limit 50000 \; \
    set-option -g mouse on \; \
    "${train[@]}" \; \
    set-option -w -t "=$session:train" remain-on-exit on \; \
    new-window -d -t "=$session:" -c "$gen" -n agent env "ORCH_AGENT_OF=$gen" bash "$gen/agent.sh" "$pause" \; \
    set-option -w -t "=$session:agent" remain-on-exit on \; \
    new-window -d -t "=$session:" -c "$root/bundle/workdir" -n shell \
    </dev/null 9>&-
}
# A server whose last session has just been killed is leaving: it can take a command and drop it. The next is a new one.
begin || { sleep 0.2; begin; }
echo "$answer"
