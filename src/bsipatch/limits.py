"""Every limit of bsipatch in one place.

Limits bound what untrusted bytes can make us do.  The defaults fit the largest
frameworks known with room to spare; callers that know better (the signed
manifest states the exact decoded size of each patch) pass a copy with smaller
values: ``DEFAULT.but(max_plain=...)``.
"""

from __future__ import annotations

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30


class Limits:
    """Upper bounds. Sizes are in bytes, times in seconds unless the name says otherwise.

    A value that never changes.  Written out because `dataclasses` loads slower than a
    small patch is applied.
    """

    # --- one file's patch ---
    #: largest old or new file
    max_file_size: int = 64 * GIB
    #: largest patch of one file
    max_patch_size: int = 16 * GIB
    #: sum of a patch's streams once decoded; no more than memory_budget could hold
    max_plain: int = 4 * GIB
    #: streams in a patch
    max_streams: int = 64
    #: largest window a zstd stream may ask for, as a power of two
    max_zstd_window_log: int = 27
    #: what the core may allocate to apply one patch; 0 for no limit
    memory_budget: int = 4 * GIB
    #: what each thread that makes windows may hold beside what a manifest says of its patch
    thread_memory: int = 16 * MIB
    #: smallest memory budget for making patches: the interpreter takes more than less could save
    least_memory: int = 32 * MIB
    #: bytes of the new file made at a time by one thread, a multiple of 64 KiB
    window_size: int = 1 * MIB
    #: threads for one operation, whatever --jobs says
    max_jobs: int = 256

    # --- trees ---
    #: entries (files, directories, links) of one tree
    max_entries: int = 1_000_000
    #: bytes of one name (UTF-8)
    max_name: int = 255
    #: bytes of one path within a tree (UTF-8)
    max_path: int = 4096
    #: directories inside one another
    max_depth: int = 128
    #: bytes of a symlink's target
    max_link_target: int = 4095
    #: extended attributes of one entry, and bytes of one name and one value
    max_xattrs: int = 128
    max_xattr_name: int = 255
    max_xattr_value: int = 64 * KIB
    #: sum of all file sizes of a tree
    max_tree_size: int = 1024 * GIB

    # --- manifests and packages ---
    #: largest update file
    max_package_size: int = 64 * GIB
    #: bytes of a manifest's canonical form
    max_manifest: int = 256 * MIB
    #: bytes of a signed envelope beside its payload
    max_envelope: int = 64 * KIB
    #: signatures in an envelope, and keys in a trust set
    max_signatures: int = 64
    max_keys: int = 64
    #: payloads in a package
    max_payloads: int = 1_000_000
    #: characters of one text field (version, product, title ...)
    max_text: int = 1024
    #: characters of one long text (release notes, impact)
    max_long_text: int = 64 * KIB
    #: CVE entries of an update's security content
    max_security_items: int = 4096
    #: architectures, processes to relaunch, and the like
    max_list: int = 256

    # --- files that people write ---
    #: bytes of a key file
    max_key_file: int = 64 * KIB
    #: bytes of release.toml and of the config file
    max_config_file: int = 1 * MIB
    #: bytes of a pass phrase
    max_passphrase: int = 1024

    # --- store ---
    #: bytes of one of the store's own records
    max_record: int = 16 * MIB
    #: generations kept besides the baseline and the live one
    max_generations: int = 64
    #: entries of the history that are kept
    max_history: int = 10_000
    #: starts that a new generation gets to prove itself
    trial_starts: int = 3
    #: starts of a trial that may end early for other reasons without being counted
    trial_blips: int = 10
    #: improvements that are remembered as not wanted; the oldest go first
    max_bars: int = 256
    #: free space that must remain on the disk after staging
    reserve_space: int = 64 * MIB
    #: seconds to wait for another process to leave the store; 0 means not at all
    lock_timeout: float = 0.0

    # --- the update feed ---
    #: bytes of each metadata role
    max_root: int = 512 * KIB
    max_timestamp: int = 16 * KIB
    max_snapshot: int = 2 * MIB
    max_targets: int = 16 * MIB
    #: root rotations walked in one refresh
    max_root_rotations: int = 256
    #: delegated roles visited for one target
    max_delegations: int = 32
    #: bytes of a device's ticket beside its envelope, and updates that one names
    max_ticket: int = 64 * KIB
    max_ticket_updates: int = 1024
    #: seconds for a connection and for a pause within a transfer
    connect_timeout: float = 15.0
    read_timeout: float = 30.0
    #: least bytes a second, averaged over a minute, before a transfer is given up
    min_rate: int = 1 * KIB
    #: seconds a health check may take
    health_timeout: float = 60.0
    #: health checks of one update or device, and the most seconds that one may ask for
    max_health_checks: int = 64
    max_health_seconds: int = 3600
    #: bytes of a health command's output that are kept
    max_health_output: int = 16 * KIB

    # --- interoperation ---
    #: largest file that a bsdiff patch may read or make (bsdiff4 works in memory)
    max_bsdiff_size: int = 2 * GIB - 1

    def __init__(self, **changes: float) -> None:
        """The defaults, but for what is named. Raises TypeError for a name that is none."""
        for name, value in changes.items():
            if name not in Limits.__annotations__:
                raise TypeError(f"there is no limit {name!r}")
            self.__dict__[name] = value

    def but(self, **changes: float) -> Limits:
        """A copy in which what is named is otherwise. Raises TypeError as above."""
        return Limits(**{**self.__dict__, **changes})

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"limits do not change; use but({name}=...)")

    def _values(self) -> tuple[float, ...]:
        return tuple(getattr(self, name) for name in Limits.__annotations__)

    def __eq__(self, other: object) -> bool:
        return self._values() == other._values() if isinstance(other, Limits) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        return f"Limits({', '.join(f'{name}={value}' for name, value in self.__dict__.items())})"


#: What is used where the caller says nothing.
DEFAULT = Limits()
