"""`launch` and `plan`: nothing is called before the file is right, nothing is made before a yes."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import context
from orchestrator.cli.experiment import find_file, load_experiment
from orchestrator.core.ledger import Verdict
from orchestrator.core.plan import Plan, QuotaLine
from orchestrator.errors import BadInput
from tests.cli.fake_clouds import Orch
from tests.core.worlds import offer, spec
from tests.report.views import ended, running

RUN = "tiny-20261120-120000-abcd"
FILE = """
name: tiny
num_nodes: 2
resources: {instance_type: p3.16xlarge}
run: hostname
profiles:
  sandbox: {device: cpu, procs_per_node: 1}
"""


class FakePrepared:
    """A plan for whatever was asked."""

    def __init__(self, experiment: Any, settings: Any) -> None:
        quota = QuotaLine("L-7212CCBC", "spot", "p3.16xlarge", 128, 256)
        self.experiment, self.settings = experiment, settings
        self.plan = Plan(experiment.num_nodes, (offer(),), (), (quota,), timedelta(hours=1))
        self.choices = ()
        self.will_create = ("2 instances",)
        self.notes = ("without a scheduler the nodes' own timers end the run after 1h00m",)

    def to_json(self) -> dict[str, Any]:
        return {"name": self.experiment.name, "num_nodes": self.plan.num_nodes, "cloud": self.settings.cloud}


@pytest.fixture
def done(run_orch: Orch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """What launching did, in order: prepared experiments, begun runs, schedulers."""
    did: list[Any] = []

    def prepare(experiment: Any, source: Any, session: Any, settings: Any, *, environ: Any, home: Any) -> FakePrepared:
        did.append(("prepare", experiment, source, settings.cloud))
        return FakePrepared(experiment, settings)

    def begin(
        prepared: Any, session: Any, home: Any, *, name: Any, now: Any, on_progress: Callable[[str], None]
    ) -> Any:
        did.append(("begin",))
        on_progress("uploading the code bundle")
        return spec(2)

    monkeypatch.setattr("orchestrator.run.prepare.prepare", prepare)
    monkeypatch.setattr("orchestrator.run.prepare.begin", begin)
    monkeypatch.setattr(
        "orchestrator.run.detach.start_scheduler", lambda home, run_id, cloud: did.append(("start", run_id, cloud))
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(FILE)
    return did


def names(done: list[Any]) -> list[str]:
    return [item[0] for item in done]


def test_a_launch_shows_the_plan_launches_watches_and_bills(run_orch: Orch, done: list[Any]) -> None:
    run_orch.cloud.add(running(), ended(Verdict("finished", "all 2 nodes finished")))
    result = run_orch("launch", "tiny.yaml", "--cloud", "sandbox", "-y")
    assert result.exit_code == 0, result.output
    assert names(done) == ["prepare", "begin", "start"]
    text = result.stdout
    order = [
        "profile sandbox: device: cuda -> cpu",
        "✔",
        "L-7212CCBC",
        "timers",
        "running:",
        "bill of",
        "finished after",
    ]
    assert [text.index(part) for part in order] == sorted(text.index(part) for part in order)


def test_the_exit_code_is_that_of_the_run(run_orch: Orch, done: list[Any]) -> None:
    run_orch.cloud.add(ended(Verdict("no-capacity", "no room for 2 nodes anywhere asked")))
    result = run_orch("launch", "tiny.yaml", "--cloud", "sandbox", "-y")
    assert result.exit_code == 3
    assert result.stderr.splitlines()[-1] == "orch: no room for 2 nodes anywhere asked"


def test_flags_and_set_reach_the_experiment(run_orch: Orch, done: list[Any]) -> None:
    given = "-n 16 --name big --max-cost 60 --max-duration 90m --spot-policy auto"
    sets = "--set resources.disk_size=200 --set envs.A=b"
    run_orch("plan", "tiny.yaml", "--cloud", "sandbox", *given.split(), *sets.split())
    experiment = done[0][1]
    assert experiment.num_nodes == 16
    assert experiment.name == "big"
    assert experiment.max_cost_micro == 60_000_000
    assert experiment.max_duration == timedelta(minutes=90)
    assert experiment.spot_policy == "auto"
    assert experiment.resources.disk_size == 200
    assert experiment.envs == {"A": "b"}


def test_every_fault_is_told_at_once_and_nothing_is_called(
    run_orch: Orch, done: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a cloud was opened")

    for name in ("_open_aws", "_open"):
        monkeypatch.setattr(context, name, fail)
    Path("bad.yaml").write_text("name: $(reboot)\nnum_nodes: 0\nresources: {instance_typ: x}\nmax_duration: soon\n")
    result = run_orch("launch", "bad.yaml", "--cloud", "sandbox", "-y", "--max-cost", "free")
    assert result.exit_code == 2
    for path in ("name:", "num_nodes:", "resources.instance_typ:", "max_duration:", "max_cost:", "run:"):
        assert f"\n  {path}" in result.stderr
    assert done == []


@pytest.mark.parametrize("nodes", ["0", "-1", "16..8", "0..8", "many", "99999999"])
def test_a_wrong_number_of_nodes_is_bad_input(run_orch: Orch, done: list[Any], nodes: str) -> None:
    result = run_orch("launch", "tiny.yaml", "--cloud", "sandbox", "-y", f"--nodes={nodes}")
    assert result.exit_code == 2
    assert "num_nodes" in result.stderr
    assert "--nodes" in result.stderr
    if nodes.lstrip("-").isdigit():
        assert f" not {nodes} (--nodes)" in result.stderr
    assert done == []


def test_without_credentials_and_cloud_one_line_says_how_to_get_either(run_orch: Orch, done: list[Any]) -> None:
    run_orch.cloud.up = []
    result = run_orch("launch", "tiny.yaml", "-y")
    assert result.exit_code == 4
    assert "orch: no AWS credentials were found\n" in result.stderr
    assert "`aws configure`" in result.stderr
    assert "`--cloud sandbox`" in result.stderr
    assert done == []


def test_aws_is_where_it_goes_when_nothing_is_said_and_the_sandbox_profile_stays_off(
    run_orch: Orch, done: list[Any]
) -> None:
    run_orch.cloud.up = ["aws", "sandbox"]
    result = run_orch("plan", "tiny.yaml")
    assert done[0][3] == "aws"
    assert done[0][1].device == "cuda"
    assert "profile" not in result.stdout


def test_the_environment_may_name_the_cloud(run_orch: Orch, done: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCH_CLOUD", "sandbox")
    run_orch("plan", "tiny.yaml")
    assert done[0][3] == "sandbox"
    monkeypatch.setenv("ORCH_CLOUD", "mars")
    assert run_orch("plan", "tiny.yaml").exit_code == 2


def test_a_shell_with_the_exports_of_the_sandbox_means_the_sandbox(
    run_orch: Orch, done: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_orch.cloud.up = ["aws", "sandbox"]
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    run_orch("plan", "tiny.yaml")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:2")
    run_orch("plan", "tiny.yaml")
    assert [item[3] for item in done] == ["sandbox", "aws"]


def test_the_sandbox_is_started_when_it_is_asked_for(
    run_orch: Orch, done: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.cli.fake_clouds import SETTINGS

    def up(home: Path, *, on_progress: Callable[[str], None]) -> Any:
        on_progress("the daemon is up")
        return SETTINGS["sandbox"]

    run_orch.cloud.up = []
    monkeypatch.setattr("orchestrator.sandbox.control.up", up)
    result = run_orch("plan", "tiny.yaml", "--cloud", "sandbox")
    assert result.exit_code == 0, result.output
    assert "starting the sandbox" in result.stderr
    assert "the daemon is up" in result.stderr


@pytest.mark.parametrize("command", [("plan", "tiny.yaml"), ("launch", "tiny.yaml", "--dry-run")])
def test_a_plan_makes_nothing(run_orch: Orch, done: list[Any], command: tuple[str, ...]) -> None:
    assert run_orch(*command, "--cloud", "sandbox").exit_code == 0
    assert names(done) == ["prepare"]


def test_a_plan_as_json_is_only_that(run_orch: Orch, done: list[Any]) -> None:
    value = json.loads(run_orch("plan", "tiny.yaml", "--cloud", "sandbox", "--json").stdout)
    assert value["num_nodes"] == 2
    assert value["offers"][0]["cost_usd"] == "24.000000"
    assert any(line.startswith("profile sandbox: device") for line in value["changes"])


def test_without_a_terminal_and_without_a_yes_the_plan_is_all_that_happens(run_orch: Orch, done: list[Any]) -> None:
    result = run_orch("launch", "tiny.yaml", "--cloud", "sandbox")
    assert result.exit_code == 2
    assert "-y" in result.stderr
    assert names(done) == ["prepare"]


@pytest.mark.parametrize(("answer", "launched"), [("\n", True), ("y\n", True), ("n\n", False)])
def test_the_prompt_defaults_to_yes_and_a_no_launches_nothing(
    run_orch: Orch, done: list[Any], monkeypatch: pytest.MonkeyPatch, answer: str, launched: bool
) -> None:
    monkeypatch.setattr("orchestrator.cli.options.can_ask", lambda: True)
    result = run_orch("launch", "tiny.yaml", "--cloud", "sandbox", "-d", stdin=answer)
    assert "Launch 2 x p3.16xlarge for about $24.00? [Y/n]" in result.output
    assert ("begin" in names(done)) == launched
    assert result.exit_code == (0 if launched else 130)


def test_detached_returns_with_useful_commands(run_orch: Orch, done: list[Any]) -> None:
    result = run_orch("launch", "tiny.yaml", "--cloud", "sandbox", "-y", "-d")
    assert result.exit_code == 0
    assert f"orch attach {RUN} --node 0" in result.stdout
    assert json.loads(run_orch("launch", "tiny.yaml", "--cloud", "sandbox", "-y", "-d", "--json").stdout) == {
        "run_id": RUN,
        "cloud": "sandbox",
    }


def test_a_launch_with_json_ends_with_the_report_alone(run_orch: Orch, done: list[Any]) -> None:
    run_orch.cloud.add(running(), ended(Verdict("finished", "all 2 nodes finished")))
    result = run_orch("launch", "tiny.yaml", "--cloud", "sandbox", "-y", "--json")
    assert json.loads(result.stdout)["bill"]["run_id"] == RUN


def test_a_name_is_looked_up_with_orch_first_then_in_experiments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").mkdir()
    for name in ("imagenet18", "mine"):
        (tmp_path / "experiments" / f"{name}.yaml").write_text(FILE)
    assert find_file("imagenet18")[1] is True
    assert find_file("mine") == (tmp_path / "experiments" / "mine.yaml", False)
    assert find_file("./experiments/imagenet18.yaml")[1] is False


def test_an_experiment_that_does_not_exist_names_those_that_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match="there is no experiment 'imagenet19'") as caught:
        find_file("imagenet19")
    assert "did you mean imagenet18?" in caught.value.hint
    with pytest.raises(BadInput, match="is a folder"):
        find_file(str(tmp_path))


def test_a_built_in_experiment_has_no_folder_of_its_own() -> None:
    loaded = load_experiment("imagenet18", "sandbox", {"nodes": "16"})
    assert loaded.source.path is None
    assert loaded.source.profile == "sandbox"
    assert loaded.experiment.device == "cpu"
    assert loaded.experiment.num_nodes == 16


def test_data_the_sandbox_has_is_seeded(run_orch: Orch, done: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[str] = []

    def ensure(home: Path, settings: Any, sources: list[str], on_progress: Any) -> None:
        seeded.extend(sources)

    monkeypatch.setattr("orchestrator.sandbox.datasets.ensure", ensure)
    Path("data.yaml").write_text(FILE + "data: {d: {source: 's3://orch-sandbox-datasets/digits'}}\n")
    run_orch("plan", "data.yaml", "--cloud", "sandbox")
    run_orch.cloud.up = ["aws"]
    run_orch("plan", "data.yaml", "--cloud", "aws")
    assert seeded == ["s3://orch-sandbox-datasets/digits"]
