"""Which run is meant, and on which cloud."""

from __future__ import annotations

import pytest

from orchestrator.cli.runs import choose, find_run, name_of
from orchestrator.errors import BadInput, NotFound, Unreachable
from orchestrator.run.home import CachedRun
from tests.cli.fake_clouds import Orch
from tests.report.views import running

OLD = "tiny-20261119-120000-aaaa"
NEW = "tiny-20261120-120000-abcd"
OTHER = "tiny-other-20261118-120000-cccc"
ALL = (OLD, NEW, OTHER)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        (None, NEW),
        (OLD, OLD),
        ("tiny", NEW),
        ("tiny-other", OTHER),
        ("tiny-20261119", OLD),
        ("tiny-o", OTHER),
    ],
)
def test_an_id_a_name_a_prefix_or_nothing_mean_one_run(text: str | None, meant: str) -> None:
    assert choose(text, ALL) == meant


def test_an_ambiguous_prefix_lists_the_candidates_newest_first() -> None:
    with pytest.raises(BadInput) as caught:
        choose("tin", ALL)
    assert caught.value.details == (NEW, OLD, OTHER)


def test_many_candidates_are_cut_and_counted() -> None:
    many = [f"run-20261120-1200{second:02d}-abcd" for second in range(30)]
    with pytest.raises(BadInput) as caught:
        choose("run-2026", many)
    assert len(caught.value.details) == 11
    assert caught.value.details[-1] == "and 20 more"


def test_what_does_not_exist_is_not_found() -> None:
    with pytest.raises(NotFound, match="no run 'x'"):
        choose("x", ALL)
    with pytest.raises(NotFound, match="no runs yet"):
        choose(None, ())


def test_a_name_may_hold_digits_and_dashes() -> None:
    assert name_of("a-20261119-120000-1-20261120-120000-abcd") == "a-20261119-120000-1"


def test_the_cloud_of_a_run_seen_before_is_remembered(run_orch: Orch) -> None:
    run_orch.cloud.up = ["aws", "sandbox"]
    run_orch.cloud.add(running())
    run_orch.home.remember(CachedRun(NEW, "sandbox", "tiny", "2026-11-20T12:00:00Z"))
    found = find_run(run_orch.home, NEW, None)
    assert found.open().cloud == "sandbox"


def test_a_run_whose_cloud_is_gone_is_found_but_cannot_be_opened(run_orch: Orch) -> None:
    run_orch.cloud.up = []
    run_orch.home.remember(CachedRun(NEW, "sandbox", "tiny", "2026-11-20T12:00:00Z"))
    found = find_run(run_orch.home, None, None)
    assert found.run_id == NEW
    with pytest.raises(Unreachable, match="sandbox is not up"):
        found.open()


def test_runs_of_others_are_found_by_listing_the_cloud(run_orch: Orch) -> None:
    run_orch.cloud.up = ["aws"]
    run_orch.cloud.add(running(), cloud="aws")
    assert find_run(run_orch.home, "tiny", None).open().cloud == "aws"


def test_a_flag_restricts_the_search(run_orch: Orch) -> None:
    run_orch.cloud.up = ["aws", "sandbox"]
    run_orch.cloud.add(running(), cloud="aws", run_id=NEW)
    run_orch.cloud.add(running(), cloud="sandbox", run_id=OLD)
    assert find_run(run_orch.home, None, None).run_id == NEW
    assert find_run(run_orch.home, None, "sandbox").run_id == OLD
