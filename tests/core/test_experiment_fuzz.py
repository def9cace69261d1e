"""Experiments from generated input: what is written is read back, and junk is refused, never a crash."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.experiment import Experiment
from orchestrator.core.overrides import changes, explain, load, profile_names
from orchestrator.core.units import parse_duration
from orchestrator.errors import BadInput

TYPES = ("p3.2xlarge", "p3.16xlarge", "p4d.24xlarge", "g5.48xlarge")
names = st.from_regex(r"[a-z][a-z0-9-]{0,39}", fullmatch=True)
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
script = text.filter(lambda value: bool(value.strip()))
durations = st.integers(1, 90 * 86_400)
# The prefix keeps generated names away from those that torchrun or the shell owns.
env_names = st.from_regex(r"X[A-Za-z0-9_]{0,12}", fullmatch=True)
data_sets = st.fixed_dictionaries(
    {
        "source": st.from_regex(r"s3://[a-z0-9]{3,20}(/[a-z0-9_.=]{1,8})?", fullmatch=True).filter(
            lambda s: "/.." not in s
        )
    },
    optional={"mode": st.sampled_from(["stage", "ebs", "auto"]), "wait": st.sampled_from(["first", "all"])},
)
overlays = st.fixed_dictionaries(
    {},
    optional={
        "num_nodes": st.integers(1, 512),
        "device": st.sampled_from(["cpu", "cuda"]),
        "envs": st.dictionaries(env_names, text | st.integers(-9, 9) | st.booleans() | st.none(), max_size=3),
        "resources": st.fixed_dictionaries({"disk_size": st.integers(8, 16_384)}),
    },
)
experiments = st.fixed_dictionaries(
    {
        "name": names,
        "resources": st.fixed_dictionaries(
            {
                "any_of": st.lists(
                    st.sampled_from(TYPES).map(lambda kind: {"instance_type": kind}),
                    min_size=1,
                    max_size=4,
                    unique_by=str,
                )
            },
            optional={"use_spot": st.booleans(), "disk_size": st.integers(8, 16_384), "image": st.just("ssm:/a/b")},
        ),
        "run": script,
    },
    optional={
        "num_nodes": st.integers(1, 512)
        | st.tuples(st.integers(1, 512), st.integers(1, 512)).map(lambda pair: f"{min(pair)}..{max(pair)}"),
        "capacity_wait": durations,
        "device": st.sampled_from(["cpu", "cuda"]),
        "procs_per_node": st.none() | st.integers(1, 256),
        "data": st.dictionaries(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,8}", fullmatch=True), data_sets, max_size=3),
        "workdir": st.sampled_from([".", "code", "../code"]),
        "envs": st.dictionaries(env_names, text | st.integers() | st.booleans(), max_size=4),
        "secrets": st.lists(st.from_regex(r"Y[A-Z]{1,8}", fullmatch=True), max_size=3, unique=True),
        "setup": text,
        "max_duration": durations,
        "max_cost": st.decimals("0.01", "10000000", places=6).map(str) | st.integers(1, 10_000_000),
        "spot_policy": st.sampled_from(["spot", "on-demand", "auto"]),
        "expected_duration": durations,
        "profiles": st.dictionaries(names, overlays, max_size=2),
    },
)
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


class Quoted(yaml.SafeDumper):
    """Quotes all text, since YAML 1.1 (which it writes) and 1.2 (which is read) differ in what looks like a number."""


Quoted.add_representer(str, lambda dumper, value: dumper.represent_scalar("tag:yaml.org,2002:str", value, style='"'))


def render(tree: Any) -> str:
    return str(yaml.dump(tree, Dumper=Quoted, sort_keys=False))


def loads_or_is_refused(content: str | bytes, **how: Any) -> Experiment | None:
    try:
        return load(content, "f.yaml", **how)
    except BadInput as error:
        assert error.details
        assert all("\n" not in line for line in error.details)
        return None


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(place for key, item in inner for place in places(item, (*path, key)))]


def replaced(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    copy[path[0]] = replaced(copy[path[0]], path[1:], value)
    return copy


@given(experiments)
@settings(deadline=None, max_examples=150)
def test_what_is_rendered_is_parsed_back_the_same(tree: dict[str, Any]) -> None:
    experiment = load(render(tree), "f")
    stored = json.dumps(experiment.to_json())
    assert Experiment.from_json(json.loads(stored)) == experiment
    assert load(render(experiment.to_json()), "f") == experiment
    assert changes(experiment, experiment) == ()


@given(experiments)
@settings(deadline=None, max_examples=60)
def test_each_profile_of_a_valid_file_applies_and_is_explained(tree: dict[str, Any]) -> None:
    content = render(tree)
    for name in profile_names(content, "f"):
        applied = load(content, "f", profile=name)
        changed = {change.key for change in explain(content, "f", name)}
        assert (applied == load(content, "f")) == (not changed)


@given(experiments, st.data(), junk)
@settings(deadline=None, max_examples=250)
def test_a_valid_file_with_junk_in_one_place_is_refused_or_means_something(
    tree: dict[str, Any], data: st.DataObject, value: Any
) -> None:
    broken = replaced(tree, data.draw(st.sampled_from(places(tree))), value)
    for content in (json.dumps(broken), yaml.safe_dump(broken)):
        experiment = loads_or_is_refused(content)
        if experiment is not None:
            assert Experiment.from_json(json.loads(json.dumps(experiment.to_json()))) == experiment


@given(st.binary(max_size=200) | st.text(max_size=200) | st.text(" \n\t:-[]{},&*!|>'\"%@`#?\\~a0.x", max_size=80))
@settings(deadline=None, max_examples=400)
def test_any_bytes_or_text_load_or_are_refused(content: str | bytes) -> None:
    loads_or_is_refused(content)


@given(experiments, st.data())
@settings(deadline=None, max_examples=150)
def test_a_file_cut_or_scrambled_anywhere_loads_or_is_refused(tree: dict[str, Any], data: st.DataObject) -> None:
    content = yaml.safe_dump(tree)
    at = data.draw(st.integers(0, len(content)))
    loads_or_is_refused(content[:at] + data.draw(st.text(max_size=5)) + content[at + data.draw(st.integers(0, 3)) :])


@given(
    st.lists(
        st.text(max_size=30)
        | st.tuples(
            st.sampled_from(["run", "envs.A", "resources.any_of[0].instance_type", "data.x", "secrets[0]", "max_cost"]),
            st.text(max_size=20) | junk.map(json.dumps),
        ).map("=".join),
        max_size=3,
    ),
    st.dictionaries(st.sampled_from(["num_nodes", "max_cost", "name", "x", "resources"]), junk, max_size=3),
)
@settings(deadline=None, max_examples=250)
def test_any_set_or_flag_is_laid_over_or_refused(sets: list[str], flags: dict[str, Any]) -> None:
    base = {"name": "a", "resources": {"instance_type": "c5.large"}, "run": "x"}
    loads_or_is_refused(json.dumps(base), sets=sets, flags=flags)


@given(durations)
def test_a_duration_is_stored_without_loss(seconds: int) -> None:
    experiment = Experiment.model_validate(
        {
            "name": "a",
            "resources": {"instance_type": "c5.large"},
            "run": "x",
            "max_duration": timedelta(seconds=seconds),
        }
    )
    assert parse_duration(experiment.to_json()["max_duration"]) == timedelta(seconds=seconds)
