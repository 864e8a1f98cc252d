"""Patterns against brute force: what overlaps and what contains what."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from oidc_middleware.core.patterns import Pattern, PolicyError, parse, segments_of

# Every path over a small alphabet, longer than any pattern below.
PATHS = [segments for length in range(1, 6) for segments in product(["a", "b", "z", ""], repeat=length)]
PATHS = [segments for segments in PATHS if "" not in segments[:-1]]

patterns = st.builds(
    lambda parts, end: "/" + "/".join([*parts, *end]),
    st.lists(st.sampled_from(["a", "b", "{n}"]), max_size=3),
    st.sampled_from([[], ["*"], [""]]),
).map(lambda text: parse(text if text != "/" else "/{$}", "rules"))


def matched(*forms: Pattern) -> set[tuple[str, ...]]:
    return {segments for segments in PATHS if any(form.matches(segments) for form in forms)}


@given(patterns, patterns)
def test_two_patterns_overlap_when_a_path_matches_both(one: Pattern, other: Pattern) -> None:
    assert one.overlaps(other) == other.overlaps(one) == bool(matched(one) & matched(other))


@given(patterns, patterns)
def test_a_pattern_contains_another_when_all_paths_of_it_match(one: Pattern, other: Pattern) -> None:
    assert one.contains(other) == (matched(other) <= matched(one))


@given(patterns)
def test_closing_covers_a_path_with_and_without_its_slash(pattern: Pattern) -> None:
    slashless = {segments[:-1] if segments[-1] == "" else segments for segments in matched(pattern)}
    expected = matched(pattern) | {s for s in PATHS if s in slashless or (s[-1] == "" and s[:-1] in slashless)}
    assert matched(*pattern.closing()) == expected


@given(patterns)
def test_a_literal_pattern_matches_itself_only(pattern: Pattern) -> None:
    if pattern.is_literal:
        assert matched(pattern) == {segments_of("/" if pattern.text == "/{$}" else pattern.text)}


@given(st.text(max_size=12) | st.integers())
def test_any_text_is_a_pattern_or_a_policy_error(text: object) -> None:
    try:
        spelled: object = parse(text, "public").text
    except PolicyError as error:
        spelled = text if error.field == "public" and error.problem and error.cure else None
    assert spelled == text
