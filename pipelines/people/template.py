"""Files that `init` writes: declarations to fill in, their schema, a first configuration."""

import json
import textwrap
from pathlib import Path
from typing import get_args

from governance.people.intended_use import INTENDED_USE
from governance.policy.load import load_policy
from governance.records.errors import ConfigError
from governance.records.files import write_atomic
from governance.records.people import OutputRole
from governance.records.policy import Item, Policy
from governance.reports.card.fields import DECLARABLE_FIELDS
from pipelines.current_run.identity import tool_version
from pipelines.people.entries import json_schema

CONFIGURATION = "medisynth.yaml"
DECLARATIONS = "declarations.yaml"
SCHEMA = "declarations.schema.json"
MINIMAL = ("P1-H1", "P1-H2", "P3-H1", "P7-H1", "P10-H1")
"""Core entries that one person can give: use, people, population, reader study, deployment."""
_GENERATOR = "dsr-gan"  # that of the default preset
_ONE_RUN = "{config: TODO}"
_SCOPE = f"""\
    # scope:                     # what {{item}} is declared for; a run is compared with it
    #   planes: any              # or a list, e.g. [Trans-thalamic, Trans-cerebellum]
    #   machines: any            # or a list, e.g. [Voluson E6]
    #   image_size_px: {{{{min: 64, max: 256}}}}
    #   output_roles: [research] # {", ".join(get_args(OutputRole))}"""
_WIDTH = 96

_CONFIGURATION_TEXT = f"""\
# Starting configuration of a run: medisynth-gov run {CONFIGURATION}
# Keys left out take the preset's value; config.yaml in the run folder has every value written out.
preset: laptop            # smoke takes about a minute, laptop minutes
seed: 0
# What people declare, and what they waive. A relative path starts at the current folder.
declarations: {DECLARATIONS}
# data:
#   path: ../my-data      # without it, phantoms are simulated
#   digest:               # 64 hexadecimal digits; pins the data set. A run prints the line to copy
# criteria:
#   P3-03: 50             # limits that differ from the project's defaults, by item id
"""

_HEAD = f"""\
# yaml-language-server: $schema={SCHEMA}
#
# What only people can say about a run, one entry an item. An entry counts as declared, not verified;
# it is missing while a value is empty or a placeholder, when its date lies in the future, after the
# day on which it expires, and for a run that it does not apply to. Entries may be removed.
#
# statement        what is declared
# owner_name       who declares it; owner_role: in which role
# date             when, YYYY-MM-DD; expires: the last day on which it holds
# reference        where the proof lies: a document's name, or a file beside this one, whose digest
#                  is then recorded. reference_sha256 (may be left out) must be that file's digest
# applies_to       config: SHA-256 of the run's config.yaml, as a report prints it; and, or instead,
#                  data: digest of the data set; model: generator; version: version of medisynth-gov;
#                  run: run id. Everything named must be the run's
# meaning          author, reviewer or approver
# not_applicable   true where P7-H1 or P10-H1 does not apply; the statement is then the reason
# scope            under P1-H1: what the intended use is declared for; without it P1-01 is not
#                  evaluated. The key output_role of the configuration says what images are for
# signature        medisynth-gov sign-declaration FILE --id P1-H1 --key KEY writes it; any later change
#                  of the entry voids it. key_file (may be left out): public key that must have signed
# card             texts of the model card (under any item), by field
declarations:
"""

_WAIVERS = """
# A waiver accepts that a computed item has not passed. Its status stays what it is; a gate item is
# no longer asked for by the gate, and every report shows the waiver. Items on independence and
# isolation (P4), integrity and data validation are never waived. All keys are required but
# signature and key_file.
waivers: []
#  - id: P5-01
#    author: TODO
#    reason: TODO
#    expires: 2000-01-01
#    applies_to: {config: TODO}
"""


def declarations_template(policy: Policy, *, minimal: bool = False) -> str:
    """Return a declarations file (YAML) with an empty entry for every human item.

    Args:
        policy: Policy whose human items are asked for.
        minimal: Only the entries of `MINIMAL`, for a generator and version instead of one run, so
            that the file can be filled in before there is a run.
    """
    wanted = [i for i in policy.items if i.kind == "human" and (not minimal or i.id in MINIMAL)]
    applies_to = f"{{model: {_GENERATOR}, version: {tool_version()}}}" if minimal else _ONE_RUN
    return _HEAD + "\n".join(_entry(item, applies_to) for item in wanted) + _WAIVERS


def _entry(item: Item, applies_to: str) -> str:
    condition = f" Asked for only if {item.when}." if item.when else ""
    asked = f"{item.item_class.word}: {item.title}.{condition}"
    lines = [
        *textwrap.wrap(
            asked,
            _WIDTH,
            initial_indent="  # ",
            subsequent_indent="  # ",
            break_on_hyphens=False,
        ),
        f"  - id: {item.id}",
        "    statement: TODO",
        "    owner_name: TODO",
        "    owner_role: TODO",
        "    date:",
        "    reference: TODO",
        f"    applies_to: {applies_to}",
        "    meaning:",
        "    expires:",
    ]
    if item.id == INTENDED_USE:
        lines.append(_SCOPE.format(item=item.id))
        lines.append("    card:")
        lines += [f"      {key}: TODO  # {title}" for key, title in DECLARABLE_FIELDS.items()]
    return "\n".join(lines) + "\n"


def write_templates(folder: Path, *, minimal: bool = False) -> tuple[Path, ...]:
    """Write configuration, declarations and schema into a folder; nothing is overwritten.

    Args:
        folder: Folder, made if it is not there.
        minimal: As for `declarations_template`.

    Raises:
        ConfigError: One of the files exists, or the folder is not one.
        RecordWriteError: The folder cannot be written.
    """
    policy = load_policy()
    schema = json.dumps(json_schema(policy, tuple(DECLARABLE_FIELDS)), indent=1, ensure_ascii=False)
    texts = {
        CONFIGURATION: _CONFIGURATION_TEXT,
        DECLARATIONS: declarations_template(policy, minimal=minimal),
        SCHEMA: f"{schema}\n",
    }
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: not a folder; name a folder to write into")
    for name in texts:
        if (folder / name).exists() or (folder / name).is_symlink():
            raise ConfigError(
                f"{folder / name}: exists already and is not overwritten; move it away or name "
                "another folder"
            )
    for name, text in texts.items():
        write_atomic(folder / name, text.encode())
    return tuple(folder / name for name in texts)
