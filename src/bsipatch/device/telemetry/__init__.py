"""What a device tells about itself: metrics, one view of its logs, opt-in reports.

Nothing is kept in the process: every figure is computed from the store's history
and the device's log, so it survives kill and reboot as they do.
"""

from __future__ import annotations
