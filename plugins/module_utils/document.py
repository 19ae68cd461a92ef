# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tenant document: what a customer's stack should look like, typed and validated.

``parse_document`` judges what somebody submits, ``read_document`` reads back what was judged when it was stored. The
shape is a pydantic model; what it cannot express (names the catalogue knows, fields that must agree) is judged on the
data itself, so that a document with a fault in its shape still hears about all its other faults at once.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import (
    Catalogue,
    Connector,
    ConnectorField,
    Exchange,
    PairRules,
    Plan,
)
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import FaultsError
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import pointer as join
from ansible_collections.hummingfleet.core.plugins.module_utils.fields import Field as ConfigField
from ansible_collections.hummingfleet.core.plugins.module_utils.fields import (
    Value,
    join_key,
    parse_fields,
    plain_number,
    plain_value,
    schema_of,
)
from ansible_collections.hummingfleet.core.plugins.module_utils.risk import (
    CONTROLLER_LIMITS,
    effective_limits,
)
from ansible_collections.hummingfleet.core.plugins.module_utils.risk_halt import ends_at, stands
from ansible_collections.hummingfleet.core.plugins.module_utils.rules import MAX_FAULTS, Findings, one_of, shown
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies import templates
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies.base import BotContext, Judgement, Strategy
from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, ValidationError, model_validator
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

SECRET_PURPOSES: Final = ("postgres", "redis", "keystore", "gateway", "broker")
"""What a tenant has derived passwords for; each has a version of its own."""

RESERVED_TENANTS: Final = frozenset(
    {"all", "ungrouped", "localhost", "node", "nodes", "tenant", "tenants", "behind", "leads", "local", "fleet"}
    | {"hf", "hummingfleet", "sandbox"}
)
RESERVED_BOTS: Final = frozenset(
    {"postgres", "redis", "gateway", "dashboard", "edge", "broker", "sandbox", "bot", "bots", "tenant"}
)
RESERVED_SUBDOMAINS: Final = frozenset(
    {"www", "api", "admin", "console", "portal", "hooks", "webhook", "status", "edge", "traefik", "mail", "localhost"}
)

_ID_TEXT: Final = "2 to 32 of a-z and 0-9, single hyphens inside, beginning with a letter"
_TAG_BYTES: Final = 16
_NONCE_BYTES: Final = 12
_MAX_BASE64: Final = 8192
_BASE64: Final = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?", re.ASCII)
_PAIR: Final = re.compile(r"[A-Z0-9]{1,20}-[A-Z0-9]{1,20}", re.ASCII)
_SETTING_TEXT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}", re.ASCII)
_PORTAL_NONCES: Final = {"api_key": "key", "api_secret": "secret"}
"""The portal's names: encrypted_api_key goes with nonce_key, encrypted_api_secret with nonce_secret."""


class DocumentError(FaultsError):
    """A tenant document was refused; ``faults`` has one entry per field and problem."""

    subject = "the tenant document is refused"


def _refusal(rule: str, problem: str, allowed: str) -> PydanticCustomError:
    return PydanticCustomError(rule, "{problem}", {"problem": problem, "allowed": allowed})


@dataclass(frozen=True)
class _Matching:
    """Text that matches ``pattern`` as a whole; refused by ``rule``, which says ``allowed``."""

    rule: str
    pattern: str
    allowed: str
    longest: int
    echo: bool = True

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        matches = re.compile(self.pattern, re.ASCII).fullmatch

        def check(value: str) -> str:
            if len(value) > self.longest or not matches(value):
                problem = f"{shown(value)} is not accepted" if self.echo else "the text is not accepted"
                raise _refusal(self.rule, problem, self.allowed)
            return value

        return core_schema.no_info_after_validator_function(check, core_schema.str_schema(strict=True))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: Any) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^{self.pattern}$", "maxLength": self.longest}


class _Displayed(_Matching):
    """Text that people read: anything but characters that control a terminal or the order of the others."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def check(value: str) -> str:
            categories = {unicodedata.category(character) for character in value[: self.longest + 1]}
            if not value.strip() or len(value) > self.longest:
                raise _refusal(self.rule, "the text is blank or too long", self.allowed)
            if any(category[0] == "C" or category in ("Zl", "Zp") for category in categories):
                raise _refusal(self.rule, "the text has control or formatting characters", self.allowed)
            return value

        return core_schema.no_info_after_validator_function(check, core_schema.str_schema(strict=True))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: Any) -> dict[str, Any]:
        return {"type": "string", "minLength": 1, "maxLength": self.longest}


class _Network(_Matching):
    """A private IPv4 network, small enough for one tenant."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def check(value: str) -> str:
            try:
                network = ipaddress.IPv4Network(value) if len(value) <= self.longest and "/" in value else None
            except ValueError:
                network = None
            if network is None or not network.is_private or not 24 <= network.prefixlen <= 29:
                raise _refusal(self.rule, f"{shown(value)} is no such network", self.allowed)
            return value

        return core_schema.no_info_after_validator_function(check, core_schema.str_schema(strict=True))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: Any) -> dict[str, Any]:
        return {"type": "string", "maxLength": self.longest}


@dataclass(frozen=True)
class _Amount:
    """A number that ``field`` describes, as Decimal."""

    field: ConfigField

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def parse(value: object) -> Any:
            findings = Findings()
            number = self.field.parse(value, "", findings)
            for fault in findings.faults:
                raise _refusal(fault.rule, fault.problem, fault.allowed)
            return number

        return core_schema.no_info_plain_validator_function(parse)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: Any) -> dict[str, Any]:
        return self.field.schema()


class _Day(_Matching):
    """A UTC day."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def check(value: str) -> str:
            try:
                ends_at(value)
            except (ValueError, OverflowError):
                raise _refusal(self.rule, f"{shown(value)} is no day", self.allowed) from None
            return value

        return core_schema.no_info_after_validator_function(
            check, super().__get_pydantic_core_schema__(source, handler)
        )


_HYPHENATED: Final = r"[a-z][a-z0-9]*(-[a-z0-9]+)*"
Id = Annotated[str, _Matching("id", rf"(?=.{{2}}){_HYPHENATED}", _ID_TEXT, 32)]
Subdomain = Annotated[str, _Matching("id", rf"(?=.{{2}}){_HYPHENATED}", _ID_TEXT.replace("32", "63"), 63)]
NodeId = Annotated[str, _Matching("node_id", "[a-z][a-z0-9_]*", "a-z, 0-9 and _, beginning with a letter", 32)]
Ring = Annotated[str, _Matching("ring", "[a-z][a-z0-9_]*", "a-z, 0-9 and _, beginning with a letter", 32)]
LabelName = Annotated[str, _Matching("label", "[a-z][a-z0-9_.-]*", "a-z, 0-9, _ . -, beginning with a letter", 32)]
LabelValue = Annotated[
    str, _Matching("label", "[A-Za-z0-9][A-Za-z0-9_.-]*", "letters, digits, _ . -, at most 63 characters", 63)
]
Subnet = Annotated[str, _Network("subnet", "", "a private IPv4 network of /24 to /29, such as 10.90.3.0/27", 18)]
Salt = Annotated[str, _Matching("salt", "[A-Za-z0-9+/_=-]{16,}", "16 to 88 characters of base64", 88, echo=False)]
KeyId = Annotated[
    str,
    _Matching("key_id", "[a-z][a-z0-9_-]*", "a-z, 0-9, _ and -, beginning with a letter, at most 32 characters", 32),
]
Pair = Annotated[str, _Matching("pair.format", _PAIR.pattern, "BASE-QUOTE in capitals, such as BTC-USDT", 41)]
BotName = Annotated[
    str, _Displayed("name", "", "1 to 80 characters, none of them a control or formatting character", 80)
]
Day = Annotated[str, _Day("day", r"[0-9]{4}-[0-9]{2}-[0-9]{2}", "a day such as 2026-11-23", 10)]
Moment = Annotated[
    str,
    _Matching("time", r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,12}Z", "a time such as 2026-11-23T05:00:00.000Z", 28),
]
Base64Text = Annotated[
    str,
    _Matching("credential.text", "[ -~]*", f"base64 text, at most {_MAX_BASE64} characters", _MAX_BASE64, echo=False),
]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class Placement(_Part):
    """Where the tenant runs."""

    node: NodeId | None = Field(None, description="the node's id; chosen by placement and sticky")
    ring: Ring = Field("stable", description="the rollout ring the tenant belongs to")
    labels: dict[LabelName, LabelValue] = Field(
        default_factory=dict, max_length=16, description="labels the node must carry, at most 16"
    )


class Gateway(_Part):
    """The tenant's own Hummingbot Gateway."""

    enabled: bool = Field(False, description="true or false")


class Redis(_Part):
    """A Redis for the tenant's own scripts; the engine does not use it."""

    enabled: bool = Field(True, description="true or false")


@dataclass(frozen=True, slots=True)
class EncryptedSecret:
    """One credential as the portal sent it.

    ``name`` is what stands after ``encrypted_`` in the document (the additional data of ``aad: v2`` uses it),
    ``field`` the engine's own field name. ``ciphertext`` ends with the 16-byte tag; ``nonce`` has 12 bytes.
    """

    name: str
    field: str
    ciphertext: bytes
    nonce: bytes


class ExchangeConnection(_Part):
    """Credentials for one exchange account.

    In a document the credentials are pairs of fields ``encrypted_<name>`` and ``nonce_<name>``; here they are the
    mappings ``encrypted`` and ``nonces``, base64 by name.
    """

    id: Id = Field(description=_ID_TEXT)
    exchange: str = Field(description="the name of an engine connector")
    key_id: KeyId = Field(description="the id of the key that the credentials are encrypted with")
    aad: Literal["v1", "v2"] = Field(
        "v1", description="v1: no additional data; v2: it is tenant|connection id|name of the credential"
    )
    settings: dict[str, Any] = Field(
        default_factory=dict, max_length=16, description="the connector's plain fields, where it has any"
    )
    encrypted: dict[str, Base64Text] = Field(alias="encrypted_*", max_length=16, description="ciphertexts in base64")
    nonces: dict[str, Base64Text] = Field(alias="nonce_*", max_length=16, description="nonces in base64")

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        gathered: dict[Any, Any] = {"encrypted_*": {}, "nonce_*": {}}
        for key, value in data.items():
            kind, name = _credential_key(key)
            if kind:
                gathered[f"{kind}_*"][name] = value
            else:
                gathered[key] = value
        return gathered

    def secrets(self, connector: Connector) -> tuple[EncryptedSecret, ...]:
        """The credentials in the connector's field order, decoded from base64 but still encrypted."""
        by_field = {field.name: name for name in self.encrypted if (field := connector.find_field(name)) is not None}
        return tuple(
            EncryptedSecret(
                name=by_field[field.name],
                field=field.name,
                ciphertext=base64.b64decode(self.encrypted[by_field[field.name]]),
                nonce=base64.b64decode(self.nonces[_nonce_names(by_field[field.name], self.nonces)[0]]),
            )
            for field in connector.secrets
            if field.name in by_field
        )

    def plain_settings(self, connector: Connector) -> dict[str, str | int | bool]:
        """The connector's plain fields by the engine's names, with the connector's defaults filled in."""
        values: dict[str, str | int | bool] = {}
        for field in connector.settings:
            value = self.settings.get(field.name, self.settings.get(field.short, field.default))
            if value is not None:
                values[field.name] = value
        return values


class Bot(_Part):
    """One bot; its configurations are parsed by its strategy template, with defaults filled in."""

    id: Id = Field(description=_ID_TEXT)
    name: BotName = Field(description="1 to 80 characters; displayed, never evaluated")
    exchange_connection_id: str = Field(description="the id of one of the document's exchange connections")
    strategy_template: str = Field(description="the name of a strategy template")
    trading_pair: Pair = Field(description="BASE-QUOTE in capitals, such as BTC-USDT")
    strategy_config: dict[str, Any] = Field(max_length=64, description="the fields of the strategy template")
    risk_config: dict[str, Any] = Field(max_length=16, description="the limits of the strategy template")
    state: Literal["running", "stopped", "liquidated"] = Field(
        "running", description="stopped keeps the position, liquidated sells it at market"
    )
    restarts: int = Field(0, ge=0, le=1_000_000, description="raised to ask for a restart")
    resumes: int = Field(0, ge=0, le=1_000_000, description="raised to lift a risk halt")
    priority: int = Field(0, ge=0, le=1000, description="kept for the portal; nothing is stopped by it yet")


DAILY_LOSS: Final = ConfigField(
    name="max_daily_loss_usd",
    type="decimal",
    unit="US dollars",
    text="A loss of all the tenant's bots together of this much since midnight UTC stops every one of them.",
    example=1000,
    above=Decimal(0),
    maximum=Decimal(1_000_000_000),
)
_LOSS: Final = ConfigField(name="loss", type="decimal", unit="US dollars", text="A loss.", example=1000)


class TenantRisk(_Part):
    """Limits for all bots of the tenant together."""

    max_daily_loss_usd: Annotated[Decimal, _Amount(DAILY_LOSS)] | None = Field(None, description=DAILY_LOSS.allowed())


class RiskHalt(_Part):
    """Written by the worker: why the tenant's bots are stopped until the day has ended."""

    limit: Literal["max_daily_loss_usd"] = Field(description="the limit that was reached")
    day: Day = Field(description="the UTC day whose losses reached it")
    value: Annotated[Decimal, _Amount(_LOSS)] = Field(description="the day's loss, in US dollars")
    threshold: Annotated[Decimal, _Amount(_LOSS)] = Field(description="the loss that was allowed, in US dollars")
    at: Moment = Field(description="when it was reached")
    lifted_at: Moment | None = Field(None, description="when an operator lifted it, if one did")


class SecretVersions(_Part):
    """The version of each derived password; raising one changes the password."""

    postgres: int = Field(1, ge=1, le=1_000_000, description="a version, from 1")
    redis: int = Field(1, ge=1, le=1_000_000, description="a version, from 1")
    keystore: int = Field(1, ge=1, le=1_000_000, description="a version, from 1")
    gateway: int = Field(1, ge=1, le=1_000_000, description="a version, from 1")
    broker: int = Field(1, ge=1, le=1_000_000, description="a version, from 1")


class TenantDocument(_Part):
    """Everything a tenant's stack is made from."""

    tenant: Id = Field(description=_ID_TEXT)
    state: Literal["active", "suspended", "terminated"] = Field("active", description="active, suspended or terminated")
    plan: str = Field(description="the name of a plan in the catalogue")
    placement: Placement = Field(default_factory=Placement, description="where the tenant runs")
    subnet: Subnet | None = Field(None, description="allocated: the tenant's network")
    uid: int | None = Field(None, ge=1000, le=2_000_000_000, description="allocated: the tenant's user id on its node")
    salt: Salt | None = Field(None, description="allocated: random text that goes into derived passwords")
    secret_versions: SecretVersions | None = Field(None, description="allocated: the versions of derived passwords")
    subdomain: Subdomain = Field("", description="unique in the fleet; the tenant's id where it is not given")
    release: str = Field(description="the name of a release in the catalogue")
    exchange_environment: Literal["live", "sandbox"] = Field(
        "live", description="live exchanges, or the sandbox exchange for every bot of the tenant"
    )
    gateway: Gateway = Field(default_factory=Gateway, description="the tenant's own Gateway: {enabled: true or false}")
    redis: Redis = Field(default_factory=Redis, description="the tenant's own Redis: {enabled: true or false}")
    dashboard: Literal["builtin", "none"] = Field("builtin", description="builtin or none")
    risk: TenantRisk = Field(default_factory=TenantRisk, description="limits for all bots together: max_daily_loss_usd")
    risk_halt: RiskHalt | None = Field(None, description="written by the worker when a limit of the tenant is reached")
    exchange_connections: Annotated[tuple[ExchangeConnection, ...], Field(strict=False)] = Field(
        (), max_length=50, description="exchange accounts, at most 50"
    )
    bots: Annotated[tuple[Bot, ...], Field(strict=False)] = Field((), max_length=100, description="bots, at most 100")

    @model_validator(mode="before")
    @classmethod
    def _default_subdomain(cls, data: Any) -> Any:
        """An id that is refused is no subdomain either, and is refused once."""
        if isinstance(data, dict) and "subdomain" not in data:
            tenant = data.get("tenant")
            if isinstance(tenant, str) and len(tenant) <= 32 and re.fullmatch(_HYPHENATED, tenant, re.ASCII):
                return {**data, "subdomain": tenant}
        return data

    def plain(self) -> dict[str, Any]:
        """The document as JSON-plain data, deterministic; ``parse_document`` of it gives an equal document."""
        allocated: dict[str, Any] = {
            "subnet": self.subnet,
            "uid": self.uid,
            "salt": self.salt,
            "secret_versions": self.secret_versions.model_dump() if self.secret_versions else None,
        }
        placement: dict[str, Any] = {"ring": self.placement.ring, "labels": dict(sorted(self.placement.labels.items()))}
        if self.placement.node is not None:
            placement["node"] = self.placement.node
        return {
            "tenant": self.tenant,
            "state": self.state,
            "plan": self.plan,
            "placement": placement,
            **{name: value for name, value in allocated.items() if value is not None},
            "subdomain": self.subdomain,
            "release": self.release,
            "exchange_environment": self.exchange_environment,
            "gateway": {"enabled": self.gateway.enabled},
            "redis": {"enabled": self.redis.enabled},
            "dashboard": self.dashboard,
            **_plain_risk(self),
            "exchange_connections": [_plain_connection(connection) for connection in self.exchange_connections],
            "bots": [_plain_bot(bot) for bot in self.bots],
        }

    def connection(self, connection_id: str) -> ExchangeConnection:
        """The connection with that id (KeyError if there is none)."""
        for connection in self.exchange_connections:
            if connection.id == connection_id:
                return connection
        raise KeyError(connection_id)

    def bot(self, bot_id: str) -> Bot:
        """The bot with that id (KeyError if there is none)."""
        for bot in self.bots:
            if bot.id == bot_id:
                return bot
        raise KeyError(bot_id)

    def secret_version(self, purpose: str) -> int:
        """The version of the derived password for ``purpose``."""
        return int(getattr(self.secret_versions or SecretVersions(), purpose))


def parse_document(data: Mapping[str, Any], catalogue: Catalogue, *, reserved: Collection[str] = ()) -> TenantDocument:
    """The validated document; raises DocumentError with every fault found.

    ``reserved`` adds names that no tenant may have: the fleet's node ids.
    """
    findings = Findings()
    document = _shape(data, findings)
    configs = _Judge(catalogue, findings).judge(data, reserved) if isinstance(data, Mapping) else {}
    return _finish(document, configs, findings)


def read_document(data: Mapping[str, Any], catalogue: Catalogue | None = None) -> TenantDocument:
    """A document that was validated when it was stored, without judging it against today's catalogue again.

    Of the ``catalogue`` only the operators' templates matter, and only for documents with bots of theirs.
    """
    findings = Findings()
    document = _shape(data, findings)
    known = templates(catalogue)
    configs = {
        index: _parse_configs(bot, join("bots", index), findings, known) for index, bot in _entries(data, "bots")
    }
    return _finish(document, configs, findings)


def bot_context(document: TenantDocument, bot: Bot, catalogue: Catalogue) -> BotContext:
    """What the engine files of ``bot`` depend on; ``document`` may be one that was read back."""
    connector = document.connection(bot.exchange_connection_id).exchange
    sharing = {c.id for c in document.exchange_connections if c.exchange == connector}
    exchange = catalogue.exchanges.get(connector)
    limits = bot.risk_config
    if templates(catalogue)[bot.strategy_template].kind == "v2":
        limits = effective_limits(limits, catalogue.plans.get(document.plan), _quote(bot.trading_pair) or "")
    return BotContext(
        tenant=document.tenant,
        bot=bot.id,
        connector=connector,
        trading_pair=bot.trading_pair,
        config=bot.strategy_config,
        limits=limits,
        rate_oracle=exchange.rate_oracle if exchange else "binance",
        rate_limit_bots=sum(other.exchange_connection_id in sharing for other in document.bots),
    )


_Configs = tuple[dict[str, Value] | None, dict[str, Value] | None]


def _finish(document: TenantDocument | None, configs: Mapping[int, _Configs], findings: Findings) -> TenantDocument:
    if findings or document is None:
        faults = list(dict.fromkeys(findings.faults))
        raise DocumentError(faults[:MAX_FAULTS])
    bots = tuple(
        bot.model_copy(update={"strategy_config": configs[index][0], "risk_config": configs[index][1]})
        for index, bot in enumerate(document.bots)
    )
    return document.model_copy(update={"bots": bots})


# Shape -----------------------------------------------------------------------------------------------------------


_MODELS: Final[Mapping[str, type[_Part]]] = {
    "placement": Placement,
    "gateway": Gateway,
    "redis": Redis,
    "secret_versions": SecretVersions,
    "risk": TenantRisk,
    "risk_halt": RiskHalt,
    "exchange_connections": ExchangeConnection,
    "bots": Bot,
}
_TYPE_RULES: Final[Mapping[str, tuple[str, str]]] = {
    "string_type": ("type.text", "is not text"),
    "string_unicode": ("type.text", "is not text"),
    "int_type": ("type.integer", "is not a whole number"),
    "int_from_float": ("type.integer", "is not a whole number"),
    "int_parsing_size": ("range", "is out of range"),
    "bool_type": ("type.boolean", "is not true or false"),
    "dict_type": ("type.mapping", "is not a mapping"),
    "model_type": ("type.mapping", "is not a mapping"),
    "tuple_type": ("type.list", "is not a list"),
    "literal_error": ("choice", "is not one of the values"),
    "greater_than_equal": ("range", "is out of range"),
    "less_than_equal": ("range", "is out of range"),
    "too_long": ("length.list", "has too many entries"),
}


def _shape(data: Mapping[str, Any], findings: Findings) -> TenantDocument | None:
    """The document's shape, or None after faults."""
    try:
        return TenantDocument.model_validate(
            data if isinstance(data, dict) or not isinstance(data, Mapping) else {**data}
        )
    except ValidationError as error:
        for entry in error.errors(include_url=False):
            _note_shape_fault(dict(entry), findings)
    return None


def _note_shape_fault(entry: Mapping[str, Any], findings: Findings) -> None:
    """Notes one of pydantic's errors in our words; its loc leads to the field, its type tells the rule."""
    loc = [part for part in entry["loc"] if part != "[key]"]
    if len(loc) == 4 and loc[2] in ("encrypted_*", "nonce_*"):
        loc[2:] = [f"{str(loc[2])[:-1]}{loc[3]}"]
    where = ""
    for part in loc:
        where = join_key(where, part)
    model = _MODELS.get(str(loc[0]), TenantDocument) if len(loc) > 1 else TenantDocument
    known = {name: info.description or "" for name, info in model.model_fields.items() if not info.alias}
    kind, value, context = entry["type"], entry["input"], entry.get("ctx", {})
    allowed = known.get(str(loc[-1]) if loc else "", "") or "what the reference describes"
    if len(loc) > 1 and isinstance(loc[-1], int):
        allowed = "a mapping with the fields of the reference"
    elif where.rpartition("/")[2].startswith(("encrypted_", "nonce_")):
        allowed = f"base64 text, at most {_MAX_BASE64} characters"
    if "allowed" in context:
        findings.add(kind, where, context["problem"], context["allowed"])
    elif kind == "missing":
        findings.add("missing", where, "the field is missing", allowed)
    elif kind in ("extra_forbidden", "invalid_key"):
        name = loc[-1] if loc else value
        findings.add("unknown", where, f"there is no field {shown(name)}", one_of(known, name))
    else:
        rule, problem = _TYPE_RULES.get(kind, ("unknown", "is not accepted"))
        if kind == "literal_error":
            allowed = str(context["expected"]).replace("'", "")
        elif rule == "range":
            bound = {"greater_than_equal": "at least", "less_than_equal": "at most"}.get(kind)
            allowed = f"{bound} {context.get('ge', context.get('le'))}" if bound else allowed
        elif kind == "too_long":
            allowed = f"at most {context['max_length']} entries"
        secret = "encrypted_" in where or "nonce_" in where or where == "/salt"
        findings.add(rule, where, f"{'the value' if secret else shown(value)} {problem}", allowed)


def _credential_key(key: object) -> tuple[str, str]:
    """``("encrypted", "api_key")`` for ``encrypted_api_key``, and so for nonces; ``("", "")`` for other keys."""
    if isinstance(key, str):
        for kind in ("encrypted", "nonce"):
            if key.startswith(kind + "_"):
                return kind, key[len(kind) + 1 :]
    return "", ""


def _nonce_names(name: str, nonces: Collection[str]) -> list[str]:
    """The names under which the nonce of the credential ``name`` is present."""
    return [
        candidate for candidate in (name, _PORTAL_NONCES.get(name)) if candidate in nonces and candidate is not None
    ]


def _entries(data: object, name: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The mappings in the list ``data[name]`` with their positions, whatever the data looks like."""
    entries = data.get(name) if isinstance(data, Mapping) else None
    if isinstance(entries, list | tuple):
        for index, entry in enumerate(entries[:100]):
            if isinstance(entry, Mapping):
                yield index, entry


def _parse_configs(bot: Mapping[str, Any], where: str, findings: Findings, known: Mapping[str, Strategy]) -> _Configs:
    """The bot's parsed strategy and risk configuration, each None after a fault or where it is no mapping."""
    name = bot.get("strategy_template")
    strategy = known.get(name) if isinstance(name, str) else None
    if strategy is None:
        if isinstance(name, str):
            problem = f"there is no strategy template {shown(name)}"
            findings.add("bot.template", f"{where}/strategy_template", problem, one_of(known, name))
        return None, None
    config, limits = bot.get("strategy_config"), bot.get("risk_config")
    parsed_config = parsed_limits = None
    if isinstance(config, Mapping):
        parsed_config = parse_fields(strategy.fields, config, f"{where}/strategy_config", findings)
    if isinstance(limits, Mapping):
        here, before = f"{where}/risk_config", len(findings.faults)
        if strategy.kind == "v1":
            for name in [name for name in limits if name in _CONTROLLER_NAMES]:
                problem = f"{strategy.name} runs on the engine's own code, which knows no such limit"
                findings.add("pmm.risk", f"{here}/{name}", problem, one_of(strategy.limits))
            limits = {name: value for name, value in limits.items() if name not in _CONTROLLER_NAMES}
        parsed_limits = parse_fields(strategy.limits, limits, here, findings)
        if len(findings.faults) != before:
            parsed_limits = None
    return parsed_config, parsed_limits


_CONTROLLER_NAMES: Final = {name for field in CONTROLLER_LIMITS.values() for name in field.names}


def _quote(pair: object) -> str | None:
    """The quote asset of a trading pair, or None where it is none."""
    return pair.partition("-")[2] if isinstance(pair, str) and _PAIR.fullmatch(pair) else None


# Judgement -------------------------------------------------------------------------------------------------------


class _Judge:
    """Judges a submitted document against the catalogue and itself; works on data of any shape."""

    def __init__(self, catalogue: Catalogue, findings: Findings) -> None:
        self.catalogue = catalogue
        self.templates = templates(catalogue)
        self.findings = findings
        self.add = findings.add
        self.nonces: set[tuple[object, bytes]] = set()

    def judge(self, data: Mapping[str, Any], reserved: Collection[str]) -> dict[int, _Configs]:
        """Notes every fault; the bots' parsed configurations by position."""
        self._judge_names(data, reserved)
        plan = self._judge_plan(data)
        self._judge_release(data)
        sandbox = data.get("exchange_environment") == "sandbox"
        connections: dict[str, str] = {}
        for index, connection in _entries(data, "exchange_connections"):
            self._judge_connection(connection, join("exchange_connections", index), plan, sandbox, connections)
        seen: set[str] = set()
        for index, bot in _entries(data, "bots"):
            self._judge_risk_halt(bot, join("bots", index), data.get("risk_halt"))
        return {
            index: self._judge_bot(bot, join("bots", index), plan, connections, seen)
            for index, bot in _entries(data, "bots")
        }

    def _judge_names(self, data: Mapping[str, Any], reserved: Collection[str]) -> None:
        tenant, subdomain = data.get("tenant"), data.get("subdomain", data.get("tenant"))
        if isinstance(tenant, str) and (
            tenant in RESERVED_TENANTS or tenant in reserved or tenant.replace("-", "_") in reserved
        ):
            self.add("tenant.reserved", "/tenant", f"{shown(tenant)} means something else here", "another id")
        if isinstance(subdomain, str) and subdomain in RESERVED_SUBDOMAINS:
            self.add("subdomain.reserved", "/subdomain", f"{shown(subdomain)} is the fleet's own", "another subdomain")

    def _judge_plan(self, data: Mapping[str, Any]) -> Plan | None:
        name = data.get("plan")
        plan = self.catalogue.plans.get(name) if isinstance(name, str) else None
        if plan is None:
            if isinstance(name, str):
                self.add("plan.unknown", "/plan", f"there is no plan {shown(name)}", one_of(self.catalogue.plans, name))
            return None
        for field, rule, limit in (
            ("bots", "plan.bots", plan.bots),
            ("exchange_connections", "plan.connections", plan.exchange_connections),
        ):
            entries = data.get(field)
            if isinstance(entries, list | tuple) and len(entries) > limit:
                self.add(rule, f"/{field}", f"{len(entries)} are more than plan {plan.name} allows", f"at most {limit}")
        gateway = data.get("gateway")
        if isinstance(gateway, Mapping) and gateway.get("enabled") is True and not plan.gateway:
            self.add("plan.gateway", "/gateway/enabled", f"plan {plan.name} has no gateway", "false")
        self._judge_daily_loss(data.get("risk"), plan)
        return plan

    def _judge_daily_loss(self, risk: object, plan: Plan) -> None:
        given = risk.get(DAILY_LOSS.name) if isinstance(risk, Mapping) else None
        limit = DAILY_LOSS.parse(given, "", Findings()) if given is not None else None
        ceiling = plan.tenant_max_daily_loss_usd
        if isinstance(limit, Decimal) and ceiling is not None and limit > ceiling:
            problem = f"{plain_number(limit)} is above the ceiling of plan {plan.name}"
            allowed = f"at most {plain_number(ceiling)} (US dollars)"
            self.add("plan.tenant_max_daily_loss_usd", f"/risk/{DAILY_LOSS.name}", problem, allowed)

    def _judge_risk_halt(self, bot: Mapping[str, Any], where: str, halt: object) -> None:
        """No bot runs while the tenant is halted."""
        if not stands(halt) or bot.get("state", "running") != "running":
            return
        try:
            day = RiskHalt.model_validate(halt)
        except ValidationError:
            return  # noted with the shape
        problem = (
            f"the tenant's bots lost {plain_number(day.value)} US dollars on {day.day}, "
            f"{plain_number(day.threshold)} are allowed, so none of them runs for the rest of that day"
        )
        self.add("tenant.risk_halt", f"{where}/state", problem, f"stopped; running from {ends_at(day.day)} on")

    def _judge_release(self, data: Mapping[str, Any]) -> None:
        name = data.get("release")
        if isinstance(name, str) and name not in self.catalogue.releases:
            known = one_of(self.catalogue.releases, name)
            self.add("release.unknown", "/release", f"there is no release {shown(name)}", known)

    # Exchange connections

    def _judge_connection(
        self,
        data: Mapping[str, Any],
        where: str,
        plan: Plan | None,
        sandbox: bool,
        connections: dict[str, str],
    ) -> None:
        identifier, exchange = data.get("id"), data.get("exchange")
        connector = self._judge_exchange(exchange, f"{where}/exchange", plan, sandbox)
        if isinstance(identifier, str):
            if identifier in connections:
                self.add("connection.duplicate", f"{where}/id", f"{shown(identifier)} is taken", "an id of its own")
            connections[identifier] = exchange if isinstance(exchange, str) else ""
        self._judge_credentials(data, where, connector)
        settings = data.get("settings", {})
        if connector is not None and isinstance(settings, Mapping):
            self._judge_settings(settings, f"{where}/settings", connector)

    def _judge_exchange(self, name: object, where: str, plan: Plan | None, sandbox: bool) -> Connector | None:
        if not isinstance(name, str):
            return None
        connectors = self.catalogue.connectors
        connector = connectors.get(name)
        if connector is None:
            known = [n for n in connectors if plan is None or plan.allows_exchange(n)]
            self.add("exchange.unknown", where, f"there is no connector {shown(name)}", one_of(known, name))
            return None
        if not connector.secrets:
            self.add("exchange.nested", where, f"the credentials of {name} are not plain fields", "another exchange")
        if plan is not None and not plan.allows_exchange(name):
            allowed = one_of([n for n in connectors if plan.allows_exchange(n)], name)
            self.add("plan.exchange", where, f"plan {plan.name} does not include {name}", allowed)
        if sandbox:
            able = [exchange.name for exchange in self.catalogue.exchanges.values() if exchange.sandbox]
            if name not in able:
                self.add("exchange.sandbox", where, f"the sandbox cannot stand in for {name}", one_of(able, name))
        return connector

    def _judge_credentials(self, data: Mapping[str, Any], where: str, connector: Connector | None) -> None:
        encrypted: dict[str, Any] = {}
        nonces: dict[str, Any] = {}
        for key, value in data.items():
            kind, name = _credential_key(key)
            if kind:
                (encrypted if kind == "encrypted" else nonces)[name] = value
        used: set[str] = set()
        fields: set[str] = set()
        for name, value in encrypted.items():
            here = join_key(where, f"encrypted_{name}")
            if connector is not None:
                self._judge_credential_name(name, here, connector, fields)
            ciphertext = self._decode(value, here)
            if ciphertext is not None and len(ciphertext) <= _TAG_BYTES:
                problem = f"{len(ciphertext)} bytes are no ciphertext with its tag"
                self.add("credential.ciphertext", here, problem, f"at least {_TAG_BYTES + 1} bytes in base64")
            found = _nonce_names(name, nonces)
            used.update(found)
            expected = f"nonce_{_PORTAL_NONCES.get(name, name)}"
            if not found:
                self.add(
                    "credential.nonce_missing", join_key(where, expected), "the nonce is missing", "12 bytes in base64"
                )
            elif len(found) > 1:
                self.add(
                    "credential.twice", join_key(where, f"nonce_{name}"), "the nonce is given twice", shown(expected)
                )
            else:
                self._judge_nonce(nonces[found[0]], join_key(where, f"nonce_{found[0]}"), data.get("key_id"))
        for name in nonces.keys() - used:
            here = join_key(where, f"nonce_{name}")
            self.add("credential.nonce_alone", here, "there is no ciphertext that it belongs to", "no such field")
        for field in connector.secrets if connector is not None else ():
            if field.required and field.name not in fields:
                here = f"{where}/encrypted_{field.short}"
                self.add("credential.missing", here, f"{connector.name if connector else ''} needs it", "base64")

    def _judge_credential_name(self, name: str, here: str, connector: Connector, fields: set[str]) -> None:
        field = connector.find_field(name)
        if field is None or not field.encrypted:
            known = one_of([f"encrypted_{f.short}" for f in connector.secrets], f"encrypted_{name}")
            self.add("credential.unknown", here, f"{connector.name} has no such credential", known)
        elif field.name in fields:
            problem = f"the credential {field.name} is given twice"
            self.add("credential.twice", here, problem, f"either encrypted_{field.short} or encrypted_{field.name}")
        else:
            fields.add(field.name)

    def _judge_nonce(self, value: object, where: str, key_id: object) -> None:
        nonce = self._decode(value, where)
        if nonce is None:
            return
        if len(nonce) != _NONCE_BYTES:
            self.add("credential.nonce", where, f"{len(nonce)} bytes are no nonce", f"{_NONCE_BYTES} bytes in base64")
            return
        key = key_id if isinstance(key_id, str) else None
        if (key, nonce) in self.nonces:
            problem = "the nonce is used twice with this key, which breaks the encryption"
            self.add("credential.nonce_reused", where, problem, "a fresh random nonce for every field")
        self.nonces.add((key, nonce))

    def _decode(self, value: object, where: str) -> bytes | None:
        """Base64 decoded, or None; text that is none is a fault, other types are judged by the shape."""
        if not isinstance(value, str) or len(value) > _MAX_BASE64:
            return None
        if _BASE64.fullmatch(value):
            try:
                return base64.b64decode(value, validate=True)
            except (binascii.Error, ValueError):
                pass
        self.add("credential.base64", where, "the text is not base64", "standard base64 with padding")
        return None

    def _judge_settings(self, settings: Mapping[str, Any], where: str, connector: Connector) -> None:
        known = {field.name: field for field in connector.settings if field.type != "object"}
        given: set[str] = set()
        for name, value in settings.items():
            field = connector.find_field(name) if isinstance(name, str) else None
            here = join_key(where, name)
            if field is None or field.name not in known:
                self.add("setting.unknown", here, f"{connector.name} has no such setting", one_of(known, name))
                continue
            given.add(field.name)
            if not _setting_fits(field, value):
                self.add("setting.value", here, f"{shown(value)} is not accepted", _setting_allowed(field))
        for field in known.values():
            if field.required and field.name not in given:
                self.add(
                    "setting.missing", f"{where}/{field.name}", f"{connector.name} needs it", _setting_allowed(field)
                )

    # Bots

    def _judge_bot(
        self,
        data: Mapping[str, Any],
        where: str,
        plan: Plan | None,
        connections: Mapping[str, str],
        seen: set[str],
    ) -> _Configs:
        identifier = data.get("id")
        if isinstance(identifier, str):
            if identifier in seen:
                self.add("bot.duplicate", f"{where}/id", f"{shown(identifier)} is taken", "an id of its own")
            if identifier in RESERVED_BOTS:
                self.add("bot.reserved", f"{where}/id", f"{shown(identifier)} means something else here", "another id")
            seen.add(identifier)
        strategy = self._judge_template(data.get("strategy_template"), f"{where}/strategy_template", plan)
        connector = self._judge_bot_connection(data, where, connections, strategy)
        exchange = self.catalogue.exchanges.get(connector.name) if connector is not None else None
        pair, limits_data = data.get("trading_pair"), data.get("risk_config")
        quote = _quote(pair) if connector is not None else None
        rules = None
        if quote is not None and exchange is not None:
            rules = self._find_rules(str(pair), exchange, f"{where}/trading_pair")
            quote = rules.quote if rules is not None else None
        config, limits = _parse_configs(data, where, self.findings, self.templates)
        if strategy is not None:
            strategy.check(
                Judgement(
                    config=config,
                    limits=limits,
                    given_limits=limits_data if isinstance(limits_data, Mapping) else {},
                    quote=quote,
                    rules=rules,
                    exchange=exchange,
                    plan=plan,
                    config_where=f"{where}/strategy_config",
                    limits_where=f"{where}/risk_config",
                    pair_where=f"{where}/trading_pair",
                    findings=self.findings,
                )
            )
        return config, limits

    def _judge_template(self, name: object, where: str, plan: Plan | None) -> Strategy | None:
        if not isinstance(name, str):
            return None
        strategy = self.templates.get(name)
        if strategy is not None and plan is not None and not plan.allows_strategy(name):
            allowed = one_of([n for n in self.templates if plan.allows_strategy(n)], name)
            self.add("plan.strategy", where, f"plan {plan.name} does not include {name}", allowed)
        return strategy

    def _judge_bot_connection(
        self, data: Mapping[str, Any], where: str, connections: Mapping[str, str], strategy: Strategy | None
    ) -> Connector | None:
        wanted, here = data.get("exchange_connection_id"), f"{where}/exchange_connection_id"
        if not isinstance(wanted, str):
            return None
        if wanted not in connections:
            self.add(
                "bot.connection", here, f"there is no exchange connection {shown(wanted)}", one_of(connections, wanted)
            )
            return None
        connector = self.catalogue.connectors.get(connections[wanted])
        if connector is not None and connector.kind != "spot" and strategy is not None:
            problem = f"{connector.name} trades perpetuals and {strategy.name} is a spot strategy"
            self.add("bot.perpetual", here, problem, "a connection to a spot exchange")
            return None
        if connector is not None and connector.untradable is not None:
            problem = f"{connector.name} cannot be traded safely: {connector.untradable}"
            allowed = "a connection to another exchange; docs/reference/connectors.md lists them"
            self.add("bot.orders", here, problem, allowed)
        return connector

    def _find_rules(self, pair: str, exchange: Exchange, where: str) -> PairRules | None:
        if pair not in exchange.pairs:
            self.add("pair.unknown", where, f"{exchange.name} has no pair {pair}", one_of(exchange.pairs, pair))
        return exchange.pairs.get(pair)


def _setting_fits(field: ConnectorField, value: object) -> bool:
    if field.choices:
        return isinstance(value, str) and value in field.choices
    if field.type == "bool":
        return isinstance(value, bool)
    if field.type == "int":
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53
    return isinstance(value, str) and bool(_SETTING_TEXT.fullmatch(value))


def _setting_allowed(field: ConnectorField) -> str:
    if field.choices:
        return one_of(field.choices)
    if field.type == "str":
        return "letters, digits and . _ : / @ -, at most 128 characters"
    return {"bool": "true or false", "int": "a whole number, 0 or more"}[field.type]


# Plain data and schema -------------------------------------------------------------------------------------------


def _plain_connection(connection: ExchangeConnection) -> dict[str, Any]:
    data: dict[str, Any] = {
        "id": connection.id,
        "exchange": connection.exchange,
        "key_id": connection.key_id,
        "aad": connection.aad,
    }
    if connection.settings:
        data["settings"] = dict(sorted(connection.settings.items()))
    for name in sorted(connection.encrypted):
        nonce = _nonce_names(name, connection.nonces)[0]
        data[f"encrypted_{name}"] = connection.encrypted[name]
        data[f"nonce_{nonce}"] = connection.nonces[nonce]
    return data


def _plain_risk(document: TenantDocument) -> dict[str, Any]:
    """What the tenant's own limits are and came to; nothing where there are none."""
    data: dict[str, Any] = {}
    limit, halt = document.risk.max_daily_loss_usd, document.risk_halt
    if limit is not None:
        data["risk"] = {DAILY_LOSS.name: plain_value(limit)}
    if halt is not None:
        amounts = {"value": plain_value(halt.value), "threshold": plain_value(halt.threshold)}
        data["risk_halt"] = {**halt.model_dump(exclude_none=True), **amounts}
    return data


def _plain_bot(bot: Bot) -> dict[str, Any]:
    return {
        "id": bot.id,
        "name": bot.name,
        "exchange_connection_id": bot.exchange_connection_id,
        "strategy_template": bot.strategy_template,
        "trading_pair": bot.trading_pair,
        "strategy_config": {name: plain_value(value) for name, value in bot.strategy_config.items()},
        "risk_config": {name: plain_value(value) for name, value in bot.risk_config.items()},
        "state": bot.state,
        "restarts": bot.restarts,
        "resumes": bot.resumes,
        "priority": bot.priority,
    }


def json_schema(catalogue: Catalogue | None = None) -> dict[str, Any]:
    """The document's JSON Schema (2020-12): its shape; names and agreement are judged by ``parse_document``."""
    schema = TenantDocument.model_json_schema(by_alias=True)
    definitions = schema["$defs"]
    connection = definitions["ExchangeConnection"]
    for alias in ("encrypted_*", "nonce_*"):
        del connection["properties"][alias]
        connection["required"].remove(alias)
    text = {"type": "string", "contentEncoding": "base64", "maxLength": _MAX_BASE64}
    connection["patternProperties"] = {"^encrypted_[a-z0-9_]+$": text, "^nonce_[a-z0-9_]+$": text}
    bot = definitions["Bot"]
    bot["properties"]["strategy_template"]["enum"] = list(templates(catalogue))
    bot["allOf"] = [
        {
            "if": {"properties": {"strategy_template": {"const": name}}},
            "then": {
                "properties": {
                    "strategy_config": schema_of(strategy.fields, strategy.text),
                    "risk_config": schema_of(strategy.limits, f"The limits of {name}."),
                }
            },
        }
        for name, strategy in templates(catalogue).items()
    ]
    del schema["properties"]["subdomain"]["default"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Tenant document", **schema}
