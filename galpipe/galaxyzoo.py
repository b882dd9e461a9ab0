"""The Galaxy Zoo decision tree of GZD-5, GZD-8 and GZ DESI: what volunteers, real or mock, and the morphology head answer."""

from __future__ import annotations

TREE: dict[str, tuple[str, ...]] = {
    "smooth-or-featured": ("smooth", "featured-or-disk", "artifact"),
    "how-rounded": ("round", "in-between", "cigar-shaped"),
    "disk-edge-on": ("yes", "no"),
    "edge-on-bulge": ("boxy", "none", "rounded"),
    "has-spiral-arms": ("yes", "no"),
    "bar": ("strong", "weak", "no"),
    "bulge-size": ("dominant", "large", "moderate", "small", "none"),
    "spiral-winding": ("tight", "medium", "loose"),
    "spiral-arm-count": ("1", "2", "3", "4", "more-than-4", "cant-tell"),
    "merging": ("none", "minor-disturbance", "major-disturbance", "merger"),
}
"""Ten questions, 34 answers (reference section 9.2), in published order."""

PARENT: dict[str, tuple[str, str] | None] = {
    "smooth-or-featured": None,
    "how-rounded": ("smooth-or-featured", "smooth"),
    "disk-edge-on": ("smooth-or-featured", "featured-or-disk"),
    "edge-on-bulge": ("disk-edge-on", "yes"),
    "has-spiral-arms": ("disk-edge-on", "no"),
    "bar": ("disk-edge-on", "no"),
    "bulge-size": ("disk-edge-on", "no"),
    "spiral-winding": ("has-spiral-arms", "yes"),
    "spiral-arm-count": ("has-spiral-arms", "yes"),
    "merging": ("smooth-or-featured", "not artifact"),
}
"""The answer after which a question is asked."""


def answers_leading_to(question: str) -> tuple[tuple[str, str], ...]:
    """The answers, from the top of the tree down, after which a question is asked; none for what nearly everybody is asked.

    ``merging`` is asked unless the object is an artifact, which no single answer says.
    """
    parent = PARENT[question]
    if parent is None or parent[1] not in TREE[parent[0]]:
        return ()
    return (*answers_leading_to(parent[0]), parent)


ANSWERS: tuple[str, ...] = tuple(f"{question}_{answer}" for question, answers in TREE.items() for answer in answers)
"""The 34 answers, in the order of every array of votes."""


def slices() -> dict[str, slice]:
    """Where each question's answers lie among the 34."""
    result, start = {}, 0
    for question, answers in TREE.items():
        result[question] = slice(start, start + len(answers))
        start += len(answers)
    return result


def place(question: str, answer: str) -> int:
    """Where an answer lies among the 34."""
    return slices()[question].start + TREE[question].index(answer)
