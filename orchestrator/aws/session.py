"""Who calls and where: one lazily made, thread-safe client a service, with explicit timeouts and retries.

With keys in the settings nothing is read from the caller's environment or profile: the sandbox never sees real
credentials, and real accounts never see the sandbox's. Without keys it is boto3's own chain. Calls nothing but STS.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Literal

from orchestrator.aws.clock import ServerClock
from orchestrator.aws.errors import calling
from orchestrator.core.settings import Settings
from orchestrator.errors import NoPermission

Service = Literal["ec2", "launch", "s3", "sts", "iam", "ssm", "pricing", "service-quotas", "ec2-instance-connect"]

CONNECT_SECONDS = 5
READ_SECONDS = 20
LAUNCH_READ_SECONDS = 60
ATTEMPTS = 3
# The Pricing API has its endpoint in few regions; this one serves the prices of all.
PRICING_REGION = "us-east-1"
# A machine with every core busy answers its metadata service late; botocore's default is one attempt of one second.
NODE_METADATA = {"metadata_service_timeout": 5, "metadata_service_num_attempts": 6}


class Session:
    """Clients for one cloud. Cheap to make; every method may be called from any thread."""

    def __init__(self, settings: Settings, *, variables: Mapping[str, Any] | None = None) -> None:
        self.settings = settings
        self._variables = dict(variables or {})
        self._lock = threading.Lock()
        self._core: Any = None
        self._clients: dict[Service, Any] = {}
        self._identity: tuple[str, str] | None = None
        self.s3_clock = ServerClock()

    @classmethod
    def from_environment(cls, region: str = "") -> Session:
        """Return the session of a node: credentials, endpoint and (unless given) region from boto3's own chain."""
        return cls(Settings(cloud="node", region=region), variables=NODE_METADATA)

    @property
    def region(self) -> str:
        """The region that is called. Raises NoPermission when neither settings nor environment name one."""
        if self.settings.region:
            return self.settings.region
        with self._lock:
            found = self._botocore().get_config_variable("region")
        if not found:
            raise NoPermission("no AWS region is set", "set AWS_DEFAULT_REGION or give --region")
        return str(found)

    def client(self, service: Service) -> Any:
        """Return the client of `service`, made on first use and then shared.

        `launch` is EC2 without any retry: EC2 reports missing capacity as HTTP 500, which would be retried in silence.
        Raises NoPermission when no region is known, or the caller's AWS configuration cannot be read.
        """
        region = PRICING_REGION if service == "pricing" and self.settings.endpoint_url is None else self.region
        with self._lock:
            if service not in self._clients:
                with calling(f"{service}:*"):
                    self._clients[service] = self._make(service, region)
            return self._clients[service]

    def account(self) -> str:
        """Return the account id of the caller. Raises NoPermission, Unreachable."""
        return self._who()[0]

    def caller(self) -> str:
        """Return the ARN of the caller. Raises NoPermission, Unreachable."""
        return self._who()[1]

    def has_credentials(self) -> bool:
        """Tell whether any credentials were found; nothing is called with them.

        Raises NoPermission when the caller's AWS configuration is broken (a profile that does not exist, ...).
        """
        if self.settings.access_key is not None:
            return True
        with self._lock, calling("credentials"):
            return self._botocore().get_credentials() is not None

    def _who(self) -> tuple[str, str]:
        if self._identity is None:
            with calling("sts:GetCallerIdentity"):
                reply = self.client("sts").get_caller_identity()
            self._identity = (str(reply["Account"]), str(reply["Arn"]))
        return self._identity

    def _make(self, service: Service, region: str) -> Any:
        from botocore.config import Config

        settings = self.settings
        launch = service == "launch"
        config = Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=LAUNCH_READ_SECONDS if launch else READ_SECONDS,
            retries={"mode": "standard", "total_max_attempts": 1 if launch else ATTEMPTS},
            max_pool_connections=32,
            # The sandbox is on loopback: never through a proxy of the caller's.
            proxies={} if settings.access_key is not None else None,
            ignore_configured_endpoint_urls=True if settings.endpoint_url is not None else None,
            s3={"addressing_style": "path"} if settings.endpoint_url is not None else None,
        )
        client = self._botocore().create_client(
            "ec2" if launch else service,
            region_name=region,
            endpoint_url=settings.endpoint_url,
            aws_access_key_id=settings.access_key,
            aws_secret_access_key=settings.secret_key,
            config=config,
        )
        if service == "s3":
            client.meta.events.register("after-call.s3", self._note_time)
        return client

    def _note_time(self, http_response: Any, **_: Any) -> None:
        self.s3_clock.note(http_response.headers.get("date", ""))

    def _botocore(self) -> Any:
        """Return the botocore session; the caller holds the lock. boto3 itself would only add half as much start-up."""
        if self._core is None:
            import botocore.session

            self._core = botocore.session.Session()
            if self.settings.access_key is not None:
                _isolate(self._core)
            for name, value in self._variables.items():
                self._core.set_config_variable(name, value)
        return self._core


def _isolate(core: Any) -> None:
    """Make a botocore session read neither the environment nor any file of the caller."""
    import os

    from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES, ConstantProvider

    store = core.get_component("config_store")
    fixed = {name: entry[2] for name, entry in BOTOCORE_DEFAUT_SESSION_VARIABLES.items()}
    fixed |= {"config_file": os.devnull, "credentials_file": os.devnull, "s3": None, "proxies_config": None}
    for name, value in fixed.items():
        store.set_config_provider(name, ConstantProvider(value))
