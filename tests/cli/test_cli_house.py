"""`gc`, `schema`, `sandbox`, `completion` and the hidden `schedule`."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.cli.config import aws_settings
from orchestrator.cli.context import Place
from orchestrator.core.ledger import Verdict
from orchestrator.core.settings import Settings
from orchestrator.errors import BadInput, Unreachable
from orchestrator.run.gc import Orphan
from orchestrator.run.prices import to_lines
from tests.cli.fake_clouds import SETTINGS, Handle, Orch
from tests.report.report_runs import ROWS
from tests.report.views import ended

RUN = "tiny-20261120-120000-abcd"
LOST = Orphan("instance", "i-1", RUN, "its run has ended")
STUCK = Orphan("security-group", "sg-1", RUN, "its run has ended")


@pytest.fixture
def lost(run_orch: Orch, monkeypatch: pytest.MonkeyPatch) -> list[Orphan]:
    """What the cloud still holds; `remove` takes all but security groups."""
    there = [LOST]

    def remove(session: object, bucket: object, orphans: list[Orphan], on_progress: Any) -> list[Orphan]:
        on_progress(f"removing {len(orphans)}")
        there[:] = [item for item in orphans if item.kind == "security-group"]
        return list(there)

    monkeypatch.setattr("orchestrator.run.gc.find_orphans", lambda session, bucket: list(there))
    monkeypatch.setattr("orchestrator.run.gc.remove", remove)
    return there


def test_gc_lists_and_leaves_without_a_yes(run_orch: Orch, lost: list[Orphan]) -> None:
    for arguments in (("--dry-run",), ()):
        result = run_orch("gc", *arguments)
        assert result.exit_code == 9
        assert "i-1" in result.stdout
        assert "its run has ended" in result.stdout
        assert lost == [LOST]


def test_gc_removes_on_a_yes(run_orch: Orch, lost: list[Orphan]) -> None:
    assert run_orch("gc", "-y").exit_code == 0
    assert lost == []
    assert run_orch("gc").stdout == "nothing was left behind\n"


def test_gc_asks_where_somebody_can_answer(run_orch: Orch, lost: list[Orphan], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.cli.gc.can_ask", lambda: True)
    assert run_orch("gc", stdin="n\n").exit_code == 9
    assert run_orch("gc", stdin="y\n").exit_code == 0


def test_gc_json_lists_and_removes_only_with_a_yes(run_orch: Orch, lost: list[Orphan]) -> None:
    lost.append(STUCK)
    result = run_orch("gc", "--json")
    value = json.loads(result.stdout)
    assert result.exit_code == 9
    assert [item["id"] for item in value["orphans"]] == ["i-1", "sg-1"]
    assert set(value["orphans"][0]) == {"kind", "id", "run", "why", "cloud", "region"}
    value = json.loads(run_orch("gc", "--json", "-y").stdout)
    assert [item["id"] for item in value["orphans"]] == ["sg-1"]
    assert [item["id"] for item in value["removed"]] == ["i-1"]
    lost.clear()
    result = run_orch("gc", "--json")
    assert (result.exit_code, json.loads(result.stdout)["orphans"]) == (0, [])


def test_gc_looks_in_the_regions_asked_for_and_says_where_it_could_not(
    run_orch: Orch, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []

    def find(session: Any, bucket: object) -> list[Orphan]:
        looked.append(session.region)
        if session.region == "eu-west-1":
            raise Unreachable("no answer to ec2:DescribeInstances", "try again")
        return [replace(LOST, region=session.region)] if session.region == "us-west-2" else []

    def place(settings: Settings) -> Place:
        return Place(settings, SimpleNamespace(region=settings.region), SimpleNamespace())  # type: ignore[arg-type]

    class Regions:
        def __init__(self, session: object) -> None:
            pass

        def regions(self) -> tuple[str, ...]:
            return ("us-east-1", "us-west-2")

    monkeypatch.setattr("orchestrator.run.gc.find_orphans", find)
    monkeypatch.setattr("orchestrator.cli.context._open", place)
    monkeypatch.setattr("orchestrator.aws.ec2.Compute", Regions)
    two = run_orch("gc", "--json", "--region", "us-west-2", "--region", "eu-west-1")
    value = json.loads(two.stdout)
    assert [(item["id"], item["region"]) for item in value["orphans"]] == [("i-1", "us-west-2")]
    assert value["left_out"] == ["sandbox, eu-west-1: no answer to ec2:DescribeInstances"]
    assert two.exit_code == 9
    looked.clear()
    assert run_orch("gc", "--all-regions", "--dry-run").exit_code == 9
    assert looked == ["us-east-1", "us-west-2"]
    blind = run_orch("gc", "--region", "eu-west-1")
    assert blind.exit_code == 8, "nobody can say that nothing was left there"
    assert "left out: sandbox, eu-west-1" in blind.stderr
    assert run_orch("gc", "--region", "eu-west-1", "--all-regions").exit_code == 2


def test_gc_without_any_cloud_says_so(run_orch: Orch, lost: list[Orphan]) -> None:
    run_orch.cloud.up = []
    assert run_orch("gc").exit_code == 4


def test_schema_is_the_schema_of_experiments(run_orch: Orch) -> None:
    schema = json.loads(run_orch("schema").stdout)
    assert {"name", "run", "resources", "num_nodes"} <= set(schema["properties"])
    assert schema["additionalProperties"] is False


@pytest.fixture
def control(run_orch: Orch, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """A sandbox that only writes down what is asked of it."""
    asked: list[tuple[Any, ...]] = []
    status = {
        "up": True,
        "endpoint": "http://127.0.0.1:1",
        "hosts": [{"instance_id": "i-1", "address": "127.16.0.4", "state": "running", "pids": [4, 5]}],
        "instances": [{"instance_id": "i-1", "disturbances": ["hang", "partition"]}],
    }

    def up(home: Path, *, on_progress: Any) -> Any:
        on_progress("starting")
        asked.append(("up",))
        return SETTINGS["sandbox"]

    def rebalance(home: Path, instance: str) -> str:
        asked.append(("rebalance", instance))
        return "2026-11-20T12:00:00Z"

    fake = SimpleNamespace(
        up=up,
        down=lambda home: asked.append(("down",)),
        status=lambda home: status,
        env=lambda home: {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_SECRET_ACCESS_KEY": "a b"},
        interrupt=lambda home, instance, notice_seconds: asked.append(("interrupt", instance, notice_seconds)),
        kill=lambda home, instance: asked.append(("kill", instance)),
        rebalance=rebalance,
        disturb=lambda home, instance, kind, seconds: asked.append(("disturb", instance, kind, seconds)),
        heal=lambda home, instance, kind: asked.append(("heal", instance, kind)),
        fault=lambda home, action, code, count, zone: asked.append(("fault", action, code, count, zone)),
    )
    monkeypatch.setitem(sys.modules, "orchestrator.sandbox.control", fake)
    monkeypatch.setattr("orchestrator.sandbox.control", fake, raising=False)
    return asked


def test_the_sandbox_is_started_ended_and_disturbed(run_orch: Orch, control: list[tuple[Any, ...]]) -> None:
    for line in (
        "up",
        "interrupt i-1 --after 5",
        "interrupt i-1",
        "kill i-1",
        "partition i-1 --seconds 5",
        "partition i-1 --heal",
        "disturb i-1 hang",
        "disturb i-1 reboot --json",
        "rebalance i-1",
        "fault RunInstances InsufficientInstanceCapacity --count 2 --zone us-east-1a",
        "down",
    ):
        result = run_orch("sandbox", *line.split())
        assert result.exit_code == 0, result.output
    assert control == [
        ("up",),
        ("interrupt", "i-1", 5.0),
        ("interrupt", "i-1", 120.0),
        ("kill", "i-1"),
        ("disturb", "i-1", "partition", 5.0),
        ("heal", "i-1", "partition"),
        ("disturb", "i-1", "hang", None),
        ("disturb", "i-1", "reboot", None),
        ("rebalance", "i-1"),
        ("fault", "RunInstances", "InsufficientInstanceCapacity", 2, "us-east-1a"),
        ("down",),
    ]


@pytest.mark.usefixtures("control")
def test_the_state_of_the_sandbox_has_the_documented_shape(run_orch: Orch) -> None:
    value = json.loads(run_orch("sandbox", "status", "--json").stdout)
    assert value["endpoint"] == "http://127.0.0.1:1"
    assert set(value["hosts"][0]) >= {"instance_id", "address", "pids"}
    said = run_orch("sandbox", "status").stdout
    assert "127.16.0.4" in said
    assert "2 processes  hang  partition" in said


def test_disturbances_answer_in_json_and_what_does_not_last_cannot_be_healed(
    run_orch: Orch, control: list[tuple[Any, ...]]
) -> None:
    done = run_orch("sandbox", "partition", "i-1", "--seconds", "2", "--json")
    assert json.loads(done.stdout) == {"instance_id": "i-1", "kind": "partition", "healed": False, "seconds": 2.0}
    assert json.loads(run_orch("sandbox", "rebalance", "i-1", "--json").stdout)["time"] == "2026-11-20T12:00:00Z"
    refused = run_orch("sandbox", "disturb", "i-1", "reboot", "--heal")
    assert refused.exit_code == 2
    assert "reboot cannot be undone" in refused.stderr
    unknown = run_orch("sandbox", "disturb", "next", "hang")
    assert (unknown.exit_code, "cannot have hang, only slow" in unknown.stderr) == (2, True)
    assert run_orch("sandbox", "disturb", "next", "slow", "--json").exit_code == 0
    control.pop()
    assert len(control) == 2


@pytest.mark.usefixtures("control")
def test_the_exports_of_the_sandbox_can_be_evaluated(run_orch: Orch) -> None:
    script = (
        run_orch("sandbox", "env").stdout + 'echo "$AWS_ENDPOINT_URL|$AWS_SECRET_ACCESS_KEY|${AWS_PROFILE-unset}"\n'
    )
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=True, env={"PATH": "/bin", "AWS_PROFILE": "real"}
    )
    assert done.stdout == "http://127.0.0.1:1|a b|unset\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_is_that_of_the_shell(run_orch: Orch, shell: str) -> None:
    assert f"_ORCH_COMPLETE={shell}_complete" in run_orch("completion", shell).stdout


def test_completion_knows_commands_options_experiments_and_runs(run_orch: Orch) -> None:
    from orchestrator.run.home import CachedRun

    run_orch.home.remember(CachedRun(RUN, "sandbox", "tiny", "2026-11-20T12:00:00Z"))
    typed = {"la": "launch", "da": "dawnbench", "launch imag": "imagenet18", "launch ci": "cifar10", "cost ti": RUN}
    for words, expected in ((f"orch {begun}", whole) for begun, whole in typed.items()):
        env = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" ")), "_ORCH_COMPLETE": "bash_complete"}
        code = "from orchestrator.cli.main import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=False,
            env=env | {"ORCH_HOME": str(run_orch.home.path), "PATH": "/bin"},
            cwd=Path(__file__).parents[2],
        )
        assert f"plain,{expected}" in done.stdout.splitlines(), (words, done.stdout, done.stderr)


def test_schedule_works_to_the_end_and_keeps_the_page(run_orch: Orch, monkeypatch: pytest.MonkeyPatch) -> None:
    put: dict[str, bytes] = {}

    def scheduler(session: Any, bucket: Any, home: Any, run_id: str, log: Any) -> None:
        log(f"scheduling {run_id}")

    def keep(self: Handle, key: str, body: bytes, *, content_type: str) -> None:
        put[key] = body

    monkeypatch.setattr("orchestrator.run.loop.run_scheduler", scheduler)
    monkeypatch.setattr(Handle, "put", keep, raising=False)
    monkeypatch.setattr(Handle, "get", lambda self, key: to_lines(ROWS), raising=False)
    run_orch.cloud.add(ended(Verdict("finished", "all 2 nodes finished")))
    result = run_orch("schedule", RUN, "--cloud", "sandbox")
    assert result.exit_code == 0, result.output
    assert f"scheduling {RUN}" in result.stdout
    page = put[f"runs/{RUN}/report.html"].decode()
    assert page.startswith("<!doctype html>")
    assert "Price of p3.16xlarge" in page
    assert (run_orch.home.folder(RUN) / "report.html").read_text() == page
    assert run_orch.home.load_report(RUN) is not None


def test_settings_of_aws_come_from_the_environment_then_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("region: eu-west-1\nssh_user: ec2-user\nssh_address: private\nbucket: mine\n")
    settings = aws_settings(tmp_path, {})
    assert (settings.region, settings.ssh_user, settings.ssh_address, settings.bucket) == (
        "eu-west-1",
        "ec2-user",
        "private",
        "mine",
    )
    assert aws_settings(tmp_path, {"AWS_DEFAULT_REGION": "us-west-2"}).region == "us-west-2"
    assert aws_settings(tmp_path, {"AWS_DEFAULT_REGION": "us-west-2", "AWS_REGION": "us-east-2"}).region == "us-east-2"
    assert aws_settings(tmp_path / "none", {}).region == ""


def test_every_fault_of_the_settings_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("regoin: eu-west-1\nssh_address: both\nbucket: 7\n")
    with pytest.raises(BadInput, match="3 faults") as caught:
        aws_settings(tmp_path, {})
    assert caught.value.details[0] == "regoin: unknown key; did you mean region?"


@pytest.mark.parametrize("text", ["- a\n", "a: [\n", "\x00"])
def test_a_settings_file_that_cannot_be_read_is_bad_input(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(BadInput):
        aws_settings(tmp_path, {})
