"""Access tokens: what one is, what it allows, and how the file of them reads. Plain values: no file, no clock here.

A token is shown once, when it is made; what is kept is its SHA-256. A slow hash, as for passwords, would add nothing:
there is no guessing 256 random bits, however fast the guesses are, and each request would pay for it.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Literal, get_args

from sessiond import codec
from sessiond.codec import Value
from sessiond.errors import TokenError

Scope = Literal["read", "write", "destroy", "list", "admin"]

SCOPES: tuple[Scope, ...] = get_args(Scope)

APP_SCOPES: tuple[Scope, ...] = SCOPES[:-1]
"""What a token of one namespace may have; `admin` goes with no namespace."""

NEEDS: dict[str, frozenset[Scope]] = {
    "get": frozenset({"read"}),
    "get with renew": frozenset({"read", "write"}),  # it is a touch too, which may prolong a life by max_ttl
    "create": frozenset({"write"}),
    "set": frozenset({"write"}),
    "patch": frozenset({"write"}),
    "touch": frozenset({"write"}),
    "rotate": frozenset({"write"}),
    "destroy": frozenset({"destroy"}),
    "destroy_all": frozenset({"destroy"}),
    "destroy_all of everyone": frozenset({"admin"}),
    "list": frozenset({"list"}),
    "count": frozenset({"list"}),
    "watch": frozenset({"list"}),  # its events tell what a listing tells: keys and users
    "metrics": frozenset({"admin"}),
    "clock": frozenset({"admin"}),
}
"""Each action, and the scopes that it needs. What is not here (the API's description) any token may ask for."""

NAMESPACE = re.compile(r"[a-z][a-z0-9_-]{0,63}")
NAMESPACE_RULE = "a namespace is 1 to 64 of a-z, 0-9, _ and -, and begins with a letter"

DEFAULT_NAMESPACE = "default"
"""The namespace that is always there: of requests without a token, and of an admin's that names none."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HASH = re.compile(r"[0-9a-f]{64}")
_PREFIX = "sessiond"  # so that a scanner for secrets knows one when it finds it in a repository
_ID_BYTES, _SECRET_BYTES = 6, 32

RandomBytes = Callable[[int], bytes]


class Token(Value, frozen=True):
    """`id`: shown in listings, and the part of the text by which it is found. `hash`: SHA-256 of its whole text, in hex.
    `namespace` None: an admin's, who works in any. `lifetime`: what it was given, which its successors get too, in ms;
    None: it does not expire. `expires_at`: when it ends, an instant in ms, which a rotation may bring nearer."""

    id: str
    name: str
    hash: str
    namespace: str | None
    scopes: tuple[Scope, ...]
    created_at: int
    lifetime: int | None
    expires_at: int | None

    def is_valid(self, now: int) -> bool:
        return self.expires_at is None or now < self.expires_at


class _File(Value, frozen=True, forbid_unknown_fields=True):
    format: int
    tokens: tuple[Token, ...]


class Grant(Value, frozen=True):
    """What a request may do: the actions that it may take in its namespace. `token` None: nobody is asked for one."""

    namespace: str
    token: Token | None = None
    actions: frozenset[str] = frozenset(NEEDS)


class Tokens:
    """Some tokens, none twice; never changed, only replaced."""

    def __init__(self, tokens: Iterable[Token] = ()) -> None:
        self._by_id = {token.id: token for token in tokens}

    def __iter__(self) -> Iterator[Token]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def holds(self, token: Token, now: int) -> bool:
        """Whether a token that was found once is valid now for the same: a rotation may have brought its end nearer."""
        kept = self._by_id.get(token.id, _NOBODY)
        return kept.is_valid(now) and codec.replace(kept, expires_at=token.expires_at) == token

    def find(self, text: str, now: int) -> Token | None:
        """The token that this is the text of, if it is valid now.

        Found by its id, which is no secret, and then compared in constant time. One that is not there is compared too,
        so that the time tells nothing.
        """
        ident = text.partition("_")[2].partition("_")[0]
        token = self._by_id.get(ident, _NOBODY)
        is_same = hmac.compare_digest(token.hash, hash_of(text))
        return token if is_same and token is not _NOBODY and token.is_valid(now) else None

    def namespaces(self) -> set[str]:
        """Those that a token is bound to."""
        return {token.namespace for token in self if token.namespace is not None}


_NOBODY = Token("", "", "0" * 64, None, (), 0, None, None)


def hash_of(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def grant(token: Token, namespace: str | None) -> Grant | None:
    """What a token allows in the namespace that its bearer names, or in its own; None: it has no business there."""
    bound = token.namespace
    if bound is not None and namespace is not None and namespace != bound:
        return None
    return Grant(bound or namespace or DEFAULT_NAMESPACE, token, _actions(token.scopes))


@lru_cache(maxsize=128)
def _actions(scopes: tuple[Scope, ...]) -> frozenset[str]:
    """Remembered, because every request asks."""
    return frozenset(action for action, needed in NEEDS.items() if needed <= {*scopes})


def check_namespace(name: str) -> str:
    """ValueError unless it can be the name of a namespace."""
    if NAMESPACE.fullmatch(name) is None:
        raise ValueError(NAMESPACE_RULE)
    return name


# Making and changing them ---------------------------------------------------------------------------


def add(
    tokens: Tokens,
    name: str,
    namespace: str | None,
    scopes: Sequence[Scope],
    now: int,
    lifetime: int | None = None,
    random: RandomBytes = secrets.token_bytes,
) -> tuple[Tokens, Token, str]:
    """The tokens with a new one, that one, and its text. `lifetime` in ms; None: it does not expire."""
    if any(token.name == name for token in tokens):
        raise TokenError(
            f"there is a token {name} already: `sessiond token rotate {name}` makes its successor, or choose another name."
        )
    token, text = _make(name, namespace, scopes, now, lifetime, random)
    return Tokens([*tokens, token]), token, text


def rotate(
    tokens: Tokens,
    name: str,
    now: int,
    overlap: int,
    lifetime: int | None = None,
    random: RandomBytes = secrets.token_bytes,
) -> tuple[Tokens, Token, str]:
    """As `add`: a successor that may do the same. Those before it stay valid for `overlap` ms at most.

    `lifetime` None: that of the one before.
    """
    former = [token for token in tokens if token.name == name]
    if not former:
        raise _unknown()
    last = former[-1]
    lifetime = last.lifetime if lifetime is None else lifetime
    token, text = _make(name, last.namespace, last.scopes, now, lifetime, random)
    end = now + overlap
    kept = [
        codec.replace(each, expires_at=min(each.expires_at or end, end)) if each.name == name else each
        for each in tokens
        if each.name != name or (overlap > 0 and each.is_valid(now))
    ]
    return Tokens([*kept, token]), token, text


def revoke(tokens: Tokens, which: str) -> tuple[Tokens, list[Token]]:
    """The tokens without those of that name, or without the one of that id; and those that went."""
    gone = [token for token in tokens if which in (token.name, token.id)]
    if not gone:
        raise _unknown()
    return Tokens(token for token in tokens if token not in gone), gone


def _make(
    name: str, namespace: str | None, scopes: Sequence[Scope], now: int, lifetime: int | None, random: RandomBytes
) -> tuple[Token, str]:
    ident = random(_ID_BYTES).hex()
    text = f"{_PREFIX}_{ident}_{random(_SECRET_BYTES).hex()}"
    ordered = tuple(scope for scope in SCOPES if scope in scopes)
    expires_at = None if lifetime is None else now + lifetime
    token = Token(ident, name, hash_of(text), namespace, ordered, now, lifetime, expires_at)
    _check(token)
    return token, text


def _check(token: Token) -> None:
    """The rules that the types do not hold. TokenError says which is broken."""
    if _NAME.fullmatch(token.name) is None:
        raise TokenError("the name of a token is 1 to 64 letters, digits, dots, _ and -, and begins with no sign.")
    if token.namespace is not None and NAMESPACE.fullmatch(token.namespace) is None:
        raise TokenError(f"the token {token.name} cannot be bound to that: {NAMESPACE_RULE}.")
    if not token.scopes:
        raise TokenError(f"the token {token.name} has no scope: give it one of {', '.join(SCOPES)}.")
    if ("admin" in token.scopes) is not (token.namespace is None):
        raise TokenError(
            f"the token {token.name} has to be either bound to a namespace or an admin's: "
            "the scope admin goes with no namespace."
        )


def _unknown() -> TokenError:
    return TokenError("there is no token of that name or id; `sessiond token list` shows them.")


# The file -------------------------------------------------------------------------------------------

FORMAT = 1

_read_file = codec.json_reader_of(_File)


def read(data: bytes) -> Tokens:
    """The tokens in the bytes of a file. TokenError says in one clause what is wrong with it; it repeats no content."""
    try:
        found = _read_file(data)
    except (ValueError, RecursionError) as e:
        where = str(e).rpartition(" - at ")[2].strip("`") if " - at " in str(e) else ""
        raise TokenError(f"it is not a list of tokens as sessiond writes it{where and f', at {where}'}") from e
    if found.format != FORMAT:
        raise TokenError("it was written by another version of sessiond")
    for token in found.tokens:
        _check(token)
        if _HASH.fullmatch(token.hash) is None:
            raise TokenError(f"the hash of the token {token.name} is not 64 digits of hex")
    tokens = Tokens(found.tokens)
    if len(tokens) != len(found.tokens):
        raise TokenError("two of its tokens have one id")
    return tokens


def write(tokens: Tokens) -> bytes:
    return codec.to_readable_json(_File(FORMAT, tuple(tokens)))
