"""Compare what a run uses with the declared intended use: pure rules."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from governance.records.audit import CoverageAudit
from governance.records.people import Declarations, DeclaredScope, Names

INTENDED_USE = "P1-H1"
NO_SCOPE = (
    f"{INTENDED_USE} names no scope to compare the run with; add the key scope to its declaration"
)
_DIVIDED = "fetal brain"  # the plane that is divided into brain planes
_NOT_RECORDED = "not recorded"


@dataclass(frozen=True)
class Used:
    """Images, size and role that a run uses, as far as they are known.

    Attributes:
        planes: Planes of its images.
        brain_planes: Brain planes of its images of the fetal brain.
        machines: Machines of its images.
        n_unrecorded: "plane", "brain plane", "machine" -> images that should have one and do not.
        image_size_px: Side of the synthetic images; None where it is not known.
        output_role: Purpose of the synthetic images; "" where it is not known.
    """

    planes: tuple[str, ...] = ()
    brain_planes: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()
    n_unrecorded: Mapping[str, int] = field(default_factory=dict)
    image_size_px: int | None = None
    output_role: str = ""

    def with_images(self, audit: CoverageAudit) -> "Used":
        """Return a copy with planes and machines taken from the images of a run."""
        planes, n_no_plane = _levels(audit, "plane")
        brain_planes, _ = _levels(audit, "brain_plane")
        machines, n_no_machine = _levels(audit, "machine")
        n_brain = sum(n for name, n in planes.items() if name.casefold() == _DIVIDED)
        return replace(
            self,
            planes=tuple(planes),
            brain_planes=tuple(brain_planes),
            machines=tuple(machines),
            n_unrecorded={
                "plane": n_no_plane,
                "brain plane": max(0, n_brain - sum(brain_planes.values())),
                "machine": n_no_machine,
            },
        )


def _levels(audit: CoverageAudit, attribute: str) -> tuple[dict[str, int], int]:
    """Return the images of every level that occurs, and the number of images without a value."""
    counts = {
        level.level: level.n_images
        for level in audit.levels
        if level.attribute == attribute and level.partition == "all" and level.n_images
    }
    n_unrecorded = counts.pop(_NOT_RECORDED, 0)
    return counts, n_unrecorded


def declared_scope(register: Declarations) -> DeclaredScope | None:
    """Return the scope of the declared intended use; None where none is given."""
    entry = next((d for d in register.declarations if d.id == INTENDED_USE), None)
    return entry.scope if entry is not None else None


def outside(scope: DeclaredScope, used: Used) -> tuple[str, ...]:
    """List everything used that the declared intended use does not cover.

    An image counts as declared by its plane; one of the fetal brain also by its brain plane.
    """
    is_divided = bool(used.brain_planes)
    planes = [name for name in used.planes if not (is_divided and name.casefold() == _DIVIDED)]
    if not _whole_brain(scope.planes):
        planes += used.brain_planes
    faults = [f"plane {name}" for name in _unnamed(planes, scope.planes)]
    faults += [f"machine {name}" for name in _unnamed(used.machines, scope.machines)]
    low, high = scope.image_size_px
    if used.image_size_px is not None and not low <= used.image_size_px <= high:
        faults.append(f"image size {used.image_size_px} px (declared: {low} to {high} px)")
    if used.output_role and used.output_role not in scope.output_roles:
        faults.append(f"output role {used.output_role}")
    return tuple(faults)


def unknown(scope: DeclaredScope, used: Used) -> tuple[str, ...]:
    """List what cannot be compared with the declared intended use, since it was not recorded."""
    asked = {
        "plane": scope.planes != "any",
        "brain plane": not _whole_brain(scope.planes),
        "machine": scope.machines != "any",
    }
    faults = [
        f"{what} of {used.n_unrecorded[what]:,} images"
        for what, is_asked in asked.items()
        if is_asked and used.n_unrecorded.get(what, 0)
    ]
    if used.image_size_px is None:
        faults.append("image size, as nothing was trained")
    if not used.output_role:
        faults.append("output role")
    return tuple(faults)


def _whole_brain(declared: Names) -> bool:
    return declared == "any" or _DIVIDED in map(str.casefold, declared)


def _unnamed(names: Sequence[str], declared: Names) -> list[str]:
    if declared == "any":
        return []
    known = {name.casefold() for name in declared}
    return [name for name in names if name.casefold() not in known]
