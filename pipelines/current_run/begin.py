"""What is settled before the first step: what training must not reach, and the software in use."""

from collections.abc import Callable, Iterator
from pathlib import Path

from governance.checks.run_documents import Documents
from governance.confinement.confine import readable_root
from governance.evidence.store import EvidenceStore
from governance.records.errors import ConfigError
from governance.records.run import RunIdentity
from pipelines.config.model import RunConfig
from pipelines.current_run.identity import TEST_REPORTS, environment, installed_packages
from pipelines.current_run.software import write_bill_of_materials
from pipelines.current_run.suite_report import DOCUMENT as SUITE_REPORT
from pipelines.current_run.suite_report import find_suite_report
from pipelines.current_run.vulnerability_scan import ReadScan
from pipelines.fetch.cache import image_cache


def refuse_readable_folders(config: RunConfig) -> None:
    """Refuse a configuration under which the training process could not be confined.

    Raises:
        ConfigError: Data, keys, ledger or workspace lie in a folder that training must read, e.g.
            the Python installation.
    """
    for key, path in _folders(config):
        root = readable_root(path)
        if root is not None:
            raise ConfigError(
                f"{key}: {path} is in {root}, which the training process must be able to read "
                "(interpreter, packages, system); choose a folder outside"
            )


def _folders(config: RunConfig) -> Iterator[tuple[str, Path]]:
    if config.data.path is not None:
        yield "data.path", _absolute(config.data.path)
    for name in ("key_dir", "ledger_dir"):
        folder = config.seal.folder(name)
        if folder is not None:
            yield f"seal.{name}", folder
    key = config.signing.key
    if key is not None and Path(key).expanduser().is_file():  # not the address of a key service
        yield "signing.key", _absolute(key)
    cache = image_cache(config.data)
    if cache is not None:
        yield "data.cache", cache
    yield "workspace", config.workspace_path


def _absolute(path: str) -> Path:
    return Path(path).expanduser().resolve()


def write_known(
    identity: RunIdentity,
    scan: ReadScan | None,
    store: EvidenceStore,
    warn: Callable[[str], None],
) -> None:
    """Put on record what others found out before: a scan that was given, tests of the commit."""
    if scan is not None:
        scan.put_on_record(store)
    if tests := find_suite_report(identity.code_commit, TEST_REPORTS, warn):
        store.write_document(SUITE_REPORT, tests)


def write_used(store: EvidenceStore) -> None:
    """Put on record what the run ran on, and the bill of materials of it."""
    documents, installed = Documents.load(store.run_dir), installed_packages()
    training = documents.training
    device = training.compute_device if training else "none: nothing was trained"
    store.write_document("environment.json", environment(device, installed))
    parts = (training, documents.evaluation)
    pretrained = [component for part in parts if part for component in part.pretrained]
    write_bill_of_materials(documents.need(RunIdentity), installed, pretrained, store)
