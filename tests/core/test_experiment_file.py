"""Experiment files: lines, YAML's own traps, profiles and overrides."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.experiment import Experiment
from orchestrator.core.overrides import explain, load, profile_names
from orchestrator.errors import BadInput

FILE = """\
# A comment.
name: full
num_nodes: 4
resources:
  any_of:
    - instance_type: p3.16xlarge
    - instance_type: p4d.24xlarge
  disk_size: 300
data:
  train: {source: s3://bucket/train}
  valid: {source: s3://bucket/valid}
envs:
  NCCL_DEBUG: WARN
  LR: 0.10
secrets: [TOKEN]
run: |
  torchrun train.py
max_duration: 1h
profiles:
  sandbox:
    device: cpu
    procs_per_node: 1
    resources: {disk_size: 8}
    data: {valid: null}
    envs: {NCCL_DEBUG: null, OMP_NUM_THREADS: 1, RATE: 1.10}
    secrets: []
  small:
    resources: {instance_type: p3.2xlarge}
"""


def faults(text: str | bytes, **how: Any) -> tuple[str, ...]:
    with pytest.raises(BadInput) as caught:
        load(text, "f.yaml", **how)
    count = len(caught.value.details)
    assert caught.value.message == f"f.yaml: {count} fault{'s' if count > 1 else ''}"
    assert caught.value.hint
    return caught.value.details


def types(experiment: Experiment) -> list[str]:
    return [option.instance_type for option in experiment.resources.any_of]


def test_every_fault_is_reported_at_once_with_its_line() -> None:
    text = """\
nam: x
name: $(reboot)
num_nodes: 0
resources:
  any_of:
    - instance_type: p3.16xlarge
    - {instance_typ: p4d.24xlarge}
  accelerators: V100:8
  use_spot: no
max_duration: 12:30
envs:
  A:
"""
    assert faults(text) == (
        "run: missing: the command every node runs (line 1)",
        "nam: unknown key; did you mean name? (line 1)",
        "name: must be 1 to 40 of a-z, 0-9 and '-', beginning with a letter, not '$(reboot)' (line 2)",
        "num_nodes: must be at least 1, not 0 (line 3)",
        "resources.any_of[1].instance_type: missing: an EC2 type such as p3.16xlarge (line 7)",
        "resources.any_of[1].instance_typ: unknown key; did you mean instance_type? (line 7)",
        "resources.accelerators: unknown key; did you mean instance_type? (line 8)",
        "resources.use_spot: must be true or false, not 'no' (line 9)",
        "max_duration: '12:30' is not a duration such as 90s, 10m, 1h30m or 2d (line 10)",
        "envs.A: has no value; write '' for an empty one (line 12)",
    )


def test_a_wrong_entry_does_not_make_its_list_too_short() -> None:
    fault = "must be an EC2 type such as p3.16xlarge, not 'big'"
    listed = "name: a\nrun: x\nresources:\n  any_of:\n  - instance_type: big\n"
    assert faults(listed) == (f"resources.any_of[0].instance_type: {fault} (line 5)",)
    short = "name: a\nrun: x\nresources: {instance_type: big}\n"
    assert faults(short) == (f"resources.instance_type: {fault} (line 3)",)


UNREADABLE: list[tuple[str | bytes, str]] = [
    ("", "yaml: the file is empty (line 1)"),
    ("# only a comment", "yaml: the file is empty (line 1)"),
    ("- a", "file: must be a mapping of keys such as name: imagenet18, not a list (line 1)"),
    ("just text", "file: must be a mapping of keys such as name: imagenet18, not 'just text' (line 1)"),
    ("a:\n\tb: c", "yaml: a tab cannot stand here; YAML is indented with spaces (line 2, column 1)"),
    ("a: [1,", "yaml: expected the node content, but found '<stream end>' (line 1, column 7)"),
    (
        "run: echo a: b",
        "yaml: a second ': ' in one line; quote the value, or put it under | on lines of its own (line 1, column 12)",
    ),
    ("a: 1\n---\nb: 1", "yaml: a second document (---) begins; a file holds one document (line 2, column 1)"),
    ("a: &x 1\nb: *x", "yaml: aliases (*name) are not supported; write it out (line 2, column 4)"),
    ("a: !!python/name:os.system", "yaml: tags (!name) are not supported; quote text instead (line 1, column 4)"),
    ("a: " + "[" * 50, "yaml: nested more than 24 levels deep (line 1, column 27)"),
    ("? [a]\n: b", "yaml: a key must be a word, not a list or a mapping (line 1, column 3)"),
    ("a: 1\nb: \x00", "yaml: the character '\\x00' is not allowed (line 2)"),
    (b"a: 1\nb: \xff", "yaml: byte 0xff is not UTF-8; save the file as UTF-8 (line 2)"),
    ("name: x".encode("utf-16"), "yaml: byte 0xff is not UTF-8; save the file as UTF-8 (line 1)"),
    ('a: 1\nb: "\\U00110000"', "yaml: a number or an escape is out of range (line 2)"),
    (f"%YAML {'9' * 5000}.1\n--- {{}}", "yaml: a number or an escape is out of range (line 1)"),
    ("a" * 300_000, "yaml: larger than 256 KiB; a file of keys names data, it does not hold it (line 1)"),
]


@pytest.mark.parametrize(("text", "fault"), UNREADABLE, ids=[fault[:40] for _, fault in UNREADABLE])
def test_what_is_no_readable_yaml_is_one_fault_with_its_place(text: str | bytes, fault: str) -> None:
    assert faults(text) == (fault,)


def test_a_key_given_twice_is_a_fault_beside_the_others() -> None:
    assert faults(FILE + "name: other\nmax_duration: x\n") == (
        "name: given twice, first in line 2 (line 29)",
        "max_duration: given twice, first in line 18 (line 30)",
    )
    assert faults(FILE.replace("LR: 0.10", "NCCL_DEBUG: x\n  a-b: 1"))[0] == (
        "envs.NCCL_DEBUG: given twice, first in line 13 (line 14)"
    )


def test_a_byte_order_mark_and_windows_lines_do_no_harm() -> None:
    assert load(b"\xef\xbb\xbf" + FILE.replace("\n", "\r\n").encode(), "f") == load(FILE, "f")


def test_a_profile_merges_mappings_replaces_lists_and_deletes_with_null() -> None:
    made = load(FILE, "f", profile="sandbox")
    assert (made.device, made.procs_per_node, made.resources.disk_size, made.secrets) == ("cpu", 1, 8, ())
    assert types(made) == ["p3.16xlarge", "p4d.24xlarge"]
    assert list(made.data) == ["train"]
    assert made.envs == {"LR": "0.10", "OMP_NUM_THREADS": "1", "RATE": "1.10"}
    assert types(load(FILE, "f", profile="small")) == ["p3.2xlarge"]


def test_a_profile_is_kept_as_it_was_written() -> None:
    made = load(FILE.replace("RATE: 1.10", "RATE: 1.10, FLAG: True, NUMBER: -0"), "f")
    variables = {"NCCL_DEBUG": None, "OMP_NUM_THREADS": "1", "RATE": "1.10", "FLAG": "True", "NUMBER": "-0"}
    assert made.profiles["sandbox"]["envs"] == variables
    assert made.profiles["small"] == {"resources": {"instance_type": "p3.2xlarge"}}


def test_a_profile_is_explained_by_the_keys_it_changes() -> None:
    assert [str(change) for change in explain(FILE, "f", "sandbox")] == [
        "resources.disk_size: 300 -> 8",
        "device: cuda -> cpu",
        "procs_per_node: (not set) -> 1",
        "envs.OMP_NUM_THREADS: (not set) -> 1",
        "envs.RATE: (not set) -> 1.10",
        "secrets: [TOKEN] -> []",
        "data.valid.source: s3://bucket/valid -> (not set)",
        "data.valid.mount: valid -> (not set)",
        "data.valid.mode: auto -> (not set)",
        "data.valid.wait: all -> (not set)",
        "envs.NCCL_DEBUG: WARN -> (not set)",
    ]
    assert [str(change) for change in explain(FILE, "f", "small")] == [
        "resources.any_of: [p3.16xlarge, p4d.24xlarge] -> [p3.2xlarge]"
    ]


def test_a_profile_may_hold_what_the_file_alone_lacks() -> None:
    text = "name: a\nresources: {instance_type: c5.large}\nprofiles:\n  sandbox: {run: x}\n"
    assert load(text, "f", profile="sandbox").run == "x"
    changed = {change.key for change in explain(text, "f", "sandbox")}
    assert {"name", "run"} <= changed
    assert not [key for key in changed if key.startswith("profiles")]
    assert faults(text) == ("run: missing: the command every node runs (line 1)",)


def test_faults_of_a_profile_are_found_whether_or_not_it_is_asked_for() -> None:
    text = FILE + "  broken: {devic: cpu, num_nodes: 16..8, run: null, profiles: {}}\n"
    backwards = "must be a range such as 8..16, the smaller number first, not '16..8'"
    nested = "profiles.broken.profiles: a profile has no profiles of its own (line 29)"
    assert set(faults(text)) == {
        "profiles.broken.devic: unknown key; did you mean device? (line 29)",
        f"profiles.broken.num_nodes: {backwards} (line 29)",
        "profiles.broken.run: missing: the command every node runs (line 2)",
        nested,
    }
    assert set(faults(text, profile="broken")) == {
        "devic: unknown key; did you mean device? (profile broken, line 29)",
        f"num_nodes: {backwards} (profile broken, line 29)",
        "run: missing: the command every node runs (line 2)",
        nested,
    }


def test_a_profile_that_contradicts_the_file_is_found_too() -> None:
    text = FILE + "  cheap: {resources: {instance_type: c5.large}, device: cuda}\n"
    fault = "cuda needs a GPU, and c5.large has none; set device: cpu or name another type"
    assert faults(text) == (f"profiles.cheap.device: {fault} (line 29)",)


def test_a_flag_does_not_make_a_profile_wrong_that_is_not_used() -> None:
    text = FILE + "  gpu: {device: cuda}\n"
    assert types(load(text, "f", sets=["resources.instance_type=c5.large", "device=cpu"])) == ["c5.large"]


def test_profiles_are_known_by_name() -> None:
    assert profile_names(FILE, "f") == ("sandbox", "small")
    assert profile_names("a: 1", "f") == ()
    assert faults(FILE, profile="sandbx") == (
        "profiles: there is no profile sandbx; there are: sandbox, small (line 2)",
    )


@pytest.mark.parametrize(
    ("sets", "key", "value"),
    [
        (["num_nodes=2", "num_nodes=3"], "num_nodes", 3),
        (["max_cost=12.50"], "max_cost", "12.5"),
        (["max_duration=90"], "max_duration", "1m30s"),
        (["secrets=[A, B]"], "secrets", ["A", "B"]),
        (["secrets[1]=B"], "secrets", ["TOKEN", "B"]),
        (["secrets[0]=null"], "secrets", []),
        (["envs={A: 1.10}"], "envs", {"A": "1.10"}),
        (["envs.LR=null", "envs.NCCL_DEBUG="], "envs", {"NCCL_DEBUG": ""}),
        (["envs.LR=[1]", "envs.NCCL_DEBUG=1.0"], "envs", {"NCCL_DEBUG": "1.0", "LR": "[1]"}),
        (['name="quoted"'], "name", "quoted"),
        (["run=[ -f x ] && python t.py --lr: 3 # a=b"], "run", "[ -f x ] && python t.py --lr: 3 # a=b"),
        (["setup=pip install x", "setup=null"], "setup", ""),
    ],
)
def test_any_key_can_be_set(sets: Sequence[str], key: str, value: object) -> None:
    assert load(FILE, "f", sets=sets).to_json()[key] == value


def test_lists_are_set_by_index_and_a_single_type_replaces_the_list() -> None:
    assert types(load(FILE, "f", sets=["resources.any_of[0].instance_type=p5.48xlarge"]))[0] == "p5.48xlarge"
    assert types(load(FILE, "f", sets=["resources.any_of[2]={instance_type: p3.2xlarge}"]))[2] == "p3.2xlarge"
    assert types(load(FILE, "f", sets=["resources.any_of[0]=null"])) == ["p4d.24xlarge"]
    assert types(load(FILE, "f", sets=["resources.instance_type=p3.2xlarge"])) == ["p3.2xlarge"]
    short = "name: a\nrun: x\nresources: {instance_type: c5.large}\n"
    assert types(load(short, "f", sets=["resources.any_of=[{instance_type: c5.xlarge}]"])) == ["c5.xlarge"]


def test_what_is_set_makes_what_lies_between() -> None:
    made = load(FILE, "f", sets=["data.new.source=s3://bucket/new"])
    assert made.data["new"].mount == "new"


@pytest.mark.parametrize(
    ("item", "fault"),
    [
        ("num_nodes", "num_nodes: give it as KEY=VALUE, such as resources.disk_size=200 (--set)"),
        ("a b=1", "'a b': is no key; write it as name.name or name[0].name (--set)"),
        ("=1", "'': is no key; write it as name.name or name[0].name (--set)"),
        ("num_node=1", "num_node: unknown key; did you mean num_nodes? (--set)"),
        ("resource.disk_size=1", "resource: unknown key; did you mean resources? (--set)"),
        ("resources.disk=1", "resources.disk: unknown key; did you mean disk_size? (--set)"),
        ("data.train.sorce=1", "data.train.sorce: unknown key; did you mean source? (--set)"),
        ("run.x=1", "run.x: has no keys inside (--set)"),
        ("run[0]=1", "run[0]: run is no list (--set)"),
        ("secrets.x=1", "secrets.x: secrets is a list; write secrets[0] (--set)"),
        ("secrets[5]=A", "secrets[5]: is past the end; [1] adds an entry (--set)"),
        ("num_nodes=[1]", "num_nodes: must be a whole number, not a list (--set)"),
        ("secrets=[A", "secrets: expected ',' or ']', but got '<stream end>' (--set)"),
        ("envs={A: 1, A: 2}", "envs.A: given twice (--set)"),
        ("profiles.sandbox.device=cuda", "profiles: a profile cannot be changed here; set the key itself (--set)"),
        ("num_nodes=many", "num_nodes: must be a whole number, not 'many' (--set)"),
        ("resources=p3.16xlarge", "resources: must be a mapping (key: value), not 'p3.16xlarge' (--set)"),
    ],
)
def test_a_wrong_set_is_a_fault_that_says_so(item: str, fault: str) -> None:
    assert faults(FILE, sets=[item]) == (fault,)


def test_an_index_past_the_end_changes_nothing_else() -> None:
    short = "name: a\nrun: x\nresources: {instance_type: c5.large}\n"
    fault = "resources.any_of[3]: is past the end; [0] adds an entry (--set)"
    assert faults(short, sets=["resources.any_of[3].instance_type=c5.xlarge"]) == (fault,)


def test_faults_of_flags_come_after_those_of_the_file() -> None:
    text = FILE.replace("max_duration: 1h", "max_duration: x")
    assert [line.split(" (")[-1] for line in faults(text, sets=["num_nodes=0", "x=1"])] == [
        "line 18)",
        "--set)",
        "--set)",
    ]


def test_flags_come_last_and_name_themselves() -> None:
    flags = {"num_nodes": 16, "max_cost": None, "max_duration": "2h", "resources.disk_size": 20}
    made = load(FILE, "f", profile="sandbox", sets=["num_nodes=2"], flags=flags)
    assert (made.num_nodes, made.max_cost, made.max_duration) == (16, None, timedelta(hours=2))
    assert made.resources.disk_size == 20
    varies = load(FILE, "f", sets=["num_nodes=2..4"])
    assert (varies.num_nodes, varies.min_nodes) == (4, 2)
    assert faults(FILE, flags={"num_nodes": "0..4"}) == ("num_nodes: must be at least 1, not 0 (--nodes)",)
    assert faults(FILE, flags={"num_nodes": 0, "max_cost": "x"}) == (
        "num_nodes: must be at least 1, not 0 (--nodes)",
        "max_cost: must be an amount of dollars such as 60 or 12.50, not 'x' (--max-cost)",
    )


def test_a_flag_can_mend_what_the_file_lacks() -> None:
    text = FILE.replace("name: full", "").replace("num_nodes: 4", "num_nodes: none")
    assert load(text, "f", sets=["name=given"], flags={"num_nodes": 2}).name == "given"


@pytest.mark.parametrize("path", sorted(Path("orchestrator/experiments").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_experiments_that_ship_are_right_in_every_profile(path: Path) -> None:
    text = path.read_bytes()
    made = load(text, str(path))
    assert made.name == path.stem
    assert {item.wait for item in made.data.values()} == {"first"}, "its trainer waits for what is missing"
    for name in profile_names(text, str(path)):
        assert explain(text, str(path), name)
