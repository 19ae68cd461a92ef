# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The portal's events: typed, validated, each a pure function from a tenant's document to its next one.

``parse_event(body, catalogue)`` judges a body by itself, ``event.apply(document)`` makes the next document, which the
registry judges whole; ``event.refusal(error, document)`` leads what it finds back to the body.
"""

from .base import EVENT_RULES, Event, EventError
from .parsing import EVENT_TYPES, NOT_YET, parse_event
from .schema import event_schema

__all__ = ["EVENT_RULES", "EVENT_TYPES", "NOT_YET", "Event", "EventError", "event_schema", "parse_event"]
