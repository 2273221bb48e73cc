"""SIGKILL at random moments, and going on until the index is done: nothing that was committed is lost or made again."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from faults import steps
from faults.common import Outcome
from faults.forks import Conditions, server
from faults.steps import STEPS, Life, State
from faults.trials import Reference, attempt, readable, whole

_LIFE = {"images": 40, "shard": 4, "grown": 50}


def torch_free(place: Path, trials: int, seed: int, of: Sequence[str] = tuple(STEPS)) -> Outcome:
    """Live through the steps of an index's life, over and over, killed at a random moment of each step, `trials` times.

    After each kill what is there is looked at (see `trials.readable`), and which images were computed: none of a shard
    that was committed before, and of no more than one shard that is not committed now. A step that comes to its end
    must have come to what it comes to undisturbed.
    """
    outcome = Outcome("SIGKILL at a random moment, torch-free")
    undisturbed = _undisturbed(place / "undisturbed", of)
    rng, lives = random.Random(seed), 1
    life, kept = Life(place.resolve() / "disk" / "index", **_LIFE), State(refused="IndexNotFoundError")
    life.folder.parent.mkdir()
    names = iter(of)
    step = next(names)
    while outcome.trials < trials:
        reference, seconds = undisturbed[step]
        before = kept
        life.log.unlink(missing_ok=True)
        ended = attempt(step, life, Conditions(kill_after=rng.uniform(0, seconds)))
        kept = server().run(steps.look, life, verify=not ended.killed)
        if ended.killed:
            problems = readable(reference, kept) + _redone(step, life, before, kept)
            outcome.trial(f"killed in {step}", *(f"seed {seed}, kill {outcome.trials + 1}, {step}: {p}" for p in problems))
            continue
        ended.result()
        outcome.problems += [f"seed {seed}, {step} after {outcome.trials} kills: {p}" for p in whole(reference, kept)]
        step = next(names, "")
        if not step:  # another life
            lives += 1
            names = iter(of)
            step, kept = next(names), State(refused="IndexNotFoundError")
            shutil.rmtree(life.folder.parent)
            life.folder.parent.mkdir()
    while step:  # the last life is lived to its end
        reference, _ = undisturbed[step]
        attempt(step, life, Conditions()).result()
        state = server().run(steps.look, life, verify=True)
        outcome.problems += [f"seed {seed}, {step} after all kills: {p}" for p in whole(reference, state)]
        step = next(names, "")
    outcome.counts["whole lives"] = lives
    return outcome.done()


def _undisturbed(place: Path, of: Sequence[str]) -> Mapping[str, tuple[Reference, float]]:
    """What each step begins with and comes to, and how long it takes."""
    place.mkdir()
    life = Life(place.resolve() / "index", **_LIFE)
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
        touched = {
            shard for shard, span in enumerate(manifest.shards) if images & set(range(span.first, span.first + span.count))
        }
        had, has = (
            {n for n in range(len(manifest.shards)) if all(f"{s}/shard-{n:05d}/shard.json" in files for s in record.series)}
            for files in (before.files, after.files)
        )
        if step != "restart" and touched & had:
            problems.append(f"{model}: shards {sorted(touched & had)} were committed, and are computed again")
        if len(touched - has) > 1:
            problems.append(f"{model}: shards {sorted(touched - has)} were computed in vain")
    return problems
