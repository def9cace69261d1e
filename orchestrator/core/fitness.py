"""Which links of a gang are measured, and which of its nodes are unfit to train. Pure.

Imports nothing outside the standard library, since it also runs on the nodes: the node of rank 0 judges the gang, so
that a healthy one goes on without asking anybody.

A node is replaced for its links only when it is the odd one out. A gang that is slow as a whole, such as one that lacks
EFA or shares two cores, is told so and trains: the same machines elsewhere would be no faster.

Whatever else a machine does only ever makes a link look slower than it is. So the best of all looks at a node counts,
and whoever seems slow is looked at again, often enough that no noise lasts so long; and some of the others beside it,
since what those give is what it is held against.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from orchestrator.core.preflight import Check, Findings, State
from orchestrator.core.units import format_rate

# The best link of an odd node out is slower than this part of the gang's median, and of what its type should give.
ODD, POOR = 1 / 3, 1 / 2
# Slower than the first part of the median, a node is looked at again; slower than the second, by no known noise.
SUSPECT, GLARING = 1 / 2, 1 / 12
# Seconds by which a node's clock may differ from the gang's: S3 refuses requests from 15 minutes on.
CLOCK_OFF, CLOCK_WRONG = 2.0, 600.0
# One TCP flow within a placement group gets no more (docs.aws.amazon.com, EC2 network bandwidth).
ONE_FLOW_GBIT = 10.0
# Rounds of pairs that every gang gets, and those in which whoever seems slow, glaringly or not, may still show better.
ROUNDS, SURE_ROUNDS, MORE_ROUNDS = 3, 4, 24


def pairs(ranks: Sequence[int], turn: int) -> dict[int, int]:
    """Return who is measured with whom in round `turn`: a tournament, so that partners change; one may sit out."""
    circle: list[int | None] = [*ranks, *([None] if len(ranks) % 2 else [])]
    if len(circle) < 2:
        return {}
    rest = circle[1:]
    shift = turn % len(rest)
    table = [circle[0], *rest[shift:], *rest[:shift]]
    found: dict[int, int] = {}
    for left, right in zip(table[: len(table) // 2], reversed(table[len(table) // 2 :]), strict=True):
        if left is not None and right is not None:
            found |= {left: right, right: left}
    return found


def expected_rate(network_gbit: float) -> float:
    """Return what one link should give in bytes/s, 0 where the type's network is not known."""
    return min(network_gbit, ONE_FLOW_GBIT) * 1e9 / 8


def next_pairs(gang: Mapping[int, Findings], turn: int, expected: float) -> dict[int, int]:
    """Return who is measured with whom in round `turn` (0...), nobody once enough is known.

    Everybody at first; then whoever seems slow, each with one that does not, beside as many pairs of those, so that all
    are held against each other under the same load, and a machine that they share has less of it.
    """
    ranks = sorted(rank for rank, found in gang.items() if found.answered)
    if turn < min(ROUNDS, len(ranks) - 1 + len(ranks) % 2):
        return pairs(ranks, turn)
    slow = suspects(gang, expected)
    clear = [rank for rank in ranks if rank not in slow]
    if turn >= ROUNDS + SURE_ROUNDS:
        slow = [rank for rank in slow if not _is_glaring(gang, rank)]
    if not slow or len(clear) < 2 or turn >= ROUNDS + MORE_ROUNDS:
        return {}
    if len(clear) < 3 * len(slow):  # too few to do both at once
        turn, odd = divmod(turn, 2)
        if odd:
            return pairs(clear, turn)
    called = [*clear[turn % len(clear) :], *clear[: turn % len(clear)]]
    rest = called[len(slow) : 3 * len(slow)]
    couples = [*zip(slow, called, strict=False), *zip(rest[::2], rest[1::2], strict=False)]
    return {one: other for couple in couples for one, other in (couple, couple[::-1])}


def _is_glaring(gang: Mapping[int, Findings], rank: int) -> bool:
    """Tell whether a node is slower than any noise could make it."""
    bests = _bests(gang)
    return bests[rank] < median(bests.values()) * GLARING


def suspects(gang: Mapping[int, Findings], expected: float) -> list[int]:
    """Return the ranks that may be slow: their best link is far from the gang's median, and from what it should be."""
    bests = _bests(gang)
    usual = median(bests.values()) if bests else 0.0
    return [rank for rank, best in sorted(bests.items()) if best < usual * SUSPECT and _is_poor(best, expected)]


def odd_ones(gang: Mapping[int, Findings], expected: float) -> dict[int, str]:
    """Return the ranks whose links are far behind those of the others, and how far; nobody in a gang of two.

    More than a third of a gang cannot be odd: then it is the gang that is slow.
    """
    bests = _bests(gang)
    if not bests:
        return {}
    usual = median(bests.values())
    slow = {rank: best for rank, best in bests.items() if _is_odd(gang[rank], best, usual) and _is_poor(best, expected)}
    silent = [rank for rank, found in gang.items() if not found.answered]
    if 3 * (len(slow) + len(silent)) > len(gang):
        return {}
    return {
        rank: f"its best link gives {format_rate(best)}, those of the others {format_rate(usual)}"
        for rank, best in slow.items()
    }


def _is_odd(found: Findings, best: float, usual: float) -> bool:
    """Tell whether a node is so slow that no noise explains it, of which its own looks show how much there is.

    That is how far the middle one is from the best: a single look that went wrong says nothing.
    """
    scatter = best / median(found.looks) if best and found.looks else 1.0
    return best < usual * GLARING or best * scatter < usual * ODD


def _bests(gang: Mapping[int, Findings]) -> dict[int, float]:
    return {rank: best for rank, found in gang.items() if found.answered and (best := found.best) is not None}


def _is_poor(best: float, expected: float) -> bool:
    return not expected or best < expected * POOR


def judge(gang: Mapping[int, Findings], expected: float) -> dict[int, str]:
    """Return which ranks are unfit to train, and why."""
    found = odd_ones(gang, expected)
    silent = {rank: "it stopped answering" for rank, item in gang.items() if not item.answered}
    found |= silent if 2 * len(silent) < len(gang) else {}
    for rank, item in gang.items():
        faults = [f"{check.name}: {check.detail}" for check in item.checks if check.state == "fail"]
        if faults:
            found[rank] = "; ".join(faults)
    return dict(sorted(found.items()))


def gang_notes(gang: Mapping[int, Findings], all_reduce: float | None, expected: float) -> tuple[str, ...]:
    """Return what is to be said of the gang as a whole."""
    bests = [best for item in gang.values() if (best := item.best) is not None]
    notes = []
    if bests and expected and median(bests) < expected * POOR:
        notes.append(f"links give {format_rate(median(bests))}, this type should give {format_rate(expected)}")
    if all_reduce is not None and expected and all_reduce < expected * POOR:
        notes.append(
            f"all-reduce over all nodes gives {format_rate(all_reduce)}, of {format_rate(expected)} a link should give"
        )
    return tuple(notes)


def clock_checks(clocks: Mapping[int, float]) -> dict[int, Check]:
    """Return how far each node's clock is from the gang's; `clocks` are seconds against one of them."""
    usual = median(clocks.values()) if clocks else 0.0
    found = {}
    for rank, clock in clocks.items():
        off = abs(clock - usual)
        state: State = "ok" if off < CLOCK_OFF else "warn" if off < CLOCK_WRONG else "fail"
        found[rank] = Check("clock", state, "right" if state == "ok" else f"{off:.0f} s off those of the other nodes")
    return found


def median(values: Iterable[float]) -> float:
    """Return the middle one of at least one value, the upper of two."""
    ordered = sorted(values)
    return ordered[len(ordered) // 2]
