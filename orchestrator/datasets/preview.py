"""What is wrong with a source in S3, before it is fetched or machines are launched for it: in the trainer's own words.

Only the trainer knows how a source is read. It is shown a listing, and of tars the first bytes: what a tar has further
on is found by whoever packs it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.core.dataset import ABOUT
from orchestrator.core.ids import bucket_and_prefix
from orchestrator.datasets import packer
from orchestrator.datasets.order import LABELS, Order
from orchestrator.datasets.origin import Row
from orchestrator.errors import NoPermission, OrchError

HEAD_BYTES = 2**16
TAR = ".tar"


def refuse(order: Order, rows: Sequence[Row], session: Session) -> None:
    """Raise BadInput with all that is wrong with a source in S3 that is to be packed. Raises NotFound, OrchError.

    Where this Python lacks what the trainer needs, or whoever builds may only list, nothing is: the nodes will say it.
    """
    names = {name for name, *_ in rows}
    if not order.is_remote or order.as_is or ABOUT in names or not packer.can_pack():
        return
    with tempfile.TemporaryDirectory(prefix="orch-source-") as folder:
        root, listing = Path(folder) / order.name, Path(folder) / "listing.jsonl"
        root.mkdir()
        listing.write_text("".join(json.dumps([name, size]) + "\n" for name, size, _ in rows))
        try:
            for name, size, tag in rows:
                if name.endswith(TAR) and "/" not in name:
                    (root / name).write_bytes(_head(order, name, size, tag, session))
            packer.refuse(root, listing, order.pairs.get(LABELS))
        except NoPermission:
            return
        except OrchError as error:
            message = error.message.replace(str(root), order.source.rstrip("/"))
            raise type(error)(message, error.hint) from error


def _head(order: Order, name: str, size: int, tag: str, session: Session) -> bytes:
    bucket, prefix = bucket_and_prefix(order.source)
    return b"".join(Bucket(session, bucket).read(prefix + name, 0, min(size, HEAD_BYTES), tag)) if size else b""
