"""Item records as JUnit XML, which CI systems can show."""

from collections.abc import Sequence
from xml.etree import ElementTree

from governance.records.base import ItemStatus
from governance.records.item import ItemRecord

_SKIPPED = (ItemStatus.NOT_EVALUATED, ItemStatus.NOT_APPLICABLE)


def junit_xml(
    records: Sequence[ItemRecord], *, name: str, stopped_by: Exception | None = None
) -> bytes:
    """Write one test case an item: failed items are failures, items not judged are skipped.

    Args:
        records: Item records.
        name: Name of the suite.
        stopped_by: Error that ended the check early; it becomes a test case of its own.

    Returns:
        UTF-8 XML; characters that XML cannot hold are replaced.
    """
    suite = ElementTree.Element("testsuite", name=_clean(name))
    for record in records:
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname=record.principle,
            name=_clean(f"{record.id} {record.title}"),
        )
        if record.status is ItemStatus.FAILED:
            failure = ElementTree.SubElement(case, "failure", message=_clean(record.reason))
            failure.text = _clean(record.method)
        elif record.status in _SKIPPED:
            words = f"{record.status.value}: {record.reason}"
            ElementTree.SubElement(case, "skipped", message=_clean(words))
    if stopped_by is not None:
        case = ElementTree.SubElement(
            suite, "testcase", classname="data", name="usable as configured"
        )
        ElementTree.SubElement(case, "error", message=_clean(str(stopped_by)))
    counts = {"failures": "failure", "skipped": "skipped", "errors": "error"}
    suite.set("tests", str(len(suite)))
    for attribute, tag in counts.items():
        suite.set(attribute, str(len(suite.findall(f"testcase/{tag}"))))
    data: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return data


def _clean(text: str) -> str:
    """Replace the control characters that XML 1.0 cannot hold."""
    return "".join(c if c in "\t\n" or c.isprintable() else "\ufffd" for c in text)
