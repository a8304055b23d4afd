"""The helper that changes stored documents changes what it is asked to, checked, and nothing else."""

import pytest
from pydantic import ValidationError

from governance.records.evaluation import EvaluationRecord
from tests.stored_run.stored import change, stored

EVALUATION = stored()[EvaluationRecord]


def test_a_dictionary_changes_fields_of_the_record_that_a_field_holds():
    changed = change(EVALUATION, least_patients=5, opening={"number": 2})

    assert (changed.least_patients, changed.opening.number) == (5, 2)
    assert changed.opening.purpose == EVALUATION.opening.purpose
    assert change(changed, least_patients=30, opening={"number": 1}) == EVALUATION


@pytest.mark.parametrize("fields", [{"openin": None}, {"opening": {"numbr": 2}}])
def test_a_field_that_the_record_lacks_is_refused_with_the_nearest_name(fields):
    with pytest.raises(TypeError, match=r"has no field 'openin'; did you mean 'opening'|'number'"):
        change(EVALUATION, **fields)


def test_a_value_that_does_not_fit_is_refused():
    with pytest.raises(ValidationError):
        change(EVALUATION, opening={"number": "second"})
