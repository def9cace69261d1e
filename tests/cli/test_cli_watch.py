"""Watching, stopping and resuming: lines while it goes on, the bill, and an exit code that says how it ended."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.cli import follow as following
from orchestrator.cli.outcome import exit_code
from orchestrator.core.caps import Caps
from orchestrator.core.ledger import Verdict
from orchestrator.errors import BadInput, Exit, Unreachable
from orchestrator.run.keys import NotOffered
from orchestrator.run.renewal import Renewed
from orchestrator.run.view import RunView
from tests.cli.fake_clouds import Orch
from tests.core.worlds import spec
from tests.report.views import VERSION, building, ended, running

RUN = "tiny-20261120-120000-abcd"
FINISHED = Verdict("finished", "all 2 nodes finished")
FAILED = Verdict(
    "failed",
    "node 1 (i-1): `run` exited with code 3",
    "`orch logs --node 1`",
    "",
    1,
    ("ValueError: \x1b[31mno\x1b[0m",),
)


@pytest.mark.parametrize(
    ("verdict", "code"),
    [
        (FINISHED, 0),
        (FAILED, 1),
        (Verdict("failed", "EC2 refused", code="UnauthorizedOperation"), 4),
        (Verdict("failed", "EC2 refused", code="InvalidParameterValue"), 1),
        (Verdict("no-capacity", "no room"), 3),
        (Verdict("interrupted", "EC2 took node 1 back"), 5),
        (Verdict("stopped", "asked to stop"), 6),
        (Verdict("capped", "max_cost is near"), 6),
    ],
)
def test_each_way_to_end_has_its_exit_code(run_orch: Orch, verdict: Verdict, code: int) -> None:
    assert exit_code(verdict) == code
    run_orch.cloud.add(running(), ended(verdict))
    result = run_orch("watch")
    assert result.exit_code == code
    assert verdict.message in (result.stdout if code == 0 else result.stderr)


def test_a_run_is_told_in_lines_and_ends_with_its_bill(run_orch: Orch) -> None:
    views = [running(metrics={"step": step, "epoch": step, "loss": 2.0}, seconds=100 + step) for step in (1, 2)]
    run_orch.cloud.add(*views, ended(FINISHED, top1=76.0))
    text = run_orch("watch", RUN).stdout
    assert text.index("running: 2 x p3.16xlarge spot in us-east-1a") < text.index("epoch 2")
    assert "bill of tiny-20261120-120000-abcd" in text
    assert "finished after 3m10s: $0.78, on-demand $2.59, saving 70%" in text


def test_a_failed_run_names_the_node_and_its_last_lines_after_the_bill(run_orch: Orch) -> None:
    run_orch.cloud.add(ended(FAILED))
    result = run_orch("watch")
    assert result.stderr.splitlines() == [
        "orch: node 1 (i-1): `run` exited with code 3",
        "  [1] ValueError: no",
        "hint: `orch logs --node 1`",
    ]
    assert "total" in result.stdout


def test_json_is_a_line_for_each_change_and_the_report_at_the_end(run_orch: Orch) -> None:
    run_orch.cloud.add(running(seconds=100), running(seconds=103), running(seconds=160), ended(FINISHED))
    values = [json.loads(line) for line in run_orch("watch", "--json").stdout.splitlines()]
    assert [value["phase"] for value in values] == ["running", "running", "finished", "finished"]
    assert values[-1]["bill"]["final"] is True


def test_ctrl_c_leaves_the_view_and_says_that_the_run_goes_on(run_orch: Orch, monkeypatch: pytest.MonkeyPatch) -> None:
    run_orch.cloud.add(running())

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    result = run_orch("watch")
    assert result.exit_code == 130
    assert "the run goes on" in result.stderr
    assert f"orch watch {RUN}" in result.stderr


def test_a_connection_that_comes_back_is_waited_for(run_orch: Orch, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [running(), Unreachable("S3 does not answer"), ended(FINISHED)]

    def read(*_: object) -> RunView:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        found: RunView = answer
        return found

    run_orch.cloud.add(running())
    monkeypatch.setattr(run_orch.cloud, "read", read)
    assert run_orch("watch").exit_code == 0


def test_watching_ends_once_it_was_said_that_nobody_schedules_the_run(run_orch: Orch) -> None:
    run_orch.cloud.add(running(scheduler=None), running(scheduler=None, seconds=106), ended(FINISHED))
    result = run_orch("watch")
    assert result.exit_code == 8
    assert "no scheduler looks after this run" in result.stdout
    assert f"orch resume {RUN}" in result.stderr


def test_a_scheduler_that_was_started_just_now_is_waited_for(
    run_orch: Orch, acts: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    late = [running(scheduler=None, seconds=seconds) for seconds in (100, 101, 107)]
    run_orch.cloud.add(*late, ended(FINISHED))
    assert run_orch("resume").exit_code == 0
    monkeypatch.setattr(following, "STARTING_SECONDS", 0.0)
    run_orch.cloud.add(*late, ended(FINISHED))
    assert run_orch("resume").exit_code == 8


def test_a_finished_run_is_not_extended_and_nobody_is_sent_to_resume_it(run_orch: Orch) -> None:
    run_orch.cloud.add(ended(FINISHED))
    said = run_orch("extend", "--max-cost", "99")
    assert said.exit_code == 2
    assert "hint: `orch launch` begins a new run" in said.stderr


@pytest.fixture
def acts(run_orch: Orch, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What was asked of runs and which schedulers were started."""
    done: list[tuple[Any, ...]] = []

    def check_key(view: object, home: object, **where: object) -> None:
        """The nodes let this machine in."""

    def start(home: object, run_id: str, cloud: str) -> None:
        done.append(("start", run_id, cloud))

    def alive(home: object, run_id: str) -> bool:
        return False

    def stop(bucket: object, run_id: str, actor: str, reason: str) -> None:
        done.append(("stop", run_id, reason))

    def resume(bucket: object, run_id: str, actor: str, caps: Caps, renewed: Renewed) -> None:
        done.append(("resume", run_id, *caps.to_json().items()))

    def extend(bucket: object, run_id: str, actor: str, caps: Caps) -> None:
        done.append(("extend", run_id, *caps.to_json().items()))

    monkeypatch.setattr("orchestrator.run.reach.check_key", check_key)
    monkeypatch.setattr("orchestrator.run.detach.start_scheduler", start)
    monkeypatch.setattr("orchestrator.run.detach.scheduler_alive", alive)
    monkeypatch.setattr("orchestrator.run.wish.ask_stop", stop)
    monkeypatch.setattr("orchestrator.run.wish.ask_resume", resume)
    monkeypatch.setattr("orchestrator.run.wish.ask_extend", extend)
    return done


def test_stop_asks_waits_and_is_done_when_the_run_is_stopped(run_orch: Orch, acts: list[tuple[Any, ...]]) -> None:
    run_orch.cloud.add(running(), running(), ended(Verdict("stopped", "saved at step 40")))
    result = run_orch("stop", "--reason", "enough")
    assert result.exit_code == 0
    assert "saved at step 40" in result.stdout
    assert acts == [("stop", RUN, "enough")]


def test_stop_starts_a_scheduler_where_there_is_none(run_orch: Orch, acts: list[tuple[Any, ...]]) -> None:
    run_orch.cloud.add(running(scheduler=None), ended(Verdict("stopped", "stopped")))
    assert run_orch("stop").exit_code == 0
    assert ("start", RUN, "sandbox") in acts


def test_stop_of_a_run_that_fails_on_the_way_says_so(run_orch: Orch, acts: list[tuple[Any, ...]]) -> None:
    run_orch.cloud.add(running(), ended(FAILED))
    assert run_orch("stop").exit_code == 1


def test_stop_of_an_ended_run_changes_nothing(run_orch: Orch, acts: list[tuple[Any, ...]]) -> None:
    run_orch.cloud.add(ended(FINISHED))
    result = run_orch("stop")
    assert (result.exit_code, acts) == (0, [])
    assert "has already ended: finished" in result.stdout


def test_stop_detached_does_not_wait(run_orch: Orch, acts: list[tuple[Any, ...]]) -> None:
    run_orch.cloud.add(running())
    result = run_orch("stop", "-d", "--json")
    assert json.loads(result.stdout)["run_id"] == RUN


def test_resume_launches_an_ended_run_again(run_orch: Orch, acts: list[tuple[Any, ...]]) -> None:
    run_orch.cloud.add(ended(Verdict("stopped", "saved at step 4")), ended(FINISHED))
    result = run_orch("resume", "tiny")
    assert result.exit_code == 0
    assert acts == [("resume", RUN), ("start", RUN, "sandbox")]
    assert "launching 2 nodes again, from the last checkpoint" in result.stdout


def test_what_is_gone_that_a_run_needs_is_told_with_all_else_and_what_took_its_place_is_named(
    run_orch: Orch, acts: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [Renewed(faults=("data.x: nothing at s3://b/x",)), Renewed(image="ami-new")]
    monkeypatch.setattr("orchestrator.run.renewal.renew", lambda *_: found.pop(0))
    run_orch.cloud.add(capped("0.80"))
    refused = run_orch("resume", "--max-cost", "0.90")
    assert (refused.exit_code, acts) == (2, [])
    assert "max_cost: $0.90 is too little" in refused.stderr
    assert "  data.x: nothing at s3://b/x\n" in refused.stderr
    run_orch.cloud.add(capped("0.80"), ended(FINISHED))
    taken = run_orch("resume", "--max-cost", "2", "-d")
    assert f"image {spec(2).image} is gone: the nodes boot ami-new" in taken.stderr


def capped(cap: str) -> RunView:
    view = ended(Verdict("capped", "max_cost of $0.80 is near: saved at step 4"))
    return replace(view, spec=spec(2, max_cost=cap))


def test_a_run_that_its_cap_ended_is_resumed_with_a_higher_one_only(
    run_orch: Orch, acts: list[tuple[Any, ...]]
) -> None:
    run_orch.cloud.add(capped("0.80"))
    refused = run_orch("resume", "--max-duration", "soon")
    assert (refused.exit_code, acts) == (2, [])
    assert "max_duration: 'soon' is not a duration" in refused.stderr
    assert "max_cost: $0.80 is too little: it has cost $0.78, and $1.10 once 2 nodes began" in refused.stderr
    run_orch.cloud.add(capped("0.80"), ended(FINISHED))
    assert run_orch("resume", "--max-cost", "2", "--max-duration", "2h").exit_code == 0
    assert acts[0] == ("resume", RUN, ("max_cost", 2_000_000), ("max_duration", 7200))


def test_a_run_that_goes_on_gets_other_caps(run_orch: Orch, acts: list[tuple[Any, ...]]) -> None:
    given = replace(running(), spec=spec(2, max_cost="60", max_duration="2h"))
    run_orch.cloud.add(running(), given)
    said = run_orch("extend", "tiny", "--max-cost", "60", "--max-duration", "2h")
    assert (said.exit_code, acts) == (0, [("extend", RUN, ("max_cost", 60_000_000), ("max_duration", 7200))])
    assert said.stdout == f"{RUN} goes on under max_cost $60.00, max_duration 2h00m\n"
    run_orch.cloud.add(running(), given)
    row = json.loads(run_orch("extend", "--max-cost", "60", "--json").stdout)
    assert (row["max_cost_usd"], row["max_duration"]) == ("60.000000", "2h00m")


def test_caps_that_a_run_cannot_have_are_refused_with_every_reason(run_orch: Orch, acts: list[tuple[Any, ...]]) -> None:
    run_orch.cloud.add(running())
    said = run_orch("extend", "--max-cost", "0.42", "--max-duration", "90s")
    assert (said.exit_code, acts) == (2, [])
    assert "max_cost: $0.42 is too little: it has cost $0.41, and $1.2" in said.stderr
    assert "max_duration: 1m30s is too little: it has lasted 1m40s, and 4m55s when it is saved" in said.stderr
    assert "give --max-cost, --max-duration, or both" in run_orch("extend").stderr
    assert "max_cost: must be an amount of dollars" in run_orch("extend", "--max-cost", "much").stderr
    run_orch.cloud.add(ended(Verdict("stopped", "saved at step 4")))
    said = run_orch("extend", "--max-cost", "99")
    assert "it has ended: stopped" in said.stderr
    assert f"`orch resume {RUN}` takes caps, too" in said.stderr
    assert acts == []


def test_extend_starts_a_scheduler_where_there_is_none(run_orch: Orch, acts: list[tuple[Any, ...]]) -> None:
    run_orch.cloud.add(running(scheduler=None))
    assert run_orch("extend", "--max-cost", "99").exit_code == 0
    assert acts[1:] == [("start", RUN, "sandbox")]


def test_resume_gives_a_run_that_goes_on_a_new_scheduler(run_orch: Orch, acts: list[tuple[Any, ...]]) -> None:
    run_orch.cloud.add(running(scheduler=None), ended(FINISHED))
    assert run_orch("resume").exit_code == 0
    assert ("start", RUN, "sandbox") in acts


def test_resume_leaves_a_scheduler_that_lives_alone(run_orch: Orch, acts: list[tuple[Any, ...]]) -> None:
    run_orch.cloud.add(running(), ended(FINISHED))
    assert run_orch("resume").exit_code == 0
    assert ("start", RUN, "sandbox") not in acts


def test_a_build_is_not_resumed_and_its_own_command_is_named(run_orch: Orch, acts: list[tuple[Any, ...]]) -> None:
    again = f"hint: `orch dataset snapshot flowers@{VERSION}` begins anew"
    for view in (running(scheduler=None), ended(FAILED), ended(Verdict("capped", "max_cost is near"))):
        run_orch.cloud.add(building(view))
        for words in (["resume"], ["extend", "--max-cost", "90"]):
            refused = run_orch(*words)
            assert (refused.exit_code, again in refused.stderr) == (2, True)
    assert "`orch resume" not in run_orch("watch").stderr, "nobody is sent there by how it ended"
    run_orch.cloud.add(building(running()))
    assert "goes on" in run_orch("resume").stderr
    assert acts == []
    assert run_orch("extend", "--max-cost", "90").exit_code == 0
    assert [act[0] for act in acts] == ["extend"], "whoever builds it schedules its run"
    lost = [building(running(scheduler=None, seconds=seconds)) for seconds in (100, 106)]
    run_orch.cloud.add(*lost)
    assert f"`orch dataset snapshot flowers@{VERSION}` removes it and begins anew" in run_orch("watch").stderr


@pytest.mark.parametrize("words", [["resume"], ["extend", "--max-cost", "90"]])
def test_where_the_nodes_do_not_let_this_machine_in_nothing_is_changed(
    run_orch: Orch, acts: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    def refuse(view: object, home: object, **where: object) -> None:
        raise NotOffered("AWS refused it", "you need the permission", exit_code=Exit.NO_PERMISSION)

    monkeypatch.setattr("orchestrator.run.reach.check_key", refuse)
    run_orch.cloud.add(running(scheduler=None))
    result = run_orch(*words)
    assert (result.exit_code, acts) == (4, [])
    assert "you need the permission" in result.stderr


def test_whoever_did_not_launch_a_run_brings_its_secrets(
    run_orch: Orch, acts: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    view = replace(running(scheduler=None), spec=spec(2, secrets=["WANDB_API_KEY"]))
    run_orch.cloud.add(view, view, ended(FINISHED))
    result = run_orch("resume")
    assert (result.exit_code, acts) == (BadInput.exit_code, [])
    assert "secrets: WANDB_API_KEY is not set in your environment" in result.stderr
    monkeypatch.setenv("WANDB_API_KEY", "s3cret")
    assert run_orch("resume").exit_code == 0
    assert run_orch.home.secrets(RUN) == {"WANDB_API_KEY": "s3cret"}
    monkeypatch.delenv("WANDB_API_KEY")
    run_orch.cloud.add(view, ended(FINISHED))
    assert run_orch("resume").exit_code == 0, "what is kept here is enough"


def test_resume_refuses_while_a_secret_is_missing(
    run_orch: Orch, acts: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    view = ended(Verdict("stopped", "saved"))
    run_orch.cloud.add(replace(view, spec=spec(2, secrets=["WANDB_API_KEY"])), ended(FINISHED))
    result = run_orch("resume")
    assert (result.exit_code, acts) == (BadInput.exit_code, [])
    assert "secrets: WANDB_API_KEY is not set in your environment" in result.stderr
    monkeypatch.setenv("WANDB_API_KEY", "s3cret")
    run_orch.cloud.add(replace(view, spec=spec(2, secrets=["WANDB_API_KEY"])), ended(FINISHED))
    assert run_orch("resume").exit_code == 0
    assert run_orch.home.secrets(RUN) == {"WANDB_API_KEY": "s3cret"}
