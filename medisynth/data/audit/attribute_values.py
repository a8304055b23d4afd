"""Declared attributes of each patient: read from the metadata, put into levels or bins."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from governance.records.audit import DeclaredAttribute
from medisynth.data.audit.levels import Coded, Codes, Floats, membership, patient_codes
from medisynth.data.audit.target_population import declared_levels
from medisynth.data.contract.contract import AttributeDeclaration

OUTSIDE = "outside the declared levels"


@dataclass(frozen=True)
class AttributeValues:
    """One declared attribute of every row.

    Attributes:
        declared: The attribute and how complete it is.
        levels: Levels or bins in the order of reports; () for a number without bins.
        codes: Index into `levels` of each row, -1 where there is no value, length n.
        values: The number of each row, NaN where there is none or for a category, length n.
    """

    declared: DeclaredAttribute
    levels: tuple[str, ...]
    codes: Codes
    values: Floats


def attribute_values(
    attribute: AttributeDeclaration,
    table: pd.DataFrame,
    metadata: pd.DataFrame,
    patients: Coded,
) -> AttributeValues:
    """Read one declared attribute.

    Args:
        attribute: Declaration.
        table: Image table, looked up where the metadata lacks the column.
        metadata: Metadata file as text, rows in the table's order; may be empty.
        patients: Patient of each row.

    Returns:
        Its values; a patient's only level is given to all images of that patient. There is no
        value where neither table has the column or where a number cannot be read.
    """
    texts = _column(attribute, table, metadata)
    values = np.full(len(texts), np.nan)
    if attribute.kind == "number":
        parsed = pd.to_numeric(pd.Series(texts), errors="coerce").to_numpy(dtype=np.float64)
        values = np.where(np.isfinite(parsed), parsed, np.nan)
        has = np.isfinite(values)
        levels = declared_levels(attribute)
        codes = np.full(len(texts), -1, dtype=np.intp)
        if levels:
            codes[has] = np.searchsorted(np.array(attribute.edges), values[has], side="right")
    else:
        has = np.asarray(texts != "", dtype=bool)
        levels, codes = _categories(attribute, texts)
    n_patients = len(patients.names)
    n_with = len(np.unique(patients.codes[has]))
    return AttributeValues(
        DeclaredAttribute(
            name=attribute.name,
            column=attribute.column,
            kind=attribute.kind,
            unit=attribute.unit,
            is_proxy=attribute.is_proxy,
            note=attribute.note,
            completeness=n_with / n_patients if n_patients else 0.0,
        ),
        levels,
        _spread(codes, patients, len(levels)),
        values,
    )


def levels_by_image(
    table: pd.DataFrame,
    metadata: pd.DataFrame,
    declared: Sequence[AttributeDeclaration],
    attributes: Sequence[str],
) -> dict[str, dict[str, str]]:
    """Return the level of every image in each attribute by which results can be divided.

    Args:
        table: Image table with image_id and patient_id.
        metadata: Metadata file as text, rows in the table's order; may be empty.
        declared: Attributes that the contract declares; a number without bins has no levels.
        attributes: Columns of the table; one of them goes before a declared attribute of its name.

    Returns:
        Attribute -> image id -> level; images without a value are left out, and so are attributes
        that no image has a value of.
    """
    ids = [str(name) for name in table["image_id"]]
    found = {
        name: {i: str(x) for i, x in zip(ids, table[name], strict=True) if isinstance(x, str) and x}
        for name in attributes
        if name in table
    }
    patients = patient_codes(table)
    for attribute in declared:
        values = attribute_values(attribute, table, metadata, patients)
        by_image = {
            i: values.levels[code]
            for i, code in zip(ids, values.codes, strict=True)
            if code >= 0 and values.levels
        }
        found.setdefault(attribute.name, by_image)
    return {name: by_image for name, by_image in found.items() if by_image}


def _categories(
    attribute: AttributeDeclaration, texts: NDArray[np.object_]
) -> tuple[tuple[str, ...], Codes]:
    """Return the declared levels, or else those found, and each text's index among them."""
    levels = declared_levels(attribute) or tuple(sorted({str(x) for x in texts} - {""}))
    place = {level: i for i, level in enumerate(levels)} | {"": -1}
    codes = np.array([place.get(text, len(levels)) for text in texts], dtype=np.intp)
    return (levels + (OUTSIDE,) if (codes == len(levels)).any() else levels), codes


def _spread(codes: Codes, patients: Coded, n_levels: int) -> Codes:
    """Give a patient's only level to all images of that patient."""
    if not n_levels:
        return codes
    has = membership(patients.codes, codes, len(patients.names), n_levels)
    only = np.where(has.sum(axis=1) == 1, has.argmax(axis=1), -1)[patients.codes]
    return np.where(only >= 0, only, codes)


def _column(
    attribute: AttributeDeclaration, table: pd.DataFrame, metadata: pd.DataFrame
) -> NDArray[np.object_]:
    """Return the attribute's text for each row, "" where there is none."""
    for source in (metadata, table):
        if attribute.column in source:
            column = source[attribute.column].astype(object)
            filled = column.where(column.notna(), "").astype(str).str.strip()
            return filled.to_numpy(dtype=object)
    return np.full(len(table), "", dtype=object)
