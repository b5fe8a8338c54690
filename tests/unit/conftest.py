"""Fixtures that several unit tests share."""

from tests.support.stores import base, store, update

__all__ = ["base", "store", "update"]
