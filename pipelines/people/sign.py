"""`sign-declaration`: signs one entry of a declarations file with a person's key.

Only the signature's line changes; comments and layout of the file stay.
"""

import copy
from pathlib import Path
from typing import Any

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from governance.people.rules import is_untouched
from governance.people.signature import check_entry_signature, sign_entry
from governance.policy.load import load_policy
from governance.records.errors import ConfigError
from governance.records.files import write_atomic
from governance.records.people import Declaration, Declarations, Waiver
from governance.records.yaml_text import read_yaml
from governance.signing.keys import load_signer
from pipelines.people.read import read_declarations

_LINE = "signature"


def sign_declaration(file: Path, item_id: str, key: str) -> str:
    """Sign an entry with a person's key, in the file; return the id of the key.

    Args:
        file: Declarations file.
        item_id: Item that is declared or waived.
        key: File of an Ed25519 private key, as `keygen` makes it.

    Raises:
        DeclarationsError: The file cannot be read or used.
        ConfigError: There is no such entry, it is not filled in, another key has signed it, or the
            file's layout leaves no line for the signature.
        SigningKeyError: The key cannot be used.
        RecordWriteError: The file cannot be written.
    """
    read = read_declarations(str(file), load_policy())
    section, place, entry = _find(read.document, item_id, file)
    if isinstance(entry, Declaration) and is_untouched(entry):
        raise ConfigError(f"{file}: {item_id} still holds the template's placeholder; fill it in")
    signer = load_signer(key, name="--key")
    key_id = str(signer.record.key_id)
    if entry.key_file_id not in (None, key_id):
        raise ConfigError(
            f"{file}: {item_id} is to be signed with key id {entry.key_file_id} of "
            f"{entry.key_file}, found {key_id}"
        )
    before = check_entry_signature(entry)
    if before.state == "valid" and before.key_id != key_id:
        raise ConfigError(
            f"{file}: {item_id} is signed by key id {before.key_id} already; remove its line "
            f"{_LINE!r} to sign it anew"
        )
    signature = sign_entry(entry, signer)
    data = _with_signature(read.data, (section, place), signature, f"{file}: {item_id}")
    write_atomic(file.expanduser().resolve(), data)
    return key_id


def _find(
    document: Declarations, item_id: str, file: Path
) -> tuple[str, int, Declaration | Waiver]:
    """Return section, position and entry of an item; ConfigError if it has none."""
    for section in ("declarations", "waivers"):
        entries: tuple[Declaration | Waiver, ...] = getattr(document, section)
        for place, entry in enumerate(entries):
            if entry.id == item_id:
                return section, place, entry
    known = [d.id for d in document.declarations] + [w.id for w in document.waivers]
    raise ConfigError(
        f"--id: {file} has no entry for {item_id[:80]!r}; it has {', '.join(known) or 'none'}"
    )


def _with_signature(data: bytes, where: tuple[str, int], signature: str, name: str) -> bytes:
    """Return the file with the entry's signature line added or replaced, nothing else changed."""
    text = data.decode("utf-8")
    file = read_yaml(data, name)
    entry = _entry_node(file.root, where)
    if entry is None or entry.flow_style:
        raise ConfigError(f"{name}: write the entry with one key a line, then sign it")
    lines = text.splitlines(keepends=True)
    by_name = {key.value: (key, value) for key, value in entry.value}
    id_key, id_value = by_name["id"]
    after = id_value.end_mark.line
    end = "\r\n" if lines[after].endswith("\r\n") else "\n"
    line = f"{' ' * id_key.start_mark.column}{_LINE}: {signature}{end}"
    if _LINE in by_name:
        key, value = by_name[_LINE]
        lines[key.start_mark.line : key.start_mark.line + 1] = [line]
        if not isinstance(value, ScalarNode) or value.end_mark.line > key.start_mark.line + 1:
            raise ConfigError(f"{name}: its {_LINE} spans several lines; remove it, then sign")
    else:
        if not lines[after].endswith("\n"):
            lines[after] += end
        lines.insert(after + 1, line)
    changed = "".join(lines).encode()
    wanted: Any = copy.deepcopy(file.content)
    wanted[where[0]][where[1]][_LINE] = signature
    if read_yaml(changed, name).content != wanted:
        raise ConfigError(
            f"{name}: the signature does not fit into the layout of the file; write the entry with "
            "one key a line, the id first"
        )
    return changed


def _entry_node(tree: Node | None, where: tuple[str, int]) -> MappingNode | None:
    """Return the YAML node of the entry; None if the tree has no such mapping."""
    if not isinstance(tree, MappingNode):
        return None
    for key, value in tree.value:
        if key.value == where[0] and isinstance(value, SequenceNode):
            node = value.value[where[1]]
            return node if isinstance(node, MappingNode) else None
    return None
