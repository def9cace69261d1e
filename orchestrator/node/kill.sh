# Ends the training, asking first. Needs what guard.sh needs, and: tenths, how long it may take over ending itself.
if [ -e "$gen/exit" ]; then
  echo already
elif [ ! -e "$gen/run.pid" ]; then
  echo "not running"
else
  end_training "$gen" "$tenths"
  echo killed
fi
