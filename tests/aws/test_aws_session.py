from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.aws.session import Session
from orchestrator.core.settings import Settings
from orchestrator.errors import NoPermission
from tests.aws.aws_wire import Wire


@pytest.fixture
def real_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller with real credentials, a profile, an endpoint and a proxy of their own."""
    config = tmp_path / "config"
    config.write_text("[default]\nregion = eu-central-1\ns3 =\n  addressing_style = virtual\nretry_mode = legacy\n")
    credentials = tmp_path / "credentials"
    credentials.write_text("[default]\naws_access_key_id = AKIAREAL\naws_secret_access_key = real\n")
    values = {
        "AWS_CONFIG_FILE": str(config),
        "AWS_SHARED_CREDENTIALS_FILE": str(credentials),
        "AWS_ACCESS_KEY_ID": "AKIAREALENV",
        "AWS_SECRET_ACCESS_KEY": "real",
        "AWS_SESSION_TOKEN": "realtoken",
        "AWS_PROFILE": "does-not-exist",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_USE_FIPS_ENDPOINT": "true",
        "HTTP_PROXY": "http://127.0.0.1:1",
        "http_proxy": "http://127.0.0.1:1",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "absent"))
    for name in ("AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_DEFAULT_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def settings(wire: Wire) -> Settings:
    return Settings("sandbox", "us-east-1", wire.endpoint, "AKIASANDBOX", "secret")


@pytest.mark.usefixtures("real_credentials")
def test_with_keys_in_the_settings_nothing_of_the_caller_is_read(wire: Wire) -> None:
    session = Session(settings(wire))
    assert session.account() == "123456789012"
    for client in (session.client("s3"), session.client("ec2"), session.client("sts")):
        assert client.meta.region_name == "us-east-1"
        assert client.meta.endpoint_url == wire.endpoint
        signer = client._request_signer._credentials  # the only place where botocore shows what it signs with
        assert (signer.access_key, signer.token) == ("AKIASANDBOX", None)
    assert session.has_credentials()


@pytest.mark.usefixtures("real_credentials")
def test_a_profile_that_does_not_exist_is_named_where_the_caller_s_own_chain_is_used() -> None:
    with pytest.raises(NoPermission, match="does-not-exist"):
        Session(Settings("aws", "us-east-1")).has_credentials()


@pytest.mark.usefixtures("no_credentials")
def test_without_any_credentials_it_says_so() -> None:
    session = Session(Settings("aws", "us-east-1"))
    assert not session.has_credentials()
    with pytest.raises(NoPermission, match="no AWS credentials were found") as caught:
        session.account()
    assert "sandbox" in caught.value.hint


@pytest.mark.usefixtures("no_credentials")
def test_without_a_region_it_says_so() -> None:
    with pytest.raises(NoPermission, match="no AWS region is set"):
        Session.from_environment().client("s3")


@pytest.mark.usefixtures("no_credentials")
def test_a_node_finds_everything_in_its_environment(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", wire.endpoint)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIANODE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    session = Session.from_environment()
    assert session.region == "us-west-2"
    assert session.account() == "123456789012"
    assert Session.from_environment("eu-west-1").region == "eu-west-1"


def test_the_launch_client_reports_missing_capacity_at_once(session: Session, wire: Wire) -> None:
    wire.fail("RunInstances", "InsufficientInstanceCapacity", status=500, times=1)
    with pytest.raises(Exception, match="InsufficientInstanceCapacity"):
        session.client("launch").run_instances(ImageId="ami-1", MinCount=1, MaxCount=1)
    assert wire.count("RunInstances") == 1


def test_other_clients_repeat_a_call_that_met_a_server_error(session: Session, wire: Wire) -> None:
    wire.fail("DescribeVpcs", "InternalError", status=500)
    assert session.client("ec2").describe_vpcs()["Vpcs"]
    assert wire.count("DescribeVpcs") == 2


def test_threads_share_one_client(wire: Wire) -> None:
    session = Session(settings(wire))
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: id(session.client("sts")), range(16)))
    assert len(set(made)) == 1


def test_prices_are_asked_of_the_region_that_has_the_pricing_api() -> None:
    on_aws = Session(Settings("aws", "eu-west-1", access_key="a", secret_key="b"))
    assert on_aws.client("pricing").meta.region_name == "us-east-1"
    assert on_aws.client("sts").meta.region_name == "eu-west-1"


def test_importing_what_calls_aws_does_not_import_boto3() -> None:
    modules = ("session", "ec2", "s3", "prices", "quotas", "images", "account", "policies")
    code = "import sys; " + "; ".join(f"import orchestrator.aws.{name}" for name in modules)
    code += "; print([m for m in sys.modules if m.startswith(('boto', 's3transfer', 'urllib3'))])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
