"""The machine image of the sandbox and the hosts made from it: folders, environment, SSH and Python set-up.

A host is a folder, short enough for unix sockets in it: `h/<number>/{home,tmp,t,bin,py,ssh}`. Only writes files;
nothing runs before `supervisor` is told to. May not take anything of the caller's environment into a host.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import site
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from orchestrator.errors import BadInput, OrchError
from orchestrator.sandbox import shims, supervisor
from orchestrator.sandbox.boundary import HostSpec, PushedKey
from orchestrator.sandbox.host_disks import HostDisks
from orchestrator.sandbox.host_images import HostImages
from orchestrator.sandbox.supervisor import MARKER
from orchestrator.sandbox.tools import SYSTEM_PATH, Tools
from orchestrator.sandbox.user_data import scripts_of

SOCKET_LIMIT = 107
# The longest socket that is usual below a host: Python's multiprocessing in TMPDIR. tmux needs less.
_LONGEST_SOCKET = "/h/9999/tmp/pymp-12345678/listener-12345678"


def check_folder(folder: Path) -> None:
    """See that hosts can live below `folder`. Raises BadInput: too long for unix sockets, or characters that split."""
    if re.fullmatch(r"[A-Za-z0-9/._@+=,-]+", str(folder)) is None:
        raise BadInput(
            f"the sandbox cannot live in {str(folder)!r}: hosts need a path of letters, digits and ./_@+=,- only",
            "set ORCH_HOME to a plainer path",
        )
    surplus = len(str(folder)) + len(_LONGEST_SOCKET) - SOCKET_LIMIT
    if surplus > 0:
        raise BadInput(
            f"the sandbox cannot live in {folder}: unix sockets below it would be {surplus} bytes too long",
            f"set ORCH_HOME to a path at least {surplus} characters shorter",
        )


@dataclass(frozen=True, slots=True)
class Image:
    """What all hosts of one sandbox share. `folder` is the sandbox's own."""

    folder: Path
    tools: Tools
    user: str
    endpoint_url: str
    ssh_port: int
    imds_port: int

    def build(self) -> None:
        """Write the shared part and try it once. Raises OrchError when a host would find the machine's own shutdown."""
        programs = self.folder / "image/bin"
        programs.mkdir(parents=True)
        for name, text in shims.SHARED.items():
            _program(programs / name, text)
        _program(self.folder / "image/power", shims.POWER)
        _program(self.folder / "image/disk", shims.DISK)
        _program(self.folder / "image/session", shims.SESSION)
        self._tmux_and_bash(programs)
        self._python_scripts()
        (self.folder / "logs").mkdir()
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, parents=True, exist_ok=True)
        self._try()

    @property
    def images(self) -> HostImages:
        """The images that were made of hosts."""
        return HostImages(self.folder)

    @property
    def disks(self) -> HostDisks:
        """The data disks of hosts, and what was kept of them."""
        return HostDisks(self.folder)

    def host_folder(self, number: int) -> Path:
        """Return the folder of host `number`."""
        return self.folder / "h" / str(number)

    def make(self, number: int, spec: HostSpec) -> Path:
        """Write host `number` and return its host.json, which a supervisor can boot. Raises OrchError, OSError."""
        host = self.host_folder(number)
        for name in ("home", "tmp", "t", "bin", "ssh"):
            (host / name).mkdir(parents=True, mode=0o700)
        for program, names in (("power", shims.POWER_NAMES), ("disk", shims.DISK_NAMES)):
            for name in names:
                (host / "bin" / name).symlink_to(self.folder / "image" / program)
        self.disks.attach(host, spec.disks)
        env = self.environment(number, spec)
        if not _first_on_path(env["PATH"], host / "bin/shutdown"):
            raise OrchError(
                f"{host}/bin/shutdown cannot run: `shutdown` would be this machine's own, so nothing boots",
                "set ORCH_HOME to a place from which programs may run (mounted without noexec)",
            )
        os.mkfifo(host / "power", 0o600)
        if self.images.has(spec.image_id):
            self.images.lay(spec.image_id, host)
        else:
            self._layered_python(host / "py")
        self._ssh(host, spec, env)
        _dot_files(host / "home", env, spec.address)
        log = self.folder / "logs" / f"{spec.instance_id}.log"
        (host / "home/cloud-init-output.log").symlink_to(log)
        scripts = scripts_of(spec.user_data)
        if scripts.passed_over:
            log.write_text("".join(f"orch: the user-data is {what} and was not run\n" for what in scripts.passed_over))
        plan: dict[str, Any] = {
            "number": number,
            "instance_id": spec.instance_id,
            "address": spec.address,
            "port": self.ssh_port,
            "mark": supervisor.mark_of(str(self.folder), number),
            "home": env["HOME"],
            "power": str(host / "power"),
            "log": str(log),
            "every_boot": _programs(host, "per-boot", scripts.every_boot),
            "first_boot": _programs(host, "user-data", scripts.first_boot),
            "env": env,
            "sshd": [self.tools.sshd, "-i", "-f", str(host / "sshd_config"), "-E", str(log)],
            "sshd_env": {"PATH": SYSTEM_PATH, MARKER: str(host)} | self._libraries,
        }
        path = host / "host.json"
        path.write_text(json.dumps(plan))
        return path

    def push_keys(self, number: int, keys: Sequence[PushedKey]) -> None:
        """Let these pushed keys in on host `number`, and no other pushed ones; those for other users open nothing."""
        host, lines = self.host_folder(number), [key.public_key for key in keys if key.user == self.user]
        fresh = host / "pushed_keys.new"
        # A host whose folder is being removed is one that nobody reaches any more.
        with suppress(FileNotFoundError):
            fresh.unlink(missing_ok=True)
            _private(fresh, "".join(f"{line}\n" for line in lines).encode())
            fresh.replace(host / "pushed_keys")

    def environment(self, number: int, spec: HostSpec) -> dict[str, str]:
        """Return the environment of everything on host `number`: user-data, SSH sessions, sftp."""
        host = self.host_folder(number)
        path = [host / "bin", host / "py/bin", self.folder / "image/bin", self.folder / "image/scripts", SYSTEM_PATH]
        return {
            "HOME": str(host / "home"),
            "USER": self.user,
            "LOGNAME": self.user,
            "SHELL": self.tools.bash,
            "PATH": os.pathsep.join(map(str, path)),
            "LANG": "C.UTF-8",
            "TMPDIR": str(host / "tmp"),
            "TMUX_TMPDIR": str(host / "t"),
            "SSH_HOST_KEY_DIR": str(host / "ssh"),
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://{spec.address}:{self.imds_port}/",
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_DEFAULT_REGION": spec.region,
            "GLOO_SOCKET_IFNAME": "lo",
            "ORCH_SANDBOX_ADDRESS": spec.address,
            MARKER: str(host),
        }

    @property
    def _libraries(self) -> dict[str, str]:
        return {"LD_LIBRARY_PATH": self.tools.libraries} if self.tools.libraries else {}

    def _tmux_and_bash(self, programs: Path) -> None:
        """Make tmux and bash reachable where they are not on the system's path."""
        usual = SYSTEM_PATH.split(os.pathsep)
        for program in (self.tools.tmux, self.tools.bash):
            name = Path(program).name
            if name == "tmux" and self.tools.libraries:
                _program(programs / name, f'#!/bin/sh\nLD_LIBRARY_PATH={self.tools.libraries} exec {program} "$@"\n')
            elif str(Path(program).parent) not in usual:
                (programs / name).symlink_to(program)

    def _python_scripts(self) -> None:
        """Offer the console scripts of the sandbox's Python environment (torchrun, pip, aws), run by the host's own."""
        scripts = self.folder / "image/scripts"
        scripts.mkdir()
        interpreter = Path(sys.executable).parent / "python"
        for script in Path(sys.executable).parent.iterdir():
            if script.name.startswith("python") or not script.is_file():
                continue
            with script.open("rb") as file:
                head = file.read(512)
            if head.startswith(b"#!") and os.fsencode(interpreter) in head:
                _program(scripts / script.name, f'#!/bin/sh\nexec python3 "{script}" "$@"\n')

    def _layered_python(self, folder: Path) -> None:
        """Write a virtual environment that sees the packages of the sandbox's own; pip installs into it."""
        base = Path(getattr(sys, "_base_executable", sys.executable))
        packages = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
        packages.mkdir(parents=True)
        (folder / "bin").mkdir()
        for name in ("python", "python3"):
            (folder / "bin" / name).symlink_to(base)
        version = ".".join(map(str, sys.version_info[:3]))
        (folder / "pyvenv.cfg").write_text(
            f"home = {base.parent}\ninclude-system-site-packages = false\nversion = {version}\n"
        )
        layers = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
        (packages / "image.pth").write_text("".join(f"{layer}\n" for layer in layers))

    def _ssh(self, host: Path, spec: HostSpec, env: Mapping[str, str]) -> None:
        key = Ed25519PrivateKey.generate()
        private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        _private(host / "ssh/ssh_host_ed25519_key", private)
        (host / "ssh/ssh_host_ed25519_key.pub").write_bytes(public + b" " + spec.instance_id.encode() + b"\n")
        _private(host / "authorized_keys", spec.public_key.strip().encode() + b"\n")
        lines = [
            f"HostKey {host}/ssh/ssh_host_ed25519_key",
            f"AuthorizedKeysFile {host}/authorized_keys {host}/pushed_keys",
            f"AllowUsers {self.user}",
            "PermitRootLogin prohibit-password",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "UsePAM no",
            "StrictModes no",
            "PidFile none",
            "PrintMotd no",
            "PrintLastLog no",
            "PermitUserRC no",
            "UseDNS no",
            "X11Forwarding no",
            "LogLevel ERROR",
            f"ForceCommand {self.folder}/image/session",
            "SetEnv " + " ".join(f'"{name}={value}"' for name, value in env.items()),
            *([f"Subsystem sftp {self.tools.sftp_server}"] if self.tools.sftp_server else []),
            *self.tools.sshd_options,
        ]
        (host / "sshd_config").write_text("\n".join(lines) + "\n")

    def _try(self) -> None:
        """Boot nothing unless a login shell, which reads /etc/profile, still finds the host's own shutdown."""
        probe = HostSpec("i-0", "127.16.0.0", "", "", "us-east-1", "", "", b"", "", None)
        self.make(0, probe)
        done = subprocess.run(
            [self.tools.bash, "-lc", "command -v shutdown"],
            env=self.environment(0, probe),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        wanted = str(self.folder / "h/0/bin/shutdown")
        if not done.stdout.endswith(wanted + "\n"):
            other = done.stdout.strip() or done.stderr.strip() or "nothing"
            raise OrchError(
                f"on a host `shutdown` would be {other}, not the host's own",
                "a file that login shells read (/etc/profile.d) changes PATH; nothing is booted while it does",
            )
        shutil.rmtree(self.folder / "h/0")


def _dot_files(home: Path, env: Mapping[str, str], address: str) -> None:
    """Give login shells the host's PATH back, which /etc/profile resets."""
    (home / ".profile").write_text(f"export PATH='{env['PATH']}'\n[ -z \"$BASH\" ] || . ~/.bashrc\n")
    name = "ip-" + address.replace(".", "-")
    (home / ".bashrc").write_text(f"case $- in *i*) ;; *) return ;; esac\nPS1='\\u@{name}:\\w\\$ '\n")


def _first_on_path(path: str, program: Path) -> bool:
    return path.split(os.pathsep, maxsplit=1)[0] == str(program.parent) and os.access(program, os.X_OK)


def _program(path: Path, text: str | bytes) -> None:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(0o700)


def _programs(folder: Path, name: str, texts: Sequence[bytes]) -> list[str]:
    """Write programs that differ in their number only, and return where they are."""
    paths = [folder / f"{name}-{number}" for number, _ in enumerate(texts)]
    for path, text in zip(paths, texts, strict=True):
        _program(path, text)
    return [str(path) for path in paths]


def _private(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
