"""The programs a host has in place of the system's: above all `shutdown`, which must never be the developer's own.

Texts of small shell scripts and nothing else; `image` writes them. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

# Each host's own folder has a link to it, by which it finds the host, also when the environment was cleared.
POWER = r"""#!/bin/sh
# shutdown, poweroff and halt of this host: its supervisor keeps the timer.
tell() { printf '%s\n' "$1" > "${0%/*}/../power"; }
when=+1 done=
case ${0##*/} in
  poweroff | halt) when=now ;;
esac
for word; do
  case $word in
    -c) tell cancel; exit ;;
    -r | --reboot) echo "shutdown: a host of the sandbox does not reboot" >&2; exit 1 ;;
    -k) exit 0 ;;
    -*) ;;
    *) if [ -z "$done" ]; then when=$word done=1; fi ;;
  esac
done
case $when in
  now) seconds=0 ;;
  +*[!0-9]* | +) seconds= ;;
  +*) seconds=$((${when#+} * 60)) ;;
  *[!0-9:]* | *:*:*) seconds= ;;
  *:*) at=$(date -d "$when" +%s) && seconds=$(((at - $(date +%s) + 86400) % 86400)) ;;
  *[0-9]) seconds=$((when * 60)) ;;
esac
if [ -z "$seconds" ]; then echo "Failed to parse time specification: $when" >&2; exit 1; fi
tell "in $seconds"
[ "$seconds" = 0 ] || echo "Shutdown scheduled, use 'shutdown -c' to cancel." >&2
"""

_SUDO = r"""#!/bin/sh
# A host has one user, who may do everything on it.
while [ $# -gt 0 ]; do
  case $1 in
    --) shift; break ;;
    -u | -g | -p | -C | -h | -U | --user | --group | --prompt) shift 2 || exit 1 ;;
    -i | -s | --login | --shell) login=1; shift ;;
    -*) shift ;;
    *=*) export "$1"; shift ;;
    *) break ;;
  esac
done
if [ $# -gt 0 ]; then exec "$@"; fi
[ -z "$login" ] || exec "$SHELL" -l
"""

# Found by its host as POWER is. A data disk is a folder (`host_disks`), and is mounted by a link to it.
DISK = r"""#!/bin/sh
# lsblk, mkfs.ext4, mount and umount of this host. Hosts share one kernel and may not mount.
disks=$(cd "${0%/*}/../disks" 2>/dev/null && pwd) || disks=
for word; do last=$word; done
say() { if [ -s "$1" ]; then printf '"%s"' "$(cat "$1")"; else printf null; fi; }
fail() { echo "${0##*/}: $1" >&2; exit 32; }
case ${0##*/} in
  lsblk)
    comma=
    printf '{"blockdevices": ['
    for disk in "$disks"/vol-*; do
      [ -d "$disk" ] || continue
      printf '%s{"path": "%s", "size": %s, "type": "disk"' "$comma" "$disk" "$(cat "$disk/size")"
      for key in fstype label mountpoint; do printf ', "%s": ' "$key"; say "$disk/$key"; done
      printf '}'
      comma=', '
    done
    printf ']}\n' ;;
  mkfs.ext4)
    [ -d "$last/files" ] || fail "$last is no disk of this host"
    [ ! -e "$last/mountpoint" ] || fail "$last is mounted"
    while [ $# -gt 1 ]; do [ "$1" != -L ] || printf %s "$2" >"$last/label"; shift; done
    printf ext4 >"$last/fstype" ;;
  mount)
    if [ $# = 0 ]; then
      cat /proc/mounts
      for disk in "$disks"/vol-*; do
        [ ! -e "$disk/mountpoint" ] || echo "$disk $(cat "$disk/mountpoint") ext4 $(cat "$disk/options") 0 0"
      done
      exit
    fi
    options=rw disk=
    for word; do
      [ "$disk" != -o ] || options=$word
      [ "$word" != "$last" ] || break
      disk=$word
    done
    case $disk in
      "$disks"/vol-*) ;;
      *) echo "mount: this is a sandbox host, mount leaves a plain folder" >&2; exit ;;
    esac
    [ -s "$disk/fstype" ] || fail "$disk: wrong fs type, bad superblock"
    [ ! -e "$disk/mountpoint" ] || fail "$disk is mounted already"
    case ,$options, in
      *,ro,*) ;;
      *) [ ! -e "$disk/snapshot" ] || fail "what a snapshot holds is only mounted read-only here (-o ro)" ;;
    esac
    rmdir "$last" && ln -s "$disk/files" "$last" || fail "$last: mount point does not exist, or holds something"
    printf %s "$options" >"$disk/options"
    printf %s "$last" >"$disk/mountpoint" ;;
  umount)
    for disk in "$disks"/vol-*; do
      [ -e "$disk/mountpoint" ] && [ "$(cat "$disk/mountpoint")" = "$last" ] || continue
      rm "$disk/mountpoint" "$disk/options" "$last" && exec mkdir "$last"
    done
    echo "umount: this is a sandbox host, umount leaves a plain folder" >&2 ;;
esac
"""

_HOSTNAME = r"""#!/bin/sh
case ${1-} in
  -i | -I | --ip-address | --all-ip-addresses) echo "$ORCH_SANDBOX_ADDRESS" ;;
  -f | --fqdn | -A) echo "ip-$(echo "$ORCH_SANDBOX_ADDRESS" | tr . -).ec2.internal" ;;
  -d | --domain) echo ec2.internal ;;
  *) echo "ip-$(echo "$ORCH_SANDBOX_ADDRESS" | tr . -)" ;;
esac
"""

_NVIDIA_SMI = r"""#!/bin/sh
echo "nvidia-smi: the hosts of the sandbox have no GPU" >&2
exit 9
"""

_REBOOT = r"""#!/bin/sh
echo "reboot: a host of the sandbox does not reboot" >&2
exit 1
"""

# What sshd runs for every session (ForceCommand): the user's real home is where it leaves us, the host's is elsewhere.
SESSION = r"""#!/bin/sh
cd "$HOME" || exit 255
unset OLDPWD
if [ -n "$SSH_ORIGINAL_COMMAND" ]; then
  command=$SSH_ORIGINAL_COMMAND
  unset SSH_ORIGINAL_COMMAND
  exec "$SHELL" -c "$command"
fi
exec "$SHELL" -l
"""

# The names of those links.
POWER_NAMES = ("shutdown", "poweroff", "halt")
DISK_NAMES = ("lsblk", "mkfs.ext4", "mount", "umount")

SHARED: Mapping[str, str] = {
    "sudo": _SUDO,
    "hostname": _HOSTNAME,
    "nvidia-smi": _NVIDIA_SMI,
    "reboot": _REBOOT,
}
