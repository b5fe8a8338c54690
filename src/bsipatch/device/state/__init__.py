"""What the device side writes down below STORE/feed, each record durable and replaced whole."""

from __future__ import annotations
