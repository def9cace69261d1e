# Keeps this node's agent going. The training starts first: the agent waits $1 seconds and takes what the CPUs have left.
# Like the training it outlives tmux.
trap '' HUP
gen=${0%/*}
export PYTHONPATH="${gen%/*}/bundle/agent"
{ echo 10 >/proc/self/autogroup; } 2>/dev/null
sleep "$1"
until nice -n 5 python3 -P -m orchestrator.agent.main "$gen/node.json"; do
  echo "orch: the agent ended with code $?; again in 3 s"
  sleep 3
done
