"""`bsipatch feed ...`: a publisher's side of a feed, one module for each command."""

from __future__ import annotations

#: what the group's own help page says
HELP = """Publish updates in a feed: to channels, in stages, and take them back.

Every change is one atomic publication; --dry-run shows it first, as a diff.
Every command takes --json. BSIPATCH_FEED stands in for --feed, BSIPATCH_FEED_KEYS for --keys.

Examples:

  bsipatch feed init --feed /srv/feed --keys keys

  bsipatch feed add update.bsi --channel beta --trust public.pem --percent 5,25,100

  bsipatch feed status
"""

#: name -> module in this package, in the help page's order
COMMANDS: dict[str, str] = {
    "init": "init",
    "add": "add",
    "promote": "promote",
    "rollout": "rollout",
    "pause": "pause",
    "resume": "resume",
    "withdraw": "withdraw",
    "supersede": "supersede",
    "expire": "expire",
    "refresh": "refresh",
    "rotate": "rotate",
    "sign": "sign",
    "status": "status",
    "check": "check",
    "tickets": "tickets",
}
