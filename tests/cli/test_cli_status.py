"""`status`, `cost` and `logs`: documented shapes, on every cloud, and after a cloud is gone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from orchestrator.core.ledger import Verdict
from orchestrator.run.home import CachedRun
from tests.cli.fake_clouds import Orch
from tests.report.views import VERSION, building, ended, running

RUN = "tiny-20261120-120000-abcd"
GONE = "tiny-20261119-120000-aaaa"
LOST = "tiny-20261118-120000-bbbb"
FINISHED = ended(Verdict("finished", "all 2 nodes finished"), top1=76.0, top5=93.0)
ROW = {"run_id", "name", "phase", "num_nodes", "started", "ended", "spot_usd", "on_demand_usd", "metrics"}


def keep(run_orch: Orch, run_id: str, *, report: bool) -> None:
    """Remember a run of a sandbox that is no more."""
    run_orch.home.remember(CachedRun(run_id, "sandbox", "tiny", "2026-11-19T12:00:00Z"))
    if report:
        run_orch.home.save_report(FINISHED.report() | {"run_id": run_id})


def test_status_json_has_the_documented_shape(run_orch: Orch) -> None:
    run_orch.cloud.add(FINISHED)
    rows = json.loads(run_orch("status", "--json").stdout)
    assert len(rows) == 1
    assert set(rows[0]) >= ROW
    assert rows[0]["phase"] == "finished"
    assert rows[0]["metrics"] == {"top1": 76.0, "top5": 93.0}
    assert rows[0]["spot_usd"] == "0.776372"


def test_status_json_without_runs_is_an_empty_list(run_orch: Orch) -> None:
    assert json.loads(run_orch("status", "--json").stdout) == []


def test_runs_of_every_cloud_and_kept_ones_are_listed_newest_first(run_orch: Orch) -> None:
    run_orch.cloud.up = ["aws", "sandbox"]
    run_orch.cloud.add(running(), cloud="aws")
    keep(run_orch, LOST, report=False)
    keep(run_orch, GONE, report=True)
    rows = json.loads(run_orch("status", "--json").stdout)
    assert [row["run_id"] for row in rows] == [RUN, GONE, LOST]
    assert [row["phase"] for row in rows] == ["running", "finished", "unknown"]
    assert all(set(row) >= ROW for row in rows)
    assert rows[1]["spot_usd"] == "0.776372"
    assert (rows[2]["spot_usd"], rows[2]["num_nodes"]) == (None, None)
    text = run_orch("status").stdout
    assert all(run_id in text for run_id in (RUN, GONE, LOST))


def test_status_of_one_run_lists_only_that(run_orch: Orch) -> None:
    run_orch.cloud.add(running())
    keep(run_orch, GONE, report=True)
    assert [row["run_id"] for row in json.loads(run_orch("status", GONE[:12], "--json").stdout)] == [GONE]
    assert run_orch("status", "nope").exit_code == 7


def test_a_limit_keeps_the_newest(run_orch: Orch) -> None:
    run_orch.cloud.add(running())
    keep(run_orch, GONE, report=True)
    assert [row["run_id"] for row in json.loads(run_orch("status", "--limit", "1", "--json").stdout)] == [RUN]
    assert len(json.loads(run_orch("status", "--limit", "0", "--json").stdout)) == 2


def test_a_cloud_that_is_asked_for_and_gone_is_an_error(run_orch: Orch) -> None:
    run_orch.cloud.up = []
    result = run_orch("status", "--cloud", "sandbox")
    assert result.exit_code == 8
    assert "the sandbox is not up" in result.stderr


@pytest.mark.parametrize("how", ["flag", "environment"])
def test_what_is_kept_here_is_told_without_the_cloud_that_was_asked_for(
    run_orch: Orch, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    run_orch.cloud.up = []
    keep(run_orch, GONE, report=True)
    run_orch.home.remember(CachedRun(RUN, "aws", "tiny", "2026-11-20T12:00:00Z"))
    asked = ("--cloud", "sandbox") if how == "flag" else ()
    if how == "environment":
        monkeypatch.setenv("ORCH_CLOUD", "sandbox")
    listed = run_orch("status", "--json", *asked)
    assert (listed.exit_code, [row["run_id"] for row in json.loads(listed.stdout)]) == (0, [GONE])
    assert "left out: the sandbox is not up" in listed.stderr
    for run in ((), (GONE,), ("tiny-20261119",), ("tiny",)):
        bill = run_orch("cost", *run, "--json", *asked)
        assert (bill.exit_code, json.loads(bill.stdout or "{}")) == (0, FINISHED.bill.to_json()), run
    assert json.loads(run_orch("status", "--timing", "--json", *asked).stdout) == []
    since = run_orch("cost", "--since", "80d", "--json", *asked)
    assert since.exit_code == 0
    assert "the sandbox is not up" in since.stderr
    # What lies in a cloud, and what is not known here, still says why it cannot be told.
    for line in (("logs", GONE), ("cost", "nope"), ("ami", "list"), ("gc",)):
        assert run_orch(*line, *asked).exit_code == 8, line


def test_a_run_that_cannot_be_read_does_not_hide_the_others(run_orch: Orch, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator.errors import OrchError

    run_orch.cloud.add(running())
    run_orch.cloud.add(FINISHED, run_id=GONE)
    read = run_orch.cloud.read

    def broken(cloud: str, run_id: str) -> object:
        if run_id == RUN:
            raise OrchError("its ledger cannot be read")
        return read(cloud, run_id)

    monkeypatch.setattr(run_orch.cloud, "read", broken)
    rows = json.loads(run_orch("status", "--json").stdout)
    assert [(row["phase"], row["message"][:10]) for row in rows] == [
        ("unknown", "its ledger"),
        ("finished", "all 2 node"),
    ]


def test_cost_json_is_the_bill_and_nothing_else(run_orch: Orch) -> None:
    run_orch.cloud.add(FINISHED)
    bill = json.loads(run_orch("cost", "--json").stdout)
    assert bill == FINISHED.bill.to_json()
    assert set(bill) >= {"run_id", "spot_usd_low", "spot_usd_high", "on_demand_usd", "saving", "instances", "other"}


def test_cost_of_a_run_whose_cloud_is_gone_comes_from_the_kept_report(run_orch: Orch) -> None:
    run_orch.cloud.up = []
    keep(run_orch, GONE, report=True)
    result = run_orch("cost", GONE, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["saving"] == FINISHED.bill.to_json()["saving"]
    assert "from the report kept on this machine" in result.stderr
    assert "saving" in run_orch("cost", GONE).stdout


def test_cost_of_a_run_that_an_older_sandbox_had_comes_from_the_kept_report(run_orch: Orch) -> None:
    keep(run_orch, GONE, report=True)
    assert run_orch("cost", GONE).exit_code == 0


def test_cost_of_a_run_nobody_knows_any_more_says_why(run_orch: Orch) -> None:
    run_orch.cloud.up = []
    keep(run_orch, LOST, report=False)
    assert run_orch("cost", LOST).exit_code == 8


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [(0, "epoch 1"), (1, "\x1b[31mred\x1b[0m\x07"), (1, "10%\r20%")]

    def read_logs(bucket: object, run_id: str, rank: int | None = None) -> Iterator[tuple[int, str]]:
        return iter([line for line in lines if rank in {None, line[0]}])

    def follow_logs(
        bucket: object, run_id: str, rank: int | None, ended: Callable[[], bool]
    ) -> Iterator[tuple[int, str]]:
        assert ended()
        return read_logs(bucket, run_id, rank)

    monkeypatch.setattr("orchestrator.run.logs.read_logs", read_logs)
    monkeypatch.setattr("orchestrator.run.logs.follow_logs", follow_logs)
    monkeypatch.setattr("orchestrator.run.logs.refuse_another_node", lambda bucket, run_id, rank: None)


@pytest.mark.usefixtures("printed")
def test_logs_carry_the_rank_and_nothing_that_steers_a_terminal(run_orch: Orch) -> None:
    run_orch.cloud.add(FINISHED)
    assert run_orch("logs").stdout == "[0] epoch 1\n[1] red\n[1] 20%\n"
    assert run_orch("logs", "--node", "1").stdout == "red\n20%\n"
    assert run_orch("logs", "--follow").stdout == "[0] epoch 1\n[1] red\n[1] 20%\n"


@pytest.mark.usefixtures("printed")
def test_logs_json_is_an_object_a_line(run_orch: Orch) -> None:
    run_orch.cloud.add(FINISHED)
    lines = run_orch("logs", "--json").stdout.splitlines()
    assert [json.loads(line) for line in lines][1] == {"rank": 1, "line": "red"}


@pytest.mark.usefixtures("printed")
def test_no_logs_is_said_on_stderr(run_orch: Orch) -> None:
    run_orch.cloud.add(FINISHED)
    result = run_orch("logs", "--node", "7")
    assert result.stdout == ""
    assert "nothing was printed by node 7 yet" in result.stderr


@pytest.mark.parametrize("columns", ["80", "200"])
def test_a_run_that_nobody_schedules_says_what_to_do(
    run_orch: Orch, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    run_orch.cloud.add(running(scheduler=None))
    assert f"no scheduler; `orch resume {RUN}`" in run_orch("status").stdout
    (row,) = json.loads(run_orch("status", "--json").stdout)
    assert (row["scheduler"], row["unattended"]) == (None, True)
    run_orch.cloud.add(building(running(scheduler=None)))
    (row,) = json.loads(run_orch("status", "--json").stdout)
    assert row["message"] == f"no scheduler; `orch dataset snapshot flowers@{VERSION}`"
    run_orch.cloud.add(running(scheduler="elsewhere (process 7)"))
    assert "no scheduler" not in run_orch("status").stdout
