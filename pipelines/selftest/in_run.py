"""The quick part of the self-test inside a run, before its first step."""

from pipelines.context import RunContext
from pipelines.errors import MachineError
from pipelines.selftest.trials import run_selftest

RECORD = "selftest.json"


def try_guards(context: RunContext) -> None:
    """Try the guards on planted faults and put on record what they did.

    The faults are planted in simulated patients in a temporary folder; the run's own data, ledger
    and keys are not touched. The run goes on whatever this shows: item P4-12 tells it.

    Raises:
        InterruptedByUser: A stop was asked for.
    """
    console, store = context.console, context.store
    try:
        record = run_selftest("quick", console)
    except MachineError as error:
        console.warn(f"the guards were not tried: {error}")
        return
    store.write_document(RECORD, record)
    failed = [trial.name for trial in record.trials if not trial.is_proof]
    store.journal.append("guards tried", {"planted": len(record.trials), "without_proof": failed})
    for name in failed:
        console.warn(f"self-test: the planted fault {name} does not prove its guard; see {RECORD}")
