"""`orch simulate`: all faults at once, equal figures for equal seeds, and the plan's prices where none are given."""

from __future__ import annotations

import gzip
import json
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import Result

from orchestrator.core.catalog import relative_hours
from orchestrator.core.plan import Offer, Plan
from tests.cli.fake_clouds import Orch
from tests.core.worlds import offer

FILE = """
name: tiny
num_nodes: 4
resources: {instance_type: p3.16xlarge}
run: hostname
expected_duration: 20m
"""
# Twelve hours of samples every five minutes: the first zone is good in its first half, the second in the other one.
FIRST = ([4] * 9 + [2] * 3) * 6 + [1] * 72
SECOND = [0] * 60 + [4] * 84


def write_trace(name: str, data: object, gap: object = 300) -> str:
    Path(name).write_text(json.dumps({"metadata": {"gap_seconds": gap}, "data": data}))
    return name


@pytest.fixture
def simulate(run_orch: Orch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`orch simulate tiny.yaml` on two zones with flat prices, and what else is given."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(FILE)
    write_trace("us-east-1a_v100_1.json", FIRST)
    write_trace("us-east-1b_v100_1.json", SECOND)

    def run(*arguments: str, prices: tuple[str, ...] = ("--spot-price", "6", "--on-demand-price", "24")) -> Result:
        traces = ("--trace", "us-east-1a_v100_1.json", "--trace", "us-east-1b_v100_1.json")
        return run_orch("simulate", "tiny.yaml", *traces, "--replays", "50", *prices, *arguments)

    return run


def rows(result: Result) -> dict[tuple[str, str | None], dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return {(row["policy"], row["zone"]): row for row in json.loads(result.stdout)["policies"]}


def test_every_policy_has_its_row_and_those_of_one_zone_a_row_for_each(simulate: Any) -> None:
    found = rows(simulate("--json", "--deadline", "2h"))
    zones = ("us-east-1a", "us-east-1b")
    assert list(found) == [
        *(("gang", zone) for zone in zones),
        ("failover", None),
        ("replace", None),
        *(("elastic", zone) for zone in zones),
        ("elastic-failover", None),
        ("on-demand", None),
        ("auto", None),
    ]
    assert [row["best_zone"] for row in found.values()].count(True) == 2
    assert found["on-demand", None]["seconds"] == {"p50": 1350, "p90": 1350, "p99": 1350}
    # Four nodes at 24 dollars for 1350 s.
    assert found["on-demand", None]["cost_usd"]["p50"] == "36.000000"
    assert found["auto", None]["in_time"] == 1.0
    assert found["failover", None]["finished"] >= found["gang", "us-east-1a"]["finished"]


def test_equal_seeds_give_equal_output_and_others_do_not(simulate: Any) -> None:
    options = ("--json", "--no-notice-share", "0.5", "--set", "expected_duration=1h")
    first = simulate(*options, "--seed", "7").stdout
    assert simulate(*options, "--seed", "7").stdout == first
    # Beside the seed itself.
    assert json.loads(simulate(*options, "--seed", "8").stdout)["policies"] != json.loads(first)["policies"]


def test_the_json_holds_what_it_was_made_from_and_nothing_is_said_beside_it(simulate: Any) -> None:
    result = simulate("--json", "--boot", "0", "--notice", "90s", "--horizon", "6h")
    value = json.loads(result.stdout)
    assert result.stderr == ""
    assert value["job"]["boot_seconds"] == 0
    assert value["job"]["notice_seconds"] == 90
    assert value["horizon_seconds"] == 21_600
    assert value["deadline_seconds"] is None
    assert value["traces"] == {
        "gap_seconds": 300,
        "seconds": 144 * 300,
        "zones": [{"zone": "us-east-1a", "kind": "v100_1"}, {"zone": "us-east-1b", "kind": "v100_1"}],
    }
    assert value["job"]["min_nodes"] == 2
    assert json.loads(simulate("--json", "--min-nodes", "3").stdout)["job"]["min_nodes"] == 3
    assert json.loads(simulate("--json", "--nodes", "1..4").stdout)["job"]["min_nodes"] == 1
    assert any("--deadline" in note for note in value["notes"])


def test_a_folder_stands_for_the_traces_in_it(simulate: Any, run_orch: Orch) -> None:
    Path("zones").mkdir()
    Path("us-east-1b_v100_1.json").rename("zones/us-east-1b_v100_1.json")
    with gzip.open("zones/us-east-1a_v100_1.json.gz", "wb") as file:
        file.write(Path("us-east-1a_v100_1.json").read_bytes())
    Path("zones/LICENSE").write_text("not a trace")
    prices = ("--spot-price", "6", "--on-demand-price", "24")
    result = run_orch("simulate", "tiny.yaml", "--trace", "zones", *prices, "--json")
    assert [item["zone"] for item in json.loads(result.stdout)["traces"]["zones"]] == ["us-east-1a", "us-east-1b"]


def test_elastic_policies_train_on_no_fewer_nodes_than_they_were_told(simulate: Any) -> None:
    write_trace("us-east-1a_v100_1.json", [2] * 144)
    options = ("--json", "--policy", "elastic", "--set", "expected_duration=1h")
    assert rows(simulate(*options, "--min-nodes", "2"))["elastic", "us-east-1a"]["finished"] == 1
    assert rows(simulate(*options, "--min-nodes", "3"))["elastic", "us-east-1a"]["finished"] == 0


def test_what_the_profile_of_the_cloud_changes_is_said(simulate: Any) -> None:
    Path("tiny.yaml").write_text(f"{FILE}profiles: {{sandbox: {{expected_duration: 10m}}}}\n")
    value = json.loads(simulate("--json", "--cloud", "sandbox").stdout)
    assert value["job"]["work_seconds"] == 600
    assert any(note.startswith("profile sandbox: expected_duration: ") for note in value["notes"])


def shape(value: Any) -> Any:
    """Return the keys of JSON, of a list those of its first element."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    return [shape(item) for item in value[:1]] if isinstance(value, list) else None


def test_the_json_has_the_documented_shape(simulate: Any) -> None:
    page = (Path(__file__).parents[2] / "docs" / "commands.md").read_text()
    section = page.partition("## `orch simulate`")[2]
    documented = json.loads(section.partition("```json")[2].partition("```")[0])
    assert shape(json.loads(simulate("--json").stdout)) == shape(documented)


def test_few_different_starts_are_said_to_be_few(simulate: Any) -> None:
    assert "room for 13 different starts" in simulate("--horizon", "11h").stdout
    assert "different starts" not in simulate().stdout


def test_a_pipe_gets_a_plain_table_with_its_assumptions(simulate: Any) -> None:
    result = simulate("--policy", "failover", "--policy", "on-demand")
    lines = result.stdout.splitlines()
    assert lines[0] == "tiny: 4 nodes, 20m00s at full strength"
    assert lines[1].split()[:2] == ["POLICY", "ZONE"]
    assert [line.split()[0] for line in lines[2:4]] == ["failover", "on-demand"]
    assert "\x1b" not in result.stdout
    assert "boot 2m30s, restart 30s, a checkpoint each 1m00s, notice 2m00s" in result.stdout


def test_the_best_zone_is_ticked(simulate: Any) -> None:
    # A run that begins late in the first six hours has no time left in the first zone, and all it needs in the other.
    lines = simulate("--policy", "gang", "--policy", "failover", "--horizon", "6h").stdout.splitlines()
    assert [line.split()[:3] for line in lines if line.startswith("✔")] == [["✔", "gang", "us-east-1b"]]


def test_in_time_is_by_the_deadline_and_finished_while_watched(simulate: Any) -> None:
    row = rows(simulate("--json", "--deadline", "30m", "--horizon", "6h"))["gang", "us-east-1a"]
    assert 0 < row["in_time"] < row["finished"]


def test_traces_are_as_long_as_the_shortest(simulate: Any) -> None:
    write_trace("us-east-1c_short.json", [4] * 100)
    assert json.loads(simulate("--json", "--trace", "us-east-1c_short.json").stdout)["traces"]["seconds"] == 30_000


def test_what_cannot_be_done_in_time_is_noted(simulate: Any) -> None:
    result = simulate("--set", "expected_duration=10h", "--horizon", "9h")
    assert "so none can finish: only USEFUL speaks" in result.stdout
    assert "none can finish" not in simulate("--set", "expected_duration=10h", "--horizon", "11h").stdout


def test_what_does_not_finish_has_no_time_and_no_cost(simulate: Any) -> None:
    result = simulate("--json", "--set", "expected_duration=10h", "--horizon", "11h", "--policy", "gang")
    row = rows(result)["gang", "us-east-1b"]
    assert (row["finished"], row["seconds"]["p50"], row["cost_usd"]["p50"], row["saving"]) == (0, None, None, None)
    assert row["useful"] > 0


def test_prices_come_from_a_file_by_zone_or_by_the_name_of_the_trace(simulate: Any) -> None:
    with gzip.open("prices.json.gz", "wt") as file:
        json.dump({"us-east-1a_v100_1": [1.25] * 72 + [2.5] * 72, "us-east-1b": 6}, file)
    given = ("--prices", "prices.json.gz", "--on-demand-price", "24")
    # Watched to the end of the traces all replays begin at 0: a gang of 1350 s at 1.25 $/h, one at 6 $/h.
    options = ("--json", "--policy", "gang", "--horizon", "12h")
    found = rows(simulate(*options, prices=given))
    assert found["gang", "us-east-1a"]["cost_usd"]["p50"] == "1.875000"
    assert found["gang", "us-east-1b"]["cost_usd"]["p50"] == "9.000000"
    dearer = rows(simulate(*options, prices=(*given, "--spot-price", "us-east-1b=12")))
    assert dearer["gang", "us-east-1b"]["cost_usd"]["p50"] == "18.000000"


def plan_offers(monkeypatch: pytest.MonkeyPatch, *offers: Offer) -> None:
    """Let the plan of any experiment have these offers."""

    def prepare(experiment: Any, *_: Any, **__: Any) -> Any:
        return SimpleNamespace(experiment=experiment, plan=Plan(4, offers, (), (), timedelta(hours=1)))

    monkeypatch.setattr("orchestrator.run.prepare.prepare", prepare)


def test_without_prices_those_of_the_plan_are_used(simulate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plan_offers(monkeypatch, offer("us-east-1a"), offer("us-east-1b"))
    value = json.loads(simulate("--json", "--policy", "on-demand", "--cloud", "sandbox", prices=()).stdout)
    assert value["job"]["work_seconds"] == 1200
    assert value["prices"] == {
        "source": "p3.16xlarge, of the plan, as if they never changed",
        "on_demand_price_usd": "24.480000",
    }


def test_on_a_type_planned_in_place_of_the_first_listed_the_work_takes_as_long_as_the_plan_says(
    simulate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    types = "{any_of: [{instance_type: p3.16xlarge}, {instance_type: p4d.24xlarge}]}"
    Path("tiny.yaml").write_text(FILE.replace("{instance_type: p3.16xlarge}", types))
    there = [offer(zone, instance_type="p4d.24xlarge", on_demand=21_957_600) for zone in ("us-east-1a", "us-east-1b")]
    plan_offers(monkeypatch, *there, offer("us-east-1c"))
    value = json.loads(simulate("--json", "--policy", "on-demand", "--cloud", "sandbox", prices=()).stdout)
    assert value["prices"]["source"].startswith("p4d.24xlarge")
    assert value["job"]["work_seconds"] == round(1200 * (relative_hours("p4d.24xlarge", "p3.16xlarge") or 0)) < 1200


def test_a_deadline_too_early_for_the_type_planned_is_noted(simulate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    types = "{any_of: [{instance_type: p4d.24xlarge}, {instance_type: p3.16xlarge}]}"
    Path("tiny.yaml").write_text(FILE.replace("{instance_type: p3.16xlarge}", types))
    plan_offers(monkeypatch, offer("us-east-1a"), offer("us-east-1b"))
    note = "the deadline is before on-demand could be done"
    assert note in simulate("--deadline", "25m", "--cloud", "sandbox", prices=()).stdout
    assert note not in simulate("--deadline", "2h", "--cloud", "sandbox", prices=()).stdout


def test_zones_the_plan_has_no_price_of_are_refused(simulate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plan_offers(monkeypatch, offer("us-east-1a"), offer("us-east-1b", lifecycle="on-demand"))
    result = simulate("--cloud", "sandbox", prices=())
    assert result.exit_code == 2
    assert "no spot price of p3.16xlarge in us-east-1b; give --spot-price and --on-demand-price" in result.stderr


def test_where_no_cloud_can_be_asked_for_prices_the_way_without_one_is_told(simulate: Any, run_orch: Orch) -> None:
    run_orch.cloud.up = []
    result = simulate(prices=())
    assert result.exit_code == 4
    assert "hint: give --spot-price and --on-demand-price, and no cloud is asked; or: " in result.stderr


def test_all_faults_of_files_and_options_are_told_at_once(simulate: Any) -> None:
    write_trace("eu-west-1a_x.json", [1, -2, "three", True, 2.5], gap=0)
    write_trace("eu-west-1b_x.json", [])
    Path("eu-west-1c_x.json").write_text("{")
    Path("list_x.json").write_text("[]")
    more = [f"--trace={name}" for name in ("eu-west-1a_x.json", "eu-west-1b_x.json", "eu-west-1c_x.json", "none.json")]
    result = simulate(
        *more, "--trace=list_x.json", "--trace=_.json", "--boot=soon", "--deadline=5m", "--min-nodes=9",
        "--policy=elastic",
        "--policy=auto", "--spot-price=x", "--spot-price=mars=1", "--on-demand-price=free", "--price-gap=5m",
    )  # fmt: skip
    assert result.exit_code == 2
    for fault in (
        "eu-west-1a_x.json: metadata.gap_seconds must be",
        "eu-west-1a_x.json: data[1] must be a number of nodes, not -2",
        "eu-west-1a_x.json: data[2] must be a number of nodes, not 'three'",
        "eu-west-1a_x.json: data[3] must be a number of nodes, not True",
        "eu-west-1a_x.json: data[4] must be a number of nodes, not '2.5'",
        "eu-west-1b_x.json: data must be a list",
        "eu-west-1c_x.json: is not JSON",
        "none.json: cannot be read",
        "list_x.json: metadata.gap_seconds must be",
        "_.json: its name does not begin with a zone; write ZONE=_.json",
        "--boot: 'soon' is not a duration",
        "--deadline is before on-demand could be done, 20m00s after the start",
        "--min-nodes 9 is more than the 4 nodes",
        "--spot-price must be DOLLARS or ZONE=DOLLARS, not 'x'",
        "--spot-price mars=1: there is no trace of mars",
        "--on-demand-price must be an amount of dollars, not 'free'",
        "--price-gap needs --prices",
    ):
        assert f"\n  {fault}" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("--set", "expected_duration=null"), "the experiment has no expected_duration"),
        (("--nodes", "8"), "no trace ever has 8 nodes, 4 at most; give --nodes 4"),
        (("--horizon", "13h"), "the traces last 12h00m"),
        (("--horizon", "1h", "--deadline", "2h"), "--horizon ends before --deadline"),
        (("--policy", "auto"), "--policy auto needs --deadline"),
        (("--efficiency", "nan"), "--efficiency and --no-notice-share must be numbers"),
        (("--trace", "us-east-1a=us-east-1b_v100_1.json"), "zone us-east-1a has several traces"),
        (("--trace", "us-east-1c_fine.json"), "all traces need the same metadata.gap_seconds"),
        (("--trace", "empty"), "empty: no file in this folder ends in .json or .json.gz"),
    ],
)
def test_what_does_not_fit_together_is_refused(simulate: Any, arguments: tuple[str, ...], fault: str) -> None:
    write_trace("us-east-1c_fine.json", [4] * 800, gap=60)
    Path("empty").mkdir()
    result = simulate(*arguments)
    assert result.exit_code == 2
    assert fault in result.stderr


def test_of_very_many_faults_the_first_are_told_and_the_rest_counted(simulate: Any) -> None:
    write_trace("us-east-1c_x.json", ["x"] * 500)
    stderr = simulate("--trace", "us-east-1c_x.json").stderr
    assert stderr.count("must be a number of nodes") == 10
    assert "us-east-1c_x.json: 490 more like it" in stderr


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ({"us-east-1a": 1}, "no spot price of us-east-1b; give --spot-price us-east-1b=DOLLARS"),
        ({"us-east-1a": 1, "us-east-1b": [1, None, -1]}, "p.json: us-east-1b[2] must be dollars per hour, not -1"),
        (
            {"us-east-1a": 1, "us-east-1b": [1, 2]},
            "p.json: prices of us-east-1b last 10m00s, the traces 12h00m; give more of them, or",
        ),
        ([], "p.json: must be an object that maps zones to prices"),
    ],
)
def test_prices_that_cannot_be_used_are_refused(simulate: Any, content: object, fault: str) -> None:
    Path("p.json").write_text(json.dumps(content))
    result = simulate(prices=("--prices", "p.json", "--on-demand-price", "24"))
    assert result.exit_code == 2
    assert f"\n  {fault}" in result.stderr


def test_prices_need_an_on_demand_price_to_be_compared_with(simulate: Any) -> None:
    assert "--on-demand-price is missing" in simulate(prices=("--spot-price", "1")).stderr
    assert "--on-demand-price needs --prices or --spot-price" in simulate(prices=("--on-demand-price", "24")).stderr
