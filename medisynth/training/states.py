"""Training states in a folder: one safetensors file each, digest in the name, two kept a stage."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from governance.records.errors import ResourceError, TrainingError, WeightsError
from medisynth import checkpoint
from medisynth.generator import StageState

N_KEPT = 2
ROOM_LEFT_BYTES = 16 << 20  # for the journal and all else that is written beside
_LONGEST_SLUG = 40


class StateFolder:
    """Keeps the states of one run's stages; fulfils `medisynth.generator.StageStates`.

    A state is committed once `on_commit` has returned: only then are older ones removed. So
    `on_commit` must not return before its line is on disk, or a kill could leave a journal that
    names a removed state.

    Args of the constructor:
        folder: Folder of the files, made if need be. One process writes to it.
        generator: Registered name of the generator; a state of another one is refused.
        committed: Stage to (file name, sha256) of the state that the run's journal names last;
            None or empty for a new run. Files that no journal names are never read.
        on_commit: Called as on_commit(stage, step, file name, sha256) with the file in place.
        write: Writes a whole file or nothing, and flushes it to the disk.
    """

    def __init__(
        self,
        folder: Path,
        *,
        generator: str,
        committed: Mapping[str, tuple[str, str]] | None,
        on_commit: Callable[[str, int, str, str], None],
        write: Callable[[Path, bytes], object],
    ) -> None:
        self._folder, self._generator = folder, generator
        self._on_commit, self._write = on_commit, write
        self._kept = {stage: [entry] for stage, entry in (committed or {}).items()}

    def latest(self, stage: str) -> StageState | None:
        """Return the last committed state of a stage; None when it has none yet.

        Raises:
            WeightsError: The file is missing, damaged, or of another generator or stage.
        """
        if stage not in self._kept:
            return None
        name, digest = self._kept[stage][-1]
        if Path(name).name != name:
            raise WeightsError(f"training state of {stage}: expected a file name, found {name!r}")
        path = self._folder / name
        tensors, metadata = checkpoint.read(path, digest)
        for key, expected in (("generator", self._generator), ("stage", stage)):
            if metadata.get(key) != expected:
                raise WeightsError(
                    f"{path}: expected a training state of {key} {expected!r}, found "
                    f"{metadata.get(key)!r}; resume with the generator that wrote it"
                )
        facts = json.loads(metadata["facts"])
        return StageState(stage, int(metadata["step"]), tensors, facts)

    def commit(self, state: StageState) -> None:
        """Write a state, report it, and only then remove all but the two newest of its stage.

        Raises:
            ResourceError: The disk has no room for it; earlier states are untouched.
            TrainingError: The facts are not JSON data.
        """
        data = checkpoint.encode(state.tensors, self._metadata(state))
        digest = hashlib.sha256(data).hexdigest()
        name = f"state-{slug(state.stage)}-{state.step:08d}-{digest[:12]}.safetensors"
        self._remove_unfinished(state.stage)
        self._require_room(self._folder / name, len(data))
        try:
            self._write(self._folder / name, data)
        except OSError as error:
            raise ResourceError(
                f"{self._folder / name}: cannot be written ({error.strerror or error}); "
                "check permission and free space, then resume the run"
            ) from error
        self._on_commit(state.stage, state.step, name, digest)
        kept = [entry for entry in self._kept.get(state.stage, []) if entry[0] != name]
        self._kept[state.stage] = [*kept, (name, digest)][-N_KEPT:]
        self._remove_old(state.stage)

    def _metadata(self, state: StageState) -> dict[str, str]:
        try:
            facts = json.dumps(dict(state.facts), sort_keys=True, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise TrainingError(
                f"{state.stage}, step {state.step}: expected JSON data with finite numbers as "
                f"facts of the state, found otherwise ({error}); change the stage's `state`"
            ) from error
        return {
            "generator": self._generator,
            "stage": state.stage,
            "step": str(state.step),
            "facts": facts,
        }

    def _require_room(self, path: Path, n_bytes: int) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._folder).free
        if free < n_bytes + ROOM_LEFT_BYTES:
            raise ResourceError(
                f"{path}: expected {n_bytes + ROOM_LEFT_BYTES:,} bytes of free space, found "
                f"{free:,}; make room, then resume the run from its last committed state"
            )

    def _remove_unfinished(self, stage: str) -> None:
        for path in self._folder.glob(f".state-{slug(stage)}-*"):
            path.unlink(missing_ok=True)

    def _remove_old(self, stage: str) -> None:
        """Remove files that are not kept, and files left by a kill before they were journalled."""
        pattern = re.compile(rf"state-{re.escape(slug(stage))}-\d{{8}}-[0-9a-f]{{12}}\.safetensors")
        kept = {name for name, _ in self._kept[stage]}
        for path in self._folder.iterdir():
            if pattern.fullmatch(path.name) and path.name not in kept:
                path.unlink(missing_ok=True)


def slug(stage: str) -> str:
    """Turn a stage's name into a file name; different names stay different."""
    clean = re.sub(r"[^a-z0-9]+", "-", stage.lower()).strip("-")[:_LONGEST_SLUG]
    if clean == stage:
        return clean
    return f"{clean}-{hashlib.sha256(stage.encode()).hexdigest()[:8]}".lstrip("-")
