"""Machine images on real hosts: built, checked on a boot from the image, published, used again; what failure leaves."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from decimal import Decimal
from typing import Any

import pytest

from orchestrator.sandbox import control
from tests.e2e.leftovers import left, nothing
from tests.e2e.sandbox_world import World, killed_after, running, wait_for

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(900)]

BASE = "ssm:/aws/service/orch-sandbox/host/latest/ami-id"


@pytest.fixture(scope="module")
def world(world: World) -> World:
    control.up(world.home, pending_seconds=0.2, shutting_down_seconds=0.2)
    return world


def recipe(world: World, name: str, **changes: Any) -> str:
    """Write a recipe whose image has a program, a library and what the machine found at its first boot."""
    library = "$(python3 -c 'import sysconfig; print(sysconfig.get_path(\"purelib\"))')"
    program = "printf '#!%s\\nimport answer; print(answer.OF)\\n' \"$(command -v python3)\""
    value = {
        "name": name,
        "base": BASE,
        "bootstrap": 'echo "$(id -un)" >~/first',
        "build_on": {"instance_type": "m5.large", "disk_size": 8},
        "device": "cpu",
        "steps": [
            {"name": "library", "run": f"echo 'OF = \"{name}\"' >{library}/answer.py"},
            {"name": "program", "run": f'at=$(dirname "$(command -v python3)")/answer; {program} >$at; chmod +x $at'},
        ],
        "checks": [
            {"name": "first", "run": "test -s ~/first && test ! -e ~/.ssh/authorized_keys"},
            {"name": "program", "run": f'test "$(answer)" = {name}'},
        ],
    } | changes
    file = world.home / f"{name}.yaml"
    file.write_text(json.dumps(value))
    return str(file)


def build(world: World, file: str, *arguments: str, check: int | None = 0) -> subprocess.CompletedProcess[str]:
    return world.orch("ami", "build", file, "--cloud", "sandbox", "-y", *arguments, check=check)


def images(world: World) -> dict[str, str]:
    """Return the digests of the published images by name."""
    return {item["name"]: item["digest"] for item in world.json("ami", "list")}


def test_an_image_is_built_checked_on_a_real_boot_and_used_again_without_a_builder(world: World) -> None:
    file = recipe(world, "tiny")
    refused = build(world, file, "--max-cost", "0.01", check=2)
    assert "--max-cost: $0.01 is too little: an image is built and checked for $0.02 at the least" in refused.stderr
    assert world.json("status") == []
    # A key pair, a security group and its two rules come before.
    assert killed_after(world, 5, "ami", "build", file, "--cloud", "sandbox", "-y", "--force") == "RunInstances"
    (dead,) = {item["run"] for item in json.loads(world.orch("gc", "--json", check=9).stdout)["orphans"]}
    done = build(world, file, "--json", "--max-cost", "1")
    made = json.loads(done.stdout)
    assert made["built"]
    assert f"{dead} built the same and was killed" in done.stderr
    assert {item["State"]["Name"] for item in world.instances(dead)} == {"terminated"}
    assert "step 2 of 2: program" in done.stderr
    build_run, check_run = made["runs"]
    caps = [Decimal(world.json("status", run)[0]["max_cost_usd"]) for run in (build_run, check_run)]
    assert caps[0] == 1
    paid = Decimal(world.json("cost", build_run)["spot_usd_high"])
    assert caps[1] == 1 - paid < 1, "the check gets what the build left"
    assert left(world) == nothing(images=1, snapshots=1, folders=1)
    assert len(world.instances(build_run)) == len(world.instances(check_run)) == 1
    assert world.instances(check_run)[0]["ImageId"] == made["image"]["image_id"]
    log = b"".join(world.body(key) for key in world.keys(f"runs/{build_run}/logs/0/"))
    assert b"step 2 of 2: program" in log
    assert images(world) == {"tiny": made["image"]["digest"]}
    again = json.loads(build(world, file, "--json").stdout)
    assert (again["built"], again["image"]) == (False, made["image"])
    assert world.json("gc")["orphans"] == []


@pytest.mark.long
def test_a_recipe_that_changed_is_built_anew_and_the_image_before_goes_unless_machines_run_on_it(world: World) -> None:
    file = recipe(world, "tiny")
    first = json.loads(build(world, file, "--force", "--json").stdout)["image"]
    run = world.experiment("user", "sleep 600", num_nodes=1, checkpoint_grace="1s")
    arguments = ("--set", "resources.image=tiny", "--set", "resources.instance_type=m5.large", "--detach", "-y")
    world.orch("launch", "--cloud", "sandbox", *arguments, run)
    user = world.run_id("user")
    wait_for("it runs on the image", lambda: running(world, "user"))
    assert world.instances(user)[0]["ImageId"] == first["image_id"]
    changed = recipe(world, "tiny", bootstrap="echo changed >~/first")
    done = build(world, changed)
    assert f"kept {first['image_id']}" in done.stderr
    listed = world.json("ami", "list")
    assert [item["name"] for item in listed] == ["tiny", "tiny"]
    assert listed[0]["digest"] != listed[1]["digest"]
    refused = world.orch("ami", "rm", "tiny", "-y", "--cloud", "sandbox", check=2)
    assert f"is in use by {user} (i-" in refused.stderr
    world.orch("stop", user, check=None)
    third = json.loads(build(world, recipe(world, "tiny", bootstrap="echo third >~/first"), "--json").stdout)
    assert set(third["removed"]) == {item["image_id"] for item in listed}
    assert left(world) == nothing(images=1, snapshots=1, folders=1)
    world.orch("ami", "rm", "tiny", "-y", "--cloud", "sandbox")
    assert left(world) == nothing()
    assert world.orch("ami", "rm", "tiny", "-y", "--cloud", "sandbox", check=7).stderr


@pytest.mark.long
@pytest.mark.parametrize("what", ["steps", "checks"])
def test_a_step_or_check_that_fails_publishes_nothing_and_leaves_nothing(world: World, what: str) -> None:
    before, others = left(world), images(world)
    failing = [{"name": "fine", "run": "true"}, {"name": "broken", "run": "echo it is broken; false"}]
    done = build(world, recipe(world, "broken", **{what: failing}), check=1)
    assert f"no image was published; {'build' if what == 'steps' else 'check'}: node 0" in done.stderr
    assert "step broken exited with code 1" in done.stderr
    assert "it is broken" in done.stderr
    spent = re.search(r"cost so far: (.*); `orch cost ", done.stderr)
    assert spent is not None
    assert spent[1].count("$") == (1 if what == "steps" else 2), "of the build, and of the check where there was one"
    assert left(world) == before
    assert images(world) == others
    assert world.json("gc")["orphans"] == []


@pytest.mark.long
@pytest.mark.parametrize(("action", "code"), [("CreateImage", 1), ("CreateTags", 4)])
def test_an_account_that_may_not_make_or_publish_images_hears_it_and_is_left_with_nothing(
    world: World, action: str, code: int
) -> None:
    before = left(world)
    world.orch("sandbox", "fault", action, "UnauthorizedOperation")
    done = build(world, recipe(world, "denied"), check=code)
    assert f"AWS refused ec2:{action}" in done.stderr
    assert left(world) == before


@pytest.mark.long
@pytest.mark.parametrize(
    ("what", "number"), [("steps", signal.SIGHUP), ("image", signal.SIGINT), ("checks", signal.SIGTERM)]
)
def test_a_build_that_is_interrupted_ends_its_run_and_leaves_nothing(world: World, what: str, number: int) -> None:
    before = left(world)
    endless = [{"name": "endless", "run": "sleep 600"}]
    file = recipe(world, "endless", **({} if what == "image" else {what: endless}))
    process = world.start("ami", "build", file, "--cloud", "sandbox", "-y")
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if what == "image" and "making an image of" in line:
            wait_for("EC2 has begun it", lambda: left(world)["images"] > before["images"])
            process.send_signal(number)
        if "step 1 of 1: endless" in line:
            if number == signal.SIGHUP:
                break
            if what == "checks" and "interrupted" not in said:  # and just then S3 is silent for a while
                world.orch("sandbox", "fault", "PutObject", "InternalError", "--count", "25")
            process.send_signal(number)
    if number == signal.SIGHUP:
        # The terminal is gone, and says so by the shell and by the kernel.
        process.stdout.close()
        process.send_signal(number)
        time.sleep(1)
        process.send_signal(number)
    else:
        assert "interrupted: ending the run" in said + process.stdout.read()
    assert process.wait() == (141 if number == signal.SIGHUP else 130)
    assert left(world) == before
    assert "endless" not in images(world)


@pytest.mark.long
def test_what_is_asked_of_the_run_of_a_build_holds_for_the_build(world: World) -> None:
    before = left(world)
    # A step that ends well when it is asked to stop: then there is nothing to take an image for.
    steps = [{"name": "obedient", "run": 'until test -e "$ORCH_STOP_FILE" || test -e ~/go; do sleep 0.1; done'}]
    file = recipe(world, "asked", steps=steps, checks=[{"name": "broken", "run": "false"}])
    ends = {"stop": (6, "build: stopped by the user: no image"), "Ctrl-C": (130, "interrupted: no image was made")}
    for what, (code, end) in (ends | {"extend": (1, "check: node 0")}).items():
        process = world.start("ami", "build", file, "--cloud", "sandbox", "-y", "--max-cost", "1")
        assert process.stdout is not None
        said, run = "", ""
        for line in process.stdout:
            said += line
            run = found[1] if (found := re.search("orch attach (ami-asked-2[^`]*)", line)) else run
            if "step 1 of 1: obedient" not in line:
                continue
            if what == "stop":
                world.orch("stop", run, "--cloud", "sandbox")
            elif what == "Ctrl-C" and "interrupted" not in said:
                process.send_signal(signal.SIGINT)
            elif what == "extend":
                world.orch("extend", run, "--max-cost", "2", "--cloud", "sandbox")
                world.orch("exec", run, "--cloud", "sandbox", "--", "touch ~/go")
        assert process.wait() == code
        assert end in said
        assert left(world) == before
        assert world.json("status", run)[0]["phase"] == ("finished" if what == "extend" else "stopped")
    check = world.run_id("ami-asked-check")
    caps = [Decimal(world.json("status", name)[0]["max_cost_usd"]) for name in (run, check)]
    assert caps[0] == 2
    assert caps[1] == 2 - Decimal(world.json("cost", run)["spot_usd_high"])
    assert f"hint: `orch logs {check}" in world.orch("watch", check, check=1).stderr


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_build_killed_after_any_change_leaves_only_what_gc_finds_and_removes(world: World) -> None:
    file = recipe(world, "tiny")
    build(world, file)
    (kept,) = (item for item in world.json("ami", "list") if item["name"] == "tiny")
    names: list[str] = []
    again = ("ami", "build", file, "--cloud", "sandbox", "-y", "--force")
    while name := killed_after(world, len(names) + 1, *again):
        names.append(name)
        world.orch("gc", "--cloud", "sandbox", "-y")
        assert world.json("gc")["orphans"] == []
        published = world.json("ami", "list")
        assert left(world) == nothing(images=len(published), snapshots=len(published), folders=len(published)), names
        # The published image is never at stake, and one whose publication was the last thing to happen is whole.
        assert names.count("CreateTags") or [item["image_id"] for item in published] == [kept["image_id"]]
    assert {"ImportKeyPair", "CreateSecurityGroup", "RunInstances", "CreateImage", "TerminateInstances"} <= set(names)
    assert names.count("RunInstances") == 2, "the builder and the machine of the check"
    assert {"CreateTags", "DeregisterImage", "DeleteSnapshot"} <= set(names)
    assert [item["name"] for item in world.json("ami", "list")] == ["tiny"]


@pytest.mark.long
@pytest.mark.parametrize("name", ["volta", "modern"])
def test_the_recipes_that_come_with_orch_build_on_the_sandbox(world: World, name: str) -> None:
    build(world, name)
    assert name in images(world)
