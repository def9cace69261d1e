"""Which clouds there are, and one of them opened: settings, session and bucket. The one place that starts the sandbox.

The order: `--cloud`, then ORCH_CLOUD, then (for a run seen before) the cloud it was launched on, then AWS where there
are credentials, then, for commands that only read, the sandbox where it is up.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.cli.options import CLOUDS
from orchestrator.errors import BadInput, NoPermission, OrchError, Unreachable

if TYPE_CHECKING:
    from orchestrator.aws.s3 import Bucket
    from orchestrator.aws.session import Session
    from orchestrator.core.experiment import Experiment
    from orchestrator.core.settings import Settings
    from orchestrator.run.home import Home

NO_CREDENTIALS = "no AWS credentials were found"
GET_CLOUD = "`aws configure` sets AWS up; `--cloud sandbox` runs everything on this machine, for nothing"


class NoCredentials(NoPermission):
    """There are no AWS credentials at all, as opposed to some that lack a permission."""


@dataclass(frozen=True, slots=True)
class Place:
    """One cloud, opened: `bucket` is where its runs are kept (it need not exist yet)."""

    settings: Settings
    session: Session
    bucket: Bucket

    @property
    def cloud(self) -> str:
        """`aws` or `sandbox`."""
        return self.settings.cloud


def open_home() -> Home:
    """Return the home of this user."""
    from orchestrator.run.home import Home

    return Home.from_environment()


def wanted(home: Home, flag: str | None) -> str | None:
    """Return the cloud that was asked for, by flag, environment, or the sandbox's own exports; None when none was.

    Raises BadInput when ORCH_CLOUD names none.
    """
    name = flag or os.environ.get("ORCH_CLOUD") or None
    if name is not None:
        if name not in CLOUDS:
            raise BadInput(f"ORCH_CLOUD is {name!r}", f"it may be {' or '.join(CLOUDS)}")
        return name
    # A shell that evaluated `orch sandbox env` has credentials and an endpoint, but they are not those of AWS.
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        up = _sandbox(home)
        if up is not None and up.endpoint_url == endpoint:
            return "sandbox"
    return None


def open_place(home: Home, cloud: str) -> Place:
    """Return a cloud, opened. Raises NoPermission without credentials, Unreachable when the sandbox is not up."""
    if cloud == "sandbox":
        settings = _sandbox(home)
        if settings is None:
            raise Unreachable("the sandbox is not up", "`orch sandbox up` starts it; runs of an earlier one are gone")
        return _open(settings)
    return _open_aws(home)


def open_for_launch(home: Home, cloud: str | None, on_progress: Callable[[str], None]) -> Place:
    """Return the cloud to launch on, starting the sandbox when that was asked for. Raises NoPermission."""
    if cloud == "sandbox":
        if _sandbox(home) is None:
            from orchestrator.sandbox import control

            on_progress("starting the sandbox")
            return _open(control.up(home.path, on_progress=on_progress))
        return open_place(home, cloud)
    return _open_aws(home)


def seed_data(home: Home, place: Place, experiment: Experiment, on_progress: Callable[[str], None]) -> None:
    """See that the data sets which every sandbox offers are there; elsewhere data sets are the user's own affair."""
    if place.cloud == "sandbox" and experiment.data:
        from orchestrator.sandbox import datasets

        sources = [item.source for item in experiment.data.values()]
        datasets.ensure(home.path, place.settings, sources, on_progress)


def in_reach(home: Home, flag: str | None) -> tuple[list[Place], list[OrchError]]:
    """Return the clouds that reading commands look at, and why others that were wanted could not be opened.

    One that was asked for is among the latter as well: what is kept on this machine can be read without it.
    """
    name = wanted(home, flag)
    if name is not None:
        try:
            return [open_place(home, name)], []
        except OrchError as error:
            return [], [error]
    places: list[Place] = []
    errors: list[OrchError] = []
    for cloud in CLOUDS:
        try:
            if cloud == "sandbox" and _sandbox(home) is None:
                continue
            places.append(open_place(home, cloud))
        except NoCredentials:
            continue
        except OrchError as error:
            errors.append(error)
    return places, errors


def in_regions(place: Place, regions: Sequence[str]) -> list[Place]:
    """Return one cloud opened in each of `regions`, where its runs are kept in a bucket of the region."""
    from dataclasses import replace

    return [_open(replace(place.settings, region=region)) for region in regions]


def _sandbox(home: Home) -> Settings | None:
    """Return the settings of the sandbox, None when it is not up or this machine cannot have one."""
    if not (home.path / "sandbox").exists():
        return None
    from orchestrator.sandbox import control

    return control.settings(home.path)


def _open_aws(home: Home) -> Place:
    from orchestrator.aws.session import Session
    from orchestrator.cli.config import aws_settings

    settings = aws_settings(home.path, os.environ)
    session = Session(settings)
    if not session.has_credentials():
        raise NoCredentials(NO_CREDENTIALS, GET_CLOUD)
    return _open(settings)


def _open(settings: Settings) -> Place:
    from dataclasses import replace

    from orchestrator.aws.s3 import Bucket
    from orchestrator.aws.session import Session
    from orchestrator.core.ids import bucket_name

    # The region may come from a profile, which only the session reads; bucket and run need its name.
    settings = replace(settings, region=Session(settings).region)
    session = Session(settings)
    name = settings.bucket or bucket_name(session.account(), settings.region)
    return Place(settings, session, Bucket(session, name))
