"""Machine images by what people call them: an AMI id, an SSM parameter, or a name. Reads only."""

from __future__ import annotations

from typing import Any

from orchestrator.aws.errors import call, error_code
from orchestrator.aws.session import Session
from orchestrator.errors import NotFound, OrchError

SSM_PREFIX = "ssm:"


class Images:
    """The images of one region. Every method raises NoPermission or Unreachable besides what it says."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._root_devices: dict[str, str] = {}

    def resolve(self, image: str) -> str:
        """Return the id of an available image named as `ami-...`, `ssm:PARAMETER`, or by its name or `Name` tag.

        Of several with one name the newest wins. Raises NotFound.
        """
        if image.startswith(SSM_PREFIX):
            return str(self._described(self._parameter(image.removeprefix(SSM_PREFIX)), image)["ImageId"])
        if image.startswith("ami-"):
            return str(self._described(image, image)["ImageId"])
        owned = [*self._find("name", image), *self._find("tag:Name", image)]
        if not owned:
            raise NotFound(
                f"this account has no image named {image!r} in {self._session.region}",
                "give an AMI id, ssm:PARAMETER, or the name of an image of your own; `orch ami build` makes one",
            )
        return str(max(owned, key=lambda item: item.get("CreationDate", ""))["ImageId"])

    def root_device(self, image_id: str) -> str:
        """Return the name of the image's root device (`/dev/sda1`). Raises NotFound."""
        if image_id not in self._root_devices:
            self._root_devices[image_id] = str(self._described(image_id, image_id)["RootDeviceName"])
        return self._root_devices[image_id]

    def _described(self, image_id: str, asked: str) -> dict[str, Any]:
        client = self._session.client("ec2")
        try:
            found = call("ec2:DescribeImages", lambda: client.describe_images(ImageIds=[image_id]))["Images"]
        except OrchError as error:
            if not error_code(error.__cause__ or error).startswith("InvalidAMIID."):
                raise
            found = []
        if not found or found[0].get("State", "available") != "available":
            raise NotFound(
                f"there is no image {asked} in {self._session.region}",
                "AMI ids differ from region to region; name one of this region",
            )
        first: dict[str, Any] = found[0]
        return first

    def _find(self, name: str, value: str) -> list[dict[str, Any]]:
        client = self._session.client("ec2")
        wanted = [{"Name": name, "Values": [value]}, {"Name": "state", "Values": ["available"]}]
        found: list[dict[str, Any]] = call(
            "ec2:DescribeImages", lambda: client.describe_images(Owners=["self"], Filters=wanted)
        )["Images"]
        return found

    def _parameter(self, name: str) -> str:
        client = self._session.client("ssm")
        try:
            return str(call("ssm:GetParameter", lambda: client.get_parameter(Name=name))["Parameter"]["Value"])
        except NotFound as error:
            raise NotFound(
                f"there is no SSM parameter {name} in {self._session.region}",
                "list AWS's own with `aws ssm get-parameters-by-path --path /aws/service/deeplearning/ami --recursive`",
            ) from error
