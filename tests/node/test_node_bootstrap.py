"""User-data: what it says, and what it does on a machine with a metadata service and S3 over HTTP."""

from __future__ import annotations

import email
import hashlib
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from orchestrator.core.contract import NodePaths
from orchestrator.core.ids import Keys, bundle_key
from orchestrator.core.recipe import LONGEST_BOOTSTRAP
from orchestrator.node import boot_script
from orchestrator.node.bootstrap import LIMIT, BootConfig, every_boot, first_boot, user_data
from orchestrator.node.bundle import build_bundle
from tests.node.fake_aws import BUCKET, ROLE, Metadata, s3_client, serve_metadata, serve_s3
from tests.node.node_host import RUN, Host, new_host, wait_for

KEYS = Keys(RUN)
HOST_KEY = "ssh-ed25519 AAAAC3Nz host"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with serve_s3() as made:
        yield made


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    with serve_metadata() as made:
        yield made


@pytest.fixture
def host(endpoint: str, metadata: Metadata) -> Iterator[Host]:
    with new_host() as made:
        keys = made.home / "etc"
        keys.mkdir()
        (keys / "ssh_host_ed25519_key.pub").write_text(HOST_KEY + "\n")
        (keys / "ssh_host_ed25519_key").write_text("private")
        made.env |= {
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata.endpoint,
            "AWS_ENDPOINT_URL": endpoint,
            "SSH_HOST_KEY_DIR": str(keys),
        }
        yield made


@pytest.fixture
def s3(endpoint: str) -> Iterator[Any]:
    client = s3_client(endpoint)
    yield client
    for item in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        client.delete_object(Bucket=BUCKET, Key=item["Key"])


def user() -> str:
    return subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()


def boot_config(bundle: str, **changes: Any) -> BootConfig:
    values: dict[str, Any] = {
        "run": RUN,
        "bucket": BUCKET,
        "region": "us-east-1",
        "ssh_user": user(),
        "timer": timedelta(minutes=90),
    }
    values["deadline"] = datetime(2030, 1, 1, tzinfo=UTC)
    return BootConfig(bundle=bundle, **{**values, **changes})


def with_bundle(s3: Any) -> str:
    bundle = build_bundle(None, builtin=False)
    s3.put_object(Bucket=BUCKET, Key=bundle_key(bundle.digest), Body=bundle.read())
    return bundle.digest


def boot(host: Host, text: str, timeout: float = 40.0) -> subprocess.CompletedProcess[str]:
    file = host.home / "user-data"
    file.write_text(text)
    file.chmod(0o755)
    return subprocess.run(
        [str(file)], env=host.env, cwd="/", capture_output=True, text=True, check=False, timeout=timeout
    )


def read(s3: Any, key: str) -> bytes:
    return bytes(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())


def test_the_dead_man_timer_is_the_first_thing_that_happens_and_rounds_up() -> None:
    text = first_boot(boot_config("0" * 64, timer=timedelta(minutes=89, seconds=1)))
    commands = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert commands[0].startswith("shutdown -P +90 ||")


def test_user_data_is_small_and_holds_nothing_but_what_it_needs() -> None:
    longest = {"run": f"{'a' * 40}-20260101-000000-abcd", "bucket": "b" * 63, "ssh_user": "u" * 32}
    prelude = "x" * LONGEST_BOOTSTRAP
    for more in ({"stages_data": True}, {"prelude": prelude}):  # a run has one or the other
        assert len(user_data(boot_config("0" * 64, **more, **longest))) * 4 / 3 < LIMIT
    text = user_data(boot_config("0" * 64, stages_data=True))
    found = re.findall(r"main\((.*)\)", text)[-1]
    assert found == repr({"run": RUN, "bucket": BUCKET, "region": "us-east-1", "bundle": "0" * 64, "minutes": "90"})
    assert not re.search(r"AKIA|BEGIN|PRIVATE", text)


def test_user_data_is_a_multipart_of_a_script_for_every_boot_and_one_for_the_first() -> None:
    made = boot_config("0" * 64)
    assert user_data(made) == user_data(made)
    message = email.message_from_string(user_data(made))
    assert "mime-version:" in user_data(made)[:200].lower(), "by which cloud-init knows it"
    parts = [(part.get_content_type(), part.get_payload(decode=True)) for part in message.walk()][1:]
    assert parts == [
        ("text/x-shellscript-per-boot", every_boot(made).encode()),
        ("text/x-shellscript", first_boot(made).encode()),
    ]


@pytest.mark.parametrize(
    ("left", "armed"),
    [
        (timedelta(minutes=29, seconds=30), "+30"), (timedelta(days=400), "+90"), (timedelta(seconds=30), "+1"),
        (timedelta(seconds=-1), "+0"), (timedelta(days=-400), "+0"),
    ],
)  # fmt: skip
def test_a_later_boot_arms_what_is_left_and_never_more_than_the_first_did(
    host: Host, left: timedelta, armed: str
) -> None:
    done = boot(host, every_boot(boot_config("0" * 64, deadline=datetime.now(UTC) + left)))
    assert done.stderr == ""
    assert host.called() == [f"shutdown -P {armed}"]


def test_a_machine_made_from_an_image_of_a_node_is_left_alone(host: Host) -> None:
    text = every_boot(boot_config("0" * 64))
    boot(host, text)
    boot(host, text)
    assert len(host.called()) == 2
    (host.home / "user-data.of").write_text("i-another-machine\n")
    boot(host, text)
    assert len(host.called()) == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("run", "x; rm -rf /"), ("bucket", "a'b"), ("region", "$(id)"), ("bundle", "12"), ("ssh_user", "-o x"),
        ("timer", timedelta()), ("deadline", datetime(2030, 1, 1)),  # noqa: DTZ001
    ],
)  # fmt: skip
def test_values_that_could_run_as_shell_are_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        boot_config(**dict[str, Any](bundle="0" * 64) | {name: value})


@pytest.mark.parametrize("token", ["", "a+session/token=="])
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_the_signature_is_the_one_botocore_makes(method: str, token: str) -> None:
    host, path = "orch-1-us-east-1.s3.eu-west-1.amazonaws.com", f"/runs/{RUN}/nodes/i-0abc/host_keys"
    digest = hashlib.sha256(b"body").hexdigest()
    headers = {"if-none-match": "*"} if method == "PUT" else {}
    request = AWSRequest(method, f"https://{host}{path}", headers | {"X-Amz-Content-SHA256": digest}, b"body")
    request.context["payload_signing_enabled"] = True
    S3SigV4Auth(Credentials("AKID", "s3cr3t", token or None), "s3", "eu-west-1").add_auth(request)
    mine = boot_script.sign(
        method,
        host,
        path,
        headers,
        payload=request.headers["X-Amz-Content-SHA256"],
        credentials=("AKID", "s3cr3t", token),
        region="eu-west-1",
        stamp=request.headers["X-Amz-Date"],
    )
    assert mine["authorization"] == request.headers["Authorization"]


def test_a_node_unpacks_the_bundle_and_then_publishes_its_public_host_keys(host: Host, s3: Any) -> None:
    done = boot(host, first_boot(boot_config(with_bundle(s3))))
    assert done.returncode == 0, done.stdout + done.stderr
    assert host.called()[0] == "shutdown -P +90"
    assert read(s3, KEYS.host_key("i-0abc")).decode() == HOST_KEY + "\n"
    left = int(host.file(NodePaths(RUN, 1).deadline).read_text()) - time.time()
    assert 0 < left <= 90 * 60, "what the agent goes by is when the timer ends"
    bundle = host.file(NodePaths(RUN, 1).bundle)
    assert (bundle / "agent/orchestrator/agent/main.py").exists()
    assert (bundle / "workdir").is_dir()
    again = boot(host, first_boot(boot_config("f" * 64)))
    assert again.returncode == 0, "a boot that is repeated finds everything done"


def test_a_memory_file_system_for_data_is_mounted_only_when_there_is_data(host: Host, s3: Any) -> None:
    digest = with_bundle(s3)
    boot(host, first_boot(boot_config(digest)))
    assert not any(call.startswith("mount") for call in host.called())
    host.shim("mount", "exit 32")
    host.shim("id", 'if [ "$1" = -u ]; then echo 0; else echo ' + user() + "; fi")
    done = boot(host, first_boot(boot_config(digest, stages_data=True)))
    assert done.returncode == 0
    mounts = [call for call in host.called() if call.startswith("mount")]
    assert mounts == [f"mount -t tmpfs -o size=90%,mode=0700 orch-data {host.home}/data"] * (user() == "root")


def test_what_an_image_lacks_is_brought_first_and_a_failure_there_leaves_the_last_word_to_the_boot(host: Host) -> None:
    done = boot(
        host, first_boot(boot_config("0" * 64, ssh_user="nobody", prelude='echo "it\'s {here}"; cat; false\nx'))
    )
    assert done.stdout.splitlines()[:2] == ["it's {here}", "orch: what was to be done first failed with code 1"]
    assert host.called()[0].startswith("shutdown -P"), "the timer comes before it"
    assert host.called()[1].startswith("runuser")


def test_another_user_than_the_ssh_user_hands_over_to_it(host: Host) -> None:
    done = boot(host, first_boot(boot_config("0" * 64, ssh_user="nobody")))
    assert done.returncode == 0
    assert host.called()[1] == "runuser -l nobody -c exec python3 -"


def test_without_a_timer_a_node_does_not_become_ready(host: Host, s3: Any) -> None:
    host.shim("shutdown", "exit 1")
    done = boot(host, first_boot(boot_config(with_bundle(s3))))
    assert done.returncode == 1
    assert "stays unused" in done.stdout
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET, Prefix="runs/")


def test_credentials_host_keys_and_bundle_that_come_late_are_waited_for(
    host: Host, s3: Any, metadata: Metadata
) -> None:
    bundle = build_bundle(None, builtin=False)
    role = metadata.pages.pop(ROLE)
    metadata.failures = [503, 500]
    key = host.home / "etc" / "ssh_host_ed25519_key.pub"
    key.unlink()
    done: list[subprocess.CompletedProcess[str]] = []
    thread = threading.Thread(target=lambda: done.append(boot(host, first_boot(boot_config(bundle.digest)))))
    thread.start()
    wait_for(lambda: metadata.asked.count(ROLE) > 1)
    metadata.token = "token-2"  # a token that was forgotten is asked for anew
    metadata.pages[ROLE] = role
    wait_for(lambda: f"{ROLE}node-role" in metadata.asked)
    s3.put_object(Bucket=BUCKET, Key=bundle_key(bundle.digest), Body=bundle.read())
    wait_for(host.file(NodePaths(RUN, 1).bundle).exists)
    key.write_text(HOST_KEY + "\n")
    thread.join(30)
    assert done[0].returncode == 0, done[0].stdout
    assert read(s3, KEYS.host_key("i-0abc")).decode() == HOST_KEY + "\n"


def in_process(host: Host, monkeypatch: pytest.MonkeyPatch, digest: str, patience: float = 0.3) -> None:
    """Boot in this process, where waiting can be cut short."""
    monkeypatch.setattr(boot_script, "PATIENCE", patience)
    for name, value in host.env.items():
        monkeypatch.setenv(name, value)
    boot_script.main({"run": RUN, "bucket": BUCKET, "region": "us-east-1", "bundle": digest, "minutes": "90"})


def test_a_bundle_with_another_digest_is_not_unpacked_and_the_failure_is_told(
    host: Host, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.put_object(Bucket=BUCKET, Key=bundle_key("a" * 64), Body=b"something else")
    with pytest.raises(SystemExit):
        in_process(host, monkeypatch, "a" * 64)
    assert not host.file(NodePaths(RUN, 1).bundle).exists()
    told = read(s3, KEYS.boot_failure("i-0abc")).decode()
    assert f"sha256 is {hashlib.sha256(b'something else').hexdigest()}" in told.splitlines()[-1]
    assert "secret/+=" not in told


def test_an_archive_that_cannot_be_unpacked_is_told(host: Host, s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.sha256(b"no archive").hexdigest()
    s3.put_object(Bucket=BUCKET, Key=bundle_key(digest), Body=b"no archive")
    with pytest.raises(SystemExit):
        in_process(host, monkeypatch, digest)
    assert "tar ended with" in read(s3, KEYS.boot_failure("i-0abc")).decode()
    assert not host.file(NodePaths(RUN, 1).bundle).exists()


def test_host_keys_that_somebody_else_published_are_not_replaced(
    host: Host, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.put_object(Bucket=BUCKET, Key=KEYS.host_key("i-0abc"), Body=b"ssh-ed25519 OTHER")
    with pytest.raises(SystemExit):
        in_process(host, monkeypatch, with_bundle(s3))
    assert read(s3, KEYS.host_key("i-0abc")) == b"ssh-ed25519 OTHER"
    assert "412" in read(s3, KEYS.boot_failure("i-0abc")).decode()


def test_an_image_without_boto3_is_told(host: Host, s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [str(host.home)])
    with pytest.raises(SystemExit):
        in_process(host, monkeypatch, with_bundle(s3))
    assert "has no boto3" in read(s3, KEYS.boot_failure("i-0abc")).decode()


def answer_once(reply: bytes, context: ssl.SSLContext | None = None) -> tuple[str, threading.Thread]:
    """Serve one connection with these bytes and close it."""
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]

    def serve() -> None:
        with server:
            link, _ = server.accept()
            with suppress(ssl.SSLError), link if context is None else context.wrap_socket(link, True) as plain:
                plain.recv(65_536)
                plain.sendall(reply)

    thread = threading.Thread(target=serve)
    thread.start()
    return f"127.0.0.1:{port}", thread


def test_a_reply_that_breaks_off_is_no_reply() -> None:
    address, thread = answer_once(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    with pytest.raises(OSError, match="4 of 10 bytes"):
        boot_script.http("GET", f"http://{address}/x", {})
    thread.join()


def test_https_is_spoken_and_certificates_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    ask = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=localhost",
    ]
    where = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", *ask, *where], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    address, thread = answer_once(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", context)
    assert boot_script.http("GET", f"https://{address}/x", {}) == b"ok"
    thread.join()
    monkeypatch.delenv("SSL_CERT_FILE")
    address, thread = answer_once(b"", context)
    with pytest.raises(ssl.SSLCertVerificationError):
        boot_script.http("GET", f"https://{address}/x", {})
    thread.join()


def test_on_aws_the_bucket_is_reached_by_its_own_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[str] = []

    def note(method: str, url: str, *_: object) -> bytes:
        asked.append(f"{method} {url}")
        return b""

    monkeypatch.setattr(boot_script, "http", note)
    boot = boot_script.Boot(
        {"run": RUN, "bucket": BUCKET, "region": "eu-west-1", "bundle": ""}, {"HOME": str(tmp_path)}
    )
    boot.credentials = ("a", "b", "c")
    boot.s3("GET", "bundles/x")
    assert asked == [f"GET https://{BUCKET}.s3.eu-west-1.amazonaws.com/bundles/x"]
    assert boot.metadata == "http://169.254.169.254"


def test_waiting_grows_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    monkeypatch.setattr(time, "monotonic", lambda: sum(pauses))
    boot = boot_script.Boot({"run": RUN}, {"HOME": "/nowhere"})

    def fail() -> bytes:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        boot.patiently("it", fail)
    assert pauses[:4] == [0.1, 0.2, 0.4, 0.8]
    assert max(pauses) == boot_script.LONGEST_PAUSE
    assert boot_script.PATIENCE - boot_script.LONGEST_PAUSE <= sum(pauses) <= boot_script.PATIENCE
