"""Signatures: the specification's own vector, the reference library, and everything a stranger may send."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
import standardwebhooks
from hypothesis import example, given, settings
from hypothesis import strategies as st

from webhook import signing
from webhook.signing import SignatureError

# The vector that the specification's reference libraries are tested with.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MESSAGE_ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
TIMESTAMP = 1614265330
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

OTHER = signing.generate_secret()


def headers(**changes: str | None) -> dict[str, str]:
    """The vector's headers with some of them changed or left out (None)."""
    values: dict[str, str | None] = {"id": MESSAGE_ID, "timestamp": str(TIMESTAMP), "signature": SIGNATURE, **changes}
    return {f"webhook-{name}": value for name, value in values.items() if value is not None}


def signed(body: bytes = BODY, *secrets: str, now: float = TIMESTAMP) -> dict[str, str]:
    return signing.sign(secrets or (SECRET,), MESSAGE_ID, now, body)


def test_the_specifications_vector_is_signed_and_verified() -> None:
    assert signed() == headers()
    assert signing.verify([SECRET], headers(), BODY, TIMESTAMP) == MESSAGE_ID


def test_the_reference_library_signs_the_same() -> None:
    moment = datetime.fromtimestamp(TIMESTAMP, UTC)
    for secret in (SECRET, OTHER):
        expected = standardwebhooks.Webhook(secret).sign("a.b", moment, "{} …")
        assert signing.sign([secret], "a.b", TIMESTAMP, "{} …".encode())["webhook-signature"] == expected


def test_the_reference_library_verifies_what_is_signed_now() -> None:
    now = datetime.now(UTC).timestamp()
    standardwebhooks.Webhook(SECRET).verify(BODY, signed(BODY, OTHER, SECRET, now=now))


def test_any_of_several_secrets_verifies() -> None:
    third = signing.generate_secret()
    for secret, index in ((SECRET, 0), (OTHER, 1), (third, 2)):
        found = signing.find_secret([SECRET, OTHER, third], signed(BODY, secret), BODY, TIMESTAMP)
        assert found == (MESSAGE_ID, index)


def test_a_message_with_several_signatures_needs_one_that_fits() -> None:
    both = signed(BODY, OTHER, SECRET)
    assert signing.verify([SECRET], both, BODY, TIMESTAMP) == MESSAGE_ID
    foreign = {**both, "webhook-signature": "v1a,xyz v2," + "A" * 43 + "= " + both["webhook-signature"]}
    assert signing.verify([SECRET], foreign, BODY, TIMESTAMP) == MESSAGE_ID


@pytest.mark.parametrize("difference", [-300, 0, 300])
def test_five_minutes_of_difference_are_tolerated(difference: int) -> None:
    signing.verify([SECRET], headers(), BODY, TIMESTAMP + difference)


@pytest.mark.parametrize("difference", [-300.5, 300.5, -1e9, 1e9])
def test_stale_and_future_messages_are_refused(difference: float) -> None:
    with pytest.raises(SignatureError, match="300 seconds"):
        signing.verify([SECRET], headers(), BODY, TIMESTAMP + difference)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": None},
        {"timestamp": None},
        {"signature": None},
        {"id": ""},
        {"id": "msg 1"},
        {"id": "msg_1\n"},
        {"id": "ü"},
        {"id": "x" * 129},
        {"timestamp": "1614265330.0"},
        {"timestamp": "01614265330"},
        {"timestamp": "-1614265330"},
        {"timestamp": "nan"},
        {"timestamp": "1e9"},
        {"timestamp": "9" * 11},
        {"timestamp": "9" * 400},
        {"timestamp": "١٦١٤٢٦٥٣٣٠"},
        {"signature": "v1"},
        {"signature": "v1,"},
        {"signature": "v1,A"},
        {"signature": "v1,ü" + "A" * 42 + "="},
        {"signature": SIGNATURE.replace("v1", "v2")},
        {"signature": SIGNATURE.replace(" ", "\t")[:-1]},
        {"signature": " ".join(["v1," + "A" * 43 + "="] * 17)},
        {"signature": SIGNATURE + " " + "x" * 3000},
        {"signature": "v1," + base64.b64encode(bytes(32)).decode()},
    ],
)
def test_everything_malformed_is_the_same_refusal(changes: Mapping[str, str | None]) -> None:
    with pytest.raises(SignatureError):
        signing.verify([SECRET], headers(**changes), BODY, TIMESTAMP)


@pytest.mark.parametrize("msg_id", ["", "msg 1", "msg_1\n", "a/../b", "ü", "x" * 129, "<script>", "a,b"])
def test_an_id_that_is_none_is_refused_also_with_a_signature_that_fits(msg_id: str) -> None:
    fitting = standardwebhooks.Webhook(SECRET).sign(msg_id, datetime.fromtimestamp(TIMESTAMP, UTC), BODY.decode())
    with pytest.raises(SignatureError, match="webhook-id"):
        signing.verify([SECRET], headers(id=msg_id, signature=fitting), BODY, TIMESTAMP)


def test_so_many_signatures_are_looked_at_and_no_more() -> None:
    other = "v1," + "A" * 43 + "="
    assert signing.verify([SECRET], headers(signature=" ".join([other] * 15 + [SIGNATURE])), BODY, TIMESTAMP)
    with pytest.raises(SignatureError, match="1 to 16"):
        signing.verify([SECRET], headers(signature=" ".join([other] * 16 + [SIGNATURE])), BODY, TIMESTAMP)


@pytest.mark.parametrize("body", [BODY + b" ", b"", BODY[:-1], b"\xff\xfe", b"{"])
def test_another_body_is_refused(body: bytes) -> None:
    with pytest.raises(SignatureError):
        signing.verify([SECRET], headers(), body, TIMESTAMP)


def test_another_id_timestamp_or_secret_is_refused() -> None:
    for changes in ({"id": "msg_2"}, {"timestamp": str(TIMESTAMP + 1)}):
        with pytest.raises(SignatureError, match="no signature matches"):
            signing.verify([SECRET], headers(**changes), BODY, TIMESTAMP)
    for secrets in ([OTHER], []):
        with pytest.raises(SignatureError, match="no signature matches"):
            signing.verify(secrets, headers(), BODY, TIMESTAMP)


def test_a_body_that_is_no_json_is_only_a_matter_of_its_signature() -> None:
    body = b"not JSON \x00"
    assert signing.verify([SECRET], signed(body), body, TIMESTAMP) == MESSAGE_ID


def test_a_refusal_never_quotes_what_was_sent_or_a_secret() -> None:
    for bad in (headers(id="<evil>"), headers(timestamp="<evil>"), headers(signature="<evil>"), headers(id="other")):
        with pytest.raises(SignatureError) as caught:
            signing.verify([SECRET], bad, BODY, TIMESTAMP)
        assert "evil" not in str(caught.value) and SECRET not in str(caught.value)


def test_every_secret_is_tried_also_after_one_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    original = standardwebhooks.Webhook.sign

    def sign(self: standardwebhooks.Webhook, msg_id: str, timestamp: datetime, data: str) -> str:
        tried.append(1)
        return original(self, msg_id, timestamp, data)

    monkeypatch.setattr(standardwebhooks.Webhook, "sign", sign)
    signing.verify([SECRET, OTHER, signing.generate_secret()], headers(), BODY, TIMESTAMP)
    assert len(tried) == 3


def test_secrets_are_whsec_and_24_to_64_bytes() -> None:
    assert signing.is_secret(SECRET) and signing.is_secret(OTHER) and len(OTHER) == 50
    for size, good in ((23, False), (24, True), (64, True), (65, False)):
        assert signing.is_secret("whsec_" + base64.b64encode(bytes(size)).decode()) is good
    for text in ("", "whsec_", SECRET[6:], SECRET + "!", SECRET + " ", "whsec_" + "ü" * 40, SECRET[:-1]):
        assert not signing.is_secret(text)


def test_signing_refuses_what_nobody_could_verify() -> None:
    for secrets, msg_id in (([], "a"), (["whsec_x"], "a"), ([SECRET], ""), ([SECRET], "a b")):
        with pytest.raises(ValueError, match=r"signed with|id has"):
            signing.sign(secrets, msg_id, TIMESTAMP, b"{}")


TEXTS = st.one_of(
    st.none(),
    st.text(max_size=200),
    st.from_regex(r"[0-9.eE+-]{0,400}", fullmatch=True),
    st.from_regex(r"(v[0-9]a?,[A-Za-z0-9+/=]{0,60} ?){0,20}", fullmatch=True),
    st.sampled_from([MESSAGE_ID, str(TIMESTAMP), SIGNATURE, "1" * 5000]),
)


@settings(max_examples=500, deadline=None)
@given(TEXTS, TEXTS, TEXTS, st.one_of(st.just(BODY), st.binary(max_size=200)), st.floats(0, 1e11))
@example("\ud800", str(TIMESTAMP), SIGNATURE, BODY, TIMESTAMP)
@example(MESSAGE_ID, str(TIMESTAMP), SIGNATURE + "\ud800", BODY, TIMESTAMP)
def test_nothing_but_a_refusal_escapes(
    msg_id: str | None, stamp: str | None, signature: str | None, body: bytes, now: float
) -> None:
    try:
        found = signing.verify([OTHER, SECRET], headers(id=msg_id, timestamp=stamp, signature=signature), body, now)
    except SignatureError:
        return
    assert (found, body, stamp) == (MESSAGE_ID, BODY, str(TIMESTAMP))


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 99_999_999_999), st.from_regex(signing.MESSAGE_ID, fullmatch=True), st.text(max_size=100))
def test_what_is_signed_verifies(now: int, msg_id: str, text: str) -> None:
    body = text.encode("utf-8", "replace")
    made = signing.sign([SECRET, OTHER], msg_id, now + 0.7, body)
    for secret in (SECRET, OTHER):
        assert signing.verify([secret], made, body, now) == msg_id


def test_derived_secrets_are_secrets_of_their_own() -> None:
    key, other = signing.generate_secret(), signing.generate_secret()
    made = [signing.derived_secret(*one) for one in ((key, "a|1"), (key, "a|2"), (other, "a|1"))]
    assert len({key, other, *made}) == 5
    assert all(map(signing.is_secret, made))
    assert signing.derived_secret(key, "a|1") == made[0]
