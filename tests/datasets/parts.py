"""What the nodes of a run leave in S3 when they have packed all of it, without the nodes."""

from __future__ import annotations

import hashlib
import json

from orchestrator.aws.s3 import Bucket
from orchestrator.core.parts import PartKeys

PIECES = (b"one", b"and two")


def leave_parts(bucket: Bucket, run: str) -> None:
    """Put a file of two pieces there, and one that lies whole."""
    keys, whole = PartKeys(run), b"".join(PIECES)
    for number, body in enumerate(PIECES):
        bucket.put(keys.packed_file(number, "train/images.bin"), body)
    bucket.put(keys.small_file("dataset.json"), b"{}")
    row = {"path": "train/images.bin", "size": len(whole), "sha256": hashlib.sha256(whole).hexdigest()}
    bucket.put(keys.joined, json.dumps({"files": [row], "small": ["dataset.json"]}).encode())
