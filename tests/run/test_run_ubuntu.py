"""What machines do first on Ubuntu's own image, in a shell whose apt-get and Python only note what they are asked."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from orchestrator.run import ubuntu


@pytest.mark.parametrize("lacks", ["", "boto3", "tmux"])
def test_what_is_there_is_not_installed(tmp_path: Path, lacks: str) -> None:
    codes = {"python3": 1 if lacks == "boto3" else 0, "apt-get": 0, "tmux": 0}
    for name, code in ((name, code) for name, code in codes.items() if name != lacks):
        file = tmp_path / name
        file.write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/asked\nexit {code}\n')
        file.chmod(0o755)
    subprocess.run(["/bin/sh", "-ec", ubuntu.prelude("pip")], env={"PATH": str(tmp_path)}, check=True)
    asked = (tmp_path / "asked").read_text().splitlines()
    looked = ["python3 -c import boto3, pip"] if lacks != "tmux" else []
    assert asked[: len(looked)] == looked
    assert [line.split(" ", 3)[3] for line in asked[len(looked) :]] == (
        ["update -q", "install -qy tmux python3-boto3 python3-pip"] if lacks else []
    )
