"""Recipes of machine images: what a file says, what makes two of them one, and when an image is taken."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.core.actions import End, Terminate
from orchestrator.core.beacon import Beacon
from orchestrator.core.facts import Facts, Instance, Node
from orchestrator.core.images import Image, is_finished, newest, next_step
from orchestrator.core.ledger import Entry, Verdict
from orchestrator.core.parse import Fault, Origin
from orchestrator.core.recipe import Recipe, Step, load, script
from orchestrator.errors import BadInput
from tests.core.worlds import T0, at

FILE = """\
name: tiny
base: ami-1
build_on: {instance_type: m5.large, disk_size: 40}
check_on: {any_of: [{instance_type: p3dn.24xlarge}], disk_size: 10}
steps:
  - {name: tool, run: "echo it's done"}
checks:
  - {name: tool, run: "true"}
profiles:
  sandbox:
    device: cpu
    check_on: {instance_type: m5.large}
    checks: [{name: other, run: "false"}]
"""
IMAGE = Image("ami-1", "tiny", "d1", "available", T0, ("snap-1",), 8, "ami-tiny-20261120-120000-abcd")


def recipe(profile: str | None = None, text: str = FILE) -> Recipe:
    return load(text, "tiny.yaml", profile)


def test_a_recipe_is_two_runs_of_one_node() -> None:
    build, check = recipe().build("ami-1"), recipe().check("ami-2")
    assert (build.name, build.device, build.resources.image, build.resources.disk_size) == (
        "ami-tiny",
        "cpu",
        "ami-1",
        40,
    )
    assert (check.name, check.device, check.resources.image) == ("ami-tiny-check", "cuda", "ami-2")
    assert check.resources.disk_size == 40, "EC2 refuses a volume smaller than the snapshot it is made of"
    assert (build.num_nodes, check.num_nodes, build.retries, check.retries) == (1, 1, 0, 0)


def test_a_profile_is_laid_over_a_recipe_and_another_is_not() -> None:
    laid = recipe("sandbox")
    assert laid.check("ami-2").device == "cpu"
    assert [option.instance_type for option in laid.check("ami-2").resources.any_of] == ["m5.large"]
    assert [step.name for step in laid.checks] == ["other"]
    assert [step.name for step in recipe("aws").checks] == ["tool"]


def test_every_fault_is_told_with_its_line() -> None:
    text = (
        FILE.replace("base: ami-1", "bas: ami-1").replace('run: "true"', "rum: x").replace("40}", "40, image: ami-3}")
    )
    with pytest.raises(BadInput) as caught:
        recipe(text=text)
    assert [line.partition(" (")[0] for line in caught.value.details] == [
        "base: missing: the image to begin with, such as ssm:NAME",
        "bas: unknown key; did you mean base?",
        "build_on: has no image of its own: the image is what `base` says, and what is built",
        "checks[0].run: missing: the shell commands of the step",
        "checks[0].rum: unknown key; did you mean run?",
    ]
    assert caught.value.hint == "docs/images.md lists every key of a recipe"


@pytest.mark.parametrize("text", ["\x00\x01 a tar", "- a list\n", "a" * 300_000])
def test_what_is_no_recipe_at_all_is_told_where_recipes_are_described(text: str) -> None:
    with pytest.raises(BadInput, match="fault") as caught:
        recipe(text=text)
    assert caught.value.hint == "docs/images.md lists every key of a recipe"
    assert "experiment file" not in str(caught.value.details)


def test_what_is_wrong_with_a_flag_is_told_with_the_faults_of_the_file_and_refused_without_any() -> None:
    flag = Fault(("max_cost",), "must be an amount of dollars", Origin(layer="--max-cost"))
    for text, faults in ((FILE, 1), (FILE.replace("base: ami-1", "base: foo bar"), 2)):
        with pytest.raises(BadInput, match=f"tiny.yaml: {faults} fault") as caught:
            load(text, "tiny.yaml", None, [flag])
        assert "max_cost: must be an amount of dollars (--max-cost)" in caught.value.details


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("checks:\n  - {name: tool, run: \"true\"}\n", "", "checks: missing: there must be at least one"),
        ('run: "echo it\'s done"', 'run: " "', "steps[0].run: is blank"),
        ("{name: tool, run: \"true\"}", "{run: \"true\"}", "checks[0].name: missing: what the step is called"),
        ("name: tiny", "name: " + "x" * 31, "name: must have 30 characters at most"),
        ("base: ami-1", "base: ami-1\nbootstrap: " + "x" * 401, "bootstrap: must be ASCII, 250 characters"),
        ("{name: tool, run: \"true\"}", "{name: a, run: b}\n  - {name: a, run: b}", "checks: a is there twice"),
        ("[{instance_type: p3dn.24xlarge}]", "[{instance_type: m5.large}]", "device: cuda needs a GPU, and m5.large"),
        ("base: ami-1", "base: foo bar", "base: must be an AMI id, ssm:NAME or the name of an image (no blanks)"),
        ("base: ami-1", "base: ami-latest", "base: must be an AMI id"),
        ("base: ami-1", "base: 'ssm:/aws/the newest'", "base: must be an AMI id"),
        ("base: ami-1", "base: [ami-1]", "base: must be text, not a list"),
        ("    device: cpu\n", "    device: tpu\n", "profiles.sandbox.device: must be cuda or cpu, not 'tpu'"),
        ("    device: cpu\n", "    devise: cpu\n", "profiles.sandbox.devise: unknown key; did you mean device?"),
        ("    device: cpu\n", "    profiles: {}\n", "profiles.sandbox.profiles: a profile has no profiles"),
        ("profiles:\n  sandbox:\n", "profiles:\n  sandbox: 5\n  other:\n", "profiles.sandbox: must be a mapping"),
    ],
)  # fmt: skip
def test_a_recipe_that_could_not_work_is_refused(old: str, new: str, said: str) -> None:
    assert old in FILE
    with pytest.raises(BadInput) as caught:
        recipe(text=FILE.replace(old, new))
    assert any(line.startswith(said) for line in caught.value.details), caught.value.details


def test_what_a_profile_hides_is_wrong_all_the_same_and_what_it_gives_is_not_missing() -> None:
    hidden = FILE.replace("ami-1", "foo bar").replace("    device: cpu\n", "    device: cpu\n    base: ami-2\n")
    with pytest.raises(BadInput) as caught:
        recipe("sandbox", hidden)
    assert [line.partition(", ssm")[0] for line in caught.value.details] == ["base: must be an AMI id"]
    assert recipe("sandbox", hidden.replace("base: foo bar\n", "")).base == "ami-2"


def test_the_digest_is_that_of_what_ends_up_in_the_image() -> None:
    same = recipe().digest("ami-1")
    assert recipe(text=FILE.replace("p3dn.24xlarge", "p4d.24xlarge")).digest("ami-1") == same
    others = [
        recipe().digest("ami-2"),
        recipe("sandbox").digest("ami-1"),
        recipe(text=FILE.replace("done", "DONE")).digest("ami-1"),
        recipe(text=FILE.replace("disk_size: 40", "disk_size: 50")).digest("ami-1"),
        recipe(text=FILE + "bootstrap: echo\n").digest("ami-1"),
    ]
    assert len({same, *others}) == 6


def test_the_script_says_where_it_is_and_ends_with_the_first_step_that_fails(tmp_path: Path) -> None:
    steps = [
        Step(name="first", run='echo "it\'s $((1 + 1))"\ncat'),
        Step(name="second", run="false | true\necho unreached"),
        Step(name="third", run="echo unreached"),
    ]
    progress = tmp_path / "progress.jsonl"
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", script(steps)],
        env=os.environ | {"ORCH_PROGRESS_FILE": str(progress)},
        input="what a step must not read",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == "orch: step 1 of 3: first\nit's 2\norch: step 2 of 3: second\n"
    lines = [json.loads(line) for line in progress.read_text().splitlines()]
    assert [(line["step"], line["steps"], line["name"]) for line in lines] == [(1, 3, "first"), (2, 3, "second")]


def test_the_newest_available_image_of_the_same_content_serves() -> None:
    older = replace(IMAGE, image_id="ami-0", created=at(-60))
    found = [older, IMAGE, replace(IMAGE, image_id="ami-9", created=at(9), state="pending")]
    assert newest(found, "tiny", "d1") == IMAGE
    assert newest(found, "tiny", "d2") is None
    assert newest(found, "other", "d1") is None


def machine(*, synced: bool, state: str = "running") -> Facts:
    beacon = Beacon("i-1", 0, 1, 1, "boot", "now", "exited", exit_code=0, synced=synced)
    item = Instance("i-1", "m5.large", "us-east-1a", "spot", state, T0)  # type: ignore[arg-type]
    return Facts(server_time=T0, instances=(item,), nodes={"i-1": Node(beacon=beacon)})


def test_an_image_is_taken_once_of_a_machine_whose_logs_are_safe() -> None:
    assert next_step(machine(synced=False), "image", None) == "wait"
    assert next_step(machine(synced=True), "image", None) == "take"
    assert next_step(machine(synced=True), "image", ("ami-1", "pending")) == "wait"
    assert next_step(machine(synced=True), "image", ("ami-1", "available")) == "done"
    assert next_step(machine(synced=True), "snapshot", ("snap-1", "completed")) == "done"
    gone = next_step(machine(synced=True, state="terminated"), "image", None)
    failed = next_step(machine(synced=True), "image", ("ami-1", "failed"))
    assert isinstance(gone, Verdict)
    assert isinstance(failed, Verdict)
    assert (gone.kind, failed.kind) == ("failed", "failed")
    assert "ami-1 is failed" in failed.message


def test_a_wish_to_stop_counts_until_the_image_is_whole() -> None:
    wish = Entry(1, T0, 0, "you", "wish", "stop", {"reason": "stopped by the user"})
    cap = Entry(1, T0, 0, "you", "wish", "stop", {"reason": "max_cost of $1.00 is near", "cap": True})
    for made in (None, ("ami-1", "pending")):
        stopped = next_step(machine(synced=True), "image", made, wish)
        capped = next_step(machine(synced=True), "snapshot", made, cap)
        assert isinstance(stopped, Verdict)
        assert isinstance(capped, Verdict)
        assert (stopped.kind, stopped.message) == ("stopped", "stopped by the user: no image was made")
        assert (capped.kind, capped.message) == ("capped", "max_cost of $1.00 is near: no snapshot was made")
    assert next_step(machine(synced=True), "image", ("ami-1", "available"), wish) == "done"


def test_only_a_run_that_finished_becomes_an_image() -> None:
    assert is_finished([End(Verdict("finished", "done"))])
    assert not is_finished([End(Verdict("failed", "no")), Terminate(("i-1",), "failed")])
