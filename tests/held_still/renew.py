"""Write the stored answers anew, after a change that is meant to change them.

    python -m tests.held_still.renew [NAME ...]

Names are those of the files in `answers`; without a name all are written. No test writes them. The
commit that renews an answer says why it may differ. Digests of trainings are kept by build of torch
and processor: those of this machine are written, those of others stay, so that whoever changes what
is learnt removes them. The run folders are never renewed.
"""

import json
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.held_still import ask, train
from tests.held_still.corpus import ANSWERS, NAMES, Corpus


def _of_the_corpus(question: Callable[[Corpus], dict[str, Any]]) -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        return question(Corpus(Path(folder)))


def _judged_otherwise(corpus: Corpus) -> dict[str, Any]:
    return {name: ask.judged_otherwise(corpus.run(name)) for name in NAMES}


def _trainings() -> dict[str, Any]:
    path = ANSWERS / "training.json"
    known = json.loads(path.read_bytes()) if path.exists() else {}
    return known | {train.build(): {name: train.training_digests(name) for name in train.STEPS}}


ASKED: Mapping[str, Callable[[], Any]] = {
    "verify": partial(_of_the_corpus, ask.verifications),
    "changed_bytes": partial(_of_the_corpus, ask.of_changed_bytes),
    "reports": partial(_of_the_corpus, ask.all_reports),
    "judged_otherwise": partial(_of_the_corpus, _judged_otherwise),
    "document_schemas": ask.document_schemas,
    "help": ask.help_texts,
    "error_codes": ask.error_codes,
    "phantoms": ask.phantom_digests,
    "training": _trainings,
}


def renew(names: list[str]) -> None:
    """Write the answers named; KeyError for a name that is none."""
    ANSWERS.mkdir(exist_ok=True)
    for name in names or ASKED:
        text = json.dumps(ASKED[name](), indent=1, sort_keys=True, ensure_ascii=False)
        (ANSWERS / f"{name}.json").write_text(text + "\n", "utf-8")
        sys.stdout.write(f"answers/{name}.json\n")


if __name__ == "__main__":
    renew(sys.argv[1:])
