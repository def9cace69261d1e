"""A whole node but for SSH: booted from its bundle, started by the start script, S3 over HTTP, tmux, the real agent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.agent.notice import PATH
from orchestrator.core.beacon import Beacon
from orchestrator.core.contract import NodePaths
from orchestrator.core.ids import Keys, bundle_key
from orchestrator.core.manifest import Manifest
from orchestrator.node.bootstrap import BootConfig, first_boot
from orchestrator.node.bundle import build_bundle
from orchestrator.node.start import DataSource, kill_script, start_script
from tests.agent.agent_world import json_lines
from tests.node.fake_aws import BUCKET, ROLE, Metadata, s3_client, serve_metadata, serve_s3
from tests.node.node_host import RUN, Host, config, new_host, wait_for

KEYS = Keys(RUN)
PATHS = NodePaths(RUN, 1)
TRAINING = """
echo "token $TOKEN"
cat "$ORCH_DATA_DIR/sets/words"; ls "$ORCH_CHECKPOINT_DIR"
for step in 1 2 3; do echo "{\\"step\\": $step, \\"top1\\": $step}" >>"$ORCH_PROGRESS_FILE"; done
mkdir "$ORCH_CHECKPOINT_DIR/.new"; echo weights >"$ORCH_CHECKPOINT_DIR/.new/model"
mv "$ORCH_CHECKPOINT_DIR/.new" "$ORCH_CHECKPOINT_DIR/30"
echo extra >"$ORCH_LOG_DIR/nccl.log"
"""


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    with serve_s3() as made:
        yield made


@pytest.fixture
def s3(s3_endpoint: str) -> Iterator[Any]:
    client = s3_client(s3_endpoint)
    yield client
    for item in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        client.delete_object(Bucket=BUCKET, Key=item["Key"])


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    with serve_metadata() as made:
        yield made


@pytest.fixture
def host(s3_endpoint: str, s3: Any, metadata: Metadata) -> Iterator[Host]:
    bundle = build_bundle(None, builtin=False)
    s3.put_object(Bucket=BUCKET, Key=bundle_key(bundle.digest), Body=bundle.read())
    with new_host() as made:
        (made.home / "ssh_host_ed25519_key.pub").write_text("ssh-ed25519 AAAA")
        made.env |= {
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata.endpoint,
            "AWS_ENDPOINT_URL": s3_endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
            "SSH_HOST_KEY_DIR": str(made.home),
        }
        name = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
        hour = timedelta(hours=1)
        script = first_boot(BootConfig(RUN, BUCKET, "us-east-1", bundle.digest, name, hour, datetime.now(UTC) + hour))
        subprocess.run(["bash"], input=script, text=True, env=made.env, check=True, timeout=60, capture_output=True)
        yield made


def beacon(s3: Any) -> Beacon | None:
    with suppress(s3.exceptions.NoSuchKey):
        return Beacon.from_json(read(s3, KEYS.beacon("i-0")))
    return None


def read(s3: Any, key: str) -> bytes:
    return bytes(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())


def synced(s3: Any) -> bool:
    seen = beacon(s3)
    return seen is not None and seen.synced


def agent_pid(host: Host) -> int:
    mark = f"ORCH_AGENT_OF={host.file(PATHS.generation_dir)}".encode()
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if b"orchestrator.agent.main" in words and mark in (entry / "environ").read_bytes().split(b"\0"):
                return int(entry.name)
    return 0


def test_a_node_stages_trains_and_leaves_everything_in_s3(host: Host, s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="words/en/words", Body=b"some words\n")
    s3.put_object(Bucket=BUCKET, Key=KEYS.checkpoint(20, "model"), Body=b"old")
    old = {"path": "model", "size": 3, "sha256": "f3ff1b3d7e2e0a5e2b0b0c0f5d0d2cbd"}
    s3.put_object(Bucket=BUCKET, Key=KEYS.manifest(20), Body=json.dumps({"step": 20, "files": [old]}).encode())
    done = host.run(
        start_script(
            config(
                TRAINING,
                data=(DataSource("words", f"s3://{BUCKET}/words/en", "sets"),),
                restore_step=20,
                secrets={"TOKEN": "hunter2hunter2"},
                agent_pause=0.0,
            )
        )
    )
    assert done.stdout == "started\n", done.stderr
    wait_for(lambda: synced(s3), 40)
    seen = beacon(s3)
    assert seen is not None
    assert (seen.stage, seen.exit_code, seen.exit_stage, seen.rank) == ("exited", 0, "running", 0)
    assert (seen.checkpoint_step, seen.staged, seen.to_stage, seen.epoch) == (30, 11, 11, 1)
    assert seen.progress == {"step": 3, "top1": 3}
    stages = [(0, "bundle"), (0, "ready"), (1, "starting"), (1, "staging"), (1, "running")]
    assert [mark[:2] for mark in seen.times] == [*stages, (1, "progress"), (1, "step")]
    assert [mark.time for mark in seen.times[:5]] == sorted(mark.time for mark in seen.times[:5])
    assert seen.tail[-1] == "orch: run ended with code 0"
    log = read(s3, KEYS.log(0, "run.001.0000.log")).decode()
    assert "token ***" in log
    assert "some words" in log
    assert "checkpoint 20 cannot be used: model has another sha256" in log
    assert [line["step"] for line in json_lines(read(s3, KEYS.metrics))] == [1, 2, 3]
    assert [f.path for f in Manifest.from_json(read(s3, KEYS.manifest(30))).files] == ["model"]
    assert read(s3, KEYS.log(0, "001/nccl.log")) == b"extra\n"
    for item in s3.list_objects_v2(Bucket=BUCKET)["Contents"]:
        assert b"hunter2" not in read(s3, item["Key"]), item["Key"]
    assert not any("shutdown -P now" in call for call in host.called())


def test_the_agent_comes_back_after_a_kill_and_the_training_never_notices(host: Host, s3: Any) -> None:
    host.run(start_script(config('until [ -e "$ORCH_STOP_FILE" ]; do sleep 0.05; done', agent_pause=0.0)))
    wait_for(lambda: beacon(s3) is not None, 40)
    runner = host.file(PATHS.pid_file).read_text()
    first = agent_pid(host)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: agent_pid(host) not in {0, first}, 40)
    s3.delete_object(Bucket=BUCKET, Key=KEYS.beacon("i-0"))
    wait_for(lambda: beacon(s3) is not None, 40)
    seen = beacon(s3)
    assert seen is not None
    assert seen.stage == "running"
    assert host.file(PATHS.pid_file).read_text() == runner


def test_a_killed_training_is_reported_and_the_lonely_machine_turns_itself_off(
    host: Host, s3: Any, metadata: Metadata
) -> None:
    metadata.pages[PATH] = '{"action": "terminate", "time": "2026-01-01T00:02:00Z"}'
    host.run(start_script(config("sleep 1000", agent_pause=0.0, linger=timedelta(seconds=1))))
    wait_for(lambda: (b := beacon(s3)) is not None and b.stage == "running" and b.notice, 40)
    assert host.run(kill_script(RUN, 1, 1)).stdout == "killed\n"
    wait_for(lambda: synced(s3), 40)
    seen = beacon(s3)
    assert seen is not None
    assert (seen.stage, seen.exit_code) == ("exited", 143)
    wait_for(lambda: any("shutdown -P now" in call for call in host.called()), 20)


def test_a_training_that_vanishes_without_a_word_is_lost(host: Host, s3: Any) -> None:
    host.run(start_script(config("echo here; sleep 1000", agent_pause=0.0)))
    wait_for(lambda: (b := beacon(s3)) is not None and b.stage == "running", 40)
    os.killpg(int(host.file(PATHS.pid_file).read_text()), signal.SIGKILL)
    wait_for(lambda: (b := beacon(s3)) is not None and b.stage == "lost" and b.synced, 40)
    assert b"here" in read(s3, KEYS.log(0, "run.001.0000.log"))


def test_credentials_that_come_late_do_not_blind_the_agent(host: Host, s3: Any, metadata: Metadata) -> None:
    role = metadata.pages.pop(ROLE)
    metadata.asked.clear()
    host.run(start_script(config("true", agent_pause=0.0)))
    wait_for(lambda: "no AWS credentials" in host.tmux("capture-pane", "-p", "-t", f"=orch-{RUN}:agent"), 40)
    metadata.pages[ROLE] = role
    wait_for(lambda: synced(s3), 40)


def test_a_training_that_is_killed_is_told_from_one_that_fails(host: Host, s3: Any) -> None:
    host.run(start_script(config("kill -KILL $$", agent_pause=0.0)))
    wait_for(lambda: synced(s3), 40)
    seen = beacon(s3)
    assert seen is not None
    assert (seen.stage, seen.exit_code) == ("exited", 137)
    assert seen.trouble in {"killed", "memory"}, "memory only where the kernel ended some other process meanwhile"


def test_on_a_full_disk_the_end_of_the_training_and_its_reason_are_told_all_the_same(host: Host, s3: Any) -> None:
    start = start_script(config('cat /dev/zero >"$ORCH_CHECKPOINT_DIR/.tmp-1"', agent_pause=0.0))
    # A disk of 24 MiB for what the run keeps, in a mount namespace of its own: that takes no root.
    alone = """
    mv "$HOME/orch" "$HOME/booted" && mkdir "$HOME/orch" && /bin/mount -t tmpfs -o size=24m tmpfs "$HOME/orch" || exit 9
    cp -a "$HOME/booted/." "$HOME/orch" && exec bash -s"""
    command = ["unshare", "-rm", "bash", "-c", alone]
    done = subprocess.run(command, input=start, env=host.env, cwd=host.home, check=False, capture_output=True)
    if b"unshare failed" in done.stderr or done.returncode == 9:
        pytest.skip(f"no namespaces here: {done.stderr.decode()}")
    assert done.stdout == b"started\n", done.stderr
    wait_for(lambda: synced(s3), 40)
    seen = beacon(s3)
    assert seen is not None
    assert (seen.stage, seen.exit_code, seen.exit_stage, seen.trouble) == ("exited", 1, "running", "disk")
    assert seen.disk_free is not None
    assert seen.disk_free < 2**22
