"""Numbers in sentences. Pure."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Return `1 GPU`, `16 GPUs`, `1,200 images`; for nouns that take an s."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
