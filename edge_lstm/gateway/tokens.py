"""Who may connect: tokens by name from a file, compared in constant time."""

from __future__ import annotations

import hmac
from pathlib import Path

from edge_lstm.errors import ConfigError, raise_all

SHORTEST = 16


class Tokens:
    """names and tokens; without any everybody is let in, which only a loopback address may do."""

    def __init__(self, tokens: dict[str, str]) -> None:
        """tokens: by the name of who has them."""
        self._tokens = {name: token.encode() for name, token in tokens.items()}

    def __bool__(self) -> bool:
        return bool(self._tokens)

    def holder(self, given: str) -> str | None:
        """The name that a token belongs to; None of an unknown one.  Without tokens: "anyone"."""
        if not self._tokens:
            return "anyone"
        found = None
        for name, token in self._tokens.items():
            if hmac.compare_digest(token, given.encode()):
                found = name
        return found


def read_tokens(path: Path | None) -> Tokens:
    """The file's lines ``name:token``, empty ones and those with # left out; ConfigError for bad lines."""
    if path is None:
        return Tokens({})
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the token file {path}: {error}") from error
    tokens: dict[str, str] = {}
    problems = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, _, token = (part.strip() for part in line.partition(":"))
        if not name or len(token) < SHORTEST:
            problems.append(f"line {number}: expected name:token, the token of {SHORTEST} characters or more")
        elif name in tokens:
            problems.append(f"line {number}: '{name}' has a token already")
        tokens[name] = token
    if not tokens:
        problems.append("it holds no token; write lines name:token")
    raise_all(ConfigError, f"token file {path}", problems)
    return Tokens(tokens)
