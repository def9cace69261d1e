"""The hosts of the sandbox, as EC2 sees them: boots, halts and watches them (implements `boundary.Hosts`).

Lives in the daemon, which is a subreaper: what a killed supervisor leaves behind falls to it and is swept. May not
decide what becomes of an instance; that is the Cloud's.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.errors import BadInput, NotFound
from orchestrator.sandbox import disturbances, supervisor
from orchestrator.sandbox.boundary import Cloud, HostSpec, PushedKey
from orchestrator.sandbox.image import Image
from orchestrator.sandbox.imds import Imds

log = logging.getLogger(__name__)

SETTLE_SECONDS = 60.0
# A call of a host that is cut off is answered by nobody; by then every client has given it up.
SWALLOW_SECONDS = 120.0


@dataclass(slots=True)
class Host:
    """One machine. `pid` is its supervisor's, 0 before it is up; `settled` is set once it is up or never will be."""

    number: int
    spec: HostSpec
    pid: int = 0
    handle: int = -1
    halted: bool = False
    off: bool = False
    settled: threading.Event = field(default_factory=threading.Event)
    lasting: frozenset[str] = frozenset()


class Machines:
    """All hosts of one sandbox; thread-safe. `attach` comes before the first boot."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._cloud: Cloud | None = None
        self._lock = threading.Lock()
        self._healed = threading.Condition(self._lock)
        self._by_instance: dict[str, Host] = {}
        self._by_number: dict[int, Host] = {}
        self._numbers = 0
        self._next: list[disturbances.Kind] = []
        # One after the other each; removing what a gang has left must not hold up the next one's boot.
        self._boots = ThreadPoolExecutor(1, thread_name_prefix="boot")
        self._removals = ThreadPoolExecutor(1, thread_name_prefix="remove")
        self._selector = selectors.EpollSelector()
        # Both ends of both pipes stay open here, so that a spawner that died can be replaced under living supervisors.
        self._control = os.pipe()
        self._events = os.pipe()
        self._unread = b""
        self._spawner = 0
        self._imds = Imds(image.imds_port, self._credentials)

    def attach(self, cloud: Cloud) -> None:
        """Name the EC2 side and start: from now on hosts can boot."""
        self._cloud = cloud
        os.set_blocking(self._events[0], False)
        self._selector.register(self._events[0], selectors.EVENT_READ)
        self._start_spawner()
        threading.Thread(target=self._watch, name="hosts", daemon=True).start()

    def boot(self, spec: HostSpec) -> None:
        """Begin booting a host; returns at once. An instance that was stopped boots on a new, empty machine."""
        with self._lock:
            if spec.instance_id in self._by_instance:
                return
            self._numbers += 1
            host = Host(self._numbers, spec)
            self._by_instance[spec.instance_id] = self._by_number[host.number] = host
            planned, self._next = self._next, []
        for kind in planned:
            self._begin(host, kind)
        self._boots.submit(self._make, host)

    def halt(self, instance_id: str) -> None:
        """Kill every process of the host and return once none is left; unknown ids are ignored.

        Raises TimeoutError when some withstand; the host is still known then, so that it can be tried again.
        """
        with self._lock:
            host = self._by_instance.get(instance_id)
            if host is None:
                return
            host.halted = True
        host.settled.wait(SETTLE_SECONDS)
        self._imds.close(instance_id)
        self._kill(host)
        with self._lock:
            self._by_instance.pop(instance_id, None)
            self._healed.notify_all()
        self._removals.submit(shutil.rmtree, self._image.host_folder(host.number), ignore_errors=True)

    def capture(self, instance_id: str, image_id: str, *, reboot: bool) -> None:
        """Keep the files of a host as an image, with `reboot` while nothing runs on it. Raises OrchError, OSError."""
        host = self._host(instance_id)
        if reboot:
            self.disturb(instance_id, "reboot")
            self._wait_until_down(host)
        self._image.images.take(image_id, self._image.host_folder(host.number))

    def _host(self, instance_id: str) -> Host:
        with self._lock:
            host = self._by_instance.get(instance_id)
        if host is None:
            raise NotFound(f"{instance_id} has no host", "`orch sandbox status` lists the hosts")
        return host

    def _wait_until_down(self, host: Host) -> None:
        """Return once a host that was told to reboot has no process but its supervisor, or it is up again already."""
        mark, deadline = self._mark(host), time.monotonic() + SETTLE_SECONDS
        while set(supervisor.marked(mark, mark + 1)) - {host.pid} and time.monotonic() < deadline:
            time.sleep(0.05)

    def forget_image(self, image_id: str) -> None:
        """Remove an image; unknown ids are ignored."""
        self._image.images.forget(image_id)

    def snapshot(self, instance_id: str, volume_id: str, snapshot_id: str) -> None:
        """Keep what is on a disk of a host. Raises OrchError, OSError."""
        host = self._host(instance_id)
        self._image.disks.take(snapshot_id, self._image.host_folder(host.number), volume_id)

    def forget_snapshot(self, snapshot_id: str) -> None:
        """Remove a snapshot; unknown ids are ignored."""
        self._image.disks.forget(snapshot_id)

    def announce_interruption(self, instance_id: str, iso_time: str) -> None:
        """From now on serve `spot/instance-action` with that time from the host's metadata service."""
        self._imds.announce(instance_id, iso_time)

    def announce_rebalance(self, instance_id: str, iso_time: str) -> None:
        """From now on serve `events/recommendations/rebalance` with that time from the host's metadata service."""
        self._imds.advise(instance_id, iso_time)

    def take_keys(self, instance_id: str, keys: tuple[PushedKey, ...]) -> None:
        """From now on let these pushed keys in, and no other pushed ones; returns once the host is up and does."""
        with self._lock:
            host = self._by_instance.get(instance_id)
        if host is not None and host.settled.wait(SETTLE_SECONDS) and not host.halted:
            self._image.push_keys(host.number, keys)

    def disturb(self, instance_id: str, kind: str) -> None:
        """Do to a host what `kind` says. Raises BadInput for no such kind, NotFound and OrchError for no such host.

        `disturbances.NEXT` is the next host that boots; it can only be slow.
        """
        what = disturbances.check(kind)
        if instance_id == disturbances.NEXT:
            if what != "slow":
                raise BadInput(f"a host that is still to boot cannot be disturbed by {kind!r}", "it can by slow")
            with self._lock:
                self._next.append(what)
            return
        with self._lock:
            host = self._by_instance.get(instance_id)
            if host is None or host.halted:
                raise NotFound(f"{instance_id} has no host", "`orch sandbox status` lists the hosts")
            self._begin(host, what)

    def _begin(self, host: Host, what: disturbances.Kind) -> None:
        after = host.lasting | ({what} & disturbances.LASTING)
        if what == "reboot":
            after &= disturbances.REBOOT_KEEPS
        disturbances.begin(what, *self._reach(host), after)
        fresh, host.lasting = after - host.lasting, after
        if "slow" in fresh:
            threading.Thread(target=self._drag, args=(host,), daemon=True).start()

    def _drag(self, host: Host) -> None:
        # Not before its supervisor is there: of a host without one nothing runs yet.
        host.settled.wait(SETTLE_SECONDS)
        disturbances.drag(self._mark(host), host.pid, lambda: "slow" in host.lasting and not host.halted)

    def heal(self, instance_id: str, kind: str) -> None:
        """Undo a lasting disturbance; one that is not in force, and unknown ids, are ignored."""
        what = disturbances.check(kind)
        with self._lock:
            host = self._by_instance.get(instance_id)
            if host is not None and what in host.lasting:
                host.lasting -= {what}
                self._healed.notify_all()
                disturbances.heal(what, *self._reach(host), host.lasting)

    def disturbances(self, instance_id: str) -> tuple[str, ...]:
        """Return the lasting disturbances in force on a host, by name."""
        with self._lock:
            host = self._by_instance.get(instance_id)
            return tuple(sorted(host.lasting)) if host is not None else ()

    def swallows(self, port: int) -> bool:
        """Tell whether the client at a loopback port is cut off from AWS; then return only once that has changed."""
        with self._lock:
            cut = [host for host in self._by_instance.values() if _is_cut(host)]
        host = next((host for host in cut if disturbances.owns(self._mark(host), port)), None)
        if host is not None:
            with self._healed:
                self._healed.wait_for(lambda: not _is_cut(host), SWALLOW_SECONDS)
        return host is not None

    def _reach(self, host: Host) -> tuple[int, int, Path]:
        return self._mark(host), host.pid, self._image.host_folder(host.number) / "power"

    def _mark(self, host: Host) -> int:
        return supervisor.mark_of(str(self._image.folder), host.number)

    def _credentials(self, role_name: str) -> dict[str, str]:
        if self._cloud is None:
            raise RuntimeError("no cloud is attached")
        return self._cloud.role_credentials(role_name)

    def _make(self, host: Host) -> None:
        """Write a host's files and hand it to the spawner; a host that cannot be made stays a machine without life."""
        asked = False
        try:
            if not host.halted:
                path = self._image.make(host.number, host.spec)
                self._imds.open(host.spec)
                os.write(self._control[1], os.fsencode(path) + b"\n")
                asked = True
        except Exception:
            log.exception("%s: its host cannot be made", host.spec.instance_id)
        finally:
            if not asked:
                self._forget(host)

    def _start_spawner(self) -> None:
        # With SIGCHLD ignored nothing waits for it; its end is seen through its handle.
        spawner = subprocess.Popen(
            [sys.executable, "-I", "-S", supervisor.__file__],
            stdin=self._control[0],
            stdout=self._events[1],
            env={name: value for name, value in os.environ.items() if name == "LD_LIBRARY_PATH"},
            cwd="/",
        )
        self._spawner = spawner.pid
        self._selector.register(os.pidfd_open(spawner.pid), selectors.EVENT_READ, None)

    def _watch(self) -> None:
        """Follow what supervisors say and when they die (a thread of its own)."""
        while True:
            ready = [key for key, _ in self._selector.select()]
            # A supervisor says why it goes before it goes: read first, then look at who is gone.
            self._read_events()
            for key in ready:
                if key.fd != self._events[0]:
                    self._selector.unregister(key.fd)
                    os.close(key.fd)
                    try:
                        self._start_spawner() if key.data is None else self._supervisor_died(key.data)
                    except Exception:
                        log.exception("the sandbox could not clean up after a supervisor")

    def _read_events(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                self._unread += os.read(self._events[0], 65_536)
        *lines, self._unread = self._unread.split(b"\n")
        for line in lines:
            number, word, *rest = line.decode(errors="replace").split(" ", 2)
            host = self._by_number.get(int(number))
            if host is not None:
                self._event(host, word, rest[0] if rest else "")

    def _event(self, host: Host, word: str, rest: str) -> None:
        if word == "up":
            host.pid = int(rest)
            try:
                self._selector.register(os.pidfd_open(host.pid), selectors.EVENT_READ, host)
            except ProcessLookupError:
                self._supervisor_died(host)
            if host.halted:
                self._kill(host)
        elif word == "off":
            host.off = True
            if not host.halted and self._cloud is not None:
                tell = self._cloud.shut_down_by_host
                threading.Thread(target=tell, args=(host.spec.instance_id,), daemon=True).start()
        else:
            log.error("%s: its supervisor %s: %s", host.spec.instance_id, word, rest)
            if not host.pid:
                self._forget(host)
        host.settled.set()

    def _forget(self, host: Host) -> None:
        with self._lock:
            self._by_number.pop(host.number, None)
        host.settled.set()

    def _supervisor_died(self, host: Host) -> None:
        """Sweep what a supervisor left. If it was killed, its host is a machine that hangs: to EC2 it still runs."""
        self._forget(host)
        if not host.off and not host.halted:
            log.warning("%s: its supervisor was killed; nothing runs on it any more", host.spec.instance_id)
            self._kill(host)

    def _kill(self, host: Host) -> None:
        mark = self._mark(host)
        supervisor.kill_marked(mark, mark + 1)
        with self._lock:
            known = {self._spawner, *(other.pid for other in self._by_number.values())}
        supervisor.kill_children(known)


def _is_cut(host: Host) -> bool:
    return "partition" in host.lasting and not host.halted
