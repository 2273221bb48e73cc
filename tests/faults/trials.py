"""What every fault on files is held against: what a step begins with and comes to when nothing goes wrong.

After a fault, the index must be what it was, or what it is to be, or be cleanly refused where there was none; and the
step, made again, must come to the same files, byte by byte, and the same answers.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from faults import steps
from faults.forks import Conditions, Ended, server
from faults.native import Arming, Operation, read_journal
from faults.replay import Disk, Tree, read_tree, write_tree
from faults.steps import STEPS, Life, State

DROPPING = frozenset({"remove", "restart"})
"""Steps that are to drop committed shards."""


@dataclass(frozen=True)
class Reference:
    """A step without faults.

    Attributes:
        step: its name.
        tree: what the folder holds before it.
        before, after: what the index is.
        operations: what it does to files.
    """

    step: str
    tree: Tree
    before: State
    after: State
    operations: Sequence[Operation]

    def disk(self, root: Path) -> Disk:
        """The disk before it, for operations below `root`."""
        return Disk(root, self.tree)


@cache
def references() -> dict[str, Reference]:
    """Every step of a small index's life; the journals' paths are below `DISK`.

    Raises:
        RuntimeError: the journal of a step does not give what the step left: something goes past the shim.
    """
    found = {}
    with tempfile.TemporaryDirectory(prefix="bagindex-faults-") as folder:
        life = Life(Path(folder).resolve() / "disk" / "index")
        life.folder.parent.mkdir()
        state = server().run(steps.look, life)
        for step in STEPS:
            tree = read_tree(life.folder.parent)
            journal = Path(folder) / f"{step}.journal"
            attempt(step, life, Conditions(Arming(str(life.folder.parent), journal=str(journal)))).result()
            operations = [moved(each, life.folder.parent) for each in read_journal(journal)]
            replayed = Disk(DISK, tree)
            for operation in operations:
                replayed.apply(operation)
            if replayed.now() != read_tree(life.folder.parent):
                raise RuntimeError(f"what {step} writes goes past the shim")
            before, state = state, server().run(steps.look, life, verify=True)
            if state.problems or state.refused or state.leftovers:
                raise RuntimeError(f"{step} without a fault: {state}")
            found[step] = Reference(step, tree, before, state, operations)
    return found


DISK = Path("/disk")


def moved(operation: Operation, root: Path) -> Operation:
    """An operation with paths below `DISK` instead of another folder."""
    path, other = (
        str(DISK / Path(each).relative_to(root)) if each else "" for each in (operation.path, operation.other)
    )
    return Operation(operation.kind, operation.error, operation.offset, path, other, operation.data)


def attempt(step: str, life: Life, conditions: Conditions) -> Ended:
    """Make a step under conditions."""
    return server().under(conditions, STEPS[step], life)


def begin(reference: Reference, place: Path) -> Life:
    """The index as it is before a step, in a folder of its own below `place`."""
    return put(reference.tree, place)


def put(tree: Tree, place: Path) -> Life:
    """An index from what its disk holds."""
    write_tree(tree, place.resolve() / "disk")
    return Life(place.resolve() / "disk" / "index")


class Judge:
    """Judges what faults leave on a disk, each state of it once.

    States are taken for one where all is the same but what is temporary: a reader opens nothing of it, and a writer's
    first act is to remove it unopened (tests/test_faults_failpoints.py puts rubbish there, of every kind).
    """

    def __init__(self) -> None:
        self._judged: set[tuple[str, str]] = set()

    def __len__(self) -> int:
        """So many states were judged."""
        return len(self._judged)

    def judge(self, reference: Reference, tree: Tree, place: Path) -> tuple[bool, list[str]]:
        """Put a state on a disk, look at it, make the step again: whether this was new, and what is wrong with it."""
        key = reference.step, fingerprint(tree)
        if key in self._judged:
            return False, []
        self._judged.add(key)
        return True, examine(reference, put(tree, place))


def examine(reference: Reference, life: Life) -> list[str]:
    """Look at an index after a fault in a step, then make the step again: all that is not as it should be."""
    ended = server().under(Conditions(), steps.look_and_go_on, reference.step, life)
    if ended.failure is not None:
        return [f"it cannot be made again: {ended.failure.kind}: {ended.failure.message}"]
    left, made = ended.result()
    return readable(reference, left) + whole(reference, made)


def survived(reference: Reference, life: Life) -> list[str]:
    """What is wrong with an index after a step was done, and then the power went: what was removed may be back, if only
    under a temporary name, which the next writer removes.
    """
    return whole(reference, replace(server().run(steps.look, life), leftovers=()))


def readable(reference: Reference, state: State) -> list[str]:
    """What is wrong with an index after a step was cut short."""
    problems = list(state.problems)
    if state.refused is not None and reference.before.refused is None and reference.step != "restart":
        problems.append(f"there was an index, and now it says {state.refused}")
    if state.refused is None and state.answers not in (reference.before.answers, reference.after.answers):
        problems.append("the answers are neither those before nor those after")
    had = steps.shards_of(reference.before.files)
    has = steps.shards_of(state.files)
    # A compaction takes shards' own evidence away, once it is merged: where it is then, `State.problems` looks.
    merged = {each for each in had.items() if reference.step == "compact" and each[0].endswith("/evidence.parquet")}
    if reference.step not in DROPPING and not had.items() - merged <= has.items():
        problems.append(f"committed shards are lost or changed: {sorted(had.items() - merged - has.items())}")
    known = had | steps.shards_of(reference.after.files) if reference.step != "restart" else None
    if known is not None and not has.items() <= known.items():
        problems.append(f"committed shards are not what they will be: {sorted(has.items() - known.items())}")
    return problems


def whole(reference: Reference, state: State) -> list[str]:
    """What is wrong with an index after a step was made, at last."""
    problems = list(state.problems)
    if state.refused is not None:
        problems.append(f"it is made, and it says {state.refused}")
    if state.files != reference.after.files:
        names = {name for name, _ in state.files.items() ^ reference.after.files.items()}
        problems.append(f"it has other files than it should: {sorted(names)}")
    if state.answers != reference.after.answers:
        problems.append("it gives other answers than it should")
    if state.leftovers:
        problems.append(f"it leaves {state.leftovers}")
    return problems


def is_temporary(path: str) -> bool:
    """Whether a path is that of a temporary file or folder, or is in such a folder."""
    return ".tmp-" in path


def fingerprint(tree: Tree) -> str:
    """A digest of what is on a disk, but for what is temporary and the lock's contents."""
    digest = hashlib.sha256()
    for path, data in sorted(tree.items()):
        if not is_temporary(path):
            hidden = data is None or path.endswith("/LOCK")
            name = re.sub(r"catalog-\d+", "catalog", path)  # numbers begin anywhere
            digest.update(f"{name} {data is None} ".encode() + hashlib.sha256(b"" if hidden else data).digest())
    return digest.hexdigest()
