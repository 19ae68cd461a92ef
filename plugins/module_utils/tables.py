# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry's tables and how an older registry gets them. Who reads and writes which is said above each group."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

SCHEMA_VERSION = 3

metadata = sa.MetaData()
schema_version = sa.Table(
    "schema_version",
    metadata,
    sa.Column("id", sa.Integer, sa.CheckConstraint("id = 1"), primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
)

# --- tenants: registry.py ---------------------------------------------------------------------------------------------

tenants = sa.Table(
    "tenants",
    metadata,
    sa.Column("tenant", sa.String(32), primary_key=True),
    sa.Column("node", sa.String(32), nullable=False),
    sa.Column("plan", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("release", sa.String(64), nullable=False),
    sa.Column("ring", sa.String(64), nullable=False),
    sa.Column("memory_mib", sa.Integer, nullable=False),  # what it reserves on its node
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("applied_revision", sa.Integer, nullable=False, default=0),
    sa.Column("document", sa.Text, nullable=False),
    sa.Column("outcome", sa.Text),
    sa.Column("updated_at", sa.String(32), nullable=False),
    sa.CheckConstraint("applied_revision <= revision"),
)
is_behind = tenants.c.applied_revision < tenants.c.revision
sa.Index("tenants_behind", tenants.c.tenant, sqlite_where=is_behind, postgresql_where=is_behind)
sa.Index("tenants_node", tenants.c.node)
revisions = sa.Table(
    "revisions",
    metadata,
    sa.Column("tenant", sa.String(32), sa.ForeignKey("tenants.tenant", ondelete="CASCADE"), primary_key=True),
    sa.Column("revision", sa.Integer, primary_key=True),
    sa.Column("at", sa.String(32), nullable=False),
    sa.Column("cause_kind", sa.Text, nullable=False),
    sa.Column("cause_text", sa.Text, nullable=False),
    sa.Column("cause_actor", sa.Text, nullable=False),
    sa.Column("document", sa.Text, nullable=False),
)
# These three outlive the tenant's row: fences stay monotonic, user ids and ciphertexts stay its own.
leases = sa.Table(
    "leases",
    metadata,
    sa.Column("tenant", sa.String(32), primary_key=True),
    sa.Column("fence", sa.Integer, nullable=False),
    sa.Column("holder", sa.Text),
    sa.Column("acquired_at", sa.Float(53), nullable=False),
    sa.Column("expires_at", sa.Float(53), nullable=False),
)
allocations = sa.Table(
    "allocations",
    metadata,
    sa.Column("kind", sa.String(16), primary_key=True),  # subnet | uid | subdomain
    sa.Column("value", sa.String(64), primary_key=True),
    sa.Column("tenant", sa.String(32), nullable=False, index=True),
)
ciphertexts = sa.Table(
    "ciphertexts",
    metadata,
    sa.Column("kind", sa.String(16), primary_key=True),  # ciphertext | nonce
    sa.Column("sha256", sa.String(64), primary_key=True),
    sa.Column("tenant", sa.String(32), nullable=False),
)

# --- the portal's events and the work they cause: webhook/journal.py --------------------------------------------------

# Events outlive their tenant: an id is accepted once, whatever happened to what it asked for.
events = sa.Table(
    "events",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),  # the order in which they were accepted
    sa.Column("id", sa.String(128), nullable=False, unique=True),
    sa.Column("tenant", sa.String(32), nullable=False),
    sa.Column("type", sa.String(64), nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("body_sha256", sa.String(64), nullable=False),
    sa.Column("source", sa.String(64), nullable=False),  # the id of the secret that signed it
    sa.Column("sequence", sa.BigInteger),
    sa.Column("timestamp", sa.String(32), nullable=False),
    sa.Column("received_at", sa.String(32), nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("changed", sa.Boolean, nullable=False),
    sa.Column("request", sa.Integer, nullable=False),  # finished once work.served has reached it
    sa.Column("state", sa.String(16), nullable=False),  # accepted | applied | failed | discarded
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("code", sa.Text),
    sa.Column("reason", sa.Text),
    sa.Column("finished_at", sa.String(32)),
    sqlite_autoincrement=True,
)
is_open = events.c.state == "accepted"
sa.Index("events_tenant", events.c.tenant, events.c.number)
sa.Index("events_open", events.c.tenant, events.c.number, sqlite_where=is_open, postgresql_where=is_open)
sa.Index("events_state", events.c.state, events.c.number)
sa.Index("events_received", events.c.received_at)
sa.Index("events_finished", events.c.finished_at)
# What is to be done for a tenant. A row outlives its tenant, so that the counters only grow.
work = sa.Table(
    "work",
    metadata,
    sa.Column("tenant", sa.String(32), primary_key=True),
    sa.Column("requested", sa.Integer, nullable=False, default=0),  # raised by everybody who wants a run
    sa.Column("served", sa.Integer, nullable=False, default=0),  # the value of it that the last run has answered
    sa.Column("since", sa.Float(53), nullable=False, default=0),  # when the oldest unanswered request came (epoch)
    sa.Column("attempt", sa.Integer, nullable=False, default=0),  # failed runs in a row
    sa.Column("not_before", sa.Float(53), nullable=False, default=0),  # epoch seconds
    sa.Column("claim", sa.Integer, nullable=False, default=0),  # which claim is the present one
    sa.Column("holder", sa.Text),
    sa.Column("claimed_until", sa.Float(53), nullable=False, default=0),
    sa.Column("failed_revision", sa.Integer),  # the worker has given up on this one
    sa.Column("failure", sa.Text),  # JSON: code, reason, message, revision, at
    sa.Column("ended_at", sa.Float(53), nullable=False, default=0),  # when the last run did (epoch)
    # Until the tenant is forgotten; whoever comes back under its id begins anew.
    sa.Column("sequence", sa.BigInteger),  # the last one the portal sent
    sa.Column(
        "past", sa.Integer, nullable=False, default=0
    ),  # events up to this number were for a tenant forgotten since
)
is_requested = work.c.requested > work.c.served
sa.Index("work_requested", work.c.tenant, sqlite_where=is_requested, postgresql_where=is_requested)
# What bots were last seen doing.
bots = sa.Table(
    "bots",
    metadata,
    sa.Column("tenant", sa.String(32), primary_key=True),
    sa.Column("bot", sa.String(32), primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("facts", sa.Text, nullable=False),
    sa.Column("seen_at", sa.String(32), nullable=False),
)
# What one worker does for all: observe, deliver, prune; and which workers are alive.
duties = sa.Table(
    "duties",
    metadata,
    sa.Column("name", sa.String(160), primary_key=True),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("expires_at", sa.Float(53), nullable=False),
)

# --- call-backs to the portal: webhook/callbacks.py; bearer tokens: webhook/tokens.py ---------------------------------

callbacks = sa.Table(
    "callbacks",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(64), nullable=False, unique=True),
    sa.Column("tenant", sa.String(32), nullable=False),
    sa.Column("type", sa.String(64), nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),  # pending | delivered | given_up
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("not_before", sa.Float(53), nullable=False, default=0),
    sa.Column("created_at", sa.String(32), nullable=False),
    sa.Column("created_epoch", sa.Float(53), nullable=False),
    sa.Column("delivered_at", sa.String(32)),
    sa.Column("last_error", sa.Text),
    sqlite_autoincrement=True,
)
is_pending = callbacks.c.state == "pending"
sa.Index(
    "callbacks_pending", callbacks.c.tenant, callbacks.c.number, sqlite_where=is_pending, postgresql_where=is_pending
)
sa.Index("callbacks_tenant", callbacks.c.tenant, callbacks.c.number)
sa.Index("callbacks_created", callbacks.c.created_at)
tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("scope", sa.String(16), nullable=False),
    sa.Column("tenant", sa.String(32)),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("created_at", sa.String(32), nullable=False),
    sa.Column("expires_at", sa.String(32)),
    sa.Column("revoked_at", sa.String(32)),
)

# --- signals from outside and the tokens they come with: webhook/signal_tokens.py, webhook/signal_log.py --------------

signal_tokens = sa.Table(
    "signal_tokens",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("tenant", sa.String(32), nullable=False),
    sa.Column("bot", sa.String(32), nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),  # counts the bot's tokens
    sa.Column("created_at", sa.String(32), nullable=False),
    sa.Column("expires_at", sa.String(32)),
    sa.Column("revoked_at", sa.String(32)),
)
sa.Index("signal_tokens_bot", signal_tokens.c.tenant, signal_tokens.c.bot)
# A row is there before its signal is published: an id is published once.
signals = sa.Table(
    "signals",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("tenant", sa.String(32), nullable=False),
    sa.Column("bot", sa.String(32), nullable=False),
    sa.Column("id", sa.String(128), nullable=False),
    sa.Column("body_sha256", sa.String(64), nullable=False),  # of what it says, without the token
    sa.Column("token", sa.String(32), nullable=False),  # the id of the token it came with
    sa.Column("action", sa.String(16), nullable=False),
    sa.Column("received_at", sa.String(32), nullable=False),
    sa.Column("expires_at", sa.String(32), nullable=False),  # the bot does not trade it later
    sa.Column("code", sa.String(32)),  # what became of it; null: nothing was heard of it
    sa.Column("accepted", sa.Boolean),
    sa.Column("reason", sa.Text),
    sa.Column("finished_at", sa.String(32)),
    sa.UniqueConstraint("tenant", "bot", "id"),
    sqlite_autoincrement=True,
)
sa.Index("signals_received", signals.c.received_at)


def _add_events(connection: sa.Connection) -> None:
    for table in (events, work, bots, duties, callbacks, tokens):
        table.create(connection)


def _add_signals(connection: sa.Connection) -> None:
    for table in (signal_tokens, signals):
        table.create(connection)


MIGRATIONS: dict[int, Callable[[sa.Connection], None]] = {1: _add_events, 2: _add_signals}
"""From version n (the key) to n + 1. A new registry is created in the latest form and runs none of them."""
