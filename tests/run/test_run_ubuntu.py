"""What machines do first on Ubuntu's own image, in a shell whose apt-get and Python only note what they are asked."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from orchestrator.run import ubuntu


@pytest.mark.parametrize("there", [True, False])
def test_what_is_there_is_not_installed(tmp_path: Path, *, there: bool) -> None:
    for name, code in (("python3", 0 if there else 1), ("apt-get", 0)):
        file = tmp_path / name
        file.write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/asked\nexit {code}\n')
        file.chmod(0o755)
    subprocess.run(["/bin/sh", "-ec", ubuntu.prelude("pip")], env={"PATH": str(tmp_path)}, check=True)
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[0] == "python3 -c import boto3, pip"
    assert [line.split(" ", 3)[3] for line in asked[1:]] == (
        [] if there else ["update -q", "install -qy tmux python3-boto3 python3-pip"]
    )
