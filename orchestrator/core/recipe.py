"""The recipe of a machine image: what it begins with, the steps that change it, the checks it must pass. Pure.

A recipe is carried out as two runs of one node: one does the steps on the base, and an image is taken of it; the other
boots from that image and does the checks. docs/images.md describes the keys to users.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, Strict, field_validator, model_validator

from orchestrator.core.experiment import Experiment, Option, Resources
from orchestrator.core.fields import Duration, Image, Name, Overlay, Text, repeated
from orchestrator.core.overrides import faults_of_profiles, merge
from orchestrator.core.parse import Fault, Node, Path, parse, refusal, validate

HINT = "docs/images.md lists every key of a recipe"
# Runs are called `ami-NAME` and `ami-NAME-check`, and a run's name has 40 characters at most.
LONGEST_NAME = 30
# User-data has 16 KiB, most of which the boot script takes.
LONGEST_BOOTSTRAP = 250
GRACE = timedelta(seconds=5)

_STEP = """\
step() {
  echo "orch: step $1 of $2: $3"
  printf '{"time": %s, "step": %s, "steps": %s, "name": "%s"}\\n' "$EPOCHSECONDS" "$@" >>"$ORCH_PROGRESS_FILE"
}
"""


class _Model(BaseModel):
    """Frozen, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Step(_Model):
    """One thing to do: shell text, run by `bash -eo pipefail`."""

    name: Name
    run: Text

    @field_validator("run")
    @classmethod
    def _does_something(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("is blank; give shell commands")
        return value


class _Keys(_Model):
    """The keys of a recipe, each right by itself."""

    name: Name
    description: Text = ""
    base: Image
    bootstrap: Text = ""
    steps: tuple[Step, ...] = Field((), validate_default=True)
    checks: tuple[Step, ...] = Field((), validate_default=True)
    build_on: Resources
    check_on: Resources | None = None
    device: Literal["cuda", "cpu"] = "cuda"
    procs_per_node: Annotated[int, Strict(), Field(ge=1, le=256)] | None = None
    spot_policy: Literal["spot", "on-demand", "auto"] = "spot"
    max_duration: Duration = timedelta(hours=2)
    profiles: Mapping[Name, Overlay] = {}

    @field_validator("name")
    @classmethod
    def _short(cls, value: str) -> str:
        if len(value) > LONGEST_NAME:
            raise ValueError(f"must have {LONGEST_NAME} characters at most")
        return value

    @field_validator("bootstrap")
    @classmethod
    def _fits(cls, value: str) -> str:
        if len(value) > LONGEST_BOOTSTRAP or not value.isascii():
            raise ValueError(f"must be ASCII, {LONGEST_BOOTSTRAP} characters at most; the rest belongs into steps")
        return value

    @field_validator("steps", "checks")
    @classmethod
    def _some_named_once(cls, value: tuple[Step, ...]) -> tuple[Step, ...]:
        # An image that nothing was done to, or that nobody has tried, is of no use to anybody.
        if not value:
            raise ValueError("missing: there must be at least one {name: ..., run: ...}")
        if twice := repeated([step.name for step in value]):
            raise ValueError(f"{twice} is there twice")
        return value

    @field_validator("build_on", "check_on")
    @classmethod
    def _without_image(cls, value: Resources | None) -> Resources | None:
        if value is not None and value.image is not None:
            raise ValueError("has no image of its own: the image is what `base` says, and what is built")
        return value


class Recipe(_Keys):
    """A machine image to be. `bootstrap` runs as root before anything else: it installs what the node's agent needs."""

    @model_validator(mode="after")
    def _can_be_run(self) -> Recipe:
        self.build("ami-0")
        self.check("ami-0")
        return self

    def digest(self, base: str) -> str:
        """Return what tells one content from another (sha256, hex); `base` is the id of the image to begin with."""
        value = self.model_dump(mode="json", include={"bootstrap", "steps", "checks"})
        value |= {"base": base, "disk_size": self.build_on.disk_size}
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

    def build(self, base: str) -> Experiment:
        """Return the run that does the steps on the image `base`."""
        return Experiment.model_validate(
            self._common(self.build_on, base)
            | {"name": f"ami-{self.name}", "device": "cpu", "procs_per_node": 1, "run": script(self.steps)}
        )

    def check(self, image: str) -> Experiment:
        """Return the run that does the checks on a machine that was booted from `image`."""
        return Experiment.model_validate(
            self._common(self.check_on or self.build_on, image)
            | {
                "name": f"ami-{self.name}-check",
                "device": self.device,
                "procs_per_node": self.procs_per_node,
                "run": script(self.checks),
            }
        )

    def _common(self, resources: Resources, image: str) -> dict[str, object]:
        machine = resources.model_dump(mode="json") | {"image": image}
        # EC2 refuses a root volume that is smaller than the one its image was made of.
        machine["disk_size"] = max(resources.disk_size, self.build_on.disk_size)
        return {
            "resources": machine,
            "max_duration": self.max_duration,
            "spot_policy": self.spot_policy,
            "retries": 0,
            # Nothing is saved that a build could go on from.
            "checkpoint_grace": GRACE,
        }


def script(steps: Sequence[Step]) -> str:
    """Return the shell text that does the steps in order, says where it is, and ends with the first that fails."""
    lines = [_STEP]
    for number, step in enumerate(steps, 1):
        lines.append(f"step {number} {len(steps)} {step.name}\n")
        lines.append(f"bash -eo pipefail -c {shlex.quote(step.run)} </dev/null\n")
    return "".join(lines)


def load(text: str | bytes, source: str, profile: str | None, beside: Sequence[Fault] = ()) -> Recipe:
    """Return the recipe in `text` with the profile laid over it that is called `profile`, if it has one.

    Raises BadInput with every fault, each with its line: of what is laid over as well, of other profiles, and those
    found `beside` it.
    """
    tree, found = parse(text, source, HINT)
    found += beside
    keys = dict(tree.value) if isinstance(tree.value, Mapping) else {}
    overlays = keys.pop("profiles", None)
    overlay = _named(overlays, profile)
    plain_tree = Node(keys, tree.origin)
    recipe = _build(plain_tree if overlay is None else merge(plain_tree, overlay), found)
    found += faults_of_profiles(tree, profile if overlay is not None else None, _build)
    alone: list[Fault] = []
    validate(_Keys, tree, alone, _keys)
    # What the file alone lacks a profile may give.
    found += (fault for fault in alone if not fault.message.startswith("missing: "))
    if recipe is None or found:
        raise refusal(source, found, HINT)
    return recipe


def _build(tree: Node, found: list[Fault]) -> Recipe | None:
    return validate(Recipe, tree, found, _keys)


def _named(overlays: Node | None, profile: str | None) -> Node | None:
    inner = overlays.value if overlays is not None else None
    found = inner.get(profile) if isinstance(inner, Mapping) and profile is not None else None
    return found if found is not None and isinstance(found.value, Mapping) else None


def _keys(path: Path) -> tuple[str, ...] | None:
    match path:
        case ():
            return tuple(Recipe.model_fields)
        case ("build_on",) | ("check_on",):
            return (*(name for name in Resources.model_fields if name != "image"), "instance_type")
        case ("build_on" | "check_on", "any_of", int()):
            return tuple(Option.model_fields)
        case ("steps" | "checks", int()):
            return tuple(Step.model_fields)
    return None
