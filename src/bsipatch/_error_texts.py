"""What each error of bsipatch.errors says: the one table of error texts."""

from __future__ import annotations

#: class name -> (what happened, what to do)
TEXTS: dict[str, tuple[str, str]] = {
    "BsipatchError": ("bsipatch failed", ""),
    "UsageError": ("the request makes no sense as given", "See the command's --help."),
    "ConfigError": ("the configuration is wrong", "Correct the named setting."),
    "NotFoundError": ("not found", "Check the path or name."),
    "ExistsError": (
        "already exists and is never overwritten",
        "Choose another name, or move it away first.",
    ),
    "MissingDependencyError": ("an optional part is not installed", "Install it and try again."),
    "SystemCallError": ("the operating system refused", "Check permissions and the disk."),
    "NoSpaceError": ("not enough free space", "Free some space and try again."),
    "LimitError": (
        "a limit would be exceeded",
        "If the input is trusted, raise the limit named here.",
    ),
    "MemoryLimitError": (
        "the memory budget would be exceeded",
        "Allow more memory, or use fewer jobs or a lighter profile.",
    ),
    "OutOfMemoryError": ("the system refused memory", "Free some memory and try again."),
    "FormatError": ("not in the expected format", "Get the file again from its source."),
    "MagicError": ("not a file of this kind", "Check that this is the file you meant."),
    "VersionError": (
        "written in a format version that this release does not know",
        "Update bsipatch.",
    ),
    "CorruptError": (
        "damaged or not made by bsipatch",
        "Get the file again from its source; do not trust it.",
    ),
    "TruncatedError": ("ends too early", "Get the file again: the transfer was cut short."),
    "ManifestError": ("the manifest breaks the format's rules", "Have the update built again."),
    "UnsafePathError": ("a name that could leave its tree", "Do not trust where this came from."),
    "MismatchError": ("a digest differs from the expected one", "Get the file again."),
    "OldMismatchError": (
        "the old file is not the one the patch was made for",
        "Use the exact build that the patch names.",
    ),
    "NewMismatchError": (
        "the result is not what was promised and was discarded",
        "Get the patch again; if it persists, report it.",
    ),
    "TreeDriftError": (
        "the tree has drifted from its recorded state",
        "Restore the named entry, or run check-store.",
    ),
    "TrustError": ("not trusted", "Do not use it; ask its publisher."),
    "KeyFileError": ("the key file cannot be used", "Give a key made by `bsipatch keygen`."),
    "PassphraseError": ("the private key stays locked", "Give its pass phrase."),
    "SignatureError": ("the signature is missing or wrong", "Do not use it; ask its publisher."),
    "ThresholdError": (
        "not signed by enough trusted keys",
        "Have the remaining key holders sign it.",
    ),
    "ExpiredError": ("outside its time of validity", "Get a fresh one; check this clock."),
    "RollbackError": ("older than what was already accepted", "Get the current one."),
    "EligibilityError": ("not for this device", "Nothing to do: another update will fit."),
    "WrongProductError": ("for another product", "Choose the update of this product."),
    "WrongPlatformError": ("for another platform", "Choose the update of this platform."),
    "WrongBaselineError": (
        "built against another baseline",
        "Choose the update of the installed version.",
    ),
    "PolicyError": ("held back by policy", "See `bsipatch status` for what holds it."),
    "StoreError": ("the store cannot do that", "Run `bsipatch check-store`."),
    "StoreBusyError": ("another process holds the store", "Wait for it to end and try again."),
    "StoreStateError": ("the store's state does not allow it", "See `bsipatch status`."),
    "StoreDamagedError": (
        "the store's records contradict each other",
        "Run `bsipatch check-store`; where that says the same, `bsipatch init` a new store.",
    ),
    "PublishError": ("publishing failed", "See the named step; nothing was published."),
    "FeedError": ("the update feed is unusable", "Try again later; ask its publisher."),
    "TransferError": ("the transfer failed", "Check the connection and try again."),
    "HealthError": ("the health check failed", "The previous generation is live again."),
    "CancelledError": ("stopped on request", "Nothing was changed; run it again to finish."),
    "InternalError": ("a defect in bsipatch", "Please report it, with this message."),
}
