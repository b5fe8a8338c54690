"""What keeps a device protected while nobody looks: checks, fetches, installs, reverts.

deciding   what is to be done next, from what was seen; pure
looking    what is seen: the device's state, the store's unfinished business, the memo
early      whether there is anything to do at all, told by a few small files
working    does one step after the other until there is nothing to do but wait
reaching   the feed and an installer under the policy, for that
reporting  the opt-in report, when it is due
memo       STORE/agent.json: until when, for what, and how often something failed
single     one agent for a store
resident   waits with next to no memory, and starts a process for each piece of work
events     what ends a wait before its time: changed files, programs that ended
children   those processes

Nothing that matters is known to a process alone: killed at any point, the next
one looks, and goes on.
"""

from __future__ import annotations
