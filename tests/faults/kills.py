"""SIGKILL at random moments, and going on until the index is done: nothing that was committed is lost or made again."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bagindex.store import SHARD
from faults import steps
from faults.common import Outcome
from faults.forks import Conditions, server
from faults.steps import STEPS, Life, State
from faults.trials import Reference, attempt, readable, whole


def torch_free(
    place: Path, trials: int, seed: int, of: Sequence[str] = tuple(STEPS), images: int = 40, shard: int = 4
) -> Outcome:
    """Live through the steps of an index's life, over and over, killed at a random moment of each step, `trials` times.

    After each kill what is there is looked at (see `trials.readable`), and which images were computed: none of a shard
    that was committed before, and of no more than one shard that is not committed now. A step that comes to its end
    must have come to what it comes to undisturbed.
    """
    outcome = Outcome("SIGKILL at a random moment, torch-free")
    life = Life(place.resolve() / "disk" / "index", images, shard, images + 10)
    undisturbed = _undisturbed(replace(life, folder=place.resolve() / "undisturbed" / "index"), of)
    life.folder.parent.mkdir()
    rng, lives, kept = random.Random(seed), 1, State(refused="IndexNotFoundError")
    names = iter(of)
    step = next(names)
    while outcome.trials < trials:
        reference, seconds = undisturbed[step]
        before = kept
        life.log.unlink(missing_ok=True)
        ended = attempt(step, life, Conditions(kill_after=rng.uniform(0, seconds)))
        where = f"seed {seed}, {step} after {outcome.trials} kills"
        if ended.failure is not None:
            outcome.trial("failed", f"{where}: {ended.failure.trace}")
        kept = server().run(steps.look, life, verify=not ended.killed)
        if ended.killed:
            problems = readable(reference, kept) + _redone(step, life, before, kept)
            outcome.trial(f"killed in {step}", *(f"{where}, and one: {problem}" for problem in problems))
            continue
        outcome.problems += [f"{where}: {problem}" for problem in whole(reference, kept)]
        step = next(names, "") if ended.failure is None else ""
        if not step:  # another life
            lives += 1
            names = iter(of)
            step, kept = next(names), State(refused="IndexNotFoundError")
            shutil.rmtree(life.folder.parent)
            life.folder.parent.mkdir()
    while step:  # the last life is lived to its end
        reference, _ = undisturbed[step]
        ended = attempt(step, life, Conditions())
        state = server().run(steps.look, life, verify=True)
        outcome.problems += [f"seed {seed}, {step} after all kills: {problem}" for problem in whole(reference, state)]
        step = next(names, "") if ended.failure is None else ""
    outcome.counts["whole lives"] = lives
    return outcome.done()


def _undisturbed(life: Life, of: Sequence[str]) -> Mapping[str, tuple[Reference, float]]:
    """What each step begins with and comes to, and how long it takes."""
    life.folder.parent.mkdir()
    found, before = {}, State(refused="IndexNotFoundError")
    for step in of:
        started = time.monotonic()
        attempt(step, life, Conditions()).result()
        seconds = time.monotonic() - started
        after = server().run(steps.look, life, verify=True)
        if after.problems or after.leftovers:
            raise RuntimeError(f"{step} without a fault: {after}")
        found[step] = Reference(step, {}, before, after, ()), seconds
        before = after
    return found


def _redone(step: str, life: Life, before: State, after: State) -> list[str]:
    """What was computed in vain, beyond the one shard that was being made."""
    computed = steps.computed(life)
    if not computed or not life.directory.exists():
        return []
    manifest = life.directory.manifest()
    problems = []
    for model, record in manifest.models.items():
        images = {number for name, number in computed if name == model}
        spans = enumerate(manifest.shards)
        touched = {shard for shard, span in spans if not images.isdisjoint(range(span.first, span.first + span.count))}
        had, has = (_committed(files.files, record.series, len(manifest.shards)) for files in (before, after))
        if step != "restart" and touched & had:
            problems.append(f"{model}: shards {sorted(touched & had)} were committed, and are computed again")
        if len(touched - has) > 1:
            problems.append(f"{model}: shards {sorted(touched - has)} were computed in vain")
    return problems


def _committed(files: Mapping[str, str], series: Iterable[str], shards: int) -> set[int]:
    """The shards that are committed in all of some series."""
    records = [[f"{each}/shard-{shard:05d}/{SHARD}" for each in series] for shard in range(shards)]
    return {shard for shard, names in enumerate(records) if files.keys() >= set(names)}
