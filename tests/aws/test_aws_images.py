from __future__ import annotations

import pytest

from orchestrator.aws.images import Images
from orchestrator.aws.session import Session
from orchestrator.errors import NotFound
from tests.aws.aws_wire import Wire

KNOWN = "ami-03cf127a"


def own_image(session: Session, name: str, **tags: str) -> str:
    client = session.client("ec2")
    instance = client.run_instances(ImageId=KNOWN, MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"]
    image = client.create_image(InstanceId=instance, Name=name)["ImageId"]
    if tags:
        client.create_tags(Resources=[image], Tags=[{"Key": key, "Value": value} for key, value in tags.items()])
    return str(image)


def test_an_image_id_is_itself_if_it_exists(session: Session) -> None:
    assert Images(session).resolve(KNOWN) == KNOWN


def test_an_image_id_of_another_region_is_not_found(session: Session) -> None:
    with pytest.raises(NotFound, match="no image ami-0123456789abcdef0 in us-east-1") as caught:
        Images(session).resolve("ami-0123456789abcdef0")
    assert "region" in caught.value.hint
    assert "resources" not in caught.value.hint, "the base of a recipe is none of resources.image"


def test_a_parameter_leads_to_its_image(session: Session) -> None:
    session.client("ssm").put_parameter(Name="/team/image", Value=KNOWN, Type="String")
    assert Images(session).resolve("ssm:/team/image") == KNOWN


def test_a_parameter_that_does_not_exist_is_named(session: Session) -> None:
    with pytest.raises(NotFound, match="no SSM parameter /team/nothing"):
        Images(session).resolve("ssm:/team/nothing")


def test_an_image_is_found_by_name_and_by_its_name_tag(session: Session) -> None:
    by_name = own_image(session, "trainer-1")
    by_tag = own_image(session, "anything", Name="trainer-2")
    assert Images(session).resolve("trainer-1") == by_name
    assert Images(session).resolve("trainer-2") == by_tag


def test_a_name_nobody_gave_is_not_found(session: Session) -> None:
    with pytest.raises(NotFound, match="no image named 'trainer-9'"):
        Images(session).resolve("trainer-9")


def test_the_root_device_is_asked_for_once(session: Session, wire: Wire) -> None:
    images = Images(session)
    assert images.root_device(KNOWN) == "/dev/sda1"
    assert images.root_device(KNOWN) == "/dev/sda1"
    assert wire.count("DescribeImages") == 1
