"""The keys of an experiment: what is taken, what is refused, and in which words."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.core.experiment import Experiment
from orchestrator.core.overrides import load
from orchestrator.core.parse import json_schema
from orchestrator.errors import BadInput, Exit

TINY: dict[str, Any] = {"name": "tiny", "resources": {"instance_type": "p3.16xlarge"}, "run": "hostname; sleep 5"}


def made(**keys: Any) -> Experiment:
    return load(json.dumps(TINY | keys), "tiny.yaml")


def faults(**keys: Any) -> str:
    with pytest.raises(BadInput) as caught:
        made(**keys)
    assert caught.value.exit_code == Exit.BAD_INPUT
    return "\n".join(caught.value.details)


def test_three_keys_are_enough_and_the_rest_has_defaults() -> None:
    tiny = made()
    assert [option.instance_type for option in tiny.resources.any_of] == ["p3.16xlarge"]
    assert (tiny.num_nodes, tiny.device, tiny.procs_per_node, tiny.spot_policy) == (1, "cuda", None, "spot")
    assert (tiny.resources.use_spot, tiny.resources.image, tiny.resources.disk_size) == (True, None, 100)
    assert (tiny.max_duration, tiny.checkpoint_grace) == (timedelta(hours=12), timedelta(minutes=2))
    assert (tiny.max_cost_micro, tiny.expected_duration, tiny.workdir, tiny.setup) == (None, None, None, "")
    assert (dict(tiny.envs), tiny.secrets, dict(tiny.data), dict(tiny.profiles)) == ({}, (), {}, {})


def test_an_experiment_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        made().num_nodes = 2


@pytest.mark.parametrize(
    ("keys", "instance_type", "device", "procs"),
    [
        ({}, "p3.16xlarge", "cuda", 8),
        ({"device": "cpu"}, "p3.16xlarge", "cpu", 1),
        ({"procs_per_node": 3}, "p3.16xlarge", "cuda", 3),
        ({"resources": {"instance_type": "c5.large"}}, "c5.large", "cpu", 1),
        ({"resources": {"instance_type": "x9.large"}, "procs_per_node": 2}, "x9.large", "cuda", 2),
    ],
)
def test_processes_and_device_follow_the_type_unless_given(
    keys: dict[str, Any], instance_type: str, device: str, procs: int
) -> None:
    experiment = made(**keys)
    assert (experiment.device, experiment.procs(instance_type)) == (device, procs)


def test_money_is_exact() -> None:
    assert made(max_cost=60).max_cost_micro == 60_000_000
    text = "name: a\nresources: {instance_type: c5.large}\nrun: x\nmax_cost: 0.1234565\n"
    assert load(text, "f").max_cost == Decimal("0.123456")
    assert load(text, "f").to_json()["max_cost"] == "0.123456"


def test_the_grace_leaves_time_to_train_in_a_short_run() -> None:
    assert made(max_duration="60s").checkpoint_grace == timedelta(seconds=40)
    shortest = made(max_duration="1s")
    assert Experiment.from_json(shortest.to_json()) == shortest
    assert "checkpoint_grace: leaves no time to train" in faults(max_duration="5m", checkpoint_grace="5m")


def test_data_is_mounted_under_its_name_unless_told() -> None:
    data = made(data={"a": {"source": "s3://bucket/x"}, "b": {"source": "s3://bucket", "mount": "sets/b"}}).data
    assert [(item.source, item.mount, item.mode) for item in data.values()] == [
        ("s3://bucket/x", "a", "auto"),
        ("s3://bucket", "sets/b", "auto"),
    ]
    assert {item.wait for item in data.values()} == {"all"}, "a script need not know of phases"


def test_scalars_under_envs_become_text_as_written() -> None:
    text = json.dumps(TINY)[:-1] + ", envs: {A: 1.10, B: no, C: True, D: 007, E: 12:30, F: ''}}"
    assert load(text, "f").envs == {"A": "1.10", "B": "no", "C": "True", "D": "007", "E": "12:30", "F": ""}
    assert Experiment.from_json(TINY | {"envs": {"A": 1, "B": True}}).envs == {"A": "1", "B": "true"}


REFUSED = [
    ({"name": "$(reboot)"}, "name: must be 1 to 40 of a-z"),
    ({"name": "../x"}, "name: must be 1 to 40 of a-z"),
    ({"name": "-x"}, "name: must be 1 to 40 of a-z"),
    ({"name": "a\0b"}, "name: holds a NUL character"),
    ({"name": 5}, "name: must be text, not 5; put it in quotes"),
    ({"num_nodes": 0}, "num_nodes: must be at least 1, not 0"),
    ({"num_nodes": 513}, "num_nodes: must be at most 512, not 513"),
    (
        {"num_nodes": "16..8"},
        "num_nodes: must be a range such as 8..16, the smaller number first, not '16..8'",
    ),
    ({"num_nodes": "8.."}, "num_nodes: must be a range such as 8..16, the smaller number first, not '8..'"),
    ({"num_nodes": "0..8"}, "num_nodes: must be at least 1, not 0"),
    ({"num_nodes": "8..513"}, "num_nodes: must be at most 512, not 513"),
    ({"num_nodes": "8..16", "min_nodes": 4}, "num_nodes: is a range, which says the least already; leave min_nodes"),
    ({"num_nodes": 4, "min_nodes": 5}, "min_nodes: must be at most num_nodes (4), not 5"),
    ({"capacity_wait": "long"}, "capacity_wait: 'long' is not a duration"),
    ({"num_nodes": "16"}, "num_nodes: must be a whole number, not '16'; leave the quotes out"),
    ({"num_nodes": 1.5}, "num_nodes: must be a whole number, not 1.5"),
    ({"num_nodes": True}, "num_nodes: must be a whole number, not true"),
    ({"resources": None}, "resources: missing: what to run on"),
    ({"resources": {}}, "resources.any_of: missing: what to run on"),
    ({"resources": "p3.16xlarge"}, "resources: must be a mapping (key: value), not 'p3.16xlarge'"),
    ({"resources": {"any_of": []}}, "resources.any_of: must list 1 to 32 instance types"),
    ({"resources": {"any_of": ["p3.16xlarge"]}}, "resources.any_of[0]: must be a mapping"),
    ({"resources": {"any_of": [{"instance_type": "c5.large"}] * 2}}, "resources.any_of: c5.large is listed twice"),
    ({"resources": {"instance_type": "big"}}, "resources.instance_type: must be an EC2 type such as p3.16xlarge"),
    (
        {"resources": {"instance_type": "c5.large", "any_of": [{"instance_type": "c5.large"}]}},
        "resources.instance_type: give any_of or instance_type, not both",
    ),
    ({"resources": {"instance_type": "c5.large", "use_spot": "no"}}, "use_spot: must be true or false, not 'no'"),
    ({"resources": {"instance_type": "c5.large", "disk_size": 4}}, "resources.disk_size: must be at least 8, not 4"),
    ({"resources": {"instance_type": "c5.large", "image": "$(x)"}}, "resources.image: must be an AMI id, ssm:NAME"),
    ({"resources": {"instance_type": "c5.large"}, "device": "cuda"}, "device: cuda needs a GPU, and c5.large has none"),
    ({"device": "tpu"}, "device: must be cuda or cpu, not 'tpu'"),
    ({"resources": {"instance_type": "x9.large"}}, "procs_per_node: how many GPUs x9.large has is not known here"),
    ({"procs_per_node": 0}, "procs_per_node: must be at least 1"),
    ({"data": {"x": {}}}, "data.x.source: missing: where the data lies"),
    ({"data": {"x": None}}, "data.x: must be a mapping (key: value), not nothing"),
    ({"data": {"x": {"source": "/tmp"}}}, "data.x.source: must be of the form s3://bucket/prefix"),
    (
        {"data": {"x": {"source": "dataset:Bad"}}},
        "data.x.source: must be of the form s3://bucket/prefix or dataset:NAME[@VERSION]",
    ),
    (
        {"data": {"x": {"source": "dataset:a@xy"}}},
        "dataset:NAME[@VERSION], a version being 4 to 64 digits of 0-9 and a-f",
    ),
    ({"data": {"x": {"source": "s3://b..b/x"}}}, "data.x.source: must be of the form"),
    ({"data": {"x": {"source": "s3://bucket/../x"}}}, "data.x.source: must be of the form"),
    ({"data": {"x": {"source": "s3://bucket/$(x)"}}}, "data.x.source: must be of the form"),
    ({"data": {"x": {"source": "s3://bucket/x", "mount": "/x"}}}, "data.x.mount: must be a relative path"),
    ({"data": {"x": {"source": "s3://bucket/x", "mount": "a/../../x"}}}, "data.x.mount: must be a relative path"),
    ({"data": {"x": {"source": "s3://bucket/x", "mount": "-x"}}}, "data.x.mount: must be a relative path"),
    (
        {"data": {"x": {"source": "s3://bucket/x", "mode": "fsx"}}},
        "data.x.mode: mode fsx is not there yet; use stage or ebs",
    ),
    (
        {"data": {"x": {"source": "s3://bucket/x", "mode": "copy"}}},
        "data.x.mode: must be stage, ebs or auto, not 'copy'",
    ),
    ({"data": {"../x": {"source": "s3://bucket/x"}}}, "data.'../x': must be a name of letters"),
    (
        {"data": {"x": {"source": "s3://bucket/x"}, "y": {"source": "s3://bucket/y", "mount": "x/y"}}},
        "data: two data sets are mounted at x",
    ),
    ({"workdir": "/etc"}, "workdir: must be a folder relative to this file"),
    ({"workdir": "~/code"}, "workdir: must be a folder relative to this file"),
    ({"workdir": "-rf"}, "workdir: must be a folder relative to this file"),
    ({"workdir": "$(x)"}, "workdir: must be a folder relative to this file"),
    ({"workdir": "a\nb"}, "workdir: must be a folder relative to this file"),
    ({"envs": {"ORCH_RUN_ID": "x"}}, "envs.ORCH_RUN_ID: ORCH_RUN_ID is set on every node"),
    ({"envs": {"MASTER_ADDR": "x"}}, "envs.MASTER_ADDR: MASTER_ADDR is set on every node"),
    ({"envs": {"WORLD_SIZE": 1}}, "envs.WORLD_SIZE: WORLD_SIZE is set on every node"),
    ({"envs": {"UID": 1}}, "envs.UID: UID is set on every node"),
    ({"envs": {"a-b": 1}}, "envs.a-b: must be the name of an environment variable"),
    ({"envs": {"A": None}}, "envs.A: has no value; write '' for an empty one"),
    ({"envs": {"A": ["x"]}}, "envs.A: must be text, not a list"),
    ({"envs": {"A": "a\0b"}}, "envs.A: holds a NUL character"),
    ({"envs": {"A": "\ud800"}}, "envs.A: holds half a surrogate pair"),
    ({"envs": {"A": "x" * 40_000}}, "envs.A: is longer than 32768 characters"),
    ({"envs": {"AWS_SECRET_ACCESS_KEY": "x"}}, "AWS_SECRET_ACCESS_KEY is a credential"),
    ({"envs": ["A=1"]}, "envs: must be a mapping (key: value), not a list"),
    ({"secrets": "TOKEN"}, "secrets: must be a list, not 'TOKEN'"),
    ({"secrets": ["A", "A"]}, "secrets: A is given twice"),
    ({"envs": {"A": "1"}, "secrets": ["A"]}, "secrets: A is given twice"),
    ({"run": " \n"}, "run: is blank"),
    ({"run": None}, "run: missing: the command every node runs"),
    ({"max_duration": "soon"}, "max_duration: 'soon' is not a duration such as 90s, 10m, 1h30m or 2d"),
    ({"max_duration": 0}, "max_duration: a duration must be between 1s and 90d"),
    ({"max_duration": 1.5}, "max_duration: must be a duration such as 90s, 10m, 1h30m or 2d, not 1.5"),
    ({"max_cost": 0}, "max_cost: must be from 0.01 to 10000000 dollars, not 0"),
    ({"max_cost": "cheap"}, "max_cost: must be an amount of dollars such as 60 or 12.50"),
    ({"max_cost": ".nan"}, "max_cost: must be an amount of dollars"),
    ({"max_cost": "1e999999999"}, "max_cost: must be from 0.01"),
    ({"spot_policy": "cheap"}, "spot_policy: must be spot, on-demand or auto, not 'cheap'"),
    ({"profiles": {"Bad Name": {}}}, "profiles.'Bad Name': must be 1 to 40 of a-z"),
    ({"profiles": {"x": None}}, "profiles.x: must be a mapping (key: value), not nothing"),
    ({"nodes": 16}, "nodes: unknown key; did you mean num_nodes?"),
    ({"image": "ami-1"}, "image: unknown key; did you mean resources.image?"),
    (
        {"resources": {"instance_type": "c5.large", "max_cost": 3}},
        "resources.max_cost: unknown key; did you mean max_cost, outside of resources?",
    ),
    ({"max_price": 1}, "max_price: unknown key; did you mean max_cost?"),
    ({"zzz": 1}, "zzz: unknown key; the keys here are capacity_wait, checkpoint_grace, data,"),
    (
        {"resources": {"instance_type": "c5.large", "use-spot": True}},
        "resources.use-spot: unknown key; did you mean use_spot?",
    ),
    ({"data": {"x": {"source": "s3://bucket/x", "mont": "x"}}}, "data.x.mont: unknown key; did you mean mount?"),
]


@pytest.mark.parametrize(("keys", "message"), REFUSED, ids=[message[:50] for _, message in REFUSED])
def test_what_cannot_run_is_refused_by_name(keys: dict[str, Any], message: str) -> None:
    assert message in faults(**keys)
    assert all(line.isascii() and line.isprintable() for line in faults(**keys).splitlines())


def test_a_secret_written_where_its_name_belongs_is_not_repeated() -> None:
    assert "hunter2" not in faults(secrets=["WANDB_API_KEY=hunter2"])
    assert "hunter2" not in faults(secrets={"WANDB_API_KEY": "hunter2"})
    assert "hunter2" not in faults(secrets=[{"WANDB_API_KEY": "hunter2"}])


def test_a_range_is_the_most_and_the_least() -> None:
    for varies in (made(num_nodes="8..16"), made(num_nodes=" 8 .. 16 "), made(num_nodes=16, min_nodes=8)):
        assert (varies.num_nodes, varies.min_nodes) == (16, 8)
        assert Experiment.from_json(json.loads(json.dumps(varies.to_json()))) == varies
    assert made(num_nodes=4).min_nodes is None


def test_variables_that_are_nobodys_are_free() -> None:
    assert made(envs={"LD_PRELOAD": "x.so", "NCCL_DEBUG": "WARN", "PATH": "/x"}).envs["LD_PRELOAD"] == "x.so"


def test_the_stored_form_is_read_back_and_anything_else_is_a_value_error() -> None:
    experiment = made(max_cost="12.50", max_duration="1h30m", envs={"A": 1}, data={"x": {"source": "s3://bucket/x"}})
    stored = json.loads(json.dumps(experiment.to_json()))
    assert Experiment.from_json(stored) == experiment
    assert (stored["max_duration"], stored["max_cost"], stored["checkpoint_grace"]) == ("1h30m", "12.5", "2m")
    assert stored["resources"]["any_of"] == [{"instance_type": "p3.16xlarge"}]
    junks: tuple[Any, ...] = ({}, [], None, stored | {"x": 1})
    for junk in junks:
        with pytest.raises(ValueError, match="Experiment"):
            Experiment.from_json(junk)


def test_the_schema_describes_every_key() -> None:
    schema = json_schema()
    assert set(schema["properties"]) == set(Experiment.model_fields)
    assert all("description" in key for key in schema["properties"].values())
    assert schema["properties"]["max_duration"]["default"] == "12h"
    assert "profiles" not in schema["$defs"]["Profile"]["properties"]
    assert json.loads(json.dumps(schema)) == schema


def test_the_schema_agrees_with_what_is_accepted() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    checker = jsonschema.Draft202012Validator(json_schema())
    profile = {"device": "cpu", "resources": {"disk_size": 8, "image": None}, "data": {"x": None}, "envs": {"A": None}}
    assert checker.is_valid(TINY | {"profiles": {"sandbox": profile}})
    assert checker.is_valid(TINY | {"num_nodes": "8..16"})
    assert checker.is_valid(made(profiles={"sandbox": profile}).to_json())
    both = {"instance_type": "c5.large", "any_of": [{"instance_type": "c5.large"}]}
    for wrong in (
        {"nodes": 1},
        {"num_nodes": 0},
        {"num_nodes": "8.."},
        {"max_duration": "1x"},
        {"resources": both},
        {"envs": {"ORCH_A": ""}},
    ):
        assert not checker.is_valid(TINY | wrong)
    assert not checker.is_valid(TINY | {"profiles": {"sandbox": {"devic": "cpu"}}})
