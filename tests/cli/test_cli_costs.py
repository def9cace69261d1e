"""`orch cost --csv`, and `orch cost --since` over all runs."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.core.totals import RunBill, add_up, whole_of
from orchestrator.core.units import to_micro, usd
from orchestrator.report.costs import bill_csv
from orchestrator.run.home import CachedRun
from orchestrator.run.view import RunView
from tests.cli.fake_clouds import Orch
from tests.report.report_runs import interrupted_run

RUN = interrupted_run()
BILL = RUN.bill.to_json()


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def add(run_orch: Orch, name: str, days_ago: float, user: str = "me") -> str:
    """Add the run under another name and age; return its id."""
    began = datetime.now(UTC) - timedelta(days=days_ago)
    run_id = f"{name}-{began:%Y%m%d-%H%M%S}-abcd"
    spec = replace(RUN.spec, run_id=run_id, identity=replace(RUN.spec.identity, user=user))
    spec = replace(spec, experiment=spec.experiment.model_copy(update={"name": name}))
    run_orch.cloud.add(replace(RUN, spec=spec), run_id=run_id)
    return run_id


def test_the_lines_of_the_csv_add_up_to_the_bill(run_orch: Orch) -> None:
    run_orch.cloud.add(RUN)
    found = rows(run_orch("cost", "--csv").stdout)
    assert sum(to_micro(row["usd"]) for row in found) == RUN.bill.high
    hours = [row for row in found if row["kind"] == "instance"]
    assert len(hours) == sum(len(item.hours) for item in RUN.bill.instances) > len(RUN.bill.instances)
    assert {row["estimate"] for row in found if row["kind"] == "ebs"} == {"list price"}


def test_a_spreadsheet_takes_no_cell_for_a_formula() -> None:
    text = bill_csv({"instances": [], "other": [{"kind": "=1+1", "id": "a\nb,c", "usd": "1.000000"}]})
    assert [(row["kind"], row["id"]) for row in rows(text)] == [("'=1+1", "ab,c")]


def test_since_adds_up_every_run_of_that_time(run_orch: Orch) -> None:
    add(run_orch, "one", 1)
    add(run_orch, "one", 2, "you")
    add(run_orch, "two", 20)
    add(run_orch, "old", 31)
    value = json.loads(run_orch("cost", "--since", "30d", "--json").stdout)
    assert [(group["key"], group["runs"], group["spot_usd"]) for group in value["groups"]] == [
        ("one", 2, usd(2 * RUN.bill.high)),
        ("two", 1, usd(RUN.bill.high)),
    ]
    assert value["total"]["spot_usd"] == usd(3 * RUN.bill.high)
    assert value["total"]["on_demand_usd"] == usd(3 * RUN.bill.on_demand)
    by_user = json.loads(run_orch("cost", "--since", "30d", "--by", "user", "--json").stdout)["groups"]
    assert {group["key"]: group["runs"] for group in by_user} == {"me": 2, "you": 1}


@pytest.mark.parametrize(("by", "key"), [("zone", "us-east-1a"), ("type", "p3.16xlarge")])
def test_instances_are_told_apart_by_zone_and_type_and_disks_stand_alone(run_orch: Orch, by: str, key: str) -> None:
    add(run_orch, "one", 1)
    found = {row[by]: row for row in rows(run_orch("cost", "--by", by, "--csv").stdout)}
    assert set(found) == {key, "disks, addresses, S3"}
    assert sum(to_micro(row["spot_usd"]) for row in found.values()) == RUN.bill.high
    assert int(found[key]["instance_seconds"]) == sum(item.seconds for item in RUN.bill.instances)


def test_a_person_sees_groups_and_their_sum(run_orch: Orch) -> None:
    add(run_orch, "one", 1)
    add(run_orch, "two", 2)
    lines = [line.split() for line in run_orch("cost", "--since", "7d").stdout.splitlines()]
    assert lines[0] == ["NAME", "RUNS", "NODE", "TIME", "COST", "ON-DEMAND", "SAVING"]
    assert [line[:2] for line in lines[1:]] == [["one", "1"], ["two", "1"], ["total", "2"]]
    assert lines[-1][3] == f"${2 * RUN.bill.high / 1e6:.2f}"


def test_kept_reports_count_and_what_cannot_be_read_is_named(run_orch: Orch) -> None:
    began = datetime.now(UTC) - timedelta(days=1)
    for suffix in ("aaaa", "bbbb"):
        run_id = f"gone-{began:%Y%m%d-%H%M%S}-{suffix}"
        run_orch.home.remember(CachedRun(run_id, "sandbox", "gone", began.isoformat()))
        if suffix == "aaaa":
            run_orch.home.save_report({"run_id": run_id, "bill": BILL})
    result = run_orch("cost", "--since", "2d", "--by", "user", "--json")
    assert [group["key"] for group in json.loads(result.stdout)["groups"]] == ["unknown"]
    assert "bbbb: its cloud is out of reach" in result.stderr
    assert result.exit_code == 0


def test_no_runs_are_said(run_orch: Orch) -> None:
    assert run_orch("cost", "--since", "1h").stdout == "no run of the last 1h cost anything\n"
    assert json.loads(run_orch("cost", "--since", "1h", "--json").stdout)["total"]["spot_usd"] == "0.000000"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--json", "--csv"], "two forms of the same"),
        (["tiny", "--since", "1d"], "for all runs, not for tiny"),
        (["--since", "yesterday"], "--since: 'yesterday' is not a duration"),
    ],
)
def test_what_does_not_go_together_is_refused(run_orch: Orch, given: list[str], said: str) -> None:
    result = run_orch("cost", *given)
    assert result.exit_code == 2
    assert said in result.stderr


def test_totals_are_the_sum_of_the_bills_however_they_are_grouped() -> None:
    runs = [RunBill("a", "one", "me", BILL), RunBill("b", "two", "", BILL)]
    for by in ("name", "user", "zone", "type"):
        total = whole_of(add_up(runs, by))
        assert (total.spot, total.on_demand) == (2 * RUN.bill.high, 2 * RUN.bill.on_demand)
        assert total.runs == {"a", "b"}


def test_the_run_of_these_tests_has_more_than_an_hour() -> None:
    assert isinstance(RUN, RunView)
    assert max(len(item.hours) for item in RUN.bill.instances) > 1
