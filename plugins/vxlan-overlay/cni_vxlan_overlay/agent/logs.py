# SPDX-License-Identifier: Apache-2.0
"""The agent's log: lines for people, or one JSON object a line, on standard error."""

from __future__ import annotations

import datetime
import json
import logging
import sys
import traceback


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = f"{_time(record)} {record.levelname.lower()}: {record.getMessage()}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


class _Json(logging.Formatter):
    """Keys: time (RFC 3339), level, logger, message; exception where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        document = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name.rpartition(".")[2],
            "message": record.getMessage(),
        }
        if record.exc_info:
            document["exception"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(document, ensure_ascii=False)


def _time(record: logging.LogRecord) -> str:
    when = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def count(number: int, one: str, many: str = "") -> str:
    """A number and its noun: "1 peer", "2 peers". many: where that is not one with an s."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def setup(log_format: str, level: str) -> None:
    """Send all logs to standard error. log_format: "text" or "json". level: "info", ..."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if log_format == "json" else _Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # What libraries say of each of their requests is for whoever debugs them.
    for name in ("httpx2", "httpx", "httpcore", "httpcore2", "pyroute2", "asyncio", "lightkube"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
