from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.parts import LEAST, MOST, PartKeys, Span, is_wanted, make_spans, share

KEYS = PartKeys("build-photos-20261127-120000-abcd")
SIZES = st.one_of(
    st.integers(1, 100), st.integers(LEAST - 3, LEAST + 3), st.integers(2 * LEAST - 3, 2 * LEAST + 3),
    st.integers(MOST - 3, MOST + 3), st.integers(2 * MOST, 3 * MOST),
)  # fmt: skip


def test_pieces_that_are_large_enough_are_copied_as_they_are() -> None:
    assert make_spans([]) == []
    assert make_spans([7 * LEAST, LEAST, 3]) == [[Span(0, 0, 7 * LEAST)], [Span(1, 0, LEAST)], [Span(2, 0, 3)]]
    assert make_spans([3, 9 * LEAST]) == [[Span(0, 0, 3), Span(1, 0, LEAST - 3)], [Span(1, LEAST - 3, 9 * LEAST)]]
    assert make_spans([3, 4, LEAST]) == [[Span(0, 0, 3), Span(1, 0, 4), Span(2, 0, LEAST)]]


@given(st.lists(SIZES, max_size=9))
def test_every_byte_comes_once_and_in_order_and_s3_takes_every_part(sizes: list[int]) -> None:
    parts = make_spans(sizes)
    ends = dict.fromkeys(range(len(sizes)), 0)
    flat = [span for part in parts for span in part]
    for span in flat:
        assert span.start == ends[span.piece] < span.stop
        ends[span.piece] = span.stop
    assert list(ends.values()) == sizes
    assert [span.piece for span in flat] == sorted(span.piece for span in flat)
    lengths = [sum(span.stop - span.start for span in part) for part in parts]
    assert all(length >= LEAST for length in lengths[:-1])
    assert all(length <= (MOST if len(part) == 1 else 3 * LEAST) for part, length in zip(parts, lengths, strict=True))


def test_pieces_are_found_by_file_in_order_of_parts() -> None:
    objects = [(KEYS.packed_file(part, path), part) for part in (2, 0, 1) for path in ("train/images.bin", "sz/24/x")]
    found = KEYS.pieces(objects)
    assert found == {
        path: [(KEYS.packed_file(part, path), part) for part in (1, 2)] for path in ("train/images.bin", "sz/24/x")
    }


def test_the_files_to_digest_are_dealt_out_the_largest_first() -> None:
    sizes = {"a": 1, "b": 9, "c": 9, "d": 4, "e": 2}
    assert [share(sizes, rank, 2) for rank in (0, 1)] == [["b", "d", "a"], ["c", "e"]]


def test_a_data_set_of_copies_has_no_more_than_it_says() -> None:
    paths = ("dataset.json", "sz/24/train/images.bin", "train/images.bin", "corrupt.txt")
    assert [is_wanted(path, originals=False) for path in paths] == [True, True, False, False]
    assert all(is_wanted(path, originals=True) for path in paths)
