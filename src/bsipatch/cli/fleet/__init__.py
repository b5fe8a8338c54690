"""`bsipatch fleet ...`: what the devices of a fleet tell their publisher."""

from __future__ import annotations

#: what the group's own help page says
HELP = """See how a rollout goes, from the reports that devices send when their owners allow it.

Every command takes --json.

Examples:

  bsipatch fleet collect --into reports/

  bsipatch fleet report reports/ --html fleet.html
"""

#: name -> module in this package, in the help page's order
COMMANDS: dict[str, str] = {"collect": "collect", "report": "report"}
