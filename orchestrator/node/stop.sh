# Asks the training to save and exit. Needs what guard.sh needs.
if [ -e "$gen/stop" ] || [ -e "$gen/exit" ]; then
  echo already
else
  [ -d "$gen" ] || refuse 69 "generation $generation was never started here"
  : >"$gen/stop"
  echo stopping
fi
