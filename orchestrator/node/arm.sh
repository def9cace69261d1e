# Arms the dead-man timer anew. Needs what guard.sh needs, and: deadline (Unix time), left (seconds until then, by the
# scheduler's clock). A wrong clock can shorten a node's life, never make it longer. In between there is no moment without
# a timer: a new one takes the place of the old one.
printf -v now '%(%s)T' -1
[ "$((deadline - now))" -ge "$left" ] || left=$((deadline - now))
minutes=$((left / 60))
[ "$minutes" -ge 1 ] || minutes=1
command=(shutdown -P "+$minutes")
[ "$EUID" = 0 ] || command=(sudo -n "${command[@]}")
"${command[@]}" >&2 || refuse 70 "the timer could not be armed"
echo "$((now + 60 * minutes))" >"$root/deadline.new"
mv -f "$root/deadline.new" "$root/deadline"
echo armed
