"""The pipeline: two trees, a release and keys in; one signed, verified update file out."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bsipatch import delta, package, trust
from bsipatch import manifest as manifests
from bsipatch.errors import InternalError, PublishError, SignatureError, UsageError, from_os_error
from bsipatch.limits import DEFAULT, Limits
from bsipatch.manifest import Action, Baseline, Manifest, Payload, StacksOn, written_bytes
from bsipatch.output import OutputFile
from bsipatch.parallel import job_count
from bsipatch.publish import platform
from bsipatch.publish.payloads import Made, Share, expected_memory, make
from bsipatch.publish.plan import Job, Plan, plan
from bsipatch.publish.release import Release
from bsipatch.publish.schedule import Task, memory_bound, run
from bsipatch.publish.similarity import Finder
from bsipatch.tree import Tree, compare, frameworks, walk

__all__ = ["BuildProgress", "BuildReport", "FileReport", "build"]

#: called with phase ("walk", "compare", "diff", "verify"), bytes done and bytes in all (0 while
#: unknown); on any thread, but never on two at a time.  An exception it raises stops the build.
BuildProgress = Callable[[str, int, int], None]

#: what a directory, link or record takes on disk
_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class FileReport:
    """One payload. Sizes in bytes; `paths` are all paths that get its content."""

    paths: tuple[str, ...]
    kind: str
    source: str | None
    new_size: int
    payload_size: int
    seconds: float
    way: str = ""  #: how the patch was made where memory was too short for the profile


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What was built. Sizes in bytes, times in seconds; files with the largest payload first."""

    output: Path
    size: int
    manifest_size: int
    old_size: int
    new_size: int
    old_digest: str
    new_digest: str
    manifest: Manifest
    key_ids: tuple[str, ...]
    counts: dict[str, int]
    files: tuple[FileReport, ...]
    seconds: dict[str, float]
    warnings: tuple[str, ...]

    @property
    def ratio(self) -> float:
        """The update's size as a share of the new tree's; 0 when that is empty."""
        return self.size / self.new_size if self.new_size else 0.0


def build(
    base: str | os.PathLike[str],
    new: str | os.PathLike[str],
    release: Release,
    signers: Sequence[trust.PrivateKey],
    output: str | os.PathLike[str],
    *,
    baseline: str | os.PathLike[str] | None = None,
    profile: delta.Profile | str = delta.Profile.MAX,
    jobs: int | None = None,
    memory: int = 0,
    progress: BuildProgress | None = None,
    limits: Limits = DEFAULT,
) -> BuildReport:
    """Writes the update that turns tree `base` into tree `new` to the file `output`.

    Identical files cost nothing, moved ones a line, changed ones the smaller of a patch and the
    compressed file.  What is written is read back and verified before it gets its name; a file of
    that name is then replaced.  The same trees, release, time and version give the same bytes
    whatever `jobs` is.
    baseline: the true baseline's tree, needed (only) when the release stacks on another.
    profile: "fast", "balanced" or "max".  jobs: threads, None for one a processor.
    memory: bytes that all payloads together may allocate while they are made, 0 for no limit; with
    less the build takes longer, and payloads of files that need more get larger.  Without a limit
    no more files are begun at a time than half of the machine's memory should hold.
    Raises UsageError, PublishError, SignatureError (no signer), TreeDriftError (a tree changed
    meanwhile), UnsafePathError, LimitError, ManifestError, and what walk() and diff() raise.
    """
    if memory and memory < limits.least_memory:
        raise UsageError("memory", expected=f"at least {limits.least_memory}", found=memory)
    if not signers:
        raise SignatureError("no key to sign with is given", hint="Name one with --key.")
    if (baseline is None) != (release.stacks_on is None):
        raise UsageError("a baseline tree is given exactly when the release stacks on another")
    _check_beside(Path(output), [Path(tree) for tree in (base, new, baseline) if tree is not None])
    builder = _Builder(Path(base), Path(new), release, signers, Path(output), profile, limits)
    builder.threads = job_count(jobs, limits.max_jobs)
    builder.memory = memory
    builder.report_progress = progress
    return builder.run(None if baseline is None else Path(baseline))


def _check_beside(output: Path, trees: Sequence[Path]) -> None:
    """What is written within a tree would be a file of it, at the latest in the next build."""
    folder = output.parent.resolve()
    for tree in trees:
        if folder.is_relative_to(tree.resolve()):
            raise UsageError(
                f"the update would lie within the tree {tree}",
                file=output,
                hint="Write it to another folder.",
            )


class _Builder:
    """One build's state, step by step."""

    def __init__(
        self,
        base: Path,
        new: Path,
        release: Release,
        signers: Sequence[trust.PrivateKey],
        output: Path,
        profile: delta.Profile | str,
        limits: Limits,
    ) -> None:
        try:
            self.profile = delta.Profile(profile)
        except ValueError:
            raise UsageError("no such profile", found=str(profile)) from None
        self.base, self.new, self.output = base, new, output
        self.release, self.signers, self.limits = release, signers, limits
        self.threads = 1
        self.memory = 0
        self.report_progress: BuildProgress | None = None
        self.seconds: dict[str, float] = {}
        self.warnings: list[str] = []
        self._lock = threading.Lock()

    def run(self, baseline: Path | None) -> BuildReport:
        started = time.monotonic()
        old_tree, new_tree = self._walk(self.base), self._walk(self.new)
        baseline_digest = (self._walk(baseline) if baseline else old_tree).digest
        self._lap("walk", started)
        self._notice(old_tree, new_tree)
        self.output.parent.mkdir(parents=True, exist_ok=True)
        try:
            scratch = tempfile.TemporaryDirectory(prefix=".bsipatch-", dir=self.output.parent)
        except OSError as error:
            raise from_os_error(error, self.output.parent) from error
        with scratch as folder:
            report = self._build(old_tree, new_tree, baseline_digest, Path(folder))
        self._lap("total", started)
        return report

    def _build(
        self, old_tree: Tree, new_tree: Tree, baseline_digest: str, folder: Path
    ) -> BuildReport:
        planned = self._plan(old_tree, new_tree)
        started = time.monotonic()
        made = self._make(planned.jobs, folder)
        self._lap("diff", started)
        manifest = self._manifest(old_tree, new_tree, baseline_digest, planned.actions, made)
        manifests.validate(manifest, limits=self.limits)
        envelope = trust.sign(package.seal(manifests.encode(manifest)), self.signers)
        size = self._write(manifest, envelope, made)
        return BuildReport(
            output=self.output,
            size=size,
            manifest_size=len(envelope),
            old_size=old_tree.size,
            new_size=new_tree.size,
            old_digest=old_tree.digest,
            new_digest=new_tree.digest,
            manifest=manifest,
            key_ids=tuple(sorted({key.key_id for key in self.signers})),
            counts=manifest.count(),
            files=_file_reports(made),
            seconds=self.seconds,
            warnings=tuple(self.warnings),
        )

    # --- the steps ---

    def _walk(self, root: Path) -> Tree:
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            with self._lock:
                done += count
                self._tell("walk", done, 0)

        return walk(
            root,
            xattrs=self.release.xattrs,
            jobs=self.threads,
            progress=advance if self.report_progress else None,
            limits=self.limits,
        )

    def _notice(self, old_tree: Tree, new_tree: Tree) -> None:
        if old_tree.digest == new_tree.digest:
            raise PublishError("both trees are the same", hint="There is nothing to update.")
        broken = [p for f in frameworks(old_tree) for p in f.problems]
        for framework in frameworks(new_tree):
            self.warnings.extend(
                f"{framework.path or '.'}: {problem}"
                for problem in framework.problems
                if problem not in broken
            )
        removed = sum(d.kind == "removed" for d in compare(old_tree, new_tree))
        if removed * 2 > len(old_tree):
            self.warnings.append(
                f"{removed} of {len(old_tree)} paths are removed: are these the right trees?"
            )

    def _plan(self, old_tree: Tree, new_tree: Tree) -> Plan:
        """What is to be done, after a look into files that may have been renamed or divided."""
        started = time.monotonic()
        finder = Finder(self.base, self.new, tick=lambda: self._tell("compare", 0, 0))
        planned = plan(old_tree, new_tree, finder)
        self._lap("compare", started)
        return planned

    def _make(self, jobs: Sequence[Job], folder: Path) -> list[Made]:
        """Payloads in the jobs' order; the largest files are begun first."""
        results: dict[int, Made] = {}
        needs = [expected_memory(job, self.profile) for job in jobs]
        if self.memory:
            needs = [min(need, self.memory) for need in needs]

        def work(index: int, threads: int, progress: Share) -> None:
            results[index] = make(
                jobs[index],
                self.base,
                self.new,
                folder / str(index),
                profile=self.profile,
                jobs=threads,
                progress=progress,
                limits=self.limits,
                # By what the file needs, not by what others leave: others depend on timing.
                memory=needs[index] if self.memory else 0,
            )

        run(
            [Task(job.size, need) for job, need in zip(jobs, needs, strict=True)],
            work,
            threads=self.threads,
            memory=self.memory or memory_bound(),
            tell=lambda done, total: self._tell("diff", done, total),
        )
        return [results[index] for index in range(len(jobs))]

    def _manifest(
        self,
        old_tree: Tree,
        new_tree: Tree,
        baseline_digest: str,
        actions: Iterable[Action],
        made: Sequence[Made],
    ) -> Manifest:
        release = self.release
        found_platform, found_architectures = self._target(new_tree)
        payloads, payload_actions = _place(old_tree, new_tree, made)
        created, expires = release.times()
        draft = Manifest(
            format=manifests.FORMAT,
            product=release.product,
            platform=release.platform or found_platform,
            architectures=release.architectures or found_architectures,
            version=release.version,
            letter=release.letter,
            build=release.build,
            baseline=Baseline(
                version=release.baseline_version or release.version,
                build=release.baseline_build,
                digest=baseline_digest,
            ),
            result_digest=new_tree.digest,
            actions=tuple(sorted([*actions, *payload_actions], key=lambda a: a.path.encode())),
            payloads=payloads,
            required_space=0,
            activation=release.activation,
            created=created,
            expires=expires,
            security=release.security,
            release_notes=release.release_notes,
            stacks_on=(
                StacksOn(
                    letter=release.stacks_on[0],
                    build=release.stacks_on[1],
                    digest=old_tree.digest,
                )
                if release.stacks_on
                else None
            ),
            xattrs=release.xattrs,
            health=release.health,
            supersedes=release.supersedes,
        )
        # Every entry may need a block for itself (hard links and clones need their directories).
        space = written_bytes(draft) + _BLOCK * (len(new_tree) + 2)
        return msgspec.structs.replace(draft, required_space=space)

    def _target(self, tree: Tree) -> tuple[str, tuple[str, ...]]:
        if self.release.platform and self.release.architectures:
            return self.release.platform, self.release.architectures
        targets = []
        for entry in tree.files:
            target = platform.detect_file(self.new / entry.path)
            if target is not None:
                targets.append(target)
        return platform.combine(targets)

    def _write(self, manifest: Manifest, envelope: bytes, made: Sequence[Made]) -> int:
        started = time.monotonic()
        policy = trust.Policy(
            [key.public for key in self.signers], len({key.key_id for key in self.signers})
        )
        with OutputFile(self.output) as out:
            size = package.write(out, envelope, [one.file for one in made])
            self._lap("write", started)
            self._verify(out.fd, manifest, policy, size)
            out.commit()
        return size

    def _verify(self, fd: int, manifest: Manifest, policy: trust.Policy, size: int) -> None:
        started = time.monotonic()
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            self._tell("verify", done, manifest.payload_size)

        def opened(envelope: bytes) -> bytes:
            return trust.verify(envelope, policy, limits=self.limits).payload

        with package.Package.open(fd, opened, limits=self.limits) as written:
            written.verify_payloads(advance)
            if written.manifest != manifest or written.size != size:
                raise InternalError("the update reads back differently", file=self.output)
        self._lap("verify", started)

    # --- helpers ---

    def _tell(self, phase: str, done: int, total: int) -> None:
        if self.report_progress is not None:
            self.report_progress(phase, done, total)

    def _lap(self, name: str, started: float) -> None:
        self.seconds[name] = time.monotonic() - started


def _place(
    old_tree: Tree, new_tree: Tree, made: Sequence[Made]
) -> tuple[tuple[Payload, ...], list[Action]]:
    """Gives each payload its offset, and each of its paths an action."""
    payloads: list[Payload] = []
    actions: list[Action] = []
    offset = 0
    for index, one in enumerate(made):
        payloads.append(msgspec.structs.replace(one.payload, offset=offset))
        offset += one.payload.length
        for path in one.job.paths:
            old, new = old_tree.get(path), new_tree.get(path)
            assert new is not None
            source = one.source
            actions.append(
                Action(
                    do="add" if source is None else "patch",
                    path=path,
                    old=None if old is None else old.state,
                    new=new.state,
                    source=None if source is None or source.path == path else source.path,
                    payload=index,
                )
            )
    return tuple(payloads), actions


def _file_reports(made: Iterable[Made]) -> tuple[FileReport, ...]:
    reports = [
        FileReport(
            paths=one.job.paths,
            kind=one.payload.kind,
            source=None if one.source is None else one.source.path,
            new_size=one.payload.size,
            payload_size=one.payload.length,
            seconds=one.seconds,
            way=one.way,
        )
        for one in made
    ]
    return tuple(sorted(reports, key=lambda r: (-r.payload_size, r.paths)))
