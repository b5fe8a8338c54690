"""The local interface of a device: HTTP on a Unix socket for programs, on loopback for the page.

    api       the one application that answers both
    access    who may ask: peers of the socket by their credentials, browsers by their session
    peers     who is at the other end of a local connection
    tokens    one-time tokens, sessions, CSRF tokens
    serving   a server that sleeps while nobody asks
    page/     what the browser gets: no build step, no third party's content

docs/local-api.md and docs/settings-page.md describe them.
"""

from __future__ import annotations
