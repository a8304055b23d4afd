"""One tree of errors, and a page that explains every code."""

import re
import signal
from collections.abc import Iterator
from itertools import chain

from governance.records import errors
from governance.records.error_codes import CODES, page
from governance.records.errors import (
    DataError,
    Finding,
    InterruptedByUser,
    MedisynthGovError,
    ProcessError,
)
from tests.held_still import ask
from tests.places import ROOT

REPOSITORY = ROOT
ALL_CODES = [*chain.from_iterable(CODES.values())]


def own_code(kind: type[MedisynthGovError]) -> str:
    return str(vars(kind).get("code", ""))


def children(kind: type[MedisynthGovError]) -> list[type[MedisynthGovError]]:
    return [child for child in kind.__subclasses__() if child.__module__ == errors.__name__]


def below(kind: type[MedisynthGovError], indent: str = "") -> Iterator[tuple[str, str]]:
    """Every class below one, as the tree draws it, with its code."""
    for child in children(kind):
        is_last = child is children(kind)[-1]
        yield f"{indent}{'└── ' if is_last else '├── '}{child.__name__}", own_code(child)
        yield from below(child, indent + ("    " if is_last else "│   "))


def every_class() -> list[type[MedisynthGovError]]:
    found = [MedisynthGovError]
    for kind in found:
        found.extend(children(kind))
    return found


def test_the_drawn_tree_is_that_of_the_classes() -> None:
    rows = [(MedisynthGovError.__name__, own_code(MedisynthGovError)), *below(MedisynthGovError)]
    width = max(len(line) for line, _ in rows) + 2
    drawn = "\n".join(f"    {line:<{width}}{code}".rstrip() for line, code in rows)

    assert f"\n\n{drawn}\n\n" in str(errors.__doc__)


def test_every_error_stands_in_the_tree_with_the_exit_code_of_its_branch() -> None:
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and kind is not Finding
    ]

    assert {*every_class()} == {kind for kind in kinds if issubclass(kind, Exception)}
    for branch in children(MedisynthGovError):
        for kind in every_class():
            assert not issubclass(kind, branch) or kind.exit_code == branch.exit_code, kind


def test_the_codes_that_the_source_gives_are_the_codes_explained() -> None:
    assert ask.error_codes()["codes"] == sorted(ALL_CODES)


def test_every_code_is_explained_once_and_that_of_a_class_under_the_class() -> None:
    assert len(ALL_CODES) == len({*ALL_CODES})
    for kind in every_class():
        assert not own_code(kind) or own_code(kind) in CODES[kind], kind
    for meaning, what_to_do in chain.from_iterable(codes.values() for codes in CODES.values()):
        assert meaning.endswith(".")
        assert what_to_do.endswith(".")


def test_a_class_without_a_code_of_its_own_is_never_raised() -> None:
    names = [kind.__name__ for kind in every_class() if not own_code(kind)]
    made = re.compile(rf"\b(?:{'|'.join(names)})\((?!MedisynthGovError\))")
    sources = chain.from_iterable((REPOSITORY / name).rglob("*.py") for name in ask.PACKAGES)

    assert [path for path in sources if made.search(path.read_text("utf-8"))] == []


def test_the_page_of_codes_is_the_one_made_from_the_tree() -> None:
    written = (REPOSITORY / "docs" / "errors.md").read_text("utf-8")

    assert written == page(), (
        "docs/errors.md differs; run: python -m governance.records.error_codes docs/errors.md"
    )


def test_the_page_has_one_row_a_code_under_the_exit_code_of_its_class() -> None:
    sections = page().split("## Exit code ")[1:]
    rows = [
        (int(section.partition(":")[0]), code, name)
        for section in sections
        for code, name in re.findall(r"^\| ([A-Z]\d{3}) \| `(\w+)` \|", section, re.MULTILINE)
    ]

    assert sorted(rows) == sorted(
        (kind.exit_code, code, kind.__name__) for kind, codes in CODES.items() for code in codes
    )


def test_an_error_carries_the_code_of_its_class_or_the_one_it_is_given_and_its_findings() -> None:
    finding = Finding("D016", "table.csv", "is cut", row=3)

    assert (DataError("no").code, DataError("no").findings) == ("D000", ())
    assert DataError("no", code="D016", findings=[finding]).findings == (finding,)
    assert DataError("no", code="D016").code == "D016"
    assert ProcessError("gone", code="T900").exit_code == 1
    assert ProcessError("no memory", code="R001", exit_code=7).exit_code == 7


def test_a_stop_keeps_the_number_of_its_signal() -> None:
    assert InterruptedByUser(signal.SIGTERM).exit_code == 143
    assert str(InterruptedByUser(signal.SIGINT)) == "stopped by SIGINT"
