"""How connections to Postgres are made, unless their URL says otherwise."""

from __future__ import annotations

# a server that vanished is noticed in a minute
CONNECT_ARGS = {
    "connect_timeout": 10,
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 40_000,
    "fallback_application_name": "batchata",
}
