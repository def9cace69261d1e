"""What AWS's error codes mean, as named sets. Pure: code and message in, a kind out; what to do is decided above."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

Kind = Literal[
    "no-capacity",
    "quota",
    "not-offered",
    "price-cap",
    "throttled",
    "denied",
    "expired",
    "bad-request",
    "gone",
    "duplicate",
    "in-use",
    "conflict",
    "unreachable",
    "unknown",
]

# There is no room now, in this zone: another zone or a later time may have it.
CAPACITY = frozenset(
    {
        "InsufficientInstanceCapacity",
        "InsufficientHostCapacity",
        "InsufficientCapacity",
        "InsufficientReservedInstanceCapacity",
        "InsufficientFreeAddressesInSubnet",
        "UnfulfillableCapacity",
        "ReservationCapacityExceeded",
    }
)
# The account may not have so much; waiting does not help.
QUOTA = frozenset(
    {
        "MaxSpotInstanceCountExceeded",
        "VcpuLimitExceeded",
        "InstanceLimitExceeded",
        "MaxFleetCountExceeded",
        "VolumeLimitExceeded",
        "MaxIOPSLimitExceeded",
        "SecurityGroupLimitExceeded",
        "SnapshotLimitExceeded",
        "PendingVerification",
        "LimitExceeded",
        "TooManyBuckets",
    }
)
TYPE_NOT_OFFERED = frozenset({"Unsupported", "InvalidInstanceType", "InvalidAvailabilityZone"})
PRICE_CAP = frozenset({"SpotMaxPriceTooLow"})
THROTTLED = frozenset(
    {
        "RequestLimitExceeded",
        "EC2ThrottledException",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "RequestThrottled",
        "RequestThrottledException",
        "TooManyRequestsException",
        "PriorRequestNotComplete",
        "BandwidthLimitExceeded",
        "SlowDown",
        "429",
    }
)
DENIED = frozenset(
    {
        "UnauthorizedOperation",
        "AccessDenied",
        "AccessDeniedException",
        "AllAccessDisabled",
        "AuthException",
        "AuthFailure",
        "AuthFailure.ServiceLinkedRoleCreationNotPermitted",
        "Blocked",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "InvalidToken",
        "MissingAuthenticationToken",
        "OptInRequired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
        "403",
    }
)
EXPIRED = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "RequestExpired",
        "RequestTimeTooSkewed",
        "TokenRefreshRequired",
    }
)
# What the request asks for is wrong, and will be next time too.
BAD_REQUEST = frozenset(
    {
        "BucketAlreadyExists",
        "IdempotentParameterMismatch",
        "IllegalLocationConstraintException",
        "InvalidAMIID.Malformed",
        "InvalidAMIID.NotFound",
        "InvalidAMIID.Unavailable",
        "InvalidArgsException",
        "InvalidBlockDeviceMapping",
        "InvalidBucketName",
        "InvalidGroupId.Malformed",
        "InvalidInput",
        "InvalidInstanceID.Malformed",
        "InvalidKey.Format",
        "InvalidParameter",
        "InvalidParameterCombination",
        "InvalidParameterException",
        "InvalidParameterValue",
        "InvalidRequest",
        "InvalidSnapshot.NotFound",
        "InvalidSubnet",
        "InvalidSubnetID.NotFound",
        "InvalidUserData.Malformed",
        "InvalidVpcID.NotFound",
        "MalformedPolicyDocument",
        "MissingParameter",
        "UnknownParameter",
        "UnsupportedOperation",
        "VPCIdNotSpecified",
        "ValidationError",
    }
)
# What is named does not exist: for a deletion that is success.
ALREADY_GONE = frozenset(
    {
        "EC2InstanceNotFoundException",
        "InvalidGroup.NotFound",
        "InvalidInstanceID.NotFound",
        "InvalidKeyPair.NotFound",
        "InvalidNetworkInterfaceID.NotFound",
        "InvalidPlacementGroup.Unknown",
        "InvalidSecurityGroupID.NotFound",
        "InvalidSpotInstanceRequestID.NotFound",
        "InvalidVolume.NotFound",
        "NoSuchBucket",
        "NoSuchEntity",
        "NoSuchKey",
        "NoSuchResourceException",
        "NoSuchUpload",
        "ParameterNotFound",
        "404",
    }
)
DUPLICATE = frozenset(
    {
        "BucketAlreadyOwnedByYou",
        "EntityAlreadyExists",
        "InvalidAMIName.Duplicate",
        "InvalidGroup.Duplicate",
        "InvalidKeyPair.Duplicate",
        "InvalidPermission.Duplicate",
        "InvalidPlacementGroup.Duplicate",
    }
)
# A deletion came too early: something still uses it.
IN_USE = frozenset(
    {
        "DeleteConflict",
        "DependencyViolation",
        "IncorrectState",
        "InvalidGroup.InUse",
        "InvalidNetworkInterface.InUse",
        "InvalidParameterValue.InUse",
        "InvalidPlacementGroup.InUse",
        "InvalidSnapshot.InUse",
        "VolumeInUse",
    }
)
CONFLICT = frozenset({"ConditionalRequestConflict", "OperationAborted", "ConcurrentModification", "409"})
# The service had a fault of its own: whether the request took effect is not known.
UNREACHABLE = frozenset(
    {
        "EC2InstanceStateInvalidException",
        "EC2InstanceUnavailableException",
        "InternalError",
        "InternalFailure",
        "InternalServerError",
        "RequestTimeout",
        "ServiceException",
        "ServiceFailure",
        "ServiceUnavailable",
        "Unavailable",
        "500",
        "502",
        "503",
        "504",
    }
)

SETS: tuple[tuple[Kind, frozenset[str]], ...] = (
    ("no-capacity", CAPACITY),
    ("quota", QUOTA),
    ("not-offered", TYPE_NOT_OFFERED),
    ("price-cap", PRICE_CAP),
    ("throttled", THROTTLED),
    ("denied", DENIED),
    ("expired", EXPIRED),
    ("bad-request", BAD_REQUEST),
    ("gone", ALREADY_GONE),
    ("duplicate", DUPLICATE),
    ("in-use", IN_USE),
    ("conflict", CONFLICT),
    ("unreachable", UNREACHABLE),
)
KINDS: Mapping[str, Kind] = MappingProxyType({code: kind for kind, codes in SETS for code in codes})

# EC2 says with a general code what only its sentence tells: the type is not to be had in that zone.
_NOT_OFFERED_HERE = re.compile(
    r"instance ?type.*(not supported|is invalid|not available)|invalid value.*instance ?type", re.I
)
_NOT_OFFERED_CODES = frozenset({"InvalidParameterValue", "UnsupportedOperation", "InvalidParameterCombination"})
_PERMISSION = re.compile(r"not authorized to perform: ([a-z0-9-]+:[A-Za-z0-9*]+)")


def classify(code: str, message: str = "") -> Kind:
    """Return what `code` means; `message` tells apart what EC2 reports under one general code."""
    code = code.removeprefix("Client.").removeprefix("Server.")
    if code in _NOT_OFFERED_CODES and _NOT_OFFERED_HERE.search(message):
        return "not-offered"
    return KINDS.get(code, "unknown")


def missing_permission(message: str) -> str | None:
    """Return the permission (`ec2:RunInstances`) that a refusal names, None when it names none."""
    found = _PERMISSION.search(message)
    return found[1] if found else None
