"""Packing with `python -m trainer pack`, a program of its own: it is never imported, and may be missing."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from orchestrator.datasets.progress import Progress
from orchestrator.errors import BadInput, OrchError

# What the trainer packs with: module, and the name to install it by.
NEEDED = {"numpy": "numpy", "PIL": "pillow"}
BAD_INPUT, BUSY, INTERRUPTED = 2, 75, 130
# A packing whose orch was killed ends at its next line of progress: so long it is waited for.
PATIENCE = 60.0
PAUSE = 0.5
ERROR = "error: "


def can_pack() -> bool:
    """Tell whether this Python can pack."""
    return not faults()


def faults() -> list[BadInput]:
    """Return why this Python cannot pack, with what is to be installed; nothing where it can."""
    if find_spec("trainer") is None:
        return [BadInput("packing needs the trainer, which is not installed", "install orch with its extra `trainer`")]
    missing = [package for module, package in NEEDED.items() if find_spec(module) is None]
    if not missing:
        return []
    what = f"packing needs {' and '.join(missing)}, not installed for {sys.executable}"
    return [BadInput(what, f"`{Path(sys.executable).name} -m pip install {' '.join(missing)}`")]


def pack(source: Path, destination: Path, arguments: Sequence[str], progress: Progress) -> None:
    """Pack `source` into `destination`, or what is left of it; `arguments` are options of the trainer's.

    Raises BadInput or OrchError with the trainer's own words.
    """
    command = [sys.executable, "-m", "trainer", "pack", str(source), str(destination), "--json", *arguments]
    deadline = time.monotonic() + PATIENCE
    code, words = _run(command, progress)
    while code == BUSY and time.monotonic() < deadline:
        time.sleep(PAUSE)
        code, words = _run(command, progress)
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    if code != 0:
        raise _failure(code, words.splitlines() or ["it said nothing"])


def refuse(source: Path, listing: Path, labels: str | None) -> None:
    """Raise BadInput with all that is wrong with a source that is to be packed, as far as it is seen.

    `source` has the beginnings of its tars, the file `listing` names all that is in it, `labels` is a file of the
    trainer's.
    """
    words = ["--val-labels", labels] if labels is not None else []
    command = [sys.executable, "-m", "trainer", "parts", "check", str(source), str(listing), *words]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise _failure(done.returncode, done.stderr.splitlines() or ["it said nothing"])


def _run(command: Sequence[str], progress: Progress) -> tuple[int, str]:
    """Run the packer to its end, and return its exit code and what it said on stderr."""
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, text=True) as packing,
    ):
        try:
            for line in packing.stdout or ():
                _show(line, progress)
            code = packing.wait()
        except BaseException:
            packing.terminate()
            raise
        said.seek(0)
        return code, said.read().strip()


def _show(line: str, progress: Progress) -> None:
    """Pass on a line of the trainer's; one that is no JSON is said as it is."""
    try:
        value = json.loads(line)
        progress.at("packing", int(value["images"]), int(value["of"]))
    except ValueError:
        progress.say(line.strip())
    except KeyError:
        progress.say(str(value.get("say", line.strip())))


def _failure(code: int, lines: Sequence[str]) -> OrchError:
    at = next((number for number, line in enumerate(lines) if ERROR in line), None)
    if at is None:
        return OrchError(f"packing ended with code {code}: {lines[-1]}", "`python -m trainer pack` shows more")
    hint = lines[at + 1].strip() if at + 1 < len(lines) else ""
    kind = BadInput if code == BAD_INPUT else OrchError
    return kind(lines[at].partition(ERROR)[2], hint)
