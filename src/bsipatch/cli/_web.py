"""What `settings` and `serve` share: the parts of the local interface, which are an extra."""

from __future__ import annotations


def needed() -> None:
    """Raises MissingDependencyError unless the server's packages are there."""
    try:
        import starlette
        import uvicorn  # noqa: F401
    except ImportError as error:
        from ..errors import MissingDependencyError

        raise MissingDependencyError(
            f"the settings page and the local interface need {error.name}",
            hint="pip install 'bsipatch[settings]'",
        ) from error
    del starlette
